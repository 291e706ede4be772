// The webhook as a cluster runs it, on a control plane without nodes: the chart is installed by helm; then this file
// and kubelet.ts play kubelet (the Deployment's environment and volumes, the bundle as a process) and kube-proxy (the
// process listens on the Service's own address).
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { connect } from 'node:net';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildWebhook } from '../../webhook/build.ts';
import { type Authority, createAuthority } from './certificates.ts';
import type { ControlPlane } from './control-plane.ts';
import { keepEvidence } from './evidence.ts';
import { CHART, helm } from './helm.ts';
import { containerOf } from './kubelet.ts';
import { type Program, startProgram } from './process.ts';

export const RELEASE = 'ecr-anywhere';
export const NAMESPACE = 'ecr-anywhere';
/** An ordinary user may not listen below 1024, so the Service's port is set above. */
const SERVICE_PORT = 8443;
/** The chart's default. */
const METRICS_PORT = 9090;

export interface WebhookInstallation extends AsyncDisposable {
  /** The process of the moment. */
  readonly program: Program;
  readonly address: { readonly host: string; readonly port: number };
  readonly authority: Authority;
  /** Where the serving certificate lies, as a kubelet would have put it. */
  readonly certsDir: string;
  readonly logPath: string;
  /** What Prometheus would read. */
  metrics(): Promise<string>;
  /** Installs the chart again, with other values. */
  upgrade(values: object): Promise<void>;
  /** Brings ConfigMaps, Secrets and tokens to the process' files, as a kubelet does about once a minute. */
  syncVolumes(): Promise<void>;
  /** Starts the process again, after `program.stop()` or a crash; with more environment variables if given. */
  start(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

export interface WebhookOptions {
  readonly ecrUrl: string;
  /** More of helm's `--set key=value`. */
  readonly values?: readonly string[];
  /** More of helm's values, as a document. */
  readonly document?: object;
  /** More environment variables of the process. */
  readonly env?: Readonly<Record<string, string>>;
  /** For Node itself. */
  readonly nodeArgs?: readonly string[];
}

/** Installs the chart and starts the webhook. */
export async function installWebhook(
  cluster: ControlPlane,
  options: WebhookOptions,
): Promise<WebhookInstallation> {
  const authority = await createAuthority('webhook');
  const { certPem, keyPem } = await authority.serving([`${RELEASE}.${NAMESPACE}.svc`]);
  const dir = await mkdtemp(join(cluster.dir, 'webhook-'));
  const [certPath, keyPath] = [join(dir, 'tls.crt'), join(dir, 'tls.key')];
  await writeFile(certPath, certPem);
  await writeFile(keyPath, keyPem, { mode: 0o600 });
  const namespace = { apiVersion: 'v1', kind: 'Namespace', metadata: { name: NAMESPACE } };
  await cluster.kubectl(['apply', '--server-side', '-f', '-'], { input: JSON.stringify(namespace) });
  await cluster.kubectl([
    ...['create', 'secret', 'tls', `${RELEASE}-tls`, '--namespace', NAMESPACE],
    ...[`--cert=${certPath}`, `--key=${keyPath}`],
  ]);
  const deploy = async (command: readonly string[], document: object) => {
    const file = join(dir, 'values.json');
    await writeFile(file, JSON.stringify(document));
    const set = [
      'image.repository=registry.example.com/ecr-anywhere',
      'aws.region=eu-central-1',
      `service.port=${SERVICE_PORT}`,
      `tls.caBundle=${Buffer.from(authority.caPem).toString('base64')}`,
      ...(options.values ?? []),
    ];
    const args = [...command, RELEASE, CHART, '--namespace', NAMESPACE, '--values', file];
    await helm([...args, ...set.flatMap((value) => ['--set', value])], { cluster });
  };
  await deploy(['install'], options.document ?? {});
  const { stdout: host } = await cluster.kubectl([
    ...['get', 'service', RELEASE, '--namespace', NAMESPACE, '-o', 'jsonpath={.spec.clusterIP}'],
  ]);
  const bundle = join(dir, 'webhook.mjs');
  await buildWebhook(bundle);

  const logPath = join(dir, 'webhook.log');
  const root = join(dir, 'root');
  const container = await containerOf(cluster, NAMESPACE, RELEASE, root);
  await container.syncVolumes();
  const start = async (more: Readonly<Record<string, string>> = {}) => {
    const env = { ...(await container.environment()), ...options.env, ...more };
    const hasIdentity = ['AWS_WEB_IDENTITY_TOKEN_FILE', 'AWS_CONTAINER_CREDENTIALS_FULL_URI'].some(
      (name) => name in env,
    );
    return startProgram(
      `the webhook of ${cluster.name}`,
      node(),
      ['--enable-source-maps', ...(options.nodeArgs ?? []), bundle],
      {
        env: {
          ...(!hasIdentity && { AWS_ACCESS_KEY_ID: 'bed', AWS_SECRET_ACCESS_KEY: 'bed' }),
          // How the process reaches "AWS".
          AWS_ENDPOINT_URL_ECR: options.ecrUrl,
          AWS_ENDPOINT_URL_ECR_PUBLIC: options.ecrUrl,
          AWS_ENDPOINT_URL_STS: options.ecrUrl,
          ...env,
          // A pod has an address of its own, and the Service another port.
          HOST: host,
          PORT: String(SERVICE_PORT),
        },
        logPath,
        isReady: () => isListening(host, SERVICE_PORT),
      },
    );
  };
  let program = await start();
  const metrics = async () => (await fetch(`http://${host}:${METRICS_PORT}/metrics`)).text();
  const stop = async () => {
    if (program.isRunning()) keepEvidence('metrics', 'webhook', await metrics());
    await program.stop();
    await rm(bundle, { force: true });
  };
  return {
    get program() {
      return program;
    },
    address: { host, port: SERVICE_PORT },
    authority,
    certsDir: join(root, 'etc/webhook/certs'),
    logPath,
    metrics,
    upgrade: (values) => deploy(['upgrade'], values),
    syncVolumes: container.syncVolumes,
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
