// Tests the revocation of tokens: the requests to the API server, when a token counts as revoked, and which identities have
// no token that can be revoked.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import type { RevokeResult } from '../../../../contract/refresher-api.ts';
import { revoke } from '../../../../functions/refresher/actions/revoke.ts';
import { kubeconfigFor, refuse } from '../../api-server.ts';
import { NO_EKS, NO_KEYLESS } from '../../real-cluster.ts';
import { startSecretsManager, type Value } from '../../secrets-manager.ts';
import { BOUND_TO, jwt, startTokenIssuer, type TokenIssuer } from '../../token-issuer.ts';

const SECRET_PATH = `/api/v1/namespaces/ecr-anywhere/secrets/${BOUND_TO.name}`;
const SECRET = { namespace: 'ecr-anywhere', name: BOUND_TO.name };
const REVOKED = { cluster: 'a', outcome: 'revoked', secret: SECRET };

let stack: AsyncDisposableStack;
let issuer: TokenIssuer;
let token: string;
/** Called for each DELETE. Returns whether the API server deletes the Secret. */
let onDelete: () => boolean;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  issuer = stack.use(await startTokenIssuer(Date.now));
  token = issuer.issue({ lifeSeconds: 3600 });
  onDelete = () => true;
  issuer.intercept = ({ method, headers }, response) => {
    if (method !== 'DELETE' || !issuer.isValid(String(headers.authorization).slice(7))) return false;
    if (!onDelete()) return refuse(response, 403, 'secrets is forbidden') ?? true;
    issuer.revoke();
    response.writeHead(200, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ kind: 'Status', status: 'Success' }));
    return true;
  };
});
afterEach(() => stack.disposeAsync());

async function revokeAt(
  clusters: Readonly<Record<string, Value>>,
  {
    names = Object.keys(clusters),
    deadlineMs = 20_000,
    tags = {},
  }: { names?: string[]; deadlineMs?: number; tags?: Record<string, string> } = {},
): Promise<RevokeResult[]> {
  const prefixed = Object.entries(clusters).map(([name, value]) => [`${CLUSTERS_PREFIX}${name}`, value]);
  await using registry = await startSecretsManager(Object.fromEntries(prefixed), {
    pageSize: 100,
    tags: { [`${CLUSTERS_PREFIX}a`]: tags },
  });
  const reported: RevokeResult[] = [];
  const results = await revoke(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS },
    names,
    {
      clusterDeadlineMs: deadlineMs,
      clusterConcurrency: 5,
      region: 'eu-central-1',
      allowLocalServers: true,
      eksDiscovery: [],
    },
    AbortSignal.timeout(60_000),
    (result) => reported.push(result),
  );
  expect(reported.toSorted((a, b) => (a.cluster < b.cluster ? -1 : 1))).toEqual(results);
  for (const secret of issuer.issued) expect(JSON.stringify(results)).not.toContain(secret);
  // The registration stays as it is.
  expect(registry.calls.filter(({ operation }) => /^(Put|Update)/.test(operation))).toEqual([]);
  return results;
}

const requests = () => issuer.server.requests.map(({ method, path }) => `${method} ${path}`);

test('deletes only the Secret that the token is bound to, by its UID and as the registered identity', async () => {
  expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([REVOKED]);
  expect(requests()).toEqual([`DELETE ${SECRET_PATH}`, 'GET /api/v1/namespaces']);
  const [request] = issuer.server.requests;
  expect(request?.headers.authorization).toBe(`Bearer ${token}`);
  expect(request?.headers['content-type']).toBe('application/json');
  expect(JSON.parse(request?.body ?? '')).toEqual({
    kind: 'DeleteOptions',
    apiVersion: 'v1',
    preconditions: { uid: BOUND_TO.uid },
  });
  // If the response is an object, it has metadata only.
  expect(request?.headers.accept).toContain('as=PartialObjectMetadata');
});

test('revokes the token of a paused cluster, in the context that its tag names', async () => {
  const config = JSON.parse(issuer.kubeconfigOf(token));
  config['current-context'] = 'other';
  const tags = { [TAG.paused]: 'true', [TAG.context]: 'main' };
  expect(await revokeAt({ a: JSON.stringify(config) }, { tags })).toEqual([REVOKED]);
});

test('a token that the API server refuses already is reported with its Secret, which an administrator must delete', async () => {
  const renewed = issuer.issue({ lifeSeconds: 3600 });
  issuer.intercept = ({ headers }, response) => {
    // It has expired, and an attacker has renewed it before.
    if (headers.authorization === `Bearer ${token}`) refuse(response, 401, 'Unauthorized');
    return headers.authorization === `Bearer ${token}`;
  };
  expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([
    {
      cluster: 'a',
      outcome: 'refused-already',
      secret: SECRET,
      code: 'unauthorized',
      reason: expect.stringMatching(`administrator must delete.*${BOUND_TO.name}.*ecr-anywhere`),
    },
  ]);
  expect(issuer.isValid(renewed)).toBe(true);
  expect(requests()).toEqual([`DELETE ${SECRET_PATH}`]);
});

test.each([404, 409])(
  'after HTTP %i for the Secret, the token is revoked when the API server refuses it',
  async (status) => {
    let checks = 0;
    issuer.intercept = ({ method }, response) => {
      if (method === 'DELETE') refuse(response, status, 'another UID');
      // Until then, the API server's cache accepts the token.
      else if (++checks === 2) issuer.revoke();
      return method === 'DELETE';
    };
    expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([REVOKED]);
    expect(checks).toBe(2);
  },
);

test.each([
  { title: 'accepts the token', answer: 200, code: 'token-still-accepted' },
  { title: 'accepts the token and forbids the request', answer: 403, code: 'token-still-accepted' },
  { title: 'fails', answer: 500, code: 'server-error' },
])(
  'the revocation fails with $code if the API server $title until the deadline',
  async ({ answer, code }) => {
    issuer.intercept = ({ method }, response) => {
      if (method === 'DELETE') refuse(response, 404, 'gone');
      else if (answer !== 200) refuse(response, answer, 'etcd is gone');
      return method === 'DELETE' || answer !== 200;
    };
    const [result] = await revokeAt({ a: issuer.kubeconfigOf(token) }, { deadlineMs: 1_500 });
    expect(result).toMatchObject({ outcome: 'failed', code });
    expect(result?.reason).toContain('is deleted');
  },
);

test('fails at once if the identity may not delete the Secret', async () => {
  onDelete = () => false;
  expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([
    {
      cluster: 'a',
      outcome: 'failed',
      secret: SECRET,
      code: 'forbidden',
      reason: expect.stringContaining('secrets is forbidden'),
    },
  ]);
  expect(requests()).toEqual([`DELETE ${SECRET_PATH}`]);
  expect(issuer.isValid(token)).toBe(true);
});

describe('there is nothing to revoke', () => {
  const withUser = (user: object) => {
    const config = JSON.parse(issuer.kubeconfigOf(token));
    return JSON.stringify({ ...config, users: [{ name: 'main', user }] });
  };
  const exec = (command: string, ...args: string[]) => withUser({ exec: { command, args } });
  const pem = Buffer.from('-----BEGIN CERTIFICATE-----').toString('base64');

  test.each([
    {
      title: 'for an EKS identity',
      value: () => exec('aws', 'eks', 'get-token', '--cluster-name', 'x'),
      code: 'short-lived-token',
    },
    {
      title: 'for a keyless identity',
      value: () => exec('ecr-anywhere', 'get-token', '--cluster', 'a'),
      code: 'short-lived-token',
    },
    {
      title: 'for a client certificate',
      value: () => withUser({ 'client-certificate-data': pem, 'client-key-data': pem }),
      code: 'client-certificate',
    },
    {
      title: 'for a token that is not a JWT',
      value: () => issuer.kubeconfigOf('opaque'),
      code: 'token-not-bound',
    },
    {
      title: 'for a token that is not bound to a Secret',
      value: () => issuer.kubeconfigOf(jwt({ iat: 1, exp: 2 })),
      code: 'token-not-bound',
    },
  ])('$title', async ({ value, code }) => {
    expect(await revokeAt({ a: value() })).toEqual([
      { cluster: 'a', outcome: 'nothing-to-revoke', code, reason: expect.any(String) },
    ]);
    expect(requests()).toEqual([]);
  });
});

test('revokes each named cluster independently of the others, and no other cluster', async () => {
  const good = issuer.kubeconfigOf(token);
  const clusters = { a: good, broken: 'not a kubeconfig', other: good, unreadable: 'never' as const };
  const names = ['unreadable', 'broken', 'a', 'a'];
  expect(await revokeAt(clusters, { names, deadlineMs: 1_500 })).toEqual([
    REVOKED,
    { cluster: 'broken', outcome: 'failed', code: 'kubeconfig-unusable', reason: expect.any(String) },
    { cluster: 'unreadable', outcome: 'failed', code: 'cluster-time-up', reason: expect.any(String) },
  ]);
});

test('revokes nothing if one of the names is unknown', async () => {
  await expect(revokeAt({ a: issuer.kubeconfigOf(token) }, { names: ['a', 'typo'] })).rejects.toMatchObject({
    name: 'NotRegisteredError',
    names: ['typo'],
    registered: ['a'],
    failures: [],
  });
  expect(requests()).toEqual([]);
});

test('sends no request to an address of this machine', async () => {
  const kubeconfig = kubeconfigFor({ url: 'https://169.254.169.254', caPem: issuer.server.caPem }, token);
  await using registry = await startSecretsManager({ [`${CLUSTERS_PREFIX}a`]: kubeconfig });
  const settings = { clusterDeadlineMs: 2_000, clusterConcurrency: 1, region: 'eu-central-1' };
  const results = await revoke(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS },
    ['a'],
    { ...settings, allowLocalServers: false, eksDiscovery: [] },
    AbortSignal.timeout(10_000),
    () => {},
  );
  expect(results).toEqual([
    {
      cluster: 'a',
      outcome: 'failed',
      secret: SECRET,
      code: 'kubeconfig-unusable',
      reason: expect.stringContaining('169.254.169.254'),
    },
  ]);
});
