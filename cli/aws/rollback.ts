// Rolls back what a failed command has changed. Each change is recorded before it is requested.

import { CliError, InterruptedError } from '../output/errors.ts';
import type { AwsOptions } from '../output/options.ts';
import { Aws } from './aws.ts';

/** How to revert one change. */
export interface RollbackStep {
  /** Reverts the change, as far as it was made. Idempotent. @param aws with a time limit of its own @throws Error */
  revert(aws: Aws): Promise<void>;
  /** The shell command that does the same. Printed if `revert` fails. */
  manualCommand(): string;
}

const STEP_TIMEOUT_MS = 20_000;

/** The changes of one command. */
export class Rollback {
  readonly #steps: { readonly step: RollbackStep; readonly change: Change }[] = [];
  readonly #manualSteps: string[] = [];

  /** Records a change. The caller requests it with `Change.send`. */
  add(step: RollbackStep): Change {
    const change = new Change();
    this.#steps.unshift({ step, change });
    return change;
  }

  /** Records a change that only the operator can revert. @param hint a sentence with the command */
  addManualStep(hint: string): void {
    this.#manualSteps.push(hint);
  }

  /** Reverts all changes, newest first. @returns the failure, with the manual steps added to its hint */
  async run(options: AwsOptions, failure: unknown): Promise<unknown> {
    for (const { step, change } of this.#steps) {
      if (!change.mayHaveSucceeded) continue;
      await step.revert(new Aws(options, AbortSignal.timeout(STEP_TIMEOUT_MS))).catch((error: Error) => {
        // Ignores --quiet: otherwise the operator would not learn that something is left behind.
        process.stderr.write(
          `ecr-anywhere: A change could not be rolled back: ${error.message}\n  → ${step.manualCommand()}\n`,
        );
      });
    }
    if (this.#manualSteps.length === 0 || !(failure instanceof CliError)) return failure;
    const { code, message } = failure;
    const hints = [...(failure.hint ? [failure.hint.replace(/\.$/, '')] : []), ...this.#manualSteps];
    const hint = hints.join('; ');
    return code === 'interrupted'
      ? new InterruptedError(message, hint)
      : new CliError(code, message, hint, failure);
  }
}

/** One change, and whether the server may have made it. */
export class Change {
  #mayHaveSucceeded = false;

  get mayHaveSucceeded(): boolean {
    return this.#mayHaveSucceeded;
  }

  /**
   * Requests the change. It may be called again, to retry.
   *
   * @param isRejection whether an error proves that the server did not make the change
   */
  async send<Response>(request: () => Promise<Response>, isRejection = isAwsRejection): Promise<Response> {
    let isRejected = false;
    try {
      return await request();
    } catch (error) {
      isRejected = isRejection(error);
      throw error;
    } finally {
      this.#mayHaveSucceeded ||= !isRejected;
    }
  }
}

/**
 * Whether AWS rejected the only attempt, so that there is nothing to revert. If the SDK has retried, the response to an
 * earlier attempt was lost, and that attempt may have succeeded: a rejection of the last one (throttled, say) proves nothing.
 */
function isAwsRejection(error: unknown): boolean {
  const { httpStatusCode = 0, attempts = 1 } =
    (error as { $metadata?: { httpStatusCode?: number; attempts?: number } }).$metadata ?? {};
  return attempts === 1 && httpStatusCode >= 400 && httpStatusCode < 500;
}
