// Refreshes one cluster: lists its managed Secrets, requests those that are due, and verifies each response.

import pMap from 'p-map';
import { freshness } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import type { FailedAt, Outcome, SecretResult } from '../../../contract/refresher-api.ts';
import { ClusterError, failedAtOf } from '../../../lib/cluster-error.ts';
import { type KubernetesApi, KubernetesError, type ManagedSecret } from '../kubernetes/client.ts';
import { CircuitBreaker, type SharedFailure } from './circuit-breaker.ts';
import {
  type ClusterReport,
  distinctCodes,
  type Failure,
  failureOf,
  joinReasons,
  notServed,
} from './cluster-report.ts';
import { incompleteRegistries, jitterOf, outcomeOf, plan, type Refresh } from './plan.ts';

/** Concurrent requests to one cluster. Each PATCH makes the API server call the webhook. */
export const PATCHES_AT_ONCE = 8;

/** The requests of a cluster run. */
export type SecretsApi = Pick<KubernetesApi, 'enabledNamespaces' | 'managedSecrets' | 'annotate'>;

export interface RefreshOptions {
  /** Only these namespaces. */
  readonly namespaces?: readonly string[] | undefined;
  readonly dryRun: boolean;
  readonly force: boolean;
}

/**
 * Refreshes what is due in a cluster. Never rejects: failures are in the report.
 *
 * @param now milliseconds since the epoch; also the value of every refresh request of this cluster run
 * @param signal ends the cluster run; Secrets that were not requested by then are reported as not attempted
 */
export async function refreshCluster(
  cluster: string,
  api: SecretsApi,
  options: RefreshOptions,
  now: number,
  signal: AbortSignal,
): Promise<ClusterReport> {
  const listing = await list(api, options.namespaces);
  if (!listing.served) return notServed(cluster, listing.failures, listing.failedAt);

  const refreshes = plan(listing.secrets, now, jitterOf(cluster), options.force);
  const requested = await requestAll(api, refreshes, options, now, signal);
  const { results } = requested;
  const failures = [...listing.failures, ...requested.failures];
  const codes = distinctCodes(failures);
  if (results.some(({ outcome }) => outcome !== 'refreshed' && outcome !== 'gone'))
    codes.push('secrets-not-refreshed');
  const soonest = soonestExpiry(listing.secrets, options.dryRun ? [] : results, now);
  return {
    cluster,
    served: true,
    failed: codes.length > 0,
    ...(failures.length > 0 && { reason: joinReasons(failures) }),
    ...(codes.length > 0 && { codes }),
    namespaces: listing.namespaces,
    managed: listing.secrets.length,
    results,
    ...(soonest !== undefined && { soonestExpiry: soonest }),
    ...(listing.failures.length > 0 && { isPartial: true }),
  };
}

interface Listing {
  readonly served: boolean;
  readonly namespaces: string[];
  readonly secrets: ManagedSecret[];
  readonly failures: Failure[];
  /** Of the first failure. */
  readonly failedAt: FailedAt | undefined;
}

/** All managed Secrets. A namespace that cannot be listed is a failure, and the other namespaces are listed all the same. */
async function list(api: SecretsApi, only: readonly string[] | undefined): Promise<Listing> {
  const failures: Failure[] = [];
  let failedAt: FailedAt | undefined;
  try {
    const enabled = await api.enabledNamespaces();
    const namespaces = only ? enabled.filter((name) => only.includes(name)) : enabled;
    const lists = await pMap(
      namespaces,
      (namespace) =>
        api.managedSecrets(namespace).catch((error: unknown) => {
          failures.push(failureOf(error));
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
      failures,
      failedAt,
    };
  } catch (error) {
    return {
      served: false,
      namespaces: [],
      secrets: [],
      failures: [failureOf(error)],
      failedAt: failedAtOf(error),
    };
  }
}

/** Why the cluster run ended before all was requested. @param signal that has ended it */
function endOf({ reason }: AbortSignal): Failure {
  if (reason instanceof ClusterError) return failureOf(reason);
  return { code: 'cluster-time-up', reason: 'the cluster reached its deadline' };
}

/** Requests the refreshes in their order, until all are requested, the time is up, or the circuit breaker stops. */
async function requestAll(
  api: SecretsApi,
  refreshes: readonly Refresh[],
  options: RefreshOptions,
  now: number,
  signal: AbortSignal,
): Promise<{ results: SecretResult[]; failures: Failure[] }> {
  const requestedAt = new Date(now).toISOString();
  const annotations = {
    [ANNOTATION.requestedAt]: requestedAt,
    ...(options.force && { [ANNOTATION.force]: requestedAt }),
  };
  const breaker = new CircuitBreaker();

  const results = await pMap(
    refreshes,
    async (refresh): Promise<SecretResult> => {
      const { secret, reason: due } = refresh;
      const base = { secret: `${secret.namespace}/${secret.name}`, due };
      if (signal.aborted) breaker.stop(endOf(signal));
      if (breaker.hasStopped(secret.namespace)) return { ...base, outcome: 'not-attempted' };
      const { sharedFailure, ...result } = await request(api, refresh, annotations, options.dryRun, now);
      if (signal.aborted) breaker.stop(endOf(signal));
      breaker.record(secret.namespace, sharedFailure);
      return { ...base, ...result };
    },
    { concurrency: PATCHES_AT_ONCE },
  );
  return { results, failures: breaker.failures() };
}

interface RequestResult extends Omit<SecretResult, 'secret' | 'due'> {
  readonly outcome: Outcome;
  /** Set if the next Secret is likely to fail in the same way. */
  readonly sharedFailure?: SharedFailure;
}

const NOT_MUTATED: Failure = {
  code: 'not-mutated',
  reason:
    'the API server accepted the request and no credentials were written: does the webhook configuration exist, and does it select this namespace?',
};

async function request(
  api: SecretsApi,
  refresh: Refresh,
  annotations: Readonly<Record<string, string>>,
  dryRun: boolean,
  now: number,
): Promise<RequestResult> {
  try {
    const after = await api.annotate(refresh.secret, annotations, dryRun);
    const outcome = outcomeOf(refresh, after, now);
    const expiresAt = after.annotations[ANNOTATION.expiresAt];
    if (outcome === 'refreshed') return { outcome, expiresAt };
    if (outcome === 'partial') {
      const incomplete = incompleteRegistries(refresh.secret, after, now);
      return {
        outcome,
        expiresAt,
        reason: joinReasons(incomplete) || 'the new credentials are due again already',
        ...(incomplete.length > 0 && { registries: incomplete.map(({ host }) => host) }),
      };
    }
    // One namespace may be exempt from the webhook while the others are not.
    return {
      outcome,
      ...NOT_MUTATED,
      sharedFailure: { affects: 'namespace', cause: outcome, ...NOT_MUTATED },
    };
  } catch (error) {
    if (error instanceof KubernetesError && error.status === 404) return { outcome: 'gone' };
    const failure = failureOf(error);
    if (!(error instanceof KubernetesError)) return { outcome: 'refused', ...failure };
    const { causes } = error;
    const result = { outcome: 'refused', ...failure, ...(causes.length > 0 && { causes }) } as const;
    if (error.affects === 'object') return result;
    // Ports and times differ from one failure to the next.
    const cause = error.reason.replaceAll(/\d+/g, '#');
    return { ...result, sharedFailure: { affects: 'cluster', cause, ...failure } };
  }
}

/** The soonest expiry among the Secrets, as they are after the requests. */
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
