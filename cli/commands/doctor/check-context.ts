// The check of the operator's own kubeconfig context, and through it the checks inside the cluster.
import { clusterUidOf, type Found } from '../../kubernetes/chart.ts';
import { Kubernetes } from '../../kubernetes/client.ts';
import { CliError, EXIT } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import type { AwsOptions, KubeOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { type Finding, failed, investigate, passed, skipped } from './checks.ts';
import { checkInside } from './in-cluster.ts';

/** What the checks by the operator's context found. */
export interface ContextResult {
  readonly findings: readonly Finding[];
  readonly found: Found;
  readonly commands: ShellCommands;
  /** Whether the context belongs to the cluster, by its UID. */
  readonly isVerified: boolean;
  /** UID of the context's cluster. */
  readonly uid?: string | undefined;
  /** Origin of the API server that the context names. */
  readonly server?: string | undefined;
  /** Why the context cannot be used. */
  readonly error?: CliError;
}

export interface Target {
  /** As the operator named it; undefined: the cluster of the context. */
  readonly name: string | undefined;
  /** UID of the cluster, as far as the refresher knows it. */
  readonly uid: string | undefined;
  readonly isRegistered: boolean;
  /** Whether the function answered. */
  readonly isAwsChecked: boolean;
  readonly roleArn: string | undefined;
}

/** Checks that the context belongs to the cluster, then the cluster. */
export async function checkContext(
  target: Target,
  options: AwsOptions & KubeOptions,
  io: Io,
): Promise<ContextResult> {
  const commandsWith = (context?: string) => new ShellCommands(options, { context, roleArn: target.roleArn });
  const nothing = (context: string | undefined, finding: Finding) => ({
    found: { originals: [] },
    commands: commandsWith(context),
    isVerified: false,
    findings: [finding],
  });
  const { name } = target;
  let context: string | undefined;
  try {
    const kubernetes = Kubernetes.load(options, io.signal);
    context = kubernetes.context;
    const uid = await io.step(`checking the context ${context}`, () => clusterUidOf(kubernetes));
    const contexts = commandsWith().kubectl(['config', 'get-contexts']);
    if (target.uid !== undefined && target.uid !== uid)
      return nothing(
        'CONTEXT',
        failed(
          'wrong-context',
          `The context ${context} belongs to a different cluster than ${name}.`,
          investigate(contexts, `Name a context of ${name} with --context.`),
        ),
      );
    const isNamed = options.context !== undefined || options.kubeconfig !== undefined;
    // The current context may belong to any cluster. Its failures would be reported as those of the named cluster.
    if (target.isAwsChecked && target.uid === undefined && !isNamed)
      return {
        ...nothing(
          target.isRegistered ? 'CONTEXT' : context,
          skipped(
            'context',
            `doctor cannot verify that the context ${context} belongs to ${name}; name it with --context to check that cluster`,
          ),
        ),
        uid,
      };
    const server = URL.parse((await kubernetes.server()).url)?.origin;
    const inside = await io.step('checking the cluster', () =>
      checkInside(
        kubernetes,
        ({ release }) => new ShellCommands(options, { context, release, roleArn: target.roleArn }),
      ),
    );
    const isVerified = target.uid !== undefined;
    const owner = isVerified
      ? `, which belongs to ${name}`
      : name === undefined
        ? ''
        : `; doctor cannot verify that it belongs to ${name}`;
    return {
      ...inside,
      findings: [passed('context', `${context}${owner}`), ...inside.findings],
      isVerified,
      uid,
      server,
    };
  } catch (error) {
    if (!(error instanceof CliError) || error.code === 'interrupted') throw error;
    const { message, hint, exitCode } = error;
    const command =
      context !== undefined && exitCode === EXIT.unauthenticated
        ? commandsWith(context).kubectl(['auth', 'whoami'])
        : commandsWith().kubectl(['config', 'get-contexts']);
    return {
      ...nothing(undefined, failed('context-unusable', message, investigate(command, hint))),
      error,
    };
  }
}
