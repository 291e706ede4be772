// Renews the token of a registered cluster: requests the next token from the API server, tests it, and stores it. The
// present token stays registered until the next one is stored. After a failure at any point the next run tries again.

import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { FailureCode, Renewal } from '../../../contract/refresher-api.ts';
import { ClusterError, codeOf } from '../../../lib/cluster-error.ts';
import { readKubeconfig, withToken } from '../../../lib/kubernetes/kubeconfig.ts';
import {
  type BoundToken,
  isPastFraction,
  type OtherToken,
  readToken,
} from '../../../lib/kubernetes/service-account-token.ts';
import { KubernetesApi, type UsableAccess } from '../kubernetes/client.ts';
import { replaceVersion } from './store-token.ts';

/** The fraction of a token's lifetime after which the refresher requests the next one. */
const DUE = 1 / 2;
/** The fraction after which a missing renewal is a failure, early enough for the operator to act. */
const LATE = 3 / 4;
/** Nor is it a failure earlier than this before the expiry: a token of a year would fail for three months. */
const LATE_WITHIN_MS = 14 * 86_400_000;

/** The version of a cluster's secret that was read. */
export interface RegisteredSecret {
  readonly name: string;
  readonly kubeconfig: string;
  readonly versionId: string;
  /** The context of the kubeconfig to use, if not the current one. */
  readonly context?: string | undefined;
}

/**
 * Renews a registered token that is past half of its lifetime. Never rejects; no reason contains a token.
 *
 * @param access returns the server and the registered credential
 * @param now in milliseconds since the epoch
 * @returns undefined if the registered credential is not a JWT
 */
export async function renewToken(
  secrets: SecretsManagerClient,
  secret: RegisteredSecret,
  access: () => Promise<UsableAccess>,
  now: number,
  signal: AbortSignal,
): Promise<Renewal | undefined> {
  let present: BoundToken | OtherToken | undefined;
  try {
    const { identity } = readKubeconfig(secret.kubeconfig, secret.context);
    present = 'token' in identity ? readToken(identity.token) : undefined;
    if (present === undefined) return undefined;
    if ('reason' in present)
      return notRenewed('not-renewable', present.reason, 'token-not-bound', present, now);
    if (!isPastFraction(DUE, present, now)) return { outcome: 'not-due', ...expiry(present) };

    const next = await requestToken(await access(), present, signal);
    const text = withToken(secret.kubeconfig, next.token, secret.context);
    const replacement = await replaceVersion(secrets, secret, text, signal).catch((cause: Error) => {
      throw new ClusterError('kubeconfig', cause.message, { cause, code: 'token-not-stored' });
    });
    if (replacement === 'superseded')
      return {
        outcome: 'superseded',
        reason: 'the registration has changed meanwhile',
        code: 'registration-changed',
      };
    // The next run reads the expiry of a token that another run stored.
    return { outcome: 'renewed', ...(replacement === 'stored' && expiry(next)) };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const code = signal.aborted ? 'cluster-time-up' : codeOf(error);
    return notRenewed('failed', reason, code, present, now);
  }
}

/** Requests and tests the next token. @throws ClusterError if it differs from the present one, or expires no later */
async function requestToken(
  access: UsableAccess,
  present: BoundToken,
  signal: AbortSignal,
): Promise<{ token: string; expiresAt: number }> {
  await using api = new KubernetesApi(access, 1, signal);
  const answer = await api.nextToken(present);
  const next = readToken(answer.token);
  if (next === undefined || 'reason' in next || !isSame(next, present))
    throw new ClusterError(
      'reach',
      'the API server has answered with a token of another ServiceAccount, or bound to another Secret',
      { code: 'token-mismatch' },
    );
  // The API server may shorten the lifetime, and the token itself states the expiry that counts.
  const expiresAt = Math.min(answer.expiresAt, next.expiresAt);
  if (expiresAt <= present.expiresAt)
    throw new ClusterError(
      'reach',
      `the next token would expire at ${new Date(expiresAt).toISOString()}, not later than the present one`,
      { code: 'token-not-longer' },
    );
  await using nextApi = new KubernetesApi({ ...access, identity: { token: answer.token } }, 1, signal);
  await nextApi.check();
  return { token: answer.token, expiresAt };
}

function isSame(a: BoundToken, b: BoundToken): boolean {
  return (
    a.namespace === b.namespace &&
    a.serviceAccount === b.serviceAccount &&
    a.secret.name === b.secret.name &&
    a.secret.uid === b.secret.uid
  );
}

function notRenewed(
  outcome: 'not-renewable' | 'failed',
  reason: string,
  code: FailureCode,
  present: BoundToken | OtherToken | undefined,
  now: number,
): Renewal {
  return {
    outcome,
    reason,
    code,
    ...(present && { ...expiry(present), ...(isLate(present, now) && { isLate: true }) }),
  };
}

function isLate(token: BoundToken | OtherToken, now: number): boolean {
  const { expiresAt = Number.POSITIVE_INFINITY } = token;
  return isPastFraction(LATE, token, now) && expiresAt - now <= LATE_WITHIN_MS;
}

function expiry({ expiresAt }: { readonly expiresAt?: number }): { expiresAt?: string } {
  return expiresAt === undefined ? {} : { expiresAt: new Date(expiresAt).toISOString() };
}
