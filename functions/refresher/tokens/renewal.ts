// Renews the token of a registered cluster: asks the API server for the next one, tries it, and stores it. The present
// one is valid until it expires and stays registered until the next is stored, so that whatever ends this half-way
// costs nothing but another attempt in the next run.

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
import type { UsableAccess } from '../kubernetes/client.ts';
import { KubernetesApi } from '../kubernetes/client.ts';
import { replaceVersion } from './store-token.ts';

/** The part of a token's life after which the next one is asked for. */
const DUE = 1 / 2;
/** The part after which it is a failure that there is none: enough is left to be told, and to act. */
const LATE = 3 / 4;
/** And no earlier than this before the end: a token of a year is no failure for its last three months. */
const LATE_WITHIN_MS = 14 * 86_400_000;

/** A cluster's secret, as it was read. */
export interface RegisteredSecret {
  readonly name: string;
  readonly kubeconfig: string;
  readonly versionId: string;
  /** The kubeconfig's context to use, where it is not the current one. */
  readonly context?: string | undefined;
}

/**
 * Renews a registered token that is past half of its life. Never rejects, and never tells a token.
 *
 * @param access how the API server is reached with what is registered
 * @param now milliseconds since the epoch
 * @returns undefined where what is registered is no token that says when it expires
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

    const next = await ask(await access(), present, signal);
    const text = withToken(secret.kubeconfig, next.token, secret.context);
    const replaced = await replaceVersion(secrets, secret, text, signal).catch((cause: Error) => {
      throw new ClusterError('kubeconfig', cause.message, { cause, code: 'token-not-stored' });
    });
    if (replaced === 'superseded')
      return {
        outcome: 'superseded',
        reason: 'the registration has changed meanwhile',
        code: 'registration-changed',
      };
    // When another one's token expires, the next run sees.
    return { outcome: 'renewed', ...(replaced === 'stored' && expiry(next)) };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    const code = signal.aborted ? 'cluster-time-up' : codeOf(error);
    return notRenewed('failed', reason, code, present, now);
  }
}

/** The next token. @throws Error where it is not as good as the present one */
async function ask(
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
  // The server's word counts, not what was asked for; and no more than the token itself says.
  const expiresAt = Math.min(answer.expiresAt, next.expiresAt);
  if (expiresAt <= present.expiresAt)
    throw new ClusterError(
      'reach',
      `the next token would expire no later, at ${new Date(expiresAt).toISOString()}`,
      { code: 'token-not-longer' },
    );
  await using asNext = new KubernetesApi({ ...access, identity: { token: answer.token } }, 1, signal);
  await asNext.check();
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
