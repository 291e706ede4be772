// Compares our Kubernetes client with the generated API of @kubernetes/client-node, each with one shared dispatcher:
// 500 PATCHes of a Secret's annotations, 8 at a time. Both patch the same HTTPS server, which is another process and
// returns what an API server would. Run it with `node test/bench/kubernetes-client.ts`; docs/decisions has the result.
import { type ChildProcess, fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { CoreV1Api, KubeConfig, PatchStrategy, setHeaderOptions } from '@kubernetes/client-node';
import pMap from 'p-map';
import type { Dispatcher } from 'undici';
import { ANNOTATION } from '../../contract/names.ts';
import { KubernetesApi } from '../../functions/refresher/kubernetes/client.ts';
import { type ApiServer, json, kubeconfigFor, object, startApiServer } from '../functions/api-server.ts';
import { median } from './table.ts';

const PATCHES = 500;
const CONCURRENCY = 8;
const ROUNDS = 11;
const SECRET = { namespace: 'team', name: 'pull', annotations: {} };
const ANNOTATIONS = { [ANNOTATION.requestedAt]: '2026-11-26T12:00:00Z' };

/** client-node makes a dispatcher for each request. This one keeps the first. */
class SharedKubeConfig extends KubeConfig {
  #dispatcher: Dispatcher | undefined;

  constructor() {
    super();
    const self = this as unknown as { createDispatcher(...args: unknown[]): Dispatcher };
    const create = self.createDispatcher.bind(this);
    self.createDispatcher = (...args) => {
      this.#dispatcher ??= create(...args);
      return this.#dispatcher;
    };
  }
}

interface Cost {
  readonly wallMs: number;
  readonly cpuMs: number;
  /** Opened in this round. */
  readonly connections: number;
}

async function costOf(patch: () => Promise<unknown>, server: ChildProcess): Promise<Cost> {
  const opened = await connectionsOf(server);
  const startedAt = performance.now();
  const before = process.cpuUsage();
  await pMap(Array(PATCHES).fill(0), patch, { concurrency: CONCURRENCY });
  const { user, system } = process.cpuUsage(before);
  return {
    wallMs: performance.now() - startedAt,
    cpuMs: (user + system) / 1000,
    connections: (await connectionsOf(server)) - opened,
  };
}

async function connectionsOf(server: ChildProcess): Promise<number> {
  server.send('connections');
  return (await once(server, 'message'))[0] as number;
}

async function main(): Promise<void> {
  const child = fork(fileURLToPath(import.meta.url), ['server']);
  const [server] = (await once(child, 'message')) as [Pick<ApiServer, 'url' | 'caPem'>];
  const config = new SharedKubeConfig();
  config.loadFromString(kubeconfigFor(server, 'token'));
  const generated = config.makeApiClient(CoreV1Api);
  await using api = new KubernetesApi(
    { server: server.url, ca: server.caPem, identity: { token: 'token' }, isLocalAllowed: true },
    CONCURRENCY,
    new AbortController().signal,
  );
  const ours = () => api.annotate(SECRET, ANNOTATIONS, false);
  const theirs = () =>
    generated.patchNamespacedSecret(
      { ...SECRET, body: { metadata: { annotations: ANNOTATIONS } }, fieldManager: 'bench' },
      setHeaderOptions('Content-Type', PatchStrategy.MergePatch),
    );
  const rounds: { readonly ours: Cost; readonly theirs: Cost }[] = [];
  for (let round = 0; round < ROUNDS; round++) {
    // Each goes first in every other round.
    const first = round % 2 === 0 ? await costOf(ours, child) : undefined;
    const their = await costOf(theirs, child);
    rounds.push({ ours: first ?? (await costOf(ours, child)), theirs: their });
  }
  rounds.shift(); // It warms both up.
  for (const unit of ['wallMs', 'cpuMs'] as const) {
    const ratios = rounds.map((round) => round.theirs[unit] / round.ours[unit]);
    console.log(
      `${unit}: ours ${median(rounds.map((round) => round.ours[unit])).toFixed(0)}, client-node ${median(rounds.map((round) => round.theirs[unit])).toFixed(0)}, ratio ${median(ratios).toFixed(2)} (${Math.min(...ratios).toFixed(2)} to ${Math.max(...ratios).toFixed(2)})`,
    );
  }
  const opened = rounds.map((round) => `${round.ours.connections}/${round.theirs.connections}`);
  console.log(`connections opened in each round (ours/client-node): ${opened.join(' ')}`);
  child.kill();
}

async function serve(): Promise<void> {
  const metadata = { ...SECRET, annotations: ANNOTATIONS };
  const answer = { kind: 'Secret', apiVersion: 'v1', metadata, type: 'kubernetes.io/dockerconfigjson' };
  const server = await startApiServer(({ headers }, response) =>
    json(response, headers.accept?.includes('PartialObjectMetadata') ? object(metadata) : answer),
  );
  process.send?.({ url: server.url, caPem: server.caPem });
  process.on('message', () => process.send?.(server.connections));
}

if (process.argv[2] === 'server') await serve();
else await main();
