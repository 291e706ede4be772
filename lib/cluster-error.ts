// Where a cluster failed that could not be served. Said by whoever throws, so that nobody reads it out of a sentence.
import type { FailedAt } from '../contract/refresher-api.ts';

/** A failure that says where it is. */
export class ClusterError extends Error {
  override readonly name: string = 'ClusterError';
  readonly failedAt: FailedAt;

  constructor(failedAt: FailedAt, message: string, options?: ErrorOptions) {
    super(message, options);
    this.failedAt = failedAt;
  }
}

/** Where a failure is: what does not say it did not get through. */
export function failedAtOf(error: unknown): FailedAt {
  return error instanceof ClusterError ? error.failedAt : 'reach';
}
