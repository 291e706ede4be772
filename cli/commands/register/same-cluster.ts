// Which cluster each known one is, also those whose registration does not say it: registered by hand, or found by tag.
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import type { Refresher } from '../../aws/refresher.ts';
import { CliError } from '../../output/errors.ts';
import { formatList } from '../../output/format-list.ts';

/** So many are asked at once: more would keep the operator waiting. */
const ASKED = 50;

export interface Learned {
  /** The same, with the UIDs that could be learned. */
  readonly clusters: readonly ClusterStatus[];
  /** Of what could not, for people. */
  readonly note?: string;
}

/**
 * Learns the UIDs of clusters whose tags have none. Paused ones are left alone.
 *
 * @param first the name that is to be registered: nobody needs its UID more
 * @throws CliError
 */
export async function learnUids(
  refresher: Refresher,
  known: readonly ClusterStatus[],
  first: string,
): Promise<Learned> {
  const untold = known
    .filter(({ source, clusterUid, isPaused }) => source !== 'eks-discovery' && !clusterUid && !isPaused)
    .toSorted((a, b) => Number(b.name === first) - Number(a.name === first));
  const asked = untold.slice(0, ASKED);
  if (asked.length === 0) return { clusters: known };
  const uids = await uidsOf(refresher, asked);
  const clusters = known.map((cluster) => {
    const clusterUid = cluster.clusterUid ?? uids.get(cluster.name);
    return clusterUid === undefined ? cluster : { ...cluster, clusterUid };
  });
  const silent = untold.filter(({ name }) => !uids.has(name)).map(({ name }) => name);
  if (silent.length === 0) return { clusters };
  const note = `It is not known whether this cluster is one of these: ${formatList(silent)}.`;
  return { clusters, note };
}

async function uidsOf(
  refresher: Refresher,
  asked: readonly ClusterStatus[],
): Promise<ReadonlyMap<string, string>> {
  const inspected = async (clusters: readonly ClusterStatus[]) =>
    clusters.length === 0 ? [] : (await refresher.inspect(clusters.map(({ name }) => name))).clusters;
  const answers = await inspected(asked).catch((error: unknown) => {
    // A tag may have gone since the last look, and then nothing is said of any.
    if (!(error instanceof CliError) || error.code !== 'not-registered') throw error;
    return inspected(asked.filter(({ source }) => source === 'registered'));
  });
  return new Map(
    answers.flatMap(({ cluster, inspection }) =>
      inspection?.clusterUid === undefined ? [] : [[cluster, inspection.clusterUid] as const],
    ),
  );
}
