// Durations: Go's syntax is read, and at most two units are written.
import { describe, expect, test } from 'vitest';
import { formatDuration, parseDuration } from '../../../cli/output/duration.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

describe('parseDuration', () => {
  test.each([
    ['168h', 168 * HOUR],
    ['90s', 90_000],
    ['1h30m', 90 * MINUTE],
    ['1.5h', 90 * MINUTE],
    ['1m500ms', 60_500],
    // A plain number counts the unit of the option.
    ['168', 168 * HOUR],
    ['0.5', HOUR / 2],
    ['0', 0],
  ])('reads %s as %i ms', (text, ms) => {
    expect(parseDuration(text, HOUR)).toBe(ms);
  });

  test.each(['', ' ', 'long', '7d', '1h ', '1 h', '-1h', '1e9', 'h', '1h30', '1h30m!', '0x10', 'Infinity'])(
    'rejects %j',
    (text) => {
      expect(parseDuration(text, HOUR)).toBeUndefined();
    },
  );
});

describe('formatDuration', () => {
  test.each([
    [0, '0m'],
    [59_999, '0m'],
    [MINUTE, '1m'],
    [HOUR - 1, '59m'],
    [HOUR, '1h 0m'],
    [11 * HOUR + 59 * MINUTE, '11h 59m'],
    [24 * HOUR, '1d 0h'],
    [25 * HOUR, '1d 1h'],
    [-3 * MINUTE, '-3m'],
    [-25 * HOUR, '-1d 1h'],
    [-30_000, '0m'],
  ])('writes %i ms as %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text);
  });
});
