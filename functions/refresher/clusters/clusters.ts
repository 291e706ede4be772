// Selects the clusters of a run: the registered ones, and the EKS clusters that carry the tag.

import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { REGISTERING_STAGE } from '../../../contract/names.ts';
import type { DiscoveryFailure, FailureCode, Renewal } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import { type RegisteredAccess, readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import { type AccessSettings, type TokenSources, usableAccess, usableEksAccess } from '../access/access.ts';
import type { DiscoveryTarget, Eks } from '../access/eks.ts';
import { discoveryTargetName } from '../access/eks.ts';
import type { UsableAccess } from '../kubernetes/client.ts';
import { renewToken } from '../tokens/renewal.ts';
import { findClusters, listClusters, Registrations, readVersion } from './registered-clusters.ts';

export interface ClusterSources extends TokenSources {
  readonly secrets: SecretsManagerClient;
}

export interface ClusterSettings extends AccessSettings {
  /** The discovery targets. */
  readonly eksDiscovery: readonly DiscoveryTarget[];
  /** The time limit of each cluster run, and of the search in each discovery target. */
  readonly clusterDeadlineMs: number;
}

/** What a run knows of a cluster before it opens it: data, so that another process can open it. */
export interface ListedCluster {
  /** As it is registered; of a tagged EKS cluster, its ARN. */
  readonly name: string;
  readonly isPaused: boolean;
  /** `register` has not completed. Only inspections and revocations open the cluster, and get what it has stored. */
  readonly isRegistering?: true;
  /** Of a registered cluster: the kubeconfig's context to use instead of the current one. */
  readonly context?: string;
  /** Of a registered cluster: why Secrets Manager did not describe it. */
  readonly failure?: string;
  /** Of a tagged EKS cluster: the name of the discovery target where it was found. */
  readonly target?: string;
}

/** A cluster before its run. */
export interface Cluster extends ListedCluster {
  /**
   * Call it once, when the cluster run starts.
   *
   * @param signal ends the cluster run
   * @param version of the registered secret; default: the current one
   */
  open(signal: AbortSignal, version?: string): OpenCluster;
}

/** A cluster during its run. Its registration is in memory no longer than this object. */
export interface OpenCluster {
  /** Of a registered cluster: what its kubeconfig says. @throws Error that says why it cannot be used */
  registered?(): Promise<RegisteredAccess>;
  /** @throws Error that says why it cannot be reached */
  access(): Promise<UsableAccess>;
  /** Of a registered cluster: renews the token if that is due. Never rejects. @param now milliseconds since the epoch */
  renew?(now: number): Promise<Renewal | undefined>;
}

/** The result of the search for tagged clusters in one discovery target. */
export interface Discovery {
  /** The target's name. */
  readonly target: string;
  /** Set if not all clusters could be found. */
  readonly failure: { readonly code: FailureCode; readonly reason: string } | undefined;
  readonly clusters: readonly Cluster[];
}

export interface Selection {
  readonly clusters: readonly Cluster[];
  /** Of all discovery targets; empty if the event names clusters. */
  readonly discoveries: readonly Discovery[];
}

/** The event names clusters that are neither registered nor tagged. */
export class NotRegisteredError extends Error {
  override readonly name = 'NotRegisteredError';
  readonly names: readonly string[];
  /** The names of all clusters. */
  readonly registered: readonly string[];
  readonly failures: readonly DiscoveryFailure[];

  constructor(
    names: readonly string[],
    registered: readonly string[],
    failures: readonly DiscoveryFailure[],
  ) {
    super(
      [
        `Not registered: ${names.join(', ')}. Registered are: ${registered.join(', ') || 'none'}.`,
        ...failures.map(({ target, reason }) => `${target}: ${reason}.`),
      ].join(' '),
    );
    this.names = names;
    this.registered = registered;
    this.failures = failures;
  }
}

/**
 * The clusters of a run, in the order in which they start.
 *
 * @param only names, if the event has any
 * @param order compares names; clusters that it does not distinguish start in the order of their names, registered ones first
 * @throws NotRegisteredError if a name is unknown; Error if the registered clusters cannot be read
 */
export async function selectClusters(
  { secrets, ...tokenSources }: ClusterSources,
  only: readonly string[] | undefined,
  settings: ClusterSettings,
  signal: AbortSignal,
  order: (a: string, b: string) => number = () => 0,
): Promise<Selection> {
  const found = only
    ? await findClusters(secrets, only, signal)
    : (await listClusters(secrets, signal)).filter(({ isRegistering }) => !isRegistering);
  // The order in which `registrations` reads them.
  const selected = found.sort((a, b) => order(a.name, b.name));
  const registered = openable(selected, { secrets, ...tokenSources }, settings, signal);
  const missing = new Set(only).difference(new Set(selected.map(({ name }) => name)));
  if (only && missing.size === 0) return { clusters: registered, discoveries: [] };

  const discoveries = await Promise.all(
    settings.eksDiscovery.map((target) => discover(target, tokenSources.eks, settings, signal)),
  );
  const tagged = uniqueByName(discoveries.flatMap(({ clusters }) => clusters));
  const ordered = [...registered, ...tagged].sort((a, b) => order(a.name, b.name));
  if (!only) return { clusters: ordered, discoveries };
  const selectedTagged = tagged.filter(({ name }) => missing.has(name));
  const unknown = missing.difference(new Set(selectedTagged.map(({ name }) => name)));
  if (unknown.size === 0) return { clusters: [...registered, ...selectedTagged], discoveries: [] };
  const listed = await listClusters(secrets, signal);
  // A list may still show a registration that was deleted.
  const all = [...listed, ...tagged].map(({ name }) => name).filter((name) => !unknown.has(name));
  const failures = discoveries.flatMap(({ target, failure }) => (failure ? [{ target, ...failure }] : []));
  throw new NotRegisteredError([...unknown], all, failures);
}

/** Two discovery targets find the same clusters if the role of one is in the account of the other. The first target counts. */
function uniqueByName(clusters: readonly Cluster[]): Cluster[] {
  const names = new Set<string>();
  return clusters.filter(({ name }) => !names.has(name) && names.add(name));
}

/** Makes clusters that were listed before, perhaps by another process, ready to be opened in their order. */
export function openable(
  clusters: readonly ListedCluster[],
  { secrets, ...tokenSources }: ClusterSources,
  settings: ClusterSettings,
  signal: AbortSignal,
): Cluster[] {
  const names = clusters.flatMap(({ name, target }) => (target === undefined ? name : []));
  const registrations = new Registrations(secrets, names, settings.clusterDeadlineMs, signal);
  let index = 0;
  return clusters.map((cluster) =>
    cluster.target === undefined
      ? registeredCluster(cluster, index++, { registrations, secrets, tokenSources, settings })
      : taggedCluster(cluster, cluster.target, tokenSources.eks, settings),
  );
}

/** A tagged EKS cluster that another process listed. */
function taggedCluster(
  cluster: ListedCluster,
  targetName: string,
  eks: Eks,
  { eksDiscovery, allowLocalServers }: ClusterSettings,
): Cluster {
  const open = (signal: AbortSignal): OpenCluster => ({
    access: async () => {
      const target = eksDiscovery.find((one) => discoveryTargetName(one) === targetName);
      if (!target)
        throw new ClusterError('setting', `${targetName} is no longer in the CDK setting eksDiscovery`);
      return usableEksAccess(await eks.accessTagged(target, cluster.name, signal), allowLocalServers);
    },
  });
  return { ...cluster, open };
}

/** @param index the cluster's among the registrations */
function registeredCluster(
  { name, isPaused, isRegistering, context, failure }: ListedCluster,
  index: number,
  {
    registrations,
    secrets,
    tokenSources,
    settings,
  }: {
    readonly registrations: Registrations;
    readonly secrets: SecretsManagerClient;
    readonly tokenSources: TokenSources;
    readonly settings: ClusterSettings;
  },
): Cluster {
  const read = async (signal: AbortSignal, version: string | undefined) => {
    if (failure !== undefined) throw new Error(failure);
    if (version !== undefined) return readVersion(secrets, name, { VersionId: version }, signal);
    if (isRegistering) return readVersion(secrets, name, { VersionStage: REGISTERING_STAGE }, signal);
    return registrations.take(index, signal);
  };
  const open = (signal: AbortSignal, version?: string): OpenCluster => {
    const registration = read(signal, version).catch((error: Error) => error);
    const registered = async () => {
      const value = await registration;
      if (value instanceof Error)
        throw new ClusterError('kubeconfig', value.message, {
          cause: value,
          code: 'registration-unreadable',
        });
      return readKubeconfig(value.kubeconfig, context);
    };
    const access = async () => usableAccess(name, await registered(), tokenSources, settings, signal);
    const renew = async (now: number): Promise<Renewal | undefined> => {
      const value = await registration;
      if (value instanceof Error)
        return {
          outcome: 'failed',
          reason: value.message,
          code: signal.aborted ? 'cluster-time-up' : 'registration-unreadable',
        };
      return renewToken(secrets, { name, context, ...value }, access, now, signal);
    };
    return { registered, access, renew };
  };
  return {
    name,
    isPaused,
    ...(isRegistering && { isRegistering }),
    ...(context !== undefined && { context }),
    ...(failure !== undefined && { failure }),
    open,
  };
}

async function discover(
  target: DiscoveryTarget,
  eks: Eks,
  { allowLocalServers, clusterDeadlineMs }: ClusterSettings,
  runSignal: AbortSignal,
): Promise<Discovery> {
  const name = discoveryTargetName(target);
  // No longer than a cluster run, because the cluster runs wait for it.
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(clusterDeadlineMs)]);
  const found = await abortable(eks.tagged(target, signal), signal).catch(() => undefined);
  if (!found)
    return {
      target: name,
      failure: { code: 'discovery-time-up', reason: 'no answer in time' },
      clusters: [],
    };
  const { clusters, failures } = found;
  return {
    target: name,
    failure: failures.length > 0 ? { code: 'discovery-failed', reason: failures.join('; ') } : undefined,
    clusters: clusters.map(({ arn, isPaused, access }) => ({
      name: arn,
      isPaused,
      target: name,
      open: () => ({ access: async () => usableEksAccess(await access(), allowLocalServers) }),
    })),
  };
}
