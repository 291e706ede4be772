// Parses responses so that no text in them can control the terminal: an escape sequence can write to the clipboard, a
// line break can forge a row, a direction mark can make one name look like another.

import { sanitize } from '../../lib/text.ts';

export { sanitize };

/** Parses JSON and sanitizes every string in it, property names included. @throws SyntaxError */
export function parseSanitized(json: string): unknown {
  return JSON.parse(json, (_, value: unknown) => {
    if (typeof value === 'string') return sanitize(value);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, of]) => [sanitize(name), of]));
  });
}
