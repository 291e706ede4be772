// Imitates the webhook authenticator that EKS runs for each API server: it answers TokenReviews with the groups of access
// entries. The verifier of aws-iam-authenticator, with an imitation of STS, identifies the role of a token.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { createAuthority } from '../bed/certificates.ts';
import { tools } from '../bed/toolchain.ts';
import type { EksDouble } from './eks.ts';

export interface Authenticator extends AsyncDisposable {
  /** The kubeconfig with which the API server of a cluster sends its TokenReviews. */
  kubeconfigFor(cluster: string): string;
  /** The number of next tokens that it rejects, as EKS does until a new access entry takes effect. */
  lag: number;
  /** The reviews so far, with the ARN of the role of each token. */
  readonly reviews: { readonly cluster: string; readonly role: string | undefined }[];
}

interface Verdict {
  readonly error?: string;
  readonly arn?: string;
  readonly canonicalARN?: string;
}

/** Starts it on a free loopback port. @param stsUrl the STS that the verifier calls */
export async function startAuthenticator(eks: EksDouble, stsUrl: string): Promise<Authenticator> {
  const authority = await createAuthority('EKS');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const server = createServer({ cert: certPem, key: keyPem }, async (request, response) => {
    const cluster = (request.url ?? '').split('/')[1]?.split('?')[0] ?? '';
    const { spec } = JSON.parse(await text(request)) as { spec: { token: string } };
    const user = await userOf(cluster, spec.token);
    response.writeHead(200, { 'content-type': 'application/json' }).end(
      JSON.stringify({
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenReview',
        status: user ? { authenticated: true, user } : { authenticated: false },
      }),
    );
  });
  const userOf = async (cluster: string, token: string) => {
    if (!token.startsWith('k8s-aws-v1.')) return undefined;
    const { canonicalARN: role, arn } = await verify(cluster, token, stsUrl);
    authenticator.reviews.push({ cluster, role });
    if (authenticator.lag > 0) {
      authenticator.lag -= 1;
      return undefined;
    }
    const groups = eks.entries.get(`${cluster} ${role}`);
    return groups && { username: arn, groups };
  };
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}`;
  const authenticator: Authenticator = {
    lag: 0,
    reviews: [],
    kubeconfigFor: (cluster) =>
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Config',
        'current-context': 'eks',
        contexts: [{ name: 'eks', context: { cluster: 'eks', user: 'eks' } }],
        clusters: [
          {
            name: 'eks',
            cluster: {
              server: `${url}/${cluster}`,
              'certificate-authority-data': Buffer.from(authority.caPem).toString('base64'),
            },
          },
        ],
        users: [{ name: 'eks', user: {} }],
      }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return authenticator;
}

async function verify(cluster: string, token: string, stsUrl: string): Promise<Verdict> {
  const verifier = spawn(tools().eksTokenVerifier, { env: { STS_URL: stsUrl } });
  verifier.stdin.end(JSON.stringify({ cluster, partition: 'aws', region: 'eu-central-1', token }));
  const [verdict] = await Promise.all([text(verifier.stdout), text(verifier.stderr)]);
  return JSON.parse(verdict || '{}');
}
