// Runs the function's deployed bundle in its own process, for tests of what the local AWS does not have.
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { OPERATOR_ALIAS, type RefreshAnswer } from '../../contract/refresher-api.ts';
import { ENVIRONMENT } from '../../functions/refresher/settings.ts';
import { keepEvidence } from '../bed/evidence.ts';
import { synthWithBundle } from '../infra/synth.ts';

export interface Invocation {
  readonly answer: RefreshAnswer;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** The peak of resident memory. */
  readonly maxMib: number;
  /** The lines of standard output. */
  readonly lines: readonly string[];
}

/** Accepts every event. */
const ALIAS_ARN = `arn:aws:lambda:eu-central-1:111122223333:function:refresher:${OPERATOR_ALIAS}`;

export interface InvokeOptions {
  readonly event?: object;
  /** The environment; the CDK app's defaults are added. */
  readonly env: Readonly<Record<string, string>>;
  readonly heapMib?: number;
}

/** Writes the bundle to a folder. @returns a function that invokes it */
export function bundleIn(dir: string): (options: InvokeOptions) => Promise<Invocation> {
  const bundle = join(synthWithBundle(dir), 'index.mjs');
  return async ({ event = {}, env, heapMib = 256 }) => {
    const program = `
      const { handler } = await import(${JSON.stringify(bundle)});
      const startedAt = performance.now();
      const answer = await handler(${JSON.stringify(event)}, { awsRequestId: 'request-1', invokedFunctionArn: ${JSON.stringify(ALIAS_ARN)}, getRemainingTimeInMillis: () => 900_000 });
      const { userCPUTime, systemCPUTime, maxRSS } = process.resourceUsage();
      const seconds = (performance.now() - startedAt) / 1000;
      const figures = { answer, seconds, cpuSeconds: (userCPUTime + systemCPUTime) / 1e6, maxMib: maxRSS / 1024 };
      process.stdout.write(JSON.stringify(figures), () => process.exit(0));`;
    const { stdout, stderr } = await promisify(execFile)(
      process.execPath,
      [`--max-old-space-size=${heapMib}`, '--input-type=module', '-e', program],
      {
        env: {
          [ENVIRONMENT.clusterDeadline]: '120',
          [ENVIRONMENT.clusterConcurrency]: '25',
          [ENVIRONMENT.allowLocalServers]: 'true',
          AWS_LAMBDA_FUNCTION_NAME: 'refresher',
          ...env,
        },
        maxBuffer: 64 * 1024 * 1024,
      },
    );
    // Warnings and errors of the log go to stderr.
    const output = `${stderr}${stdout}`.trim();
    keepEvidence('log', 'function', output);
    const lines = output.split('\n');
    return { ...JSON.parse(lines.at(-1) ?? ''), lines };
  };
}
