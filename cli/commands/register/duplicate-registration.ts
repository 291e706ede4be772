// Prevents registering a name or a cluster twice. Clusters are compared by the UID of their kube-system Namespace.
import { TAG } from '../../../contract/names.ts';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import { parseEksArn } from '../../aws/arn.ts';
import { NotRegisteredError, type Refresher } from '../../aws/refresher.ts';
import { alreadyRegistered } from '../../aws/registration.ts';
import { CliError } from '../../output/errors.ts';
import { formatList } from '../../output/format-list.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';

/** At most so many clusters are inspected; more would delay the operator too long. */
const MAX_INSPECTED = 50;

export interface ClustersWithUids {
  /** The given clusters, with the UIDs that could be determined. */
  readonly clusters: readonly ClusterStatus[];
  /** A note for the operator that names the clusters without a UID. */
  readonly note?: string;
}

/**
 * Has the refresher determine the UIDs of clusters that have no UID tag: secrets created by hand, and clusters discovered
 * by EKS tag. Paused clusters are not contacted.
 *
 * @param first the name to register, whose UID is determined first
 * @throws CliError
 */
export async function determineUids(
  refresher: Pick<Refresher, 'inspect'>,
  known: readonly ClusterStatus[],
  first: string,
): Promise<ClustersWithUids> {
  const untagged = known
    .filter(({ source, clusterUid, isPaused }) => source !== 'eks-discovery' && !clusterUid && !isPaused)
    .toSorted((a, b) => Number(b.name === first) - Number(a.name === first));
  if (untagged.length === 0) return { clusters: known };
  const uids = await inspectUids(refresher, untagged.slice(0, MAX_INSPECTED));
  const clusters = known.map((cluster) => {
    const clusterUid = cluster.clusterUid ?? uids.get(cluster.name);
    return clusterUid === undefined ? cluster : { ...cluster, clusterUid };
  });
  const unknown = untagged.filter(({ name }) => !uids.has(name)).map(({ name }) => name);
  if (unknown.length === 0) return { clusters };
  return {
    clusters,
    note: `Could not check whether this cluster is one of these registered clusters: ${formatList(unknown)}.`,
  };
}

async function inspectUids(
  refresher: Pick<Refresher, 'inspect'>,
  clusters: readonly ClusterStatus[],
): Promise<ReadonlyMap<string, string>> {
  const inspect = async (some: readonly ClusterStatus[]) =>
    some.length === 0 ? [] : (await refresher.inspect(some.map(({ name }) => name))).clusters;
  const summaries = await inspect(clusters).catch((error: unknown) => {
    // A registration was deleted a moment ago and is still listed, or an EKS cluster has lost its tag since the last run. The
    // refresher then rejects the whole request.
    if (!(error instanceof NotRegisteredError)) throw error;
    return inspect(clusters.filter(({ name }) => !error.names.includes(name)));
  });
  return new Map(
    summaries.flatMap(({ cluster, inspection }) =>
      inspection?.clusterUid === undefined ? [] : [[cluster, inspection.clusterUid] as const],
    ),
  );
}

/**
 * Checks that neither the name nor the cluster is registered, or with `isReplacing`, that the name is registered for this
 * cluster. A registration of the name that is not complete may be completed either way.
 *
 * @param uid of the cluster to register
 * @throws CliError
 */
export function checkNotRegistered(
  name: string,
  uid: string,
  known: readonly ClusterStatus[],
  isReplacing: boolean,
  commands: ShellCommands,
): void {
  const registered = known.filter(({ source }) => source === 'registered');
  const sameName = registered.find((cluster) => cluster.name === name);
  if (sameName && !sameName.isRegistering && !isReplacing) throw alreadyRegistered(name, commands);
  if (!sameName && isReplacing)
    throw new CliError(
      'not-registered',
      `The name ${name} is not registered, so there is no credential to replace.`,
      'Omit --replace.',
    );
  if (sameName?.clusterUid !== undefined && sameName.clusterUid !== uid)
    throw new CliError(
      'different-cluster',
      `The name ${name} is registered for a different cluster than that of the context.`,
      `Check --context. If the cluster was recreated, register it again after: ${commands.cli(['unregister', name, '--keep-token'])}`,
    );
  // Two registrations would share the Secret that their tokens are bound to: revoking one would revoke the other.
  const duplicate = registered.find((cluster) => cluster.name !== name && cluster.clusterUid === uid);
  if (duplicate)
    throw new CliError(
      'duplicate-registration',
      `This cluster is already registered as ${duplicate.name}.`,
      `To register it as ${name}, first run: ${commands.cli(['unregister', duplicate.name])}`,
    );
  const tagged = known.find(({ source, clusterUid }) => source === 'eks' && clusterUid === uid);
  if (tagged) {
    const { name: arn } = tagged;
    const untag = ['eks', 'untag-resource', '--resource-arn', arn, '--tag-keys', TAG.managed];
    throw new CliError(
      'found-by-tag',
      `The refresher already finds this cluster by its EKS tag, as ${arn}.`,
      `To check it: ${commands.cli(['doctor', arn], true)}; to register it instead, first remove the tag: ${commands.aws(untag, parseEksArn(arn).region)}`,
    );
  }
}
