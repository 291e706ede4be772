// Plays the kubelet for a Deployment's container: derives its environment, writes its volumes below a directory, rewrites
// the paths in the environment to that directory, and runs a process that listens on the pod's address.
import { mkdir, mkdtemp, rename, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { type CommandResult, type ControlPlane, runCommand } from './control-plane.ts';
import { keepEvidence } from './evidence.ts';
import { type Program, startProgram } from './process.ts';

interface Volume {
  readonly name: string;
  readonly secret?: { readonly secretName: string };
  readonly configMap?: {
    readonly name: string;
    readonly items?: readonly { readonly key: string; readonly path: string }[];
  };
  readonly projected?: {
    readonly sources: readonly {
      readonly serviceAccountToken?: {
        readonly audience?: string;
        readonly expirationSeconds: number;
        readonly path: string;
      };
      readonly configMap?: {
        readonly name: string;
        readonly items: readonly { readonly key: string; readonly path: string }[];
      };
    }[];
  };
}

interface PodSpec {
  readonly serviceAccountName: string;
  readonly volumes: readonly Volume[];
  readonly containers: readonly [
    {
      readonly env: readonly { readonly name: string; readonly value?: string }[];
      readonly envFrom?: readonly { readonly secretRef: { readonly name: string } }[];
      readonly volumeMounts: readonly { readonly name: string; readonly mountPath: string }[];
    },
  ];
}

export interface Container {
  /** The environment that the current Deployment defines. */
  environment(): Promise<Record<string, string>>;
  /** Writes the current content of the volumes. */
  syncVolumes(): Promise<void>;
}

/**
 * Reads the only container of a Deployment's pods, or of a pod.
 *
 * @param root the directory that takes the place of the container's /
 */
export function containerOf(
  cluster: ControlPlane,
  namespace: string,
  owner: { readonly kind: 'deployment' | 'pod'; readonly name: string },
  root: string,
): Container {
  const read = async <Answer>(...what: readonly string[]) => {
    const { stdout } = await cluster.kubectl(['get', ...what, '--namespace', namespace, '-o', 'json']);
    return JSON.parse(stdout) as Answer;
  };
  const spec = async () => {
    const { spec: found } = await read<{ spec: PodSpec & { template?: { spec: PodSpec } } }>(
      owner.kind,
      owner.name,
    );
    return found.template?.spec ?? found;
  };

  const configMapData = async (name: string) =>
    (await read<{ data: Record<string, string> }>('configmap', name)).data;

  /** Returns a volume's content by file name. */
  const contents = async (volume: Volume, account: string): Promise<Record<string, Buffer>> => {
    const { secret, configMap, projected } = volume;
    if (secret) return decoded(await read<{ data: Record<string, string> }>('secret', secret.secretName));
    const files: Record<string, Buffer> = {};
    if (configMap) {
      for (const [file, text] of Object.entries(await configMapData(configMap.name)))
        files[configMap.items?.find(({ key }) => key === file)?.path ?? file] = Buffer.from(text);
    }
    for (const { serviceAccountToken, configMap: source } of projected?.sources ?? []) {
      if (source) {
        const data = await configMapData(source.name);
        for (const { key, path } of source.items) files[path] = Buffer.from(data[key] ?? '');
      }
      if (!serviceAccountToken) continue;
      const { audience, expirationSeconds, path } = serviceAccountToken;
      const { stdout } = await cluster.kubectl([
        ...['create', 'token', account, '--namespace', namespace, `--duration=${expirationSeconds}s`],
        ...(audience === undefined ? [] : [`--audience=${audience}`]),
        ...(owner.kind === 'pod' ? ['--bound-object-kind=Pod', `--bound-object-name=${owner.name}`] : []),
      ]);
      files[path] = Buffer.from(stdout.trim());
    }
    return files;
  };

  return {
    async environment() {
      const { env, envFrom = [], volumeMounts } = (await spec()).containers[0];
      const secrets = await Promise.all(
        envFrom.map(async ({ secretRef }) =>
          decoded(await read<{ data: Record<string, string> }>('secret', secretRef.name)),
        ),
      );
      const all = [
        ...secrets.flatMap((secret) => Object.entries(secret).map(([name, value]) => [name, String(value)])),
        ...env.map(({ name, value = '' }) => [name, value]),
      ] as [string, string][];
      const isMounted = (value: string) =>
        volumeMounts.some(({ mountPath }) => `${value}/`.startsWith(`${mountPath}/`));
      const { hostname, port } = new URL(cluster.server);
      return Object.fromEntries([
        ...all.map(([name, value]) => [name, isMounted(value) ? join(root, value) : value]),
        // Kubernetes sets these in every container.
        ['KUBERNETES_SERVICE_HOST', hostname],
        ['KUBERNETES_SERVICE_PORT', port],
      ]);
    },
    async syncVolumes() {
      const { containers, volumes, serviceAccountName } = await spec();
      for (const { name, mountPath } of containers[0].volumeMounts) {
        const volume = volumes.find((candidate) => candidate.name === name);
        if (!volume) throw new Error(`the ${owner.kind} mounts ${name}, which is none of its volumes`);
        for (const [file, content] of Object.entries(await contents(volume, serviceAccountName))) {
          const path = join(root, mountPath, file);
          await mkdir(dirname(path), { recursive: true });
          await writeFile(`${path}.new`, content, { mode: 0o600 });
          await rename(`${path}.new`, path);
        }
      }
    },
  };
}

export interface Pod extends AsyncDisposable {
  readonly ip: string;
  /** The current process. */
  readonly program: Program;
  readonly container: Container;
  /** Runs the readiness probe. */
  isReady(): Promise<boolean>;
  /** Reads the metrics endpoint. */
  metrics(): Promise<string>;
  /** Starts the process again after it ended, optionally with additional environment variables. */
  restart(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

export interface PodOptions {
  /** Path of the bundle that takes the place of the image. */
  readonly bundle: string;
  /** The pod's loopback address. */
  readonly ip: string;
  /** URL of the AWS endpoint. */
  readonly ecrUrl: string;
  /** Additional environment variables, which override the Deployment's. */
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments for Node. */
  readonly nodeArgs?: readonly string[];
  /** False: do not wait until it is ready. */
  readonly waitsForReady?: boolean;
}

/** Runs a Deployment's container as a process. @throws Error with the end of its log if it does not become ready */
export async function startPod(
  cluster: ControlPlane,
  namespace: string,
  deployment: string,
  { bundle, ip, ecrUrl, env: given, nodeArgs = [], waitsForReady = true }: PodOptions,
): Promise<Pod> {
  const dir = await mkdtemp(join(cluster.dir, 'pod-'));
  const owner = { kind: 'deployment', name: deployment } as const;
  const container = containerOf(cluster, namespace, owner, join(dir, 'root'));
  await container.syncVolumes();
  let ports = { https: 0, metrics: 0 };
  const isReady = () => probe(ip, ports.https);
  const start = async (more: Readonly<Record<string, string>> = {}) => {
    const own = await container.environment();
    const env: Record<string, string> = { ...outside(own, ecrUrl), ...own, ...given, ...more, HOST: ip };
    ports = { https: Number(env.PORT), metrics: Number(env.METRICS_PORT ?? 0) };
    return startProgram(
      `the webhook of ${cluster.name} at ${ip}`,
      NODE,
      ['--enable-source-maps', ...nodeArgs, bundle],
      {
        env,
        logPath: join(dir, 'webhook.log'),
        isReady: waitsForReady ? isReady : async () => true,
      },
    );
  };
  let program = await start();
  const metrics = async () => (await fetch(`http://${ip}:${ports.metrics}/metrics`)).text();
  const stop = async () => {
    if (program.isRunning() && ports.metrics > 0)
      keepEvidence('metrics', 'webhook', await metrics().catch(() => ''));
    await program.stop();
  };
  return {
    ip,
    get program() {
      return program;
    },
    container,
    isReady,
    metrics,
    async restart(more) {
      program = await start(more);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Environment variables that lead to the AWS endpoint, with credentials unless the Deployment defines some. */
function outside(own: Readonly<Record<string, string>>, ecrUrl: string): Record<string, string> {
  const hasIdentity = ['AWS_WEB_IDENTITY_TOKEN_FILE', 'AWS_CONTAINER_CREDENTIALS_FULL_URI'].some(
    (name) => name in own,
  );
  return {
    ...(!hasIdentity && { AWS_ACCESS_KEY_ID: 'bed', AWS_SECRET_ACCESS_KEY: 'bed' }),
    AWS_ENDPOINT_URL_ECR: ecrUrl,
    AWS_ENDPOINT_URL_ECR_PUBLIC: ecrUrl,
    AWS_ENDPOINT_URL_STS: ecrUrl,
  };
}

/**
 * Waits for a pod without a Deployment, runs its container to completion, and writes the result to the pod's status.
 *
 * @param bundle path of the program that takes the place of the image's
 * @param services addresses of Services, by the host names that the pod uses
 */
export async function runPodToItsEnd(
  cluster: ControlPlane,
  namespace: string,
  name: string,
  bundle: string,
  services: Readonly<Record<string, string>>,
): Promise<CommandResult> {
  const kubectl = (args: readonly string[], mayFail = false) =>
    cluster.kubectl([...args, '--namespace', namespace], { mayFail });
  const deadline = Date.now() + POD_WITHIN_MS;
  while ((await kubectl(['get', 'pod', name], true)).code !== 0) {
    if (Date.now() > deadline) throw new Error(`there is no pod ${name}`);
    await sleep(100);
  }
  const dir = await mkdtemp(join(cluster.dir, 'pod-'));
  const container = containerOf(cluster, namespace, { kind: 'pod', name }, join(dir, 'root'));
  await container.syncVolumes();
  const env = { ...(await container.environment()), SERVICES: JSON.stringify(services) };
  const result = await runCommand(NODE, ['--import', RESOLVE_SERVICES, bundle], env);
  keepEvidence('log', name, result.stdout + result.stderr);
  const status = { phase: result.code === 0 ? 'Succeeded' : 'Failed' };
  await kubectl([
    'patch',
    'pod',
    name,
    '--subresource=status',
    '--type=merge',
    '-p',
    JSON.stringify({ status }),
  ]);
  return result;
}

const POD_WITHIN_MS = 30_000;
const RESOLVE_SERVICES = fileURLToPath(new URL('./resolve-services.ts', import.meta.url));
const NODE = fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url));

/** Probes as the kubelet does: over HTTPS, without verifying the certificate. */
function probe(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const options = { host, port, path: '/readyz', rejectUnauthorized: false, agent: false, timeout: 3_000 };
    const asked = request(options, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    asked.on('timeout', () => asked.destroy());
    asked.on('error', () => resolve(false));
    asked.end();
  });
}

function decoded({ data }: { data: Record<string, string> }): Record<string, Buffer> {
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64')]));
}
