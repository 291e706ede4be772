// Tests a cluster run on a real API server while something in the cluster is broken: the report has the codes and reasons
// of each Secret, and the next run after the repair refreshes all of them.
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
} from '../../real-cluster.ts';
import { type RecordingProxy, startRecordingProxy } from '../../recording-proxy.ts';

const WEBHOOK_CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${RELEASE}`;

/** How long a change of a configuration takes to reach the API server's admission. */
const POLLING = { timeout: 20_000, interval: 50 };

let cluster: RealCluster;
let proxy: RecordingProxy;
let count = 0;
/** The namespaces of the current test. */
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

async function expectRecovered(due: number): Promise<void> {
  const report = await cluster.refresh();
  expect(report.reason).toBeUndefined();
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: due });
}

const resultOf = ({ results }: ClusterReport, path: string) =>
  results.find(({ secret }) => secret === path) ?? expect.fail(`no result for ${path}`);

test('stops with webhook-unreachable after the webhook is killed during a run', async () => {
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
  expect(report.codes).toEqual(['webhook-unreachable', 'secrets-not-refreshed']);
  const { refreshed = 0, refused = 0, 'not-attempted': notAttempted = 0 } = outcomesOf(report);
  expect(refreshed).toBeGreaterThanOrEqual(32);
  expect(refreshed).toBeLessThan(40);
  expect(refused).toBeGreaterThanOrEqual(5);
  expect(refreshed + refused + notAttempted).toBe(120);

  await cluster.webhook.start();
  await expectRecovered(120 - refreshed);
});

test('stops the namespace with not-mutated if the webhook configuration is deleted and the API server returns 200', async () => {
  await dueSecrets(many(a, 30));
  const calls = cluster.ecr.calls.length;
  await cluster.withoutWebhook(async () => {
    const report = await cluster.refresh();
    expect(report).toMatchObject({ served: true, failed: true });
    expect(report.codes).toEqual(['not-mutated', 'secrets-not-refreshed']);
    expect(report.reason).toMatch(new RegExp(`^namespace ${a}: [^;]*$`));
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
  await expectRecovered(30);
});

test('refreshes the other namespaces if the webhook configuration excludes one', async () => {
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
  await expect.poll(isMutated, POLLING).toBe(false);

  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(outcomesOf(report)).toMatchObject({ refreshed: 20 });
  for (const { secret, outcome } of report.results) {
    expect(outcome === 'refreshed').toBe(secret.startsWith(`${b}/`));
  }
  expect(resultOf(report, `${a}/pull-0`)).toMatchObject({
    outcome: 'not-mutated',
    code: 'not-mutated',
  });

  await selecting();
  await expect.poll(isMutated, POLLING).toBe(true);
  await expectRecovered(20);
});

test('reports each Secret with the reason of the admission policy that refuses every update', async () => {
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
  await expect.poll(isFrozen, POLLING).toBe(true);

  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(outcomesOf(report)).toEqual({ refused: 20 });
  for (const { secret, reason, code } of report.results) {
    expect(code).toBe('invalid');
    expect(reason).toContain('frozen until Monday');
    expect(reason).toContain(secretPath(secret));
  }

  await cluster.admin('DELETE', `${bindings}/freeze`);
  await cluster.admin('DELETE', `${policies}/freeze`);
  await expect.poll(isFrozen, POLLING).toBe(false);
  await expectRecovered(20);
});

test('reports a namespace whose Secrets may not be listed, and serves the others', async () => {
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
  await expect.poll(isNarrowed, POLLING).toBe(true);

  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true, managed: 3 });
  expect(report.codes).toEqual(['forbidden']);
  expect(report.reason).toMatch(new RegExp(`^GET /api/v1/namespaces/${a}/secrets: [^;]*$`));
  expect(report.results.map(({ secret }) => secret).sort()).toEqual(many(b, 3).map(pathOf));
  expect(outcomesOf(report)).toEqual({ refreshed: 3 });

  await upgrade('refresher.namespaces=["*"]');
  await expect.poll(isNarrowed, POLLING).toBe(false);
  await expectRecovered(3);
});

test('Secrets that can never be refreshed do not delay the others', async () => {
  await cluster.withoutWebhook(() =>
    cluster.createSecrets(many(a, 12, { immutable: true, config: { auths: {} } })),
  );
  await dueSecrets(many(b, 12));
  const report = await cluster.refresh();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(outcomesOf(report)).toEqual({ refreshed: 12, refused: 12 });
  for (const { secret, outcome, code, causes } of report.results) {
    expect(outcome).toBe(secret.startsWith(`${b}/`) ? 'refreshed' : 'refused');
    if (outcome !== 'refused') continue;
    expect(code).toBe('webhook-denied');
    expect(causes).toMatchObject([{ reason: 'immutable' }]);
  }
});

test('reports Secrets that were deleted or unlabelled between the list and the request', async () => {
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
    code: 'forbidden',
    reason: expect.stringContaining(`ValidatingAdmissionPolicy '${RELEASE}-refresher-update'`),
  });
  for (const path of others) expect(resultOf(report, path).outcome).toBe('refreshed');
  // A deleted Secret has no expiry, the unlabelled one keeps its own.
  expect(report.soonestExpiry).toBeLessThan(Date.now() + 2 * HOUR);
  expect(await cluster.refresh()).toMatchObject({ failed: false, managed: 4, results: [] });
});

test('a deleted Secret is no failure, and its expiry does not count', async () => {
  await dueSecrets(many(a, 2));
  proxy.before = async (method, path) => {
    if (method === 'PATCH' && path.endsWith('/pull-0')) await cluster.admin('DELETE', path);
  };
  const report = await cluster.refresh({}, proxy.through(cluster.kubeconfig));
  expect(outcomesOf(report)).toEqual({ gone: 1, refreshed: 1 });
  expect(report.failed).toBe(false);
  expect(report.soonestExpiry).toBeGreaterThan(Date.now() + 11 * HOUR);
});

test('a dry run requests all due Secrets and stores nothing', async () => {
  await dueSecrets(many(a, 5));
  await cluster.createSecrets(many(b, 5));
  const before = await cluster.secrets();
  const report = await cluster.refresh({ dryRun: true });
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: 5 });
  // The stored credentials still expire in an hour.
  expect(report.soonestExpiry).toBeLessThan(Date.now() + 2 * HOUR);
  expect(await cluster.secrets()).toEqual(before);
  await expectRecovered(5);
});

test('a forced run refreshes fresh Secrets too, all with one token that is newer than the request', async () => {
  await dueSecrets(many(a, 5));
  await cluster.createSecrets(many(b, 30));
  const calls = cluster.ecr.calls.length;
  const requestedAt = Date.now();
  const report = await cluster.refresh({ force: true });
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: 35 });
  expect(report.results.filter(({ due }) => due === 'forced')).toHaveLength(30);
  const [call, ...more] = cluster.ecr.calls.slice(calls);
  expect(more).toEqual([]);
  expect(call?.at).toBeGreaterThanOrEqual(requestedAt);
  for (const [path, { data }] of await cluster.secrets()) {
    const config = Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString();
    expect(config.includes(call?.password ?? '?'), path).toBe(true);
  }
});

test('a run over some namespaces sends no requests for the others', async () => {
  await dueSecrets([...many(a, 3), ...many(b, 3)]);
  const report = await cluster.refresh({ namespaces: [b, 'nowhere'] });
  expect(report).toMatchObject({ failed: false, managed: 3, namespaces: [b] });
  expect(report.results.map(({ secret }) => secret).sort()).toEqual(many(b, 3).map(pathOf));
  await expectRecovered(3);
});

test('fails with unauthorized if the API server refuses the credential', async () => {
  await dueSecrets(many(a, 3));
  const report = await cluster.refresh({}, cluster.controlPlane.kubeconfigForToken('expired'));
  expect(report).toMatchObject({ served: false, failed: true, results: [] });
  expect(report).toMatchObject({ failedAt: 'credential', codes: ['unauthorized'] });
});

test('tokens that live shorter than the refresh window leave Secrets partial, because they are due again', async () => {
  cluster.ecr.settings.lifetimeSeconds = 3600;
  await cluster.restartWebhook();
  await cluster.createSecrets(many(a, 3));
  cluster.ecr.settings.lifetimeSeconds = 4 * 3600;
  // Within two seconds of a call, the webhook would reuse even a token that is due.
  await cluster.restartWebhook();
  const report = await cluster.refresh();
  cluster.ecr.settings.lifetimeSeconds = 12 * 3600;
  expect(report.failed).toBe(true);
  expect(outcomesOf(report)).toEqual({ partial: 3 });
  await cluster.restartWebhook();
  await expectRecovered(3);
});
