// Where the identity comes from that is registered: a token of the chart's ServiceAccount, a kubeconfig of the operator's
// choice, an EKS cluster's access entry, or the account's issuer.
import { readFile } from 'node:fs/promises';
import { STSClient } from '@aws-sdk/client-sts';
import { z } from 'zod';
import { readKubeconfig } from '../functions/refresher/kubeconfig.ts';
import { readToken } from '../functions/refresher/service-account-token.ts';
import { webIdentityToken } from '../functions/refresher/web-identity.ts';
import { authenticationConfigOf } from './authentication-config.ts';
import { type Aws, clientConfig, type Stack } from './aws.ts';
import { type Installation, refresherUsername, TOKEN_MAX_SECONDS } from './chart.ts';
import { CliError, EXIT } from './errors.ts';
import type { Identity } from './identity.ts';
import type { RegisteredUser } from './kubeconfig.ts';
import { ApiError, type Kubernetes } from './kubernetes.ts';

/** A week, unless the chart allows less. */
const TOKEN_SECONDS = 604_800;

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

/** A token, and when it expires (RFC 3339). */
export interface MintedToken {
  readonly user: { readonly token: string };
  readonly expiresAt: string;
}

/** Who the chart's ServiceAccount is. */
export function serviceAccountIdentity(installation: Installation): Identity {
  const { namespace } = installation;
  return {
    username: refresherUsername(installation),
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
  };
}

/**
 * A token of the chart's ServiceAccount, bound to the release's Secret, which is made again if an earlier registration
 * was ended by deleting it.
 *
 * @param seconds that it is to live; default: a week, or as long as the chart allows
 * @throws CliError
 */
export async function mintToken(
  kubernetes: Kubernetes,
  { namespace, refresher, tokenSecret }: Installation,
  seconds: number | undefined,
): Promise<MintedToken> {
  const base = `/api/v1/namespaces/${namespace}`;
  const account = await kubernetes.find(`${base}/serviceaccounts/${refresher}`);
  if (!account)
    throw new CliError(
      EXIT.notFound,
      `there is no ServiceAccount ${namespace}/${refresher}`,
      `helm upgrade --install brings it back`,
    );
  const { labels, annotations = {} } = ServiceAccount.parse(account).metadata;
  const allowed = Number(annotations[TOKEN_MAX_SECONDS] ?? TOKEN_SECONDS);
  if (seconds !== undefined && seconds > allowed)
    throw new CliError(
      EXIT.usage,
      `a token of ${seconds / 3600} h could not be renewed: the chart allows ${allowed / 3600} h`,
      'a shorter --duration, or a larger refresher.token.maxSeconds of the chart',
    );
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
              'meta.helm.sh/release-name': labels?.['app.kubernetes.io/instance'] ?? '',
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
        expirationSeconds: Math.round(seconds ?? Math.min(allowed, TOKEN_SECONDS)),
        boundObjectRef: { kind: 'Secret', apiVersion: 'v1', name: tokenSecret, uid },
      },
    },
  });
  const { token, expirationTimestamp } = TokenRequest.parse(body).status;
  return { user: { token }, expiresAt: expirationTimestamp };
}

/** The identity of a kubeconfig. @throws CliError where it is not one that can be registered */
export async function givenCredential(
  path: string,
): Promise<{ user: RegisteredUser; kubeconfig: string; expiresAt?: string }> {
  try {
    const kubeconfig = await readFile(path, 'utf8');
    const { identity } = readKubeconfig(kubeconfig);
    if ('token' in identity) {
      const { expiresAt } = readToken(identity.token) ?? {};
      return {
        user: { token: identity.token },
        kubeconfig,
        ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt).toISOString() }),
      };
    }
    if ('cert' in identity) {
      const base64 = (pem: string) => Buffer.from(pem).toString('base64');
      const user = {
        'client-certificate-data': base64(identity.cert),
        'client-key-data': base64(identity.key),
      };
      return { user, kubeconfig };
    }
    throw new Error('it holds no token and no client certificate: --eks and --keyless are for the others');
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    throw new CliError(EXIT.usage, `--credential ${path}: ${code ?? message}`, undefined, error);
  }
}

/** What a keyless cluster is registered with, and what its API server needs. */
export interface Keyless {
  readonly user: RegisteredUser;
  /** YAML. */
  readonly authenticationConfig: string;
}

/** @param issuer the account's; where it is not given, a token of STS' tells it */
export async function keyless(
  aws: Aws,
  { stage, roleArn }: Stack,
  cluster: string,
  issuer: string | undefined,
  kubernetesMinor: number,
): Promise<Keyless> {
  const url = issuer ?? (await issuerOf(aws, stage, cluster));
  const apiVersion = kubernetesMinor >= 34 ? 'v1' : 'v1beta1';
  return {
    user: { exec: { command: 'ecr-anywhere', args: ['get-token', '--cluster', cluster, '--stage', stage] } },
    authenticationConfig: authenticationConfigOf({ cluster, issuer: url, roleArn, stage, apiVersion }),
  };
}

async function issuerOf(aws: Aws, stage: string, cluster: string): Promise<string> {
  const sts = new STSClient(clientConfig(aws.options));
  try {
    const { token } = await aws.ask('asking STS for the issuer', (signal) =>
      webIdentityToken(sts, { stage, cluster }, signal),
    );
    const payload = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());
    return z.object({ iss: z.url() }).parse(payload).iss;
  } catch (error) {
    if (error instanceof CliError && error.exitCode === EXIT.interrupted) throw error;
    throw new CliError(
      EXIT.usage,
      `the account's issuer is not known: ${(error as Error).message}`,
      'give it as --issuer: aws iam get-outbound-web-identity-federation-info names it',
      error,
    );
  }
}

/** Whether the API server does not know the credential. */
export function isUnauthorized(error: unknown): boolean {
  return error instanceof ApiError && error.status === 401;
}
