// Imitates an API server that issues service account tokens by the test's clock. It has TokenRequest and an empty list of
// namespaces. Its tokens have the claims of Kubernetes and an invalid signature.
import { randomUUID } from 'node:crypto';
import {
  type ApiServer,
  json,
  kubeconfigFor,
  page,
  type Received,
  type Response,
  refuse,
  startApiServer,
} from './api-server.ts';

export const BOUND_TO = { name: 'ecr-anywhere-refresher-token', uid: '6d5f3a1e-0000-4000-8000-000000000001' };

export interface Claims {
  readonly namespace?: string;
  readonly serviceAccount?: string;
  readonly secret?: typeof BOUND_TO | undefined;
  readonly lifeSeconds: number;
}

export interface TokenIssuer extends AsyncDisposable {
  readonly server: ApiServer;
  /** Issues a token now. */
  issue(claims: Claims): string;
  isValid(token: string): boolean;
  /** All tokens, in the order of their issue. */
  readonly issued: readonly string[];
  kubeconfigOf(token: string): string;
  /** Called for each request; returns true if it answers the request itself. */
  intercept: (request: Received, response: Response) => boolean;
  /** The response to a TokenRequest; the default grants the request. */
  grant: (requested: Claims) => { token: string; expiresAt?: string };
  /** Invalidates all tokens, as the deletion of their Secret does. */
  revoke(): void;
}

/** Starts it. @param now its clock, in milliseconds since the epoch */
export async function startTokenIssuer(now: () => number): Promise<TokenIssuer> {
  const expiries = new Map<string, number>();
  const authenticates = (request: Received) => {
    const token = /^Bearer (.+)$/.exec(String(request.headers.authorization))?.[1] ?? '';
    return issuer.isValid(token);
  };
  const server = await startApiServer((request, response) => {
    if (issuer.intercept(request, response)) return;
    if (!authenticates(request)) return refuse(response, 401, 'Unauthorized');
    if (request.method === 'GET') return json(response, page([]));
    const { spec } = JSON.parse(request.body);
    const [, namespace, serviceAccount] =
      /^\/api\/v1\/namespaces\/([^/]+)\/serviceaccounts\/([^/]+)\/token$/.exec(request.path) ?? [];
    const { name, uid } = spec.boundObjectRef;
    if (uid !== BOUND_TO.uid) return refuse(response, 409, 'the UID in the bound object reference');
    const requested = {
      namespace,
      serviceAccount,
      secret: { name, uid },
      lifeSeconds: spec.expirationSeconds,
    };
    const { token, expiresAt } = issuer.grant(requested as Claims);
    const expirationTimestamp = expiresAt ?? new Date(expiries.get(token) ?? 0).toISOString();
    json(response, { kind: 'TokenRequest', spec, status: { token, expirationTimestamp } }, 201);
  });
  const issuer: TokenIssuer = {
    server,
    get issued() {
      return [...expiries.keys()];
    },
    issue(claims) {
      const { namespace = 'ecr-anywhere', serviceAccount = 'ecr-anywhere-refresher', lifeSeconds } = claims;
      const { secret } = { secret: BOUND_TO, ...claims };
      const iat = Math.floor(now() / 1000);
      const exp = iat + lifeSeconds;
      const bound = { namespace, serviceaccount: { name: serviceAccount, uid: randomUUID() }, secret };
      const aud = ['https://kubernetes.default.svc'];
      const token = jwt({ aud, iat, exp, jti: randomUUID(), nbf: iat, 'kubernetes.io': bound });
      expiries.set(token, exp * 1000);
      return token;
    },
    isValid: (token) => (expiries.get(token) ?? 0) > now(),
    kubeconfigOf: (token) => kubeconfigFor(server, token),
    intercept: () => false,
    grant: (requested) => ({ token: issuer.issue(requested) }),
    revoke() {
      for (const token of expiries.keys()) expiries.set(token, 0);
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
  return issuer;
}

/** A JWT with these claims and an invalid signature. */
export function jwt(claims: object): string {
  const part = (value: object) => Buffer.from(JSON.stringify(value)).toString('base64url');
  return `${part({ alg: 'RS256' })}.${part(claims)}.${Buffer.from('no signature').toString('base64url')}`;
}
