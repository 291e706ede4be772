// A token for a keyless cluster, as kubectl asks its exec plugins for one.
import { GetWebIdentityTokenCommand, STSClient } from '@aws-sdk/client-sts';
import { audienceOf, DEFAULT_STAGE, SIGNING_ALGORITHM, TOKEN_SECONDS } from '../contract/keyless.ts';
import { type Command, readOptions } from './command.ts';

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
    const { WebIdentityToken: token, Expiration } = await sts.send(
      new GetWebIdentityTokenCommand({
        Audience: [audienceOf(stage, cluster)],
        DurationSeconds: TOKEN_SECONDS,
        SigningAlgorithm: SIGNING_ALGORITHM,
      }),
    );
    return JSON.stringify({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      // Kubernetes' times have no fractions of a second.
      status: { token, expirationTimestamp: Expiration?.toISOString().replace(/\.\d+Z$/, 'Z') },
    });
  },
};
