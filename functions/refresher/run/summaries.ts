// Makes the function's answer from the reports of the clusters, within the size that Lambda allows. Pure.

import type { ClusterSummary, SecretResult } from '../../../contract/refresher-api.ts';
import {
  type ClusterReport,
  dueOf,
  isProblem,
  outcomesOf,
  PROBLEMS_LISTED,
  soonestExpiryOf,
} from './cluster-report.ts';

/** Half of what Lambda returns from a synchronous invocation at most (Lambda quotas, "Invocation payload": 6 MB). */
const ANSWER_BYTES = 6_000_000 / 2;
/** Characters of a cluster's reason that stay in the answer, however many clusters there are. */
const MIN_REASON_LENGTH = 40;
/** The most bytes that a UTF-16 unit takes in UTF-8 JSON. Control characters would take more; reasons contain none. */
const MAX_CHARACTER_BYTES = 3;
/** Bytes that a field's name, or the number of values left out, takes beside the value. */
const LABEL_BYTES = 30;

/** A cluster's report as numbers, with the first of its problems. */
export function summarize(report: ClusterReport): ClusterSummary {
  const { cluster, served, failed, reason, managed, results, state } = report;
  const soonestExpiry = soonestExpiryOf(report);
  const problems = results.filter(isProblem);
  return {
    cluster,
    served,
    failed,
    ...(report.isPaused && { isPaused: true }),
    ...(reason !== undefined && { reason }),
    ...(report.failedAt && { failedAt: report.failedAt }),
    ...(report.codes && { codes: report.codes }),
    ...(report.renewal && { renewal: report.renewal }),
    managed,
    due: dueOf(report),
    outcomes: outcomesOf(report),
    ...(report.provisioningUnknown !== undefined && { provisioningUnknown: report.provisioningUnknown }),
    ...(soonestExpiry !== undefined && { soonestExpiry: new Date(soonestExpiry).toISOString() }),
    ...(state?.failures && { failures: state.failures }),
    ...(state?.failingSince !== undefined && { failingSince: new Date(state.failingSince).toISOString() }),
    ...(!served && state?.reachedAt !== undefined && { reachedAt: new Date(state.reachedAt).toISOString() }),
    ...(report.stateNotSaved !== undefined && { stateNotSaved: report.stateNotSaved }),
    ...(report.stateNotSavedError !== undefined && { stateNotSavedError: report.stateNotSavedError }),
    ...(report.inspection && { inspection: report.inspection }),
    problems: problems.slice(0, PROBLEMS_LISTED),
  };
}

/**
 * The summaries of all clusters. If they exceed the answer's size, reasons are truncated, and inspections and problems
 * are left out. Clusters share the remaining size evenly; what one does not need, the next ones get.
 *
 * @param answerBytes the answer's size as JSON; the numbers of thousands of clusters alone may exceed it
 */
export function summarizeAll(
  reports: readonly ClusterReport[],
  answerBytes = ANSWER_BYTES,
): ClusterSummary[] {
  const summaries = reports.map(summarize);
  if (bytesOfAll(summaries) <= answerBytes) return summaries;
  const minimal = summaries.map((summary) => truncated(summary, 0));
  const texts = summaries.reduce((sum, summary) => sum + textsOf(summary).length, 0);
  // Half of the remaining size is for reasons, the other half for inspections and problems.
  const forTexts = Math.max(answerBytes - bytesOfAll(minimal), 0) / 2;
  const length = Math.floor(forTexts / MAX_CHARACTER_BYTES / Math.max(texts, 1));
  const short = summaries.map((summary) => truncated(summary, length, MIN_REASON_LENGTH));
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

/**
 * A summary without inspection and problems, its reasons truncated.
 *
 * @param length of each reason
 * @param minLength of the reason why the cluster failed
 */
function truncated(
  { inspection: _, ...summary }: ClusterSummary,
  length: number,
  minLength = 0,
): ClusterSummary {
  const { reason, renewal, stateNotSaved, provisioningUnknown } = summary;
  return {
    ...summary,
    ...(reason !== undefined && { reason: cut(reason, Math.max(length, minLength)) }),
    ...(renewal?.reason !== undefined && { renewal: { ...renewal, reason: cut(renewal.reason, length) } }),
    ...(stateNotSaved !== undefined && { stateNotSaved: cut(stateNotSaved, length) }),
    ...(provisioningUnknown !== undefined && { provisioningUnknown: cut(provisioningUnknown, length) }),
    problems: [],
  };
}

function textsOf({ reason, renewal, stateNotSaved, provisioningUnknown }: ClusterSummary): string[] {
  return [reason, renewal?.reason, stateNotSaved, provisioningUnknown].filter((text) => text !== undefined);
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

/**
 * The summaries of clusters that the event names, with the results of all their requests. Clusters share the answer's
 * remaining size evenly; what one does not need, the next ones get.
 *
 * @param answerBytes the answer's size as JSON
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

/** Measures one value at a time: the JSON of all together could exceed the function's memory. */
function bytesOfAll(values: readonly unknown[]): number {
  return values.reduce<number>((sum, value) => sum + bytesOf(value) + 1, 2);
}

function bytesOf(value: unknown): number {
  return Buffer.byteLength(JSON.stringify(value));
}
