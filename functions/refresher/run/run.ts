// Runs over the clusters. Clusters are isolated: one that fails or does not respond delays no other.

import pMap from 'p-map';
import type { Inspection } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { failedAtOf } from '../../../lib/cluster-error.ts';
import { inspect, inspectRegistration } from '../actions/inspect.ts';
import type { ClusterStateWriter } from '../clusters/cluster-state.ts';
import {
  type Cluster,
  type ClusterSettings,
  type ClusterSources,
  type Discovery,
  type OpenCluster,
  selectClusters,
} from '../clusters/clusters.ts';
import type { ParsedEvent } from '../event.ts';
import { KubernetesApi } from '../kubernetes/client.ts';
import { PATCHES_AT_ONCE, refreshCluster } from './cluster.ts';
import {
  type ClusterReport,
  failureOf,
  notServed,
  paused,
  soonestExpiryOf,
  withRenewal,
} from './cluster-report.ts';

/** The AWS services that a run uses. */
export interface RunServices extends ClusterSources {
  /** Absent: no state is stored. */
  readonly state?: ClusterStateWriter;
}

export interface RunSettings extends ClusterSettings {
  readonly clusterConcurrency: number;
}

const SAVE_TIMEOUT_MS = 5_000;

/**
 * Refreshes or inspects the clusters that the event selects.
 *
 * @param now the clock, in milliseconds since the epoch
 * @param signal ends the run; clusters that were not started by then are reported as failed
 * @param onReport called with each cluster's report as soon as it is complete
 * @throws NotRegisteredError if the event names an unknown cluster; Error if the clusters cannot be listed
 */
export async function run(
  services: RunServices,
  event: ParsedEvent,
  settings: RunSettings,
  now: () => number,
  signal: AbortSignal,
  onReport: (cluster: ClusterReport) => void,
): Promise<ClusterReport[]> {
  const { clusters, discoveries } = await selectClusters(services, event.clusters, settings, signal);
  const save = stateSaver(services.state, event, signal);
  const reports = await pMap(
    clusters,
    async (cluster) => {
      const startedAt = now();
      const report = await save(
        await runCluster(cluster, event, settings, { startedAt, now }, signal),
        startedAt,
      );
      onReport(report);
      return report;
    },
    { concurrency: settings.clusterConcurrency },
  );
  const ofDiscoveries = await Promise.all(
    discoveries.map((discovery) => save(discoveryReport(discovery, reports), now())),
  );
  const failed = ofDiscoveries.filter((report) => report.failed);
  for (const report of failed) onReport(report);
  return [...reports, ...failed];
}

/** The clock, and when the cluster run started. Milliseconds since the epoch. */
interface Clock {
  readonly startedAt: number;
  readonly now: () => number;
}

async function runCluster(
  { name, isPaused, open }: Cluster,
  event: ParsedEvent,
  settings: RunSettings,
  clock: Clock,
  runSignal: AbortSignal,
): Promise<ClusterReport> {
  // An operator who inspects a paused cluster by name wants to know its condition before they resume it.
  const isRequested = !isPaused || (event.action === 'inspect' && event.clusters !== undefined);
  if (!isRequested && (event.dryRun || runSignal.aborted)) return paused(name);
  if (runSignal.aborted)
    return notServed(name, [
      { code: 'run-time-up', reason: 'the run reached its time limit before this cluster was started' },
    ]);
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(settings.clusterDeadlineMs)]);
  const cluster = open(signal);
  // Concurrently, so that neither takes the other's time. A paused cluster keeps a valid token, so it is renewed too.
  const [report, renewal] = await Promise.all([
    isRequested ? refresh(name, cluster, event, clock, signal) : paused(name),
    event.dryRun ? undefined : cluster.renew?.(clock.startedAt),
  ]);
  return withRenewal(isPaused ? { ...report, isPaused } : report, renewal);
}

async function refresh(
  name: string,
  cluster: OpenCluster,
  event: ParsedEvent,
  { startedAt, now }: Clock,
  signal: AbortSignal,
): Promise<ClusterReport> {
  const isInspection = event.action === 'inspect';
  let registration: Inspection | undefined;
  try {
    const registered = isInspection && cluster.registered && (await abortable(cluster.registered(), signal));
    if (registered) registration = inspectRegistration(registered);
    const access = await abortable(cluster.access(), signal);
    await using api = new KubernetesApi(access, PATCHES_AT_ONCE, signal);
    const [report, inspection] = await Promise.all([
      refreshCluster(name, api, event, startedAt, signal),
      isInspection ? inspect(access, now, signal) : undefined,
    ]);
    return inspection ? { ...report, inspection } : report;
  } catch (error) {
    const report = signal.aborted
      ? notServed(name, [
          {
            code: 'cluster-time-up',
            reason: 'the cluster reached its deadline before the first request to it',
          },
        ])
      : notServed(name, [failureOf(error)], failedAtOf(error));
    return registration ? { ...report, inspection: registration } : report;
  }
}

/**
 * Reports a discovery target like a cluster: failed if not all its clusters could be found. Its stored state is the
 * soonest expiry of its clusters, which keeps ageing while they are not found.
 */
function discoveryReport(
  { target, failure, clusters }: Discovery,
  reports: readonly ClusterReport[],
): ClusterReport {
  if (failure) return notServed(target, [failure]);
  const names = new Set(clusters.map(({ name }) => name));
  const expiries = reports.flatMap((report) => (names.has(report.cluster) && soonestExpiryOf(report)) || []);
  return {
    cluster: target,
    served: true,
    failed: false,
    namespaces: [],
    managed: 0,
    results: [],
    ...(expiries.length > 0 && { soonestExpiry: Math.min(...expiries) }),
  };
}

/**
 * Returns a function that stores a cluster's state and adds it to the report. A run that is dry, or over some namespaces
 * only, does not observe the whole cluster and stores nothing.
 */
function stateSaver(
  store: ClusterStateWriter | undefined,
  { dryRun, namespaces }: ParsedEvent,
  signal: AbortSignal,
) {
  let failure: Pick<ClusterReport, 'stateNotSaved' | 'stateNotSavedError'> | undefined;
  return async (report: ClusterReport, at: number): Promise<ClusterReport> => {
    if (!store || dryRun || namespaces) return report;
    // When the run's time is up, thousands of clusters cannot each wait for a table that does not respond.
    if (failure && signal.aborted) return { ...report, ...failure };
    const { cluster, served, failed, isPaused = false, isPartial, managed, soonestExpiry, results } = report;
    const { expiresAt } = report.renewal ?? {};
    const isComplete = served && !isPartial;
    try {
      const observation = {
        cluster,
        at,
        served,
        failed,
        isPaused,
        managed,
        due: results.length,
        reason: report.reason ?? results.find(({ reason }) => reason !== undefined)?.reason,
        codes: report.codes,
        soonestExpiry: isComplete ? (soonestExpiry ?? null) : undefined,
        tokenExpiresAt: expiresAt === undefined ? undefined : Date.parse(expiresAt),
      };
      return { ...report, state: await store.save(observation, AbortSignal.timeout(SAVE_TIMEOUT_MS)) };
    } catch (error) {
      failure =
        error instanceof Error
          ? { stateNotSaved: error.message, stateNotSavedError: error.name }
          : { stateNotSaved: String(error) };
      return { ...report, ...failure };
    }
  };
}
