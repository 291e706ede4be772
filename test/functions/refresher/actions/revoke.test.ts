// Ending a cluster's tokens, at the wire: what is asked for, what counts as done, and whose tokens cannot be ended.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import type { RevokeResult } from '../../../../contract/refresher-api.ts';
import { revoke } from '../../../../functions/refresher/actions/revoke.ts';
import { NotRegisteredError } from '../../../../functions/refresher/clusters/clusters.ts';
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
/** Called for each DELETE; false: the API server has not deleted it. */
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
  const told: RevokeResult[] = [];
  const results = await revoke(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS },
    names,
    {
      ...{ clusterDeadlineMs: deadlineMs, clusterConcurrency: 5, region: 'eu-central-1' },
      ...{ allowLocalServers: true, eksDiscovery: [] },
    },
    AbortSignal.timeout(60_000),
    (result) => told.push(result),
  );
  expect(told.toSorted((a, b) => (a.cluster < b.cluster ? -1 : 1))).toEqual(results);
  for (const secret of issuer.issued) expect(JSON.stringify(results)).not.toContain(secret);
  // Nothing of the registry is written.
  expect(registry.calls.filter(({ operation }) => /^(Put|Update)/.test(operation))).toEqual([]);
  return results;
}

const asked = () => issuer.server.requests.map(({ method, path }) => `${method} ${path}`);

test('the Secret that the token is bound to is deleted, by its uid and as the identity itself, and nothing else', async () => {
  expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([REVOKED]);
  expect(asked()).toEqual([`DELETE ${SECRET_PATH}`, 'GET /api/v1/namespaces']);
  const [request] = issuer.server.requests;
  expect(request?.headers.authorization).toBe(`Bearer ${token}`);
  expect(request?.headers['content-type']).toBe('application/json');
  expect(JSON.parse(request?.body ?? '')).toEqual({
    ...{ kind: 'DeleteOptions', apiVersion: 'v1' },
    preconditions: { uid: BOUND_TO.uid },
  });
  // Answered with metadata, if with the object at all.
  expect(request?.headers.accept).toContain('as=PartialObjectMetadata');
});

test("a paused cluster's, too; and by the context that its tag names", async () => {
  const config = JSON.parse(issuer.kubeconfigOf(token));
  config['current-context'] = 'other';
  const tags = { [TAG.paused]: 'true', [TAG.context]: 'main' };
  expect(await revokeAt({ a: JSON.stringify(config) }, { tags })).toEqual([REVOKED]);
});

test('one that is refused already says nothing of others: the Secret is named, and who has to delete it', async () => {
  const renewed = issuer.issue({ lifeSeconds: 3600 });
  issuer.intercept = ({ headers }, response) => {
    // Expired; and a thief has renewed it before.
    if (headers.authorization === `Bearer ${token}`) refuse(response, 401, 'Unauthorized');
    return headers.authorization === `Bearer ${token}`;
  };
  expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([
    {
      ...{ cluster: 'a', outcome: 'refused-already', secret: SECRET },
      reason: expect.stringMatching(`no longer.*administrator must delete ${BOUND_TO.name} in ecr-anywhere`),
    },
  ]);
  expect(issuer.isValid(renewed)).toBe(true);
  expect(asked()).toEqual([`DELETE ${SECRET_PATH}`]);
});

test.each([404, 409])(
  'a Secret that is gone, or another one now (%i): done when the token is refused',
  async (status) => {
    let checks = 0;
    issuer.intercept = ({ method }, response) => {
      if (method === 'DELETE') refuse(response, status, 'it is not that one');
      // It was in the API server's cache still.
      else if (++checks === 2) issuer.revoke();
      return method === 'DELETE';
    };
    expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([REVOKED]);
    expect(checks).toBe(2);
  },
);

test.each([
  { title: 'lets it in', answer: 200, said: 'still takes the token' },
  { title: 'knows it, and forbids it something', answer: 403, said: 'still takes the token' },
  { title: 'fails', answer: 500, said: 'HTTP 500: etcd is gone' },
])(
  'an API server that $title until the end of the time: failed, and it is said',
  async ({ answer, said }) => {
    issuer.intercept = ({ method }, response) => {
      if (method === 'DELETE') refuse(response, 404, 'gone');
      else if (answer !== 200) refuse(response, answer, 'etcd is gone');
      return method === 'DELETE' || answer !== 200;
    };
    const [result] = await revokeAt({ a: issuer.kubeconfigOf(token) }, { deadlineMs: 1_500 });
    expect(result).toMatchObject({ outcome: 'failed', reason: expect.stringContaining(said) });
    expect(result?.reason).toContain('is deleted');
  },
);

test('where it may not delete it, that is said, and nobody waits', async () => {
  onDelete = () => false;
  expect(await revokeAt({ a: issuer.kubeconfigOf(token) })).toEqual([
    {
      ...{ cluster: 'a', outcome: 'failed', secret: SECRET },
      reason: expect.stringMatching(/DELETE .*HTTP 403: secrets is forbidden/),
    },
  ]);
  expect(asked()).toEqual([`DELETE ${SECRET_PATH}`]);
  expect(issuer.isValid(token)).toBe(true);
});

describe('nothing to revoke', () => {
  const withUser = (user: object) => {
    const config = JSON.parse(issuer.kubeconfigOf(token));
    return JSON.stringify({ ...config, users: [{ name: 'main', user }] });
  };
  const exec = (command: string, ...args: string[]) => withUser({ exec: { command, args } });
  const pem = Buffer.from('-----BEGIN CERTIFICATE-----').toString('base64');

  test.each([
    {
      title: 'EKS',
      value: () => exec('aws', 'eks', 'get-token', '--cluster-name', 'x'),
      says: 'access entry',
    },
    { title: 'keyless', value: () => exec('ecr-anywhere', 'get-token', '--cluster', 'a'), says: 'issuer' },
    {
      title: 'a client certificate',
      value: () => withUser({ 'client-certificate-data': pem, 'client-key-data': pem }),
      says: 'valid until it expires',
    },
    {
      title: 'a token that says nothing',
      value: () => issuer.kubeconfigOf('opaque'),
      says: 'bound to a Secret',
    },
    {
      title: 'a token that is bound to nothing',
      value: () => issuer.kubeconfigOf(jwt({ iat: 1, exp: 2 })),
      says: 'bound to a Secret',
    },
  ])('$title', async ({ value, says }) => {
    expect(await revokeAt({ a: value() })).toEqual([
      { cluster: 'a', outcome: 'nothing-to-revoke', reason: expect.stringContaining(says) },
    ]);
    expect(asked()).toEqual([]);
  });
});

test('each cluster on its own, and those that are not named are left alone', async () => {
  const good = issuer.kubeconfigOf(token);
  const clusters = { a: good, broken: 'not a kubeconfig', other: good, silent: 'never' as const };
  const names = ['silent', 'broken', 'a', 'a'];
  expect(await revokeAt(clusters, { names, deadlineMs: 1_500 })).toEqual([
    REVOKED,
    { cluster: 'broken', outcome: 'failed', reason: expect.stringContaining('not a kubeconfig') },
    { cluster: 'silent', outcome: 'failed', reason: expect.stringContaining('time was up') },
  ]);
});

test('a name that is none: nothing is revoked anywhere', async () => {
  await expect(revokeAt({ a: issuer.kubeconfigOf(token) }, { names: ['a', 'typo'] })).rejects.toThrow(
    new NotRegisteredError(['typo'], ['a'], []),
  );
  expect(asked()).toEqual([]);
});

test('a server of this machine is not asked, as in every other turn', async () => {
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
      ...{ cluster: 'a', outcome: 'failed', secret: SECRET },
      reason: expect.stringContaining('address of this machine'),
    },
  ]);
});
