// The steps of a run in batches: the list, each batch, and the summary. A plain run does the same in one process.
// Why it is so: docs/decisions/scale-out.md.
import pMap from 'p-map';
import type { ClusterState, ClusterStateReader, ClusterStateWriter } from '../clusters/cluster-state.ts';
import { type ListedCluster, openable, selectClusters } from '../clusters/clusters.ts';
import type { ParsedEvent } from '../event.ts';
import { type ClusterReport, notServed, paused } from '../run/cluster-report.ts';
import { bySoonestExpiry } from '../run/order.ts';
import {
  discoveryFailures,
  foundIn,
  loadStates,
  type RunObserver,
  type RunServices,
  type RunSettings,
  runClusters,
  stateSaver,
} from '../run/run.ts';
import { batchesOf } from './batches.ts';
import type { RunObjects } from './run-objects.ts';

export interface StepServices extends RunServices {
  readonly state: ClusterStateWriter & ClusterStateReader;
}

/** The states are a long read in a large fleet; without them, no batch is cut smaller for its suspects. */
const LOAD_TIMEOUT_MS = 60_000;
/** Objects, or states, that are read or written at the same time. */
const REQUESTS_AT_ONCE = 25;

/** The event of a run over all clusters. */
const WHOLE_RUN: ParsedEvent = { action: 'refresh', dryRun: false, force: false };

/**
 * Lists the clusters of the run, and stores them in batches.
 *
 * @param size the most clusters in a batch
 * @param batchesUntil when the batches must have ended, milliseconds since the epoch
 * @returns the numbers of the batches
 * @throws Error if the clusters cannot be listed or stored
 */
export async function list(
  services: StepServices,
  objects: RunObjects,
  settings: RunSettings,
  size: number,
  { now, batchesUntil }: { readonly now: number; readonly batchesUntil: number },
  signal: AbortSignal,
  observer: RunObserver,
): Promise<number[]> {
  const states = await loadStates(services.state, signal, observer, LOAD_TIMEOUT_MS);
  const order = states && bySoonestExpiry(states);
  const { clusters, discoveries } = await selectClusters(services, undefined, settings, signal, order);
  const listed = clusters.map(({ open: _, ...cluster }) => cluster);
  const batches = batchesOf(listed, states ?? [], size);
  await pMap(batches, (batch, number) => objects.putClusters(number, batch), {
    concurrency: REQUESTS_AT_ONCE,
  });
  await objects.putList({
    startedAt: now,
    batchesUntil,
    batches: batches.length,
    discoveries: discoveries.map(foundIn),
  });
  return [...batches.keys()];
}

/**
 * Serves the clusters of one batch, and stores their reports. The parameters are those of `run`.
 *
 * @throws Error if the list cannot be read, or the reports cannot be stored
 */
export async function batch(
  services: StepServices,
  objects: RunObjects,
  number: number,
  settings: RunSettings,
  now: () => number,
  signal: AbortSignal,
  onReport: (cluster: ClusterReport) => void,
  observer: RunObserver,
): Promise<void> {
  const { startedAt, batchesUntil } = await objects.list();
  const inTime = AbortSignal.any([signal, AbortSignal.timeout(Math.max(batchesUntil - now(), 0))]);
  const clusters = openable(await objects.clusters(number), services, settings, inTime);
  const reports = await runClusters(
    services,
    clusters,
    WHOLE_RUN,
    settings,
    now,
    inTime,
    onReport,
    observer,
    startedAt,
  );
  // The log has the problems, and the summary needs the numbers only: it has the reports of all batches in memory.
  await objects.putReports(
    number,
    reports.map((report) => ({ ...report, results: [], namespaces: [] })),
  );
}

/** A batch without reports, and its clusters. */
export interface EndedBatch {
  readonly batch: number;
  readonly clusters: readonly string[];
}

/**
 * Collects the reports of all batches. Clusters of a batch that ended without reports have the result that the batch
 * stored, and the others fail.
 *
 * @param onReport called with each report that no batch has logged
 * @throws Error if the list or the reports cannot be read
 */
export async function collect(
  services: StepServices,
  objects: RunObjects,
  signal: AbortSignal,
  onReport: (cluster: ClusterReport) => void,
): Promise<{ readonly reports: ClusterReport[]; readonly ended: EndedBatch[] }> {
  const { startedAt, batches, discoveries } = await objects.list();
  const ended: EndedBatch[] = [];
  const perBatch = await pMap(
    Array(batches).keys(),
    async (number) => {
      const stored = await objects.reports(number);
      if (stored) return stored;
      const clusters = await objects.clusters(number);
      ended.push({ batch: number, clusters: clusters.map(({ name }) => name) });
      return reportsOfEnded(services, clusters, number, startedAt, signal);
    },
    { concurrency: REQUESTS_AT_ONCE },
  );
  const reports = perBatch.flat();
  for (const report of reports) if (report.codes?.includes('batch-ended')) onReport(report);
  const failed = await discoveryFailures(services, discoveries, reports, WHOLE_RUN, startedAt, signal);
  for (const report of failed) onReport(report);
  return { reports: [...reports, ...failed], ended };
}

async function reportsOfEnded(
  services: StepServices,
  clusters: readonly ListedCluster[],
  batch: number,
  startedAt: number,
  signal: AbortSignal,
): Promise<ClusterReport[]> {
  const save = stateSaver(services.state, WHOLE_RUN, signal);
  const reason = `batch ${batch} of the run ended before the result of this cluster was known`;
  return pMap(
    clusters,
    async ({ name, isPaused }) => {
      const report = isPaused ? paused(name) : notServed(name, [{ code: 'batch-ended', reason }]);
      // Dated to the start of the run, so that the result that the batch stored stays.
      const saved = await save(report, startedAt);
      const { state } = saved;
      return !state || isPaused || state.codes.includes('batch-ended')
        ? saved
        : ofState(name, state, startedAt);
    },
    { concurrency: REQUESTS_AT_ONCE },
  );
}

/** The report of a cluster that its batch served before it ended. The numbers of its Secrets are lost. */
function ofState(cluster: string, state: ClusterState, startedAt: number): ClusterReport {
  const { failures, codes, reason, reachedAt, soonestExpiry } = state;
  return {
    cluster,
    served: reachedAt !== undefined && reachedAt >= startedAt,
    failed: failures > 0,
    namespaces: [],
    managed: 0,
    results: [],
    ...(failures > 0 && { codes, ...(reason !== undefined && { reason }) }),
    ...(soonestExpiry !== undefined && { soonestExpiry }),
    state,
  };
}
