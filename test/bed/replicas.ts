// Plays the Deployment controller, the kubelet's probes and kube-proxy for a Deployment with several pods behind a Service.
// A pod receives connections from when it is ready until its termination begins.
import { mkdtemp } from 'node:fs/promises';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildWebhook } from '../../webhook/build.ts';
import type { ControlPlane } from './control-plane.ts';
import { type Pod, startPod } from './kubelet.ts';
import { NAMESPACE, RELEASE, SERVICE_PORT, serviceAddress, untilCalledWithProof } from './webhook.ts';

const PROBE_EVERY_MS = 200;
const READY_WITHIN_MS = 60_000;

export interface Replicas extends AsyncDisposable {
  /** The pods that are not terminating. */
  readonly pods: readonly Pod[];
  /** Rolls out the current Deployment: adds one pod, waits until it is ready, removes one, and so on. */
  rollOut(): Promise<void>;
  /** Updates the volumes of all pods. */
  syncVolumes(): Promise<void>;
  /** The logs of all pods, including terminated ones. */
  logs(): string;
}

export interface ReplicasOptions {
  readonly count: number;
  readonly ecrUrl: string;
  /** Additional environment variables of the processes. */
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments for Node. */
  readonly nodeArgs?: readonly string[];
  readonly readyWithinMs?: number;
  /** Called while the pods run, before they must be ready. @param logs returns the logs of all pods */
  readonly beforeReady?: (logs: () => string) => Promise<void>;
}

/** Starts all pods of the chart's Deployment at the same time, and waits until they are ready. */
export async function startReplicas(
  cluster: ControlPlane,
  { count, ecrUrl, env, nodeArgs, readyWithinMs = READY_WITHIN_MS, beforeReady }: ReplicasOptions,
): Promise<Replicas> {
  const host = await serviceAddress(cluster);
  const bundle = join(await mkdtemp(join(cluster.dir, 'replicas-')), 'webhook.mjs');
  await buildWebhook(bundle);
  // 127.A.B.C belongs to the Service; its pods are its neighbours.
  const [, , third, fourth] = host.split('.').map(Number);
  let started = 0;
  const start = (waitsForReady: boolean) => {
    started += 1;
    const ip = `127.255.${third}.${((fourth ?? 0) + started) % 250}`;
    const options = { bundle, ip, ecrUrl, waitsForReady, ...(env && { env }), ...(nodeArgs && { nodeArgs }) };
    return startPod(cluster, NAMESPACE, RELEASE, options);
  };

  const all: Pod[] = await Promise.all(Array.from({ length: count }, () => start(false)));
  let pods = [...all];
  const ready = new Set<Pod>();
  let isProbing = true;
  const probing = (async () => {
    while (isProbing) {
      await Promise.all(
        pods.map(async (pod) => {
          const isReady = await pod.isReady();
          if (isReady && pods.includes(pod)) ready.add(pod);
          else ready.delete(pod);
        }),
      );
      await sleep(PROBE_EVERY_MS);
    }
  })();

  let turn = 0;
  const sockets = new Set<Socket>();
  const proxy = createServer((socket) => {
    const ends = [...ready];
    const pod = ends[turn++ % Math.max(1, ends.length)];
    if (!pod) return void socket.destroy();
    const onward = connect({ host: pod.ip, port: SERVICE_PORT });
    for (const end of [socket, onward]) {
      sockets.add(end);
      end.on('error', () => {
        socket.destroy();
        onward.destroy();
      });
      end.on('close', () => sockets.delete(end));
    }
    socket.pipe(onward).pipe(socket);
  });
  await new Promise<void>((resolve, reject) => {
    proxy.once('error', reject);
    proxy.listen(SERVICE_PORT, host, resolve);
  });
  const { port } = proxy.address() as AddressInfo;
  if (port !== SERVICE_PORT) throw new Error(`the Service's port is ${port}`);

  const untilReady = async (wanted: readonly Pod[]) => {
    const deadline = Date.now() + readyWithinMs;
    while (!wanted.every((pod) => ready.has(pod))) {
      const ended = wanted.find((pod) => !pod.program.isRunning());
      if (ended) throw new Error(`a pod ended:\n${ended.program.log()}`);
      if (Date.now() > deadline)
        throw new Error(`not ready:\n${wanted.map((pod) => pod.program.log()).join('\n')}`);
      await sleep(50);
    }
  };
  const dispose = async () => {
    isProbing = false;
    await probing;
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => proxy.close(resolve));
    await Promise.all(all.map((pod) => pod.stop()));
  };
  const logs = () => all.map(({ program }) => program.log()).join('');
  try {
    await beforeReady?.(logs);
    await untilReady(pods);
    await untilCalledWithProof(cluster);
  } catch (error) {
    await dispose();
    throw error;
  }

  return {
    get pods() {
      return pods;
    },
    async rollOut() {
      for (const old of pods) {
        const next = await start(false);
        all.push(next);
        pods = [...pods, next];
        await untilReady([next]);
        // As in a cluster, the endpoint is removed and the signal is sent at the same time.
        pods = pods.filter((pod) => pod !== old);
        ready.delete(old);
        await old.stop();
      }
    },
    async syncVolumes() {
      await Promise.all(pods.map(({ container }) => container.syncVolumes()));
    },
    logs,
    [Symbol.asyncDispose]: dispose,
  };
}
