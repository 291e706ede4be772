// The commands that hints and doctor name: written out so that they meet the account, the stack, the cluster and the
// release that were looked at, wherever they are pasted. Pure.
import type { AwsOptions, KubeOptions, Release } from './options.ts';

/** What the chart is called where nothing of it has been seen (README.md). */
const DEFAULT_RELEASE: Release = { release: 'ecr-anywhere', namespace: 'ecr-anywhere' };
/** The chart, in a checkout of this project. */
const CHART = 'webhook/chart';

export class ShellCommands {
  readonly #options: AwsOptions & KubeOptions;
  /** Name of the kubeconfig's context. */
  readonly #context: string | undefined;
  readonly release: Release;
  /** ARN of the refresher's role. */
  readonly roleArn: string;

  constructor(
    options: AwsOptions & KubeOptions,
    {
      context,
      release = DEFAULT_RELEASE,
      roleArn = 'ROLE',
    }: { context?: string | undefined; release?: Release | undefined; roleArn?: string | undefined },
  ) {
    this.#options = options;
    this.#context = context;
    this.release = release;
    this.roleArn = roleArn;
  }

  /** @param options of which only those are given that lead to the stack, and with `isOfCluster` to the cluster */
  cli(args: readonly string[], isOfCluster = false): string {
    const { profile, region, stackName, function: name } = this.#options;
    return written('ecr-anywhere', [
      ...args,
      ...flags({ profile, region, 'stack-name': stackName, function: name }),
      ...(isOfCluster ? flags({ kubeconfig: this.#options.kubeconfig, context: this.#context }) : []),
    ]);
  }

  /** @param region where it is not the operator's */
  aws(args: readonly string[], region = this.#options.region): string {
    const { profile } = this.#options;
    return written('aws', [...args, ...flags({ profile, region })]);
  }

  kubectl(args: readonly string[]): string {
    const { kubeconfig } = this.#options;
    return written('kubectl', [...flags({ kubeconfig, context: this.#context }), ...args]);
  }

  /** In the release's namespace. */
  kubectlInRelease(args: readonly string[]): string {
    return this.kubectl(['--namespace', this.release.namespace, ...args]);
  }

  /** Takes away from an object what somebody has added to it. @param paths JSON Pointers, the last first */
  removeFields(kind: string, name: string, paths: readonly string[]): string {
    const patch = JSON.stringify(paths.map((path) => ({ op: 'remove', path })));
    return this.kubectl(['patch', kind, name, '--type=json', '--patch', patch]);
  }

  /** @param deployment of the release's */
  restart(deployment: string): string {
    return this.kubectlInRelease(['rollout', 'restart', 'deployment', deployment]);
  }

  /** Brings what the release should have back, with the values that it has, and more. */
  upgrade(more: readonly string[] = []): string {
    const { release, namespace } = this.release;
    // Not --reuse-values, which knows nothing of what a newer chart has more.
    return this.helm([
      ...['upgrade', release, CHART, '--namespace', namespace, '--reset-then-reuse-values', ...more],
    ]);
  }

  install(release: string): string {
    const namespace = DEFAULT_RELEASE.namespace;
    return this.helm([
      ...['install', release, CHART, '--namespace', namespace, '--create-namespace'],
      ...['--set', 'image.repository=IMAGE', '--set', 'aws.region=REGION'],
    ]);
  }

  helm(args: readonly string[]): string {
    const { kubeconfig } = this.#options;
    return written('helm', [...args, ...flags({ kubeconfig, 'kube-context': this.#context })]);
  }

  /**
   * Deploys the stack. CDK takes back every setting that it is not given, which for some is an outage: the command says
   * so itself, wherever it is shown, as a comment of the shell's.
   */
  deploy(settings: Readonly<Record<string, string>> = {}): string {
    return `${this.#cdk('deploy', settings)} # with the settings that the stack has: -c … or cdk.json`;
  }

  /** Shows what a deployment from this checkout with these settings would change. */
  diff(settings: Readonly<Record<string, string>> = {}): string {
    return this.#cdk('diff', settings);
  }

  #cdk(command: 'deploy' | 'diff', settings: Readonly<Record<string, string>>): string {
    const { profile, region, stackName } = this.#options;
    const context = Object.entries({ ...(stackName && { stackName }), ...settings });
    const line = written('npx', [
      ...['cdk', command, ...context.flatMap(([key, value]) => ['-c', `${key}=${value}`])],
      ...flags({ profile }),
    ]);
    return region === undefined ? line : `AWS_REGION=${quoted(region)} ${line}`;
  }
}

function flags(options: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(options).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  );
}

function written(program: string, args: readonly string[]): string {
  return [program, ...args.map(quoted)].join(' ');
}

/** For a POSIX shell: names of contexts, Secrets and files may be others' choice. */
function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
