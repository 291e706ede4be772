// The result of one cluster run, from which the function's answer, its log and its metrics are made. Pure.
import type {
  FailedAt,
  FailureCode,
  Inspection,
  Outcome,
  Renewal,
  SecretResult,
} from '../../../contract/refresher-api.ts';
import { codeOf } from '../../../lib/cluster-error.ts';
import type { ClusterState, Observation } from '../clusters/cluster-state.ts';

/** A failure as data and as a sentence. */
export interface Failure {
  readonly code: FailureCode;
  readonly reason: string;
}

/** What became of a cluster run's Events. */
export interface EventsReport {
  /** New ones. Those that the API server had already do not count. */
  readonly written: number;
  readonly notWritten: number;
  /** Why, of the first that was not written. */
  readonly reason?: string;
}

export interface ClusterReport {
  readonly cluster: string;
  /** Its Secrets could be listed. */
  readonly served: boolean;
  /** It was not served, something that was due was not refreshed, or its token is late. */
  readonly failed: boolean;
  /** Its tag pauses it: the run sent no request to it, except for an inspection that names it. */
  readonly isPaused?: boolean;
  /** Only of an inspection. */
  readonly inspection?: Inspection;
  /** What became of its token; absent if no token is registered that states its expiry. */
  readonly renewal?: Renewal;
  /** Why it failed as a whole; a single Secret's failure is in `results`. */
  readonly reason?: string;
  /** Present if and only if it failed, each code once. */
  readonly codes?: readonly FailureCode[];
  /** Where it failed, if it was not served. */
  readonly failedAt?: FailedAt;
  /** The enabled namespaces, as far as the event selects them. */
  readonly namespaces: readonly string[];
  readonly managed: number;
  /** The results of all requests, and of those that were not attempted; in a run over all clusters, the first problems. */
  readonly results: readonly SecretResult[];
  /** How often each outcome occurred, if `results` has the first problems only. */
  readonly outcomes?: Outcomes;
  /** The soonest expiry of its credentials, milliseconds since the epoch. */
  readonly soonestExpiry?: number;
  /** Why the API server did not say which Secret to create. */
  readonly provisioningUnknown?: string;
  /** A namespace could not be listed: other credentials may expire sooner. */
  readonly isPartial?: boolean;
  /** Of its Events on Secrets; absent if there were none to write, or it may not create any. */
  readonly events?: EventsReport;
  /** The stored state of the cluster; absent if the run did not cover the whole of it. */
  readonly state?: ClusterState;
  /** Why the state could not be stored, and the AWS SDK's name of that error. */
  readonly stateNotSaved?: string;
  readonly stateNotSavedError?: string;
}

const NOT_OBSERVED = { served: false, namespaces: [], managed: 0, results: [] };

/** A cluster joins its reasons in one log line and one answer, which have size limits. */
const MAX_REASONS = 20;

/** The report of a cluster whose Secrets could not be listed. @param failures at least one */
export function notServed(
  cluster: string,
  failures: readonly Failure[],
  failedAt: FailedAt = 'reach',
): ClusterReport {
  return {
    ...NOT_OBSERVED,
    cluster,
    failed: true,
    reason: joinReasons(failures),
    codes: distinctCodes(failures),
    failedAt,
  };
}

/** The report of a cluster that its tag pauses. */
export function paused(cluster: string): ClusterReport {
  return { ...NOT_OBSERVED, cluster, failed: false, isPaused: true, reason: 'paused by its tag' };
}

/** The report of a cluster that an event names, and that `register` has not completed. */
export function incomplete(cluster: string): ClusterReport {
  const reason =
    'its registration is not complete: repeat the register command, or remove it with the unregister command';
  return notServed(cluster, [{ code: 'registration-incomplete', reason }], 'kubeconfig');
}

/** Adds what became of the cluster's token. A token that is late makes the cluster a failed one. */
export function withRenewal(report: ClusterReport, renewal: Renewal | undefined): ClusterReport {
  if (renewal === undefined) return report;
  if (!renewal.isLate) return { ...report, renewal };
  const late = `the registered token expires at ${renewal.expiresAt} and is not renewed: ${renewal.reason}`;
  return {
    ...report,
    failed: true,
    reason: report.reason === undefined ? late : `${report.reason}; ${late}`,
    codes: [...(report.codes ?? []), 'token-late'],
    renewal,
  };
}

/** Results whose details a report of a run over all clusters keeps: those that its answer can list. */
export const PROBLEMS_LISTED = 20;

/** Whether the answer lists a result. */
export function isProblem({ outcome }: SecretResult): boolean {
  return outcome !== 'refreshed' && outcome !== 'provisioned' && outcome !== 'not-attempted';
}

/** Drops what the log has and the answer does not list, so that the reports of thousands of clusters fit into memory. */
export function withoutDetails(report: ClusterReport): ClusterReport {
  const results = report.results.filter(isProblem).slice(0, PROBLEMS_LISTED);
  return { ...report, results, outcomes: outcomesOf(report) };
}

/** How often each outcome occurred. */
export type Outcomes = Readonly<Partial<Record<Outcome, number>>>;

export function outcomesOf({ results, outcomes }: Pick<ClusterReport, 'results' | 'outcomes'>): Outcomes {
  if (outcomes) return outcomes;
  const groups = Map.groupBy(results, ({ outcome }) => outcome);
  return Object.fromEntries([...groups].map(([outcome, group]) => [outcome, group.length]));
}

/** The number of Secrets that were due or missing. `not-provisioned` does not count: the refresher cannot create those. */
export function dueOf(report: Pick<ClusterReport, 'results' | 'outcomes'>): number {
  const { 'not-provisioned': _, ...counts } = outcomesOf(report);
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}

/** One sentence for many failures. */
export function joinReasons(failures: readonly Pick<Failure, 'reason'>[]): string {
  const more = failures.length - MAX_REASONS;
  const reasons = failures.slice(0, MAX_REASONS).map(({ reason }) => reason);
  return [...reasons, ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}

export function distinctCodes(failures: readonly Failure[]): FailureCode[] {
  return [...new Set(failures.map(({ code }) => code))];
}

/** An error as a failure. */
export function failureOf(error: unknown): Failure {
  return { code: codeOf(error), reason: error instanceof Error ? error.message : String(error) };
}

/**
 * The soonest expiry of a cluster's credentials, milliseconds since the epoch. If the run did not observe all of them,
 * the stored expiry counts too, so that the metric keeps ageing while a cluster does not respond.
 */
export function soonestExpiryOf({
  soonestExpiry,
  isPaused,
  served,
  isPartial,
  state,
}: Partial<Pick<ClusterReport, 'soonestExpiry' | 'isPaused' | 'served' | 'isPartial' | 'state'>>):
  | number
  | undefined {
  if (isPaused || (served && !isPartial)) return soonestExpiry;
  const expiries = [soonestExpiry, state?.soonestExpiry].filter((expiry) => expiry !== undefined);
  return expiries.length > 0 ? Math.min(...expiries) : undefined;
}

/** What is stored of the cluster. @param at when the cluster run began, milliseconds since the epoch */
export function observationOf(report: ClusterReport, at: number): Observation {
  const { cluster, served, failed, isPaused = false, isPartial, managed, soonestExpiry, results } = report;
  const { expiresAt } = report.renewal ?? {};
  const isComplete = served && !isPartial;
  return {
    cluster,
    at,
    served,
    failed,
    isPaused,
    managed,
    due: dueOf(report),
    reason:
      report.reason ??
      results.find(({ reason, outcome }) => reason !== undefined && outcome !== 'not-provisioned')?.reason,
    codes: report.codes,
    soonestExpiry: isComplete ? (soonestExpiry ?? null) : undefined,
    tokenExpiresAt: expiresAt === undefined ? undefined : Date.parse(expiresAt),
  };
}
