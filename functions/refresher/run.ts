// One run over the registered clusters: each on its own, so that one that hangs, lies or refuses costs the
// others nothing.
import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import pMap from 'p-map';
import { type AccessSettings, usableAccess } from './access.ts';
import { type ClusterReport, notServed, PATCHES_AT_ONCE, refreshCluster } from './cluster.ts';
import type { Eks } from './eks.ts';
import type { RefreshEvent } from './event.ts';
import { readKubeconfig as parseKubeconfig } from './kubeconfig.ts';
import { KubernetesApi } from './kubernetes.ts';
import { listClusters, readKubeconfig } from './registry.ts';

/** What of AWS a run needs. */
export interface RunServices {
  readonly secrets: SecretsManagerClient;
  readonly eks: Eks;
}

export interface RunSettings extends AccessSettings {
  readonly clusterDeadlineMs: number;
  readonly clusterConcurrency: number;
}

/**
 * Refreshes the clusters that the event asks for.
 *
 * @param now the clock, in milliseconds since the epoch
 * @param signal ends the run; clusters whose turn had not come are reported as failed
 * @param report is told of each cluster as soon as its turn is over
 * @throws Error where the clusters cannot be listed, or the event names one that is not registered
 */
export async function run(
  services: RunServices,
  event: RefreshEvent,
  settings: RunSettings,
  now: () => number,
  signal: AbortSignal,
  report: (cluster: ClusterReport) => void,
): Promise<ClusterReport[]> {
  const clusters = select(await listClusters(services.secrets, signal), event.clusters);
  return pMap(
    clusters,
    async (cluster) => {
      const outcome = signal.aborted
        ? notServed(cluster, "the run's time was up before its turn")
        : await turn(services, cluster, event, settings, now(), signal);
      report(outcome);
      return outcome;
    },
    { concurrency: settings.clusterConcurrency },
  );
}

function select(registered: readonly string[], only: readonly string[] | undefined): readonly string[] {
  if (!only) return registered;
  const unknown = only.filter((cluster) => !registered.includes(cluster));
  if (unknown.length > 0) {
    throw new Error(
      `Not registered: ${unknown.join(', ')}. Registered are: ${registered.join(', ') || 'none'}.`,
    );
  }
  return [...new Set(only)];
}

async function turn(
  { secrets, eks }: RunServices,
  cluster: string,
  event: RefreshEvent,
  settings: RunSettings,
  now: number,
  runSignal: AbortSignal,
): Promise<ClusterReport> {
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(settings.clusterDeadlineMs)]);
  try {
    const registered = parseKubeconfig(await readKubeconfig(secrets, cluster, signal));
    const access = await usableAccess(registered, eks, settings, signal);
    await using api = new KubernetesApi(access, PATCHES_AT_ONCE, signal);
    return await refreshCluster(cluster, api, event, now, signal);
  } catch (error) {
    if (signal.aborted) return notServed(cluster, "the cluster's time was up before its kubeconfig was read");
    return notServed(cluster, error instanceof Error ? error.message : String(error));
  }
}
