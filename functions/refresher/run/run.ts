// Runs over the clusters. Clusters are isolated: one that fails or does not respond delays no other.

import pMap from 'p-map';
import type { Inspection } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { failedAtOf } from '../../../lib/cluster-error.ts';
import { inspect, inspectRegistration } from '../actions/inspect.ts';
import {
  type ClusterStateReader,
  type ClusterStateWriter,
  SAVE_WITHIN_MS,
  type StoredState,
} from '../clusters/cluster-state.ts';
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
import { RunMemory } from '../kubernetes/memory.ts';
import { PATCHES_AT_ONCE, refreshCluster } from './cluster.ts';
import {
  type ClusterReport,
  failureOf,
  incomplete,
  notServed,
  observationOf,
  paused,
  soonestExpiryOf,
  withoutDetails,
  withRenewal,
} from './cluster-report.ts';
import { bySoonestExpiry } from './order.ts';

/** The AWS services that a run uses. */
export interface RunServices extends ClusterSources {
  /** Absent: no state is stored. Without `load`, the clusters run in the order of their names. */
  readonly state?: ClusterStateWriter & Partial<ClusterStateReader>;
}

/** Called during a run. */
export interface RunObserver {
  /** Before a cluster's turn. */
  onStart?(cluster: string): void;
  /** The stored states could not be read, so the clusters run in the order of their names. */
  onOrderUnknown?(error: unknown): void;
}

export interface RunSettings extends ClusterSettings {
  readonly clusterConcurrency: number;
}

const LOAD_TIMEOUT_MS = 10_000;

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
  observer: RunObserver = {},
): Promise<ClusterReport[]> {
  const states = event.clusters ? undefined : await loadStates(services.state, signal, observer);
  const order = states && bySoonestExpiry(states);
  const { clusters, discoveries } = await selectClusters(services, event.clusters, settings, signal, order);
  const reports = await runClusters(services, clusters, event, settings, now, signal, onReport, observer);
  const failed = await discoveryFailures(services, discoveries.map(foundIn), reports, event, now(), signal);
  for (const report of failed) onReport(report);
  return [...reports, ...failed];
}

/**
 * Refreshes or inspects these clusters, which start in their order. The other parameters are those of `run`.
 *
 * @param observedAt the time of all observations, milliseconds since the epoch; default: when each cluster's turn began
 */
export async function runClusters(
  services: Pick<RunServices, 'state'>,
  clusters: readonly Cluster[],
  event: ParsedEvent,
  settings: RunSettings,
  now: () => number,
  signal: AbortSignal,
  onReport: (cluster: ClusterReport) => void,
  observer: RunObserver,
  observedAt?: number,
): Promise<ClusterReport[]> {
  const save = stateSaver(services.state, event, signal);
  const memory = new RunMemory();
  return pMap(
    clusters,
    async (cluster) => {
      const startedAt = now();
      observer.onStart?.(cluster.name);
      const report =
        cluster.isRegistering && event.action !== 'inspect'
          ? incomplete(cluster.name)
          : await save(
              await runCluster(cluster, event, settings, { startedAt, now, memory }, signal),
              observedAt ?? startedAt,
            );
      onReport(report);
      // The answer has the results of the clusters that the event names only.
      return event.clusters ? report : withoutDetails(report);
    },
    { concurrency: settings.clusterConcurrency },
  );
}

/** What a run found in a discovery target: data, so that another process can report it. */
export interface FoundInTarget extends Pick<Discovery, 'target' | 'failure'> {
  /** Names of the clusters. */
  readonly clusters: readonly string[];
}

export function foundIn({ target, failure, clusters }: Discovery): FoundInTarget {
  return { target, failure, clusters: clusters.map(({ name }) => name) };
}

/**
 * Stores the states of the discovery targets, and reports those that failed.
 *
 * @param reports of all clusters
 */
export async function discoveryFailures(
  services: Pick<RunServices, 'state'>,
  found: readonly FoundInTarget[],
  reports: readonly ClusterReport[],
  event: ParsedEvent,
  observedAt: number,
  signal: AbortSignal,
): Promise<ClusterReport[]> {
  const save = stateSaver(services.state, event, signal);
  const all = await Promise.all(found.map((target) => save(discoveryReport(target, reports), observedAt)));
  return all.filter((report) => report.failed);
}

/** The stored states, for the order in which clusters start. A run goes on without, if they cannot be read. */
export async function loadStates(
  store: Partial<ClusterStateReader> | undefined,
  runSignal: AbortSignal,
  observer: RunObserver,
  timeoutMs = LOAD_TIMEOUT_MS,
): Promise<StoredState[] | undefined> {
  try {
    const signal = AbortSignal.any([runSignal, AbortSignal.timeout(timeoutMs)]);
    return await store?.load?.(signal);
  } catch (error) {
    observer.onOrderUnknown?.(error);
    return undefined;
  }
}

/** What a cluster run gets from its run. Times are milliseconds since the epoch. */
interface Turn {
  readonly startedAt: number;
  readonly now: () => number;
  readonly memory: RunMemory;
}

async function runCluster(
  { name, isPaused, open }: Cluster,
  event: ParsedEvent,
  settings: RunSettings,
  turn: Turn,
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
  const cluster = open(signal, event.version);
  // Concurrently, so that neither takes the other's time. A paused cluster keeps a valid token, so it is renewed too.
  const [report, renewal] = await Promise.all([
    isRequested ? refresh(name, cluster, event, turn, signal) : paused(name),
    event.dryRun ? undefined : cluster.renew?.(turn.startedAt),
  ]);
  return withRenewal(isPaused ? { ...report, isPaused } : report, renewal);
}

async function refresh(
  name: string,
  cluster: OpenCluster,
  event: ParsedEvent,
  { startedAt, now, memory }: Turn,
  signal: AbortSignal,
): Promise<ClusterReport> {
  const isInspection = event.action === 'inspect';
  let registration: Inspection | undefined;
  try {
    const registered = isInspection && cluster.registered && (await abortable(cluster.registered(), signal));
    if (registered) registration = inspectRegistration(registered);
    const access = await abortable(cluster.access(), signal);
    await using api = new KubernetesApi(access, PATCHES_AT_ONCE, signal, memory);
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
  { target, failure, clusters }: FoundInTarget,
  reports: readonly ClusterReport[],
): ClusterReport {
  if (failure) return notServed(target, [failure]);
  const names = new Set(clusters);
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
export function stateSaver(
  store: ClusterStateWriter | undefined,
  { dryRun, namespaces }: ParsedEvent,
  signal: AbortSignal,
) {
  let failure: Pick<ClusterReport, 'stateNotSaved' | 'stateNotSavedError'> | undefined;
  return async (report: ClusterReport, at: number): Promise<ClusterReport> => {
    if (!store || dryRun || namespaces) return report;
    // When the run's time is up, thousands of clusters cannot each wait for a table that does not respond.
    if (failure && signal.aborted) return { ...report, ...failure };
    try {
      const observation = observationOf(report, at);
      return { ...report, state: await store.save(observation, AbortSignal.timeout(SAVE_WITHIN_MS)) };
    } catch (error) {
      failure =
        error instanceof Error
          ? { stateNotSaved: error.message, stateNotSavedError: error.name }
          : { stateNotSaved: String(error) };
      return { ...report, ...failure };
    }
  };
}
