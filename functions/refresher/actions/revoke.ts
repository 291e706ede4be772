// Revokes the tokens of a cluster: deletes, as the registered identity itself, the Secret that its token is bound to, and
// waits until the API server refuses the token. Changes nothing else in the cluster, and keeps the registration.

import { setTimeout as sleep } from 'node:timers/promises';
import pMap from 'p-map';
import type { FailureCode, RevokeResult } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { codeOf } from '../../../lib/cluster-error.ts';
import type { RegisteredAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { type BoundToken, readToken } from '../../../lib/kubernetes/service-account-token.ts';
import {
  type Cluster,
  type ClusterSettings,
  type ClusterSources,
  type OpenCluster,
  selectClusters,
} from '../clusters/clusters.ts';
import { KubernetesApi, KubernetesError } from '../kubernetes/client.ts';

export interface RevokeSettings extends ClusterSettings {
  readonly clusterConcurrency: number;
}

/** An API server caches an accepted token for ten seconds (kube-apiserver, cached token authenticator). */
const WAIT_MS = 30_000;
const POLL_MS = 1_000;

/**
 * Revokes the tokens of clusters, paused ones included: a leaked token must not stay valid because of a pause.
 *
 * @param names of the clusters
 * @param onResult called with each cluster's result as soon as it is complete
 * @throws NotRegisteredError if a name is unknown; nothing is revoked then
 */
export async function revoke(
  sources: ClusterSources,
  names: readonly string[],
  settings: RevokeSettings,
  signal: AbortSignal,
  onResult: (result: RevokeResult) => void,
): Promise<RevokeResult[]> {
  const { clusters } = await selectClusters(sources, names, settings, signal);
  return pMap(
    clusters,
    async (cluster) => {
      const result = { cluster: cluster.name, ...(await revokeOne(cluster, settings, signal)) };
      onResult(result);
      return result;
    },
    { concurrency: settings.clusterConcurrency },
  );
}

type Revoked = Omit<RevokeResult, 'cluster'>;

async function revokeOne(
  { open, isRegistering }: Cluster,
  { clusterDeadlineMs }: RevokeSettings,
  runSignal: AbortSignal,
): Promise<Revoked> {
  if (runSignal.aborted)
    return {
      outcome: 'failed',
      reason: 'the run reached its time limit before this cluster was started',
      code: 'run-time-up',
    };
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(clusterDeadlineMs)]);
  let bound: Pick<Revoked, 'secret'> = {};
  try {
    const cluster = open(signal);
    const registered = cluster.registered && (await abortable(cluster.registered(), signal));
    const token = boundTokenOf(registered?.identity);
    if ('reason' in token) return { outcome: 'nothing-to-revoke', ...token };
    const { namespace, secret } = token;
    bound = { secret: { namespace, name: secret.name } };
    return { ...(await revokeToken(cluster, token, signal)), ...bound };
  } catch (error) {
    if (isRegistering && isMissing(error))
      return {
        outcome: 'nothing-to-revoke',
        reason: 'register was interrupted before it stored a credential',
        code: 'registration-incomplete',
      };
    const reason = error instanceof Error ? error.message : String(error);
    const failure = signal.aborted
      ? ({ reason: 'the cluster reached its deadline', code: 'cluster-time-up' } as const)
      : { reason, code: codeOf(error) };
    return { outcome: 'failed', ...failure, ...bound };
  }
}

/** The token that can be revoked, or why there is none. @param identity absent for a tagged EKS cluster */
function boundTokenOf(
  identity: RegisteredAccess['identity'] | undefined,
): BoundToken | { readonly reason: string; readonly code: FailureCode } {
  if (identity === undefined || 'eks' in identity)
    return {
      reason: 'its tokens are signed for each run and expire within minutes: delete its access entry',
      code: 'short-lived-token',
    };
  if ('keyless' in identity)
    return {
      reason:
        'its tokens are made for each run and expire within minutes: remove the issuer or the subject from the API server’s authentication configuration',
      code: 'short-lived-token',
    };
  if ('cert' in identity)
    return {
      reason: 'a client certificate is valid until it expires: delete the bindings of its user and groups',
      code: 'client-certificate',
    };
  const token = readToken(identity.token);
  if (token === undefined || 'reason' in token)
    return {
      reason:
        'the registered token is not a ServiceAccount token that is bound to a Secret: revoke it where it was issued',
      code: 'token-not-bound',
    };
  return token;
}

/** Whether Secrets Manager has no such value. */
function isMissing(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause)
    if (at.name === 'ResourceNotFoundException') return true;
  return false;
}

const STILL_ACCEPTED = {
  reason: 'the API server still accepts the token',
  code: 'token-still-accepted',
} as const;

async function revokeToken(cluster: OpenCluster, token: BoundToken, signal: AbortSignal): Promise<Revoked> {
  const access = await abortable(cluster.access(), signal);
  await using api = new KubernetesApi(access, 1, signal);
  try {
    await api.deleteSecretOf(token);
  } catch (error) {
    const status = error instanceof KubernetesError ? error.status : undefined;
    // The registered token may have expired while the Secret exists, and with it tokens that it was renewed to.
    if (status === 401) {
      const { namespace, secret } = token;
      return {
        outcome: 'refused-already',
        reason: `the API server refuses the registered token, so the refresher cannot revoke other tokens that are bound to the same Secret: an administrator must delete the Secret ${secret.name} in the namespace ${namespace}`,
        code: 'unauthorized',
      };
    }
    // The Secret is gone, or another one has its name: tokens that were bound to it end, as soon as the cache forgets them.
    if (status !== 404 && status !== 409) throw error;
  }
  const giveUpAt = performance.now() + WAIT_MS;
  let last: { reason: string; code: FailureCode } = { reason: '', code: 'token-still-accepted' };
  while (performance.now() < giveUpAt && !signal.aborted) {
    try {
      await api.check();
      last = STILL_ACCEPTED;
    } catch (error) {
      const { status, message } = error as KubernetesError;
      if (status === 401) return { outcome: 'revoked' };
      // A 403 follows a successful authentication. An error of the deadline would hide the last response.
      if (status === 403) last = STILL_ACCEPTED;
      else if (!signal.aborted || last.reason === '') last = { reason: message, code: codeOf(error) };
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => {});
  }
  return {
    outcome: 'failed',
    reason: `the Secret that the token is bound to is deleted, but the API server does not confirm that it refuses the token: ${last.reason}`,
    code: last.code,
  };
}
