// Where a cluster failed that could not be served. Said by whoever throws, so that nobody reads it out of a sentence.
import type { FailedAt, FailureCode } from '../contract/refresher-api.ts';

/** The code of a failure for which the place says it all. */
const DEFAULT_CODE: Readonly<Record<FailedAt, FailureCode>> = {
  kubeconfig: 'kubeconfig-unusable',
  setting: 'setting-missing',
  reach: 'unreachable',
  credential: 'unauthorized',
  permissions: 'forbidden',
};

/** A failure with its place and its code. */
export class ClusterError extends Error {
  override readonly name: string = 'ClusterError';
  readonly failedAt: FailedAt;
  readonly code: FailureCode;

  constructor(
    failedAt: FailedAt,
    message: string,
    options: ErrorOptions & { readonly code?: FailureCode | undefined } = {},
  ) {
    super(message, options);
    this.failedAt = failedAt;
    this.code = options.code ?? DEFAULT_CODE[failedAt];
  }
}

/** Where a failure is: what does not say it did not get through. */
export function failedAtOf(error: unknown): FailedAt {
  return error instanceof ClusterError ? error.failedAt : 'reach';
}

/** The code of any error. */
export function codeOf(error: unknown): FailureCode {
  return error instanceof ClusterError ? error.code : 'unknown';
}
