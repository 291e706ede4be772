// How the demo and the bed show what they are doing: a line a step, with the time it took.
import { Listr, type ListrTask, PRESET_TIMER } from 'listr2';

/** Runs steps one after the other. @throws what the first failing step threw */
export async function runSteps(steps: ListrTask[]): Promise<void> {
  const options = {
    renderer: 'default',
    fallbackRenderer: 'simple',
    rendererOptions: { timer: PRESET_TIMER, collapseErrors: false },
    fallbackRendererOptions: { timer: PRESET_TIMER },
  } as const;
  await new Listr(steps, options).run();
}
