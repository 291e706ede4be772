// Tests the freshness rule at each of its boundaries: one second before, at, and one second after it.
import { describe, expect, test } from 'vitest';
import {
  CLOCK_TOLERANCE_MS,
  formatTime,
  freshness,
  parseTime,
  REFRESH_WINDOW_MS,
  TOKEN_LIFETIME_MS,
} from '../../contract/freshness.ts';

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const NOW = Date.UTC(2026, 2, 1, 12, 0, 0);

test('a token lives 12 hours, is due in the last six, and clocks may differ by one hour', () => {
  expect([TOKEN_LIFETIME_MS, REFRESH_WINDOW_MS, CLOCK_TOLERANCE_MS]).toEqual([12 * HOUR, 6 * HOUR, HOUR]);
});

describe('the verdict changes', () => {
  test.each([
    { boundary: 'after the expiry', at: 0, before: 'expired', exact: 'expired', after: 'expiring' },
    {
      boundary: 'after the refresh window',
      at: 6 * HOUR,
      before: 'expiring',
      exact: 'expiring',
      after: 'fresh',
    },
    {
      boundary: 'after the longest plausible lifetime',
      at: 13 * HOUR,
      before: 'fresh',
      exact: 'fresh',
      after: 'expiry-implausible',
    },
  ])('$boundary', ({ at, before, exact, after }) => {
    const verdict = (ahead: number) => {
      const result = freshness(formatTime(NOW + ahead), NOW);
      return result.due ? result.reason : 'fresh';
    };
    expect([verdict(at - SECOND), verdict(at), verdict(at + SECOND)]).toEqual([before, exact, after]);
  });

  test.each([
    { jitter: 0, at: 6 * HOUR },
    { jitter: 17 * MINUTE, at: 6 * HOUR + 17 * MINUTE },
    { jitter: HOUR, at: 7 * HOUR },
  ])('$jitter ms earlier with that jitter', ({ jitter, at }) => {
    const due = (ahead: number) => freshness(formatTime(NOW + ahead), NOW, jitter).due;
    expect([due(at - SECOND), due(at), due(at + SECOND)]).toEqual([true, true, false]);
  });

  test.each([
    { ahead: -SECOND, reason: 'expired' },
    { ahead: 0, reason: 'expired' },
    { ahead: 13 * HOUR + SECOND, reason: 'expiry-implausible' },
  ])('not with a jitter if the expiry is $ahead ms ahead: $reason', ({ ahead, reason }) => {
    expect(freshness(formatTime(NOW + ahead), NOW, HOUR)).toMatchObject({ due: true, reason });
  });

  test('as the clock advances', () => {
    const expiry = NOW + 12 * HOUR;
    const due = (at: number) => freshness(formatTime(expiry), at).due;
    expect(due(NOW)).toBe(false);
    expect([due(NOW + 6 * HOUR - SECOND), due(NOW + 6 * HOUR), due(NOW + 6 * HOUR + SECOND)]).toEqual([
      false,
      true,
      true,
    ]);
  });

  test('not for a new token if the clock is behind by the tolerance, but one second later', () => {
    expect(freshness(formatTime(NOW + 12 * HOUR), NOW - HOUR).due).toBe(false);
    expect(freshness(formatTime(NOW + 12 * HOUR), NOW - HOUR - SECOND)).toMatchObject({
      reason: 'expiry-implausible',
    });
  });
});

test('the result contains the expiry if and only if it is plausible', () => {
  expect(freshness('2026-03-01T21:00:00Z', NOW)).toEqual({ due: false, expiresAt: NOW + 9 * HOUR });
  expect(freshness('2026-03-01T13:00:00Z', NOW)).toEqual({
    due: true,
    reason: 'expiring',
    expiresAt: NOW + HOUR,
  });
  expect(freshness('2026-03-01T11:00:00Z', NOW)).toEqual({
    due: true,
    reason: 'expired',
    expiresAt: NOW - HOUR,
  });
  expect(freshness('2036-03-01T11:00:00Z', NOW)).toEqual({ due: true, reason: 'expiry-implausible' });
  expect(freshness(undefined, NOW)).toEqual({ due: true, reason: 'expiry-missing' });
  expect(freshness('soon', NOW)).toEqual({ due: true, reason: 'expiry-unreadable' });
});

test.each([
  '0000-01-01T00:00:00Z',
  '0000-01-01T00:00:00+01:00',
  '1970-01-01T00:00:00Z',
  '1999-12-31T23:59:59Z',
])('an expiry of %s is implausible, because ECR had no tokens then', (value) =>
  expect(freshness(value, NOW)).toEqual({ due: true, reason: 'expiry-implausible' }),
);

test('an expiry of the year 2000 is one in the past', () => {
  expect(freshness('2000-01-01T00:00:00Z', NOW)).toMatchObject({ reason: 'expired' });
});

test.each([
  '',
  'soon',
  'true',
  '0',
  '1772398800',
  '1772398800000',
  'NaN',
  // Values that Date.parse accepts:
  '2026-03-01',
  '2026-03',
  '2026',
  '2026-03-01T20:00',
  '2026-03-01T20:00Z',
  '2026-03-01T20:00:00',
  '2026-03-01 20:00:00Z',
  '2026/03/01 20:00:00',
  'Sun, 01 Mar 2026 20:00:00 GMT',
  'Sun Mar 01 2026 20:00:00 GMT+0000 (Coordinated Universal Time)',
  'March 1, 2026 20:00',
  '+002026-03-01T20:00:00Z',
  '2026-03-01T20:00:00+0100',
  '2026-03-01T20:00:00+01',
  '2026-03-01T20:00:00.Z',
  // Values that are almost RFC 3339:
  ' 2026-03-01T20:00:00Z',
  '2026-03-01T20:00:00Z ',
  '2026-03-01T20:00:00Z\n',
  '2026-03-01T20:00:00Zulu',
  '2026-3-1T20:00:00Z',
  '2026-03-01T20:00:00,5Z',
  '2026-03-01T20:00:00−01:00',
  '２０２６-03-01T20:00:00Z',
  // Days and hours that do not exist:
  '2026-02-29T20:00:00Z',
  '2026-02-30T20:00:00Z',
  '2026-02-31T20:00:00+01:00',
  '2026-04-31T20:00:00Z',
  '2026-03-00T20:00:00Z',
  '2026-03-32T20:00:00Z',
  '2026-00-01T20:00:00Z',
  '2026-13-01T20:00:00Z',
  '2100-02-29T20:00:00Z',
  '2026-03-01T25:00:00Z',
  '2026-03-01T20:60:00Z',
  '2026-03-01T20:00:61Z',
  '2026-03-01T20:00:00+24:00',
  '2026-03-01T20:00:00+01:60',
  // ECMAScript's end of the day, which is not in RFC 3339.
  '2026-03-01T24:00:00Z',
])('an expiry of %j is unreadable', (value) => {
  expect(freshness(value, NOW)).toEqual({ due: true, reason: 'expiry-unreadable' });
});

test.each([
  { value: '2026-03-01T20:00:00Z', time: NOW + 8 * HOUR },
  { value: '2026-03-01t20:00:00z', time: NOW + 8 * HOUR },
  { value: '2026-03-01T20:00:00+00:00', time: NOW + 8 * HOUR },
  { value: '2026-03-01T20:00:00-00:00', time: NOW + 8 * HOUR },
  { value: '2026-03-01T21:00:00+01:00', time: NOW + 8 * HOUR },
  { value: '2026-03-01T10:30:00-09:30', time: NOW + 8 * HOUR },
  { value: '2026-03-02T01:45:00+05:45', time: NOW + 8 * HOUR },
  // The day is another one in UTC.
  { value: '2026-03-01T00:30:00+01:00', time: NOW - 12.5 * HOUR },
  { value: '2026-02-28T23:30:00-01:00', time: NOW - 11.5 * HOUR },
  { value: '2024-02-29T00:00:00Z', time: Date.UTC(2024, 1, 29) },
  { value: '2026-03-01T20:00:00.5Z', time: NOW + 8 * HOUR + 500 },
  { value: '2026-03-01T20:00:00.123Z', time: NOW + 8 * HOUR + 123 },
  { value: '2026-03-01T20:00:00.123456789Z', time: NOW + 8 * HOUR + 123 },
  { value: '2026-03-01T20:00:00.999999999+00:00', time: NOW + 8 * HOUR + 999 },
  { value: '2026-03-01T21:00:00.123000+01:00', time: NOW + 8 * HOUR + 123 },
])('parses $value', ({ value, time }) => {
  expect(parseTime(value)).toBe(time);
});

test.each([
  { value: '2026-03-01T19:00:00+01:00', due: true },
  { value: '2026-03-01T19:00:01+01:00', due: false },
  { value: '2026-03-01T12:00:00-06:00', due: true },
  { value: '2026-03-01T12:00:01-06:00', due: false },
  { value: '2026-03-01T18:00:00.000Z', due: true },
  { value: '2026-03-01T18:00:00.001Z', due: false },
])('at the edge of the refresh window, $value is due: $due', ({ value, due }) => {
  expect(freshness(value, NOW).due).toBe(due);
});

test('parses formatted times to the same second', () => {
  expect(formatTime(NOW)).toBe('2026-03-01T12:00:00Z');
  // A fraction is cut off: rounding up would extend an expiry.
  expect(formatTime(NOW + 999)).toBe('2026-03-01T12:00:00Z');
  for (let ms = Date.UTC(2023, 11, 31, 23, 59, 58); ms < Date.UTC(2028, 0, 2); ms += 7 * HOUR + 37 * SECOND) {
    expect(parseTime(formatTime(ms))).toBe(ms);
    expect(formatTime(parseTime(formatTime(ms + 421)) ?? Number.NaN)).toBe(formatTime(ms));
  }
});
