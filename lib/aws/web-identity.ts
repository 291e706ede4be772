// Requests a keyless cluster's token from STS. The refresher and the command line share the request, so that both match
// the policy of the refresher's role.

import { GetWebIdentityTokenCommand, type STSClient } from '@aws-sdk/client-sts';
import { clusterAudience, SIGNING_ALGORITHM, TOKEN_SECONDS } from '../../contract/keyless.ts';
import { ClusterError } from '../cluster-error.ts';
import { describeAwsError, isPermanentAwsError } from './errors.ts';

export interface WebIdentityToken {
  readonly token: string;
  /** By the clock of STS. */
  readonly expiresAt: Date | undefined;
}

/** What the operator can do, by the name of the STS error (STS API reference, GetWebIdentityToken). */
const hintsFor = (nextSession: string): Readonly<Record<string, string>> => ({
  OutboundWebIdentityFederationDisabledException:
    'to enable it for the account: aws iam enable-outbound-web-identity-federation',
  SessionDurationEscalationException: `the session ends within ${TOKEN_SECONDS / 60} minutes, before the token would: ${nextSession}`,
});

/** For `nextSession`, if an operator requests the token. */
export const SIGN_IN_AGAIN = 'sign in again';

/**
 * Has STS sign a token for the caller's AWS identity. Only one cluster accepts it.
 *
 * @param stage the stack name
 * @param cluster the registered name
 * @param nextSession how the caller gets a session that lasts longer, for the message if its own ends too soon
 * @throws ClusterError with the reason and what the operator can do
 */
export async function webIdentityToken(
  sts: STSClient,
  {
    stage,
    cluster,
    nextSession,
  }: { readonly stage: string; readonly cluster: string; readonly nextSession: string },
  signal: AbortSignal,
): Promise<WebIdentityToken> {
  const command = new GetWebIdentityTokenCommand({
    Audience: [clusterAudience(stage, cluster)],
    DurationSeconds: TOKEN_SECONDS,
    SigningAlgorithm: SIGNING_ALGORITHM,
  });
  const { WebIdentityToken: token, Expiration: expiresAt } = await sts
    .send(command, { abortSignal: signal })
    .catch((cause: Error) => {
      const reason = signal.aborted ? 'no answer in time' : describeAwsError(cause);
      const hints = hintsFor(nextSession);
      const hint = Object.hasOwn(hints, cause.name) ? ` (${hints[cause.name]})` : '';
      // A permanent error means that the role or the account lacks a permission or a setting.
      const failedAt = isPermanentAwsError(cause) ? 'setting' : 'reach';
      const code = failedAt === 'setting' ? 'aws-refused' : 'aws-unavailable';
      throw new ClusterError(failedAt, `STS returned no web identity token: ${reason}${hint}`, {
        cause,
        code,
      });
    });
  if (!token) throw new Error('STS returned no web identity token');
  return { token, expiresAt };
}
