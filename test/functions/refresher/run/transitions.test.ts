// Tests what is announced of a cluster, by its stored state.
import { describe, expect, test } from 'vitest';
import type { ClusterState } from '../../../../functions/refresher/clusters/cluster-state.ts';
import { decide } from '../../../../functions/refresher/run/transitions.ts';

const NOON = Date.parse('2026-11-24T12:00:00Z');
const HOUR = 3_600_000;

const healthy: ClusterState = {
  failures: 0,
  successes: 5,
  isPaused: false,
  codes: [],
  announced: [],
  soonestExpiry: NOON + 9 * HOUR,
};
/** Failing, not announced. */
const failing: ClusterState = { ...healthy, failures: 2, successes: 0, failingSince: NOON - HOUR };
/** Failing, announced an hour ago. */
const known: ClusterState = { ...failing, announced: ['failing'], announcedAt: NOON - HOUR };

const transition = (state: ClusterState, now = NOON) => decide(state, now)?.transition;

test.each<{ title: string; state: ClusterState; expected: string | undefined }>([
  { title: 'a healthy cluster', state: healthy, expected: undefined },
  { title: 'a first failure', state: { ...failing, failures: 1 }, expected: undefined },
  { title: 'a second failure in a row', state: failing, expected: 'failing' },
  { title: 'a further failure', state: { ...known, failures: 9 }, expected: undefined },
  { title: 'a token that is late', state: { ...healthy, codes: ['token-late'] }, expected: 'token-ending' },
  {
    title: 'three hours until the expiry',
    state: { ...healthy, soonestExpiry: NOON + 3 * HOUR },
    expected: undefined,
  },
  {
    title: 'less than three hours until the expiry',
    state: { ...healthy, soonestExpiry: NOON + 3 * HOUR - 1 },
    expected: 'expiring',
  },
  {
    title: 'less than three hours until the expiry of a failing cluster',
    state: { ...known, soonestExpiry: NOON + HOUR },
    expected: 'expiring',
  },
  { title: 'expired credentials', state: { ...healthy, soonestExpiry: NOON }, expected: 'expired' },
  {
    title: 'several conditions at once: the most urgent',
    state: { ...failing, codes: ['token-late'], soonestExpiry: NOON - 1 },
    expected: 'expired',
  },
  {
    title: 'one success after failures',
    state: { ...known, failures: 0, successes: 1 },
    expected: undefined,
  },
  { title: 'two successes', state: { ...known, failures: 0, successes: 2 }, expected: 'recovered' },
  { title: 'a paused cluster that fails', state: { ...failing, isPaused: true }, expected: undefined },
])('the transition of $title: $expected', ({ state, expected }) => {
  expect(transition(state)).toBe(expected);
});

test('all conditions are announced together', () => {
  const state: ClusterState = { ...failing, codes: ['token-late'], soonestExpiry: NOON - 1 };
  const all = ['failing', 'token-ending', 'expired'];
  expect(decide(state, NOON)).toEqual({ transition: 'expired', conditions: all, announced: all });
});

test('a pause forgets what was announced without a message, so that a failure after it is announced again', () => {
  expect(decide({ ...known, isPaused: true }, NOON)).toEqual({ conditions: [], announced: [] });
});

test('expired takes the place of expiring, and expiring again is announced again', () => {
  const expiring: ClusterState = { ...known, announced: ['failing', 'expiring'] };
  const expired = decide({ ...expiring, soonestExpiry: NOON - 1 }, NOON);
  expect(expired).toMatchObject({ transition: 'expired', announced: ['failing', 'expired'] });
});

test.each([
  { condition: 'expiring', soonestExpiry: NOON + HOUR },
  { condition: 'expired', soonestExpiry: NOON - HOUR },
])(
  '$condition is announced again if it ended while the cluster was failing',
  ({ condition, soonestExpiry }) => {
    const announced = ['failing', condition] as ClusterState['announced'];
    const refreshed: ClusterState = { ...known, announced, soonestExpiry: NOON + 12 * HOUR };
    expect(decide(refreshed, NOON)).toEqual({ conditions: ['failing'], announced: ['failing'] });
    expect(transition({ ...known, announced: ['failing'], soonestExpiry })).toBe(condition);
  },
);

describe('a cluster that fails again within a day of its recovery', () => {
  const again: ClusterState = { ...failing, announcedAt: NOON - HOUR, recoveredAt: NOON - HOUR };

  test('is not announced while its credentials last', () => {
    expect(transition(again)).toBeUndefined();
    expect(transition(again, NOON + 4 * HOUR)).toBeUndefined();
  });

  test('begins another such day with each failure, and not while it stays down', () => {
    expect(decide(again, NOON)).toEqual({ conditions: ['failing'], announced: [], startsQuietDay: true });
    expect(decide({ ...again, failures: 3 }, NOON)).toBeUndefined();
  });

  test('is announced as failing when a request for its due credentials has failed', () => {
    expect(transition({ ...again, soonestExpiry: NOON + 4.5 * HOUR - 1 })).toBe('failing');
  });

  test('is announced after the day', () => {
    expect(transition({ ...again, recoveredAt: NOON - 24 * HOUR })).toBe('failing');
  });
});

describe('the reminder', () => {
  const at = (time: string) => Date.parse(`2026-11-25T${time}Z`);
  const dead: ClusterState = { ...known, announcedAt: NOON, soonestExpiry: NOON + 30 * 24 * HOUR };

  test('comes once a day, in the first run after eight o’clock UTC', () => {
    expect(transition(dead, at('07:59:59'))).toBeUndefined();
    expect(decide(dead, at('08:00:00'))).toEqual({
      transition: 'reminder',
      conditions: ['failing'],
      announced: ['failing'],
    });
    expect(transition({ ...dead, announcedAt: at('08:00:00') }, at('09:00:00'))).toBeUndefined();
  });

  test('is not for a cluster that was announced during the night', () => {
    expect(transition({ ...dead, announcedAt: at('03:00:00') }, at('08:30:00'))).toBeUndefined();
  });
});
