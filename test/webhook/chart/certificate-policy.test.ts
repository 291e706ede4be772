// The webhook's own identity on a real API server: it may change caBundle of its configuration and the data of one Secret,
// and nothing else.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { NAMESPACE, prepareNamespace, RELEASE, runHelm } from '../../bed/webhook.ts';
import { type Call, callerOf } from '../caller.ts';
import { withMutatingPolicies } from '../mutating-policies.ts';
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
const POLL = { timeout: 30_000, interval: 100 };

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
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-certificate-policy-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  cluster = stack.use(await startControlPlane({ name: 'certificate-policy', dir }));
  await prepareNamespace(cluster);
  await prepareNamespace(cluster, 'elsewhere');
  await runHelm(cluster, ['install', RELEASE], {});
  admin = await callerOf(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  const { stdout } = await cluster.kubectl(['create', 'token', RELEASE, '--namespace', NAMESPACE]);
  webhook = await callerOf(cluster.kubeconfigForToken(stdout.trim()));
  await admin('POST', CONFIGURATIONS, {
    apiVersion: 'admissionregistration.k8s.io/v1',
    kind: 'MutatingWebhookConfiguration',
    metadata: { name: 'other-webhook' },
  });
  await admin('POST', SECRETS, { metadata: { name: 'aws-keys' }, stringData: { key: 'x' } });
  // The API server enforces a policy a second or two after it is created.
  await vi.waitFor(async () => expect((await setLabel()).status).toBe(403), POLL);
  const label = { metadata: { labels: { probe: 'x' } } };
  await vi.waitFor(
    async () => expect((await webhook('PATCH', OWN_SECRET, label, MERGE)).status).toBe(403),
    POLL,
  );
  await admin('PATCH', OWN_SECRET, { metadata: { labels: { probe: null } } }, MERGE);
});
afterAll(() => stack.disposeAsync());

const setLabel = () => webhook('PATCH', OWN, { metadata: { labels: { probe: String(Date.now()) } } }, MERGE);
const current = async () =>
  JSON.parse((await admin('GET', OWN)).text) as { metadata: object; webhooks: [Webhook] };
/** A merge patch that changes the webhook in the list of the configuration. */
const changed = async (change: (own: Webhook) => Webhook) => {
  const { webhooks } = await current();
  return { webhooks: webhooks.map((own) => change(structuredClone(own))) };
};

async function expectWatched(name: string): Promise<void> {
  const { status, text } = await webhook('GET', watchOf(SECRETS, name));
  expect(status, text).toBe(200);
  expect(text).toContain(`"name":"${name}"`);
}

/** A watch of one object that lasts a second. */
function watchOf(collection: string, name: string): string {
  return `${collection}?watch=true&resourceVersion=0&timeoutSeconds=1&fieldSelector=metadata.name%3D${name}`;
}

async function expectDenied(attempt: Promise<{ status: number; text: string }>, by: RegExp): Promise<void> {
  const { status, text } = await attempt;
  expect(text).toMatch(by);
  expect(status).toBe(403);
}

describe('caBundle of its configuration', () => {
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

describe('its configuration', () => {
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

  /** A strategic merge and an apply only add to these fields, so a smaller value changes nothing. */
  const MERGED = ['namespaceSelector', 'objectSelector', 'clientConfig', 'matchConditions'];

  test('has no field that these tests do not try', async () => {
    const { webhooks } = await current();
    expect(Object.keys(FIELDS).sort()).toEqual(
      Object.keys(webhooks[0])
        .filter((key) => key !== 'name')
        .sort(),
    );
  });

  test.each(Object.entries(FIELDS))(
    'may not be changed in %s by merge patch, strategic merge patch, JSON patch or apply',
    async (field, value) => {
      const before = await current();
      const change = { name: NAME, [field]: value };
      await expectDenied(
        webhook('PATCH', OWN, await changed((own) => ({ ...own, ...change })), MERGE),
        BY_POLICY,
      );
      const replace = [{ op: 'replace', path: `/webhooks/0/${field}`, value }];
      await expectDenied(webhook('PATCH', OWN, replace, JSON_PATCH), BY_POLICY);
      if (!MERGED.includes(field)) {
        await expectDenied(webhook('PATCH', OWN, { webhooks: [change] }, STRATEGIC), BY_POLICY);
        const [own] = before.webhooks;
        const applied = {
          apiVersion: 'admissionregistration.k8s.io/v1',
          kind: 'MutatingWebhookConfiguration',
          metadata: { name: RELEASE },
          webhooks: [{ ...own, ...change }],
        };
        await expectDenied(webhook('PATCH', `${OWN}?fieldManager=x&force=true`, applied, APPLY), BY_POLICY);
      }
      expect((await current()).webhooks).toEqual(before.webhooks);
    },
  );

  test.each([
    { what: 'another namespace', service: { namespace: 'elsewhere' } },
    { what: 'another name', service: { name: 'other' } },
    { what: 'another path', service: { path: '/' } },
    { what: 'another port', service: { port: 1 } },
  ])('may not call the Service at $what', async ({ service }) => {
    const body = { webhooks: [{ name: NAME, clientConfig: { service } }] };
    await expectDenied(webhook('PATCH', OWN, body, STRATEGIC), BY_POLICY);
  });

  test('may not get a second webhook, another name, or no webhook', async () => {
    const { webhooks } = await current();
    const [own] = webhooks;
    for (const list of [
      [own, { ...own, name: 'all.example.com' }],
      [{ ...own, name: 'all.example.com' }],
      [],
    ])
      await expectDenied(webhook('PATCH', OWN, { webhooks: list }, MERGE), BY_POLICY);
  });

  test.each([
    { what: 'may not get a label', metadata: { labels: { x: 'y' } } },
    { what: 'may not lose its labels', metadata: { labels: null } },
    {
      what: 'may not get an annotation',
      metadata: { annotations: { 'cert-manager.io/inject-ca-from': 'elsewhere/x' } },
    },
    { what: 'may not get a finalizer', metadata: { finalizers: ['example.com/x'] } },
    { what: 'may not get generateName', metadata: { generateName: 'x-' } },
    {
      what: 'may not get an owner reference',
      metadata: {
        ownerReferences: [
          { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' },
        ],
      },
    },
    { what: 'may not lose its managedFields', metadata: { managedFields: [{}] } },
  ])('$what', async ({ metadata }) => {
    await expectDenied(webhook('PATCH', OWN, { metadata }, MERGE), BY_POLICY);
  });

  test('may be watched, selected by its name only', async () => {
    const { status, text } = await webhook('GET', watchOf(CONFIGURATIONS, RELEASE));
    expect(status, text).toBe(200);
    expect(text).toContain(`"name":"${RELEASE}"`);
    await expectDenied(webhook('GET', `${CONFIGURATIONS}?watch=true`), BY_RBAC);
    await expectDenied(webhook('GET', watchOf(CONFIGURATIONS, 'other-webhook')), BY_RBAC);
    const validating = `${REGISTRATION}/validatingwebhookconfigurations`;
    await expectDenied(webhook('GET', watchOf(validating, RELEASE)), BY_RBAC);
  });

  test('may not be replaced, deleted, created or listed by RBAC', async () => {
    await expectDenied(webhook('PUT', OWN, await current()), BY_RBAC);
    await expectDenied(webhook('DELETE', OWN), BY_RBAC);
    await expectDenied(webhook('DELETE', CONFIGURATIONS), BY_RBAC);
    await expectDenied(webhook('POST', CONFIGURATIONS, { metadata: { name: 'x' } }), BY_RBAC);
    await expectDenied(webhook('GET', CONFIGURATIONS), BY_RBAC);
    const applied = {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata: { name: 'x' },
    };
    await expectDenied(webhook('PATCH', `${CONFIGURATIONS}/x?fieldManager=x`, applied, APPLY), BY_RBAC);
  });

  test('is the only object of its API group that the webhook may change', async () => {
    for (const path of [
      `${CONFIGURATIONS}/other-webhook`,
      `${REGISTRATION}/validatingwebhookconfigurations/${RELEASE}`,
      `${REGISTRATION}/validatingadmissionpolicies/${RELEASE}-ca-bundle`,
      `${REGISTRATION}/validatingadmissionpolicybindings/${RELEASE}-ca-bundle`,
    ])
      await expectDenied(webhook('PATCH', path, { metadata: { labels: { x: 'y' } } }, MERGE), BY_RBAC);
  });

  test('is protected by the policy when another role grants every verb', async () => {
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
    await expect.poll(async () => (await webhook('GET', CONFIGURATIONS)).status, POLL).toBe(200);
    const before = await current();
    await expectDenied(webhook('DELETE', OWN), BY_POLICY);
    await expectDenied(webhook('DELETE', `${CONFIGURATIONS}/other-webhook`), BY_POLICY);
    for (const kind of ['mutating', 'validating']) {
      const body = { metadata: { name: 'x' } };
      await expectDenied(webhook('POST', `${REGISTRATION}/${kind}webhookconfigurations`, body), BY_POLICY);
    }
    const other = await admin('GET', `${CONFIGURATIONS}/other-webhook`);
    const renamed = { ...JSON.parse(other.text), webhooks: before.webhooks };
    await expectDenied(webhook('PUT', `${CONFIGURATIONS}/other-webhook`, renamed), BY_POLICY);
    const failingOpen = { ...before, webhooks: [{ ...before.webhooks[0], failurePolicy: 'Ignore' }] };
    await expectDenied(webhook('PUT', OWN, failingOpen), BY_POLICY);
    expect(await current()).toEqual(before);
  });
});

describe('Secrets', () => {
  test('the webhook may watch its own, selected by its name', async () => {
    await expectWatched(`${RELEASE}-self-tls`);
  });

  test('the webhook may read and write its own', async () => {
    expect((await webhook('GET', OWN_SECRET)).status).toBe(200);
    expect((await webhook('PATCH', OWN_SECRET, { data: { x: 'eA==' } }, MERGE)).status).toBe(200);
  });

  test.each([
    { what: 'list Secrets', method: 'GET', path: SECRETS },
    { what: 'list the Secrets of all namespaces', method: 'GET', path: '/api/v1/secrets' },
    { what: 'watch Secrets', method: 'GET', path: `${SECRETS}?watch=true` },
    { what: 'watch another Secret', method: 'GET', path: watchOf(SECRETS, 'aws-keys') },
    {
      what: 'watch a Secret of another namespace',
      method: 'GET',
      path: watchOf('/api/v1/namespaces/elsewhere/secrets', `${RELEASE}-self-tls`),
    },
    {
      what: 'watch the Secrets of all namespaces by the name of its own',
      method: 'GET',
      path: watchOf('/api/v1/secrets', `${RELEASE}-self-tls`),
    },
    { what: 'read another Secret', method: 'GET', path: `${SECRETS}/aws-keys` },
    { what: 'create a Secret', method: 'POST', path: SECRETS },
    { what: 'replace its own Secret', method: 'PUT', path: OWN_SECRET },
    { what: 'delete its own Secret', method: 'DELETE', path: OWN_SECRET },
    { what: 'delete all Secrets', method: 'DELETE', path: SECRETS },
    {
      what: 'request a token',
      method: 'POST',
      path: `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/${RELEASE}/token`,
    },
    {
      what: 'read the registry policy',
      method: 'GET',
      path: `/api/v1/namespaces/${NAMESPACE}/configmaps/${RELEASE}-policy`,
    },
    { what: 'write a managed Secret', method: 'PATCH', path: '/api/v1/namespaces/elsewhere/secrets/ecr' },
    { what: 'label a namespace', method: 'PATCH', path: '/api/v1/namespaces/elsewhere' },
    {
      what: 'change its own role',
      method: 'PATCH',
      path: `/apis/rbac.authorization.k8s.io/v1/clusterroles/${RELEASE}`,
    },
    {
      what: 'change its Deployment',
      method: 'PATCH',
      path: `/apis/apps/v1/namespaces/${NAMESPACE}/deployments/${RELEASE}`,
    },
    {
      what: 'scale its Deployment',
      method: 'PATCH',
      path: `/apis/apps/v1/namespaces/${NAMESPACE}/deployments/${RELEASE}/scale`,
    },
    { what: 'create a Pod', method: 'POST', path: `/api/v1/namespaces/${NAMESPACE}/pods` },
    { what: 'list namespaces', method: 'GET', path: '/api/v1/namespaces' },
  ])('the webhook may not $what, by RBAC', async ({ method, path }) => {
    const body = method === 'GET' ? undefined : { metadata: { labels: { x: 'y' } } };
    const type = method === 'PATCH' ? MERGE : undefined;
    await expectDenied(webhook(method, path, body, type), BY_RBAC);
  });

  test.each([
    { what: 'with another name', namespace: NAMESPACE, name: 'another' },
    { what: 'in another namespace', namespace: 'elsewhere', name: `${RELEASE}-self-tls` },
  ])('the webhook may not create one $what by server-side apply, by RBAC', async ({ namespace, name }) => {
    const path = `/api/v1/namespaces/${namespace}/secrets/${name}?fieldManager=x`;
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name } };
    await expectDenied(webhook('PATCH', path, secret, APPLY), BY_RBAC);
  });

  const BY_SECRET_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-own-secrets'/;

  test.each([
    // Kubernetes deletes an object whose owner does not exist.
    {
      what: 'add an owner reference to',
      change: {
        metadata: {
          ownerReferences: [
            { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' },
          ],
        },
      },
    },
    { what: 'add a finalizer to', change: { metadata: { finalizers: ['example.com/x'] } } },
    { what: 'add a label to', change: { metadata: { labels: { x: 'y' } } } },
    { what: 'remove the labels of', change: { metadata: { labels: null } } },
    { what: 'add an annotation to', change: { metadata: { annotations: { x: 'y' } } } },
    { what: 'set generateName of', change: { metadata: { generateName: 'x-' } } },
    { what: 'make immutable', change: { immutable: true } },
  ])('the webhook may not $what its own', async ({ change }) => {
    await expectDenied(webhook('PATCH', OWN_SECRET, change, MERGE), BY_SECRET_POLICY);
  });

  test.each([
    {
      what: 'in which Kubernetes would store a token of the refresher',
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
      what: 'with an owner reference',
      change: {
        metadata: {
          ownerReferences: [
            { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' },
          ],
        },
      },
    },
    { what: 'that is immutable', change: { immutable: true } },
  ])('after its own is deleted, the webhook may not create one $what', async ({ change }) => {
    await admin('DELETE', OWN_SECRET);
    const { metadata, ...rest } = change as { metadata?: object };
    const name = `${RELEASE}-self-tls`;
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name, ...metadata }, ...rest };
    const applied = webhook('PATCH', `${OWN_SECRET}?fieldManager=x`, secret, APPLY);
    await expectDenied(applied, BY_SECRET_POLICY);
  });

  test('other than its own are protected by the policy when another role grants every verb', async () => {
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
    await expect.poll(async () => (await webhook('GET', SECRETS)).status, POLL).toBe(200);
    await expectDenied(webhook('DELETE', OWN_SECRET), BY_SECRET_POLICY);
    await expectDenied(
      webhook('PATCH', `${SECRETS}/aws-keys`, { data: { x: 'eA==' } }, MERGE),
      BY_SECRET_POLICY,
    );
    for (const namespace of [NAMESPACE, 'elsewhere']) {
      const name = namespace === NAMESPACE ? 'another' : `${RELEASE}-self-tls`;
      const path = `/api/v1/namespaces/${namespace}/secrets`;
      await expectDenied(webhook('POST', path, { metadata: { name } }), BY_SECRET_POLICY);
    }
    await admin('DELETE', '/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/wider-secrets');
    await expect.poll(async () => (await webhook('GET', SECRETS)).status, POLL).toBe(403);
  });

  test('the webhook may create its own again after a deletion', async () => {
    await admin('DELETE', OWN_SECRET);
    const secret = { apiVersion: 'v1', kind: 'Secret', metadata: { name: `${RELEASE}-self-tls` } };
    expect((await webhook('PATCH', `${OWN_SECRET}?fieldManager=x`, secret, APPLY)).status).toBe(201);
  });
});

withMutatingPolicies('the Secret of the caller proof', () => {
  const PROOF_SECRET = `${SECRETS}/${RELEASE}-caller-proof`;
  const BY_SECRET_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-own-secrets'/;

  test('may be watched, selected by its name, by the webhook', () =>
    expectWatched(`${RELEASE}-caller-proof`));

  test('may be read, and its data written, by the webhook', async () => {
    const { status, text } = await webhook('PATCH', PROOF_SECRET, { data: { proof: base64('x') } }, MERGE);
    expect(status, text).toBe(200);
    expect((await webhook('GET', PROOF_SECRET)).status).toBe(200);
  });

  test.each([
    { what: 'labelled', change: { metadata: { labels: { x: 'y' } } } },
    { what: 'annotated', change: { metadata: { annotations: { x: 'y' } } } },
    { what: 'made immutable', change: { immutable: true } },
  ])('may not be $what by the webhook', async ({ change }) => {
    await expectDenied(webhook('PATCH', PROOF_SECRET, change, MERGE), BY_SECRET_POLICY);
  });

  test('may not become one in which Kubernetes stores a token', async () => {
    await admin('DELETE', PROOF_SECRET);
    const create = (type: string, annotations: object) =>
      webhook(
        'PATCH',
        `${PROOF_SECRET}?fieldManager=x`,
        {
          apiVersion: 'v1',
          kind: 'Secret',
          type,
          metadata: { name: `${RELEASE}-caller-proof`, annotations },
        },
        APPLY,
      );
    const annotations = { 'kubernetes.io/service-account.name': `${RELEASE}-refresher` };
    await expectDenied(create('kubernetes.io/service-account-token', annotations), BY_SECRET_POLICY);
    expect((await create('Opaque', {})).status).toBe(201);
  });
});
