// Tests a run over two real control planes, an address that accepts connections and never responds, and a secret that is
// not a kubeconfig.
import { once } from 'node:events';
import { createServer, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ERROR_TYPE } from '../../../../contract/refresher-api.ts';
import { metricsOf, runFailure } from '../../../../functions/refresher/run/whole-run.ts';
import { HOUR, outcomesOf, type RealCluster, runOn, startRealCluster } from '../../real-cluster.ts';

const DEADLINE_MS = 5_000;

let good: RealCluster[];
let silent: Server;
const sockets: Socket[] = [];
beforeAll(async () => {
  good = await Promise.all([startRealCluster(), startRealCluster()]);
  silent = createServer((socket) => {
    sockets.push(socket);
    socket.on('error', () => {});
  }).listen(0, '127.0.0.1');
  await once(silent, 'listening');
  for (const cluster of good) {
    await cluster.createNamespace('team');
    await cluster.createSecrets([
      { namespace: 'team', name: 'due' },
      { namespace: 'team', name: 'fresh' },
    ]);
    await cluster.age(new Map([['team/due', HOUR]]));
  }
});
afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  silent?.close();
  for (const cluster of good ?? []) await cluster[Symbol.asyncDispose]();
});

function silentKubeconfig(): string {
  const address = silent.address();
  const port = address !== null && typeof address === 'object' ? address.port : 0;
  return (good[0]?.kubeconfig ?? '').replace(/server: .*/, `server: https://127.0.0.1:${port}`);
}

test('refreshes the two working clusters and reports the codes of the other two', async () => {
  const [a, b] = good.map(({ kubeconfig }) => kubeconfig);
  const clusters = { a: a ?? '', b: b ?? '', junk: 'registered by mistake', silent: silentKubeconfig() };
  const startedAt = performance.now();
  const reports = await runOn(clusters, {}, DEADLINE_MS);
  const elapsedMs = performance.now() - startedAt;

  expect(reports.map(({ cluster, served, failed }) => ({ cluster, served, failed }))).toEqual([
    { cluster: 'a', served: true, failed: false },
    { cluster: 'b', served: true, failed: false },
    { cluster: 'junk', served: false, failed: true },
    { cluster: 'silent', served: false, failed: true },
  ]);
  expect(reports.map(outcomesOf)).toEqual([{ refreshed: 1 }, { refreshed: 1 }, {}, {}]);
  expect(reports.map(({ failedAt, codes }) => ({ failedAt, codes }))).toEqual([
    {},
    {},
    { failedAt: 'kubeconfig', codes: ['kubeconfig-unusable'] },
    { failedAt: 'reach', codes: ['cluster-time-up'] },
  ]);
  expect(sockets.length).toBeGreaterThan(0);
  // Without the deadline, the run would wait for the transport's time limit.
  expect(elapsedMs).toBeGreaterThanOrEqual(DEADLINE_MS);
  expect(elapsedMs).toBeLessThan(2 * DEADLINE_MS);

  expect(runFailure(reports)).toBeUndefined();
  expect(metricsOf(reports, Date.now())).toMatchObject({
    ClustersRegistered: 4,
    ClustersServed: 2,
    ClustersFailed: 2,
    SecretsManaged: 4,
    SecretsDue: 2,
    SecretsRefreshed: 2,
    SecretsRefused: 0,
    SecretsNotAttempted: 0,
  });
});

test('the invocation fails with NoClusterServedError if no cluster can be served', async () => {
  const reports = await runOn({ junk: 'registered by mistake', silent: silentKubeconfig() }, {}, 500);
  expect(runFailure(reports)?.name).toBe(ERROR_TYPE.noClusterServed);
  expect(runFailure(reports)?.message).toMatch(/2 clusters.*junk: .*silent: /);
});

test('a forced run over one cluster refreshes only that cluster', async () => {
  const [a, b] = good.map(({ kubeconfig }) => kubeconfig);
  const reports = await runOn({ a: a ?? '', b: b ?? '' }, { clusters: ['b'], force: true });
  expect(reports.map(({ cluster }) => cluster)).toEqual(['b']);
  expect(reports.map(outcomesOf)).toEqual([{ refreshed: 2 }]);
});
