// What errors of the AWS SDK mean.

/** As AWS says that it is asked too often, with 400 or 429 (STS and EKS API references, "Common Errors"). */
const THROTTLED: ReadonlySet<string> = new Set([
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);

/** Whether AWS has said no, and will again: it is neither silent nor throttled nor failing itself. */
export function isPermanentAwsError(error: Error): boolean {
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  const status = $metadata?.httpStatusCode ?? 0;
  return status >= 400 && status < 500 && !THROTTLED.has(error.name);
}
