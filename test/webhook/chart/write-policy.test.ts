// The refresher's write policy on a real API server: of all that the refresher's credential can send, the API server stores
// only refresh requests.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  REFRESHER_FIELD_MANAGER,
  REFRESHER_GROUP,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { CHART, helm } from '../../bed/helm.ts';
import { IS_OLDEST_KUBERNETES, KUBERNETES_VERSION } from '../../bed/toolchain.ts';
import {
  installWebhook,
  NAMESPACE,
  RELEASE,
  refresherKubeconfig,
  type WebhookInstallation,
} from '../../bed/webhook.ts';
import { type Call, type CallAnswer, callerOf } from '../caller.ts';
import { withMutatingPolicies } from '../mutating-policies.ts';
import {
  APPLY,
  annotate,
  base64,
  DENIALS,
  JSON_PATCH,
  MERGE,
  PATCHES,
  pointer,
  pullSecret,
  REPLACEMENTS,
  REQUEST,
  REQUESTED_AT,
  requestAnd,
  type SecretBody,
  STRATEGIC,
  secretsOf,
  storedIn,
} from './write-policy-attempts.ts';

const TEAM = 'team';
const IDENTITIES = ['ServiceAccount token', 'client certificate in the group'] as const;
// The oldest Kubernetes version gives no reason where server-side apply would create an object.
const BY_RBAC = IS_OLDEST_KUBERNETES ? /cannot \w+ resource|is forbidden: $/ : /cannot \w+ resource/;
const BY_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-refresher-(update|create-delete)'/;
const BY_WEBHOOK = /admission webhook .*sync\.ecr-anywhere\.centml\.ai.* denied/;
const BY_POLICY_OR_WEBHOOK = new RegExp(`${BY_POLICY.source}|${BY_WEBHOOK.source}`);
const BY_KUBERNETES = /field is immutable/;

let dir: string;
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let webhook: WebhookInstallation;
let admin: Call;
const callers = new Map<string, Call>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'write-policy-'));
  [cluster, ecr] = await Promise.all([startControlPlane({ name: 'write-policy', dir }), startAwsEndpoint()]);
  admin = await callerOf(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  for (const name of [NAMESPACE, TEAM, 'elsewhere']) await cluster.kubectl(['create', 'namespace', name]);
  for (const name of [NAMESPACE, TEAM, 'kube-system', 'kube-public']) {
    await cluster.kubectl(['label', 'namespace', name, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`]);
  }
});

afterAll(async () => {
  await webhook?.stop();
  await cluster?.stop();
  await ecr?.stop();
  await rm(dir, { recursive: true, force: true });
});

function as(identity: string): Call {
  const call = callers.get(identity);
  if (!call) throw new Error(`no caller for ${identity}`);
  return call;
}

const stored = (namespace: string) => storedIn(namespace, admin);

async function annotationsOf(path: string): Promise<Record<string, string>> {
  return JSON.parse((await admin('GET', path)).text).metadata.annotations;
}

/** Path of a Secret that was created without data, as the documentation recommends, and filled by the webhook. */
let createdWithoutData: string;

let count = 0;
/** Creates a Secret as the administrator; the name is added to the metadata. @returns its path */
async function given(
  namespace: string,
  change: { metadata?: object; [field: string]: unknown } = {},
): Promise<string> {
  count += 1;
  const secret = pullSecret(`pull-${count}`, namespace, {
    ...change,
    ...(change.metadata && { metadata: { ...change.metadata, name: `pull-${count}` } }),
  });
  const created = await admin('POST', secretsOf(namespace), secret);
  expect(created.status, created.text).toBe(201);
  return `${secretsOf(namespace)}/pull-${count}`;
}

/** Creates a Secret by server-side apply, as GitOps tools do. @returns its path */
async function applied(): Promise<string> {
  count += 1;
  const path = `${secretsOf(TEAM)}/pull-${count}`;
  const answer = await admin(
    'PATCH',
    `${path}?fieldManager=gitops`,
    pullSecret(`pull-${count}`, TEAM),
    APPLY,
  );
  expect(answer.status, answer.text).toBe(201);
  return path;
}

/** Expects that the named component denies a request, with this message, and that nothing in the namespace changes. */
async function expectDenied(
  namespace: string,
  attempt: () => Promise<CallAnswer>,
  by: RegExp,
  message = '',
): Promise<void> {
  const before = await stored(namespace);
  const answer = await attempt();
  expect(await stored(namespace)).toBe(before);
  const { message: denied } = JSON.parse(answer.text) as { message: string };
  expect(denied).toMatch(by);
  expect(denied).toContain(message);
  // Kubernetes itself, and a policy whose expression fails, answer 422.
  expect([403, 422]).toContain(answer.status);
}

describe('the chart', () => {
  test.each([
    { title: 'with every namespace', values: ['--set', 'refresher.namespaces={*}'] },
    { title: 'with refresher.namespaces', values: ['--set', `refresher.namespaces={${TEAM},elsewhere}`] },
  ])('passes strict validation $title', async ({ values }) => {
    const { stdout: input } = await helm([
      ...['template', RELEASE, CHART, '--namespace', NAMESPACE, '--kube-version', KUBERNETES_VERSION],
      ...['--set', 'image.repository=registry.example.com/ecr-anywhere', '--set', 'aws.region=eu-central-1'],
      ...['--set', 'ownRegistry.namespaces={*}'],
      ...values,
    ]);
    const { stdout } = await cluster.kubectl(
      ['apply', '--dry-run=server', '--validate=strict', '--filename=-'],
      { input },
    );
    const rendered = input.match(/^kind: \w+$/gm) ?? [];
    expect(stdout.match(/created \(server dry run\)$/gm)?.length).toBe(rendered.length);
  });

  test('installs, and the API server enforces its policies', async () => {
    webhook = await installWebhook(cluster, { ecrUrl: ecr.url });
    callers.set(IDENTITIES[0], await callerOf(await refresherKubeconfig(cluster)));
    callers.set(IDENTITIES[1], await callerOf(await cluster.kubeconfigFor('the-lambda', [REFRESHER_GROUP])));
    // The API server uses new policies and webhooks after a second or two.
    const path = await given('elsewhere');
    await vi.waitFor(
      async () => {
        const change = { metadata: { labels: { extra: String(Date.now()) } } };
        expect((await as(IDENTITIES[0])('PATCH', path, change, MERGE)).text).toMatch(BY_POLICY);
        expect(await annotationsOf(await given(TEAM))).toHaveProperty([ANNOTATION.fingerprint]);
      },
      { timeout: 20_000, interval: 200 },
    );
  });
});

test('the write policies have these messages, each with the reason Forbidden', async () => {
  const policies = await Promise.all(
    ['update', 'create-delete'].map(async (name) => {
      const path = `/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies/${RELEASE}-refresher-${name}`;
      return JSON.parse((await admin('GET', path)).text) as {
        spec: { validations: { message: string; reason: string }[] };
      };
    }),
  );
  const validations = policies.flatMap(({ spec }) => spec.validations);
  expect(validations.map(({ message, reason }) => ({ message, reason }))).toEqual(
    Object.values(DENIALS).map((message) => ({ message, reason: 'Forbidden' })),
  );
});

describe.each(IDENTITIES)('with webhook and policies, the refresher as %s', (identity) => {
  test('may request a refresh, which stores new credentials', async () => {
    const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
    const withoutData = await given(TEAM, { metadata: { labels }, data: undefined });
    for (const [hour, path] of [withoutData, await given(TEAM), await applied()].entries()) {
      // Each mark is another: the webhook takes equal marks of one user for one run, which shares a token.
      for (const time of [`2026-11-23T1${hour}:00:00Z`, `2026-11-23T1${hour}:30:00Z`]) {
        const before = await annotationsOf(path);
        const body = annotate({ [ANNOTATION.requestedAt]: time, [ANNOTATION.force]: time });
        const answer = await as(identity)('PATCH', path, body, MERGE);
        expect(answer.status, answer.text).toBe(200);
        const after = await annotationsOf(path);
        expect(after[ANNOTATION.requestedAt]).toBe(time);
        expect(after[ANNOTATION.fingerprint]).not.toBe(before[ANNOTATION.fingerprint]);
      }
    }
  });

  test.each(PATCHES)('is not allowed $what', async ({ body, contentType = MERGE }) => {
    const path = await applied();
    const attempt = () => as(identity)('PATCH', path, body, contentType);
    await expectDenied(TEAM, attempt, BY_POLICY_OR_WEBHOOK);
  });

  test('is not allowed by the webhook to send credentials together with a request', async () => {
    const path = await given(TEAM);
    const data = { [SECRET_KEY]: base64('{"auths":{"registry.example.com":{}}}') };
    await expectDenied(TEAM, () => as(identity)('PATCH', path, requestAnd({}, { data }), MERGE), BY_WEBHOOK);
    const withExpiry = requestAnd({
      annotations: { [ANNOTATION.requestedAt]: REQUESTED_AT, [ANNOTATION.expiresAt]: '2026-11-24T00:00:00Z' },
    });
    await expectDenied(TEAM, () => as(identity)('PATCH', path, withExpiry, MERGE), BY_WEBHOOK);
  });
});

const MUTATOR = 'stamp';
const FIELD_MANAGER = `fieldManager=${REFRESHER_FIELD_MANAGER}`;

/** Creates a MutatingAdmissionPolicy for every Secret, and waits until the API server applies it. */
async function startMutator(applyConfiguration: string): Promise<void> {
  const api = { apiVersion: 'admissionregistration.k8s.io/v1' };
  const rule = { apiGroups: [''], apiVersions: ['v1'], operations: ['UPDATE'], resources: ['secrets'] };
  const policy = {
    ...api,
    kind: 'MutatingAdmissionPolicy',
    metadata: { name: MUTATOR },
    spec: {
      matchConstraints: { resourceRules: [rule] },
      reinvocationPolicy: 'Never',
      mutations: [
        { patchType: 'ApplyConfiguration', applyConfiguration: { expression: applyConfiguration } },
      ],
    },
  };
  const binding = {
    ...api,
    kind: 'MutatingAdmissionPolicyBinding',
    metadata: { name: MUTATOR },
    spec: { policyName: MUTATOR },
  };
  for (const object of [policy, binding])
    await cluster.kubectl(['create', '--filename=-'], { input: JSON.stringify(object) });
  const before = await given(TEAM);
  await vi.waitFor(
    async () => {
      const { text } = await admin('PATCH', `${before}?dryRun=All`, annotate({ seen: 'x' }), MERGE);
      expect(text).toContain('of-a-mutator');
    },
    { timeout: 20_000, interval: 200 },
  );
}

async function stopMutator(): Promise<void> {
  for (const kind of ['mutatingadmissionpolicybinding', 'mutatingadmissionpolicy'])
    await cluster.kubectl(['delete', kind, MUTATOR]);
  const path = await given(TEAM);
  await vi.waitFor(
    async () => {
      const { text } = await admin('PATCH', `${path}?dryRun=All`, annotate({ seen: 'x' }), MERGE);
      expect(text).not.toContain('of-a-mutator');
    },
    { timeout: 20_000, interval: 200 },
  );
}

const STAMP = `Object{metadata: Object.metadata{
  labels: {'team': 'of-a-mutator'}, annotations: {'example.com/seen': string(oldObject.metadata.resourceVersion)}}}`;

withMutatingPolicies('with another mutator that stamps a label and an annotation on every Secret', () => {
  beforeAll(() => startMutator(STAMP));
  afterAll(() => stopMutator());

  test.each(IDENTITIES)('the refresher as %s may request a refresh', async (identity) => {
    for (const [hour, path] of [await given(TEAM), await applied()].entries()) {
      const before = await annotationsOf(path);
      const time = `2026-11-23T2${hour}:0${IDENTITIES.indexOf(identity)}:00Z`;
      const request = annotate({ [ANNOTATION.requestedAt]: time, [ANNOTATION.force]: time });
      const answer = await as(identity)('PATCH', `${path}?${FIELD_MANAGER}`, request, MERGE);
      expect(answer.status, answer.text).toBe(200);
      expect(JSON.parse(answer.text).metadata.labels).toMatchObject({ team: 'of-a-mutator' });
      expect(await annotationsOf(path)).not.toHaveProperty(
        [ANNOTATION.fingerprint],
        before[ANNOTATION.fingerprint],
      );
    }
  });

  test.each(PATCHES)('the refresher is not allowed $what', async ({ body, contentType = MERGE }) => {
    const path = await applied();
    for (const query of ['', `?${FIELD_MANAGER}`])
      await expectDenied(
        TEAM,
        () => as(IDENTITIES[0])('PATCH', path + query, body, contentType),
        BY_POLICY_OR_WEBHOOK,
      );
  });

  test.each(REPLACEMENTS)('the refresher is not allowed $what by server-side apply', async ({ change }) => {
    const path = await given(TEAM);
    const body = pullSecret(`pull-${count}`, TEAM) as SecretBody;
    change(body);
    const apply = () => as(IDENTITIES[0])('PATCH', `${path}?${FIELD_MANAGER}&force=true`, body, APPLY);
    await expectDenied(TEAM, apply, BY_POLICY_OR_WEBHOOK);
  });

  // The API server merges the oldest entries into one, whose fields the write policy does not judge.
  test('the refresher is not allowed to hide a label in merged managedFields', async () => {
    const path = await given(TEAM);
    const others = Array.from({ length: 12 }, (_, n) => ({
      manager: `manager-${n}`,
      operation: 'Update',
      apiVersion: 'v1',
      time: '2100-01-01T00:00:00Z',
      fieldsType: 'FieldsV1',
      fieldsV1: { 'f:metadata': { 'f:annotations': { 'f:note': {} } } },
    }));
    const body = requestAnd({ labels: { app: 'mine' }, managedFields: others });
    const attempt = () => as(IDENTITIES[0])('PATCH', `${path}?${FIELD_MANAGER}`, body, MERGE);
    await expectDenied(TEAM, attempt, BY_POLICY_OR_WEBHOOK);
  });
});

withMutatingPolicies('with another mutator that adds a finalizer', () => {
  beforeAll(() =>
    startMutator("Object{metadata: Object.metadata{finalizers: ['example.com/of-a-mutator']}}"),
  );
  afterAll(() => stopMutator());

  test('the refusal of a refresh says that another mutator may be the cause', async () => {
    const path = await given(TEAM);
    const attempt = () => as(IDENTITIES[0])('PATCH', `${path}?${FIELD_MANAGER}`, REQUEST, MERGE);
    await expectDenied(TEAM, attempt, BY_WEBHOOK, 'If another mutating webhook or policy made the change');
  });
});

test('after its configuration is deleted, the API server calls the webhook no more', async () => {
  createdWithoutData = await given(TEAM, { data: undefined });
  // Otherwise the API server would store no managed Secret without the webhook.
  if (!IS_OLDEST_KUBERNETES)
    await cluster.kubectl(['delete', 'mutatingadmissionpolicybinding', `${RELEASE}-caller-proof`]);
  await cluster.kubectl(['delete', 'mutatingwebhookconfiguration', RELEASE]);
  await vi.waitFor(
    async () => expect(await annotationsOf(await given(TEAM))).not.toHaveProperty([ANNOTATION.fingerprint]),
    { timeout: 20_000, interval: 200 },
  );
});

describe.each(IDENTITIES)('with the policies alone, the refresher as %s', (identity) => {
  test('may request a refresh by every kind of patch', async () => {
    const path = `/metadata/annotations/${pointer(ANNOTATION.requestedAt)}`;
    const requests: [contentType: string, body: unknown][] = [
      [MERGE, REQUEST],
      [STRATEGIC, REQUEST],
      [JSON_PATCH, [{ op: 'add', path, value: REQUESTED_AT }]],
      [APPLY, { apiVersion: 'v1', kind: 'Secret', ...REQUEST }],
      [MERGE, annotate({ [ANNOTATION.requestedAt]: REQUESTED_AT, [ANNOTATION.force]: REQUESTED_AT })],
      [MERGE, annotate({ [ANNOTATION.requestedAt]: '2026-11-23T12:00:00.123+01:00' })],
    ];
    for (const [contentType, body] of requests) {
      for (const secret of [await given(TEAM), await applied()]) {
        const query = contentType === APPLY ? '?fieldManager=refresher' : '';
        const answer = await as(identity)('PATCH', secret + query, body, contentType);
        expect(answer.status, answer.text).toBe(200);
        expect(await annotationsOf(secret)).toHaveProperty([ANNOTATION.requestedAt]);
      }
    }
  });

  test('may request again when another manager applied the first request', async () => {
    const path = await given(TEAM);
    const request = { apiVersion: 'v1', kind: 'Secret', ...REQUEST };
    expect((await admin('PATCH', `${path}?fieldManager=hand`, request, APPLY)).status).toBe(200);
    for (const time of ['2026-11-23T13:00:00Z', '2026-11-23T14:00:00Z']) {
      const answer = await as(identity)('PATCH', path, annotate({ [ANNOTATION.requestedAt]: time }), MERGE);
      expect(answer.status, answer.text).toBe(200);
    }
  });

  test('may request a refresh when the API server has merged the managedFields of many managers', async () => {
    const path = await given(TEAM);
    for (let n = 0; n < 12; n += 1) {
      const answer = await admin(
        'PATCH',
        `${path}?fieldManager=hand-${n}`,
        annotate({ [`note-${n}`]: 'x' }),
        MERGE,
      );
      expect(answer.status, answer.text).toBe(200);
    }
    for (const time of [REQUESTED_AT, '2026-11-23T13:00:00Z']) {
      const answer = await as(identity)('PATCH', path, annotate({ [ANNOTATION.requestedAt]: time }), MERGE);
      expect(answer.status, answer.text).toBe(200);
    }
  });

  test('may request a refresh of a Secret without annotations, and of the largest that Kubernetes allows', async () => {
    const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
    const bare = await given(TEAM, { metadata: { labels } });
    expect((await as(identity)('PATCH', bare, REQUEST, MERGE)).status).toBe(200);
    // 1 MiB of data and 256 KiB of annotations: the policy's cost limit must leave room for both.
    const notes = Array.from({ length: 2_000 }, (_, n) => [`note-${n}`, 'x'.repeat(100)]);
    const data = {
      [SECRET_KEY]: base64(JSON.stringify({ auths: {}, padding: 'x'.repeat(500_000) })),
      other: base64('x'.repeat(500_000)),
    };
    const large = await given(TEAM, { metadata: { labels, annotations: Object.fromEntries(notes) }, data });
    const answer = await as(identity)('PATCH', large, REQUEST, MERGE);
    expect(answer.status, answer.text.slice(0, 500)).toBe(200);
    await admin('DELETE', large);
  });

  test.each(PATCHES)('is not allowed $what', async ({ body, contentType = MERGE, denial }) => {
    const path = await applied();
    await expectDenied(TEAM, () => as(identity)('PATCH', path, body, contentType), BY_POLICY, denial);
  });

  test('is not allowed to send credentials together with a request, because managedFields record the caller', async () => {
    const path = await applied();
    const data = { [SECRET_KEY]: base64('{"auths":{"registry.example.com":{}}}') };
    const attempt = () => as(identity)('PATCH', path, requestAnd({}, { data }), MERGE);
    await expectDenied(TEAM, attempt, BY_POLICY, DENIALS.applied);
    // The name of the manager that created the Secret does not help, because it sent no data.
    const [{ manager }] = JSON.parse((await admin('GET', createdWithoutData)).text).metadata.managedFields;
    const query = `?fieldManager=${encodeURIComponent(manager)}`;
    const injected = () => as(identity)('PATCH', createdWithoutData + query, requestAnd({}, { data }), MERGE);
    await expectDenied(TEAM, injected, BY_POLICY, DENIALS.ownership);
    const annotations = {
      [ANNOTATION.requestedAt]: REQUESTED_AT,
      [ANNOTATION.expiresAt]: '2026-11-24T00:00:00Z',
    };
    const withExpiry = () => as(identity)('PATCH', path, requestAnd({ annotations }), MERGE);
    await expectDenied(TEAM, withExpiry, BY_POLICY, DENIALS.applied);
  });

  test.each(REPLACEMENTS)('is not allowed $what by server-side apply', async ({ change, denial }) => {
    const path = await given(TEAM);
    const body = pullSecret(`pull-${count}`, TEAM) as SecretBody;
    change(body);
    const apply = () => as(identity)('PATCH', `${path}?fieldManager=x&force=true`, body, APPLY);
    await expectDenied(TEAM, apply, BY_POLICY, denial);
  });

  test.each([
    {
      where: 'an unmanaged Secret',
      namespace: TEAM,
      change: { metadata: { labels: { app: 'shop' } } },
      denial: DENIALS.managed,
    },
    { where: 'a Secret of another type', namespace: TEAM, change: { type: 'Opaque' }, denial: DENIALS.type },
    ...['elsewhere', 'kube-system', 'kube-public', NAMESPACE].map((namespace) => ({
      where: `a Secret in namespace ${namespace}, which is not enabled or excluded`,
      namespace,
      change: {},
      denial: DENIALS.namespace,
    })),
  ])('is not allowed to request a refresh of $where', async ({ namespace, change, denial }) => {
    const path = await given(namespace, change);
    await expectDenied(namespace, () => as(identity)('PATCH', path, REQUEST, MERGE), BY_POLICY, denial);
    // The same request cannot make the Secret a managed one.
    const managed = requestAnd({ labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } });
    const typed = { ...managed, type: SECRET_TYPE };
    await expectDenied(namespace, () => as(identity)('PATCH', path, managed, MERGE), BY_POLICY);
    const by = namespace === TEAM && 'type' in change ? BY_KUBERNETES : BY_POLICY;
    await expectDenied(namespace, () => as(identity)('PATCH', path, typed, MERGE), by);
  });

  test('cannot change the fields that the API server sets', async () => {
    const path = await given(TEAM);
    const before = await stored(TEAM);
    for (const [field, value] of Object.entries({
      name: 'other',
      namespace: 'elsewhere',
      uid: '6d5f3a1e-0000-4000-8000-000000000000',
      generation: 7,
      selfLink: '/x',
      creationTimestamp: '2020-01-01T00:00:00Z',
      deletionTimestamp: '2020-01-01T00:00:00Z',
      deletionGracePeriodSeconds: 0,
      clusterName: 'x',
    }))
      await as(identity)('PATCH', path, { metadata: { [field]: value } }, MERGE);
    expect(await stored(TEAM)).toBe(before);
  });

  test('is not allowed another verb or another resource by RBAC', async () => {
    const path = await given(TEAM);
    const one = pullSecret('new', TEAM);
    const team = `/api/v1/namespaces/${TEAM}`;
    const accounts = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts`;
    const admission = '/apis/admissionregistration.k8s.io/v1';
    const rules = [{ apiGroups: [''], resources: ['secrets'], verbs: ['*'] }];
    const attempts: Parameters<Call>[] = [
      ['GET', path],
      ['GET', `${team}/secrets?watch=1`],
      ['PUT', path, one],
      ['POST', `${team}/secrets`, one],
      ['DELETE', path],
      ['DELETE', `${team}/secrets`],
      ['PATCH', `${team}/secrets/new?fieldManager=x&force=true`, one, APPLY],
      ['GET', team],
      ['PATCH', team, { metadata: { labels: null } }, MERGE],
      ['DELETE', team],
      ['GET', `${team}/configmaps`],
      ['POST', `${team}/configmaps`, { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'x' } }],
      ['GET', `${team}/pods`],
      ['POST', `${accounts}/${RELEASE}/token`, {}],
      ['GET', `${admission}/mutatingwebhookconfigurations`],
      ['DELETE', `${admission}/validatingadmissionpolicies/${RELEASE}-refresher-update`],
      ['DELETE', `${admission}/validatingadmissionpolicybindings/${RELEASE}-refresher-update`],
      ['PATCH', `/apis/rbac.authorization.k8s.io/v1/clusterroles/${RELEASE}-refresher`, { rules }, MERGE],
    ];
    for (const attempt of attempts) await expectDenied(TEAM, () => as(identity)(...attempt), BY_RBAC);
  });
});

test('another role grants the refresher every verb on Secrets', async () => {
  const subjects = [
    { kind: 'ServiceAccount', name: `${RELEASE}-refresher`, namespace: NAMESPACE },
    { kind: 'Group', apiGroup: 'rbac.authorization.k8s.io', name: REFRESHER_GROUP },
  ];
  const metadata = { name: 'too-much' };
  const roleRef = { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: metadata.name };
  const items = [
    { kind: 'ClusterRole', metadata, rules: [{ apiGroups: [''], resources: ['secrets'], verbs: ['*'] }] },
    { kind: 'ClusterRoleBinding', metadata, roleRef, subjects },
  ].map((item) => ({ apiVersion: 'rbac.authorization.k8s.io/v1', ...item }));
  const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items });
  await cluster.kubectl(['apply', '--filename=-'], { input });
  const path = await given(TEAM);
  for (const identity of IDENTITIES) {
    await vi.waitFor(async () => expect((await as(identity)('GET', path)).status).toBe(200), 20_000);
  }
});

describe.each(IDENTITIES)('with every verb on Secrets, the refresher as %s', (identity) => {
  test('is not allowed to create a Secret', async () => {
    const one = pullSecret('new', TEAM);
    const token = {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'kubernetes.io/service-account-token',
      metadata: { name: 'token', annotations: { 'kubernetes.io/service-account.name': RELEASE } },
    };
    const attempts: Parameters<Call>[] = [
      ['POST', secretsOf(TEAM), one],
      ['POST', secretsOf(TEAM), { ...one, type: 'Opaque' }],
      ['POST', secretsOf(TEAM), { ...token, metadata: { ...token.metadata, namespace: TEAM } }],
      ['PATCH', `${secretsOf(TEAM)}/new?fieldManager=x`, one, APPLY],
    ];
    for (const attempt of attempts) await expectDenied(TEAM, () => as(identity)(...attempt), BY_POLICY);
    await expectDenied(
      NAMESPACE,
      () => as(identity)('POST', secretsOf(NAMESPACE), { ...token, metadata: { ...token.metadata } }),
      BY_POLICY,
    );
  });

  test('is not allowed to delete one Secret or all of them', async () => {
    const path = await given(TEAM);
    await expectDenied(TEAM, () => as(identity)('DELETE', path), BY_POLICY);
    await expectDenied(TEAM, () => as(identity)('DELETE', secretsOf(TEAM)), BY_POLICY);
  });

  test('is not allowed to delete another Secret by its uid', async () => {
    const path = await given(TEAM);
    const { uid } = JSON.parse((await admin('GET', path)).text).metadata;
    await expectDenied(TEAM, () => as(identity)('DELETE', path, { preconditions: { uid } }), BY_POLICY);
  });

  test.each(REPLACEMENTS)('is not allowed $what by PUT', async ({ change, denial }) => {
    const path = await given(TEAM);
    const body = pullSecret(`pull-${count}`, TEAM) as SecretBody;
    change(body);
    await expectDenied(TEAM, () => as(identity)('PUT', path, body), BY_POLICY, denial);
  });

  test('cannot change the type of a Secret, which Kubernetes allows no caller', async () => {
    const path = await given(TEAM);
    const other = pullSecret(`pull-${count}`, TEAM, { type: 'Opaque' });
    await expectDenied(TEAM, () => as(identity)('PUT', path, other), BY_KUBERNETES);
    await expectDenied(TEAM, () => as(identity)('PATCH', path, { type: 'Opaque' }, MERGE), BY_KUBERNETES);
  });
});

describe("the Secret that the refresher's tokens are bound to", () => {
  const BOUND_TO = `${RELEASE}-refresher-token`;
  const path = (name = BOUND_TO, namespace = NAMESPACE) => `${secretsOf(namespace)}/${name}`;
  const byUid = (uid: string) => ({ kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid } });
  const uidOf = async (secret: string): Promise<string> =>
    JSON.parse((await admin('GET', secret)).text).metadata.uid;
  const [account, member] = IDENTITIES;
  const selected = `fieldSelector=metadata.name=${BOUND_TO}`;

  beforeAll(async () => {
    // One with the same name in another namespace, and one with another name in the same namespace.
    const body = { apiVersion: 'v1', kind: 'Secret', metadata: { name: BOUND_TO } };
    expect((await admin('POST', secretsOf(TEAM), body)).status).toBe(201);
    const other = { ...body, metadata: { name: `${BOUND_TO}-2` } };
    expect((await admin('POST', secretsOf(NAMESPACE), other)).status).toBe(201);
  });

  test.each<{ what: string; as: string; path?: string; without?: 'uid' }>([
    { what: 'for a member of the group', as: member },
    {
      what: 'for a member of the group, together with all others',
      as: member,
      path: secretsOf(NAMESPACE),
      without: 'uid',
    },
    { what: 'without its uid', as: account, without: 'uid' },
    { what: 'when another Secret of the namespace is named', as: account, path: path(`${BOUND_TO}-2`) },
    {
      what: 'when a Secret of this name in another namespace is named',
      as: account,
      path: path(BOUND_TO, TEAM),
    },
    { what: 'together with all others', as: account, path: secretsOf(NAMESPACE), without: 'uid' },
    { what: 'by a field selector', as: account, path: `${secretsOf(NAMESPACE)}?${selected}`, without: 'uid' },
    { what: 'in a dry run without its uid', as: account, path: `${path()}?dryRun=All`, without: 'uid' },
  ])('cannot be deleted $what', async ({ as: identity, path: at = path(), without }) => {
    const isOne = !at.includes('?') && at !== secretsOf(NAMESPACE);
    const uid = await uidOf(isOne ? at : path());
    const inTeam = await stored(TEAM);
    const attempt = () => as(identity)('DELETE', at, without ? undefined : byUid(uid));
    await expectDenied(NAMESPACE, attempt, BY_POLICY, DENIALS.createOrDelete);
    expect(await stored(TEAM)).toBe(inTeam);
  });

  test('cannot be deleted by the uid of another Secret, which Kubernetes compares first', async () => {
    const uid = await uidOf(path(`${BOUND_TO}-2`));
    const before = await stored(NAMESPACE);
    expect((await as(account)('DELETE', path(), byUid(uid))).status).toBe(409);
    expect(await stored(NAMESPACE)).toBe(before);
  });

  test('can be deleted by the ServiceAccount, which then has no valid token and cannot create it again', async () => {
    const body = JSON.parse((await admin('GET', path())).text);
    const answer = await as(account)('DELETE', path(), byUid(body.metadata.uid));
    expect(answer.status, answer.text).toBe(200);
    expect((await admin('GET', path())).status).toBe(404);
    const { name, labels } = body.metadata;
    const again = { apiVersion: 'v1', kind: 'Secret', metadata: { name, labels }, immutable: true };
    await expectDenied(NAMESPACE, () => as(member)('POST', secretsOf(NAMESPACE), again), BY_POLICY);
    expect([401, 403]).toContain((await as(account)('POST', secretsOf(NAMESPACE), again)).status);
    expect((await admin('GET', path())).status).toBe(404);
    await vi.waitFor(
      async () => expect((await as(account)('GET', '/api/v1/namespaces?limit=1')).status).toBe(401),
      { timeout: 30_000, interval: 500 },
    );
    const token = await refresherKubeconfig(cluster).catch((error: Error) => error);
    expect(String(token)).toContain('not found');
    expect((await admin('POST', secretsOf(NAMESPACE), again)).status).toBe(201);
    callers.set(account, await callerOf(await refresherKubeconfig(cluster)));
    expect((await as(account)('GET', '/api/v1/namespaces?limit=1')).status).toBe(200);
  });
});

test("credentials sent with a request under another manager's name pass the policies, so the webhook is needed too", async () => {
  const path = `${await given(TEAM)}?fieldManager=hand`;
  const data = (auths: object) => ({ data: { [SECRET_KEY]: base64(JSON.stringify({ auths })) } });
  expect((await admin('PATCH', path, data({ 'registry.example.com': {} }), MERGE)).status).toBe(200);
  const request = requestAnd({}, data({ 'registry.example.org': {} }));
  const answer = await as(IDENTITIES[0])('PATCH', path, request, MERGE);
  expect(answer.status, answer.text).toBe(200);
});

test('other callers are not affected', async () => {
  const path = await given(TEAM);
  const change = requestAnd({ labels: { extra: 'x' }, annotations: { note: 'changed' } });
  expect((await admin('PATCH', path, change, MERGE)).status).toBe(200);
  expect((await admin('DELETE', path)).status).toBe(200);
});
