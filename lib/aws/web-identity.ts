// What STS is asked for a keyless cluster's token with: by the refresher as its role, and by the command line as whoever
// runs it. Said once, so that the two and the role's policy cannot differ.

import { GetWebIdentityTokenCommand, type STSClient } from '@aws-sdk/client-sts';
import { clusterAudience, SIGNING_ALGORITHM, TOKEN_SECONDS } from '../../contract/keyless.ts';
import { ClusterError } from '../cluster-error.ts';
import { isPermanentAwsError } from './errors.ts';

export interface WebIdentityToken {
  readonly token: string;
  /** By STS' clock. */
  readonly expiresAt: Date | undefined;
}

/** By the names of STS' errors (STS API reference, GetWebIdentityToken): the way out. */
const HINTS: Readonly<Record<string, string>> = {
  OutboundWebIdentityFederationDisabledException:
    'aws iam enable-outbound-web-identity-federation switches it on for the account',
  SessionDurationEscalationException: `a session that ends within ${TOKEN_SECONDS / 60} minutes cannot have it: sign in again`,
};

/**
 * Has STS sign a token for whoever asks, which one cluster takes and no other.
 *
 * @param cluster as it is registered
 * @throws Error that says why there is none, and the way out
 */
export async function webIdentityToken(
  sts: STSClient,
  { stage, cluster }: { readonly stage: string; readonly cluster: string },
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
      const said = signal.aborted ? 'no answer in time' : `${cause.name}: ${cause.message}`;
      const hint = Object.hasOwn(HINTS, cause.name) ? ` (${HINTS[cause.name]})` : '';
      // The role, or the account, is not set up for it.
      const failedAt = isPermanentAwsError(cause) ? 'setting' : 'reach';
      throw new ClusterError(failedAt, `STS gives no web identity token: ${said}${hint}`, { cause });
    });
  if (!token) throw new Error('STS gave no web identity token');
  return { token, expiresAt };
}
