// What a command has begun is taken back where it cannot be ended: each change is noted here before it is made.

import { CliError, InterruptedError } from '../output/errors.ts';
import type { AwsOptions } from '../output/options.ts';
import { Aws } from './aws.ts';

/** What takes back something that was done. */
export interface RollbackStep {
  /** As far as it was done; idempotent. @param aws of somebody who waits for it. @throws Error */
  run(aws: Aws): Promise<void>;
  /** The command for it, where that fails. */
  readonly byHand: string;
}

const UNDO_WITHIN_MS = 20_000;

/** All that a command has begun. */
export class Rollback {
  readonly #undos: RollbackStep[] = [];
  readonly #left: string[] = [];

  /** Before anything is done: who knows whether an answer that is lost was a yes. */
  note(undo: RollbackStep): void {
    this.#undos.unshift(undo);
  }

  /** What nothing takes back. @param left a sentence, with the way out */
  addManualStep(left: string): void {
    this.#left.push(left);
  }

  /** Takes it back, newest first, whatever ended it. @returns the failure, which says what is left */
  async run(options: AwsOptions, failure: unknown): Promise<unknown> {
    for (const { run, byHand } of this.#undos) {
      await run(new Aws(options, AbortSignal.timeout(UNDO_WITHIN_MS))).catch((error: Error) => {
        // Also where it was asked to be quiet: something is left that nobody else will find.
        process.stderr.write(
          `ecr-anywhere: what was begun could not be taken back: ${error.message}\n  → ${byHand}\n`,
        );
      });
    }
    if (this.#left.length === 0 || !(failure instanceof CliError)) return failure;
    const { code, message, hint } = failure;
    const all = [...(hint ? [hint] : []), ...this.#left].join('; ');
    if (code === 'interrupted') return new InterruptedError(message, all);
    return new CliError(code, message, all, failure);
  }
}

/** The requests that make one change, and whether AWS may have made it. */
export class Attempt {
  #mayBeMade = false;

  get mayBeMade(): boolean {
    return this.#mayBeMade;
  }

  async make<Answer>(send: () => Promise<Answer>): Promise<Answer> {
    let isRefused = false;
    try {
      return await send();
    } catch (error) {
      isRefused = wasRefused(error);
      throw error;
    } finally {
      this.#mayBeMade ||= !isRefused;
    }
  }
}

/**
 * Whether AWS has said no to the one request that there was, and so has done nothing: there is nothing to take back,
 * and perhaps no right to. After an answer that was lost, a no to the next request (throttled, say) tells nothing.
 */
function wasRefused(error: unknown): boolean {
  const { httpStatusCode = 0, attempts = 1 } =
    (error as { $metadata?: { httpStatusCode?: number; attempts?: number } }).$metadata ?? {};
  return attempts === 1 && httpStatusCode >= 400 && httpStatusCode < 500;
}
