// Tells permanent errors of AWS from those that a later request may not have, and describes them.

/** Names of throttling errors, whose HTTP status is 400 or 429 (STS and EKS API references, "Common Errors"). */
const THROTTLED: ReadonlySet<string> = new Set([
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);

/** The error's name and message; of a request that exceeded its time limit, only that. */
export function describeAwsError(error: Error): string {
  const { name, message, code } = error as NodeJS.ErrnoException;
  // The SDK gives closed connections the same name.
  const isTimeout = name === 'TimeoutError' && (code === undefined || code === 'ETIMEDOUT');
  return isTimeout ? 'no answer in time' : `${name}: ${message}`;
}

/** Whether AWS refused the request (HTTP 4xx), and not because of throttling. */
export function isPermanentAwsError(error: Error): boolean {
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  const status = $metadata?.httpStatusCode ?? 0;
  return status >= 400 && status < 500 && !THROTTLED.has(error.name);
}
