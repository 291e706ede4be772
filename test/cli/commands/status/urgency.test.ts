// The state of a cluster one second before, at and after each boundary, and the order of clusters.

import { expect, test } from 'vitest';
import { ATTENTION_STATES, byUrgency, STATES, stateOf } from '../../../../cli/commands/status/urgency.ts';
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
  [{}, 'healthy'],
  [{ failures: 1 }, 'failed'],
  [{ failures: 2 }, 'failing'],
  [{ isPaused: true }, 'paused'],
  [{ isPaused: true, failures: 3 }, 'paused'],
  [{ soonestExpiry: at(-1) }, 'expired'],
  [{ soonestExpiry: at(0) }, 'expired'],
  [{ soonestExpiry: at(1_000) }, 'expiring'],
  [{ soonestExpiry: at(3 * HOUR - 1_000) }, 'expiring'],
  [{ soonestExpiry: at(3 * HOUR) }, 'expiring'],
  [{ soonestExpiry: at(3 * HOUR + 1_000) }, 'healthy'],
  // The operator may have forgotten to resume it.
  [{ soonestExpiry: at(-1), isPaused: true }, 'expired'],
  [{ lookedAt: at(-180 * MINUTE) }, 'healthy'],
  // Longer than the longest interval of the schedule and its random start.
  [{ lookedAt: at(-180 * MINUTE - 1) }, 'silent'],
  [{ lookedAt: at(-3 * HOUR), failures: 1 }, 'failed'],
])('%j is %s', (changes, state) => {
  expect(stateOf(cluster(changes), NOW)).toBe(state);
});

test('a cluster without a run is new, one without Secrets is healthy', () => {
  expect(stateOf({ name: 'a', source: 'registered', isPaused: false }, NOW)).toBe('new');
  const { soonestExpiry: _, ...without } = cluster({});
  expect(stateOf(without, NOW)).toBe('healthy');
});

test('orders clusters by state, then by expiry, then by name', () => {
  const clusters = [
    cluster({ name: 'z-healthy' }),
    cluster({ name: 'a-healthy' }),
    cluster({ name: 'paused', isPaused: true }),
    { name: 'new', source: 'registered', isPaused: false } as const,
    cluster({ name: 'incomplete', isRegistering: true }),
    cluster({ name: 'silent', lookedAt: at(-9 * HOUR) }),
    cluster({ name: 'failing-later', failures: 2, soonestExpiry: at(9 * HOUR) }),
    cluster({ name: 'failing-sooner', failures: 3, soonestExpiry: at(5 * HOUR) }),
    cluster({ name: 'failed', failures: 1, soonestExpiry: at(4 * HOUR) }),
    cluster({ name: 'expiring', soonestExpiry: at(HOUR) }),
    cluster({ name: 'expired', soonestExpiry: at(-HOUR) }),
  ];
  const sorted = clusters.toSorted(byUrgency(NOW)).map(({ name }) => name);
  expect(sorted).toEqual([
    ...['expired', 'expiring', 'failing-sooner', 'failing-later', 'failed', 'silent'],
    ...['incomplete', 'new', 'paused', 'a-healthy', 'z-healthy'],
  ]);
  expect(STATES.filter((state) => ATTENTION_STATES.has(state))).toEqual([
    'expired',
    'expiring',
    'failing',
    'failed',
    'silent',
    'incomplete',
  ]);
});
