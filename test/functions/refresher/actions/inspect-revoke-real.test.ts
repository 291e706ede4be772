// Tests inspection and revocation on a real API server with the chart: an inspection writes nothing, and a revocation ends
// exactly the tokens that are bound to the registered token's Secret.

import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, REFRESHER_GROUP, TAG } from '../../../../contract/names.ts';
import type { RevokeResult } from '../../../../contract/refresher-api.ts';
import { revoke } from '../../../../functions/refresher/actions/revoke.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { summarizeNamed } from '../../../../functions/refresher/run/summaries.ts';
import { keepEvidence } from '../../../bed/evidence.ts';
import { NAMESPACE, RELEASE, refresherKubeconfig } from '../../../bed/webhook.ts';
import { type Call, callerOf } from '../../../webhook/caller.ts';
import {
  HOUR,
  NO_EKS,
  NO_KEYLESS,
  outcomesOf,
  type RealCluster,
  startRealCluster,
} from '../../real-cluster.ts';
import { type RecordingProxy, startRecordingProxy } from '../../recording-proxy.ts';
import { startSecretsManager } from '../../secrets-manager.ts';

const BOUND_TO = `/api/v1/namespaces/${NAMESPACE}/secrets/${RELEASE}-refresher-token`;
const BY_RBAC = /cannot \w+ resource/;
const SETTINGS = {
  clusterDeadlineMs: 60_000,
  clusterConcurrency: 4,
  region: 'eu-central-1',
  allowLocalServers: true,
  eksDiscovery: [],
};

let cluster: RealCluster;
let proxy: RecordingProxy;
let admin: Call;
let member: string;

beforeAll(async () => {
  cluster = await startRealCluster();
  proxy = await startRecordingProxy(cluster.controlPlane);
  admin = await callerOf(await readFile(cluster.controlPlane.adminKubeconfigPath, 'utf8'));
  member = await cluster.controlPlane.kubeconfigFor('the-lambda', [REFRESHER_GROUP]);
  for (const namespace of ['team-a', 'team-b']) await cluster.createNamespace(namespace);
  await cluster.createSecrets([
    { namespace: 'team-a', name: 'due' },
    { namespace: 'team-a', name: 'fresh' },
  ]);
  await cluster.age(new Map([['team-a/due', HOUR]]));
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});

async function inspect(kubeconfig: string, tags: Record<string, string> = {}): Promise<ClusterReport> {
  const name = `${CLUSTERS_PREFIX}a`;
  await using registry = await startSecretsManager({ [name]: kubeconfig }, { tags: { [name]: tags } });
  const reports = await run(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS },
    readEvent({ action: 'inspect', clusters: ['a'] }),
    SETTINGS,
    Date.now,
    AbortSignal.timeout(60_000),
    () => {},
  );
  keepEvidence('report', 'inspect', JSON.stringify(reports));
  const [report] = reports;
  if (!report) throw new Error('no report');
  return report;
}

async function revokeAt(kubeconfigs: Readonly<Record<string, string>>): Promise<RevokeResult[]> {
  const entries = Object.entries(kubeconfigs);
  const prefixed = entries.map(([name, value]) => [`${CLUSTERS_PREFIX}${name}`, value]);
  await using registry = await startSecretsManager(Object.fromEntries(prefixed), { pageSize: 100 });
  const results = await revoke(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS },
    entries.map(([name]) => name),
    SETTINGS,
    AbortSignal.timeout(60_000),
    () => {},
  );
  keepEvidence('report', 'revoke', JSON.stringify(results));
  return results;
}

const textOf = async (path: string) => (await admin('GET', path)).text;

test("an inspection as the chart's ServiceAccount reports all parts, misses no permission and writes nothing", async () => {
  const before = JSON.stringify([...(await cluster.secrets())]);
  const report = await inspect(proxy.through(cluster.kubeconfig));
  expect(JSON.stringify([...(await cluster.secrets())])).toBe(before);

  const { uid } = JSON.parse(await textOf('/api/v1/namespaces/kube-system')).metadata;
  const { gitVersion } = JSON.parse(await textOf('/version'));
  expect(report).toMatchObject({ served: true, failed: false, managed: 2 });
  expect(outcomesOf(report)).toEqual({ refreshed: 1 });
  expect(report.inspection).toEqual({
    server: expect.stringMatching(/^https:\/\/127\.0\.0\.1:\d+$/),
    identity: 'token',
    username: `system:serviceaccount:${NAMESPACE}:${RELEASE}-refresher`,
    groups: ['system:serviceaccounts', `system:serviceaccounts:${NAMESPACE}`, 'system:authenticated'],
    clusterUid: uid,
    kubernetesVersion: gitVersion,
    clockSkewSeconds: expect.any(Number),
    forbidden: [],
    readsEverySecret: true,
    token: { expiresAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT/), renewable: true },
  });
  // Both clocks are this machine's; the Date header has whole seconds, and a busy machine adds its delay.
  expect(Math.abs(report.inspection?.clockSkewSeconds ?? Number.NaN)).toBeLessThanOrEqual(1);
  expect(summarizeNamed([report])).toMatchObject([
    { secrets: [{ secret: 'team-a/due', due: 'expiring', outcome: 'refreshed' }] },
  ]);
  // The only write is a dry run.
  const writes = proxy.exchanges.filter(
    ({ method, path }) => method !== 'GET' && !/\/selfsubject/.test(path),
  );
  expect(writes.map(({ method, query }) => [method, query.dryRun])).toEqual([['PATCH', 'All']]);
  expect(proxy.exchanges.map(({ answer }) => answer).join('\n')).not.toContain('.dockerconfigjson":"');
});

test('an inspection that names a paused cluster is performed', async () => {
  const report = await inspect(cluster.kubeconfig, { [TAG.paused]: 'true' });
  expect(report).toMatchObject({ served: true, isPaused: true, inspection: { forbidden: [] } });
});

describe('an inspection reports missing permissions', () => {
  const rbac = '/apis/rbac.authorization.k8s.io/v1';
  const role = (name: string, resource: string, verbs: string[]) => ({
    metadata: { name },
    rules: [{ apiGroups: [''], resources: [resource], verbs }],
  });
  const binding = (name: string, kind: string, user: string) => ({
    metadata: { name },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind, name },
    subjects: [{ kind: 'User', apiGroup: 'rbac.authorization.k8s.io', name: user }],
  });

  test('of a user without any role, with the user name', async () => {
    const report = await inspect(await cluster.controlPlane.kubeconfigFor('stranger'));
    expect(report).toMatchObject({ served: false, failed: true, failedAt: 'permissions' });
    expect(report.inspection).toEqual({
      server: expect.any(String),
      identity: 'certificate',
      username: 'stranger',
      groups: ['system:authenticated'],
      kubernetesVersion: expect.stringMatching(/^v1\./),
      clockSkewSeconds: expect.any(Number),
      forbidden: ['list namespaces'],
      readsEverySecret: false,
    });
  });

  test('of a user with roles in some namespaces, for the other namespaces', async () => {
    const inA = `${rbac}/namespaces/team-a`;
    const inB = `${rbac}/namespaces/team-b`;
    await cluster.admin('POST', `${rbac}/clusterroles`, role('lister', 'namespaces', ['list']));
    await cluster.admin('POST', `${rbac}/clusterrolebindings`, binding('lister', 'ClusterRole', 'narrow'));
    await cluster.admin('POST', `${inA}/roles`, role('both', 'secrets', ['list', 'patch']));
    await cluster.admin('POST', `${inA}/rolebindings`, binding('both', 'Role', 'narrow'));
    await cluster.admin('POST', `${inB}/roles`, role('one', 'secrets', ['list']));
    await cluster.admin('POST', `${inB}/rolebindings`, binding('one', 'Role', 'narrow'));
    const kubeconfig = await cluster.controlPlane.kubeconfigFor('narrow');
    await expect
      .poll(async () => (await inspect(kubeconfig)).inspection?.forbidden?.toSorted(), {
        timeout: 20_000,
        interval: 200,
      })
      .toEqual(['list secrets in probe', 'patch secrets in probe', 'patch secrets in team-b']);
  });
});

test('RBAC alone, without the write policy, forbids to delete any Secret but the one of the token', async () => {
  const path = BOUND_TO.replace(/\/[^/]+$/, '');
  await cluster.admin('POST', path, { metadata: { name: 'other' } });
  // Not the list itself: its resource version changes with every object in the cluster.
  const secrets = async () => JSON.parse(await textOf(path)).items;
  const before = await secrets();
  const { uid } = JSON.parse(await textOf(BOUND_TO)).metadata;
  const byUid = { preconditions: { uid } };
  const asAccount = await callerOf(cluster.kubeconfig);
  const asMember = await callerOf(member);
  const attempts = [
    () => asAccount('DELETE', `${path}/other`),
    () => asAccount('DELETE', path),
    () => asAccount('DELETE', `${path}?fieldSelector=metadata.name=${RELEASE}-refresher-token`, byUid),
    () => asAccount('DELETE', '/api/v1/namespaces/team-a/secrets/due'),
    () => asMember('DELETE', BOUND_TO, byUid),
  ];
  for (const attempt of attempts)
    expect(await attempt()).toMatchObject({ status: 403, text: expect.stringMatching(BY_RBAC) });
  // The write policy requires the UID for the Secret that RBAC allows to delete.
  expect(await asAccount('DELETE', BOUND_TO)).toMatchObject({
    status: 403,
    text: expect.stringContaining(`ValidatingAdmissionPolicy '${RELEASE}-refresher-create-delete'`),
  });
  expect(await secrets()).toEqual(before);
});

test('a revocation ends every token that is bound to the Secret, and nothing else', async () => {
  const another = await refresherKubeconfig(cluster.controlPlane, '1h');
  const { stdout } = await cluster.controlPlane.kubectl([
    'create',
    'token',
    `${RELEASE}-refresher`,
    '--namespace',
    NAMESPACE,
  ]);
  const unbound = cluster.controlPlane.kubeconfigForToken(stdout.trim());
  const statusOf = async (kubeconfig: string) =>
    (await (await callerOf(kubeconfig))('GET', '/api/v1/namespaces?limit=1')).status;
  const all = [cluster.kubeconfig, another, unbound, member];
  for (const kubeconfig of all) expect(await statusOf(kubeconfig)).toBe(200);
  const others = async () =>
    JSON.stringify([...(await cluster.secrets())]) + (await textOf(BOUND_TO.replace(/[^/]+$/, 'other')));
  const before = await others();

  expect(await revokeAt({ certificate: member, unbound })).toEqual([
    {
      cluster: 'certificate',
      outcome: 'nothing-to-revoke',
      code: 'client-certificate',
      reason: expect.any(String),
    },
    { cluster: 'unbound', outcome: 'nothing-to-revoke', code: 'token-not-bound', reason: expect.any(String) },
  ]);
  const secret = { namespace: NAMESPACE, name: BOUND_TO.split('/').at(-1) };
  expect(await revokeAt({ a: cluster.kubeconfig })).toEqual([{ cluster: 'a', outcome: 'revoked', secret }]);
  expect((await admin('GET', BOUND_TO)).status).toBe(404);
  expect(await statusOf(cluster.kubeconfig)).toBe(401);
  await expect.poll(() => statusOf(another), { timeout: 20_000, interval: 500 }).toBe(401);
  expect([await statusOf(unbound), await statusOf(member)]).toEqual([200, 200]);
  expect(await others()).toBe(before);

  expect(await revokeAt({ a: cluster.kubeconfig, another })).toEqual([
    {
      cluster: 'a',
      outcome: 'refused-already',
      secret,
      code: 'unauthorized',
      reason: expect.any(String),
    },
    {
      cluster: 'another',
      outcome: 'refused-already',
      secret,
      code: 'unauthorized',
      reason: expect.any(String),
    },
  ]);
  const report = await inspect(cluster.kubeconfig);
  expect(report).toMatchObject({
    served: false,
    failed: true,
    failedAt: 'credential',
    codes: ['unauthorized'],
  });
}, 120_000);
