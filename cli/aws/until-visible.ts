// Waits until AWS shows a change. "All Secrets Manager operations are eventually consistent" (API reference, ListSecrets), so
// a request that names a secret may miss what was changed a moment ago.
import { setTimeout as sleep } from 'node:timers/promises';
import { CliError } from '../output/errors.ts';

const VISIBLE_WITHIN_MS = 15_000;
const RETRY_MS = 1_000;

/**
 * Repeats a request while its result is older than the change.
 *
 * @param isOld judges the result, or the error
 * @returns the last result
 * @throws CliError the last error
 */
export async function untilVisible<Result>(
  request: () => Promise<Result>,
  isOld: (outcome: Result | CliError) => boolean,
  signal: AbortSignal,
): Promise<Result> {
  const deadline = Date.now() + VISIBLE_WITHIN_MS;
  for (;;) {
    const isLast = Date.now() >= deadline;
    try {
      const result = await request();
      if (isLast || !isOld(result)) return result;
    } catch (error) {
      if (isLast || !(error instanceof CliError) || !isOld(error)) throw error;
    }
    await sleep(RETRY_MS, undefined, { signal });
  }
}

/** Whether AWS does not know the secret or its version. */
export function isMissing(outcome: unknown): boolean {
  return (
    outcome instanceof CliError &&
    outcome.cause instanceof Error &&
    outcome.cause.name === 'ResourceNotFoundException'
  );
}
