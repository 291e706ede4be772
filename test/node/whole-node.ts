// Starts everything that a whole node needs, with visible steps: the registries, the images, the cluster, and the local AWS with
// the deployed stack. Used by the tests of this folder and `npm run demo -- --node`.
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ListrTask } from 'listr2';
import { SECRET_KEY } from '../../contract/names.ts';
import manifest from '../../package.json' with { type: 'json' };
import { type AwsEndpoint, startAwsEndpoint } from '../bed/aws-endpoint.ts';
import type { ControlPlane } from '../bed/control-plane.ts';
import { deployStack } from '../bed/deploy.ts';
import type { Deployment } from '../bed/deployment.ts';
import { startEmulator } from '../bed/emulator.ts';
import { CHART, helm } from '../bed/helm.ts';
import { tools } from '../bed/toolchain.ts';
import { NAMESPACE, RELEASE, refresherKubeconfig } from '../bed/webhook.ts';
import { buildPauseImage, buildWebhookImage, PAUSE_IMAGE, PRIVATE_IMAGE, WEBHOOK_IMAGE } from './images.ts';
import { startNode } from './node.ts';
import { type Registries, startRegistries } from './registry.ts';
import { ADDRESS } from './settings.ts';

/** How a Pod of `runPod` differs from the one that names no Secret. */
export interface PodOptions {
  /** The Secret that it names. */
  readonly pullSecret?: string;
}

/** A whole node. Disposal ends its programs; its files end with the machine (machine.ts). */
export class WholeNode implements AsyncDisposable {
  readonly dir: string;
  readonly #stack = new AsyncDisposableStack();
  #ecr: AwsEndpoint | undefined;
  #registries: Registries | undefined;
  #cluster: ControlPlane | undefined;
  #deployment: Deployment | undefined;

  private constructor(dir: string) {
    this.dir = dir;
  }

  /** Creates the directory; starts nothing. */
  static async create(): Promise<WholeNode> {
    return new WholeNode(await mkdtemp(join(tmpdir(), 'node-')));
  }

  get ecr(): AwsEndpoint {
    return isUp(this.#ecr);
  }

  get registries(): Registries {
    return isUp(this.#registries);
  }

  get cluster(): ControlPlane {
    return isUp(this.#cluster);
  }

  get deployment(): Deployment {
    return isUp(this.#deployment);
  }

  /** The start-up steps, for a progress listing: `registries` first, then the others side by side. */
  get steps(): Readonly<Record<'registries' | 'images' | 'cluster' | 'aws', ListrTask>> {
    return {
      registries: {
        title: 'ECR stand-in, and a private registry with the host name of ECR',
        task: async () => {
          this.#ecr = this.#stack.use(await startAwsEndpoint({ address: ADDRESS }));
          this.#registries = this.#stack.use(await startRegistries(join(this.dir, 'registry'), this.#ecr));
        },
      },
      images: {
        title: "npm run image: the webhook's image; a private image",
        task: async () => {
          const dir = join(this.dir, 'images');
          await buildPauseImage(dir, this.registries.address);
          await buildWebhookImage(dir, this.registries.address, manifest.version);
        },
      },
      cluster: {
        title: 'Kubernetes node: containerd, kubelet, kube-proxy, scheduler, controllers, DNS',
        task: async () => {
          const options = { dir: join(this.dir, 'node'), pauseImage: PAUSE_IMAGE };
          this.#cluster = this.#stack.use(await startNode(options));
        },
      },
      aws: {
        title: 'Local AWS that enforces IAM; cdk bootstrap, cdk deploy',
        task: async () => {
          const emulator = this.#stack.use(
            await startEmulator({ dir: join(this.dir, 'aws'), python: tools().python }),
          );
          this.#deployment = await deployStack(emulator, {
            context: { rateMinutes: 1, allowLocalServers: true },
          });
        },
      },
    };
  }

  /**
   * Runs helm with the chart, and waits until the webhook is ready.
   *
   * @param enabled the namespaces that get the registry and that the refresher serves; `*`: all
   * @param values additional values of the chart
   */
  async helm(
    command: 'install' | 'upgrade',
    { enabled, values = {} }: { readonly enabled: readonly string[]; readonly values?: object },
  ): Promise<void> {
    const all = {
      image: { repository: WEBHOOK_IMAGE },
      aws: { region: 'eu-central-1' },
      ownRegistry: { namespaces: enabled },
      refresher: { namespaces: enabled },
      ...(enabled[0] !== '*' && { test: { namespace: enabled[0] } }),
      extraEnv: [
        { name: 'AWS_ACCESS_KEY_ID', value: 'bed' },
        { name: 'AWS_SECRET_ACCESS_KEY', value: 'bed' },
        ...Object.entries(this.ecr.env).map(([name, value]) => ({ name, value })),
      ],
      ...values,
    };
    const file = join(this.dir, 'values.json');
    await writeFile(file, JSON.stringify(all));
    await helm(
      [command, RELEASE, CHART, '--namespace', NAMESPACE, '--values', file, '--wait', '--timeout=2m'],
      { cluster: this.cluster },
    );
  }

  /** Registers the cluster, and has the schedule invoke the function once a minute. */
  async startRefresher(): Promise<void> {
    await this.deployment.registerCluster('node', await refresherKubeconfig(this.cluster));
    await this.deployment.startSchedule({ rateMinutes: 1 });
  }

  /** Applies a manifest. */
  async apply(text: string): Promise<void> {
    await this.cluster.kubectl(['apply', '-f', '-'], { input: text });
  }

  /** Reads objects. @param what the arguments of `kubectl get` */
  async get<Answer>(...what: readonly string[]): Promise<Answer> {
    return JSON.parse((await this.cluster.kubectl(['get', ...what, '-o', 'json'])).stdout);
  }

  /** The private image by its full name. */
  get privateImage(): string {
    return `${this.ecr.host}/${PRIVATE_IMAGE}`;
  }

  /** Creates a Pod of the private image, which the node pulls in any case. */
  async runPod(namespace: string, name: string, { pullSecret }: PodOptions = {}): Promise<void> {
    await this.apply(
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name, namespace },
        spec: {
          terminationGracePeriodSeconds: 0,
          ...(pullSecret !== undefined && { imagePullSecrets: [{ name: pullSecret }] }),
          containers: [{ name: 'app', image: this.privateImage, imagePullPolicy: 'Always' }],
        },
      }),
    );
  }

  /** The Pod's phase, or why its container waits. */
  async stateOf(namespace: string, name: string): Promise<string> {
    const { status } = await this.get<Pod>('pod', name, '--namespace', namespace);
    const { reason, message } = status.containerStatuses?.[0].state.waiting ?? {};
    return reason === undefined ? status.phase : `${reason}: ${message}`;
  }

  /** Reads the document of a managed Secret, and its password for the private registry. */
  async credentials(namespace: string, secret: string): Promise<{ text: string; password: string }> {
    const { data } = await this.get<{ data: Record<string, string> }>(
      ...['secret', secret, '--namespace', namespace],
    );
    const text = Buffer.from(data[SECRET_KEY] ?? '', 'base64').toString();
    return { text, password: JSON.parse(text).auths[this.ecr.host].password };
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#stack.disposeAsync();
  }
}

/** One step of steps that run at the same time. */
export function sideBySide(...steps: readonly ListrTask[]): ListrTask {
  return {
    title: 'Side by side:',
    task: (_, task) => task.newListr([...steps], { concurrent: true }),
  };
}

interface Pod {
  readonly status: {
    readonly phase: string;
    readonly containerStatuses?: readonly [
      { readonly state: { readonly waiting?: { readonly reason: string; readonly message?: string } } },
    ];
  };
}

/** Matches `stateOf` for a Pod whose image the registry refuses. */
export const REFUSED = /^ErrImagePull: .*(401|authoriz)/i;

function isUp<T>(part: T | undefined): T {
  if (part === undefined) throw new Error('the steps of the start have not run');
  return part;
}
