// Tests that text from other systems cannot control a terminal or forge a line.
import { describe, expect, test } from 'vitest';
import { sanitize, sanitizeName } from '../../lib/text.ts';

describe('sanitize', () => {
  test.each([
    { what: 'line breaks and tabs', text: 'a\r\n\tb\u0085c\u2028d\u2029e', line: 'a b c d e' },
    { what: 'escape sequences', text: '\u001b]0;owned\u0007\u009b2J', line: '\ufffd]0;owned\ufffd\ufffd2J' },
    { what: 'marks of direction', text: 'a\u202eb\u2066c', line: 'a\ufffdb\ufffdc' },
    { what: 'invisible characters', text: 'a\u200bb\u00adc\0d', line: 'a\ufffdb\ufffdc\ufffdd' },
    { what: 'half of a surrogate pair', text: 'a\ud800', line: 'a\ufffd' },
  ])('replaces $what', ({ text, line }) => {
    expect(sanitize(text)).toBe(line);
    expect(sanitize(line)).toBe(line);
  });

  test('keeps printable text of any language', () => {
    const text = 'Grüße,  東京, naïve ✔ → … 👍';
    expect(sanitize(text)).toBe(text);
  });
});

describe('sanitizeName', () => {
  test('sanitizes, and shortens a name to 200 characters', () => {
    expect(sanitizeName(`a\n${'x'.repeat(300)}`)).toBe(`a ${'x'.repeat(198)}…`);
    expect(sanitizeName('x'.repeat(200))).toBe('x'.repeat(200));
  });
});
