// One cluster's turn where something of the cluster's is wrong, on a real API server: what happened is said, for which
// Secret and why, and the next run after the repair heals it.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { ANNOTATION, NAMESPACE_LABEL, SECRET_LABEL } from '../../../../contract/names.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { CHART, helm } from '../../../bed/helm.ts';
import { NAMESPACE, RELEASE } from '../../../bed/webhook.ts';
import {
  HOUR,
  type Manifest,
  outcomesOf,
  type RealCluster,
  secretPath,
  startRealCluster,
  until,
} from '../../real-cluster.ts';
import { type RecordingProxy, startRecordingProxy } from '../../recording-proxy.ts';

const WEBHOOK_CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${RELEASE}`;

let cluster: RealCluster;
let proxy: RecordingProxy;
let count = 0;
/** The namespaces of the test that runs. */
let a = '';
let b = '';
beforeAll(async () => {
  cluster = await startRealCluster();
  proxy = await startRecordingProxy(cluster.controlPlane);
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});
beforeEach(async () => {
  count += 1;
  a = `a-${count}`;
  b = `b-${count}`;
  await cluster.createNamespace(a);
  await cluster.createNamespace(b);
});
afterEach(async () => {
  proxy.before = async () => {};
  for (const name of [a, b]) {
    await cluster.admin('PATCH', `/api/v1/namespaces/${name}`, {
      metadata: { labels: { [NAMESPACE_LABEL.key]: null } },
    });
  }
});

const many = (namespace: string, length: number, more: Partial<Manifest> = {}): Manifest[] =>
  Array.from({ length }, (_, i) => ({ namespace, name: `pull-${i}`, ...more }));
const pathOf = ({ namespace, name }: Manifest) => `${namespace}/${name}`;

/** Managed Secrets with credentials that expire in an hour. */
async function dueSecrets(manifests: readonly Manifest[]): Promise<void> {
  await cluster.createSecrets(manifests);
  await cluster.age(new Map(manifests.map((manifest) => [pathOf(manifest), HOUR])));
}

async function expectHealed(due: number): Promise<void> {
  const report = await cluster.refresh();
  expect(report.reason).toBeUndefined();
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: due });
}

const resultOf = ({ results }: ClusterReport, path: string) =>
  results.find(({ secret }) => secret === path) ?? expect.fail(`no result for ${path}`);

test('the webhook is killed during a run', async () => {
  await dueSecrets([...many(a, 60), ...many(b, 60)]);
  let patches = 0;
  proxy.before = async (method) => {
    if (method !== 'PATCH') return;
    patches += 1;
    if (patches !== 40) return;
    cluster.webhook.program.signal('SIGKILL');
    await cluster.webhook.program.ended;
  };
  const report = await cluster.refresh({}, proxy.through(cluster.kubeconfig));
  expect(report).toMatchObject({ served: true, failed: true, managed: 120 });
  expect(report.reason).toMatch(/ended after 5 failures in a row: PATCH .* failed calling webhook/);
  const { refreshed = 0, refused = 0, 'not-attempted': notAttempted = 0 } = outcomesOf(report);
  expect(refreshed).toBeGreaterThanOrEqual(32);
  expect(refreshed).toBeLessThan(40);
  expect(refused).toBeGreaterThanOrEqual(5);
  expect(refreshed + refused + notAttempted).toBe(120);

  await cluster.webhook.start();
  await expectHealed(120 - refreshed);
});

test('the webhook configuration is gone: the API server says 200, the run does not', async () => {
  await dueSecrets(many(a, 30));
  const calls = cluster.ecr.calls.length;
  await cluster.withoutWebhook(async () => {
    const report = await cluster.refresh();
    expect(report).toMatchObject({ served: true, failed: true });
    expect(report.reason).toMatch(
      new RegExp(`^namespace ${a}: ended after 5 failures in a row: .*webhook configuration`),
    );
    const {
      'not-mutated': notMutated = 0,
      'not-attempted': notAttempted = 0,
      ...others
    } = outcomesOf(report);
    expect(others).toEqual({});
    expect(notMutated).toBeGreaterThanOrEqual(5);
    expect(notMutated + notAttempted).toBe(30);
  });
  expect(cluster.ecr.calls).toHaveLength(calls);
  await expectHealed(30);
});

test("one namespace's Secrets are not shown to the webhook: the others are refreshed all the same", async () => {
  await dueSecrets([...many(a, 20), ...many(b, 20)]);
  const { webhooks } = await cluster.admin<{ webhooks: { namespaceSelector: object }[] }>(
    'GET',
    WEBHOOK_CONFIGURATION,
  );
  const excluding = {
    matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: [a] }],
  };
  const selecting = (selector?: object) =>
    cluster.admin('PATCH', WEBHOOK_CONFIGURATION, {
      webhooks: webhooks.map((hook) => ({ ...hook, namespaceSelector: selector ?? hook.namespaceSelector })),
    });
  const isMutated = async () => {
    const answer = await cluster.admin<{ metadata: { annotations: Record<string, string> } }>(
      'PATCH',
      `${secretPath(`${a}/pull-0`)}?dryRun=All`,
      { metadata: { annotations: { [ANNOTATION.requestedAt]: new Date().toISOString() } } },
    );
    return Date.parse(answer.metadata.annotations[ANNOTATION.expiresAt] ?? '') > Date.now() + 2 * HOUR;
  };
  await selecting(excluding);
  await until(async () => !(await isMutated()));

  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(outcomesOf(report)).toMatchObject({ refreshed: 20 });
  for (const { secret, outcome } of report.results) {
    expect(outcome === 'refreshed').toBe(secret.startsWith(`${b}/`));
  }
  expect(resultOf(report, `${a}/pull-0`)).toMatchObject({
    outcome: 'not-mutated',
    reason: expect.stringContaining('does it select this namespace?'),
  });

  await selecting();
  await until(isMutated);
  await expectHealed(20);
});

test('every update is refused: each Secret is named with the reason', async () => {
  await dueSecrets([...many(a, 10), ...many(b, 10)]);
  const policies = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies';
  await cluster.admin('POST', policies, {
    metadata: { name: 'freeze' },
    spec: {
      matchConstraints: {
        resourceRules: [
          { apiGroups: [''], apiVersions: ['v1'], resources: ['secrets'], operations: ['UPDATE'] },
        ],
      },
      validations: [{ expression: 'false', message: 'frozen until Monday' }],
    },
  });
  const bindings = '/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings';
  await cluster.admin('POST', bindings, {
    metadata: { name: 'freeze' },
    spec: { policyName: 'freeze', validationActions: ['Deny'] },
  });
  const isFrozen = () =>
    cluster
      .admin('PATCH', `${secretPath(`${a}/pull-0`)}?dryRun=All`, { metadata: { labels: { x: 'y' } } })
      .then(
        () => false,
        () => true,
      );
  await until(isFrozen);

  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(outcomesOf(report)).toEqual({ refused: 20 });
  for (const { secret, reason } of report.results) {
    expect(reason).toContain('frozen until Monday');
    expect(reason).toContain(secretPath(secret));
  }

  await cluster.admin('DELETE', `${bindings}/freeze`);
  await cluster.admin('DELETE', `${policies}/freeze`);
  await until(async () => !(await isFrozen()));
  await expectHealed(20);
});

test('a namespace that the refresher may not list is named, the others are served', async () => {
  await dueSecrets([...many(a, 3), ...many(b, 3)]);
  const upgrade = (namespaces: string) =>
    helm(['upgrade', RELEASE, CHART, '--namespace', NAMESPACE, '--reuse-values', '--set-json', namespaces], {
      cluster: cluster.controlPlane,
    });
  await upgrade(`refresher.namespaces=["probe","${b}"]`);
  const isNarrowed = async () => {
    const { stdout } = await cluster.controlPlane.kubectl(
      [
        ...['auth', 'can-i', 'list', 'secrets', '--namespace', a],
        ...['--as', `system:serviceaccount:${NAMESPACE}:${RELEASE}-refresher`],
      ],
      { mayFail: true },
    );
    return stdout.startsWith('no');
  };
  await until(isNarrowed);

  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true, managed: 3 });
  expect(report.reason).toMatch(new RegExp(`^GET /api/v1/namespaces/${a}/secrets: HTTP 403: [^;]*$`));
  expect(report.results.map(({ secret }) => secret).sort()).toEqual(many(b, 3).map(pathOf));
  expect(outcomesOf(report)).toEqual({ refreshed: 3 });

  await upgrade('refresher.namespaces=[]');
  await until(async () => !(await isNarrowed()));
  await expectHealed(3);
});

test('Secrets that can never be refreshed do not keep the others waiting', async () => {
  await cluster.withoutWebhook(() =>
    cluster.createSecrets(many(a, 12, { immutable: true, config: { auths: {} } })),
  );
  await dueSecrets(many(b, 12));
  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(outcomesOf(report)).toEqual({ refreshed: 12, refused: 12 });
  for (const { secret, outcome, reason } of report.results) {
    expect(outcome).toBe(secret.startsWith(`${b}/`) ? 'refreshed' : 'refused');
    if (outcome === 'refused') expect(reason).toContain('immutable');
  }
});

test('between list and request, one Secret is deleted and another is no longer managed', async () => {
  await dueSecrets(many(a, 6));
  const [deleted = '', released = '', ...others] = many(a, 6).map(pathOf);
  proxy.before = async (method, path) => {
    if (method !== 'PATCH') return;
    if (path === secretPath(deleted)) await cluster.admin('DELETE', path);
    if (path === secretPath(released)) {
      await cluster.admin('PATCH', path, { metadata: { labels: { [SECRET_LABEL.key]: null } } });
    }
  };
  const report = await cluster.refresh({}, proxy.through(cluster.kubeconfig));
  expect(resultOf(report, deleted).outcome).toBe('gone');
  expect(resultOf(report, released)).toMatchObject({
    outcome: 'refused',
    reason: expect.stringContaining('managed Secrets only'),
  });
  for (const path of others) expect(resultOf(report, path).outcome).toBe('refreshed');
  // What is gone has no expiry; the one that is left as it was has.
  expect(report.soonestExpiry).toBeLessThan(Date.now() + 2 * HOUR);
  expect(await cluster.refresh()).toMatchObject({ failed: false, managed: 4, results: [] });
});

test('a deleted Secret alone is no failure, and its expiry does not count', async () => {
  await dueSecrets(many(a, 2));
  proxy.before = async (method, path) => {
    if (method === 'PATCH' && path.endsWith('/pull-0')) await cluster.admin('DELETE', path);
  };
  const report = await cluster.refresh({}, proxy.through(cluster.kubeconfig));
  expect(outcomesOf(report)).toEqual({ gone: 1, refreshed: 1 });
  expect(report.failed).toBe(false);
  expect(report.soonestExpiry).toBeGreaterThan(Date.now() + 11 * HOUR);
});

test('a dry run asks for everything that is due, and stores nothing', async () => {
  await dueSecrets(many(a, 5));
  await cluster.createSecrets(many(b, 5));
  const before = await cluster.secrets();
  const report = await cluster.refresh({ dryRun: true });
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: 5 });
  // What is stored still expires in an hour.
  expect(report.soonestExpiry).toBeLessThan(Date.now() + 2 * HOUR);
  expect(await cluster.secrets()).toEqual(before);
  await expectHealed(5);
});

test('forced, fresh ones are refreshed too, all with one token that is newer than the request', async () => {
  await dueSecrets(many(a, 5));
  await cluster.createSecrets(many(b, 30));
  const calls = cluster.ecr.calls.length;
  const askedAt = Date.now();
  const report = await cluster.refresh({ force: true });
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: 35 });
  expect(report.results.filter(({ due }) => due === 'forced')).toHaveLength(30);
  const [call, ...more] = cluster.ecr.calls.slice(calls);
  expect(more).toEqual([]);
  expect(call?.at).toBeGreaterThanOrEqual(askedAt);
  for (const [path, { data }] of await cluster.secrets()) {
    const config = Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString();
    expect(config.includes(call?.password ?? '?'), path).toBe(true);
  }
});

test('a run over some namespaces leaves the others alone', async () => {
  await dueSecrets([...many(a, 3), ...many(b, 3)]);
  const report = await cluster.refresh({ namespaces: [b, 'nowhere'] });
  expect(report).toMatchObject({ failed: false, managed: 3, namespaces: [b] });
  expect(report.results.map(({ secret }) => secret).sort()).toEqual(many(b, 3).map(pathOf));
  await expectHealed(3);
});

test('a credential that is no longer good is one reason, with a hint', async () => {
  await dueSecrets(many(a, 3));
  const report = await cluster.refresh({}, cluster.controlPlane.kubeconfigForToken('expired'));
  expect(report).toMatchObject({ served: false, failed: true, results: [] });
  expect(report.reason).toMatch(/^GET \/api\/v1\/namespaces: HTTP 401: .*expired or revoked\?\)$/);
});

test('tokens that live shorter than the window leave a Secret partial: refreshed, and due all the same', async () => {
  cluster.ecr.settings.lifetimeSeconds = 3600;
  await cluster.restartWebhook();
  await cluster.createSecrets(many(a, 3));
  cluster.ecr.settings.lifetimeSeconds = 4 * 3600;
  const report = await cluster.refresh();
  cluster.ecr.settings.lifetimeSeconds = 12 * 3600;
  expect(report.failed).toBe(true);
  expect(outcomesOf(report)).toEqual({ partial: 3 });
  await expectHealed(3);
});
