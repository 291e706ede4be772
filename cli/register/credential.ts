// Where the identity comes from that is registered: a token of the chart's ServiceAccount, a kubeconfig of the operator's
// choice, or the account's issuer. eks-entry.ts has that of EKS.
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { STSClient } from '@aws-sdk/client-sts';
import { z } from 'zod';
import { REFRESHER_GROUP } from '../../contract/names.ts';
import { type RegisteredAccess, readKubeconfig } from '../../functions/refresher/kubeconfig.ts';
import { readToken } from '../../functions/refresher/service-account-token.ts';
import { webIdentityToken } from '../../functions/refresher/web-identity.ts';
import { authenticationConfigOf } from '../authentication-config.ts';
import { type Aws, clientConfig, type Stack } from '../aws.ts';
import { type Installation, refresherUsername, TOKEN_MAX_SECONDS } from '../chart.ts';
import { CliError, EXIT } from '../errors.ts';
import type { Identity } from '../identity.ts';
import { ApiError, type Kubernetes } from '../kubernetes.ts';
import type { Repairs } from '../repairs.ts';
import type { RegisteredUser } from './kubeconfig.ts';

/** A week, unless the chart allows less. */
const TOKEN_SECONDS = 604_800;
/** Kubernetes makes none that live shorter (TokenRequestSpec.expirationSeconds). */
const MIN_TOKEN_SECONDS = 600;

const ServiceAccount = z.object({
  metadata: z.object({
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
const Created = z.object({ metadata: z.object({ uid: z.string() }) });
const TokenRequest = z.object({
  status: z.object({ token: z.string(), expirationTimestamp: z.string() }),
});

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

/** A token that is to be asked for. */
export interface TokenPlan {
  readonly installation: Installation;
  readonly seconds: number;
  /** Of the ServiceAccount, as the chart has set them. */
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * Whether a token of the chart's ServiceAccount can be had. Changes nothing.
 *
 * @param seconds that it is to live; default: a week, or as long as the chart allows
 * @throws CliError where it cannot
 */
export async function planToken(
  kubernetes: Kubernetes,
  installation: Installation,
  seconds: number | undefined,
  repairs: Repairs,
): Promise<TokenPlan> {
  const { namespace, refresher } = installation;
  const account = await kubernetes.find(`/api/v1/namespaces/${namespace}/serviceaccounts/${refresher}`);
  if (!account)
    throw new CliError(
      EXIT.notFound,
      `there is no ServiceAccount ${namespace}/${refresher}`,
      repairs.upgrade(),
    );
  const { labels = {}, annotations = {} } = ServiceAccount.parse(account).metadata;
  const allowed = Number(annotations[TOKEN_MAX_SECONDS] ?? TOKEN_SECONDS);
  const wanted = Math.round(seconds ?? Math.min(allowed, TOKEN_SECONDS));
  if (wanted > allowed)
    throw new CliError(
      EXIT.usage,
      `a token of ${wanted / 3600} h could not be renewed: the chart allows ${allowed / 3600} h`,
      `--duration ${allowed / 3600}; or ${repairs.upgrade(['--set', `refresher.token.maxSeconds=${wanted}`])}`,
    );
  if (wanted < MIN_TOKEN_SECONDS)
    throw new CliError(
      EXIT.usage,
      'Kubernetes makes no token that lives less than ten minutes',
      '--duration 1',
    );
  return { installation, seconds: wanted, labels };
}

/**
 * A token of the chart's ServiceAccount, bound to the release's Secret, which is made again if an earlier registration
 * was ended by deleting it.
 *
 * @throws CliError
 */
export async function mintToken(
  kubernetes: Kubernetes,
  { installation, seconds, labels }: TokenPlan,
): Promise<Credential> {
  const { namespace, release, refresher, tokenSecret } = installation;
  const base = `/api/v1/namespaces/${namespace}`;
  const secret =
    (await kubernetes.find(`${base}/secrets/${tokenSecret}`)) ??
    (
      await kubernetes.post(`${base}/secrets`, {
        body: {
          apiVersion: 'v1',
          kind: 'Secret',
          type: 'Opaque',
          immutable: true,
          // Helm takes it for its own again.
          metadata: {
            name: tokenSecret,
            labels,
            annotations: {
              'meta.helm.sh/release-name': release,
              'meta.helm.sh/release-namespace': namespace,
            },
          },
        },
      })
    ).body;
  const { uid } = Created.parse(secret).metadata;
  const { body } = await kubernetes.post(`${base}/serviceaccounts/${refresher}/token`, {
    body: {
      apiVersion: 'authentication.k8s.io/v1',
      kind: 'TokenRequest',
      spec: {
        expirationSeconds: seconds,
        boundObjectRef: { kind: 'Secret', apiVersion: 'v1', name: tokenSecret, uid },
      },
    },
  });
  const { token, expirationTimestamp } = TokenRequest.parse(body).status;
  return { user: { token }, expiresAt: expirationTimestamp, isRenewed: true };
}

/** The identity of a kubeconfig, whose server is of no matter. @throws CliError where it cannot be registered */
export async function givenCredential(path: string, now = Date.now()): Promise<Credential> {
  let credential: Credential;
  try {
    credential = credentialOf(readKubeconfig(await readFile(path, 'utf8')).identity);
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new CliError(EXIT.usage, `--credential ${path}: ${code ?? message}`, undefined, error);
  }
  const { expiresAt } = credential;
  if (expiresAt !== undefined && Date.parse(expiresAt) <= now)
    throw new CliError(
      EXIT.denied,
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
      isRenewed: token !== undefined && !('whyNot' in token),
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
  { stage, roleArn }: Stack,
  cluster: string,
  issuer: string | undefined,
  kubernetesMinor: number,
): Promise<Keyless> {
  const url = await issuerOf(aws, stage, cluster, issuer);
  const apiVersion = kubernetesMinor >= 34 ? 'v1' : 'v1beta1';
  const of = ['--cluster', cluster, '--stage', stage, '--issuer', url, '--role-arn', roleArn];
  return {
    user: { exec: { command: 'ecr-anywhere', args: ['get-token', '--cluster', cluster, '--stage', stage] } },
    authenticationConfig: authenticationConfigOf({ cluster, issuer: url, roleArn, stage, apiVersion }),
    command: ['ecr-anywhere', 'authentication-config', ...of, '--api-version', apiVersion].join(' '),
    identity: {
      username: `ecr-anywhere:${roleArn}`,
      groups: [REFRESHER_GROUP, 'system:authenticated'],
    },
  };
}

/** The account's issuer, told by a token of STS'. */
async function issuerOf(
  aws: Aws,
  stage: string,
  cluster: string,
  given: string | undefined,
): Promise<string> {
  const sts = new STSClient(clientConfig(aws.options));
  let issuer: string;
  try {
    const { token } = await aws.ask('asking STS for the issuer', (signal) =>
      webIdentityToken(sts, { stage, cluster }, signal),
    );
    const payload = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    issuer = z.object({ iss: z.url() }).parse(payload).iss;
  } catch (error) {
    if (error instanceof CliError && error.exitCode === EXIT.interrupted) throw error;
    if (given !== undefined) return given;
    throw new CliError(
      EXIT.usage,
      `the account's issuer is not known: ${(error as Error).message}`,
      'give it as --issuer: aws iam get-outbound-web-identity-federation-info names it',
      error,
    );
  }
  if (given !== undefined && given !== issuer)
    throw new CliError(
      EXIT.usage,
      `--issuer: the account's is ${issuer}, and API servers compare it to the letter`,
      `--issuer ${issuer}, or leave it out`,
    );
  return issuer;
}

/** Whether the API server does not know the credential. */
export function isUnauthorized(error: unknown): boolean {
  return error instanceof ApiError && error.status === 401;
}
