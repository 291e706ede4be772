// Who needs somebody first, one second before, at and after each boundary.

import { expect, test } from 'vitest';
import {
  byUrgency,
  isSilent,
  NEEDY,
  STATES,
  span,
  stateOf,
} from '../../../../cli/commands/status/urgency.ts';
import type { ClusterStatus } from '../../../../contract/refresher-api.ts';

const NOW = Date.parse('2026-11-25T12:00:00Z');
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const at = (ms: number) => new Date(NOW + ms).toISOString();

const cluster = (changes: Partial<ClusterStatus>): ClusterStatus => ({
  name: 'a',
  source: 'registered',
  isPaused: false,
  lookedAt: at(-HOUR),
  soonestExpiry: at(11 * HOUR),
  failures: 0,
  ...changes,
});

test.each<[Partial<ClusterStatus>, string]>([
  [{}, 'well'],
  [{ failures: 1 }, 'failing'],
  [{ isPaused: true }, 'paused'],
  [{ isPaused: true, failures: 3 }, 'paused'],
  [{ soonestExpiry: at(-1) }, 'expired'],
  [{ soonestExpiry: at(0) }, 'expired'],
  [{ soonestExpiry: at(1_000) }, 'expiring'],
  [{ soonestExpiry: at(3 * HOUR - 1_000) }, 'expiring'],
  [{ soonestExpiry: at(3 * HOUR) }, 'expiring'],
  [{ soonestExpiry: at(3 * HOUR + 1_000) }, 'well'],
  // Whoever paused it may have forgotten.
  [{ soonestExpiry: at(-1), isPaused: true }, 'expired'],
  [{ lookedAt: at(-140 * MINUTE + 1_000) }, 'well'],
  [{ lookedAt: at(-140 * MINUTE) }, 'well'],
  [{ lookedAt: at(-140 * MINUTE - 1_000) }, 'silent'],
  [{ lookedAt: at(-3 * HOUR), failures: 1 }, 'failing'],
])('%j is %s', (changes, state) => {
  expect(stateOf(cluster(changes), NOW)).toBe(state);
});

test('without a look it is new, without Secrets it is well', () => {
  expect(stateOf({ name: 'a', source: 'registered', isPaused: false }, NOW)).toBe('new');
  const { soonestExpiry: _, ...without } = cluster({});
  expect(stateOf(without, NOW)).toBe('well');
});

test('silent is what no schedule allows: the longest interval and its window', () => {
  expect(isSilent(at(-140 * MINUTE), NOW)).toBe(false);
  expect(isSilent(at(-140 * MINUTE - 1), NOW)).toBe(true);
});

test('who needs somebody comes first: by state, then by expiry, then by name', () => {
  const clusters = [
    cluster({ name: 'z-well' }),
    cluster({ name: 'a-well' }),
    cluster({ name: 'paused', isPaused: true }),
    { name: 'new', source: 'registered', isPaused: false } as const,
    cluster({ name: 'silent', lookedAt: at(-9 * HOUR) }),
    cluster({ name: 'failing-later', failures: 2, soonestExpiry: at(9 * HOUR) }),
    cluster({ name: 'failing-sooner', failures: 1, soonestExpiry: at(5 * HOUR) }),
    cluster({ name: 'expiring', soonestExpiry: at(HOUR) }),
    cluster({ name: 'expired', soonestExpiry: at(-HOUR) }),
  ];
  const sorted = clusters.toSorted(byUrgency(NOW)).map(({ name }) => name);
  expect(sorted).toEqual([
    ...['expired', 'expiring', 'failing-sooner', 'failing-later', 'silent'],
    ...['new', 'paused', 'a-well', 'z-well'],
  ]);
  expect(STATES.filter((state) => NEEDY.has(state))).toEqual(['expired', 'expiring', 'failing', 'silent']);
});

test.each([
  [0, '0m'],
  [59_999, '0m'],
  [MINUTE, '1m'],
  [HOUR - 1, '59m'],
  [HOUR, '1h 0m'],
  [11 * HOUR + 59 * MINUTE, '11h 59m'],
  [25 * HOUR, '1d 1h'],
  [-3 * MINUTE, '-3m'],
  [-30_000, '0m'],
])('%i ms are %s', (ms, text) => {
  expect(span(ms)).toBe(text);
});
