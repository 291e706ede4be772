// Starts the whole test bed with visible steps: the AWS endpoint for ECR, the local AWS with the deployed stack, and control
// planes with the chart installed and registered. Used by the demo, `npm run bed` and the end-to-end tests.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { ListrTask } from 'listr2';
import { type AwsEndpoint, startAwsEndpoint } from './aws-endpoint.ts';
import { type ControlPlane, type ControlPlaneOptions, startControlPlane } from './control-plane.ts';
import { type DeployOptions, deployStack } from './deploy.ts';
import type { Deployment } from './deployment.ts';
import { type Emulator, startEmulator } from './emulator.ts';
import { tools } from './toolchain.ts';
import { installWebhook, refresherKubeconfig, type WebhookInstallation } from './webhook.ts';

/** An enabled namespace with the managed Secret `pull`, as YAML. */
export const pullSecretManifest = (namespace: string) => `apiVersion: v1
kind: Namespace
metadata: {name: ${namespace}, labels: {ecr-anywhere.centml.ai/namespace: enabled}}
---
apiVersion: v1
kind: Secret
metadata: {name: pull, namespace: ${namespace}, labels: {ecr-anywhere.centml.ai/managed: "true"}}
type: kubernetes.io/dockerconfigjson
`;

export interface BedCluster {
  readonly name: string;
  readonly controlPlane: ControlPlane;
  readonly webhook: WebhookInstallation;
}

export interface BedOptions {
  /** Names of the clusters. */
  readonly clusters: readonly string[];
  /** Settings of the CDK app (infra/settings.ts). */
  readonly context: Readonly<Record<string, string | number | boolean>>;
  /** A CDK app in place of the project's, and the directory in which the CDK runs it. */
  readonly app?: DeployOptions['app'] & { readonly cwd: string };
  /** False: the caller registers the clusters. Default: true. */
  readonly registersClusters?: boolean;
  /** Additional environment variables of the local AWS; its functions inherit them. */
  readonly functionEnv?: Readonly<Record<string, string>>;
  /** Additional options of control planes, by cluster name. */
  readonly controlPlanes?: Readonly<Record<string, Omit<ControlPlaneOptions, 'name' | 'dir'>>>;
}

/** A test bed. Disposal ends every process, and removes the directory unless `keepFolder` is set. */
export class Bed implements AsyncDisposable {
  readonly dir: string;
  readonly options: BedOptions;
  /** True: the directory with all logs stays after disposal. */
  keepFolder = false;
  readonly #stack = new AsyncDisposableStack();
  readonly #clusters = new Map<string, BedCluster>();
  #ecr: AwsEndpoint | undefined;
  #emulator: Emulator | undefined;
  #deployment: Deployment | undefined;

  private constructor(dir: string, options: BedOptions) {
    this.dir = dir;
    this.options = options;
  }

  /** Creates the directory; starts nothing. */
  static async create(options: BedOptions): Promise<Bed> {
    return new Bed(await mkdtemp(join(tmpdir(), 'ecr-anywhere-')), options);
  }

  get ecr(): AwsEndpoint {
    return isUp(this.#ecr, 'the ECR endpoint');
  }

  get deployment(): Deployment {
    return isUp(this.#deployment, 'the stack');
  }

  cluster(name: string): BedCluster {
    return isUp(this.#clusters.get(name), `cluster ${name}`);
  }

  /** The start-up steps, for a progress listing. */
  tasks(): ListrTask[] {
    const { clusters, context, registersClusters = true } = this.options;
    const isMany = clusters.length > 1;
    return [
      {
        title: 'ECR stand-in, and a local AWS that enforces IAM',
        task: async () => {
          this.#ecr = this.#stack.use(await startAwsEndpoint());
          const dir = join(this.dir, 'aws');
          this.#emulator = this.#stack.use(
            await startEmulator({
              dir,
              python: tools().python,
              ...(this.options.functionEnv && { env: this.options.functionEnv }),
            }),
          );
        },
      },
      {
        title: 'cdk bootstrap, cdk deploy',
        task: async () => {
          this.#deployment = await deployStack(isUp(this.#emulator, 'the local AWS'), {
            context: { ...context, allowLocalServers: true },
            ...(this.options.app && { app: this.options.app, cwd: this.options.app.cwd }),
          });
          await this.#deployment.subscribe();
        },
      },
      ...clusters.flatMap((name): ListrTask[] => [
        {
          title: `Kubernetes control plane${isMany ? ` ${name}` : ''}; helm install`,
          task: async () => {
            const controlPlane = this.#stack.use(
              await startControlPlane({
                ...this.options.controlPlanes?.[name],
                name,
                dir: join(this.dir, name),
              }),
            );
            const webhook = this.#stack.use(await installWebhook(controlPlane, { ecrUrl: this.ecr.url }));
            this.#clusters.set(name, { name, controlPlane, webhook });
          },
        },
        ...(registersClusters
          ? [
              {
                title: `Register ${isMany ? name : 'the cluster'} in Secrets Manager`,
                task: async () =>
                  this.deployment.registerCluster(
                    name,
                    await refresherKubeconfig(this.cluster(name).controlPlane),
                  ),
              },
            ]
          : []),
      ]),
    ];
  }

  /** Starts the test bed, and prints a line per step. */
  async start(): Promise<this> {
    for (const { title, task } of this.tasks()) {
      console.log(`… ${title}`);
      await task({}, {} as never);
    }
    return this;
  }

  /** Environment variables of an operator of the local AWS, as the account's root. */
  get operatorEnv(): Record<string, string> {
    const { env } = this.deployment.emulator;
    return Object.fromEntries(Object.entries(env).filter(([name]) => /^(AWS|NODE)_/.test(name)));
  }

  /** Commands for looking around, for the terminal. */
  howToLookAround(): string {
    const { deployment, ecr, options } = this;
    const { endpoint, env } = deployment.emulator;
    return [
      'To look around, in another terminal:',
      ...options.clusters.map(
        (name) => `  export KUBECONFIG=${this.cluster(name).controlPlane.adminKubeconfigPath}   # ${name}`,
      ),
      '  kubectl get secrets --all-namespaces -l ecr-anywhere.centml.ai/managed=true -o yaml',
      `  tail -f ${this.cluster(options.clusters[0] ?? '').webhook.program.logPath}`,
      `  curl -s ${ecr.url}/_calls          # each call to ECR; POST {"mode":"down"} to ${ecr.url}/_control breaks it`,
      `  export AWS_ENDPOINT_URL=${endpoint} AWS_CA_BUNDLE=${env.AWS_CA_BUNDLE} AWS_REGION=${env.AWS_REGION} \\`,
      `         AWS_ACCESS_KEY_ID=${env.AWS_ACCESS_KEY_ID} AWS_SECRET_ACCESS_KEY=${env.AWS_SECRET_ACCESS_KEY}`,
      `  ${deployment.outputs.DryRun ?? ''}`,
      '  npm run build && npx ecr-anywhere status',
      `  npx ecr-anywhere doctor ${options.clusters[0] ?? ''} --context bed   # "bed" is the context of each kubeconfig`,
      `Logs and data are in ${this.dir}`,
    ].join('\n');
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#stack.disposeAsync();
    if (!this.keepFolder) await rm(this.dir, { recursive: true, force: true });
  }
}

function isUp<T>(part: T | undefined, what: string): T {
  if (part === undefined) throw new Error(`${what} has not been started`);
  return part;
}

/** Resolves on Ctrl-C or SIGTERM. */
export function interrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ['SIGINT', 'SIGTERM'] as const) {
      process.removeAllListeners(signal);
      process.once(signal, () => resolve());
    }
    // Keeps the process alive: no other handle may be open.
    setInterval(() => {}, 60_000);
  });
}
