// Where a cluster failed that could not be served. Said by whoever throws, so that nobody reads it out of a sentence.

/**
 * - `kubeconfig`: what is registered cannot be had or used; or EKS or STS, asked for it, say no
 * - `setting`: a setting of the CDK app is missing, or one of the account that it needs
 * - `reach`: no answer, or one that is none of the API server's; also that the time was up
 * - `credential`: the API server takes nobody for it (401)
 * - `permissions`: the API server knows who it is, and forbids what a turn needs (403, in its own words)
 */
export type FailedAt = 'kubeconfig' | 'setting' | 'reach' | 'credential' | 'permissions';

/** A failure that says where it is. */
export class PlacedError extends Error {
  override readonly name: string = 'PlacedError';
  readonly failedAt: FailedAt;

  constructor(failedAt: FailedAt, message: string, options?: ErrorOptions) {
    super(message, options);
    this.failedAt = failedAt;
  }
}

/** Where a failure is: what does not say it did not get through. */
export function failedAtOf(error: unknown): FailedAt {
  return error instanceof PlacedError ? error.failedAt : 'reach';
}

/** As AWS says that it is asked too often, with 400 or 429 (STS and EKS API references, "Common Errors"). */
const THROTTLED: ReadonlySet<string> = new Set([
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);

/** Whether AWS has said no, and will again: it is neither silent nor throttled nor failing itself. */
export function isRefusalOfAws(error: Error): boolean {
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  const status = $metadata?.httpStatusCode ?? 0;
  return status >= 400 && status < 500 && !THROTTLED.has(error.name);
}
