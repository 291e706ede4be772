// STS GetCallerIdentity by presigned URL, as EKS calls it: verifies the signature and returns the signer. Written from
// "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)", independently of the signing library.
import { createHash, createHmac } from 'node:crypto';
import type { IncomingMessage } from 'node:http';

/** The owner of an access key. */
export interface Principal {
  readonly secretAccessKey: string;
  /** The session token, which the URL must contain. */
  readonly sessionToken?: string;
  /** Expiry of the session, in milliseconds since the epoch. */
  readonly expiresAt?: number;
  readonly arn: string;
  readonly account: string;
  readonly userId: string;
}

export interface Answer {
  readonly status: number;
  readonly body: object;
}

const MINUTES_15 = 15 * 60_000;

/** Answers as STS does with `Accept: application/json`. @param now milliseconds since the epoch */
export function callerIdentity(
  request: IncomingMessage,
  principalOf: (accessKeyId: string) => Principal | undefined,
  now: number,
): Answer {
  const { host = '' } = request.headers;
  const query = new URL(request.url ?? '', `https://${host}`).searchParams;
  const [accessKeyId = '', day = '', region = '', service = ''] = (query.get('X-Amz-Credential') ?? '').split(
    '/',
  );
  const principal = principalOf(accessKeyId);
  if (!principal || (query.get('X-Amz-Security-Token') ?? undefined) !== principal.sessionToken)
    return refused('InvalidClientTokenId', 'The security token included in the request is invalid.');

  if (principal.expiresAt !== undefined && principal.expiresAt <= now)
    return refused('ExpiredToken', 'The security token included in the request is expired');

  // The global endpoint is in us-east-1 (STS User Guide, "AWS STS Regions and endpoints"); others have their region in
  // their name, in every partition.
  const hostRegion = /^sts\.([a-z]+(?:-[a-z]+)+-\d+)\./.exec(host)?.[1] ?? 'us-east-1';
  if (service !== 'sts' || region !== hostRegion)
    return refused('SignatureDoesNotMatch', `Credential should be scoped to a valid region, not ${region}.`);

  const date = query.get('X-Amz-Date') ?? '';
  const signedAt = Date.parse(
    date.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, '$1-$2-$3T$4:$5:$6Z'),
  );
  if (!(Math.abs(now - signedAt) < MINUTES_15))
    return refused('SignatureDoesNotMatch', `Signature expired: ${date}`);

  const encode = (text: string) =>
    encodeURIComponent(text).replace(
      /[!'()*]/g,
      (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
    );
  const signedHeaders = query.get('X-Amz-SignedHeaders') ?? '';
  const canonical = [
    request.method,
    '/',
    [...query]
      .filter(([name]) => name !== 'X-Amz-Signature')
      .map(([name, value]) => `${encode(name)}=${encode(value)}`)
      .sort()
      .join('&'),
    ...signedHeaders.split(';').map((name) => `${name}:${[request.headers[name] ?? ''].join().trim()}`),
    '',
    signedHeaders,
    createHash('sha256').update('').digest('hex'),
  ].join('\n');
  const toSign = [
    'AWS4-HMAC-SHA256',
    date,
    `${day}/${region}/sts/aws4_request`,
    createHash('sha256').update(canonical).digest('hex'),
  ].join('\n');
  const key = [day, region, 'sts', 'aws4_request'].reduce(
    (secret: string | Buffer, part) => createHmac('sha256', secret).update(part).digest(),
    `AWS4${principal.secretAccessKey}`,
  );
  if (createHmac('sha256', key).update(toSign).digest('hex') !== query.get('X-Amz-Signature'))
    return refused(
      'SignatureDoesNotMatch',
      'The request signature we calculated does not match the signature you provided.',
    );

  const { arn: Arn, account: Account, userId: UserId } = principal;
  return {
    status: 200,
    body: { GetCallerIdentityResponse: { GetCallerIdentityResult: { Arn, Account, UserId } } },
  };
}

function refused(Code: string, Message: string): Answer {
  return { status: 403, body: { Error: { Type: 'Sender', Code, Message } } };
}
