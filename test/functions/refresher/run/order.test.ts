// Tests the order in which a run serves the clusters.
import { expect, test } from 'vitest';
import type { StoredState } from '../../../../functions/refresher/clusters/cluster-state.ts';
import { bySoonestExpiry } from '../../../../functions/refresher/run/order.ts';

const at = (hour: number) => `2026-11-24T${String(hour).padStart(2, '0')}:00:00.000Z`;

function served(cluster: string, soonestExpiry?: string): StoredState {
  return { cluster, lookedAt: at(8), reachedAt: at(8), soonestExpiry };
}

test('clusters come by soonest expiry, then those without a known expiry, then those that were not served', () => {
  const states: StoredState[] = [
    served('late', at(20)),
    served('expired', at(7)),
    served('soon', at(10)),
    served('empty'),
    served('odd', 'no time'),
    { cluster: 'down', lookedAt: at(8), reachedAt: at(7), soonestExpiry: at(9) },
    { cluster: 'never-reached', lookedAt: at(8) },
  ];
  const names = ['new', 'down', 'empty', 'late', 'never-reached', 'odd', 'soon', 'expired'];
  expect(names.toSorted(bySoonestExpiry(states))).toEqual([
    'expired',
    'soon',
    'late',
    'new',
    'empty',
    'odd',
    'never-reached',
    'down',
  ]);
});

test.each(['run-time-up', 'batch-ended'] as const)(
  'a cluster with %s keeps its place for the lifetime of its credentials',
  (code) => {
    const notStarted = (cluster: string, reachedAt: string, soonestExpiry: string): StoredState => ({
      cluster,
      lookedAt: at(20),
      reachedAt,
      soonestExpiry,
      codes: [code],
    });
    const states = [
      served('late', at(23)),
      notStarted('works', at(19), at(22)),
      notStarted('dead', at(8), at(9)),
    ];
    expect(['dead', 'late', 'works'].toSorted(bySoonestExpiry(states))).toEqual(['works', 'late', 'dead']);
  },
);
