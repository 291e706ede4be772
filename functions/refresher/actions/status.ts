// Reads the status of all clusters without a request to any of them: the registrations as they are now, and the state
// that the last run stored.

import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import type { DiscoveryTarget } from '../access/eks.ts';
import { discoveryTargetName } from '../access/eks.ts';
import type { ClusterStateReader, StoredState } from '../clusters/cluster-state.ts';
import {
  findClusters,
  LIST_LAG_MS,
  listClusters,
  type RegisteredCluster,
} from '../clusters/registered-clusters.ts';

/**
 * The status of all clusters: first the registered ones, then tagged EKS clusters, then discovery targets, each group
 * sorted by name.
 *
 * @param timeoutMs the function's timeout: the longest time between a cluster run and the end of the whole run
 * @param now milliseconds since the epoch
 * @throws Error of Secrets Manager or DynamoDB
 */
export async function clusterStatuses(
  { secrets, state }: { readonly secrets: SecretsManagerClient; readonly state: ClusterStateReader },
  { eksDiscovery }: { readonly eksDiscovery: readonly DiscoveryTarget[] },
  timeoutMs: number,
  now: number,
  signal: AbortSignal,
): Promise<ClusterStatus[]> {
  const [listed, stored] = await Promise.all([listClusters(secrets, signal), state.load(signal)]);
  const names = new Set(listed.map(({ name }) => name));
  // `register` ends with a run over the cluster, so the table has clusters that the list does not show yet, or shows as
  // incomplete.
  const unlisted = stored
    .filter(
      ({ cluster, lookedAt = '' }) => !names.has(cluster) && now - Date.parse(lookedAt) < 2 * LIST_LAG_MS,
    )
    .map(({ cluster }) => cluster);
  const incomplete = listed.filter(({ isRegistering }) => isRegistering).map(({ name }) => name);
  const found = await findClusters(secrets, [...incomplete, ...unlisted], signal);
  const described = found.filter(({ failure }) => failure === undefined);
  const byName = new Map([...listed, ...described].map((cluster) => [cluster.name, cluster]));
  const registered = [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1));
  return mergeStatuses(registered, stored, eksDiscovery, timeoutMs);
}

/**
 * Characters of all reasons together. Lambda returns 6 MB from a synchronous invocation at most (Lambda quotas,
 * "Invocation payload"); the rest of a status takes some 400 bytes, which is 4 MB for ten thousand clusters.
 */
const REASONS_LENGTH = 1_000_000;
const MIN_REASON_LENGTH = 80;

/** Merges registrations with stored states. Pure. */
export function mergeStatuses(
  registered: readonly RegisteredCluster[],
  stored: readonly StoredState[],
  eksDiscovery: readonly DiscoveryTarget[],
  timeoutMs: number,
): ClusterStatus[] {
  const byName = new Map(stored.map((state) => [state.cluster, state]));
  const ofRegistered = registered.map(
    ({ name, isPaused, isRegistering, context, clusterUid }): ClusterStatus => ({
      name,
      source: 'registered',
      isPaused,
      ...(isRegistering && { isRegistering }),
      ...(context !== undefined && { context }),
      ...(clusterUid !== undefined && { clusterUid }),
      ...fieldsOf(byName.get(name)),
    }),
  );
  const targets = eksDiscovery.flatMap((target) => {
    const state = byName.get(discoveryTargetName(target));
    return state ? [{ target, state }] : [];
  });
  const sorted = stored.toSorted((a, b) => (a.cluster < b.cluster ? -1 : 1));
  const ofTagged = sorted
    .filter((state) =>
      targets.some(
        ({ target, state: ofTarget }) => isIn(target, state.cluster) && wasFound(state, ofTarget, timeoutMs),
      ),
    )
    .map((state) => statusOf(state, 'eks'));
  const ofTargets = sorted
    .filter((state) => targets.some((target) => target.state === state))
    .map((state) => statusOf(state, 'eks-discovery'));
  const all = [...ofRegistered, ...ofTagged, ...ofTargets];
  const failing = all.filter(({ reason }) => reason !== undefined).length;
  const length = Math.max(MIN_REASON_LENGTH, Math.floor(REASONS_LENGTH / Math.max(failing, 1)));
  return all.map(({ reason, ...cluster }) => ({
    ...cluster,
    ...(reason !== undefined && { reason: reason.slice(0, length) }),
  }));
}

function statusOf(state: StoredState, source: ClusterStatus['source']): ClusterStatus {
  return { name: state.cluster, source, isPaused: state.pausedSince !== undefined, ...fieldsOf(state) };
}

/** Leaves undefined fields out, as JSON does. */
function fieldsOf({ cluster: _, ...fields }: StoredState = { cluster: '' }): Partial<ClusterStatus> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
}

/** An EKS cluster's ARN (Service Authorization Reference, EKS): its region and account. */
const ARN = /^arn:[\w-]+:eks:([\w-]+):(\d+):cluster\//;

/** Whether a cluster can be in a discovery target. A target without a role does not state its account. */
function isIn({ region, roleArn }: DiscoveryTarget, cluster: string): boolean {
  const [, clusterRegion, account] = ARN.exec(cluster) ?? [];
  return clusterRegion === region && (roleArn === undefined || roleArn.split(':')[4] === account);
}

/**
 * Whether the last successful search of a discovery target found a cluster. A failed search finds fewer clusters, but
 * does not remove any. A target's state is stored after those of its clusters, when their runs have ended.
 */
function wasFound({ lookedAt }: StoredState, target: StoredState, timeoutMs: number): boolean {
  const searchedAt = target.reachedAt ?? target.lookedAt;
  return (
    lookedAt !== undefined &&
    searchedAt !== undefined &&
    Date.parse(lookedAt) >= Date.parse(searchedAt) - timeoutMs
  );
}
