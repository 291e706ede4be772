// An issuer of web identity tokens, as an AWS account has one: signs for STS, and serves the discovery documents that API
// servers read over HTTPS (OpenID Connect Discovery 1.0).
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
  /** The authority of its HTTPS server, PEM. */
  readonly caPem: string;
  /** A token (JWS, RFC 7515) signed with ES384. */
  sign(claims: Claims): string;
}

/** Conditions of a policy statement: operators, keys and values. */
export type Conditions = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** The request's values by IAM condition key (IAM User Guide, "outbound identity federation"). */
interface Asked {
  readonly 'sts:IdentityTokenAudience': readonly string[];
  readonly 'sts:DurationSeconds': readonly string[];
  readonly 'sts:SigningAlgorithm': readonly string[];
}

/** An error response of STS. */
export class Refusal extends Error {
  readonly code: string;

  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/**
 * Reads a GetWebIdentityToken request as STS does.
 *
 * @param conditions of the caller's policy; absent: none
 * @throws Refusal for parameters that STS rejects (STS API reference), or that the conditions do not allow
 */
export function readRequest(
  form: URLSearchParams,
  conditions: Conditions | undefined,
): { audiences: readonly string[]; seconds: number } {
  const audiences = [...form].flatMap(([name, value]) => (/^Audience\.member\.\d+$/.test(name) ? value : []));
  const algorithm = form.get('SigningAlgorithm') ?? '';
  const seconds = Number(form.get('DurationSeconds') ?? 300);
  const isWellFormed =
    audiences.length >= 1 &&
    audiences.length <= 10 &&
    audiences.every(({ length }) => length >= 1 && length <= 1_000) &&
    ['RS256', 'ES384'].includes(algorithm) &&
    Number.isInteger(seconds) &&
    seconds >= 60 &&
    seconds <= 3_600;
  if (!isWellFormed) throw new Refusal('ValidationError', `${form} does not fit`);
  const asked: Asked = {
    'sts:IdentityTokenAudience': audiences,
    'sts:DurationSeconds': [String(seconds)],
    'sts:SigningAlgorithm': [algorithm],
  };
  if (conditions && !hold(conditions, asked))
    throw new Refusal('AccessDenied', 'not authorized to perform: sts:GetWebIdentityToken on resource: *');
  if (algorithm !== 'ES384') throw new Refusal('ValidationError', `this one does not sign with ${algorithm}`);
  return { audiences, seconds };
}

/** Whether all conditions are met; knows the operators that the project uses (IAM User Guide, "condition operators"). */
function hold(conditions: Conditions, asked: Asked): boolean {
  return Object.entries(conditions).every(([operator, keys]) =>
    Object.entries(keys).every(([key, wanted]) => {
      const values = asked[key as keyof Asked] ?? [];
      const texts = [wanted].flat().map(String);
      const equalsOne = (value: string) => texts.includes(value);
      switch (operator) {
        case 'Null':
          return equalsOne(String(values.length === 0));
        case 'StringEquals':
        case 'NumericEquals':
          return values.length === 1 && values.every(equalsOne);
        case 'ForAllValues:StringLike':
          return values.every((value) => texts.some((pattern) => isLike(value, pattern)));
        default:
          throw new Error(`${operator} is not known here`);
      }
    }),
  );
}

function isLike(value: string, pattern: string): boolean {
  const source = RegExp.escape(pattern).replaceAll('\\*', '.*').replaceAll('\\?', '.');
  return new RegExp(`^${source}$`, 's').test(value);
}

/** Starts an issuer on a free loopback port. */
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
