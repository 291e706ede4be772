// Tables: in a terminal the last column is wrapped and loses its middle, in a file nothing is lost.
import { stripVTControlCharacters } from 'node:util';
import { expect, test } from 'vitest';
import { table, truncate } from '../../../cli/output/table.ts';

const REASON = `PATCH /api/v1/secrets/x: ${'failed calling webhook '.repeat(9)}connection refused`;
const HEAD = ['CLUSTER', 'REASON'];

test('in a file: one line a row, whole, and no spaces at its end', () => {
  const lines = table(HEAD, [
    ['a', REASON],
    ['longer', ''],
  ]).split('\n');
  expect(lines).toEqual(['CLUSTER   REASON', `a         ${REASON}`, 'longer']);
});

test.each([40, 80, 132])('in a terminal of %i columns no line is longer', (columns) => {
  const lines = table(HEAD, [['a', REASON]], { columns, lines: 2 }).split('\n');
  for (const line of lines) expect(line.length).toBeLessThanOrEqual(columns);
  expect(lines.length).toBeLessThanOrEqual(4);
  // How it began, and how it ended.
  expect(lines.join(' ')).toContain('PATCH');
  expect(lines.join(' ')).toContain('refused');
});

test('a terminal too narrow for anything still shows it', () => {
  expect(table(HEAD, [['a', 'short']], { columns: 5 })).toContain('short');
});

test('without a head there is no line for it', () => {
  expect(table([], [['a', 'b']])).toBe('a   b');
});

test('colours have no width', () => {
  const [, first = '', second = ''] = table(HEAD, [
    ['\u001b[31mred\u001b[39m', 'x'],
    ['blue', 'x'],
  ]).split('\n');
  expect(stripVTControlCharacters(first).indexOf('x')).toBe(second.indexOf('x'));
});

test.each([
  { text: 'abcdefghij', max: 10, shown: 'abcdefghij' },
  { text: 'abcdefghij', max: 9, shown: 'abc … hij' },
  { text: 'abcdefghij', max: 8.9, shown: 'abc … ij' },
])('$text in $max', ({ text, max, shown }) => {
  expect(truncate(text, max)).toBe(shown);
});
