// What ECR may answer, through the real SDK: a token, a token after a retry, or a failure with its reason.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import type { TokenFailure } from '../../../contract/denials.ts';
import { type EcrResult, fetchFromEcr } from '../../../webhook/aws/ecr.ts';
import type { TokenOutcome } from '../../../webhook/aws/ecr-tokens.ts';
import { EcrTokens } from '../../../webhook/aws/ecr-tokens.ts';
import type { Registry } from '../../../webhook/aws/registries.ts';
import { TokenError } from '../../../webhook/aws/token-error.ts';
import { encode, HOST } from '../support.ts';

const REGISTRY: Registry = { source: { service: 'ecr', region: 'eu-central-1' } };
const BUDGET_MS = 3_000;

interface Reply {
  readonly status?: number;
  readonly body: unknown;
}
const EXPIRES_S = Math.floor(Date.now() / 1000) + 43_200;
const DATA = {
  authorizationToken: encode('AWS:word'),
  expiresAt: EXPIRES_S,
  proxyEndpoint: `https://${HOST}`,
};
const TOKEN = { host: HOST, username: 'AWS', password: 'word', expiresAt: EXPIRES_S * 1000 };
const OK: Reply = { body: { authorizationData: [DATA] } };
const THROTTLED: Reply = { status: 400, body: { __type: 'ThrottlingException', message: 'Rate exceeded' } };
const FAILED: Reply = { status: 500, body: { __type: 'ServerException', message: 'Internal failure' } };
const UNAVAILABLE: Reply = { status: 503, body: '<html>Service Unavailable</html>' };

const UNUSABLE = new TokenError('ecr-error', 'ECR answered without a usable token');

/** Given one after the other; the last one again and again. */
let replies: Reply[] = [];
let requests: { target: string | undefined; type: string | undefined; body: string }[] = [];
let server: Server;
beforeAll(async () => {
  server = createServer(async (request, response) => {
    let body = '';
    for await (const chunk of request) body += chunk;
    requests.push({
      target: request.headers['x-amz-target']?.toString(),
      type: request.headers['content-type'],
      body,
    });
    const reply = replies.length > 1 ? replies.shift() : replies[0];
    response.writeHead(reply?.status ?? 200, { 'content-type': 'application/x-amz-json-1.1' });
    response.end(typeof reply?.body === 'string' ? reply.body : JSON.stringify(reply?.body));
  }).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('no port');
  for (const service of ['ECR', 'ECR_PUBLIC', 'STS'])
    vi.stubEnv(`AWS_ENDPOINT_URL_${service}`, `http://127.0.0.1:${address.port}`);
  vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
  vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
  for (const name of ['AWS_SESSION_TOKEN', 'AWS_PROFILE', 'AWS_MAX_ATTEMPTS', 'AWS_RETRY_MODE'])
    vi.stubEnv(name, undefined);
});
afterAll(() => {
  vi.unstubAllEnvs();
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  requests = [];
});

function obtain(...script: Reply[]): Promise<TokenOutcome> {
  replies = script;
  return new EcrTokens(fetchFromEcr({ region: 'eu-central-1', withinMs: BUDGET_MS }), BUDGET_MS).obtain(
    REGISTRY,
  );
}

test('requests an authorization token and nothing else', async () => {
  expect(await obtain(OK)).toEqual({ registry: REGISTRY, token: TOKEN });
  expect(requests).toEqual([
    {
      target: 'AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken',
      type: 'application/x-amz-json-1.1',
      body: '{}',
    },
  ]);
});

test.each([
  { what: 'throttled once', script: [THROTTLED, OK] },
  { what: 'an internal failure, then throttled', script: [FAILED, THROTTLED, OK] },
  { what: 'unavailable behind a load balancer', script: [UNAVAILABLE, OK] },
])('retries within the time limit: $what, then a token', async ({ script }) => {
  const calls = script.length;
  expect(await obtain(...script)).toEqual({ registry: REGISTRY, token: TOKEN });
  expect(requests).toHaveLength(calls);
});

test('gives up after the second throttled attempt', async () => {
  expect(await obtain(THROTTLED, THROTTLED, OK)).toEqual({
    registry: REGISTRY,
    error: new TokenError('ecr-throttled', 'ECR refused: ThrottlingException: Rate exceeded'),
  });
  expect(requests).toHaveLength(2);
});

describe('ECR Public', () => {
  const source = { service: 'ecr-public', region: 'us-east-1' } as const;
  const publicly = (body: unknown) => {
    replies = [{ body }];
    const tokens = new EcrTokens(fetchFromEcr({ region: 'eu-central-1', withinMs: BUDGET_MS }), BUDGET_MS);
    return tokens.obtain({ source, host: 'public.ecr.aws' });
  };

  test('has its own request, and its token has no host', async () => {
    const { proxyEndpoint: _, ...data } = DATA;
    const { host: __, ...token } = TOKEN;
    expect(await publicly({ authorizationData: data })).toMatchObject({ token });
    expect(requests).toEqual([
      {
        target: 'SpencerFrontendService.GetAuthorizationToken',
        type: 'application/x-amz-json-1.1',
        body: '{}',
      },
    ]);
  });

  test.each([{}, { authorizationData: {} }, { authorizationData: { authorizationToken: 'x' } }])(
    'fails for an answer without a token: %j',
    async (body) => {
      expect(await publicly(body)).toMatchObject({ error: UNUSABLE });
    },
  );
});

test('fails with aws-role-denied if STS denies the role, without a call to ECR', async () => {
  const role = { arn: 'arn:aws:iam::123456789012:role/pull', externalId: 'cluster-1' };
  replies = [
    {
      status: 403,
      body: '<ErrorResponse><Error><Code>AccessDenied</Code><Message>not authorized to perform: sts:AssumeRole</Message></Error></ErrorResponse>',
    },
  ];
  const results: string[] = [];
  const fetch = fetchFromEcr({
    region: 'eu-central-1',
    withinMs: BUDGET_MS,
    onCall: (_, result) => results.push(result),
  });
  const source = { ...REGISTRY.source, role };
  expect(await new EcrTokens(fetch, BUDGET_MS).obtain({ source, host: HOST })).toMatchObject({
    error: {
      reason: 'aws-role-denied',
      principal: role.arn,
      message: expect.stringContaining('AccessDenied: not authorized to perform: sts:AssumeRole'),
    },
  });
  expect(requests).toHaveLength(1);
  expect(Object.fromEntries(new URLSearchParams(requests[0]?.body))).toMatchObject({
    Action: 'AssumeRole',
    RoleArn: role.arn,
    ExternalId: role.externalId,
    RoleSessionName: 'ecr-anywhere-webhook',
  });
  expect(results).toEqual(['no-identity']);
});

describe('the reason of a failure', () => {
  const role = { arn: 'arn:aws:iam::123456789012:role/pull' };
  const session = 'arn:aws:sts::123456789012:assumed-role/node/i-0123456789abcdef0';
  const refusal = (status: number, type: string, message = 'no') => ({
    status,
    body: { __type: type, message },
  });
  const assumed = { ...role, arn: 'arn:aws:iam::123456789012:role/teams/webhook' };
  const CREDENTIALS =
    '<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>A</AccessKeyId><SecretAccessKey>S</SecretAccessKey><SessionToken>T</SessionToken><Expiration>2036-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>';
  const refusedBySts = (status: number, code: string) => ({
    status,
    body: `<ErrorResponse><Error><Code>${code}</Code><Message>no</Message></Error></ErrorResponse>`,
  });
  const DENIED = refusal(400, 'AccessDeniedException', `User: ${session} is not authorized to perform: x`);

  test.each<{
    what: string;
    script: Reply[];
    role?: typeof role;
    assumeRole?: typeof role;
    reason: TokenFailure;
    principal?: string;
    /** As the metric counts it. */
    result?: EcrResult;
  }>([
    { what: 'ECR denies', script: [DENIED], reason: 'ecr-denied', principal: session, result: 'denied' },
    {
      what: 'ECR denies without naming the principal',
      script: [refusal(403, 'AccessDeniedException')],
      reason: 'ecr-denied',
      result: 'denied',
    },
    {
      what: 'ECR denies the role of the policy',
      script: [{ body: CREDENTIALS }, DENIED],
      role,
      reason: 'ecr-denied',
      principal: role.arn,
      result: 'denied',
    },
    {
      what: 'ECR denies the role that the webhook assumes for everything',
      script: [{ body: CREDENTIALS }, DENIED],
      assumeRole: assumed,
      reason: 'ecr-denied',
      principal: assumed.arn,
      result: 'denied',
    },
    {
      what: 'ECR does not know the access key',
      script: [refusal(400, 'UnrecognizedClientException')],
      reason: 'aws-no-identity',
      result: 'denied',
    },
    {
      what: 'ECR says that the credentials have expired',
      script: [refusal(400, 'ExpiredTokenException')],
      reason: 'aws-no-identity',
      result: 'unavailable',
    },
    {
      what: 'ECR refuses for another reason',
      script: [refusal(400, 'InvalidParameterException')],
      reason: 'ecr-error',
      result: 'denied',
    },
    { what: 'ECR is throttling', script: [THROTTLED], reason: 'ecr-throttled', result: 'throttled' },
    { what: 'ECR fails', script: [FAILED], reason: 'ecr-unavailable', result: 'unavailable' },
    { what: 'the answer is not JSON', script: [{ body: '<html>' }], reason: 'ecr-error' },
    {
      what: 'STS denies the role of the policy',
      script: [refusedBySts(403, 'AccessDenied')],
      role,
      reason: 'aws-role-denied',
      principal: role.arn,
      result: 'no-identity',
    },
    {
      what: 'STS denies the role that the webhook assumes for everything',
      script: [refusedBySts(403, 'AccessDenied')],
      role,
      assumeRole: assumed,
      reason: 'aws-role-denied',
      principal: assumed.arn,
      result: 'no-identity',
    },
    {
      what: 'STS does not accept the credentials to assume the role with',
      script: [refusedBySts(403, 'InvalidClientTokenId')],
      role,
      reason: 'aws-no-identity',
      result: 'no-identity',
    },
    {
      what: 'STS is throttling',
      script: [refusedBySts(400, 'Throttling')],
      role,
      reason: 'ecr-throttled',
      result: 'throttled',
    },
  ])('is $reason if $what', async ({ script, role: policyRole, assumeRole, reason, principal, result }) => {
    replies = [...script];
    const results: EcrResult[] = [];
    const fetch = fetchFromEcr({
      region: 'eu-central-1',
      withinMs: BUDGET_MS,
      ...(assumeRole && { assumeRole }),
      onCall: (_, seen) => results.push(seen),
    });
    const registry = { source: { ...REGISTRY.source, role: policyRole }, host: HOST };
    const outcome = await new EcrTokens(fetch, BUDGET_MS).obtain(registry);
    expect(outcome).toMatchObject({ error: { name: 'TokenError', reason, principal } });
    if (result) expect(new Set(results)).toEqual(new Set([result]));
  });

  test('is aws-no-identity if the webhook finds no credentials at all', async () => {
    vi.stubEnv('AWS_ACCESS_KEY_ID', undefined);
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', undefined);
    vi.stubEnv('AWS_EC2_METADATA_DISABLED', 'true');
    try {
      expect(await obtain(OK)).toMatchObject({ error: { reason: 'aws-no-identity', principal: undefined } });
    } finally {
      vi.stubEnv('AWS_ACCESS_KEY_ID', 'test');
      vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test');
    }
    expect(requests).toEqual([]);
  });
});

test('accepts a password with colons', async () => {
  const authorizationToken = encode('AWS:a:b::c');
  expect(await obtain({ body: { authorizationData: [{ ...DATA, authorizationToken }] } })).toMatchObject({
    token: { username: 'AWS', password: 'a:b::c' },
  });
});

test.each([
  { what: 'nothing', body: {} },
  { what: 'no data', body: { authorizationData: [] } },
  { what: 'data null', body: { authorizationData: null } },
  { what: 'no token', body: { authorizationData: [{ ...DATA, authorizationToken: undefined }] } },
  { what: 'an empty token', body: { authorizationData: [{ ...DATA, authorizationToken: '' }] } },
  {
    what: 'a token without a user',
    body: { authorizationData: [{ ...DATA, authorizationToken: encode(':word') }] },
  },
  {
    what: 'a token without a colon',
    body: { authorizationData: [{ ...DATA, authorizationToken: encode('AWS') }] },
  },
  {
    what: 'a token without a password',
    body: { authorizationData: [{ ...DATA, authorizationToken: encode('AWS:') }] },
  },
  { what: 'no expiry', body: { authorizationData: [{ ...DATA, expiresAt: undefined }] } },
  { what: 'no endpoint', body: { authorizationData: [{ ...DATA, proxyEndpoint: undefined }] } },
  { what: 'an endpoint that is no address', body: { authorizationData: [{ ...DATA, proxyEndpoint: HOST }] } },
  {
    what: 'an endpoint without a host',
    body: { authorizationData: [{ ...DATA, proxyEndpoint: 'https://' }] },
  },
])('fails for an unusable answer: $what', async ({ body }) => {
  expect(await obtain({ body })).toEqual({
    registry: REGISTRY,
    error: UNUSABLE,
  });
});

test.each([
  { what: 'not JSON', body: 'no such thing', says: /JSON/ },
  { what: 'a page of a proxy', body: '<html>Log in first</html>', says: /JSON/ },
  {
    what: 'an expiry that is no time',
    body: { authorizationData: [{ ...DATA, expiresAt: 'soon' }] },
    says: /number/,
  },
])('fails for an unreadable answer and names the cause: $what', async ({ body, says }) => {
  const outcome = await obtain({ body });
  expect(outcome).toMatchObject({ error: { reason: 'ecr-error', message: expect.stringMatching(says) } });
});

test('never has the token in a failure', async () => {
  const failures = [];
  for (const broken of [
    { expiresAt: undefined },
    { expiresAt: 'soon' },
    { proxyEndpoint: 'word' },
    { expiresAt: 1 },
  ])
    failures.push(await obtain({ body: { authorizationData: [{ ...DATA, ...broken }] } }));
  failures.push(await obtain({ body: JSON.stringify(OK.body).slice(0, -2) }));
  for (const outcome of failures) {
    expect(outcome).toHaveProperty('error');
    expect(JSON.stringify(outcome)).not.toContain(encode('AWS:word'));
    expect(JSON.stringify(outcome)).not.toMatch(/\bword\b/);
  }
});
