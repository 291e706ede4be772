// Attacks on the write policy through managedFields, which a caller can send with any patch. Each of them worked once, on a
// real API server with the webhook.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  REFRESHER_FIELD_MANAGER,
  SECRET_KEY,
  SECRET_LABEL,
} from '../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
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
  DENIALS,
  MERGE,
  pullSecret,
  REQUEST,
  REQUESTED_AT,
  requestAnd,
  type SecretBody,
} from './write-policy-attempts.ts';

interface Entry {
  readonly manager: string;
  readonly operation: string;
  readonly [field: string]: unknown;
}

const TEAM = 'team';
const SECRETS = `/api/v1/namespaces/${TEAM}/secrets`;
const AS_REFRESHER = `?fieldManager=${REFRESHER_FIELD_MANAGER}`;
const REQUESTED = `f:${ANNOTATION.requestedAt}`;

let dir: string;
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let webhook: WebhookInstallation;
let admin: Call;
let thief: Call;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'write-policy-'));
  [cluster, ecr] = await Promise.all([startControlPlane({ name: 'fields', dir }), startAwsEndpoint()]);
  admin = await callerOf(await readFile(cluster.adminKubeconfigPath, 'utf8'));
  for (const name of [NAMESPACE, TEAM]) await cluster.kubectl(['create', 'namespace', name]);
  await cluster.kubectl(['label', 'namespace', TEAM, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`]);
  webhook = await installWebhook(cluster, { ecrUrl: ecr.url });
  thief = await callerOf(await refresherKubeconfig(cluster));
  const path = await given();
  await vi.waitFor(
    async () => {
      const change = { metadata: { labels: { extra: String(Date.now()) } } };
      expect((await thief('PATCH', path, change, MERGE)).status).toBe(403);
    },
    { timeout: 20_000, interval: 200 },
  );
});
afterAll(async () => {
  await webhook?.stop();
  await cluster?.stop();
  await ecr?.stop();
  await rm(dir, { recursive: true, force: true });
});

let count = 0;
/** Creates a managed Secret, whose fields the manager `creator` owns. @returns its path */
async function given(change: object = {}): Promise<string> {
  count += 1;
  const answer = await admin(
    'POST',
    `${SECRETS}?fieldManager=creator`,
    pullSecret(`pull-${count}`, TEAM, change),
  );
  expect(answer.status, answer.text).toBe(201);
  return `${SECRETS}/pull-${count}`;
}

async function applied(): Promise<string> {
  count += 1;
  const path = `${SECRETS}/pull-${count}`;
  await gitopsApplies(path);
  return path;
}

async function gitopsApplies(path: string, app = 'shop'): Promise<void> {
  const body = pullSecret(path.split('/').at(-1) ?? '', TEAM) as SecretBody;
  Object.assign(body.metadata.labels, { app });
  const answer = await admin('PATCH', `${path}?fieldManager=gitops`, body, APPLY);
  expect([200, 201], answer.text).toContain(answer.status);
}

const get = async (path: string) => JSON.parse((await admin('GET', path)).text);
const entriesOf = async (path: string): Promise<Entry[]> => (await get(path)).metadata.managedFields;

const entry = (manager: string, fieldsV1: object, more: object = {}): Entry => ({
  ...{ manager, operation: 'Update', apiVersion: 'v1', fieldsType: 'FieldsV1', fieldsV1 },
  time: '2100-01-01T00:00:00Z',
  ...more,
});
const annotationsAnd = (annotations: object, metadata: object = {}) => ({
  'f:metadata': { 'f:annotations': annotations, ...metadata },
});
const fillers = (length: number, fields: object = { '.': {} }) =>
  Array.from({ length }, (_, n) => entry(`filler-${n}`, annotationsAnd(fields), { operation: 'Apply' }));
const withEntries = (...managedFields: Entry[]) => ({ metadata: { managedFields } });

const send = (path: string, body: object) => thief('PATCH', `${path}${AS_REFRESHER}`, body, MERGE);

/** Expects that the write policy denies a patch, and that the Secret does not change. */
async function expectDenied(path: string, patch: () => Promise<CallAnswer>, message: string): Promise<void> {
  const before = await admin('GET', path);
  const answer = await patch();
  expect(JSON.parse(answer.text).message).toContain(message);
  expect(answer.status).toBe(403);
  expect((await admin('GET', path)).text).toBe(before.text);
}

const ANCIENT = annotationsAnd(
  { [REQUESTED]: {}, 'f:reflect': {}, 'f:note': {} },
  { 'f:labels': { 'f:app': {}, 'f:evil': {} } },
);

describe('the refresher is not allowed', () => {
  test('to own fields under the name of merged managers, however many there are', async () => {
    const path = await given();
    await send(path, withEntries(...(await entriesOf(path)), ...fillers(10)));
    const others = (await entriesOf(path)).filter(({ manager }) => manager !== 'creator');
    const merged = entry('ancient-changes', ANCIENT, { time: '1990-01-01T00:00:00Z' });
    await expectDenied(path, () => send(path, withEntries(...others, merged)), 'The refresher may not');
    const all = await entriesOf(path);
    await expectDenied(path, () => send(path, withEntries(...all, merged)), DENIALS.ownership);
  });

  test('to pass an entry of another API version off as its own', async () => {
    const path = await given();
    const forged = entry(REFRESHER_FIELD_MANAGER, annotationsAnd({ [REQUESTED]: {} }), { apiVersion: '/v1' });
    // The entry of this request is the oldest of more than ten, so that the API server merges it.
    const updates = Array.from({ length: 10 }, (_, n) => entry(`update-${n}`, annotationsAnd({ '.': {} })));
    const others = (await entriesOf(path)).map((one) => ({ ...one, time: '2100-01-01T00:00:00Z' }));
    const metadata = { labels: { app: 'stolen' }, managedFields: [...others, forged, ...updates] };
    await expectDenied(path, () => send(path, requestAnd(metadata)), 'The refresher may');
  });

  test('to put fields below a request annotation', async () => {
    const path = await given();
    const many = Object.fromEntries(Array.from({ length: 1_000 }, (_, n) => [`f:${n}`, {}]));
    const nested = entry('nested', annotationsAnd({ [REQUESTED]: many }));
    const all = await entriesOf(path);
    await expectDenied(path, () => send(path, withEntries(...all, nested)), DENIALS.ownership);
  });

  test('to add so many owners that later writes are slow', async () => {
    const path = await given();
    const all = await entriesOf(path);
    const owners = fillers(40, { [REQUESTED]: {} });
    await expectDenied(path, () => send(path, withEntries(...all, ...owners)), DENIALS.tooManyOwners);
  });

  test("to take another manager's fields from managedFields", async () => {
    const path = await given();
    const [other = entry('other', {})] = fillers(1);
    await expectDenied(path, () => send(path, withEntries(other)), DENIALS.disowned);
  });

  test('to give what another manager applied to a subresource', async () => {
    const path = await applied();
    const all = await entriesOf(path);
    const moved = all.map((one) => (one.manager === 'gitops' ? { ...one, subresource: 'x' } : one));
    await expectDenied(path, () => send(path, withEntries(...moved)), DENIALS.applied);
    await gitopsApplies(path, 'new');
  });

  test('to own what another manager applied under the name of merged managers', async () => {
    const path = await applied();
    await send(path, withEntries(...(await entriesOf(path)), ...fillers(10)));
    const all = await entriesOf(path);
    const merged = entry('ancient-changes', { 'f:metadata': { 'f:labels': { 'f:app': {} } } });
    await expectDenied(path, () => send(path, withEntries(...all, merged)), DENIALS.ownership);
    await gitopsApplies(path, 'new');
  });

  test.each([
    {
      what: 'a force that is not the time of the request',
      annotations: { [ANNOTATION.force]: 'x'.repeat(1_000) },
      denial: DENIALS.force,
    },
    {
      what: 'a time with a long fraction',
      annotations: { [ANNOTATION.requestedAt]: `2026-11-23T12:00:00.${'0'.repeat(1_000)}Z` },
      denial: DENIALS.time,
    },
  ])('to set $what', async ({ annotations, denial }) => {
    const path = await given();
    const body = annotate({ [ANNOTATION.requestedAt]: REQUESTED_AT, ...annotations });
    await expectDenied(path, () => send(path, body), denial);
  });
});

test('a refresh of a Secret with merged managers is allowed', async () => {
  const path = await given();
  for (let n = 0; n < 12; n += 1)
    await admin('PATCH', `${path}?fieldManager=hand-${n}`, annotate({ [`note-${n}`]: 'x' }), MERGE);
  expect((await entriesOf(path)).map(({ manager }) => manager)).toContain('ancient-changes');
  const answer = await send(path, REQUEST);
  expect(answer.status, answer.text).toBe(200);
});

test('without the webhook, the refresher cannot store credentials under the name of merged managers', async () => {
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  const path = await given({ metadata: { name: `pull-${count + 1}`, labels }, data: undefined });
  await cluster.kubectl(['delete', 'mutatingadmissionpolicybinding', `${RELEASE}-caller-proof`]);
  await cluster.kubectl(['delete', 'mutatingwebhookconfiguration', RELEASE]);
  await vi.waitFor(
    async () => {
      const { annotations } = (await get(await given())).metadata;
      expect(annotations).not.toHaveProperty([ANNOTATION.fingerprint]);
    },
    { timeout: 20_000, interval: 200 },
  );
  await send(path, withEntries(...(await entriesOf(path)), ...fillers(10)));
  const data = { [SECRET_KEY]: base64('{"auths":{"evil.example.com":{}}}') };
  const attempt = () =>
    thief('PATCH', `${path}?fieldManager=ancient-changes`, requestAnd({}, { data }), MERGE);
  await expectDenied(path, attempt, DENIALS.ownership);
});
