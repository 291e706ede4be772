// Others' words on their way to a terminal: an escape sequence in a reason writes to the clipboard, a newline in a name
// makes a row that nobody has printed, a mark of direction has a name read as another.

/** Controls, formats, what is no character, and separators of lines and paragraphs (Unicode, General_Category). */
const UNPRINTABLE = /[\p{C}\p{Zl}\p{Zp}]+/gu;

/** A text in one line, of which a terminal shows each character and obeys none. */
export function sanitize(text: string): string {
  return text.replaceAll(UNPRINTABLE, ' ');
}

/** What JSON holds, with every string in it printable, names too. @throws SyntaxError */
export function parseSanitized(json: string): unknown {
  return JSON.parse(json, (_, value: unknown) => {
    if (typeof value === 'string') return sanitize(value);
    if (typeof value !== 'object' || value === null || Array.isArray(value)) return value;
    return Object.fromEntries(Object.entries(value).map(([name, of]) => [sanitize(name), of]));
  });
}
