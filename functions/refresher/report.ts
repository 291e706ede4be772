// What a run says of itself: figures, and the answer to whoever invoked it. Pure.
import type { ClusterReport, Outcome, SecretResult } from './cluster.ts';
import type { FailedAt } from './failure.ts';
import type { Inspection } from './inspect.ts';
import type { Renewal } from './renewal.ts';
import { METRIC } from './settings.ts';

type MetricName = (typeof METRIC)[keyof typeof METRIC];

/** Problems that the invocation's answer lists of a cluster; the log has them all. */
const PROBLEMS_LISTED = 20;
/** Of what Lambda answers a synchronous invocation at most (Lambda quotas, "Invocation payload": 6 MB), as much is used. */
const ANSWER_BYTES = 6_000_000 / 2;

export interface ClusterSummary {
  readonly cluster: string;
  readonly served: boolean;
  readonly failed: boolean;
  readonly isPaused?: boolean;
  readonly reason?: string;
  /** Where it failed, if it was not served. */
  readonly failedAt?: FailedAt;
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
  /** What else was found out, where that was asked for. */
  readonly inspection?: Inspection;
  /** The first Secrets that were not refreshed; the log has all. */
  readonly problems: readonly SecretResult[];
  /** Where an event names clusters: what was requested, or would have been; as many as the answer can hold. */
  readonly secrets?: readonly SecretResult[];
  /** How many more there were. */
  readonly secretsNotListed?: number;
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
    ...(report.failedAt && { failedAt: report.failedAt }),
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
    ...(report.inspection && { inspection: report.inspection }),
    problems: problems.slice(0, PROBLEMS_LISTED),
  };
}

/**
 * The summaries of clusters that somebody has named, with their Secrets. What the answer can hold beside the summaries
 * is shared out evenly, and what one cluster does not need the next ones have.
 *
 * @param answerBytes that all of it may take as JSON
 */
export function summarizeNamed(
  reports: readonly ClusterReport[],
  answerBytes = ANSWER_BYTES,
): ClusterSummary[] {
  const summaries = reports.map(summarize);
  let left = answerBytes - bytesOf(summaries);
  return summaries.map((summary, index) => {
    const { results = [] } = reports[index] ?? {};
    const share = left / (summaries.length - index);
    const secrets: SecretResult[] = [];
    let used = 0;
    for (const result of results) {
      used += bytesOf(result) + 1;
      if (used > share) break;
      left -= bytesOf(result) + 1;
      secrets.push(result);
    }
    const more = results.length - secrets.length;
    return { ...summary, secrets, ...(more > 0 && { secretsNotListed: more }) };
  });
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
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
