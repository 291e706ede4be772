// Ends every token of a cluster: deletes, as the registered identity itself, the Secret that its token is bound to, and
// waits until the API server takes the token no longer. Nothing else is done to the cluster, and the registration stays.

import { setTimeout as sleep } from 'node:timers/promises';
import pMap from 'p-map';
import type { RevokeResult } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
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

/** An API server lets a token in for ten seconds after it has checked it (kube-apiserver, its authenticator's cache). */
const WAIT_MS = 30_000;
const POLL_MS = 1_000;

/**
 * Revokes the tokens of clusters. Paused ones, too: nobody is to wait for a leak.
 *
 * @param names of the clusters
 * @param report is told of each as soon as it is done
 * @throws NotRegisteredError where a name is none, and nothing is revoked then
 */
export async function revoke(
  sources: ClusterSources,
  names: readonly string[],
  settings: RevokeSettings,
  signal: AbortSignal,
  report: (result: RevokeResult) => void,
): Promise<RevokeResult[]> {
  const { clusters } = await selectClusters(sources, names, settings, signal);
  return pMap(
    clusters,
    async (cluster) => {
      const result = { cluster: cluster.name, ...(await revokeOne(cluster, settings, signal)) };
      report(result);
      return result;
    },
    { concurrency: settings.clusterConcurrency },
  );
}

type Revoked = Omit<RevokeResult, 'cluster'>;

async function revokeOne(
  { open }: Cluster,
  { clusterDeadlineMs }: RevokeSettings,
  runSignal: AbortSignal,
): Promise<Revoked> {
  if (runSignal.aborted) return { outcome: 'failed', reason: "the run's time was up before its turn" };
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(clusterDeadlineMs)]);
  let bound: Pick<Revoked, 'secret'> = {};
  try {
    const cluster = open(signal);
    const registered = cluster.registered && (await abortable(cluster.registered(), signal));
    const token = boundTokenOf(registered?.identity);
    if ('reason' in token) return { outcome: 'nothing-to-revoke', reason: token.reason };
    const { namespace, secret } = token;
    bound = { secret: { namespace, name: secret.name } };
    return { ...(await end(cluster, token, signal)), ...bound };
  } catch (error) {
    const said = error instanceof Error ? error.message : String(error);
    return { outcome: 'failed', reason: signal.aborted ? "the cluster's time was up" : said, ...bound };
  }
}

/** The token that can be ended; or why there is none. @param identity absent of a tagged EKS cluster */
function boundTokenOf(
  identity: RegisteredAccess['identity'] | undefined,
): BoundToken | { readonly reason: string } {
  if (identity === undefined || 'eks' in identity)
    return { reason: 'its tokens are signed for each turn and live for minutes: take its access entry away' };
  if ('keyless' in identity)
    return {
      reason:
        'its tokens are made for each turn and live for minutes: take the issuer or the subject out of the API server’s authentication configuration',
    };
  if ('cert' in identity)
    return {
      reason: 'a client certificate is valid until it expires: take the bindings of its user and groups away',
    };
  const token = readToken(identity.token);
  if (token === undefined)
    return {
      reason: 'it is no token of a service account that is bound to a Secret: end it where it is from',
    };
  return token;
}

async function end(cluster: OpenCluster, token: BoundToken, signal: AbortSignal): Promise<Revoked> {
  const access = await abortable(cluster.access(), signal);
  await using api = new KubernetesApi(access, 1, signal);
  try {
    await api.deleteSecretOf(token);
  } catch (error) {
    const status = error instanceof KubernetesError ? error.status : undefined;
    // It may have expired, and the Secret be there still: somebody else may hold one that it was renewed to.
    if (status === 401) {
      const { namespace, secret } = token;
      return {
        outcome: 'refused-already',
        reason: `the API server takes the registered token no longer, so it cannot end others that are bound to the same Secret: an administrator must delete ${secret.name} in ${namespace}`,
      };
    }
    // Gone, or another one in its place: what was bound to it has ended, or is about to.
    if (status !== 404 && status !== 409) throw error;
  }
  const giveUpAt = performance.now() + WAIT_MS;
  let last = '';
  while (performance.now() < giveUpAt && !signal.aborted) {
    try {
      await api.check();
      last = 'the API server still takes the token';
    } catch (error) {
      const { status, message } = error as KubernetesError;
      if (status === 401) return { outcome: 'revoked' };
      // Whoever is forbidden something was known. That the time is up says nothing new.
      if (status === 403) last = 'the API server still takes the token';
      else if (!signal.aborted || last === '') last = message;
    }
    await sleep(POLL_MS, undefined, { signal }).catch(() => {});
  }
  return {
    outcome: 'failed',
    reason: `the Secret that the token is bound to is deleted, and it cannot be told that it has ended: ${last}`,
  };
}
