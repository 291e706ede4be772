// The chart value `provision.secretName` on a real API server: with the refresher's credential, one Secret without data can be
// created, where no Secret has its name. RBAC, the webhook and the write policy each limit it.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  PROVISION_FIELD_MANAGER,
  REFRESHER_FIELD_MANAGER,
  REFRESHER_GROUP,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { IS_OLDEST_KUBERNETES } from '../../bed/toolchain.ts';
import {
  installWebhook,
  NAMESPACE,
  RELEASE,
  refresherKubeconfig,
  type WebhookInstallation,
} from '../../bed/webhook.ts';
import { type Call, type CallAnswer, callerOf } from '../caller.ts';
import { withMutatingPolicies } from '../mutating-policies.ts';
import { APPLY, annotate, base64, MERGE, secretsOf, storedIn } from './write-policy-attempts.ts';

const NAME = 'ecr';
const IDENTITIES = ['ServiceAccount token', 'client certificate in the group'] as const;
// The oldest Kubernetes version gives no reason where server-side apply would create an object.
const BY_RBAC = IS_OLDEST_KUBERNETES
  ? /cannot create resource|is forbidden: ("|$)/
  : /cannot create resource/;
const BY_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-refresher-(update|create-delete)'/;
const BY_WEBHOOK = /admission webhook .*sync\.ecr-anywhere\.centml\.ai.* denied/;
const POLLING = { timeout: 20_000, interval: 200 };

let cluster: ControlPlane;
let ecr: AwsEndpoint;
let webhook: WebhookInstallation;
let admin: Call;
let stack: AsyncDisposableStack;
const callers = new Map<string, Call>();

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'provision-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const started = await Promise.all([startControlPlane({ name: 'provision', dir }), startAwsEndpoint()]);
  [cluster, ecr] = started;
  stack.defer(() => cluster.stop());
  stack.defer(() => ecr.stop());
  admin = await callerOf(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  for (const name of ['team', 'elsewhere']) await cluster.kubectl(['create', 'namespace', name]);
  for (const name of ['team', 'kube-public'])
    await cluster.kubectl(['label', 'namespace', name, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`]);
  webhook = stack.use(
    await installWebhook(cluster, { ecrUrl: ecr.url, document: { provision: { secretName: NAME } } }),
  );
  callers.set(IDENTITIES[0], await callerOf(await refresherKubeconfig(cluster)));
  callers.set(IDENTITIES[1], await callerOf(await cluster.kubeconfigFor('the-lambda', [REFRESHER_GROUP])));
  // The API server uses new policies and webhooks after a second or two.
  await vi.waitFor(
    // With data, because the API server would refuse the Secret without it before it asks the policies.
    async () => expect((await send('apply', empty({}, { data: DATA }), 'elsewhere')).text).toMatch(BY_POLICY),
    POLLING,
  );
});
afterAll(() => stack.disposeAsync());

interface SecretBody {
  readonly metadata: { readonly name: string; readonly labels: object };
}

/** What the refresher sends. */
function empty(metadata: object = {}, rest: object = {}): SecretBody {
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  return {
    ...{ apiVersion: 'v1', kind: 'Secret', type: SECRET_TYPE, metadata: { name: NAME, labels, ...metadata } },
    ...rest,
  };
}

/** Sends a Secret as one of the refresher's identities. */
function send(
  how: 'apply' | 'POST',
  body: SecretBody,
  namespace = 'team',
  query = '',
  identity: string = IDENTITIES[0],
): Promise<CallAnswer> {
  const call = callers.get(identity) ?? expect.fail(identity);
  const manager = `fieldManager=${PROVISION_FIELD_MANAGER}${query}`;
  return how === 'POST'
    ? call('POST', `${secretsOf(namespace)}?${manager}`, body)
    : call('PATCH', `${secretsOf(namespace)}/${body.metadata.name}?${manager}`, body, APPLY);
}

const stored = (namespace = 'team') => storedIn(namespace, admin);

async function expectDenied(
  attempt: () => Promise<CallAnswer>,
  by: RegExp,
  namespace = 'team',
): Promise<void> {
  const before = await stored(namespace);
  const { status, text } = await attempt();
  expect(await stored(namespace)).toBe(before);
  expect(JSON.parse(text).message).toMatch(by);
  expect([400, 403, 409, 422]).toContain(status);
}

const remove = (name = NAME, namespace = 'team') => admin('DELETE', `${secretsOf(namespace)}/${name}`);
const DATA = { [SECRET_KEY]: base64('{"auths":{"registry.example.com":{}}}') };
const OWNER = { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' };
const own = `f:${SECRET_LABEL.key}`;
/** An entry of managedFields as the API server writes it for what the refresher sends. */
const claim = (change: object = {}) => ({
  ...{ manager: PROVISION_FIELD_MANAGER, operation: 'Apply', apiVersion: 'v1', fieldsType: 'FieldsV1' },
  time: '2100-01-01T00:00:00Z',
  fieldsV1: { 'f:metadata': { 'f:labels': { [own]: {} } }, 'f:type': {} },
  ...change,
});

/** Secrets that must not be created, by apply or by POST. */
const ATTEMPTS = [
  { what: 'with data', body: empty({}, { data: DATA }) },
  { what: 'with other data', body: empty({}, { data: { other: base64('x') } }) },
  { what: 'with stringData', body: empty({}, { stringData: { [SECRET_KEY]: '{"auths":{}}' } }) },
  { what: 'with empty data', body: empty({}, { data: {} }) },
  { what: 'with a key of data that is null', body: empty({}, { data: { [SECRET_KEY]: null } }) },
  { what: 'with an annotation', body: empty({ annotations: { note: 'x' } }) },
  { what: 'with only', body: empty({ annotations: { [ANNOTATION.only]: 'public.ecr.aws' } }) },
  {
    what: 'with an expiry',
    body: empty({ annotations: { [ANNOTATION.expiresAt]: '2100-01-01T00:00:00Z' } }),
  },
  {
    what: 'with a request',
    body: empty({ annotations: { [ANNOTATION.requestedAt]: '2026-11-23T12:00:00Z' } }),
  },
  { what: 'with another label', body: empty({ labels: { [SECRET_LABEL.key]: 'true', app: 'x' } }) },
  { what: 'without the label', body: empty({ labels: {} }) },
  { what: 'with another value of the label', body: empty({ labels: { [SECRET_LABEL.key]: 'no' } }) },
  { what: 'with an owner', body: empty({ ownerReferences: [OWNER] }) },
  { what: 'with a finalizer', body: empty({ finalizers: ['example.com/keep'] }) },
  { what: 'with generateName', body: empty({ generateName: 'ecr-' }) },
  { what: 'that is immutable', body: empty({}, { immutable: true }) },
  { what: 'of type Opaque', body: empty({}, { type: 'Opaque' }) },
  {
    what: 'with the token of a ServiceAccount',
    body: empty(
      { annotations: { 'kubernetes.io/service-account.name': 'default' } },
      { type: 'kubernetes.io/service-account-token' },
    ),
  },
  { what: 'with managedFields reset, and data', body: empty({ managedFields: [{}] }, { data: DATA }) },
  { what: 'with managedFields reset', body: empty({ managedFields: [{}] }) },
  { what: 'with a claim to the fields, and data', body: empty({ managedFields: [claim()] }, { data: DATA }) },
  { what: 'with a claim to the fields', body: empty({ managedFields: [claim()] }) },
  {
    what: 'with data that another manager claims',
    body: empty(
      {
        managedFields: [
          claim({ manager: 'x', fieldsV1: { 'f:data': { '.': {}, [`f:${SECRET_KEY}`]: {} } } }),
        ],
      },
      { data: DATA },
    ),
  },
  {
    what: 'with so many managers that the API server merges them, and data',
    body: empty(
      {
        managedFields: [
          claim(),
          ...Array.from({ length: 12 }, (_, n) => claim({ manager: `m-${n}`, operation: 'Update' })),
        ],
      },
      { data: DATA },
    ),
  },
];

describe.each(IDENTITIES)('the refresher as %s', (identity) => {
  test('creates the Secret by server-side apply, and the webhook fills it', async () => {
    const answer = await send('apply', empty(), 'team', '', identity);
    expect(answer.status, answer.text).toBe(201);
    const { data, metadata, type } = JSON.parse((await admin('GET', `${secretsOf('team')}/${NAME}`)).text);
    expect(Buffer.from(data[SECRET_KEY], 'base64').toString()).toContain('.dkr.ecr.');
    expect(type).toBe(SECRET_TYPE);
    expect(metadata.annotations).toHaveProperty([ANNOTATION.fingerprint]);
    expect(metadata.managedFields).toHaveLength(1);

    // What it sends again changes nothing.
    const before = await stored();
    expect((await send('apply', empty(), 'team', '', identity)).status).toBe(200);
    expect(await stored()).toBe(before);
    await remove();
  });

  test('cannot create the Secret by POST, nor another one, by RBAC', async () => {
    await expectDenied(() => send('POST', empty(), 'team', '', identity), BY_RBAC);
    await expectDenied(() => send('POST', empty({ generateName: 'ecr' }), 'team', '', identity), BY_RBAC);
    // The API server calls the webhook before it asks RBAC about an apply.
    await expectDenied(() => send('apply', empty({ name: 'other' }), 'team', '', identity), BY_WEBHOOK);
    const other = empty({ name: 'other' }, { data: DATA });
    await expectDenied(() => send('apply', other, 'elsewhere', '', identity), BY_RBAC, 'elsewhere');
  });

  test.each(['elsewhere', 'kube-public'])(
    'cannot create it in namespace %s, which is not enabled or excluded',
    async (namespace) => {
      // Without data the API server would refuse it, because the webhook does not fill it there.
      const body = empty({}, { data: DATA });
      for (const one of [empty(), body])
        await expectDenied(
          () => send('apply', one, namespace, '', identity),
          /Policy 'ecr-anywhere-refresher-create-delete'|Required value/,
          namespace,
        );
    },
  );
});

describe('where a Secret of the name stands', () => {
  const LABELS = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  test.each([
    { what: 'without the label', change: { metadata: { name: NAME } } },
    { what: 'of type Opaque', change: { type: 'Opaque', data: {}, metadata: { name: NAME } } },
    {
      what: 'of type Opaque with the label',
      change: { type: 'Opaque', metadata: { name: NAME, labels: LABELS } },
    },
    { what: 'with the label', change: { metadata: { name: NAME, labels: LABELS } } },
  ])('the refresher changes nothing of one $what', async ({ change }) => {
    const secret = { apiVersion: 'v1', kind: 'Secret', type: SECRET_TYPE, data: DATA, ...change };
    // The webhook refuses the label on another type, so that Secret is older than the label of its namespace.
    const label = (value: string) =>
      cluster.kubectl(['label', 'namespace', 'team', '--overwrite', `${NAMESPACE_LABEL.key}=${value}`]);
    await label('no');
    await expect
      .poll(async () => (await admin('POST', `${secretsOf('team')}?dryRun=All`, secret)).status)
      .toBe(201);
    expect((await admin('POST', `${secretsOf('team')}?fieldManager=user`, secret)).status).toBe(201);
    await label(NAMESPACE_LABEL.value);
    await expect
      .poll(async () => (await send('apply', empty({ finalizers: ['example.com/x'] }))).text, POLLING)
      .toMatch(/sync\.ecr|conflict/);
    for (const query of ['', '&force=true'])
      await expectDenied(() => send('apply', empty(), 'team', query), /denied|conflict|field is immutable/);
    await remove();
  });
});

/** A MutatingAdmissionPolicy for all Secrets, in the place of other mutators of a cluster. */
async function startMutator(name: string, mutation: object): Promise<void> {
  const api = { apiVersion: 'admissionregistration.k8s.io/v1', metadata: { name } };
  const operations = ['CREATE', 'UPDATE'];
  const rule = { apiGroups: [''], apiVersions: ['v1'], operations, resources: ['secrets'] };
  const spec = {
    matchConstraints: { resourceRules: [rule] },
    reinvocationPolicy: 'Never',
    mutations: [mutation],
  };
  for (const object of [
    { ...api, kind: 'MutatingAdmissionPolicy', spec },
    { ...api, kind: 'MutatingAdmissionPolicyBinding', spec: { policyName: name } },
  ])
    await cluster.kubectl(['create', '--filename=-'], { input: JSON.stringify(object) });
}

async function stopMutator(name: string): Promise<void> {
  for (const kind of ['mutatingadmissionpolicybinding', 'mutatingadmissionpolicy'])
    await cluster.kubectl(['delete', kind, name]);
}

const STAMP = {
  patchType: 'ApplyConfiguration',
  applyConfiguration: {
    expression: `Object{metadata: Object.metadata{
      labels: {'team': 'x'}, annotations: {'example.com/seen': string(object.metadata.?resourceVersion.orValue('0'))}}}`,
  },
};
const FILL = {
  patchType: 'JSONPatch',
  jsonPatch: {
    expression: `(has(object.data) ? [] : [JSONPatch{op: 'add', path: '/data', value: {}}]) +
      (has(object.data) && '${SECRET_KEY}' in object.data ? [] :
      [JSONPatch{op: 'add', path: '/data/${SECRET_KEY}', value: '${base64('{"auths":{}}')}'}])`,
  },
};

withMutatingPolicies('with another mutator that stamps every Secret', () => {
  test('the refresher creates it and refreshes it', async () => {
    await startMutator('stamp', STAMP);
    await expect
      .poll(async () => (await send('apply', empty(), 'team', '&dryRun=All')).text, POLLING)
      .toContain('example.com/seen');
    expect((await send('apply', empty())).status).toBe(201);
    const path = `${secretsOf('team')}/${NAME}`;
    const call = callers.get(IDENTITIES[0]) ?? expect.fail();
    for (const time of ['2026-11-23T12:00:00Z', '2026-11-23T13:00:00Z']) {
      const body = annotate({ [ANNOTATION.requestedAt]: time, [ANNOTATION.force]: time });
      const answer = await call('PATCH', `${path}?fieldManager=${REFRESHER_FIELD_MANAGER}`, body, MERGE);
      expect(answer.status, answer.text).toBe(200);
    }
    await remove();
    await stopMutator('stamp');
    await expect
      .poll(async () => (await send('apply', empty(), 'team', '&dryRun=All')).text, POLLING)
      .not.toContain('example.com/seen');
  });
});

test.each(ATTEMPTS)(
  'with RBAC as the chart has it, the refresher cannot create one $what',
  async ({ body }) => {
    await expectDenied(() => send('apply', body), /denied|Conflict|managedFields|Invalid|invalid/);
  },
);

describe('with a role that allows every verb on Secrets, the webhook', () => {
  beforeAll(async () => {
    const subjects = [{ kind: 'Group', apiGroup: 'rbac.authorization.k8s.io', name: 'system:authenticated' }];
    const metadata = { name: 'too-much' };
    const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: metadata.name };
    const items = [
      { kind: 'ClusterRole', metadata, rules: [{ apiGroups: [''], resources: ['secrets'], verbs: ['*'] }] },
      { kind: 'ClusterRoleBinding', metadata, roleRef, subjects },
    ].map((item) => ({ apiVersion: 'rbac.authorization.k8s.io/v1', ...item }));
    await cluster.kubectl(['apply', '--filename=-'], {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }),
    });
    await vi.waitFor(async () => expect((await send('POST', empty())).text).not.toMatch(BY_RBAC), POLLING);
  });

  test.each([{ what: 'without anything else', body: empty() }, ...ATTEMPTS])(
    'denies to create one by POST $what',
    async ({ body }) => {
      // The API server sends the webhook only Secrets with the label. Others have no data, which their type requires.
      await expectDenied(() => send('POST', body), new RegExp(`${BY_WEBHOOK.source}|Required value`));
    },
  );

  test('denies to create one of another name', async () => {
    await expectDenied(() => send('apply', empty({ name: 'other' })), BY_WEBHOOK);
  });
});

describe('without the webhook, the write policy', () => {
  beforeAll(async () => {
    if (!IS_OLDEST_KUBERNETES)
      await cluster.kubectl(['delete', 'mutatingadmissionpolicybinding', `${RELEASE}-caller-proof`]);
    await cluster.kubectl(['delete', 'mutatingwebhookconfiguration', RELEASE]);
    const dryRun = () => send('apply', empty(), 'team', '&dryRun=All');
    await vi.waitFor(async () => expect((await dryRun()).text).toContain('Required value'), POLLING);
    // In the place of the webhook, because the API server refuses the type without data.
    if (IS_OLDEST_KUBERNETES) return;
    await startMutator('fill', FILL);
    await vi.waitFor(async () => expect((await dryRun()).status).toBe(201), POLLING);
  });

  test.each([
    { what: 'without anything else, by POST', body: empty(), how: 'POST' as const },
    { what: 'of another name', body: empty({ name: 'other' }), how: 'apply' as const },
    ...ATTEMPTS.flatMap(({ what, body }) =>
      (['apply', 'POST'] as const).map((how) => ({ what: `${what}, by ${how}`, body, how })),
    ),
  ])('denies to create one $what', async ({ body, how }) => {
    await expectDenied(
      () => send(how, body),
      // Kubernetes itself refuses managedFields in an apply, and a key without a value.
      new RegExp(
        `${BY_POLICY.source}|managedFields|Invalid value${IS_OLDEST_KUBERNETES ? '|Required value' : ''}`,
      ),
    );
  });

  test('denies to create it in namespaces that are not enabled or excluded', async () => {
    for (const namespace of ['elsewhere', 'kube-public', NAMESPACE])
      await expectDenied(() => send('apply', empty({}, { data: DATA }), namespace), BY_POLICY, namespace);
  });
});

test('with an empty value, the refresher may create no Secret', async () => {
  if (!IS_OLDEST_KUBERNETES) await stopMutator('fill');
  await webhook.upgrade({ provision: { secretName: '' } });
  const attempt = () => send('apply', empty({}, { data: DATA }), 'elsewhere');
  await expect
    .poll(async () => (await attempt()).text, POLLING)
    .toMatch(/may not create or delete Secrets\. /);
  await cluster.kubectl(['delete', 'clusterrolebinding', 'too-much']);
  await expect.poll(async () => (await attempt()).text, POLLING).toMatch(BY_RBAC);
});
