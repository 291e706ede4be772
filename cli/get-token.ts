// A token for a keyless cluster, as kubectl asks its exec plugins for one.
import { STSClient } from '@aws-sdk/client-sts';
import { DEFAULT_STAGE } from '../contract/keyless.ts';
import { webIdentityToken } from '../functions/refresher/web-identity.ts';
import { type Command, readOptions } from './command.ts';

/** Somebody waits at a terminal. The SDK itself would for ever. */
const PATIENCE_MS = 10_000;

export const getToken: Command = {
  summary: 'a token for a keyless cluster, for kubectl',
  usage: `Usage: ecr-anywhere get-token --cluster NAME [--stage STAGE] [--region REGION]

Has STS sign a token for whoever runs it, and prints it as an ExecCredential
(client.authentication.k8s.io/v1). In a kubeconfig:

  users:
  - name: ecr-anywhere
    user:
      exec:
        apiVersion: client.authentication.k8s.io/v1
        interactiveMode: Never
        command: ecr-anywhere
        args: [get-token, --cluster, NAME]

  --cluster NAME     as it is registered
  --stage STAGE      name of the CDK stack; default: ${DEFAULT_STAGE}
  --region REGION    default: AWS_REGION, or the profile's`,

  async run(args) {
    const { cluster, stage = DEFAULT_STAGE, region } = readOptions(args, ['cluster'], ['stage', 'region']);
    const sts = new STSClient(region === undefined ? {} : { region });
    await sts.config.region().catch(() => {
      throw new Error('no AWS region: give --region, or set AWS_REGION');
    });
    const { token, expiresAt } = await webIdentityToken(
      sts,
      { stage, cluster },
      AbortSignal.timeout(PATIENCE_MS),
    );
    return JSON.stringify({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      // Kubernetes' times have no fractions of a second.
      status: { token, expirationTimestamp: expiresAt?.toISOString().replace(/\.\d+Z$/, 'Z') },
    });
  },
};
