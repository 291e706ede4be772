// One run over the clusters: each on its own, so that one that hangs, lies or refuses costs the others nothing.
import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import pMap from 'p-map';
import { type AccessSettings, type UsableAccess, usableAccess, usableEksAccess } from './access.ts';
import { type ClusterReport, notServed, PATCHES_AT_ONCE, paused, refreshCluster } from './cluster.ts';
import type { Eks, EksScope } from './eks.ts';
import type { RefreshEvent } from './event.ts';
import { readKubeconfig } from './kubeconfig.ts';
import { KubernetesApi } from './kubernetes.ts';
import { listClusters, Registrations } from './registry.ts';

/** What of AWS a run needs. */
export interface RunServices {
  readonly secrets: SecretsManagerClient;
  readonly eks: Eks;
}

export interface RunSettings extends AccessSettings {
  readonly clusterDeadlineMs: number;
  readonly clusterConcurrency: number;
  /** Where EKS clusters are looked for that are tagged. */
  readonly eksDiscovery: readonly EksScope[];
}

/** A cluster before its turn. */
interface Cluster {
  /** As it is registered; of a tagged EKS cluster, its ARN. */
  readonly name: string;
  readonly isPaused: boolean;
  /** @throws Error that says why it cannot be reached */
  access(signal: AbortSignal): Promise<UsableAccess>;
}

/**
 * Refreshes the clusters that the event asks for.
 *
 * @param now the clock, in milliseconds since the epoch
 * @param signal ends the run; clusters whose turn had not come are reported as failed
 * @param report is told of each cluster as soon as its turn is over
 * @throws Error where the clusters cannot be listed, or the event names one that is not there
 */
export async function run(
  services: RunServices,
  event: RefreshEvent,
  settings: RunSettings,
  now: () => number,
  signal: AbortSignal,
  report: (cluster: ClusterReport) => void,
): Promise<ClusterReport[]> {
  const { clusters, failures } = await select(services, event.clusters, settings, signal);
  for (const failure of failures) report(failure);
  const turns = await pMap(
    clusters,
    async (cluster) => {
      const outcome = signal.aborted
        ? notServed(cluster.name, "the run's time was up before its turn")
        : await turn(cluster, event, settings, now(), signal);
      report(outcome);
      return outcome;
    },
    { concurrency: settings.clusterConcurrency },
  );
  return [...failures, ...turns];
}

interface Selection {
  readonly clusters: readonly Cluster[];
  /** Where clusters may be that could not be looked for. */
  readonly failures: readonly ClusterReport[];
}

async function select(
  services: RunServices,
  only: readonly string[] | undefined,
  settings: RunSettings,
  signal: AbortSignal,
): Promise<Selection> {
  const listed = await listClusters(services.secrets, signal);
  const registered = only ? listed.filter(({ name }) => only.includes(name)) : listed;
  const values = new Registrations(
    services.secrets,
    registered.map(({ name }) => name),
    signal,
  );
  const clusters = registered.map(({ name, isPaused, context }, index): Cluster => {
    const access = async (turnSignal: AbortSignal) => {
      const { kubeconfig } = await values.take(index, turnSignal);
      return usableAccess(readKubeconfig(kubeconfig, context), services.eks, settings, turnSignal);
    };
    return { name, isPaused, access };
  });
  const missing = new Set(only).difference(new Set(registered.map(({ name }) => name)));
  if (only && missing.size === 0) return { clusters, failures: [] };

  const found = await discover(services.eks, settings, signal);
  if (!only) return { clusters: [...clusters, ...found.clusters], failures: found.failures };
  const tagged = found.clusters.filter(({ name }) => missing.has(name));
  const unknown = missing.difference(new Set(tagged.map(({ name }) => name)));
  if (unknown.size === 0) return { clusters: [...clusters, ...tagged], failures: [] };
  const names = [...listed, ...found.clusters].map(({ name }) => name);
  throw new Error(
    [
      `Not registered: ${[...unknown].join(', ')}.`,
      `Registered are: ${names.join(', ') || 'none'}.`,
      ...found.failures.map(({ cluster, reason }) => `${cluster}: ${reason}.`),
    ].join(' '),
  );
}

/** The EKS clusters that are tagged. What cannot be looked at is a failure beside them, as if it were a cluster. */
async function discover(eks: Eks, settings: RunSettings, signal: AbortSignal): Promise<Selection> {
  const scopes = await Promise.all(
    settings.eksDiscovery.map(async (scope) => ({ scope, found: await eks.tagged(scope, signal) })),
  );
  return {
    clusters: scopes.flatMap(({ found }) =>
      found.clusters.map(({ arn, isPaused, access }) => ({
        name: arn,
        isPaused,
        access: async () => usableEksAccess(await access(), settings.allowLocalServers),
      })),
    ),
    failures: scopes.flatMap(({ scope: { region, roleArn }, found: { failures } }) =>
      failures.length > 0
        ? [notServed(`EKS in ${region}${roleArn === undefined ? '' : ` as ${roleArn}`}`, failures.join('; '))]
        : [],
    ),
  };
}

async function turn(
  { name, isPaused, access }: Cluster,
  event: RefreshEvent,
  settings: RunSettings,
  now: number,
  runSignal: AbortSignal,
): Promise<ClusterReport> {
  if (isPaused) return paused(name);
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(settings.clusterDeadlineMs)]);
  try {
    await using api = new KubernetesApi(await access(signal), PATCHES_AT_ONCE, signal);
    return await refreshCluster(name, api, event, now, signal);
  } catch (error) {
    if (signal.aborted) return notServed(name, "the cluster's time was up before its kubeconfig was read");
    return notServed(name, error instanceof Error ? error.message : String(error));
  }
}
