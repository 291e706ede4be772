// Runs the webhook on a control plane without nodes: helm installs the chart; then this file and kubelet.ts play the
// kubelet (environment, volumes, the bundle as a process), kube-proxy (the process listens on the Service's address), and
// the controller that publishes kube-root-ca.crt in each namespace.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { buildWebhook } from '../../webhook/build.ts';
import type { CommandResult, ControlPlane } from './control-plane.ts';
import { CHART, helm } from './helm.ts';
import { type Pod, startPod } from './kubelet.ts';
import type { Program } from './process.ts';

export const RELEASE = 'ecr-anywhere';
export const NAMESPACE = 'ecr-anywhere';
/** Above 1024, so that an ordinary user may listen on it. */
export const SERVICE_PORT = 8443;

export interface WebhookInstallation extends AsyncDisposable {
  /** The current process. */
  readonly program: Program;
  readonly address: { readonly host: string; readonly port: number };
  /** Reads the metrics endpoint. */
  metrics(): Promise<string>;
  /** Upgrades the release with other values. */
  upgrade(values: object): Promise<void>;
  /** Writes ConfigMaps, Secrets and tokens to the process's files, as a kubelet does about once a minute. */
  syncVolumes(): Promise<void>;
  /** Starts the process again after `program.stop()` or a crash, optionally with additional environment variables. */
  start(env?: Readonly<Record<string, string>>): Promise<void>;
  stop(): Promise<void>;
}

export interface WebhookOptions {
  readonly ecrUrl: string;
  /** The directory of another checkout, whose chart and webhook are used in place of this one's. */
  readonly checkout?: string;
  /** Whether the release exists, and is upgraded. */
  readonly upgrades?: boolean;
  /** Additional `--set key=value` of helm. */
  readonly values?: readonly string[];
  /** Additional values, as a document. */
  readonly document?: object;
  /** Additional environment variables of the process. */
  readonly env?: Readonly<Record<string, string>>;
  /** Arguments for Node. */
  readonly nodeArgs?: readonly string[];
}

/** Installs the chart and starts the webhook. */
export async function installWebhook(
  cluster: ControlPlane,
  options: WebhookOptions,
): Promise<WebhookInstallation> {
  await prepareNamespace(cluster);
  await runHelm(cluster, [options.upgrades ? 'upgrade' : 'install', RELEASE], options);
  const host = await serviceAddress(cluster);
  const bundle = join(await mkdtemp(join(cluster.dir, 'webhook-')), 'webhook.mjs');
  const build: typeof buildWebhook = options.checkout
    ? (await import(join(options.checkout, 'webhook/build.ts'))).buildWebhook
    : buildWebhook;
  await build(bundle);
  const pod: Pod = await startPod(cluster, NAMESPACE, RELEASE, {
    bundle,
    ip: host,
    ecrUrl: options.ecrUrl,
    ...(options.env && { env: options.env }),
    ...(options.nodeArgs && { nodeArgs: options.nodeArgs }),
  });
  await untilCalledWithProof(cluster);
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

/**
 * Waits until the API server sends the caller proof, which it does a second or two after the policy is created. It tries a
 * Secret that the webhook denies without a call to AWS.
 */
export async function untilCalledWithProof(cluster: ControlPlane): Promise<void> {
  const policy = ['get', 'mutatingadmissionpolicy', `${RELEASE}-caller-proof`];
  if ((await cluster.kubectl(policy, { mayFail: true })).code !== 0) return;
  const namespace = 'bed-caller-proof';
  const label = async (value: string) => {
    await cluster.kubectl(['label', 'namespace', namespace, '--overwrite', `${NAMESPACE_LABEL.key}${value}`]);
  };
  await cluster.kubectl(['create', 'namespace', namespace], { mayFail: true });
  await label(`=${NAMESPACE_LABEL.value}`);
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  const secret = {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'Opaque',
    metadata: { name: 'x', namespace, labels },
  };
  const deadline = Date.now() + PROOF_WITHIN_MS;
  for (;;) {
    const { stderr } = await cluster.kubectl(['create', '--dry-run=server', '-f', '-'], {
      input: JSON.stringify(secret),
      mayFail: true,
    });
    if (stderr.includes(SECRET_TYPE)) break;
    if (Date.now() > deadline) throw new Error(`the API server does not send the caller proof: ${stderr}`);
    await sleep(100);
  }
  await label('-');
}

const PROOF_WITHIN_MS = 20_000;

/** Creates the release's namespace, with the objects that a cluster's controllers create in each. */
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

/** Runs helm on the chart with the test bed's values, followed by `values` and `document`. */
export async function runHelm(
  cluster: ControlPlane,
  command: readonly string[],
  {
    values = [],
    document = {},
    version = 3,
    mayFail = false,
    checkout,
  }: Pick<WebhookOptions, 'values' | 'document' | 'checkout'> & { version?: 3 | 4; mayFail?: boolean },
): Promise<CommandResult> {
  const dir = await mkdtemp(join(cluster.dir, 'values-'));
  const file = join(dir, 'values.json');
  await writeFile(file, JSON.stringify(document));
  const isSet = (value: RegExp) => values.some((text) => value.test(text));
  const definesPolicy =
    'ownRegistry' in document || 'registries' in document || isSet(/^(ownRegistry|registries)\b/);
  const { refresher } = document as { refresher?: { namespaces?: unknown } };
  // The chart of an earlier checkout may refuse the value, because it does not know it.
  const limitsRefresher =
    checkout !== undefined || refresher?.namespaces !== undefined || isSet(/^refresher\.namespaces\b/);
  const set = [
    'image.repository=registry.example.com/ecr-anywhere',
    'aws.region=eu-central-1',
    // Every namespace, unless the test says which.
    ...(definesPolicy ? [] : ['ownRegistry.namespaces={*}']),
    ...(limitsRefresher ? [] : ['refresher.namespaces={*}']),
    `service.port=${SERVICE_PORT}`,
    ...values,
  ].flatMap((value) => ['--set', value]);
  const args = [
    ...command,
    checkout ? join(checkout, 'webhook/chart') : CHART,
    '--namespace',
    NAMESPACE,
    '--values',
    file,
    ...set,
  ];
  return helm(args, { cluster, version, mayFail });
}

/** Returns a kubeconfig as an operator registers it: the chart's ServiceAccount with a renewable token. */
export async function refresherKubeconfig(cluster: ControlPlane, duration = '168h'): Promise<string> {
  return cluster.kubeconfigForToken(await refresherToken(cluster, duration));
}

/** Requests a renewable token of the refresher's ServiceAccount. */
export async function refresherToken(cluster: ControlPlane, duration: string): Promise<string> {
  const { stdout } = await cluster.kubectl([
    ...['create', 'token', `${RELEASE}-refresher`, '--namespace', NAMESPACE, `--duration=${duration}`],
    ...['--bound-object-kind', 'Secret', '--bound-object-name', `${RELEASE}-refresher-token`],
  ]);
  return stdout.trim();
}

/** Returns the address of the chart's Service. */
export async function serviceAddress(cluster: ControlPlane, name = RELEASE): Promise<string> {
  const { stdout } = await cluster.kubectl([
    ...['get', 'service', name, '--namespace', NAMESPACE, '-o', 'jsonpath={.spec.clusterIP}'],
  ]);
  return stdout;
}
