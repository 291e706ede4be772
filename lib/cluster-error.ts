// The errors of a cluster that could not be served. The code that throws sets place and code; callers do not parse the
// message.
import type { FailedAt, FailureCode } from '../contract/refresher-api.ts';

/** The code of an error that is thrown without one. */
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

/** The place of any error; `reach` for an error without one. */
export function failedAtOf(error: unknown): FailedAt {
  return error instanceof ClusterError ? error.failedAt : 'reach';
}

/** The code of any error. */
export function codeOf(error: unknown): FailureCode {
  return error instanceof ClusterError ? error.code : 'unknown';
}
