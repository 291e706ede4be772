// What a run says of itself: figures, and the answer to whoever invoked it. Pure.

import type { ClusterSummary, Outcome, SecretResult } from '../../../contract/refresher-api.ts';
import { METRIC } from '../settings.ts';
import type { ClusterReport } from './cluster.ts';

type MetricName = (typeof METRIC)[keyof typeof METRIC];

/** Problems that the invocation's answer lists of a cluster; the log has them all. */
const PROBLEMS_LISTED = 20;
/** Of what Lambda answers a synchronous invocation at most (Lambda quotas, "Invocation payload": 6 MB), as much is used. */
const ANSWER_BYTES = 6_000_000 / 2;
/** Of why a cluster failed, as much stays, however many there are. */
const MIN_REASON_LENGTH = 40;
/** What a character of a string can take in JSON, but for controls, which nobody's reasons have (UTF-8 of a UTF-16 unit). */
const MAX_CHARACTER_BYTES = 3;
/** What the name of a field, or a count of what is left out, takes beside a value. */
const LABEL_BYTES = 30;

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
    ...(report.stateNotSaved !== undefined && { stateNotSaved: report.stateNotSaved }),
    ...(report.inspection && { inspection: report.inspection }),
    problems: problems.slice(0, PROBLEMS_LISTED),
  };
}

/**
 * The summaries of many clusters, as one answer can hold them: where that is not all, reasons are cut, and inspections
 * and problems left out. What is left of the answer is shared out evenly, as far as a cluster needs its share.
 *
 * @param answerBytes that all of it may take as JSON; thousands of clusters may take more with nothing but their figures
 */
export function summarizeAll(
  reports: readonly ClusterReport[],
  answerBytes = ANSWER_BYTES,
): ClusterSummary[] {
  const summaries = reports.map(summarize);
  if (bytesOfAll(summaries) <= answerBytes) return summaries;
  const bare = summaries.map((summary) => bared(summary, 0));
  const texts = summaries.reduce((sum, summary) => sum + textsOf(summary).length, 0);
  // Half of what is left for them, the other half for what is more than words.
  const forTexts = Math.max(answerBytes - bytesOfAll(bare), 0) / 2;
  const length = Math.floor(forTexts / MAX_CHARACTER_BYTES / Math.max(texts, 1));
  const short = summaries.map((summary) => bared(summary, length, MIN_REASON_LENGTH));
  let left = answerBytes - bytesOfAll(short);
  return short.map((summary, index) => {
    const { inspection, problems = [] } = summaries[index] ?? {};
    let share = left / (short.length - index);
    const take = (value: unknown) => {
      const bytes = bytesOf(value) + LABEL_BYTES;
      if (bytes > share) return false;
      share -= bytes;
      left -= bytes;
      return true;
    };
    const hasInspection = inspection !== undefined && take(inspection);
    const until = problems.findIndex((problem) => !take(problem));
    const listed = until < 0 ? problems : problems.slice(0, until);
    const more = problems.length - listed.length;
    return {
      ...summary,
      ...(inspection && (hasInspection ? { inspection } : { inspectionNotListed: true })),
      problems: listed,
      ...(more > 0 && { problemsNotListed: more }),
    };
  });
}

/** A summary without what can be long, its reasons cut. @param least that is kept of why it failed */
function bared({ inspection: _, ...summary }: ClusterSummary, length: number, least = 0): ClusterSummary {
  const { reason, renewal, stateNotSaved } = summary;
  return {
    ...summary,
    ...(reason !== undefined && { reason: cut(reason, Math.max(length, least)) }),
    ...(renewal?.reason !== undefined && { renewal: { ...renewal, reason: cut(renewal.reason, length) } }),
    ...(stateNotSaved !== undefined && { stateNotSaved: cut(stateNotSaved, length) }),
    problems: [],
  };
}

function textsOf({ reason, renewal, stateNotSaved }: ClusterSummary): string[] {
  return [reason, renewal?.reason, stateNotSaved].filter((text) => text !== undefined);
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
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
  const summaries = summarizeAll(reports, answerBytes);
  let left = answerBytes - bytesOfAll(summaries);
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

/** One by one: all of them together might be more than there is memory for. */
function bytesOfAll(values: readonly unknown[]): number {
  return values.reduce<number>((sum, value) => sum + bytesOf(value) + 1, 2);
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
  const stateNotSaved = all.filter((report) => report.stateNotSaved !== undefined);
  const reports = all.filter(({ isPaused }) => !isPaused);
  if (reports.length > 0 && !reports.some(({ served }) => served)) {
    const reasons = reports.slice(0, 5).map(({ cluster, reason }) => `${cluster}: ${reason}`);
    return `None of ${reports.length} clusters could be served. ${reasons.join(' | ')}`;
  }
  if (stateNotSaved.length > 0)
    return `What is known of ${stateNotSaved.length} clusters could not be stored: ${stateNotSaved[0]?.stateNotSaved}`;
  return undefined;
}
