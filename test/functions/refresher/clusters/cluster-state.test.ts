// Tests the stored state of clusters in a DynamoDB table of a local AWS: runs that overlap or crash, clusters that do not
// respond, and the metrics that depend on stored state.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { GetItemCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { ANNOTATION, CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { ERROR_TYPE } from '../../../../contract/refresher-api.ts';
import {
  type ClusterStateWriter,
  clusterStates,
  type Observation,
} from '../../../../functions/refresher/clusters/cluster-state.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import { notServed } from '../../../../functions/refresher/run/cluster-report.ts';
import { type RunServices, run } from '../../../../functions/refresher/run/run.ts';
import { summarize } from '../../../../functions/refresher/run/summaries.ts';
import { metricsOf, runFailure } from '../../../../functions/refresher/run/whole-run.ts';
import { STATE_ATTRIBUTE } from '../../../../functions/refresher/settings.ts';
import { tableInMemory } from '../../../simulation/table.ts';
import { json, kubeconfigFor, page, refuse, startApiServer } from '../../api-server.ts';
import { type ClusterStateTable, startClusterStateTable } from '../../cluster-state-table.ts';
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
let table: ClusterStateTable;
let states: ClusterStateWriter;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  table = await startClusterStateTable(dir);
  states = clusterStates(table.client, table.name);
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

/** Of an observation of a cluster that was served. */
const OBSERVED = { managed: 5, due: 2 };

const signal = () => AbortSignal.timeout(30_000);

/** The item without its key and its expiry. */
async function item(name = cluster): Promise<Record<string, unknown>> {
  const { Item = {} } = await table.client.send(
    new GetItemCommand({
      TableName: table.name,
      Key: { [STATE_ATTRIBUTE.cluster]: { S: name } },
      ConsistentRead: true,
    }),
  );
  const plain = Object.entries(Item).map(([key, { S, N, L }]) => [
    key,
    S ?? L?.map((entry) => entry.S) ?? Number(N),
  ]);
  const { cluster: _, forgetAt: __, ...rest } = Object.fromEntries(plain);
  return rest;
}

const observed = (minutes: number, more: Partial<Observation> = {}): Observation => ({
  cluster,
  at: NOON + minutes * 60_000,
  served: true,
  failed: false,
  managed: 5,
  due: 2,
  soonestExpiry: NOON + 10 * HOUR,
  ...more,
});
const unreachable = (minutes: number, reason = 'no answer') =>
  observed(minutes, {
    served: false,
    failed: true,
    reason,
    codes: ['unreachable'],
    managed: 0,
    due: 0,
    soonestExpiry: undefined,
  });

test('stores the observations of a cluster that is served, unreachable, served in part and served again', async () => {
  expect(await states.save(observed(0), signal())).toEqual({
    failures: 0,
    successes: 1,
    isPaused: false,
    codes: [],
    announced: [],
    reachedAt: NOON,
    soonestExpiry: NOON + 10 * HOUR,
  });
  expect(await item()).toEqual({
    lookedAt: '2026-11-24T12:00:00.000Z',
    reachedAt: '2026-11-24T12:00:00.000Z',
    ...OBSERVED,
    soonestExpiry: '2026-11-24T22:00:00.000Z',
    failures: 0,
    successes: 1,
  });

  await states.save(unreachable(60), signal());
  await states.save(unreachable(120, 'still none'), signal());
  expect(await item()).toEqual({
    lookedAt: '2026-11-24T14:00:00.000Z',
    reachedAt: '2026-11-24T12:00:00.000Z',
    ...OBSERVED,
    soonestExpiry: '2026-11-24T22:00:00.000Z',
    failures: 2,
    successes: 0,
    failingSince: '2026-11-24T13:00:00.000Z',
    reason: 'still none',
    codes: ['unreachable'],
  });

  const partial = observed(180, {
    failed: true,
    reason: 'one is forbidden',
    codes: ['forbidden', 'secrets-not-refreshed'],
    soonestExpiry: undefined,
  });
  expect(await states.save(partial, signal())).toEqual({
    failures: 3,
    successes: 0,
    isPaused: false,
    reason: 'one is forbidden',
    codes: ['forbidden', 'secrets-not-refreshed'],
    announced: [],
    failingSince: NOON + HOUR,
    reachedAt: NOON + 3 * HOUR,
    soonestExpiry: NOON + 10 * HOUR,
  });
  expect(await item()).toMatchObject({
    reason: 'one is forbidden',
    codes: ['forbidden', 'secrets-not-refreshed'],
  });

  await states.save(observed(240, { soonestExpiry: NOON + 15 * HOUR, managed: 7, due: 0 }), signal());
  expect(await item()).toEqual({
    lookedAt: '2026-11-24T16:00:00.000Z',
    reachedAt: '2026-11-24T16:00:00.000Z',
    managed: 7,
    due: 0,
    soonestExpiry: '2026-11-25T03:00:00.000Z',
    failures: 0,
    successes: 1,
  });

  expect(await states.save(observed(300, { soonestExpiry: null }), signal())).not.toHaveProperty(
    'soonestExpiry',
  );
  expect(await item()).not.toHaveProperty('soonestExpiry');
});

test('a pause keeps the observed values, ends the failures and is stored with its first time', async () => {
  await states.save(observed(-60), signal());
  await states.save(unreachable(0), signal());
  const isPaused = { served: false, isPaused: true, managed: 0, due: 0, soonestExpiry: undefined };
  await states.save(observed(60, isPaused), signal());
  await states.save(observed(120, isPaused), signal());
  const paused = {
    lookedAt: '2026-11-24T14:00:00.000Z',
    reachedAt: '2026-11-24T11:00:00.000Z',
    ...OBSERVED,
    soonestExpiry: '2026-11-24T22:00:00.000Z',
    pausedSince: '2026-11-24T13:00:00.000Z',
  };
  expect(await item()).toEqual({ ...paused, failures: 0, successes: 2 });
  // A paused cluster whose token could not be renewed.
  await states.save(observed(180, { ...isPaused, failed: true, reason: 'late' }), signal());
  expect(await item()).toMatchObject({ failures: 1, reason: 'late', pausedSince: paused.pausedSince });
  await states.save(observed(240, isPaused), signal());
  expect(await item()).toEqual({
    ...paused,
    lookedAt: '2026-11-24T16:00:00.000Z',
    failures: 0,
    successes: 1,
  });
  await states.save(observed(300), signal());
  expect(await item()).not.toHaveProperty('pausedSince');
});

test('the most recent observation wins, and an observation that is sent twice counts once', async () => {
  await states.save(unreachable(10), signal());
  const state = await states.save(observed(20), signal());
  // An older run, which observed the cluster earlier and stores its state later.
  expect(await states.save(unreachable(15), signal())).toEqual(state);
  expect(await states.save(observed(5, { soonestExpiry: NOON }), signal())).toEqual(state);
  expect(await item()).toMatchObject({ failures: 0, lookedAt: '2026-11-24T12:20:00.000Z' });
  await states.save(unreachable(30), signal());
  await states.save(unreachable(30), signal());
  expect(await item()).toMatchObject({ failures: 1 });
});

test('the most recent of many concurrent observations wins', async () => {
  const observations = Array.from({ length: 20 }, (_, minute) =>
    minute % 2 ? observed(minute) : unreachable(minute),
  );
  const shuffled = observations.toSorted((a, b) => ((a.at / 60_000) % 7) - ((b.at / 60_000) % 7));
  await Promise.all(shuffled.map((observation) => states.save(observation, signal())));
  expect(await item()).toMatchObject({ lookedAt: '2026-11-24T12:19:00.000Z', failures: 0 });
});

test('a state expires 30 days after the last observation', async () => {
  await states.save(observed(0), signal());
  const { Item } = await table.client.send(
    new GetItemCommand({ TableName: table.name, Key: { [STATE_ATTRIBUTE.cluster]: { S: cluster } } }),
  );
  expect(Number(Item?.[STATE_ATTRIBUTE.forgetAt]?.N)).toBe(NOON / 1000 + 30 * 86_400);
});

test('the table in memory, which simulations use, stores the same states', async () => {
  const stores = [
    clusterStates(table.client, table.name),
    clusterStates(tableInMemory(STATE_ATTRIBUTE.cluster).client, 'in-memory'),
  ];
  const results = await Promise.all(
    stores.map(async (store) => {
      const seen: unknown[] = [];
      for (let minute = 0; minute < 20; minute++) {
        const at = minute % 7 === 6 ? minute - 3 : minute;
        const observation = minute % 5 < 3 ? unreachable(at) : observed(at, { isPaused: minute % 2 === 0 });
        const state = await store.save(observation, signal());
        const now = NOON + minute * 60_000;
        const isOurs = await store.reserve(cluster, minute % 4 === 0 ? NOON : state.announcedAt, now);
        const announced = { announced: ['failing'] as const, startsQuietDay: minute % 3 === 0 };
        if (minute % 6 !== 5) await store.settle(cluster, now, minute % 2 === 0 ? announced : undefined);
        seen.push(state, isOurs);
      }
      const stored = await store.load(signal());
      return [...seen, stored.find((one) => one.cluster === cluster)];
    }),
  );
  expect(results[1]).toEqual(results[0]);
});

/**
 * A registered cluster that can be made to fail.
 *
 * @param content the expiry of its only Secret; or the response to each path, undefined for HTTP 403
 */
async function registered(content: number | ((path: string) => object | undefined)) {
  let isFailing = false;
  const secret = {
    name: 'pull',
    namespace: 'team',
    annotations: {
      [ANNOTATION.expiresAt]: new Date(typeof content === 'number' ? content : 0).toISOString(),
    },
  };
  const answer =
    typeof content === 'number'
      ? (path: string) => page(path === '/api/v1/namespaces' ? [{ name: 'team' }] : [secret])
      : content;
  const server = stack.use(
    await startApiServer(({ path }, response) => {
      if (isFailing) return refuse(response, 500, 'etcd is gone');
      const body = answer(path);
      if (!body) return refuse(response, 403, 'forbidden');
      json(response, body);
    }),
  );
  const kubeconfig = kubeconfigFor(server, 'a-token');
  const registry = stack.use(await startSecretsManager({ [`${CLUSTERS_PREFIX}${cluster}`]: kubeconfig }));
  const services: RunServices = {
    secrets: registry.client,
    eks: NO_EKS,
    keyless: NO_KEYLESS,
    state: states,
  };
  return {
    startFailing: () => {
      isFailing = true;
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

test('the soonest expiry of a cluster that fails for nine hours decreases hour by hour', async () => {
  const { run: runAt, startFailing } = await registered(NOON + 10 * HOUR);
  expect(metricsOf(await runAt(NOON), NOON).SoonestExpiry).toBe(10 * 3600);
  startFailing();
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

test('dry runs and runs over some namespaces store nothing, a run over one cluster does', async () => {
  const { run: runAt, startFailing } = await registered(NOON + 10 * HOUR);
  await runAt(NOON);
  const before = await item();
  await runAt(NOON + HOUR, { dryRun: true });
  await runAt(NOON + HOUR, { namespaces: ['other'] });
  startFailing();
  await runAt(NOON + HOUR, { namespaces: ['team'] });
  expect(await item()).toEqual(before);
  await runAt(NOON + 2 * HOUR, { clusters: [cluster] });
  expect(await item()).toMatchObject({ failures: 1, failingSince: '2026-11-24T14:00:00.000Z' });
});

test('keeps the stored expiry of a cluster with a namespace that cannot be listed', async () => {
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

test('calls a table that fails only once after the time of the run is up', async () => {
  let calls = 0;
  const failing: ClusterStateWriter = {
    save() {
      calls += 1;
      return Promise.reject(new Error('it is down'));
    },
  };
  const names = Array.from({ length: 50 }, (_, index) => `${CLUSTERS_PREFIX}c${index}`);
  await using registry = await startSecretsManager(Object.fromEntries(names.map((name) => [name, 'never'])), {
    pageSize: 100,
  });
  const services = { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS, state: failing };
  const settings = { ...SETTINGS, clusterConcurrency: 1 };
  const runSignal = AbortSignal.timeout(300);
  const reports = await run(services, readEvent({}), settings, Date.now, runSignal, () => {});
  expect(reports.filter(({ stateNotSaved }) => stateNotSaved === 'it is down')).toHaveLength(50);
  expect(calls).toBe(1);
});

test('a run that crashes leaves the stored state, and the next run continues from there', async () => {
  const { run: runAt, startFailing } = await registered(NOON + 10 * HOUR);
  await runAt(NOON);
  startFailing();
  await runAt(NOON + HOUR);
  const before = await item();
  const crash = new Error('the function was killed');
  const crashing: ClusterStateWriter = {
    save: () => new Promise((_, reject) => setImmediate(reject, crash)),
  };
  await runAt(NOON + 2 * HOUR, {}, { state: crashing });
  expect(await item()).toEqual(before);
  await runAt(NOON + 3 * HOUR);
  expect(await item()).toMatchObject({ failures: 2, failingSince: '2026-11-24T13:00:00.000Z' });
});

test('of two runs that overlap, the one that observed the cluster later determines the state', async () => {
  const { run: runAt, startFailing } = await registered(NOON + 10 * HOUR);
  const { promise: gate, resolve: open } = Promise.withResolvers<void>();
  const slow: ClusterStateWriter = {
    async save(observation, saveSignal) {
      await gate;
      return states.save(observation, saveSignal);
    },
  };
  const first = runAt(NOON, {}, { state: slow });
  await new Promise((resolve) => setTimeout(resolve, 300));
  startFailing();
  await runAt(NOON + 60_000);
  open();
  const [late] = await first;
  expect(await item()).toMatchObject({ failures: 1, lookedAt: '2026-11-24T12:01:00.000Z' });
  // The report of the first run has the state that is stored by then.
  expect(late).toMatchObject({ served: true, state: { failures: 1 } });
});

test('a run without its table serves the clusters and fails with StateNotSavedError', async () => {
  const { run: runAt } = await registered(NOON + 10 * HOUR);
  const reports = await runAt(NOON, {}, { state: clusterStates(table.client, 'no-such-table') });
  expect(reports).toEqual([expect.objectContaining({ served: true, failed: false })]);
  expect(reports.map(summarize)).toEqual([
    expect.objectContaining({
      stateNotSaved: expect.any(String),
      stateNotSavedError: 'ResourceNotFoundException',
    }),
  ]);
  expect(runFailure(reports)?.name).toBe(ERROR_TYPE.stateNotSaved);
  const down = notServed('a', [{ code: 'unreachable', reason: 'down' }]);
  expect(runFailure([down, ...reports])?.name).toBe(ERROR_TYPE.stateNotSaved);
});
