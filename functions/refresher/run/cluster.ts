// Refreshes one cluster: lists its managed Secrets, requests those that are due, creates those that are missing, and verifies
// each response.

import pMap from 'p-map';
import { freshness } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import {
  type FailedAt,
  OUTCOMES_WITHOUT_FAILURE,
  type SecretResult,
} from '../../../contract/refresher-api.ts';
import { ClusterError, failedAtOf } from '../../../lib/cluster-error.ts';
import type { KubernetesApi, ManagedSecret } from '../kubernetes/client.ts';
import { CircuitBreaker } from './circuit-breaker.ts';
import {
  type ClusterReport,
  distinctCodes,
  type Failure,
  failureOf,
  joinReasons,
  notServed,
} from './cluster-report.ts';
import { type EventsApi, eventsOf, writeEvents } from './events.ts';
import { incompleteRegistries, jitterOf, outcomeOf, plan, type Refresh } from './plan.ts';
import { type ProvisionApi, provision, provisioningOf } from './provision.ts';
import { notMutated, type RequestResult, refused } from './request-result.ts';

/** Concurrent requests to one cluster. Each PATCH makes the API server call the webhook. */
export const PATCHES_AT_ONCE = 8;

/** The requests of a cluster run. */
export type SecretsApi = Pick<KubernetesApi, 'enabledNamespaces' | 'managedSecrets' | 'annotate'> &
  EventsApi &
  ProvisionApi;

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

  const { dryRun, force } = options;
  const provisioningPromise = provisioningOf(api, listing.listed[0]);
  const breaker = new CircuitBreaker();
  const refreshes = plan(listing.secrets, now, jitterOf(cluster), force);
  const refreshed = await sendAll(refreshRequests(api, refreshes, options, now), breaker, signal);
  // Last: a refresh keeps Pods running that a new namespace does not have yet.
  const provisioning = await provisioningPromise;
  if (provisioning.unknown !== undefined && signal.aborted) breaker.stop(endOf(signal));
  const missing = missingSecrets(provisioning.secretName, listing);
  const provisioned = await sendAll(
    missing.map((secret) => ({
      secret,
      due: 'missing',
      send: () => provision(api, secret.namespace, secret.name, dryRun, now),
    })),
    breaker,
    signal,
  );
  const results = [...refreshed, ...provisioned];
  const created = missing.filter((_, index) => !dryRun && isCreated(provisioned[index]));
  const managed = [...listing.secrets, ...created];
  const failures = [...listing.failures, ...breaker.failures()];
  const codes = distinctCodes(failures);
  if (results.some(({ outcome }) => !OUTCOMES_WITHOUT_FAILURE.has(outcome)))
    codes.push('secrets-not-refreshed');
  const soonest = soonestExpiry(managed, dryRun ? [] : results, now);
  const newEvents = dryRun ? [] : eventsOf(refreshes, refreshed, (name) => breaker.stoppedBy(name), now);
  const events = await writeEvents(api, newEvents, failures, signal);
  return {
    cluster,
    served: true,
    failed: codes.length > 0,
    ...(failures.length > 0 && { reason: joinReasons(failures) }),
    ...(codes.length > 0 && { codes }),
    namespaces: listing.namespaces,
    managed: managed.length,
    results,
    ...(provisioning.unknown !== undefined && { provisioningUnknown: provisioning.unknown }),
    ...(soonest !== undefined && { soonestExpiry: soonest }),
    ...(listing.failures.length > 0 && { isPartial: true }),
    ...(events && { events }),
  };
}

interface Listing {
  readonly served: boolean;
  readonly namespaces: string[];
  /** Those whose Secrets could be listed. */
  readonly listed: readonly string[];
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
        api.managedSecrets(namespace).then(
          (secrets) => ({ namespace, secrets }),
          (error: unknown) => {
            failures.push(failureOf(error));
            failedAt ??= failedAtOf(error);
            return undefined;
          },
        ),
      { concurrency: PATCHES_AT_ONCE },
    );
    const listed = lists.filter((one) => one !== undefined);
    return {
      served: namespaces.length === 0 || listed.length > 0,
      namespaces,
      listed: listed.map(({ namespace }) => namespace),
      secrets: listed.flatMap(({ secrets }) => secrets),
      failures,
      failedAt,
    };
  } catch (error) {
    return {
      served: false,
      namespaces: [],
      listed: [],
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

/** The Secrets of this name that are not among the managed ones. @param name undefined: none is to be created */
function missingSecrets(name: string | undefined, { listed, secrets }: Listing): ManagedSecret[] {
  if (name === undefined) return [];
  const having = new Set(secrets.filter((secret) => secret.name === name).map(({ namespace }) => namespace));
  return listed
    .filter((namespace) => !having.has(namespace))
    .map((namespace) => ({ namespace, name, annotations: {} }));
}

function isCreated(result: SecretResult | undefined): boolean {
  return result?.outcome === 'provisioned' || result?.outcome === 'partial';
}

/** A request for one Secret. */
interface SecretRequest {
  readonly secret: Pick<ManagedSecret, 'namespace' | 'name'>;
  readonly due: SecretResult['due'];
  send(): Promise<RequestResult>;
}

function refreshRequests(
  api: SecretsApi,
  refreshes: readonly Refresh[],
  { force, dryRun }: RefreshOptions,
  now: number,
): SecretRequest[] {
  const requestedAt = new Date(now).toISOString();
  const annotations = {
    [ANNOTATION.requestedAt]: requestedAt,
    ...(force && { [ANNOTATION.force]: requestedAt }),
  };
  return refreshes.map((refresh) => ({
    secret: refresh.secret,
    due: refresh.reason,
    send: () => request(api, refresh, annotations, dryRun, now),
  }));
}

/** Sends the requests in their order, until all are sent, the time is up, or the circuit breaker stops. */
function sendAll(
  requests: readonly SecretRequest[],
  breaker: CircuitBreaker,
  signal: AbortSignal,
): Promise<SecretResult[]> {
  return pMap(
    requests,
    async ({ secret: { namespace, name }, due, send }): Promise<SecretResult> => {
      const base = { secret: `${namespace}/${name}`, due };
      if (signal.aborted) breaker.stop(endOf(signal));
      if (breaker.stoppedBy(namespace)) return { ...base, outcome: 'not-attempted' };
      const { sharedFailure, ...result } = await send();
      if (signal.aborted) breaker.stop(endOf(signal));
      breaker.record(namespace, sharedFailure);
      return { ...base, ...result };
    },
    { concurrency: PATCHES_AT_ONCE },
  );
}

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
    return notMutated();
  } catch (error) {
    return refused(error);
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
