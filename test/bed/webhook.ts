// The webhook as a cluster runs it, on a control plane without nodes: the chart is installed by helm; then this file
// plays kubelet (the Deployment's environment and volumes, the bundle as a process) and kube-proxy (the process
// listens on the Service's own address).
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWebhook } from '../../webhook/build.ts';
import { type Authority, createAuthority } from './certificates.ts';
import type { ControlPlane } from './control-plane.ts';
import { CHART, helm } from './helm.ts';
import { type Program, startProgram } from './process.ts';

export const RELEASE = 'ecr-anywhere';
export const NAMESPACE = 'ecr-anywhere';
/** An ordinary user may not listen below 1024, so the Service's port is set above. */
const SERVICE_PORT = 8443;

export interface WebhookInstallation extends AsyncDisposable {
  /** The process of the moment. */
  readonly program: Program;
  readonly address: { readonly host: string; readonly port: number };
  readonly authority: Authority;
  /** Where the serving certificate lies, as a kubelet would have put it. */
  readonly certsDir: string;
  readonly logPath: string;
  /** Starts the process again, after `program.stop()` or a crash; with more environment variables if given. */
  start(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

export interface WebhookOptions {
  readonly ecrUrl: string;
  /** More of helm's `--set key=value`. */
  readonly values?: readonly string[];
  /** More environment variables of the process. */
  readonly env?: Readonly<Record<string, string>>;
}

/** Installs the chart and starts the webhook. */
export async function installWebhook(
  cluster: ControlPlane,
  options: WebhookOptions,
): Promise<WebhookInstallation> {
  const authority = await createAuthority('webhook');
  const { certPem, keyPem } = await authority.serving([`${RELEASE}.${NAMESPACE}.svc`]);
  const dir = await mkdtemp(join(cluster.dir, 'webhook-'));
  const certsDir = join(dir, 'certs');
  await mkdir(certsDir);
  await writeFile(join(certsDir, 'tls.crt'), certPem);
  await writeFile(join(certsDir, 'tls.key'), keyPem, { mode: 0o600 });
  await helm(
    [
      ...['install', RELEASE, CHART, '--namespace', NAMESPACE, '--create-namespace'],
      ...['--set', 'image.repository=registry.example.com/ecr-anywhere', '--set', 'aws.region=eu-central-1'],
      ...[
        '--set',
        `service.port=${SERVICE_PORT}`,
        '--set',
        `tls.caBundle=${Buffer.from(authority.caPem).toString('base64')}`,
      ],
      ...(options.values ?? []).flatMap((value) => ['--set', value]),
    ],
    { cluster },
  );
  const { stdout: host } = await cluster.kubectl([
    ...['get', 'service', RELEASE, '--namespace', NAMESPACE, '-o', 'jsonpath={.spec.clusterIP}'],
  ]);
  const bundle = join(dir, 'webhook.mjs');
  await buildWebhook(bundle);

  const logPath = join(dir, 'webhook.log');
  const start = async (env: Readonly<Record<string, string>> = {}) =>
    startProgram(`the webhook of ${cluster.name}`, node(), ['--enable-source-maps', bundle], {
      env: {
        ...(await containerEnvironment(cluster)),
        // Where a kubelet would have mounted the volume, and how the process reaches "AWS".
        CERT_FILE: join(certsDir, 'tls.crt'),
        KEY_FILE: join(certsDir, 'tls.key'),
        HOST: host,
        PORT: String(SERVICE_PORT),
        AWS_ENDPOINT_URL_ECR: options.ecrUrl,
        AWS_ACCESS_KEY_ID: 'bed',
        AWS_SECRET_ACCESS_KEY: 'bed',
        ...options.env,
        ...env,
      },
      logPath,
      isReady: () => isListening(host, SERVICE_PORT),
    });
  let program = await start();
  const stop = async () => {
    await program.stop();
    await rm(bundle, { force: true });
  };
  return {
    get program() {
      return program;
    },
    address: { host, port: SERVICE_PORT },
    authority,
    certsDir,
    logPath,
    async start(env) {
      program = await start(env);
    },
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** A kubeconfig as an operator registers it: the chart's ServiceAccount with a token of an hour. */
export async function refresherKubeconfig(cluster: ControlPlane): Promise<string> {
  const args = ['create', 'token', `${RELEASE}-refresher`, '--namespace', NAMESPACE, '--duration=1h'];
  return cluster.kubeconfigForToken((await cluster.kubectl(args)).stdout.trim());
}

function node(): string {
  return fileURLToPath(new URL('../../node_modules/.bin/node', import.meta.url));
}

/** The environment that the installed Deployment gives its container. */
async function containerEnvironment(cluster: ControlPlane): Promise<Record<string, string>> {
  const { stdout } = await cluster.kubectl([
    'get',
    'deployment',
    RELEASE,
    '--namespace',
    NAMESPACE,
    '-o',
    'json',
  ]);
  const { env } = JSON.parse(stdout).spec.template.spec.containers[0] as {
    env: { name: string; value?: string }[];
  };
  return Object.fromEntries(env.map(({ name, value }) => [name, value ?? '']));
}

function isListening(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect({ host, port, timeout: 1_000 });
    const done = (result: boolean) => {
      socket.destroy();
      resolve(result);
    };
    socket.on('connect', () => done(true));
    socket.on('timeout', () => done(false));
    socket.on('error', () => done(false));
  });
}
