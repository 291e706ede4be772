// The webhook as a cluster runs it, on a control plane without nodes: the chart is installed by helm; then this file
// and kubelet.ts play kubelet (the Deployment's environment and volumes, the bundle as a process), kube-proxy (the
// process listens on the Service's own address), and the controller that brings each namespace its kube-root-ca.crt.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { buildWebhook } from '../../webhook/build.ts';
import type { CommandResult, ControlPlane } from './control-plane.ts';
import { CHART, helm } from './helm.ts';
import { type Pod, startPod } from './kubelet.ts';
import type { Program } from './process.ts';

export const RELEASE = 'ecr-anywhere';
export const NAMESPACE = 'ecr-anywhere';
/** An ordinary user may not listen below 1024, so the Service's port is set above. */
export const SERVICE_PORT = 8443;

export interface WebhookInstallation extends AsyncDisposable {
  /** The process of the moment. */
  readonly program: Program;
  readonly address: { readonly host: string; readonly port: number };
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
  await prepareNamespace(cluster);
  await runHelm(cluster, ['install', RELEASE], options);
  const host = await serviceAddress(cluster);
  const bundle = join(await mkdtemp(join(cluster.dir, 'webhook-')), 'webhook.mjs');
  await buildWebhook(bundle);
  const pod: Pod = await startPod(cluster, NAMESPACE, RELEASE, {
    bundle,
    ip: host,
    ecrUrl: options.ecrUrl,
    ...(options.env && { env: options.env }),
    ...(options.nodeArgs && { nodeArgs: options.nodeArgs }),
  });
  const stop = async () => {
    await pod.stop();
    await rm(bundle, { force: true });
  };
  return {
    get program() {
      return pod.program;
    },
    address: { host, port: SERVICE_PORT },
    metrics: pod.metrics,
    async upgrade(document) {
      await runHelm(cluster, ['upgrade', RELEASE], { ...options, document });
    },
    syncVolumes: pod.container.syncVolumes,
    start: pod.restart,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

/** Makes the release's namespace, with what a cluster's controllers put into each. */
export async function prepareNamespace(cluster: ControlPlane, name = NAMESPACE): Promise<void> {
  const objects = [
    { apiVersion: 'v1', kind: 'Namespace', metadata: { name } },
    {
      apiVersion: 'v1',
      kind: 'ConfigMap',
      metadata: { name: 'kube-root-ca.crt', namespace: name },
      data: { 'ca.crt': cluster.caPem },
    },
  ];
  for (const object of objects)
    await cluster.kubectl(['apply', '--server-side', '-f', '-'], { input: JSON.stringify(object) });
}

/** Runs helm on the chart with what the bed has to set; `values` and `document` come after it. */
export async function runHelm(
  cluster: ControlPlane,
  command: readonly string[],
  {
    values = [],
    document = {},
    version = 3,
    mayFail = false,
  }: Pick<WebhookOptions, 'values' | 'document'> & { version?: 3 | 4; mayFail?: boolean },
): Promise<CommandResult> {
  const dir = await mkdtemp(join(cluster.dir, 'values-'));
  const file = join(dir, 'values.json');
  await writeFile(file, JSON.stringify(document));
  const set = [
    'image.repository=registry.example.com/ecr-anywhere',
    'aws.region=eu-central-1',
    `service.port=${SERVICE_PORT}`,
    ...values,
  ].flatMap((value) => ['--set', value]);
  const args = [...command, CHART, '--namespace', NAMESPACE, '--values', file, ...set];
  return helm(args, { cluster, version, mayFail });
}

/** A kubeconfig as an operator registers it: the chart's ServiceAccount with a token that can be renewed. */
export async function refresherKubeconfig(cluster: ControlPlane, duration = '168h'): Promise<string> {
  return cluster.kubeconfigForToken(await refresherToken(cluster, duration));
}

/** Such a token. */
export async function refresherToken(cluster: ControlPlane, duration: string): Promise<string> {
  const { stdout } = await cluster.kubectl([
    ...['create', 'token', `${RELEASE}-refresher`, '--namespace', NAMESPACE, `--duration=${duration}`],
    ...['--bound-object-kind', 'Secret', '--bound-object-name', `${RELEASE}-refresher-token`],
  ]);
  return stdout.trim();
}

/** The address of the chart's Service. */
export async function serviceAddress(cluster: ControlPlane, name = RELEASE): Promise<string> {
  const { stdout } = await cluster.kubectl([
    ...['get', 'service', name, '--namespace', NAMESPACE, '-o', 'jsonpath={.spec.clusterIP}'],
  ]);
  return stdout;
}
