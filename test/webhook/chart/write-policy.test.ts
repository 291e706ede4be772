// The refresher's write fence, tried against a real API server: whatever its credential sends, only the mark arrives.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  REFRESHER_GROUP,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { CHART, helm } from '../../bed/helm.ts';
import {
  installWebhook,
  NAMESPACE,
  RELEASE,
  refresherKubeconfig,
  type WebhookInstallation,
} from '../../bed/webhook.ts';
import { type Call, type CallAnswer, callerOf } from '../caller.ts';
import {
  APPLY,
  annotate,
  base64,
  JSON_PATCH,
  MARK,
  MARKED,
  MERGE,
  markedAnd,
  PATCHES,
  pointer,
  pullSecret,
  REPLACEMENTS,
  type SecretBody,
  STRATEGIC,
} from './write-policy-attempts.ts';

const TEAM = 'team';
const IDENTITIES = ['ServiceAccount token', 'client certificate in the group'] as const;
const BY_RBAC = /cannot \w+ resource/;
const BY_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-refresher-(update|create-delete)'/;
const BY_WEBHOOK = /admission webhook .*sync\.ecr-anywhere\.centml\.ai.* denied/;
const BY_KUBERNETES = /field is immutable/;

let dir: string;
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let webhook: WebhookInstallation;
let admin: Call;
const callers = new Map<string, Call>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'fence-'));
  [cluster, ecr] = await Promise.all([startControlPlane({ name: 'fence', dir }), startAwsEndpoint()]);
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

const secretsOf = (namespace: string) => `/api/v1/namespaces/${namespace}/secrets`;

/** All Secrets of a namespace as they are stored: resource versions included, so that no write goes unseen. */
async function stored(namespace: string): Promise<string> {
  return JSON.stringify(JSON.parse((await admin('GET', secretsOf(namespace))).text).items);
}

async function annotationsOf(path: string): Promise<Record<string, string>> {
  return JSON.parse((await admin('GET', path)).text).metadata.annotations;
}

/** A Secret as the documentation recommends it, without data, and injected while the webhook was there. */
let recommended: string;

let count = 0;
/** Stores a new Secret as the administrator; its metadata are given without a name. @returns its path */
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

/** Stores one by server-side apply, as GitOps tools do. */
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

/** Expects that an attempt is refused by who should refuse it, and that nothing in the namespace has changed. */
async function expectRefused(
  namespace: string,
  attempt: () => Promise<CallAnswer>,
  ...refusals: RegExp[]
): Promise<void> {
  const before = await stored(namespace);
  const answer = await attempt();
  expect(await stored(namespace)).toBe(before);
  for (const refusal of refusals) expect(answer.text).toMatch(refusal);
  // 422 is what Kubernetes itself, and a policy whose expression failed, say.
  expect([403, 422]).toContain(answer.status);
}

describe('the chart', () => {
  test.each([
    { title: 'as it comes', values: [] },
    { title: 'with named namespaces', values: ['--set', `refresher.namespaces={${TEAM},elsewhere}`] },
  ])('is accepted field by field, $title', async ({ values }) => {
    const { stdout: input } = await helm([
      ...['template', RELEASE, CHART, '--namespace', NAMESPACE, '--kube-version', '1.36.3'],
      ...['--set', 'image.repository=registry.example.com/ecr-anywhere', '--set', 'aws.region=eu-central-1'],
      ...values,
    ]);
    const { stdout } = await cluster.kubectl(
      ['apply', '--dry-run=server', '--validate=strict', '--filename=-'],
      { input },
    );
    const rendered = input.match(/^kind: \w+$/gm) ?? [];
    expect(stdout.match(/created \(server dry run\)$/gm)?.length).toBe(rendered.length);
  });

  test('installs, and its policies come into force', async () => {
    webhook = await installWebhook(cluster, { ecrUrl: ecr.url });
    callers.set(IDENTITIES[0], await callerOf(await refresherKubeconfig(cluster)));
    callers.set(IDENTITIES[1], await callerOf(await cluster.kubeconfigFor('the-lambda', [REFRESHER_GROUP])));
    // The API server acts by new policies and webhooks after a second or two.
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

describe.each(IDENTITIES)('with the webhook, as %s', (identity) => {
  test("the mark arrives, and the webhook's credentials with it", async () => {
    const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
    const withoutData = await given(TEAM, { metadata: { labels }, data: undefined });
    for (const path of [withoutData, await given(TEAM), await applied()]) {
      for (const mark of [MARK, '2026-11-23T13:00:00Z']) {
        const before = await annotationsOf(path);
        const body = annotate({ [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: mark });
        const answer = await as(identity)('PATCH', path, body, MERGE);
        expect(answer.status, answer.text).toBe(200);
        const after = await annotationsOf(path);
        expect(after[ANNOTATION.requestedAt]).toBe(mark);
        expect(after[ANNOTATION.fingerprint]).not.toBe(before[ANNOTATION.fingerprint]);
      }
    }
  });

  test.each(PATCHES)('$what: refused', async ({ body, contentType = MERGE }) => {
    const path = await applied();
    await expectRefused(
      TEAM,
      () => as(identity)('PATCH', path, body, contentType),
      /The refresher may|change only together with a new|must be an RFC 3339 time|to 'google.protobuf.Timestamp'/,
    );
  });

  test('credentials along with the mark: refused by the webhook, which sees what was sent', async () => {
    const path = await given(TEAM);
    const data = { [SECRET_KEY]: base64('{"auths":{"registry.example.com":{}}}') };
    await expectRefused(TEAM, () => as(identity)('PATCH', path, markedAnd({}, { data }), MERGE), BY_WEBHOOK);
    const claims = markedAnd({
      annotations: { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.expiresAt]: '2026-11-24T00:00:00Z' },
    });
    await expectRefused(TEAM, () => as(identity)('PATCH', path, claims, MERGE), BY_WEBHOOK);
  });
});

test('without the webhook nothing but the policies stands between the refresher and what is stored', async () => {
  recommended = await given(TEAM, { data: undefined });
  await cluster.kubectl(['delete', 'mutatingwebhookconfiguration', RELEASE]);
  await vi.waitFor(
    async () => expect(await annotationsOf(await given(TEAM))).not.toHaveProperty([ANNOTATION.fingerprint]),
    { timeout: 20_000, interval: 200 },
  );
});

describe.each(IDENTITIES)('with the policies alone, as %s', (identity) => {
  test('the mark arrives, by every kind of patch', async () => {
    const path = `/metadata/annotations/${pointer(ANNOTATION.requestedAt)}`;
    const marks: [contentType: string, body: unknown][] = [
      [MERGE, MARKED],
      [STRATEGIC, MARKED],
      [JSON_PATCH, [{ op: 'add', path, value: MARK }]],
      [APPLY, { apiVersion: 'v1', kind: 'Secret', ...MARKED }],
      [MERGE, annotate({ [ANNOTATION.requestedAt]: MARK, [ANNOTATION.force]: MARK })],
      [MERGE, annotate({ [ANNOTATION.requestedAt]: '2026-11-23T12:00:00.123+01:00' })],
    ];
    for (const [contentType, body] of marks) {
      for (const secret of [await given(TEAM), await applied()]) {
        const query = contentType === APPLY ? '?fieldManager=refresher' : '';
        const answer = await as(identity)('PATCH', secret + query, body, contentType);
        expect(answer.status, answer.text).toBe(200);
        expect(await annotationsOf(secret)).toHaveProperty([ANNOTATION.requestedAt]);
      }
    }
  });

  test('a second mark arrives, even where somebody else applied the first', async () => {
    const path = await given(TEAM);
    const mine = { apiVersion: 'v1', kind: 'Secret', ...MARKED };
    expect((await admin('PATCH', `${path}?fieldManager=hand`, mine, APPLY)).status).toBe(200);
    for (const mark of ['2026-11-23T13:00:00Z', '2026-11-23T14:00:00Z']) {
      const answer = await as(identity)('PATCH', path, annotate({ [ANNOTATION.requestedAt]: mark }), MERGE);
      expect(answer.status, answer.text).toBe(200);
    }
  });

  test('it arrives where so many have written before that their managedFields are merged', async () => {
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
    for (const mark of [MARK, '2026-11-23T13:00:00Z']) {
      const answer = await as(identity)('PATCH', path, annotate({ [ANNOTATION.requestedAt]: mark }), MERGE);
      expect(answer.status, answer.text).toBe(200);
    }
  });

  test('it arrives on a Secret without annotations, and on one as large as Kubernetes allows', async () => {
    const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
    const bare = await given(TEAM, { metadata: { labels } });
    expect((await as(identity)('PATCH', bare, MARKED, MERGE)).status).toBe(200);
    // 1 MiB of data and 256 KiB of annotations: the policy's cost limit must leave room for both.
    const notes = Array.from({ length: 2_000 }, (_, n) => [`note-${n}`, 'x'.repeat(100)]);
    const data = {
      [SECRET_KEY]: base64(JSON.stringify({ auths: {}, padding: 'x'.repeat(500_000) })),
      other: base64('x'.repeat(500_000)),
    };
    const large = await given(TEAM, { metadata: { labels, annotations: Object.fromEntries(notes) }, data });
    const answer = await as(identity)('PATCH', large, MARKED, MERGE);
    expect(answer.status, answer.text.slice(0, 500)).toBe(200);
    await admin('DELETE', large);
  });

  test.each(PATCHES)('$what: refused', async ({ body, contentType = MERGE, refusal }) => {
    const path = await applied();
    await expectRefused(TEAM, () => as(identity)('PATCH', path, body, contentType), BY_POLICY, refusal);
  });

  test('credentials along with the mark: refused, for managedFields tell the caller from the webhook', async () => {
    const path = await applied();
    const data = { [SECRET_KEY]: base64('{"auths":{"registry.example.com":{}}}') };
    const attempt = () => as(identity)('PATCH', path, markedAnd({}, { data }), MERGE);
    await expectRefused(TEAM, attempt, BY_POLICY, /others have applied/);
    // Nor under the name of the manager that created the Secret, where that sent no data.
    const [{ manager }] = JSON.parse((await admin('GET', recommended)).text).metadata.managedFields;
    const query = `?fieldManager=${encodeURIComponent(manager)}`;
    const injected = () => as(identity)('PATCH', recommended + query, markedAnd({}, { data }), MERGE);
    await expectRefused(TEAM, injected, BY_POLICY, /claim/);
    const annotations = { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.expiresAt]: '2026-11-24T00:00:00Z' };
    const claim = () => as(identity)('PATCH', path, markedAnd({ annotations }), MERGE);
    await expectRefused(TEAM, claim, BY_POLICY, /claim|others have applied/);
  });

  test.each(REPLACEMENTS)('$what by server-side apply: refused', async ({ change, refusal }) => {
    const path = await given(TEAM);
    const body = pullSecret(`pull-${count}`, TEAM) as SecretBody;
    change(body);
    const apply = () => as(identity)('PATCH', `${path}?fieldManager=x&force=true`, body, APPLY);
    await expectRefused(TEAM, apply, BY_POLICY, refusal);
  });

  test.each([
    { where: 'an unmanaged Secret', namespace: TEAM, change: { metadata: { labels: { app: 'shop' } } } },
    { where: 'a Secret of another type', namespace: TEAM, change: { type: 'Opaque' } },
    { where: 'a namespace that is not enabled', namespace: 'elsewhere', change: {} },
    { where: 'kube-system', namespace: 'kube-system', change: {} },
    { where: 'kube-public', namespace: 'kube-public', change: {} },
    { where: "the release's namespace", namespace: NAMESPACE, change: {} },
  ])('the mark in $where: refused', async ({ namespace, change }) => {
    const path = await given(namespace, change);
    const refusal =
      /managed Secrets only|Secrets of type kubernetes.io\/dockerconfigjson|enabled namespaces only/;
    await expectRefused(namespace, () => as(identity)('PATCH', path, MARKED, MERGE), BY_POLICY, refusal);
    // Nor can the same request make it belong.
    const managed = markedAnd({ labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } });
    const typed = { ...managed, type: SECRET_TYPE };
    await expectRefused(namespace, () => as(identity)('PATCH', path, managed, MERGE), BY_POLICY);
    const refusals = namespace === TEAM && 'type' in change ? BY_KUBERNETES : BY_POLICY;
    await expectRefused(namespace, () => as(identity)('PATCH', path, typed, MERGE), refusals);
  });

  test("fields that are the API server's own: ignored or refused", async () => {
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

  test('another verb, or another resource: refused by RBAC', async () => {
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
    for (const attempt of attempts) await expectRefused(TEAM, () => as(identity)(...attempt), BY_RBAC);
  });
});

test("somebody else's role gives the refresher every right on Secrets", async () => {
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

describe.each(IDENTITIES)('with every right on Secrets, as %s', (identity) => {
  test('it creates nothing', async () => {
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
    for (const attempt of attempts) await expectRefused(TEAM, () => as(identity)(...attempt), BY_POLICY);
    await expectRefused(
      NAMESPACE,
      () => as(identity)('POST', secretsOf(NAMESPACE), { ...token, metadata: { ...token.metadata } }),
      BY_POLICY,
    );
  });

  test('it deletes nothing, one by one or all together', async () => {
    const path = await given(TEAM);
    await expectRefused(TEAM, () => as(identity)('DELETE', path), BY_POLICY);
    await expectRefused(TEAM, () => as(identity)('DELETE', secretsOf(TEAM)), BY_POLICY);
  });

  test('nor does it by the uid, which would be enough for the Secret that its tokens are bound to', async () => {
    const path = await given(TEAM);
    const { uid } = JSON.parse((await admin('GET', path)).text).metadata;
    await expectRefused(TEAM, () => as(identity)('DELETE', path, { preconditions: { uid } }), BY_POLICY);
  });

  test.each(REPLACEMENTS)('$what by PUT: refused', async ({ change, refusal }) => {
    const path = await given(TEAM);
    const body = pullSecret(`pull-${count}`, TEAM) as SecretBody;
    change(body);
    await expectRefused(TEAM, () => as(identity)('PUT', path, body), BY_POLICY, refusal);
  });

  test('the type: refused by Kubernetes, for everybody', async () => {
    const path = await given(TEAM);
    const other = pullSecret(`pull-${count}`, TEAM, { type: 'Opaque' });
    await expectRefused(TEAM, () => as(identity)('PUT', path, other), BY_KUBERNETES);
    await expectRefused(TEAM, () => as(identity)('PATCH', path, { type: 'Opaque' }, MERGE), BY_KUBERNETES);
  });
});

describe('the Secret that its tokens are bound to', () => {
  const BOUND_TO = `${RELEASE}-refresher-token`;
  const path = (name = BOUND_TO, namespace = NAMESPACE) => `${secretsOf(namespace)}/${name}`;
  const byUid = (uid: string) => ({ kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid } });
  const uidOf = async (secret: string): Promise<string> =>
    JSON.parse((await admin('GET', secret)).text).metadata.uid;
  const [account, member] = IDENTITIES;
  const selected = `fieldSelector=metadata.name=${BOUND_TO}`;

  beforeAll(async () => {
    // By the same name elsewhere, and beside it.
    const body = { apiVersion: 'v1', kind: 'Secret', metadata: { name: BOUND_TO } };
    expect((await admin('POST', secretsOf(TEAM), body)).status).toBe(201);
    const other = { ...body, metadata: { name: `${BOUND_TO}-2` } };
    expect((await admin('POST', secretsOf(NAMESPACE), other)).status).toBe(201);
  });

  test.each<{ what: string; as: string; path?: string; without?: 'uid' }>([
    { what: 'a member of the group deletes it', as: member },
    { what: 'a member of the group deletes it along with all', as: member, path: secretsOf(NAMESPACE) },
    { what: 'without saying which, as a look-alike may be there', as: account, without: 'uid' },
    { what: 'another Secret of the namespace', as: account, path: path(`${BOUND_TO}-2`) },
    { what: 'by its name in another namespace', as: account, path: path(BOUND_TO, TEAM) },
    { what: 'along with all others', as: account, path: secretsOf(NAMESPACE), without: 'uid' },
    { what: 'selected of all', as: account, path: `${secretsOf(NAMESPACE)}?${selected}`, without: 'uid' },
    { what: 'a dry run without the uid', as: account, path: `${path()}?dryRun=All`, without: 'uid' },
  ])('$what: refused', async ({ as: identity, path: at = path(), without }) => {
    const isOne = !at.includes('?') && at !== secretsOf(NAMESPACE);
    const uid = await uidOf(isOne ? at : path());
    const inTeam = await stored(TEAM);
    const attempt = () => as(identity)('DELETE', at, without ? undefined : byUid(uid));
    await expectRefused(NAMESPACE, attempt, BY_POLICY, /create nor delete/);
    expect(await stored(TEAM)).toBe(inTeam);
  });

  test('by the uid of another one: refused by Kubernetes, which compares them first', async () => {
    const uid = await uidOf(path(`${BOUND_TO}-2`));
    const before = await stored(NAMESPACE);
    expect((await as(account)('DELETE', path(), byUid(uid))).status).toBe(409);
    expect(await stored(NAMESPACE)).toBe(before);
  });

  test('the ServiceAccount deletes this very one, and cannot make it again; then it is out', async () => {
    const body = JSON.parse((await admin('GET', path())).text);
    const answer = await as(account)('DELETE', path(), byUid(body.metadata.uid));
    expect(answer.status, answer.text).toBe(200);
    expect((await admin('GET', path())).status).toBe(404);
    const { name, labels } = body.metadata;
    const again = { apiVersion: 'v1', kind: 'Secret', metadata: { name, labels }, immutable: true };
    await expectRefused(NAMESPACE, () => as(member)('POST', secretsOf(NAMESPACE), again), BY_POLICY);
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

test("credentials along with the mark pass the policies under another manager's name: they alone are not enough", async () => {
  const path = `${await given(TEAM)}?fieldManager=hand`;
  const data = (auths: object) => ({ data: { [SECRET_KEY]: base64(JSON.stringify({ auths })) } });
  expect((await admin('PATCH', path, data({ 'registry.example.com': {} }), MERGE)).status).toBe(200);
  const mine = markedAnd({}, data({ 'registry.example.org': {} }));
  const answer = await as(IDENTITIES[0])('PATCH', path, mine, MERGE);
  expect(answer.status, answer.text).toBe(200);
});

test('nobody else is held up', async () => {
  const path = await given(TEAM);
  const change = markedAnd({ labels: { extra: 'x' }, annotations: { note: 'changed' } });
  expect((await admin('PATCH', path, change, MERGE)).status).toBe(200);
  expect((await admin('DELETE', path)).status).toBe(200);
});
