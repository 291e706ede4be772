// Cuts the clusters of a run into batches. Pure.

import type { StoredState } from '../clusters/cluster-state.ts';
import type { ListedCluster } from '../clusters/clusters.ts';

/**
 * Clusters in a batch that has ended once: one of them may have ended it, and takes fewer with it. From the second time on,
 * each is a batch of its own.
 */
const SUSPECTS = 20;

/**
 * The batches, in the order in which they start: that of their first clusters.
 *
 * @param clusters in the order in which they start
 * @param size the most clusters in a batch
 */
export function batchesOf(
  clusters: readonly ListedCluster[],
  states: readonly Pick<StoredState, 'cluster' | 'codes' | 'failures'>[],
  size: number,
): ListedCluster[][] {
  const ended = new Map(
    states
      .filter(({ codes }) => codes?.includes('batch-ended'))
      .map(({ cluster, failures = 1 }) => [cluster, failures]),
  );
  const open = new Map<number, ListedCluster[]>();
  const batches: ListedCluster[][] = [];
  for (const cluster of clusters) {
    const failures = ended.get(cluster.name) ?? 0;
    const limit = failures === 0 ? size : failures === 1 ? Math.min(SUSPECTS, size) : 1;
    const current = open.get(limit);
    if (current && current.length < limit) current.push(cluster);
    else {
      const batch = [cluster];
      open.set(limit, batch);
      batches.push(batch);
    }
  }
  return batches;
}
