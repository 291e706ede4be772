// Tests the renewal of tokens on a real API server with the chart: three lifetimes of the shortest token, tokens that the
// write policy refuses, and the deletion of the Secret that invalidates all tokens.

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { CLUSTERS_PREFIX, REFRESHER_GROUP, SECRET_LABEL } from '../../../../contract/names.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { readKubeconfig } from '../../../../lib/kubernetes/kubeconfig.ts';
import { readToken } from '../../../../lib/kubernetes/service-account-token.ts';
import { keepEvidence } from '../../../bed/evidence.ts';
import { NAMESPACE, RELEASE, refresherToken } from '../../../bed/webhook.ts';
import { type Call, type CallAnswer, callerOf } from '../../../webhook/caller.ts';
import { NO_EKS, NO_KEYLESS, type RealCluster, startRealCluster } from '../../real-cluster.ts';
import { type SecretsManager, startSecretsManager } from '../../secrets-manager.ts';

const SECRET = `${CLUSTERS_PREFIX}a`;
const ACCOUNT = `${RELEASE}-refresher`;
const BOUND_TO = `${ACCOUNT}-token`;
const AUDIENCE = 'https://kubernetes.default.svc';
/** The shortest lifetime that Kubernetes grants. */
const SHORTEST_SECONDS = 600;
const MAX_SECONDS = 3600;
const DOCUMENT = { refresher: { token: { maxSeconds: MAX_SECONDS, audiences: [AUDIENCE] } } };
const IDENTITIES = ['ServiceAccount token', 'client certificate in the group'] as const;
const BY_RBAC = /cannot \w+ resource/;
const BY_POLICY = "ValidatingAdmissionPolicy 'ecr-anywhere-refresher-token'";
const REFUSAL = {
  account: 'only tokens of its own ServiceAccount',
  binding: 'only tokens that are bound to Secret ecr-anywhere-refresher-token',
  life: 'only tokens that live 3600 seconds at most',
  audience: `only tokens for the audiences ${AUDIENCE}`,
};

const secretPath = (name: string) => `/api/v1/namespaces/${NAMESPACE}/secrets/${name}`;
const tokenPath = (account: string, namespace = NAMESPACE) =>
  `/api/v1/namespaces/${namespace}/serviceaccounts/${account}/token`;
const bound = { kind: 'Secret', apiVersion: 'v1', name: BOUND_TO };

let cluster: RealCluster;
let secrets: SecretsManager;
/** Called before each operation of Secrets Manager. */
let before: (operation: string) => Promise<void> = async () => {};
const callers = new Map<string, Call>();
/** All registered tokens, in order. */
const tokens: string[] = [];

beforeAll(async () => {
  cluster = await startRealCluster({ document: DOCUMENT });
  const { controlPlane } = cluster;
  const token = await refresherToken(controlPlane, `${SHORTEST_SECONDS}s`);
  tokens.push(token);
  secrets = await startSecretsManager(
    { [SECRET]: controlPlane.kubeconfigForToken(token) },
    { before: (operation) => before(operation) },
  );
  callers.set(IDENTITIES[0], await callerOf(cluster.kubeconfig));
  callers.set(
    IDENTITIES[1],
    await callerOf(await controlPlane.kubeconfigFor('the-lambda', [REFRESHER_GROUP])),
  );
  callers.set('admin', await callerOf(await readFile(controlPlane.adminKubeconfigPath, 'utf8')));
});

afterAll(async () => {
  await secrets?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});

function as(identity: string): Call {
  const call = callers.get(identity);
  if (!call) throw new Error(`no caller for ${identity}`);
  return call;
}

/** The API server's HTTP status for a token: 200, or 401. */
async function statusOf(token: string): Promise<number> {
  const call = await callerOf(cluster.controlPlane.kubeconfigForToken(token));
  return (await call('GET', '/api/v1/namespaces?limit=1')).status;
}

function registered(): string {
  const { identity } = readKubeconfig(secrets.current(SECRET));
  return 'token' in identity ? identity.token : '';
}

/** Runs the refresher at a second of the registered token's lifetime. */
async function refresh(second: number): Promise<ClusterReport> {
  const settings = {
    clusterDeadlineMs: 60_000,
    clusterConcurrency: 1,
    region: 'eu-central-1',
    allowLocalServers: true,
    eksDiscovery: [],
  };
  const services = { secrets: secrets.client, eks: NO_EKS, keyless: NO_KEYLESS };
  const now = (readToken(registered())?.issuedAt ?? 0) + second * 1000;
  const signal = AbortSignal.timeout(60_000);
  const reports = await run(
    services,
    readEvent({}),
    settings,
    () => now,
    signal,
    () => {},
  );
  keepEvidence('report', 'renewal', JSON.stringify(reports));
  const [report] = reports;
  if (!report) throw new Error('no report');
  return report;
}

function request(identity: string, spec: object, path = tokenPath(ACCOUNT)): Promise<CallAnswer> {
  return as(identity)('POST', path, { kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', spec });
}

test('the token is renewed three times, and the old one works until the new one is stored', async () => {
  for (let round = 1; round <= 3; round += 1) {
    const old = registered();
    expect((await refresh(SHORTEST_SECONDS / 2)).renewal?.outcome).toBe('not-due');
    // Times in tokens are whole seconds: a token expires later only if it is issued in a later second.
    const { issuedAt = 0 } = readToken(old) ?? {};
    await vi.waitFor(() => expect(Date.now()).toBeGreaterThan(issuedAt + 1_000), { timeout: 5_000 });
    const seen: [operation: string, old: number][] = [];
    before = async (operation) => {
      if (operation.includes('Get')) return;
      expect(registered()).toBe(old);
      seen.push([operation, await statusOf(old)]);
    };
    const report = await refresh(SHORTEST_SECONDS / 2 + 1);
    before = async () => {};
    expect(seen).toEqual([
      ['ListSecrets', 200],
      ['PutSecretValue', 200],
      ['UpdateSecretVersionStage', 200],
    ]);
    const next = registered();
    tokens.push(next);
    const [was, is] = [readToken(old), readToken(next)];
    expect(report).toMatchObject({
      served: true,
      failed: false,
      renewal: { outcome: 'renewed' },
    });
    expect(is).toEqual({ ...was, issuedAt: expect.any(Number), expiresAt: expect.any(Number) });
    expect((is?.expiresAt ?? 0) - (is?.issuedAt ?? 0)).toBe(SHORTEST_SECONDS * 1000);
    expect(Date.parse(report.renewal?.expiresAt ?? '')).toBeLessThanOrEqual(is?.expiresAt ?? 0);
    expect([await statusOf(old), await statusOf(next)]).toEqual([200, 200]);
  }
  expect(new Set(tokens).size).toBe(4);
});

test('the Secret that tokens are bound to is empty and not managed', async () => {
  const secret = await cluster.admin<{ data?: object; metadata: { labels: object } }>(
    'GET',
    secretPath(BOUND_TO),
  );
  expect(secret.data).toBeUndefined();
  expect(secret.metadata.labels).not.toHaveProperty([SECRET_LABEL.key]);
});

describe('by the roles of the chart', () => {
  test('the ServiceAccount may request its own tokens and no others', async () => {
    const spec = { boundObjectRef: bound, expirationSeconds: SHORTEST_SECONDS };
    const own = await request(IDENTITIES[0], spec);
    expect(own.status, own.text.slice(0, 200)).toBe(201);
    for (const path of [tokenPath(RELEASE), tokenPath('default'), tokenPath(ACCOUNT, 'default')])
      expect(await request(IDENTITIES[0], spec, path)).toMatchObject({
        status: 403,
        text: expect.stringMatching(BY_RBAC),
      });
  });

  test('the group may request no tokens', async () => {
    const answer = await request(IDENTITIES[1], { boundObjectRef: bound });
    expect(answer).toMatchObject({ status: 403, text: expect.stringMatching(BY_RBAC) });
  });
});

describe('with a foreign role that allows everything on Secrets and tokens', () => {
  beforeAll(async () => {
    const group = 'rbac.authorization.k8s.io';
    const metadata = { name: 'too-much' };
    const verbs = ['*'];
    const rules = [{ apiGroups: [''], resources: ['secrets', 'serviceaccounts/token'], verbs }];
    const subjects = [
      { kind: 'ServiceAccount', name: ACCOUNT, namespace: NAMESPACE },
      { kind: 'Group', apiGroup: group, name: REFRESHER_GROUP },
    ];
    const roleRef = { apiGroup: group, kind: 'ClusterRole', name: metadata.name };
    const roles = `/apis/${group}/v1`;
    await cluster.admin('POST', `${roles}/clusterroles`, { metadata, rules });
    await cluster.admin('POST', `${roles}/clusterrolebindings`, { metadata, roleRef, subjects });
    await cluster.admin('POST', secretPath(''), { metadata: { name: 'other' } });
    for (const [namespace, name] of [
      [NAMESPACE, RELEASE],
      [NAMESPACE, 'other'],
      ['default', ACCOUNT],
    ])
      await as('admin')('POST', `/api/v1/namespaces/${namespace}/serviceaccounts`, { metadata: { name } });
    await as('admin')('POST', '/api/v1/namespaces/default/secrets', { metadata: { name: BOUND_TO } });
    for (const identity of IDENTITIES)
      await vi.waitFor(
        async () => expect((await as(identity)('GET', secretPath('other'))).status).toBe(200),
        { timeout: 20_000, interval: 200 },
      );
  });

  const good = { boundObjectRef: bound, expirationSeconds: MAX_SECONDS, audiences: [AUDIENCE] };

  describe.each(IDENTITIES)('%s', (identity) => {
    test.each([
      { what: 'as the chart allows', spec: good },
      { what: 'with the required fields only', spec: { boundObjectRef: bound } },
    ])('the API server creates a token $what', async ({ spec }) => {
      const answer = await request(identity, spec);
      expect(answer.status, answer.text.slice(0, 300)).toBe(201);
    });

    test.each([
      {
        what: 'a token without binding and lifetime',
        change: { boundObjectRef: undefined, expirationSeconds: undefined },
      },
      { what: 'a token without binding', change: { boundObjectRef: undefined } },
      { what: 'an empty binding', change: { boundObjectRef: {} } },
      { what: 'a binding to another Secret', change: { boundObjectRef: { ...bound, name: 'other' } } },
      { what: 'a binding to a Pod', change: { boundObjectRef: { ...bound, kind: 'Pod' } } },
      { what: 'a binding to a Node', change: { boundObjectRef: { ...bound, kind: 'Node' } } },
      {
        what: 'a lifetime one second above the limit',
        change: { expirationSeconds: MAX_SECONDS + 1 },
        by: 'life' as const,
      },
      { what: 'a lifetime of a year', change: { expirationSeconds: 31_536_000 }, by: 'life' as const },
      { what: 'another audience', change: { audiences: ['sts.example.com'] }, by: 'audience' as const },
      { what: 'a further audience', change: { audiences: [AUDIENCE, 'vault'] }, by: 'audience' as const },
      { what: "a token of the webhook's ServiceAccount", path: tokenPath(RELEASE), by: 'account' as const },
      { what: 'a token of another ServiceAccount', path: tokenPath('other'), by: 'account' as const },
      {
        what: 'a token of the same name in another namespace',
        path: tokenPath(ACCOUNT, 'default'),
        by: 'account' as const,
      },
    ])('the write policy refuses $what', async ({ change = {}, path, by = 'binding' as const }) => {
      const { status, text } = await request(identity, { ...good, ...change }, path);
      expect([status, text]).toEqual([403, expect.stringContaining(BY_POLICY)]);
      expect(text).toContain(REFUSAL[by]);
    });

    // The ServiceAccount may delete it by its UID, which invalidates the tokens: inspect-revoke-real.test.ts.
    test('the Secret of its tokens cannot be changed, recreated or deleted with others', async () => {
      const stored = async () => (await as('admin')('GET', secretPath(BOUND_TO))).text;
      const was = await stored();
      const byUid = { preconditions: { uid: JSON.parse(was).metadata.uid } };
      const metadata = { name: BOUND_TO, finalizers: ['example.com/keep'] };
      const body = { apiVersion: 'v1', kind: 'Secret', metadata, immutable: true };
      const attempts: Parameters<Call>[] = [
        ['DELETE', secretPath(BOUND_TO)],
        ['DELETE', secretPath('')],
        ...(identity === IDENTITIES[1] ? [['DELETE', secretPath(BOUND_TO), byUid] as Parameters<Call>] : []),
        ['POST', secretPath(''), body],
        ['PUT', secretPath(BOUND_TO), body],
        ['PATCH', secretPath(BOUND_TO), body, 'application/merge-patch+json'],
        ['PATCH', `${secretPath(BOUND_TO)}?fieldManager=x&force=true`, body, 'application/apply-patch+yaml'],
      ];
      for (const attempt of attempts) {
        const { status, text } = await as(identity)(...attempt);
        expect([status, text]).toEqual([403, expect.stringContaining('The refresher may')]);
      }
      expect(await stored()).toBe(was);
    });
  });

  test('the write policy does not restrict other users', async () => {
    const answer = await request('admin', { expirationSeconds: 31_536_000, audiences: ['vault'] });
    expect(answer.status, answer.text.slice(0, 300)).toBe(201);
  });
});

test('an upgrade of the chart keeps the Secret and the tokens', async () => {
  const uid = async () =>
    (await cluster.admin<{ metadata: { uid: string } }>('GET', secretPath(BOUND_TO))).metadata.uid;
  const was = await uid();
  await cluster.webhook.upgrade({ ...DOCUMENT, logLevel: 'warn' });
  expect(await uid()).toBe(was);
  expect(await statusOf(registered())).toBe(200);
});

test('after the deletion of the Secret no token works, and a new registration does', async () => {
  for (const token of tokens) expect(await statusOf(token)).toBe(200);
  await cluster.admin('DELETE', secretPath(BOUND_TO));
  // The API server caches authenticated tokens for ten seconds.
  for (const token of tokens)
    await vi.waitFor(async () => expect(await statusOf(token)).toBe(401), {
      timeout: 30_000,
      interval: 500,
    });
  expect(await refresh(SHORTEST_SECONDS / 2 + 1)).toMatchObject({
    served: false,
    failed: true,
    renewal: { outcome: 'failed', reason: expect.stringContaining('HTTP 401') },
  });

  await cluster.webhook.upgrade(DOCUMENT);
  for (const token of tokens) expect(await statusOf(token)).toBe(401);
  const token = await refresherToken(cluster.controlPlane, `${SHORTEST_SECONDS}s`);
  secrets.register(SECRET, cluster.controlPlane.kubeconfigForToken(token));
  expect(await refresh(0)).toMatchObject({ served: true, renewal: { outcome: 'not-due' } });
}, 180_000);
