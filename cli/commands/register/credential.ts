// The identities that are registered without EKS (eks-entry.ts): a token of the chart's ServiceAccount (token.ts makes
// it), that of a kubeconfig of the operator's choice, or one of the account's issuer.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { STSClient } from '@aws-sdk/client-sts';
import { z } from 'zod';
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import { webIdentityToken } from '../../../lib/aws/web-identity.ts';
import { type RegisteredAccess, readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import { readToken } from '../../../lib/kubernetes/service-account-token.ts';
import { type Aws, clientConfig, type Stack } from '../../aws/aws.ts';
import { type Installation, refresherUsername } from '../../kubernetes/chart.ts';
import { ApiError } from '../../kubernetes/client.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { authenticationConfigOf } from '../authentication-config.ts';
import type { RegisteredUser } from './kubeconfig.ts';

/** What is registered, and how long it is good for. */
export interface Credential {
  readonly user: RegisteredUser;
  /** RFC 3339; absent where it does not say. */
  readonly expiresAt?: string;
  /** The refresher exchanges it for the next one in time. */
  readonly isRenewed: boolean;
}

/** Who the chart's ServiceAccount is. */
export function serviceAccountIdentity(installation: Installation): Identity {
  const { namespace } = installation;
  return {
    username: refresherUsername(installation),
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
  };
}

/** The identity of a kubeconfig, whose server is of no matter. @throws CliError where it cannot be registered */
export async function givenCredential(path: string, now = Date.now()): Promise<Credential> {
  let credential: Credential;
  try {
    credential = credentialOf(readKubeconfig(await readFile(path, 'utf8')).identity);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new CliError('credential-unreadable', `--credential ${path}: ${code ?? message}`, undefined, error);
  }
  const { expiresAt } = credential;
  if (expiresAt !== undefined && Date.parse(expiresAt) <= now)
    throw new CliError(
      'credential-expired',
      `--credential ${path}: it has expired at ${expiresAt}`,
      'leave --credential out: a token of the chart’s ServiceAccount is made, which renews itself',
    );
  return credential;
}

function credentialOf(identity: RegisteredAccess['identity']): Credential {
  const time = (ms: number | undefined) =>
    ms === undefined ? {} : { expiresAt: new Date(ms).toISOString().replace(/\.\d+Z$/, 'Z') };
  if ('token' in identity) {
    const token = readToken(identity.token);
    return {
      user: { token: identity.token },
      ...time(token?.expiresAt),
      isRenewed: token !== undefined && !('reason' in token),
    };
  }
  if ('cert' in identity) {
    const base64 = (pem: string) => Buffer.from(pem).toString('base64');
    return {
      user: {
        'client-certificate-data': base64(identity.cert),
        'client-key-data': base64(identity.key),
      },
      ...time(Date.parse(new X509Certificate(identity.cert).validTo)),
      isRenewed: false,
    };
  }
  throw new Error('it holds no token and no client certificate: --eks and --keyless are for the others');
}

/** What a keyless cluster is registered with, and what its API server needs. */
export interface Keyless {
  readonly user: RegisteredUser;
  /** YAML. */
  readonly authenticationConfig: string;
  /** Prints that. */
  readonly command: string;
  /** Who the refresher is to an API server that has it. */
  readonly identity: Identity;
}

/** @param issuer the account's, where whoever runs this may not ask for it. @throws CliError */
export async function keyless(
  aws: Aws,
  { stackName, roleArn }: Stack,
  cluster: string,
  issuer: string | undefined,
  kubernetesMinor: number,
  commands: ShellCommands,
): Promise<Keyless> {
  const url = await issuerOf(aws, stackName, cluster, issuer, commands);
  const apiVersion = kubernetesMinor >= 34 ? 'v1' : 'v1beta1';
  const of = ['--cluster', cluster, '--stack-name', stackName, '--issuer', url, '--role-arn', roleArn];
  return {
    user: {
      exec: { command: 'ecr-anywhere', args: ['get-token', '--cluster', cluster, '--stage', stackName] },
    },
    authenticationConfig: authenticationConfigOf({ cluster, issuer: url, roleArn, stackName, apiVersion }),
    // It asks nobody, and takes no option that says whom.
    command: new ShellCommands({}, {}).cli(['authentication-config', ...of, '--api-version', apiVersion]),
    identity: {
      username: `ecr-anywhere:${roleArn}`,
      groups: [REFRESHER_GROUP, 'system:authenticated'],
    },
  };
}

/** The account's issuer, told by a token of STS'. */
async function issuerOf(
  aws: Aws,
  stackName: string,
  cluster: string,
  given: string | undefined,
  commands: ShellCommands,
): Promise<string> {
  const sts = new STSClient(clientConfig(aws.options));
  let issuer: string;
  try {
    const { token } = await aws.ask('asking STS for the issuer', (signal) =>
      webIdentityToken(sts, { stage: stackName, cluster }, signal),
    );
    const payload = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    issuer = z.object({ iss: z.url() }).parse(payload).iss;
  } catch (error) {
    if (error instanceof CliError && error.code === 'interrupted') throw error;
    if (given !== undefined) return given;
    throw new CliError(
      'issuer-unknown',
      `the account's issuer is not known: ${(error as Error).message}`,
      `give it as --issuer: ${commands.aws(['iam', 'get-outbound-web-identity-federation-info'])} names it`,
      error,
    );
  }
  if (given !== undefined && given !== issuer)
    throw new CliError(
      'issuer-mismatch',
      `--issuer: the account's is ${issuer}, and API servers compare it to the letter`,
      `--issuer ${issuer}, or leave it out`,
    );
  return issuer;
}

/** Whether the API server does not know the credential. */
export function isUnauthorized(error: unknown): boolean {
  return error instanceof ApiError && error.status === 401;
}
