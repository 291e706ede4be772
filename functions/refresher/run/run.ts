// One run over the clusters: each on its own, so that one that hangs, lies or refuses costs the others nothing.

import pMap from 'p-map';
import type { Inspection } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { failedAtOf } from '../../../lib/cluster-error.ts';
import { beginningOf, inspect } from '../actions/inspect.ts';
import type { Memory } from '../clusters/cluster-state.ts';
import {
  type Cluster,
  type ClusterSettings,
  type ClusterSources,
  type OpenCluster,
  type Scope,
  selectClusters,
} from '../clusters/clusters.ts';
import type { RefreshEvent } from '../event.ts';
import { KubernetesApi } from '../kubernetes/client.ts';
import {
  type ClusterReport,
  notServed,
  PATCHES_AT_ONCE,
  paused,
  refreshCluster,
  withRenewal,
} from './cluster.ts';
import { soonestExpiryOf } from './report.ts';

/** What of AWS a run needs. */
export interface RunServices extends ClusterSources {
  /** Absent: nothing is remembered. */
  readonly memory?: Memory;
}

export interface RunSettings extends ClusterSettings {
  readonly clusterConcurrency: number;
}

const REMEMBER_TIMEOUT_MS = 5_000;

/**
 * Refreshes or inspects the clusters that the event asks for.
 *
 * @param now the clock, in milliseconds since the epoch
 * @param signal ends the run; clusters whose turn had not come are reported as failed
 * @param report is told of each cluster as soon as its turn is over
 * @throws NotRegisteredError where the event names one that is not there; Error where they cannot be listed
 */
export async function run(
  services: RunServices,
  event: RefreshEvent,
  settings: RunSettings,
  now: () => number,
  signal: AbortSignal,
  report: (cluster: ClusterReport) => void,
): Promise<ClusterReport[]> {
  const { clusters, scopes } = await selectClusters(services, event.clusters, settings, signal);
  const remember = rememberer(services.memory, event, signal);
  const turns = await pMap(
    clusters,
    async (cluster) => {
      const at = now();
      const outcome = await remember(await turn(cluster, event, settings, { at, now }, signal), at);
      report(outcome);
      return outcome;
    },
    { concurrency: settings.clusterConcurrency },
  );
  const looks = await Promise.all(scopes.map((scope) => remember(lookAt(scope, turns), now())));
  const failures = looks.filter(({ failed }) => failed);
  for (const failure of failures) report(failure);
  return [...turns, ...failures];
}

/** The clock, and what it said when a turn began: milliseconds since the epoch. */
interface Clock {
  readonly at: number;
  readonly now: () => number;
}

async function turn(
  { name, isPaused, open }: Cluster,
  event: RefreshEvent,
  settings: RunSettings,
  clock: Clock,
  runSignal: AbortSignal,
): Promise<ClusterReport> {
  // Whoever inspects a cluster by its name wants to know how it is before the tag goes. All else leaves it alone.
  const isAsked = !isPaused || (event.action === 'inspect' && event.clusters !== undefined);
  if (!isAsked && (event.dryRun || runSignal.aborted)) return paused(name);
  if (runSignal.aborted) return notServed(name, "the run's time was up before its turn");
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(settings.clusterDeadlineMs)]);
  const cluster = open(signal);
  // At the same time, so that neither takes the other's. A paused cluster would else be left without a valid token.
  const [report, renewal] = await Promise.all([
    isAsked ? refresh(name, cluster, event, clock, signal) : paused(name),
    event.dryRun ? undefined : cluster.renew?.(clock.at),
  ]);
  return withRenewal(isPaused ? { ...report, isPaused } : report, renewal);
}

async function refresh(
  name: string,
  cluster: OpenCluster,
  event: RefreshEvent,
  { at, now }: Clock,
  signal: AbortSignal,
): Promise<ClusterReport> {
  const isInspection = event.action === 'inspect';
  let begun: Inspection | undefined;
  try {
    const registered = isInspection && cluster.registered && (await abortable(cluster.registered(), signal));
    if (registered) begun = beginningOf(registered);
    const access = await abortable(cluster.access(), signal);
    await using api = new KubernetesApi(access, PATCHES_AT_ONCE, signal);
    const [report, inspection] = await Promise.all([
      refreshCluster(name, api, event, at, signal),
      isInspection ? inspect(access, now, signal) : undefined,
    ]);
    return inspection ? { ...report, inspection } : report;
  } catch (error) {
    const report = signal.aborted
      ? notServed(name, "the cluster's time was up before it could be asked")
      : notServed(name, error instanceof Error ? error.message : String(error), failedAtOf(error));
    return begun ? { ...report, inspection: begun } : report;
  }
}

/**
 * A place where clusters are looked for, as if it were a cluster itself: one that fails where not all could be found.
 * What is known of it is the soonest expiry of its clusters, which so goes on ageing when they are found no more.
 */
function lookAt({ name, failure, clusters }: Scope, turns: readonly ClusterReport[]): ClusterReport {
  if (failure) return notServed(name, failure);
  const names = new Set(clusters.map((cluster) => cluster.name));
  const expiries = turns.flatMap((report) => (names.has(report.cluster) && soonestExpiryOf(report)) || []);
  return {
    ...{ cluster: name, served: true, failed: false, namespaces: [], managed: 0, results: [] },
    ...(expiries.length > 0 && { soonestExpiry: Math.min(...expiries) }),
  };
}

/** Adds to reports what is then known of their clusters, in runs that see all that a cluster has, as it is. */
function rememberer(memory: Memory | undefined, { dryRun, namespaces }: RefreshEvent, signal: AbortSignal) {
  let isDown: string | undefined;
  return async (report: ClusterReport, at: number): Promise<ClusterReport> => {
    if (!memory || dryRun || namespaces) return report;
    // At the end of the run's time there is none to wait for each of thousands.
    if (isDown !== undefined && signal.aborted) return { ...report, stateNotSaved: isDown };
    const { cluster, served, failed, isPaused, isPartial, reason, managed, soonestExpiry, results } = report;
    const { expiresAt } = report.renewal ?? {};
    const isSeen = served && !isPartial;
    try {
      const look = {
        ...{ cluster, at, served, failed, isPaused: isPaused ?? false },
        ...{ managed, due: results.length },
        reason: reason ?? results.find((result) => result.reason !== undefined)?.reason,
        soonestExpiry: isSeen ? (soonestExpiry ?? null) : undefined,
        tokenExpiresAt: expiresAt === undefined ? undefined : Date.parse(expiresAt),
      };
      return { ...report, known: await memory.remember(look, AbortSignal.timeout(REMEMBER_TIMEOUT_MS)) };
    } catch (error) {
      isDown = error instanceof Error ? error.message : String(error);
      return { ...report, stateNotSaved: isDown };
    }
  };
}
