// The commands that hints and doctor print. They repeat the options that select the account, stack, cluster and release,
// so that they work wherever they are pasted. Pure.
import type { AwsOptions, KubeOptions, Release } from './options.ts';

/** The release of README.md, used if no release was found. */
const DEFAULT_RELEASE: Release = { release: 'ecr-anywhere', namespace: 'ecr-anywhere' };
/** Path of the chart in a checkout of this project. */
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

  /** A command of this CLI. @param isOfCluster adds --kubeconfig and --context */
  cli(args: readonly string[], isOfCluster = false): string {
    const { profile, region, stackName, function: name } = this.#options;
    return formatCommand('ecr-anywhere', [
      ...args,
      ...flags({ profile, region, 'stack-name': stackName, function: name }),
      ...(isOfCluster ? flags({ kubeconfig: this.#options.kubeconfig, context: this.#context }) : []),
    ]);
  }

  /** @param region other than that of --region */
  aws(args: readonly string[], region = this.#options.region): string {
    const { profile } = this.#options;
    return formatCommand('aws', [...args, ...flags({ profile, region })]);
  }

  kubectl(args: readonly string[]): string {
    const { kubeconfig } = this.#options;
    return formatCommand('kubectl', [...flags({ kubeconfig, context: this.#context }), ...args]);
  }

  /** A kubectl command in the release's namespace. */
  kubectlInRelease(args: readonly string[]): string {
    return this.kubectl(['--namespace', this.release.namespace, ...args]);
  }

  /** Removes fields of an object. @param paths JSON Pointers; of a list, the last item first */
  removeFields(kind: string, name: string, paths: readonly string[]): string {
    const patch = JSON.stringify(paths.map((path) => ({ op: 'remove', path })));
    return this.kubectl(['patch', kind, name, '--type=json', '--patch', patch]);
  }

  /** Restores the objects of the release. @param more arguments, such as further values */
  upgrade(more: readonly string[] = []): string {
    const { release, namespace } = this.release;
    // --reuse-values would leave out the new values of a newer chart.
    return this.helm([
      ...['upgrade', release, CHART, '--namespace', namespace, '--reset-then-reuse-values', ...more],
    ]);
  }

  install(release: string): string {
    const namespace = DEFAULT_RELEASE.namespace;
    return this.helm([
      ...['install', release, CHART, '--namespace', namespace, '--create-namespace'],
      ...['--set', 'image.repository=IMAGE', '--set', 'aws.region=REGION'],
      ...['--set', 'ownRegistry.namespaces={NAMESPACES}', '--set', 'refresher.namespaces={NAMESPACES}'],
    ]);
  }

  helm(args: readonly string[]): string {
    const { kubeconfig } = this.#options;
    return formatCommand('helm', [...args, ...flags({ kubeconfig, 'kube-context': this.#context })]);
  }

  /**
   * Deploys the stack. CDK resets every setting that is not passed, which can cause an outage. A shell comment in the
   * command says so.
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
    const line = formatCommand('npx', [
      ...['cdk', command, ...context.flatMap(([key, value]) => ['-c', `${key}=${value}`])],
      ...flags({ profile }),
    ]);
    return region === undefined ? line : `AWS_REGION=${quote(region)} ${line}`;
  }
}

function flags(options: Readonly<Record<string, string | undefined>>): string[] {
  return Object.entries(options).flatMap(([name, value]) =>
    value === undefined ? [] : [`--${name}`, value],
  );
}

function formatCommand(program: string, args: readonly string[]): string {
  return [program, ...args.map(quote)].join(' ');
}

/** Quotes for a POSIX shell: other people choose the names of contexts, Secrets and files. */
function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
