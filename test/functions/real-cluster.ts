// A real control plane with the chart and the webhook, for tests of the refresher. It creates many Secrets of any age fast,
// removes and restores the webhook, and runs the refresher.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import pMap from 'p-map';
import { vi } from 'vitest';
import { formatTime } from '../../contract/freshness.ts';
import {
  ANNOTATION,
  CLUSTERS_PREFIX,
  NAMESPACE_LABEL,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../contract/names.ts';
import type { Eks } from '../../functions/refresher/access/eks.ts';
import { type Keyless, keylessTokens } from '../../functions/refresher/access/keyless.ts';
import { readEvent } from '../../functions/refresher/event.ts';
import type { ClusterReport } from '../../functions/refresher/run/cluster-report.ts';
import { run } from '../../functions/refresher/run/run.ts';
import { type Admin, connectAdmin } from '../bed/admin.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../bed/aws-endpoint.ts';
import type { Authority } from '../bed/certificates.ts';
import { type ControlPlane, startControlPlane } from '../bed/control-plane.ts';
import { keepEvidence } from '../bed/evidence.ts';
import { installWebhook, refresherKubeconfig, type WebhookInstallation } from '../bed/webhook.ts';
import type { VirtualClock } from '../virtual-clock.ts';
import { startSecretsManager, type Value } from './secrets-manager.ts';

const WAIT = { timeout: 20_000, interval: 50 };

export const HOUR = 3_600_000;

export interface SecretObject {
  readonly metadata: {
    readonly name: string;
    readonly namespace: string;
    readonly resourceVersion: string;
    readonly annotations?: Readonly<Record<string, string>>;
  };
  readonly data?: Readonly<Record<string, string>>;
}

export interface Manifest {
  readonly namespace: string;
  readonly name: string;
  readonly annotations?: Readonly<Record<string, string>>;
  /** The docker config. */
  readonly config?: object;
  readonly immutable?: boolean;
  /** Whether it has the label of a managed Secret. Default: true. */
  readonly managed?: boolean;
}

export interface RealCluster extends AsyncDisposable {
  readonly controlPlane: ControlPlane;
  readonly webhook: WebhookInstallation;
  readonly ecr: AwsEndpoint;
  /** The registered kubeconfig of the refresher. */
  readonly kubeconfig: string;
  readonly admin: Admin;
  createNamespace(name: string, isEnabled?: boolean): Promise<void>;
  createSecrets(manifests: readonly Manifest[]): Promise<void>;
  /** All Secrets of the enabled namespaces, by namespace/name. */
  secrets(): Promise<Map<string, SecretObject>>;
  /** Runs a function while there is no MutatingWebhookConfiguration. */
  withoutWebhook(work: () => Promise<void>): Promise<void>;
  /** Sets the expiry of Secrets, in milliseconds from now. */
  age(expiries: ReadonlyMap<string, number>): Promise<void>;
  /** Starts a new webhook process, with an empty cache. */
  restartWebhook(env?: Readonly<Record<string, string>>): Promise<void>;
  /** Runs the refresher once. */
  refresh(event?: object, kubeconfig?: string): Promise<ClusterReport>;
}

export interface RealClusterOptions {
  /** More `--set key=value` for helm. */
  readonly values?: readonly string[];
  /** More values for helm, as a document. */
  readonly document?: object;
  /** The clock of the webhook, its AWS and the refresher; the API server has its own. */
  readonly clock?: VirtualClock;
  /** The API server's AuthenticationConfiguration (YAML). */
  readonly authentication?: string;
  /** The authority of the API server's certificates. Default: a new one. */
  readonly authority?: Authority;
}

/** Starts it. */
export async function startRealCluster({
  values = [],
  document = {},
  clock,
  authentication,
  authority,
}: RealClusterOptions = {}): Promise<RealCluster> {
  const stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const ecr = stack.use(await startAwsEndpoint(clock && { now: clock.now }));
  const controlPlane = stack.use(
    await startControlPlane({
      name: 'test',
      dir,
      ...(authentication !== undefined && { authentication }),
      ...(authority && { authority }),
    }),
  );
  const webhook = stack.use(
    await installWebhook(controlPlane, {
      ecrUrl: ecr.url,
      // With the caller proof, the API server stores no managed Secret without the webhook; see `withoutWebhook`.
      values: ['callerProof.mode=disabled', 'acceptAnyCaller=true', ...values],
      document,
      ...(clock && { env: clock.env, nodeArgs: clock.nodeArgs }),
    }),
  );
  const kubeconfig = await refresherKubeconfig(controlPlane);
  const { admin } = stack.use(await connectAdmin(controlPlane));

  const withoutWebhook = async (work: () => Promise<void>) => {
    const path = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations';
    const { items } = await admin<{ items: { metadata: object }[] }>('GET', path);
    await admin('DELETE', path);
    // The API server applies the deletion, and the creation below, with a delay.
    await vi.waitUntil(async () => !(await isMutated()), WAIT);
    try {
      await work();
    } finally {
      for (const item of items) {
        await admin('POST', path, { ...item, metadata: { ...item.metadata, resourceVersion: undefined } });
      }
      await vi.waitUntil(isMutated, WAIT);
    }
  };
  const isMutated = async () => {
    const made = await admin<SecretObject>('POST', '/api/v1/namespaces/probe/secrets?dryRun=All', {
      type: SECRET_TYPE,
      metadata: { name: 'probe', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
      data: { [SECRET_KEY]: Buffer.from('{"auths":{}}').toString('base64') },
    });
    return made.metadata.annotations?.[ANNOTATION.fingerprint] !== undefined;
  };

  const cluster: RealCluster = {
    controlPlane,
    webhook,
    ecr,
    kubeconfig,
    admin,
    async createNamespace(name, isEnabled = true) {
      const labels = isEnabled ? { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } : {};
      await admin('POST', '/api/v1/namespaces', { metadata: { name, labels } });
    },
    async createSecrets(manifests) {
      await pMap(
        manifests,
        ({ namespace, name, annotations, config, immutable, managed = true }) =>
          admin('POST', `/api/v1/namespaces/${namespace}/secrets`, {
            type: SECRET_TYPE,
            metadata: {
              name,
              annotations,
              ...(managed && { labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } }),
            },
            ...(config && {
              data: { [SECRET_KEY]: Buffer.from(JSON.stringify(config)).toString('base64') },
            }),
            ...(immutable && { immutable }),
          }),
        { concurrency: 16 },
      );
    },
    async secrets() {
      const namespaces = await admin<{ items: { metadata: { name: string } }[] }>(
        'GET',
        `/api/v1/namespaces?labelSelector=${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`,
      );
      const lists = await pMap(
        namespaces.items.filter(({ metadata }) => metadata.name !== 'probe'),
        ({ metadata }) =>
          admin<{ items: SecretObject[] }>('GET', `/api/v1/namespaces/${metadata.name}/secrets`),
        { concurrency: 8 },
      );
      const all = lists.flatMap(({ items }) => items);
      return new Map(all.map((secret) => [`${secret.metadata.namespace}/${secret.metadata.name}`, secret]));
    },
    withoutWebhook,
    age: (expiries) =>
      withoutWebhook(async () => {
        await pMap(
          expiries,
          ([path, expiresInMs]) =>
            admin('PATCH', secretPath(path), {
              metadata: { annotations: { [ANNOTATION.expiresAt]: formatTime(Date.now() + expiresInMs) } },
            }),
          { concurrency: 16 },
        );
      }),
    async restartWebhook(env) {
      webhook.program.signal('SIGKILL');
      await webhook.program.ended;
      await webhook.start(env);
    },
    async refresh(event = {}, registered = kubeconfig) {
      const [report] = await runOn({ cluster: registered }, event, undefined, clock?.now);
      if (!report) throw new Error('no report');
      return report;
    },
    [Symbol.asyncDispose]: () => stack.disposeAsync(),
  };
  await cluster.createNamespace('probe');
  await vi.waitUntil(isMutated, WAIT);
  return cluster;
}

/** The API path of a Secret, by namespace/name. */
export function secretPath(path: string): string {
  const [namespace, name] = path.split('/');
  return `/api/v1/namespaces/${namespace}/secrets/${name}`;
}

/** For clusters whose kubeconfigs contain a credential. */
export const NO_EKS: Eks = {
  access: () => Promise.reject(new Error('no EKS in this test')),
  tagged: () => Promise.reject(new Error('no EKS in this test')),
  accessTagged: () => Promise.reject(new Error('no EKS in this test')),
};

/** For clusters that are not keyless. */
export const NO_KEYLESS: Keyless = keylessTokens({
  region: 'eu-central-1',
  stage: undefined,
  clusterDeadlineMs: 20_000,
});

/** Runs the refresher once over clusters that are registered with these values. @returns the reports as they are logged */
export async function runOn(
  clusters: Readonly<Record<string, Value>>,
  event: object = {},
  clusterDeadlineMs = 60_000,
  now: () => number = Date.now,
): Promise<ClusterReport[]> {
  const secrets = Object.entries(clusters).map(([name, value]) => [`${CLUSTERS_PREFIX}${name}`, value]);
  await using registry = await startSecretsManager(Object.fromEntries(secrets));
  const logged = new Map<string, ClusterReport>();
  const returned = await run(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS },
    readEvent(event),
    {
      clusterDeadlineMs,
      clusterConcurrency: 10,
      region: 'eu-central-1',
      allowLocalServers: true,
      eksDiscovery: [],
    },
    now,
    AbortSignal.timeout(300_000),
    (report) => logged.set(report.cluster, report),
  );
  keepEvidence('report', 'run', JSON.stringify(returned));
  return returned.map((report) => logged.get(report.cluster) ?? report);
}

export { outcomesOf } from '../../functions/refresher/run/cluster-report.ts';
