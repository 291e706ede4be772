// What a run says of itself: figures, and the answer to whoever invoked it. Pure.
import type { ClusterReport, Outcome, SecretResult } from './cluster.ts';
import type { Renewal } from './renewal.ts';
import { METRIC } from './settings.ts';

type MetricName = (typeof METRIC)[keyof typeof METRIC];

/** Problems that the invocation's answer lists of a cluster; the log has them all. */
const PROBLEMS_LISTED = 20;

export interface ClusterSummary {
  readonly cluster: string;
  readonly served: boolean;
  readonly failed: boolean;
  readonly isPaused?: boolean;
  readonly reason?: string;
  readonly renewal?: Renewal;
  readonly managed: number;
  readonly due: number;
  readonly outcomes: Readonly<Partial<Record<Outcome, number>>>;
  readonly soonestExpiry?: string;
  /** Failures in a row, with this one, and since when; absent where it has not failed. */
  readonly failures?: number;
  readonly failingSince?: string;
  /** When its Secrets could be listed last, where that was not now. */
  readonly reachedAt?: string;
  /** Why none of this could be stored. */
  readonly notRemembered?: string;
  readonly problems: readonly SecretResult[];
}

/** A cluster's report in figures, with the first of its problems. */
export function summarize(report: ClusterReport): ClusterSummary {
  const { cluster, served, failed, reason, managed, results, known } = report;
  const soonestExpiry = soonestExpiryOf(report);
  const problems = results.filter(({ outcome }) => outcome !== 'refreshed' && outcome !== 'not-attempted');
  return {
    cluster,
    served,
    failed,
    ...(report.isPaused && { isPaused: true }),
    ...(reason !== undefined && { reason }),
    ...(report.renewal && { renewal: report.renewal }),
    managed,
    due: results.length,
    outcomes: Object.fromEntries(
      Map.groupBy(results, ({ outcome }) => outcome)
        .entries()
        .map(([outcome, those]) => [outcome, those.length]),
    ),
    ...(soonestExpiry !== undefined && { soonestExpiry: new Date(soonestExpiry).toISOString() }),
    ...(known?.failures && { failures: known.failures }),
    ...(known?.failingSince !== undefined && { failingSince: new Date(known.failingSince).toISOString() }),
    ...(!served && known?.reachedAt !== undefined && { reachedAt: new Date(known.reachedAt).toISOString() }),
    ...(report.notRemembered !== undefined && { notRemembered: report.notRemembered }),
    problems: problems.slice(0, PROBLEMS_LISTED),
  };
}

/**
 * The soonest expiry of a cluster, milliseconds since the epoch: as it was seen, and where not all could be seen, as it
 * was known before. That goes on ageing while a cluster is silent.
 */
export function soonestExpiryOf({
  soonestExpiry,
  isPaused,
  served,
  isPartial,
  known,
}: ClusterReport): number | undefined {
  if (isPaused || (served && !isPartial)) return soonestExpiry;
  const expiries = [soonestExpiry, known?.soonestExpiry].filter((expiry) => expiry !== undefined);
  return expiries.length > 0 ? Math.min(...expiries) : undefined;
}

/** The metrics of a run over all clusters. @param now milliseconds since the epoch */
export function metricsOf(
  reports: readonly ClusterReport[],
  now: number,
): Partial<Record<MetricName, number>> {
  const results = reports.flatMap((report) => report.results);
  const count = (...outcomes: Outcome[]) =>
    results.filter(({ outcome }) => outcomes.includes(outcome)).length;
  const expiries = reports.flatMap((report) => soonestExpiryOf(report) ?? []);
  return {
    [METRIC.clustersRegistered]: reports.length,
    [METRIC.clustersServed]: reports.filter(({ served }) => served).length,
    [METRIC.clustersFailed]: reports.filter(({ failed }) => failed).length,
    [METRIC.clustersPaused]: reports.filter(({ isPaused }) => isPaused).length,
    [METRIC.secretsManaged]: reports.reduce((sum, { managed }) => sum + managed, 0),
    [METRIC.secretsDue]: results.length,
    [METRIC.secretsRefreshed]: count('refreshed'),
    [METRIC.secretsRefused]: count('refused', 'not-mutated', 'partial'),
    [METRIC.secretsNotAttempted]: count('not-attempted'),
    ...(expiries.length > 0 && {
      [METRIC.soonestExpiry]: Math.round((expiries.reduce((a, b) => Math.min(a, b)) - now) / 1000),
    }),
  };
}

/**
 * Why the invocation has failed, if it has: clusters are registered, not all paused, and none was served. Anything less is for
 * metrics and alarms: of three thousand clusters, one is always down. Or what is known could not be stored: nothing
 * else would tell that silent clusters have stopped ageing.
 */
export function failureOf(all: readonly ClusterReport[]): string | undefined {
  const notRemembered = all.filter((report) => report.notRemembered !== undefined);
  const reports = all.filter(({ isPaused }) => !isPaused);
  if (reports.length > 0 && !reports.some(({ served }) => served)) {
    const reasons = reports.slice(0, 5).map(({ cluster, reason }) => `${cluster}: ${reason}`);
    return `None of ${reports.length} clusters could be served. ${reasons.join(' | ')}`;
  }
  if (notRemembered.length > 0)
    return `What is known of ${notRemembered.length} clusters could not be stored: ${notRemembered[0]?.notRemembered}`;
  return undefined;
}
