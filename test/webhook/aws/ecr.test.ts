// What ECR may answer, at the wire and through the real SDK: a token, a token after all, or a sentence that names the cause.

import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import { afterAll, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { fetchFromEcr } from '../../../webhook/aws/ecr.ts';
import type { TokenOutcome } from '../../../webhook/aws/ecr-tokens.ts';
import { EcrTokens } from '../../../webhook/aws/ecr-tokens.ts';
import type { Registry } from '../../../webhook/aws/registries.ts';
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

test('it is asked for an authorization token and nothing else', async () => {
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
])('$what, then a token: had within the budget', async ({ script }) => {
  const calls = script.length;
  expect(await obtain(...script)).toEqual({ registry: REGISTRY, token: TOKEN });
  expect(requests).toHaveLength(calls);
});

test('throttled twice: said so, as each attempt costs', async () => {
  expect(await obtain(THROTTLED, THROTTLED, OK)).toEqual({
    registry: REGISTRY,
    error: 'ECR refused: ThrottlingException: Rate exceeded',
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

  test('it is asked in its own words, and names no endpoint', async () => {
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
    'garbage is said to be: %j',
    async (body) => {
      expect(await publicly(body)).toMatchObject({ error: 'ECR answered without a usable token' });
    },
  );
});

test('a role that may not be assumed: the cause in the words of STS, and ECR is not asked', async () => {
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
    error: `the role ${role.arn} cannot be assumed: AccessDenied: not authorized to perform: sts:AssumeRole`,
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

test('a password may hold colons', async () => {
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
])('garbage, $what: said so, and not taken for a token', async ({ body }) => {
  expect(await obtain({ body })).toEqual({
    registry: REGISTRY,
    error: 'ECR answered without a usable token',
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
])('garbage, $what: an outcome that names the cause', async ({ body, says }) => {
  const outcome = await obtain({ body });
  expect(outcome).toMatchObject({ error: expect.stringMatching(/^ECR /) });
  expect(outcome).toMatchObject({ error: expect.stringMatching(says) });
});

test('whatever it answered, the token is in no sentence', async () => {
  const sentences = [];
  for (const broken of [
    { expiresAt: undefined },
    { expiresAt: 'soon' },
    { proxyEndpoint: 'word' },
    { expiresAt: 1 },
  ])
    sentences.push(await obtain({ body: { authorizationData: [{ ...DATA, ...broken }] } }));
  sentences.push(await obtain({ body: JSON.stringify(OK.body).slice(0, -2) }));
  for (const outcome of sentences) {
    expect(outcome).toHaveProperty('error');
    expect(JSON.stringify(outcome)).not.toContain(encode('AWS:word'));
    expect(JSON.stringify(outcome)).not.toMatch(/\bword\b/);
  }
});
