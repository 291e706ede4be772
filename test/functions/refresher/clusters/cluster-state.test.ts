// What is known of clusters, in a table of a local AWS: runs that overlap, crash or find a cluster silent, and the
// figures that are made of it.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GetItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { ANNOTATION, CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { type Look, type Memory, memoryIn } from '../../../../functions/refresher/clusters/cluster-state.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import { notServed } from '../../../../functions/refresher/run/cluster.ts';
import { failureOf, metricsOf, summarize } from '../../../../functions/refresher/run/report.ts';
import { type RunServices, run } from '../../../../functions/refresher/run/run.ts';
import { MEMORY } from '../../../../functions/refresher/settings.ts';
import { json, kubeconfigFor, page, refuse, startApiServer } from '../../api-server.ts';
import { type MemoryTable, startMemoryTable } from '../../memory-table.ts';
import { HOUR, NO_EKS, NO_KEYLESS } from '../../real-cluster.ts';
import { startSecretsManager } from '../../secrets-manager.ts';

const NOON = Date.parse('2026-11-24T12:00:00Z');
const SETTINGS = {
  clusterDeadlineMs: 20_000,
  clusterConcurrency: 5,
  region: 'eu-central-1',
  allowLocalServers: true,
  eksDiscovery: [],
};

let dir: string;
let table: MemoryTable;
let memory: Memory;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  table = await startMemoryTable(dir);
  memory = memoryIn(table.client, table.name);
});
afterAll(async () => {
  await table?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

let stack: AsyncDisposableStack;
let cluster: string;
let count = 0;
beforeEach(() => {
  stack = new AsyncDisposableStack();
  count += 1;
  cluster = `cluster-${count}`;
});
afterEach(() => stack.disposeAsync());

/** Of a look that was served. */
const SEEN = { managed: 5, due: 2 };

const signal = () => AbortSignal.timeout(30_000);

/** The item as people see it, without when it is forgotten. */
async function item(name = cluster): Promise<Record<string, unknown>> {
  const { Item = {} } = await table.client.send(
    new GetItemCommand({
      TableName: table.name,
      Key: { [MEMORY.cluster]: { S: name } },
      ConsistentRead: true,
    }),
  );
  const plain = Object.entries(Item).map(([key, { S, N }]) => [key, S ?? Number(N)]);
  const { cluster: _, forgetAt: __, ...rest } = Object.fromEntries(plain);
  return rest;
}

const look = (minutes: number, more: Partial<Look> = {}): Look => ({
  cluster,
  at: NOON + minutes * 60_000,
  served: true,
  failed: false,
  managed: 5,
  due: 2,
  soonestExpiry: NOON + 10 * HOUR,
  ...more,
});
const silent = (minutes: number, reason = 'no answer') =>
  look(minutes, { served: false, failed: true, reason, managed: 0, due: 0, soonestExpiry: undefined });

test('a cluster that is served, silent, served in part and served again', async () => {
  expect(await memory.remember(look(0), signal())).toEqual({
    failures: 0,
    reachedAt: NOON,
    soonestExpiry: NOON + 10 * HOUR,
  });
  expect(await item()).toEqual({
    lookedAt: '2026-11-24T12:00:00.000Z',
    reachedAt: '2026-11-24T12:00:00.000Z',
    ...SEEN,
    soonestExpiry: '2026-11-24T22:00:00.000Z',
    failures: 0,
  });

  await memory.remember(silent(60), signal());
  await memory.remember(silent(120, 'still none'), signal());
  expect(await item()).toEqual({
    lookedAt: '2026-11-24T14:00:00.000Z',
    reachedAt: '2026-11-24T12:00:00.000Z',
    ...SEEN,
    soonestExpiry: '2026-11-24T22:00:00.000Z',
    failures: 2,
    failingSince: '2026-11-24T13:00:00.000Z',
    reason: 'still none',
  });

  const inPart = look(180, { failed: true, reason: 'one is forbidden', soonestExpiry: undefined });
  expect(await memory.remember(inPart, signal())).toEqual({
    failures: 3,
    failingSince: NOON + HOUR,
    reachedAt: NOON + 3 * HOUR,
    soonestExpiry: NOON + 10 * HOUR,
  });

  await memory.remember(look(240, { soonestExpiry: NOON + 15 * HOUR, managed: 7, due: 0 }), signal());
  expect(await item()).toEqual({
    lookedAt: '2026-11-24T16:00:00.000Z',
    reachedAt: '2026-11-24T16:00:00.000Z',
    managed: 7,
    due: 0,
    soonestExpiry: '2026-11-25T03:00:00.000Z',
    failures: 0,
  });

  expect(await memory.remember(look(300, { soonestExpiry: null }), signal())).not.toHaveProperty(
    'soonestExpiry',
  );
  expect(await item()).not.toHaveProperty('soonestExpiry');
});

test('paused, what was seen stays, and is no failure any more; the pause begins once', async () => {
  await memory.remember(look(-60), signal());
  await memory.remember(silent(0), signal());
  const isPaused = { served: false, isPaused: true, managed: 0, due: 0, soonestExpiry: undefined };
  await memory.remember(look(60, isPaused), signal());
  await memory.remember(look(120, isPaused), signal());
  const seen = {
    lookedAt: '2026-11-24T14:00:00.000Z',
    reachedAt: '2026-11-24T11:00:00.000Z',
    ...SEEN,
    soonestExpiry: '2026-11-24T22:00:00.000Z',
    pausedSince: '2026-11-24T13:00:00.000Z',
  };
  expect(await item()).toEqual({ ...seen, failures: 0 });
  // Its token could not be renewed.
  await memory.remember(look(180, { ...isPaused, failed: true, reason: 'late' }), signal());
  expect(await item()).toMatchObject({ failures: 1, reason: 'late', pausedSince: seen.pausedSince });
  await memory.remember(look(240, isPaused), signal());
  expect(await item()).toEqual({ ...seen, lookedAt: '2026-11-24T16:00:00.000Z', failures: 0 });
  await memory.remember(look(300), signal());
  expect(await item()).not.toHaveProperty('pausedSince');
});

test('the newer look stays, whichever is written last; a look that is sent twice counts once', async () => {
  await memory.remember(silent(10), signal());
  const known = await memory.remember(look(20), signal());
  // An older run, which reached the cluster earlier and writes later.
  expect(await memory.remember(silent(15), signal())).toEqual(known);
  expect(await memory.remember(look(5, { soonestExpiry: NOON }), signal())).toEqual(known);
  expect(await item()).toMatchObject({ failures: 0, lookedAt: '2026-11-24T12:20:00.000Z' });
  await memory.remember(silent(30), signal());
  await memory.remember(silent(30), signal());
  expect(await item()).toMatchObject({ failures: 1 });
});

test('any number of looks at the same time: the last of them is what is known', async () => {
  const looks = Array.from({ length: 20 }, (_, minute) => (minute % 2 ? look(minute) : silent(minute)));
  const shuffled = looks.toSorted((a, b) => ((a.at / 60_000) % 7) - ((b.at / 60_000) % 7));
  await Promise.all(shuffled.map((one) => memory.remember(one, signal())));
  expect(await item()).toMatchObject({ lookedAt: '2026-11-24T12:19:00.000Z', failures: 0 });
});

test('is forgotten 30 days after the last look', async () => {
  await memory.remember(look(0), signal());
  const { Item } = await table.client.send(
    new GetItemCommand({ TableName: table.name, Key: { [MEMORY.cluster]: { S: cluster } } }),
  );
  expect(Number(Item?.[MEMORY.forgetAt]?.N)).toBe(NOON / 1000 + 30 * 86_400);
});

/** A registered cluster, with one Secret that expires at a time, until it falls silent. */
async function registered(what: number | ((path: string) => object | undefined)) {
  let isSilent = false;
  const secret = {
    name: 'pull',
    namespace: 'team',
    annotations: { [ANNOTATION.expiresAt]: new Date(typeof what === 'number' ? what : 0).toISOString() },
  };
  const answer =
    typeof what === 'number'
      ? (path: string) => page(path === '/api/v1/namespaces' ? [{ name: 'team' }] : [secret])
      : what;
  const server = stack.use(
    await startApiServer(({ path }, response) => {
      if (isSilent) return refuse(response, 500, 'etcd is gone');
      const body = answer(path);
      if (!body) return refuse(response, 403, 'forbidden');
      json(response, body);
    }),
  );
  const kubeconfig = kubeconfigFor(server, 'a-token');
  const registry = stack.use(await startSecretsManager({ [`${CLUSTERS_PREFIX}${cluster}`]: kubeconfig }));
  const services: RunServices = { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS, memory };
  return {
    fallSilent: () => {
      isSilent = true;
    },
    run: (at: number, event: object = {}, more: Partial<RunServices> = {}) =>
      run(
        { ...services, ...more },
        readEvent(event),
        SETTINGS,
        () => at,
        signal(),
        () => {},
      ),
  };
}

test('a cluster that is silent for nine hours: its soonest expiry goes on ageing, hour by hour', async () => {
  const { run: runAt, fallSilent } = await registered(NOON + 10 * HOUR);
  expect(metricsOf(await runAt(NOON), NOON).SoonestExpiry).toBe(10 * 3600);
  fallSilent();
  for (let hour = 1; hour <= 9; hour++) {
    const at = NOON + hour * HOUR;
    const reports = await runAt(at);
    expect(metricsOf(reports, at)).toMatchObject({ ClustersServed: 0, SoonestExpiry: (10 - hour) * 3600 });
    expect(reports.map(summarize)).toEqual([
      expect.objectContaining({
        failures: hour,
        failingSince: '2026-11-24T13:00:00.000Z',
        reachedAt: '2026-11-24T12:00:00.000Z',
        soonestExpiry: '2026-11-24T22:00:00.000Z',
      }),
    ]);
  }
});

test('runs that do not see all of a cluster, as it is, change nothing that is known', async () => {
  const { run: runAt, fallSilent } = await registered(NOON + 10 * HOUR);
  await runAt(NOON);
  const before = await item();
  await runAt(NOON + HOUR, { dryRun: true });
  await runAt(NOON + HOUR, { namespaces: ['other'] });
  fallSilent();
  await runAt(NOON + HOUR, { namespaces: ['team'] });
  expect(await item()).toEqual(before);
  await runAt(NOON + 2 * HOUR, { clusters: [cluster] });
  expect(await item()).toMatchObject({ failures: 1, failingSince: '2026-11-24T14:00:00.000Z' });
});

test('a namespace that cannot be listed keeps what was known of the whole: it may hold the soonest', async () => {
  let isForbidden = false;
  const hours: Record<string, number> = { a: 10, b: 11 };
  const { run: runAt } = await registered((path) => {
    if (path === '/api/v1/namespaces') return page(Object.keys(hours).map((name) => ({ name })));
    const [, namespace = ''] = /namespaces\/(\w)\//.exec(path) ?? [];
    if (isForbidden && namespace === 'a') return undefined;
    const expiresAt = new Date(NOON + (hours[namespace] ?? 0) * HOUR).toISOString();
    return page([{ name: 'pull', namespace, annotations: { [ANNOTATION.expiresAt]: expiresAt } }]);
  });
  await runAt(NOON);
  isForbidden = true;
  const reports = await runAt(NOON + HOUR);
  expect(reports).toEqual([expect.objectContaining({ served: true, failed: true, isPartial: true })]);
  expect(metricsOf(reports, NOON + HOUR).SoonestExpiry).toBe(9 * 3600);
  expect(await item()).toMatchObject({ soonestExpiry: '2026-11-24T22:00:00.000Z', failures: 1 });
});

test('at the end of the time of a run, a table that is down is tried once', async () => {
  let tried = 0;
  const down: Memory = {
    remember() {
      tried += 1;
      return Promise.reject(new Error('it is down'));
    },
  };
  const names = Array.from({ length: 50 }, (_, index) => `${CLUSTERS_PREFIX}c${index}`);
  await using registry = await startSecretsManager(Object.fromEntries(names.map((name) => [name, 'never'])), {
    pageSize: 100,
  });
  const services = { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS, memory: down };
  const settings = { ...SETTINGS, clusterConcurrency: 1 };
  const ends = AbortSignal.timeout(300);
  const reports = await run(services, readEvent({}), settings, Date.now, ends, () => {});
  expect(reports.filter(({ stateNotSaved }) => stateNotSaved === 'it is down')).toHaveLength(50);
  expect(tried).toBe(1);
});

test('a run that crashes leaves what was known, and the next one goes on from there', async () => {
  const { run: runAt, fallSilent } = await registered(NOON + 10 * HOUR);
  await runAt(NOON);
  fallSilent();
  await runAt(NOON + HOUR);
  const before = await item();
  const crash = new Error('the function was killed');
  const crashes: Memory = { remember: () => new Promise((_, reject) => setImmediate(reject, crash)) };
  await runAt(NOON + 2 * HOUR, {}, { memory: crashes });
  expect(await item()).toEqual(before);
  await runAt(NOON + 3 * HOUR);
  expect(await item()).toMatchObject({ failures: 2, failingSince: '2026-11-24T13:00:00.000Z' });
});

test('two runs that overlap: the one that looked later is right', async () => {
  const { run: runAt, fallSilent } = await registered(NOON + 10 * HOUR);
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const slow: Memory = {
    async remember(one, ends) {
      await gate;
      return memory.remember(one, ends);
    },
  };
  const first = runAt(NOON, {}, { memory: slow });
  await new Promise((resolve) => setTimeout(resolve, 300));
  fallSilent();
  await runAt(NOON + 60_000);
  open();
  const [late] = await first;
  expect(await item()).toMatchObject({ failures: 1, lookedAt: '2026-11-24T12:01:00.000Z' });
  // Both are told what is known by then.
  expect(late).toMatchObject({ served: true, known: { failures: 1 } });
});

test('without its table a run still refreshes, and fails at the end, saying why', async () => {
  const { run: runAt } = await registered(NOON + 10 * HOUR);
  const reports = await runAt(NOON, {}, { memory: memoryIn(table.client, 'no-such-table') });
  expect(reports).toEqual([expect.objectContaining({ served: true, failed: false })]);
  expect(reports.map(summarize)).toEqual([
    expect.objectContaining({ stateNotSaved: expect.stringContaining('resource') }),
  ]);
  expect(failureOf(reports)).toMatch(/What is known of 1 clusters could not be stored: .*resource/);
  expect(failureOf([notServed('a', 'down'), ...reports])).toMatch(/could not be stored/);
});
