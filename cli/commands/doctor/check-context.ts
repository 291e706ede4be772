// The check of the operator's own kubeconfig context, and through it the checks inside the cluster.
import { clusterUidOf } from '../../kubernetes/chart.ts';
import { Kubernetes } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import type { AwsOptions, KubeOptions, Release } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { failed, passed, skipped } from './checks.ts';
import { checkInside, type Inside } from './in-cluster.ts';

/** What the checks by the operator's context found. */
export interface ContextResult extends Inside {
  /** Whether the context belongs to the cluster, by its UID. */
  readonly isVerified?: boolean;
  /** UID of the context's cluster. */
  readonly uid?: string;
  /** Origin of the API server that the context names. */
  readonly server?: string | undefined;
  /** Why the context cannot be used. */
  readonly error?: CliError;
}

export interface Target {
  /** As the operator named it; undefined: the cluster of the context. */
  readonly name: string | undefined;
  /** UID of the cluster, as far as the refresher knows it. */
  readonly uid?: string | undefined;
  readonly isRegistered?: boolean;
  /** ARN of the refresher's role; undefined if AWS could not be checked. */
  readonly roleArn?: string;
}

/** Checks that the context belongs to the cluster, then the cluster. */
export async function checkContext(
  { name, uid, isRegistered = false, roleArn }: Target,
  options: AwsOptions & KubeOptions & { readonly namespace?: string; readonly inCluster?: boolean },
  io: Io,
): Promise<ContextResult> {
  const commandsWith = (context?: string, release?: Release) =>
    new ShellCommands(options, { context, release, roleArn });
  const contexts = commandsWith().kubectl(['config', 'get-contexts']);
  try {
    const kubernetes = Kubernetes.load(options, io.signal);
    const { context } = kubernetes;
    const actual = await io.step(`checking the context ${context}`, () => clusterUidOf(kubernetes));
    if (uid !== undefined && uid !== actual) {
      const finding = failed(
        'wrong-context',
        `The context ${context} belongs to a different cluster than ${name}.`,
        { investigate: contexts, hint: `Name a context of ${name} with --context.` },
      );
      return { findings: [finding], commands: commandsWith('CONTEXT') };
    }
    const isNamed = options.context !== undefined || options.kubeconfig !== undefined;
    // The current context may belong to any cluster. Its failures would be reported as those of the named cluster.
    if (roleArn !== undefined && uid === undefined && !isNamed) {
      const message = `doctor cannot verify that the context ${context} belongs to ${name}; name it with --context to check that cluster`;
      return {
        findings: [skipped('context', message)],
        commands: commandsWith(isRegistered ? 'CONTEXT' : context),
        uid: actual,
      };
    }
    const server = URL.parse((await kubernetes.server()).url)?.origin;
    const inside = await io.step('checking the cluster', () =>
      checkInside(
        kubernetes,
        (release) => commandsWith(context, release),
        options.namespace,
        options.inCluster,
      ),
    );
    const isVerified = uid !== undefined;
    const doubt = isVerified || name === undefined ? '' : `; doctor cannot verify that it belongs to ${name}`;
    const findings = [passed('context', `${context}${doubt}`), ...inside.findings];
    return { ...inside, findings, isVerified, uid: actual, server };
  } catch (error) {
    if (!(error instanceof CliError) || error.code === 'interrupted') throw error;
    const { message, hint } = error;
    const finding = failed('context-unusable', message, { investigate: contexts, hint });
    return { findings: [finding], commands: commandsWith(), error };
  }
}
