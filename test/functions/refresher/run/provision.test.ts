// Tests how a cluster run creates the managed Secret where it is missing (chart value `provision.secretName`), on a real API server
// with the webhook: the refresher has no setting for it.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../../../contract/names.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { CHART, helm } from '../../../bed/helm.ts';
import { NAMESPACE, RELEASE } from '../../../bed/webhook.ts';
import { json, kubeconfigFor, page, refuse, startApiServer } from '../../api-server.ts';
import { HOUR, outcomesOf, type RealCluster, runOn, startRealCluster } from '../../real-cluster.ts';
import { type RecordingProxy, startRecordingProxy } from '../../recording-proxy.ts';

const NAME = 'ecr';
const POLLING = { timeout: 20_000, interval: 50 };

let cluster: RealCluster;
let proxy: RecordingProxy;
let count = 0;
/** A new namespace for each test; those of earlier tests have the Secret. */
let team = '';
beforeAll(async () => {
  cluster = await startRealCluster({
    document: {
      provision: { secretName: NAME },
      ownRegistry: { namespaces: ['team-*', 'probe'] },
    },
  });
  proxy = await startRecordingProxy(cluster.controlPlane);
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  count += 1;
  team = `team-${count}`;
  await cluster.createNamespace(team);
  proxy.exchanges.length = 0;
  proxy.before = async () => {};
});

const throughProxy = (event: object = {}) => cluster.refresh(event, proxy.through(cluster.kubeconfig));
const resultIn = ({ results }: ClusterReport, namespace: string) =>
  results.filter(({ secret }) => secret === `${namespace}/${NAME}`);
const storedIn = async (namespace: string) => (await cluster.secrets()).get(`${namespace}/${NAME}`);
/** Whether RBAC allows the refresher to create a Secret. */
const canCreate = async (name: string, namespace: string) => {
  const { stdout } = await cluster.controlPlane.kubectl(
    [
      ...['auth', 'can-i', 'create', `secrets/${name}`, '--namespace', namespace],
      ...['--as', `system:serviceaccount:${NAMESPACE}:${RELEASE}-refresher`],
    ],
    { mayFail: true },
  );
  return stdout.startsWith('yes');
};

test('creates the Secret in each enabled namespace that lacks it; the next run refreshes it as usual', async () => {
  await cluster.createNamespace('team-other', false);
  const report = await cluster.refresh();
  expect(report).toMatchObject({ failed: false, managed: 2 });
  expect(outcomesOf(report)).toEqual({ provisioned: 2 });
  expect(resultIn(report, team)).toMatchObject([{ due: 'missing', outcome: 'provisioned' }]);
  expect(report.soonestExpiry).toBeGreaterThan(Date.now() + 11 * HOUR);
  const secret = await storedIn(team);
  expect(secret).toMatchObject({
    type: SECRET_TYPE,
    metadata: { labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
  });
  expect(Buffer.from(secret?.data?.[SECRET_KEY] ?? '', 'base64').toString()).toContain('.dkr.ecr.');

  expect(await cluster.refresh()).toMatchObject({ failed: false, managed: 2, results: [] });
  await cluster.age(new Map([[`${team}/${NAME}`, HOUR]]));
  expect(resultIn(await cluster.refresh(), team)).toMatchObject([{ due: 'expiring', outcome: 'refreshed' }]);
});

test('a run over some namespaces creates it in these only, and a dry run stores nothing', async () => {
  expect(await cluster.refresh({ namespaces: ['probe'] })).toMatchObject({ managed: 1, results: [] });
  const dry = await cluster.refresh({ namespaces: [team], dryRun: true });
  expect(dry).toMatchObject({ failed: false, managed: 0 });
  expect(outcomesOf(dry)).toEqual({ provisioned: 1 });
  expect(dry.soonestExpiry).toBeUndefined();
  expect(await storedIn(team)).toBeUndefined();
  const report = await cluster.refresh({ namespaces: [team] });
  expect(report).toMatchObject({ failed: false, managed: 1 });
  expect(outcomesOf(report)).toEqual({ provisioned: 1 });
});

test('reports a Secret of the name that is not managed, does not touch it, and does not fail', async () => {
  await cluster.admin('POST', `/api/v1/namespaces/${team}/secrets`, { metadata: { name: NAME } });
  const before = await storedIn(team);
  const report = await throughProxy();
  expect(report).toMatchObject({ failed: false });
  expect(report.codes).toBeUndefined();
  expect(resultIn(report, team)).toMatchObject([{ outcome: 'not-provisioned', code: 'secret-name-taken' }]);
  expect(await storedIn(team)).toEqual(before);
  expect(proxy.exchanges.filter(({ method }) => method === 'PATCH')).toEqual([]);
});

test('reports a Secret as created if another run created it at the same time', async () => {
  proxy.before = async (method) => {
    // The run has listed the namespace, and asks what it may create.
    if (method === 'POST') await cluster.refresh({ namespaces: [team] });
  };
  const report = await throughProxy({ namespaces: [team] });
  expect(report).toMatchObject({ failed: false, managed: 1 });
  expect(resultIn(report, team)).toMatchObject([{ outcome: 'provisioned', due: 'missing' }]);
  expect(proxy.exchanges.filter(({ method }) => method === 'PATCH')).toEqual([]);
});

test('reports a namespace that is entitled to no registry, and does not fail', async () => {
  const name = `not-entitled-${count}`;
  await cluster.createNamespace(name);
  const report = await cluster.refresh();
  expect(report).toMatchObject({ failed: false });
  expect(resultIn(report, name)).toMatchObject([
    { outcome: 'not-provisioned', code: 'webhook-denied', causes: [{ reason: 'not-entitled' }] },
  ]);
  expect(resultIn(report, team)).toMatchObject([{ outcome: 'provisioned' }]);
  await cluster.admin('DELETE', `/api/v1/namespaces/${name}`);
});

test('reports a namespace whose quota of Secrets is used up, and does not fail', async () => {
  const path = `/api/v1/namespaces/${team}/resourcequotas`;
  const hard = { 'count/secrets': '0' };
  await cluster.admin('POST', path, { metadata: { name: 'full' }, spec: { hard } });
  // A controller would do this.
  await cluster.admin('PATCH', `${path}/full/status`, { status: { hard, used: hard } });
  await expect
    .poll(async () => resultIn(await cluster.refresh({ namespaces: [team], dryRun: true }), team), POLLING)
    .toMatchObject([{ outcome: 'not-provisioned', code: 'forbidden' }]);
  expect(await cluster.refresh({ namespaces: [team] })).toMatchObject({ failed: false });
  await cluster.admin('DELETE', `${path}/full`);
});

test('a role that a tenant binds to the refresher in its namespace does not end the creation', async () => {
  const first = `a-${team}`;
  await cluster.createNamespace(first);
  const rbac = `/apis/rbac.authorization.k8s.io/v1/namespaces/${first}`;
  const rules = [{ apiGroups: [''], resources: ['secrets'], verbs: ['create'] }];
  await cluster.admin('POST', `${rbac}/roles`, { metadata: { name: 'wide' }, rules });
  await cluster.admin('POST', `${rbac}/rolebindings`, {
    metadata: { name: 'wide' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'wide' },
    subjects: [{ kind: 'ServiceAccount', namespace: NAMESPACE, name: `${RELEASE}-refresher` }],
  });
  await expect.poll(() => canCreate('other', first), POLLING).toBe(true);
  const report = await cluster.refresh();
  expect(report.namespaces[0]).toBe(first);
  expect(resultIn(report, team)).toMatchObject([{ outcome: 'provisioned' }]);
  await cluster.admin('DELETE', `/api/v1/namespaces/${first}`);
  await cluster.admin('PATCH', `/api/v1/namespaces/${first}`, {
    metadata: { labels: { [NAMESPACE_LABEL.key]: null } },
  });
});

test('a namespace that is being deleted is no failure', async () => {
  // Without a namespace controller it stays in this condition.
  await cluster.admin('DELETE', `/api/v1/namespaces/${team}`);
  const report = await cluster.refresh({ namespaces: [team] });
  expect(report).toMatchObject({ failed: false });
  expect(outcomesOf(report)).toEqual({ gone: 1 });
  await cluster.admin('PATCH', `/api/v1/namespaces/${team}`, {
    metadata: { labels: { [NAMESPACE_LABEL.key]: null } },
  });
});

test('fails where no webhook runs, or the API server calls none, and stores no Secret without credentials', async () => {
  cluster.webhook.program.signal('SIGKILL');
  await cluster.webhook.program.ended;
  const unreachable = await cluster.refresh();
  expect(unreachable).toMatchObject({ failed: true, codes: ['secrets-not-refreshed'] });
  expect(resultIn(unreachable, team)).toMatchObject([{ outcome: 'refused', code: 'webhook-unreachable' }]);
  await cluster.webhook.start();

  await cluster.withoutWebhook(async () => {
    const report = await cluster.refresh();
    expect(report).toMatchObject({ failed: true, codes: ['secrets-not-refreshed'] });
    expect(resultIn(report, team)).toMatchObject([{ outcome: 'not-mutated', code: 'not-mutated' }]);
  });
  expect(await storedIn(team)).toBeUndefined();
  expect(resultIn(await cluster.refresh(), team)).toMatchObject([{ outcome: 'provisioned' }]);
});

test.each([
  { what: 'fails', status: 500, unknown: [expect.any(String)] },
  { what: 'is forbidden', status: 403, unknown: [] },
])('a cluster where the review of its rules $what is refreshed as usual', async ({ status, unknown }) => {
  const expiresAt = new Date(Date.now() + 12 * HOUR).toISOString();
  const secret = { name: 'pull', annotations: { [ANNOTATION.expiresAt]: expiresAt } };
  await using server = await startApiServer(({ method, path }, response) => {
    if (method === 'POST') return refuse(response, status, 'no');
    return json(response, path === '/api/v1/namespaces' ? page([{ name: team }]) : page([secret]));
  });
  const [report] = await runOn({ cluster: kubeconfigFor(server, 'token') });
  expect(report).toMatchObject({ failed: false, managed: 1, results: [] });
  expect([report?.provisioningUnknown].filter((why) => why !== undefined)).toEqual(unknown);
});

test('an identity that may create any Secret creates none', async () => {
  const report = await cluster.refresh(
    {},
    await cluster.controlPlane.kubeconfigFor('root', ['system:masters']),
  );
  expect(report).toMatchObject({ failed: false, results: [] });
  expect(report.provisioningUnknown).toBeUndefined();
  expect(await storedIn(team)).toBeUndefined();
});

test('limits the permission to the namespaces that the refresher may see', async () => {
  const upgrade = (...set: string[]) =>
    helm(
      [
        ...['upgrade', RELEASE, CHART, '--namespace', NAMESPACE, '--reuse-values'],
        ...set.flatMap((value) => ['--set-json', value]),
      ],
      { cluster: cluster.controlPlane },
    );
  await upgrade(`refresher.namespaces=["probe","${team}"]`);
  await expect.poll(() => canCreate(NAME, 'default'), POLLING).toBe(false);
  expect(await canCreate(NAME, team)).toBe(true);
  expect(await canCreate('other', team)).toBe(false);
  const report = await cluster.refresh({ namespaces: [team] });
  expect(outcomesOf(report)).toEqual({ provisioned: 1 });

  // Off: nothing more is created, and what exists is refreshed.
  await upgrade('refresher.namespaces=["*"]', 'provision={"secretName":""}');
  await expect.poll(() => canCreate(NAME, team), POLLING).toBe(false);
  await cluster.createNamespace('team-late');
  await cluster.age(new Map([[`${team}/${NAME}`, HOUR]]));
  const off = await cluster.refresh();
  expect(off).toMatchObject({ failed: false });
  expect(outcomesOf(off)).toEqual({ refreshed: 1 });
  expect(await storedIn('team-late')).toBeUndefined();
});
