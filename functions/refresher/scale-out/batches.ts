// Cuts the clusters of a run into batches. Pure.

import type { StoredState } from '../clusters/cluster-state.ts';
import type { ListedCluster } from '../clusters/clusters.ts';

/**
 * The most batches of suspects: clusters whose batch ended in their last run. One of them may have ended it. In few runs, each is
 * in a batch of its own (500 suspects are 20 batches of 25; of those, 25 are 13 batches of 2), and there are never more batches
 * than a run has time for.
 */
const SUSPECT_BATCHES = 20;

/**
 * The batches, in the order in which they start: that of their first clusters.
 *
 * @param clusters in the order in which they start
 * @param size the most clusters in a batch
 */
export function batchesOf(
  clusters: readonly ListedCluster[],
  states: readonly Pick<StoredState, 'cluster' | 'codes'>[],
  size: number,
): ListedCluster[][] {
  const ended = new Set(
    states.flatMap(({ cluster, codes }) => (codes?.includes('batch-ended') ? cluster : [])),
  );
  const suspects = clusters.filter(({ name }) => ended.has(name));
  const limits = { others: size, suspects: Math.min(Math.ceil(suspects.length / SUSPECT_BATCHES), size) };
  const open: Partial<Record<keyof typeof limits, ListedCluster[]>> = {};
  const batches: ListedCluster[][] = [];
  for (const cluster of clusters) {
    const kind = ended.has(cluster.name) ? 'suspects' : 'others';
    const current = open[kind];
    if (current && current.length < limits[kind]) current.push(cluster);
    else {
      const batch = [cluster];
      open[kind] = batch;
      batches.push(batch);
    }
  }
  return batches;
}
