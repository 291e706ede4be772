// What is known of each cluster, without asking any: the registered ones as they are now, with what was remembered of
// them, and what was found by tag in the last look.

import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import type { EksScope } from '../access/eks.ts';
import { scopeName } from '../access/eks.ts';
import type { Recollection, Remembered } from '../clusters/cluster-state.ts';
import { listClusters, type RegisteredCluster } from '../clusters/registered-clusters.ts';

/**
 * All clusters: first the registered ones, then tagged EKS clusters, then the places where such are looked for, each
 * by name.
 *
 * @param timeoutMs what the function's time is at most: that much may lie between a turn and the end of its run
 * @throws Error of Secrets Manager or DynamoDB
 */
export async function statusOf(
  { secrets, memory }: { readonly secrets: SecretsManagerClient; readonly memory: Recollection },
  { eksDiscovery }: { readonly eksDiscovery: readonly EksScope[] },
  timeoutMs: number,
  signal: AbortSignal,
): Promise<ClusterStatus[]> {
  const [registered, remembered] = await Promise.all([listClusters(secrets, signal), memory.recall(signal)]);
  return merged(registered, remembered, eksDiscovery, timeoutMs);
}

/**
 * Lambda answers a synchronous invocation with 6 MB at most (Lambda quotas, "Invocation payload"); all else that is
 * known of a cluster takes some 400 bytes, of ten thousand clusters 4 MB.
 */
const REASONS_LENGTH = 1_000_000;
const MIN_REASON_LENGTH = 80;

/** Puts together what is registered and what is remembered. Pure. */
export function merged(
  registered: readonly RegisteredCluster[],
  remembered: readonly Remembered[],
  eksDiscovery: readonly EksScope[],
  timeoutMs: number,
): ClusterStatus[] {
  const known = new Map(remembered.map((item) => [item.cluster, item]));
  const ofRegistered = registered.map(({ name, isPaused, context, clusterUid }): ClusterStatus => {
    return {
      ...{ name, source: 'registered', isPaused },
      ...(context !== undefined && { context }),
      ...(clusterUid !== undefined && { clusterUid }),
      ...figuresOf(known.get(name)),
    };
  });
  const scopes = eksDiscovery.flatMap((scope) => {
    const item = known.get(scopeName(scope));
    return item ? [{ scope, item }] : [];
  });
  const sorted = remembered.toSorted((a, b) => (a.cluster < b.cluster ? -1 : 1));
  const tagged = sorted.filter((item) =>
    scopes.some(({ scope, item: look }) => isOf(scope, item.cluster) && wasFound(item, look, timeoutMs)),
  );
  const places = sorted.filter((item) => scopes.some((scope) => scope.item === item));
  const all = [
    ...ofRegistered,
    ...tagged.map((item) => ofRemembered(item, 'eks')),
    ...places.map((item) => ofRemembered(item, 'eks-discovery')),
  ];
  const failing = all.filter(({ reason }) => reason !== undefined).length;
  const length = Math.max(MIN_REASON_LENGTH, Math.floor(REASONS_LENGTH / Math.max(failing, 1)));
  return all.map(({ reason, ...cluster }) => ({
    ...cluster,
    ...(reason !== undefined && { reason: reason.slice(0, length) }),
  }));
}

function ofRemembered(item: Remembered, source: ClusterStatus['source']): ClusterStatus {
  return { name: item.cluster, source, isPaused: item.pausedSince !== undefined, ...figuresOf(item) };
}

/** Without what is not there: an answer is JSON, and so is what a test compares it with. */
function figuresOf({ cluster: _, ...figures }: Remembered = { cluster: '' }): Partial<ClusterStatus> {
  return Object.fromEntries(Object.entries(figures).filter(([, value]) => value !== undefined));
}

/** An EKS cluster's ARN (Service Authorization Reference, EKS): its region and account. */
const ARN = /^arn:[\w-]+:eks:([\w-]+):(\d+):cluster\//;

/** Whether a name may be that of a cluster there; as itself, the refresher does not say in which account it is. */
function isOf({ region, roleArn }: EksScope, name: string): boolean {
  const [, ofRegion, account] = ARN.exec(name) ?? [];
  return ofRegion === region && (roleArn === undefined || roleArn.split(':')[4] === account);
}

/**
 * Whether a cluster was there in the last look that found all there are: looks since then that failed have found fewer,
 * and made none disappear. A place is looked at when the turns of its clusters are over.
 */
function wasFound({ lookedAt }: Remembered, look: Remembered, timeoutMs: number): boolean {
  const lookAt = look.reachedAt ?? look.lookedAt;
  return (
    lookedAt !== undefined && lookAt !== undefined && Date.parse(lookedAt) >= Date.parse(lookAt) - timeoutMs
  );
}
