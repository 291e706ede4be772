// ecr-anywhere get-token: prints a token for a keyless cluster, as an exec plugin of kubectl.
import { STSClient } from '@aws-sdk/client-sts';
import { DEFAULT_STACK_NAME } from '../../contract/keyless.ts';
import { SIGN_IN_AGAIN, webIdentityToken } from '../../lib/aws/web-identity.ts';
import { Aws, clientConfig } from '../aws/aws.ts';
import type { Io } from '../output/io.ts';
import { checkedAudience } from './audience.ts';

/** kubectl waits for this command. The SDK has no overall time limit. */
const TIMEOUT_MS = 10_000;

export interface GetTokenOptions {
  readonly cluster: string;
  readonly stackName?: string;
  readonly region?: string;
  readonly profile?: string;
}

/** Prints an ExecCredential (client.authentication.k8s.io/v1). @throws CliError or Error if there is no token */
export async function getToken(
  { cluster, stackName = DEFAULT_STACK_NAME, ...options }: GetTokenOptions,
  io: Io,
): Promise<undefined> {
  checkedAudience(stackName, cluster);
  await new Aws(options, io.signal).region();
  const { token, expiresAt } = await webIdentityToken(
    new STSClient(clientConfig(options)),
    { stage: stackName, cluster, nextSession: SIGN_IN_AGAIN },
    AbortSignal.any([io.signal, AbortSignal.timeout(TIMEOUT_MS)]),
  );
  const credential = {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    // Kubernetes writes times without fractions of a second.
    status: { token, expirationTimestamp: expiresAt?.toISOString().replace(/\.\d+Z$/, 'Z') },
  };
  io.print(credential, () => JSON.stringify(credential));
}
