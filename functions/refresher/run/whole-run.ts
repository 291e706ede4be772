// Judges a run over all clusters: its metrics, and whether the invocation fails. Pure.

import { FAILURES } from '../../../contract/cluster-events.ts';
import { ERROR_TYPE, type Outcome } from '../../../contract/refresher-api.ts';
import { METRIC } from '../settings.ts';
import { type ClusterReport, dueOf, outcomesOf, soonestExpiryOf } from './cluster-report.ts';
import { isFailingForDays } from './transitions.ts';

type MetricName = (typeof METRIC)[keyof typeof METRIC];

/** A run over all clusters that failed as a whole. Lambda returns the name as `errorType`. */
export class RunFailedError extends Error {
  override readonly name: typeof ERROR_TYPE.noClusterServed | typeof ERROR_TYPE.stateNotSaved;

  constructor(name: RunFailedError['name'], message: string) {
    super(message);
    this.name = name;
  }
}

/** Clusters that the error names with their reasons. */
const MAX_CLUSTERS_NAMED = 5;

/** The metrics of the run. @param now milliseconds since the epoch */
export function metricsOf(
  reports: readonly ClusterReport[],
  now: number,
): Partial<Record<MetricName, number>> {
  const all = reports.map(outcomesOf);
  const count = (...outcomes: Outcome[]) =>
    all.reduce((sum, counts) => sum + outcomes.reduce((part, one) => part + (counts[one] ?? 0), 0), 0);
  const forDays = new Set(
    reports.filter(({ isPaused, state }) => !isPaused && state && isFailingForDays(state, now)),
  );
  const expiries = reports.flatMap((report) => (!forDays.has(report) && soonestExpiryOf(report)) || []);
  return {
    [METRIC.clustersRegistered]: reports.length,
    [METRIC.clustersServed]: reports.filter(({ served }) => served).length,
    [METRIC.clustersFailed]: reports.filter(({ failed }) => failed).length,
    [METRIC.clustersFailing]: reports.filter((report) => isFailing(report) && !forDays.has(report)).length,
    [METRIC.clustersFailingForDays]: forDays.size,
    [METRIC.clustersPaused]: reports.filter(({ isPaused }) => isPaused).length,
    [METRIC.secretsManaged]: reports.reduce((sum, { managed }) => sum + managed, 0),
    [METRIC.secretsDue]: reports.reduce((sum, report) => sum + dueOf(report), 0),
    [METRIC.secretsRefreshed]: count('refreshed'),
    [METRIC.secretsRefused]: count('refused', 'not-mutated', 'partial'),
    [METRIC.secretsNotAttempted]: count('not-attempted'),
    [METRIC.statesNotSaved]: reports.filter(isNotSaved).length,
    ...(expiries.length > 0 && {
      [METRIC.soonestExpiry]: Math.round((expiries.reduce((a, b) => Math.min(a, b)) - now) / 1000),
    }),
  };
}

/** The metric of each cluster. */
export function clusterMetricsOf(reports: readonly ClusterReport[]): { cluster: string; failures: number }[] {
  return reports.map(({ cluster, failed, isPaused, state }) => ({
    cluster,
    failures: isPaused ? 0 : (state?.failures ?? (failed ? FAILURES : 0)),
  }));
}

/**
 * The error with which the invocation fails, if it does: no cluster that is not paused was served, or most states could
 * not be stored. Without stored state, no metric would show that clusters which do not respond are ageing. The metrics and
 * alarms report anything less: among thousands of clusters, one is always down, and a write to DynamoDB may time out.
 */
export function runFailure(reports: readonly ClusterReport[]): RunFailedError | undefined {
  const active = reports.filter(({ isPaused }) => !isPaused);
  if (active.length > 0 && !active.some(({ served }) => served)) {
    const reasons = active.slice(0, MAX_CLUSTERS_NAMED).map(({ cluster, reason }) => `${cluster}: ${reason}`);
    return new RunFailedError(
      ERROR_TYPE.noClusterServed,
      `None of ${active.length} clusters could be served. ${reasons.join(' | ')}`,
    );
  }
  const notSaved = reports.filter(isNotSaved);
  if (notSaved.length > reports.filter(({ state }) => state !== undefined).length)
    return new RunFailedError(
      ERROR_TYPE.stateNotSaved,
      `The state of ${notSaved.length} clusters could not be stored in DynamoDB: ${notSaved[0]?.stateNotSaved}`,
    );
  return undefined;
}

/** A cluster whose state could not be stored counts from its first failure on. */
function isFailing({ failed, isPaused, state }: ClusterReport): boolean {
  return failed && !isPaused && (state?.failures ?? FAILURES) >= FAILURES;
}

function isNotSaved({ stateNotSaved }: ClusterReport): boolean {
  return stateNotSaved !== undefined;
}
