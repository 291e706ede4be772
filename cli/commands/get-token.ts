// A token for a keyless cluster, as kubectl asks its exec plugins for one.
import { STSClient } from '@aws-sdk/client-sts';
import { DEFAULT_STACK_NAME } from '../../contract/keyless.ts';
import { webIdentityToken } from '../../lib/aws/web-identity.ts';
import { Aws, clientConfig } from '../aws/aws.ts';
import type { Io } from '../output/io.ts';
import { checkedAudience } from './audience.ts';

/** Somebody waits at a terminal. The SDK itself would for ever. */
const PATIENCE_MS = 10_000;

export interface GetTokenOptions {
  readonly cluster: string;
  readonly stackName?: string;
  readonly region?: string;
  readonly profile?: string;
}

/** Prints an ExecCredential (client.authentication.k8s.io/v1). @throws CliError or Error that says why there is none */
export async function getToken(
  { cluster, stackName = DEFAULT_STACK_NAME, ...options }: GetTokenOptions,
  io: Io,
): Promise<undefined> {
  checkedAudience(stackName, cluster);
  await new Aws(options, io.signal).region();
  const { token, expiresAt } = await webIdentityToken(
    new STSClient(clientConfig(options)),
    { stage: stackName, cluster },
    AbortSignal.any([io.signal, AbortSignal.timeout(PATIENCE_MS)]),
  );
  const credential = {
    apiVersion: 'client.authentication.k8s.io/v1',
    kind: 'ExecCredential',
    // Kubernetes' times have no fractions of a second.
    status: { token, expirationTimestamp: expiresAt?.toISOString().replace(/\.\d+Z$/, 'Z') },
  };
  io.print(credential, () => JSON.stringify(credential));
}
