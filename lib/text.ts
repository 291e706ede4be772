// Text from other systems, made safe for logs and terminals. Pure.

/** As long as the ARNs of EKS, by which the AWS CLI names entries, can be. */
const SHOWN_LENGTH = 200;

/** What somebody else says, as one line that no terminal obeys: its order of characters neither. */
export function singleLine(text: string): string {
  return text.replaceAll(/[\t-\r\u0085\p{Zl}\p{Zp}]+/gu, ' ').replaceAll(/\p{C}/gu, '\ufffd');
}

/** A name of somebody's own, for a message: in one line, and no longer than it need be to be found. */
export function sanitizeName(name: string): string {
  // Other characters than controls can end a line, too, or turn it round.
  const line = name.replaceAll(/[\p{C}\p{Zl}\p{Zp}]/gu, '\ufffd');
  return line.length > SHOWN_LENGTH ? `${line.slice(0, SHOWN_LENGTH)}…` : line;
}
