// Registering a keyless cluster: the refresher authenticates by tokens that AWS STS signs, so no credential is stored.
import { STSClient } from '@aws-sdk/client-sts';
import { z } from 'zod';
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import { webIdentityToken } from '../../../lib/aws/web-identity.ts';
import { type Aws, clientConfig, type Stack } from '../../aws/aws.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { authenticationConfigOf } from '../authentication-config.ts';
import type { RegisteredUser } from './kubeconfig.ts';

export interface KeylessRegistration {
  readonly user: RegisteredUser;
  /** The AuthenticationConfiguration (YAML) that the cluster's API server needs. */
  readonly authenticationConfig: string;
  /** The command that prints `authenticationConfig`. */
  readonly command: string;
  /** The refresher's identity, once the API server has that configuration. */
  readonly identity: Identity;
}

/** @param issuer of --issuer, for operators who may not ask STS @throws CliError */
export async function keylessRegistration(
  aws: Aws,
  { stackName, roleArn }: Stack,
  cluster: string,
  issuer: string | undefined,
  kubernetesMinor: number,
  commands: ShellCommands,
): Promise<KeylessRegistration> {
  const issuerUrl = await determineIssuer(aws, stackName, cluster, issuer, commands);
  // AuthenticationConfiguration v1 exists since Kubernetes 1.34.
  const apiVersion = kubernetesMinor >= 34 ? 'v1' : 'v1beta1';
  const options = [
    '--cluster',
    cluster,
    '--stack-name',
    stackName,
    '--issuer',
    issuerUrl,
    '--role-arn',
    roleArn,
  ];
  return {
    user: {
      exec: { command: 'ecr-anywhere', args: ['get-token', '--cluster', cluster, '--stack-name', stackName] },
    },
    authenticationConfig: authenticationConfigOf({
      cluster,
      issuer: issuerUrl,
      roleArn,
      stackName,
      apiVersion,
    }),
    // The command calls neither AWS nor the cluster, so it takes no options for them.
    command: new ShellCommands({}, {}).cli([
      'authentication-config',
      ...options,
      '--api-version',
      apiVersion,
    ]),
    identity: {
      username: `ecr-anywhere:${roleArn}`,
      groups: [REFRESHER_GROUP, 'system:authenticated'],
    },
  };
}

/** The account's token issuer, read from a token that STS signs for the operator. */
async function determineIssuer(
  aws: Aws,
  stackName: string,
  cluster: string,
  given: string | undefined,
  commands: ShellCommands,
): Promise<string> {
  const sts = new STSClient(clientConfig(aws.options));
  let issuer: string;
  try {
    const { token } = await aws.ask('asking STS for the token issuer', (signal) =>
      webIdentityToken(sts, { stage: stackName, cluster }, signal),
    );
    const payload = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    issuer = z.object({ iss: z.url() }).parse(payload).iss;
  } catch (error) {
    if (error instanceof CliError && error.code === 'interrupted') throw error;
    if (given !== undefined) return given;
    throw new CliError(
      'issuer-unknown',
      `Could not determine the account's token issuer: ${(error as Error).message}`,
      `Give it with --issuer. To look it up: ${commands.aws(['iam', 'get-outbound-web-identity-federation-info'])}`,
      error,
    );
  }
  if (given !== undefined && given !== issuer)
    throw new CliError(
      'issuer-mismatch',
      `--issuer is not the account's token issuer, ${issuer}. API servers compare the two exactly.`,
      `Omit --issuer, or use: --issuer ${issuer}`,
    );
  return issuer;
}
