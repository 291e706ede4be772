// Makes text from other systems safe for logs and terminals. Pure.

/** The ARN of an EKS cluster, by which the AWS CLI names kubeconfig entries, is not longer. */
const MAX_NAME_LENGTH = 200;

/**
 * Puts text on one line, without the characters that a terminal obeys or that change the order of the others. A run of
 * tabs and line breaks becomes a space, each other unprintable character (Unicode, General_Category C)
 * becomes U+FFFD.
 */
export function sanitize(text: string): string {
  return text.replaceAll(/[\t-\r\u0085\p{Zl}\p{Zp}]+/gu, ' ').replaceAll(/\p{C}/gu, '\ufffd');
}

/** Sanitizes a name for a message, and shortens it to 200 characters. */
export function sanitizeName(name: string): string {
  const line = sanitize(name);
  return line.length > MAX_NAME_LENGTH ? `${line.slice(0, MAX_NAME_LENGTH)}…` : line;
}
