// Registering a keyless cluster: the refresher authenticates by tokens that AWS STS signs, so no credential is stored.
import { STSClient } from '@aws-sdk/client-sts';
import { z } from 'zod';
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import { SIGN_IN_AGAIN, webIdentityToken } from '../../../lib/aws/web-identity.ts';
import { clientConfig } from '../../aws/aws.ts';
import type { Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { authenticationConfigOf } from '../authentication-config.ts';
import type { ObtainedCredential, RegisterContext } from './context.ts';

/** @throws CliError */
export async function obtainKeylessAccess(
  context: RegisterContext,
  server: Server,
): Promise<ObtainedCredential> {
  const { name: cluster, kubernetes } = context;
  const { stackName, roleArn } = context.stack;
  const { body } = await kubernetes.get<{ minor?: string }>('/version');
  const issuer = await determineIssuer(context);
  // AuthenticationConfiguration v1 exists since Kubernetes 1.34.
  const apiVersion = Number.parseInt(body.minor ?? '', 10) >= 34 ? 'v1' : 'v1beta1';
  const authenticationConfig = authenticationConfigOf({ cluster, issuer, roleArn, stackName, apiVersion });
  // The command calls neither AWS nor the cluster, so it takes no options for them.
  const command = new ShellCommands({}, {}).cli([
    ...['authentication-config', '--cluster', cluster, '--stack-name', stackName, '--issuer', issuer],
    ...['--role-arn', roleArn, '--api-version', apiVersion],
  ]);
  return {
    user: {
      exec: { command: 'ecr-anywhere', args: ['get-token', '--cluster', cluster, '--stack-name', stackName] },
    },
    isRenewed: false,
    server,
    expectedIdentity: {
      username: `ecr-anywhere:${roleArn}`,
      groups: [REFRESHER_GROUP, 'system:authenticated'],
    },
    note: `The cluster's kube-apiserver needs this file as --authentication-config:\n\n${authenticationConfig}\n`,
    details: { authenticationConfig },
    unauthorizedHint: `Configure the kube-apiserver and register again with --wait 120. To print the configuration: ${command}`,
  };
}

/** The account's token issuer, read from a token that STS signs. --issuer is for operators who may not request one. */
async function determineIssuer({ aws, stack, name, options, commands }: RegisterContext): Promise<string> {
  const given = options.issuer;
  const sts = new STSClient(clientConfig(aws.options));
  let issuer: string;
  try {
    const { token } = await aws.ask('asking STS for the token issuer', (signal) =>
      webIdentityToken(sts, { stage: stack.stackName, cluster: name, nextSession: SIGN_IN_AGAIN }, signal),
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
