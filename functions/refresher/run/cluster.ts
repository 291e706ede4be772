// One cluster's turn: list what is managed, request what is due, check every answer.

import pMap from 'p-map';
import { freshness } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import type {
  FailedAt,
  Inspection,
  Outcome,
  Renewal,
  SecretResult,
} from '../../../contract/refresher-api.ts';
import { failedAtOf } from '../../../lib/cluster-error.ts';
import type { Known } from '../clusters/cluster-state.ts';
import {
  type AnnotatedSecret,
  type KubernetesApi,
  KubernetesError,
  type ManagedSecret,
} from '../kubernetes/client.ts';
import { type Fault, Streaks } from './circuit-breaker.ts';
import { dueRegistries, jitterOf, outcomeOf, plan, type Refresh } from './plan.ts';

/** PATCHes at the same time; each makes the API server call the webhook. */
export const PATCHES_AT_ONCE = 8;

/** Of a cluster's reasons, as many as are told. */
const REASONS_GIVEN = 20;

export interface ClusterReport {
  readonly cluster: string;
  /** Its Secrets could be listed. */
  readonly served: boolean;
  /** It was not served, or something that was due was not refreshed, or its token should have been renewed long ago. */
  readonly failed: boolean;
  /** Nothing was asked of it, as its tag says; but for an inspection of it by name. */
  readonly isPaused?: boolean;
  /** What else was found out, for somebody who asked. */
  readonly inspection?: Inspection;
  /** What became of its token; absent where none is registered that says when it expires. */
  readonly renewal?: Renewal;
  /** Why it failed as a whole; what failed for one Secret stands with the Secret. */
  readonly reason?: string;
  /** Where it failed, if it was not served. */
  readonly failedAt?: FailedAt;
  /** The enabled namespaces that were looked at. */
  readonly namespaces: readonly string[];
  readonly managed: number;
  /** What was requested, or would have been. */
  readonly results: readonly SecretResult[];
  /** Milliseconds since the epoch: the first of its credentials to expire, as far as is known. */
  readonly soonestExpiry?: number;
  /** A namespace could not be listed: there may be credentials that expire sooner. */
  readonly isPartial?: boolean;
  /** What the refresher remembers of the cluster; absent where the run had no look at the whole of it. */
  readonly known?: Known;
  /** Why it could not be remembered. */
  readonly stateNotSaved?: string;
}

export interface Scope {
  readonly namespaces?: readonly string[] | undefined;
  readonly dryRun: boolean;
  readonly force: boolean;
}

/** The report of a cluster that could not be served. */
export function notServed(cluster: string, reason: string, failedAt: FailedAt = 'reach'): ClusterReport {
  return { ...UNSEEN, cluster, failed: true, reason, failedAt };
}

/** The report of a cluster whose turn it is not, as its tag says. */
export function paused(cluster: string): ClusterReport {
  return { ...UNSEEN, cluster, failed: false, isPaused: true, reason: 'paused by its tag' };
}

const UNSEEN = { served: false, namespaces: [], managed: 0, results: [] };

/**
 * Refreshes what is due in a cluster. Never rejects: what goes wrong is in the report.
 *
 * @param now milliseconds since the epoch; also the mark of every request of this turn
 * @param signal ends the turn; what was not attempted by then is reported so
 */
export async function refreshCluster(
  cluster: string,
  api: KubernetesApi,
  scope: Scope,
  now: number,
  signal: AbortSignal,
): Promise<ClusterReport> {
  const listing = await list(api, scope.namespaces);
  if (!listing.served) return notServed(cluster, joined(listing.reasons), listing.failedAt);

  const refreshes = plan(listing.secrets, now, jitterOf(cluster), scope.force);
  const requested = await request(api, refreshes, scope, now, signal);
  const results = requested.results;
  const reasons = [...listing.reasons, ...requested.endedBy];
  const soonest = soonestExpiry(listing.secrets, scope.dryRun ? [] : results, now);
  return {
    cluster,
    served: true,
    failed:
      reasons.length > 0 || results.some(({ outcome }) => outcome !== 'refreshed' && outcome !== 'gone'),
    ...(reasons.length > 0 && { reason: joined(reasons) }),
    namespaces: listing.namespaces,
    managed: listing.secrets.length,
    results,
    ...(soonest !== undefined && { soonestExpiry: soonest }),
    ...(listing.reasons.length > 0 && { isPartial: true }),
  };
}

interface Listing {
  readonly served: boolean;
  readonly namespaces: string[];
  readonly secrets: ManagedSecret[];
  readonly reasons: string[];
  /** Of the first reason. */
  readonly failedAt: FailedAt | undefined;
}

/** All managed Secrets; a namespace that cannot be listed is a reason, and costs the others nothing. */
async function list(api: KubernetesApi, only: readonly string[] | undefined): Promise<Listing> {
  const reasons: string[] = [];
  let failedAt: FailedAt | undefined;
  try {
    const enabled = await api.enabledNamespaces();
    const namespaces = only ? enabled.filter((name) => only.includes(name)) : enabled;
    const lists = await pMap(
      namespaces,
      (namespace) =>
        api.managedSecrets(namespace).catch((error: unknown) => {
          reasons.push(messageOf(error));
          failedAt ??= failedAtOf(error);
          return undefined;
        }),
      { concurrency: PATCHES_AT_ONCE },
    );
    const listed = lists.filter((secrets) => secrets !== undefined);
    return {
      served: namespaces.length === 0 || listed.length > 0,
      namespaces,
      secrets: listed.flat(),
      reasons,
      failedAt,
    };
  } catch (error) {
    const nothing = { served: false, namespaces: [], secrets: [] };
    return { ...nothing, reasons: [messageOf(error)], failedAt: failedAtOf(error) };
  }
}

/** Requests the refreshes in their order, a few at a time, until all are asked for or the turn ends early. */
async function request(
  api: KubernetesApi,
  refreshes: readonly Refresh[],
  scope: Scope,
  now: number,
  signal: AbortSignal,
): Promise<{ results: SecretResult[]; endedBy: string[] }> {
  const mark = new Date(now).toISOString();
  const annotations = { [ANNOTATION.requestedAt]: mark, ...(scope.force && { [ANNOTATION.force]: mark }) };
  const streaks = new Streaks();

  const results = await pMap(
    refreshes,
    async (refresh): Promise<SecretResult> => {
      const { secret, reason: due } = refresh;
      const result = { secret: `${secret.namespace}/${secret.name}`, due };
      if (signal.aborted) streaks.end(TIME_UP);
      if (streaks.hasEnded(secret.namespace)) return { ...result, outcome: 'not-attempted' };
      const { fault, ...came } = await attempt(api, refresh, annotations, scope.dryRun, now);
      if (signal.aborted) streaks.end(TIME_UP);
      streaks.note(secret.namespace, fault);
      return { ...result, ...came };
    },
    { concurrency: PATCHES_AT_ONCE },
  );
  return { results, endedBy: streaks.reasons() };
}

const TIME_UP = "the cluster's time was up";

interface Attempt {
  readonly outcome: Outcome;
  readonly reason?: string;
  readonly expiresAt?: string | undefined;
  /** Where the Secret itself is not at fault. */
  readonly fault?: Fault;
}

async function attempt(
  api: KubernetesApi,
  refresh: Refresh,
  annotations: Readonly<Record<string, string>>,
  dryRun: boolean,
  now: number,
): Promise<Attempt> {
  try {
    const after = await api.annotate(refresh.secret, annotations, dryRun);
    const outcome = outcomeOf(refresh, after, now);
    const expiresAt = after.annotations[ANNOTATION.expiresAt];
    if (outcome === 'refreshed') return { outcome, expiresAt };
    if (outcome === 'partial') return { outcome, expiresAt, reason: partialReason(after, now) };
    const reason =
      'the API server took the request and no credentials were written: is the webhook configuration there, and does it select this namespace?';
    // One namespace may be exempt from the webhook while the others are not.
    return { outcome, reason, fault: { of: 'namespace', cause: outcome, reason } };
  } catch (error) {
    if (error instanceof KubernetesError && error.status === 404) return { outcome: 'gone' };
    const reason = messageOf(error);
    if (!(error instanceof KubernetesError) || error.affects === 'object')
      return { outcome: 'refused', reason };
    // Ports and times differ from one failure to the next.
    const cause = error.reason.replaceAll(/\d+/g, '#');
    return { outcome: 'refused', reason, fault: { of: 'cluster', cause, reason } };
  }
}

/** Which of a Secret's registries were not refreshed, each in the webhook's own words where it gave any. */
function partialReason(after: AnnotatedSecret, now: number): string {
  const due = [...dueRegistries(after, now)].map(
    ([host, expiresAt]) =>
      after.warnings.find((warning) => warning.startsWith(`${host}: `)) ?? `${host}: expires at ${expiresAt}`,
  );
  if (due.length > 0) return joined(due);
  const removed = after.warnings.filter((warning) => / (removed|not given): /.test(warning));
  return joined(removed) || 'the new credentials are due again already';
}

/** The first expiry among the Secrets, as they are after the results. */
function soonestExpiry(
  secrets: readonly ManagedSecret[],
  results: readonly SecretResult[],
  now: number,
): number | undefined {
  const resultOf = new Map(results.map((result) => [result.secret, result]));
  let soonest: number | undefined;
  for (const { namespace, name, annotations } of secrets) {
    const result = resultOf.get(`${namespace}/${name}`);
    if (result?.outcome === 'gone') continue;
    const value = result?.expiresAt ?? annotations[ANNOTATION.expiresAt];
    const { expiresAt } = freshness(value, now);
    if (expiresAt !== undefined) soonest = Math.min(soonest ?? expiresAt, expiresAt);
  }
  return soonest;
}

/** A cluster may have thousands of namespaces, and a log line has an end. */
function joined(reasons: readonly string[]): string {
  const more = reasons.length - REASONS_GIVEN;
  return [...reasons.slice(0, REASONS_GIVEN), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** What a cluster's report says of its token: where that is late, the cluster has failed. */
export function withRenewal(report: ClusterReport, renewal: Renewal | undefined): ClusterReport {
  if (renewal === undefined) return report;
  if (!renewal.isLate) return { ...report, renewal };
  const late = `the registered token expires at ${renewal.expiresAt} and is not renewed: ${renewal.reason}`;
  const reason = report.reason === undefined ? late : `${report.reason}; ${late}`;
  return { ...report, failed: true, reason, renewal };
}
