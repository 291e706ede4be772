// Tests the status of clusters: their registrations merged with the state that runs stored in a table of a local AWS.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ScanCommand } from '@aws-sdk/client-dynamodb';
import pMap from 'p-map';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import type { FailureCode } from '../../../../contract/refresher-api.ts';
import type { DiscoveryTarget } from '../../../../functions/refresher/access/eks.ts';
import { clusterStatuses, mergeStatuses } from '../../../../functions/refresher/actions/status.ts';
import {
  type ClusterStateReader,
  type ClusterStateWriter,
  clusterStates,
  type Observation,
} from '../../../../functions/refresher/clusters/cluster-state.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { type ClusterStateTable, startClusterStateTable } from '../../cluster-state-table.ts';
import { HOUR, NO_EKS, NO_KEYLESS } from '../../real-cluster.ts';
import { startSecretsManager } from '../../secrets-manager.ts';
import { jwt, startTokenIssuer } from '../../token-issuer.ts';

const NOON = Date.parse('2026-11-24T12:00:00Z');
const MINUTE = 60_000;
const TIMEOUT = 15 * MINUTE;
const REGION = 'eu-central-1';
const ROLE = 'arn:aws:iam::210987654321:role/clusters';
const UID = '6d5f3a1e-0000-4000-8000-000000000000';

let dir: string;
let table: ClusterStateTable;
let states: ClusterStateWriter & ClusterStateReader;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  table = await startClusterStateTable(dir);
  states = clusterStates(table.client, table.name);
});
afterAll(async () => {
  await table?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

const signal = () => AbortSignal.timeout(30_000);
const arnOf = (name: string, region = REGION, account = '123456789012') =>
  `arn:aws:eks:${region}:${account}:cluster/${name}`;

const save = (cluster: string, more: Partial<Observation> = {}) =>
  states.save(
    {
      cluster,
      at: NOON,
      served: true,
      failed: false,
      managed: 5,
      due: 2,
      soonestExpiry: NOON + 10 * HOUR,
      ...more,
    },
    signal(),
  );

test('merges the registrations as they are tagged now with the stored states, without clusters that were unregistered', async () => {
  const unreachable = { served: false, failed: true, soonestExpiry: undefined, managed: 0, due: 0 };
  await save('a', { tokenExpiresAt: NOON + 24 * HOUR });
  await save('b', { at: NOON - HOUR });
  await save('b', { ...unreachable, reason: 'no answer', codes: ['unreachable', 'token-late'] });
  await save('gone', { at: NOON - HOUR });
  await save('paused', { served: false, isPaused: true, soonestExpiry: undefined });
  const tags = {
    new: { [TAG.context]: 'second', [TAG.clusterUid]: UID },
    paused: { [TAG.paused]: 'true' },
    a: { [TAG.paused]: 'true', [TAG.clusterUid]: '' },
  };
  const prefixed = (items: object) =>
    Object.fromEntries(Object.entries(items).map(([name, item]) => [`${CLUSTERS_PREFIX}${name}`, item]));
  const names = ['paused', 'b', 'new', 'a'];
  await using registry = await startSecretsManager(
    Object.fromEntries(names.map((name) => [`${CLUSTERS_PREFIX}${name}`, 'never'])),
    { tags: prefixed(tags) },
  );
  const services = { secrets: registry.client, state: states };
  const status = await clusterStatuses(services, { eksDiscovery: [] }, TIMEOUT, NOON, signal());
  const time = (at: number) => new Date(at).toISOString();
  expect(status).toEqual([
    {
      ...{ name: 'a', source: 'registered', isPaused: true, managed: 5, due: 2, failures: 0 },
      ...{ lookedAt: time(NOON), reachedAt: time(NOON), soonestExpiry: time(NOON + 10 * HOUR) },
      tokenExpiresAt: time(NOON + 24 * HOUR),
    },
    {
      ...{ name: 'b', source: 'registered', isPaused: false, managed: 5, due: 2, failures: 1 },
      ...{ lookedAt: time(NOON), reachedAt: time(NOON - HOUR), soonestExpiry: time(NOON + 10 * HOUR) },
      ...{ failingSince: time(NOON), reason: 'no answer', codes: ['unreachable', 'token-late'] },
    },
    { name: 'new', source: 'registered', isPaused: false, context: 'second', clusterUid: UID },
    {
      ...{ name: 'paused', source: 'registered', isPaused: true },
      ...{ lookedAt: time(NOON), pausedSince: time(NOON), failures: 0 },
    },
  ]);
  // No kubeconfig was read, so no request to a cluster was possible.
  expect(registry.calls.every(({ operation }) => operation === 'ListSecrets')).toBe(true);
});

test('shows a registration that is not complete, unless it has been completed since the list was made', async () => {
  const registering = { [TAG.registering]: 'true' };
  const [incomplete, completed] = ['incomplete', 'completed'].map((name) => `${CLUSTERS_PREFIX}${name}`);
  await using registry = await startSecretsManager(
    { [`${incomplete}`]: 'never', [`${completed}`]: 'never' },
    { tags: { [`${incomplete}`]: registering }, listedTags: { [`${completed}`]: registering } },
  );
  const services = { secrets: registry.client, state: states };
  const status = await clusterStatuses(services, { eksDiscovery: [] }, TIMEOUT, NOON + HOUR, signal());
  expect(status).toEqual([
    { name: 'completed', source: 'registered', isPaused: false },
    { name: 'incomplete', source: 'registered', isPaused: false, isRegistering: true },
  ]);
});

test('shows a cluster of the last minutes that the list does not show yet, and none that was unregistered since', async () => {
  await save('recent', { at: NOON - 4 * MINUTE });
  await save('unregistered', { at: NOON - 4 * MINUTE });
  await save(arnOf('tagged'), { at: NOON - 4 * MINUTE });
  const recent = `${CLUSTERS_PREFIX}recent`;
  await using registry = await startSecretsManager(
    { [recent]: 'never' },
    { unlisted: [recent], tags: { [recent]: { [TAG.clusterUid]: UID } } },
  );
  const services = { secrets: registry.client, state: states };
  const status = await clusterStatuses(services, { eksDiscovery: [] }, TIMEOUT, NOON, signal());
  expect(status).toEqual([
    expect.objectContaining({ name: 'recent', source: 'registered', clusterUid: UID, managed: 5 }),
  ]);
});

test('loads states that take more than one page', async () => {
  const names = Array.from({ length: 1_000 }, (_, index) => `many-${String(index).padStart(3, '0')}`);
  // A page of Scan is a megabyte at most.
  const reason = 'x'.repeat(1_000);
  await pMap(names, (name) => save(name, { failed: true, reason }), { concurrency: 50 });
  const firstPage = await table.client.send(new ScanCommand({ TableName: table.name }));
  expect(firstPage.LastEvaluatedKey).toBeDefined();
  const all = await states.load(signal());
  const found = new Set(all.map(({ cluster }) => cluster));
  expect(names.filter((name) => !found.has(name))).toEqual([]);
});

test('rejects with the error of a table that cannot be read', async () => {
  await using registry = await startSecretsManager({});
  const services = { secrets: registry.client, state: clusterStates(table.client, 'no-such-table') };
  await expect(
    clusterStatuses(services, { eksDiscovery: [] }, TIMEOUT, NOON, signal()),
  ).rejects.toMatchObject({
    name: 'ResourceNotFoundException',
  });
});

test('runs store when the token expires, also of a cluster that fails, and remove that with the token', async () => {
  await using issuer = await startTokenIssuer(() => NOON);
  const token = issuer.issue({ lifeSeconds: 7 * 86_400 });
  await using registry = await startSecretsManager({ [`${CLUSTERS_PREFIX}t`]: issuer.kubeconfigOf(token) });
  const services = { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS, state: states };
  const settings = {
    ...{ clusterDeadlineMs: 20_000, clusterConcurrency: 5, region: REGION, allowLocalServers: true },
    eksDiscovery: [],
  };
  const runAt = (at: number, event: object = {}) =>
    run(
      services,
      readEvent(event),
      settings,
      () => at,
      signal(),
      () => {},
    );
  const tokenExpiries = async () =>
    (await clusterStatuses(services, settings, TIMEOUT, NOON + HOUR, signal())).map(
      ({ tokenExpiresAt }) => tokenExpiresAt,
    );
  await runAt(NOON);
  expect(await tokenExpiries()).toEqual(['2026-12-01T12:00:00.000Z']);
  const other = issuer.kubeconfigOf(jwt({ iat: NOON / 1000, exp: NOON / 1000 + 3600 }));
  registry.register(`${CLUSTERS_PREFIX}t`, other);
  await runAt(NOON + MINUTE, { dryRun: true });
  await runAt(NOON + MINUTE, { action: 'inspect' });
  expect(await tokenExpiries()).toEqual(['2026-12-01T12:00:00.000Z']);
  // The server refuses this token, which still states when it expires.
  expect(await runAt(NOON + 2 * MINUTE)).toEqual([expect.objectContaining({ served: false })]);
  expect(await tokenExpiries()).toEqual(['2026-11-24T13:00:00.000Z']);
  registry.register(`${CLUSTERS_PREFIX}t`, issuer.kubeconfigOf('opaque'));
  await runAt(NOON + 3 * MINUTE);
  expect(await tokenExpiries()).toEqual([undefined]);
});

const time = (minutes: number) => new Date(NOON + minutes * MINUTE).toISOString();

test.each<{ title: string; targets: DiscoveryTarget[]; shown: string[] }>([
  { title: 'without discovery targets', targets: [], shown: [] },
  {
    title: 'with a region as the target',
    targets: [{ region: REGION }],
    shown: [arnOf('found'), arnOf('paused'), `EKS in ${REGION}`],
  },
  {
    title: 'with a role of another account',
    targets: [{ region: 'us-east-1', roleArn: ROLE }],
    shown: [arnOf('theirs', 'us-east-1', '210987654321'), `EKS in us-east-1 as ${ROLE}`],
  },
  { title: 'with a target that no run has searched', targets: [{ region: 'eu-west-1' }], shown: [] },
  {
    title: 'with a target whose last search failed, including clusters that were found before',
    targets: [{ region: 'eu-north-1' }],
    shown: [arnOf('unseen', 'eu-north-1'), 'EKS in eu-north-1'],
  },
])('lists tagged EKS clusters $title', ({ targets, shown }) => {
  const stored = [
    { cluster: `EKS in ${REGION}`, lookedAt: time(0), reachedAt: time(0), failures: 0 },
    // Its cluster run began fifteen minutes before the state of the discovery target was stored.
    { cluster: arnOf('found'), lookedAt: time(-15) },
    { cluster: arnOf('paused'), lookedAt: time(-1), pausedSince: time(-100) },
    { cluster: arnOf('untagged'), lookedAt: time(-16) },
    { cluster: arnOf('elsewhere', 'us-east-1'), lookedAt: time(0) },
    { cluster: `EKS in us-east-1 as ${ROLE}`, lookedAt: time(0), reachedAt: time(0) },
    { cluster: arnOf('theirs', 'us-east-1', '210987654321'), lookedAt: time(0) },
    { cluster: 'EKS in eu-north-1', lookedAt: time(0), reachedAt: time(-60), failures: 1, reason: 'denied' },
    { cluster: arnOf('unseen', 'eu-north-1'), lookedAt: time(-61) },
    { cluster: arnOf('never-asked-there', 'eu-west-1'), lookedAt: time(0) },
    { cluster: 'registered-once', lookedAt: time(0) },
  ];
  const status = mergeStatuses([], stored, targets, TIMEOUT);
  expect(status.map(({ name }) => name)).toEqual(shown);
  for (const { name, source, isPaused } of status) {
    expect(source).toBe(name.startsWith('arn:') ? 'eks' : 'eks-discovery');
    expect(isPaused).toBe(name === arnOf('paused'));
  }
});

test('truncates the reasons of ten thousand failing clusters to the size of an answer, and not those of a few', () => {
  const reason = 'r'.repeat(1_000);
  const statusWith = (count: number) => {
    const names = Array.from({ length: count }, (_, index) => `${'x'.repeat(60)}-${index}`);
    const time = new Date(NOON).toISOString();
    const observed = { lookedAt: time, reachedAt: time, managed: 100, due: 100, soonestExpiry: time };
    const codes: FailureCode[] = ['unreachable', 'secrets-not-refreshed', 'token-late'];
    const failing = { failures: 100, failingSince: time, reason, codes, tokenExpiresAt: time };
    return mergeStatuses(
      names.map((name) => ({ name, isPaused: false, clusterUid: UID })),
      names.map((cluster) => ({ cluster, ...observed, ...failing })),
      [],
      TIMEOUT,
    );
  };
  const many = statusWith(10_000);
  expect(Buffer.byteLength(JSON.stringify({ clusters: many }))).toBeLessThan(6_000_000);
  expect(many[0]?.reason).toBe('r'.repeat(100));
  expect(statusWith(3)[0]?.reason).toBe(reason);
});
