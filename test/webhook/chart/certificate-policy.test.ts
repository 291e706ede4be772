// The webhook's own identity, tried against a real API server: of its configuration it changes caBundle and nothing
// else, and beside that it reaches one Secret.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { NAMESPACE, prepareNamespace, RELEASE, runHelm } from '../../bed/webhook.ts';
import { eventually } from '../ask.ts';
import { type Call, callerOf } from '../caller.ts';
import { APPLY, base64, JSON_PATCH, MERGE, STRATEGIC } from './write-policy-attempts.ts';

const REGISTRATION = '/apis/admissionregistration.k8s.io/v1';
const CONFIGURATIONS = `${REGISTRATION}/mutatingwebhookconfigurations`;
const OWN = `${CONFIGURATIONS}/${RELEASE}`;
const SECRETS = `/api/v1/namespaces/${NAMESPACE}/secrets`;
const OWN_SECRET = `${SECRETS}/${RELEASE}-self-tls`;
const NAME = 'sync.ecr-anywhere.centml.ai';
const CA = base64('-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n');
const BY_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-ca-bundle'/;
const BY_RBAC = /is forbidden: User .* cannot/;

interface Webhook {
  name: string;
  clientConfig: Record<string, unknown>;
  [field: string]: unknown;
}

let stack: AsyncDisposableStack;
let cluster: ControlPlane;
let admin: Call;
let webhook: Call;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-own-fence-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  cluster = stack.use(await startControlPlane({ name: 'own-fence', dir }));
  await prepareNamespace(cluster);
  await prepareNamespace(cluster, 'elsewhere');
  await runHelm(cluster, ['install', RELEASE], {});
  admin = await callerOf(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  const { stdout } = await cluster.kubectl(['create', 'token', RELEASE, '--namespace', NAMESPACE]);
  webhook = await callerOf(cluster.kubeconfigForToken(stdout.trim()));
  await admin('POST', CONFIGURATIONS, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: 'somebody-elses' },
  });
  await admin('POST', SECRETS, { metadata: { name: 'aws-keys' }, stringData: { key: 'x' } });
  // A policy is in force a second or two after it was made.
  await eventually(async () => (await setLabel()).status === 403);
  const label = { metadata: { labels: { probe: 'x' } } };
  await eventually(async () => (await webhook('PATCH', OWN_SECRET, label, MERGE)).status === 403);
  await admin('PATCH', OWN_SECRET, { metadata: { labels: { probe: null } } }, MERGE);
});
afterAll(() => stack.disposeAsync());

const setLabel = () => webhook('PATCH', OWN, { metadata: { labels: { probe: String(Date.now()) } } }, MERGE);
const current = async () =>
  JSON.parse((await admin('GET', OWN)).text) as { metadata: object; webhooks: [Webhook] };
/** The list with our webhook changed, as a merge patch takes it. */
const changed = async (change: (own: Webhook) => Webhook) => {
  const { webhooks } = await current();
  return { webhooks: webhooks.map((own) => change(structuredClone(own))) };
};

async function isRefused(attempt: Promise<{ status: number; text: string }>, by: RegExp): Promise<void> {
  const { status, text } = await attempt;
  expect(text).toMatch(by);
  expect(status).toBe(403);
}

describe('caBundle', () => {
  const value = { caBundle: CA };
  test.each([
    {
      what: 'JSON patch',
      type: JSON_PATCH,
      body: async () => [{ op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: CA }],
    },
    {
      what: 'merge patch',
      type: MERGE,
      body: () => changed((own) => ({ ...own, clientConfig: { ...own.clientConfig, ...value } })),
    },
    {
      what: 'strategic merge patch',
      type: STRATEGIC,
      body: async () => ({ webhooks: [{ name: NAME, clientConfig: value }] }),
    },
  ])('may be changed, by $what', async ({ type, body }) => {
    await admin(
      'PATCH',
      OWN,
      [{ op: 'add', path: '/webhooks/0/clientConfig/caBundle', value: '' }],
      JSON_PATCH,
    );
    const { status, text } = await webhook('PATCH', OWN, await body(), type);
    expect(status, text).toBe(200);
    expect((await current()).webhooks[0].clientConfig).toMatchObject(value);
  });
});

describe('everything else of its configuration stays', () => {
  const FIELDS: Record<string, unknown> = {
    rules: [{ apiGroups: ['*'], apiVersions: ['*'], operations: ['*'], resources: ['*/*'] }],
    failurePolicy: 'Ignore',
    matchPolicy: 'Exact',
    namespaceSelector: {},
    objectSelector: {},
    sideEffects: 'NoneOnDryRun',
    timeoutSeconds: 30,
    admissionReviewVersions: ['v1', 'v1beta1'],
    reinvocationPolicy: 'IfNeeded',
    matchConditions: [],
    clientConfig: { url: 'https://evil.example.com/', caBundle: CA },
  };

  /** A strategic merge and an apply add to these: less in them changes nothing. */
  const MERGED = ['namespaceSelector', 'objectSelector', 'clientConfig', 'matchConditions'];

  test('each field of a webhook is tried', async () => {
    const { webhooks } = await current();
    expect(Object.keys(FIELDS).sort()).toEqual(
      Object.keys(webhooks[0])
        .filter((key) => key !== 'name')
        .sort(),
    );
  });

  test.each(Object.entries(FIELDS))(
    '%s, by merge, strategic merge, JSON patch and apply',
    async (field, value) => {
      const before = await current();
      const change = { name: NAME, [field]: value };
      await isRefused(
        webhook('PATCH', OWN, await changed((own) => ({ ...own, ...change })), MERGE),
        BY_POLICY,
      );
      const replace = [{ op: 'replace', path: `/webhooks/0/${field}`, value }];
      await isRefused(webhook('PATCH', OWN, replace, JSON_PATCH), BY_POLICY);
      if (!MERGED.includes(field)) {
        await isRefused(webhook('PATCH', OWN, { webhooks: [change] }, STRATEGIC), BY_POLICY);
        const [own] = before.webhooks;
        const applied = {
          apiVersion: 'admissionregistration.k8s.io/v1',
          kind: 'MutatingWebhookConfiguration',
          metadata: { name: RELEASE },
          webhooks: [{ ...own, ...change }],
        };
        await isRefused(webhook('PATCH', `${OWN}?fieldManager=x&force=true`, applied, APPLY), BY_POLICY);
      }
      expect((await current()).webhooks).toEqual(before.webhooks);
    },
  );

  test.each([
    { what: 'another namespace', service: { namespace: 'elsewhere' } },
    { what: 'another Service', service: { name: 'other' } },
    { what: 'another path', service: { path: '/' } },
    { what: 'another port', service: { port: 1 } },
  ])('the Service: $what', async ({ service }) => {
    const body = { webhooks: [{ name: NAME, clientConfig: { service } }] };
    await isRefused(webhook('PATCH', OWN, body, STRATEGIC), BY_POLICY);
  });

  test('a second webhook, another name, none', async () => {
    const { webhooks } = await current();
    const [own] = webhooks;
    for (const list of [
      [own, { ...own, name: 'all.example.com' }],
      [{ ...own, name: 'all.example.com' }],
      [],
    ])
      await isRefused(webhook('PATCH', OWN, { webhooks: list }, MERGE), BY_POLICY);
  });

  test.each([
    { what: 'labels', metadata: { labels: { x: 'y' } } },
    { what: 'no labels', metadata: { labels: null } },
    { what: 'annotations', metadata: { annotations: { 'cert-manager.io/inject-ca-from': 'elsewhere/x' } } },
    { what: 'finalizers', metadata: { finalizers: ['example.com/x'] } },
    { what: 'generateName', metadata: { generateName: 'x-' } },
    {
      what: 'owner references',
      metadata: {
        ownerReferences: [
          { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' },
        ],
      },
    },
    { what: 'managedFields', metadata: { managedFields: [{}] } },
  ])('$what', async ({ metadata }) => {
    await isRefused(webhook('PATCH', OWN, { metadata }, MERGE), BY_POLICY);
  });

  test('update, delete, create, list: by RBAC already', async () => {
    await isRefused(webhook('PUT', OWN, await current()), BY_RBAC);
    await isRefused(webhook('DELETE', OWN), BY_RBAC);
    await isRefused(webhook('DELETE', CONFIGURATIONS), BY_RBAC);
    await isRefused(webhook('POST', CONFIGURATIONS, { metadata: { name: 'x' } }), BY_RBAC);
    await isRefused(webhook('GET', CONFIGURATIONS), BY_RBAC);
    const applied = {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata: { name: 'x' },
    };
    await isRefused(webhook('PATCH', `${CONFIGURATIONS}/x?fieldManager=x`, applied, APPLY), BY_RBAC);
  });

  test('nobody else’s', async () => {
    for (const path of [
      `${CONFIGURATIONS}/somebody-elses`,
      `${REGISTRATION}/validatingwebhookconfigurations/${RELEASE}`,
      `${REGISTRATION}/validatingadmissionpolicies/${RELEASE}-ca-bundle`,
      `${REGISTRATION}/validatingadmissionpolicybindings/${RELEASE}-ca-bundle`,
    ])
      await isRefused(webhook('PATCH', path, { metadata: { labels: { x: 'y' } } }, MERGE), BY_RBAC);
  });

  test('were its role wider, the policy would still hold', async () => {
    const role = {
      apiVersion: 'rbac.authorization.k8s.io/v1',
      kind: 'ClusterRole',
      metadata: { name: 'wider' },
    };
    const rules = [
      {
        apiGroups: ['admissionregistration.k8s.io'],
        resources: ['mutatingwebhookconfigurations', 'validatingwebhookconfigurations'],
        verbs: ['*'],
      },
    ];
    await admin('POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', { ...role, rules });
    await admin('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
      metadata: { name: 'wider' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'wider' },
      subjects: [{ kind: 'ServiceAccount', name: RELEASE, namespace: NAMESPACE }],
    });
    await eventually(async () => (await webhook('GET', CONFIGURATIONS)).status === 200);
    const before = await current();
    await isRefused(webhook('DELETE', OWN), BY_POLICY);
    await isRefused(webhook('DELETE', `${CONFIGURATIONS}/somebody-elses`), BY_POLICY);
    for (const kind of ['mutating', 'validating']) {
      const body = { metadata: { name: 'x' } };
      await isRefused(webhook('POST', `${REGISTRATION}/${kind}webhookconfigurations`, body), BY_POLICY);
    }
    const other = await admin('GET', `${CONFIGURATIONS}/somebody-elses`);
    const renamed = { ...JSON.parse(other.text), webhooks: before.webhooks };
    await isRefused(webhook('PUT', `${CONFIGURATIONS}/somebody-elses`, renamed), BY_POLICY);
    const wider = { ...before, webhooks: [{ ...before.webhooks[0], failurePolicy: 'Ignore' }] };
    await isRefused(webhook('PUT', OWN, wider), BY_POLICY);
    expect(await current()).toEqual(before);
  });
});

describe('Secrets', () => {
  test('its own: read, and written', async () => {
    expect((await webhook('GET', OWN_SECRET)).status).toBe(200);
    expect((await webhook('PATCH', OWN_SECRET, { data: { x: 'eA==' } }, MERGE)).status).toBe(200);
  });

  test.each([
    { what: 'lists', method: 'GET', path: SECRETS },
    { what: 'lists those of all namespaces', method: 'GET', path: '/api/v1/secrets' },
    { what: 'watches', method: 'GET', path: `${SECRETS}?watch=true` },
    { what: 'reads another', method: 'GET', path: `${SECRETS}/aws-keys` },
    { what: 'creates', method: 'POST', path: SECRETS },
    { what: 'replaces its own', method: 'PUT', path: OWN_SECRET },
    { what: 'deletes its own', method: 'DELETE', path: OWN_SECRET },
    { what: 'deletes all', method: 'DELETE', path: SECRETS },
    {
      what: 'makes itself a token',
      method: 'POST',
      path: `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${RELEASE}/token`,
    },
    {
      what: 'reads the policy',
      method: 'GET',
      path: `/api/v1/namespaces/${NAMESPACE}/configmaps/${RELEASE}-policy`,
    },
    { what: 'writes a managed Secret', method: 'PATCH', path: '/api/v1/namespaces/elsewhere/secrets/ecr' },
    { what: 'labels a namespace', method: 'PATCH', path: '/api/v1/namespaces/elsewhere' },
    {
      what: 'changes its own roles',
      method: 'PATCH',
      path: `/apis/rbac.authorization.k8s.io/v1/clusterroles/${RELEASE}`,
    },
    {
      what: 'changes its Deployment',
      method: 'PATCH',
      path: `/apis/apps/v1/namespaces/${NAMESPACE}/deployments/${RELEASE}`,
    },
    {
      what: 'scales it',
      method: 'PATCH',
      path: `/apis/apps/v1/namespaces/${NAMESPACE}/deployments/${RELEASE}/scale`,
    },
    { what: 'makes a pod', method: 'POST', path: `/api/v1/namespaces/${NAMESPACE}/pods` },
    { what: 'lists namespaces', method: 'GET', path: '/api/v1/namespaces' },
  ])('no others: $what', async ({ method, path }) => {
    const body = method === 'GET' ? undefined : { metadata: { labels: { x: 'y' } } };
    const type = method === 'PATCH' ? MERGE : undefined;
    await isRefused(webhook(method, path, body, type), BY_RBAC);
  });

  test.each([
    { what: 'another’s name', namespace: NAMESPACE, name: 'another' },
    { what: 'another namespace', namespace: 'elsewhere', name: `${RELEASE}-self-tls` },
  ])('it makes none by an apply: $what', async ({ namespace, name }) => {
    const path = `/api/v1/namespaces/${namespace}/secrets/${name}?fieldManager=x`;
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name } };
    await isRefused(webhook('PATCH', path, secret, APPLY), BY_RBAC);
  });

  const BY_SECRET_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-self-tls'/;

  test.each([
    // Kubernetes takes away what has an owner that is not there.
    {
      what: 'an owner',
      change: {
        metadata: {
          ownerReferences: [
            { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' },
          ],
        },
      },
    },
    { what: 'a finalizer', change: { metadata: { finalizers: ['example.com/x'] } } },
    { what: 'a label', change: { metadata: { labels: { x: 'y' } } } },
    { what: 'no labels', change: { metadata: { labels: null } } },
    { what: 'an annotation', change: { metadata: { annotations: { x: 'y' } } } },
    { what: 'generateName', change: { metadata: { generateName: 'x-' } } },
    { what: 'immutable', change: { immutable: true } },
  ])('nothing of its own but data: $what', async ({ change }) => {
    await isRefused(webhook('PATCH', OWN_SECRET, change, MERGE), BY_SECRET_POLICY);
  });

  test.each([
    {
      what: 'to be filled with the refresher’s token',
      change: {
        type: 'kubernetes.io/service-account-token',
        metadata: { annotations: { 'kubernetes.io/service-account.name': `${RELEASE}-refresher` } },
      },
    },
    { what: 'of another type', change: { type: 'example.com/x' } },
    { what: 'with an annotation', change: { metadata: { annotations: { x: 'y' } } } },
    { what: 'with a label', change: { metadata: { labels: { x: 'y' } } } },
    { what: 'with a finalizer', change: { metadata: { finalizers: ['example.com/x'] } } },
    {
      what: 'with an owner',
      change: {
        metadata: {
          ownerReferences: [
            { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' },
          ],
        },
      },
    },
    { what: 'immutable', change: { immutable: true } },
  ])('where its own is gone it makes none $what', async ({ change }) => {
    await admin('DELETE', OWN_SECRET);
    const { metadata, ...rest } = change as { metadata?: object };
    const name = `${RELEASE}-self-tls`;
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name, ...metadata }, ...rest };
    const applied = webhook('PATCH', `${OWN_SECRET}?fieldManager=x`, secret, APPLY);
    await isRefused(applied, BY_SECRET_POLICY);
  });

  test('were its role wider, it would still be the only one', async () => {
    await admin('POST', SECRETS, { metadata: { name: `${RELEASE}-self-tls` } });
    await admin('POST', '/apis/rbac.authorization.k8s.io/v1/clusterroles', {
      metadata: { name: 'wider-secrets' },
      rules: [{ apiGroups: [''], resources: ['secrets'], verbs: ['*'] }],
    });
    await admin('POST', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings', {
      metadata: { name: 'wider-secrets' },
      roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'wider-secrets' },
      subjects: [{ kind: 'ServiceAccount', name: RELEASE, namespace: NAMESPACE }],
    });
    await eventually(async () => (await webhook('GET', SECRETS)).status === 200);
    await isRefused(webhook('DELETE', OWN_SECRET), BY_SECRET_POLICY);
    await isRefused(
      webhook('PATCH', `${SECRETS}/aws-keys`, { data: { x: 'eA==' } }, MERGE),
      BY_SECRET_POLICY,
    );
    for (const namespace of [NAMESPACE, 'elsewhere']) {
      const name = namespace === NAMESPACE ? 'another' : `${RELEASE}-self-tls`;
      const path = `/api/v1/namespaces/${namespace}/secrets`;
      await isRefused(webhook('POST', path, { metadata: { name } }), BY_SECRET_POLICY);
    }
    await admin('DELETE', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/wider-secrets');
    await eventually(async () => (await webhook('GET', SECRETS)).status === 403);
  });

  test('but its own again', async () => {
    await admin('DELETE', OWN_SECRET);
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: `${RELEASE}-self-tls` } };
    expect((await webhook('PATCH', `${OWN_SECRET}?fieldManager=x`, secret, APPLY)).status).toBe(201);
  });
});
