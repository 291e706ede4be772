// Shows the progress of the demo and the test bed: one line per step, with its duration.
import { Listr, type ListrTask, PRESET_TIMER } from 'listr2';

/** Runs steps in sequence. @throws the error of the first failing step */
export async function runSteps(steps: ListrTask[]): Promise<void> {
  const options = {
    renderer: 'default',
    fallbackRenderer: 'simple',
    rendererOptions: { timer: PRESET_TIMER, collapseErrors: false },
    fallbackRendererOptions: { timer: PRESET_TIMER },
  } as const;
  await new Listr(steps, options).run();
}
