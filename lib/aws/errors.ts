// Tells permanent errors of AWS from those that a later request may not have.

/** Names of throttling errors, whose HTTP status is 400 or 429 (STS and EKS API references, "Common Errors"). */
const THROTTLED: ReadonlySet<string> = new Set([
  'Throttling',
  'ThrottlingException',
  'TooManyRequestsException',
]);

/** Whether AWS refused the request (HTTP 4xx), and not because of throttling. */
export function isPermanentAwsError(error: Error): boolean {
  const { $metadata } = error as { $metadata?: { httpStatusCode?: number } };
  const status = $metadata?.httpStatusCode ?? 0;
  return status >= 400 && status < 500 && !THROTTLED.has(error.name);
}
