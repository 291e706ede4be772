// An issuer of web identity tokens, as AWS accounts have one: what STS signs with, and the discovery documents by HTTPS
// that API servers read (OpenID Connect Discovery 1.0).
import { createSign, generateKeyPairSync, type KeyObject, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:https';
import { createAuthority } from './certificates.ts';

export interface Claims {
  readonly sub: string;
  readonly aud: string | readonly string[];
  /** Seconds from now. */
  readonly expiresIn: number;
}

export interface Issuer extends AsyncDisposable {
  readonly url: string;
  /** Of its HTTPS server, PEM. */
  readonly caPem: string;
  /** A token (JWS, RFC 7515) signed with ES384. */
  sign(claims: Claims): string;
}

/** Starts one on a free loopback port. */
export async function startIssuer(): Promise<Issuer> {
  const authority = await createAuthority('issuer');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const { privateKey, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-384' });
  const kid = randomUUID();
  const server = createServer({ cert: certPem, key: keyPem }, (request, response) => {
    const documents: Record<string, object> = {
      '/.well-known/openid-configuration': {
        issuer: url,
        jwks_uri: `${url}/.well-known/jwks.json`,
        response_types_supported: ['id_token'],
        subject_types_supported: ['public'],
        id_token_signing_alg_values_supported: ['RS256', 'ES384'],
      },
      '/.well-known/jwks.json': {
        keys: [{ ...publicKey.export({ format: 'jwk' }), kid, use: 'sig', alg: 'ES384' }],
      },
    };
    const document = documents[request.url ?? ''];
    response
      .writeHead(document ? 200 : 404, { 'content-type': 'application/json' })
      .end(JSON.stringify(document ?? {}));
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the issuer has no port');
  const url = `https://127.0.0.1:${address.port}`;
  return {
    url,
    caPem: authority.caPem,
    sign: (claims) => sign(claims, url, kid, privateKey),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function sign({ sub, aud, expiresIn }: Claims, iss: string, kid: string, key: KeyObject): string {
  const now = Math.floor(Date.now() / 1000);
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url');
  const claims = { iss, sub, aud, iat: now, nbf: now, exp: now + expiresIn, jti: randomUUID() };
  const text = `${encode({ alg: 'ES384', typ: 'JWT', kid })}.${encode(claims)}`;
  const signature = createSign('SHA384').update(text).sign({ key, dsaEncoding: 'ieee-p1363' });
  return `${text}.${signature.toString('base64url')}`;
}
