// The checks on the way to the refresher's function: the AWS session, and the function itself.
import type { ClusterStatus, ClusterSummary, Subscribers } from '../../../contract/refresher-api.ts';
import { Aws, type Stack } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { listSubscriptions, notDelivered } from '../../aws/subscribers.ts';
import { CliError, EXIT } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import type { AwsOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { type FailureCode, type Finding, failed, passed, skipped } from './checks.ts';

/** The function API, and the clusters that it knows. */
export interface FunctionApi {
  readonly refresher: Refresher;
  readonly stack: Stack;
  /** The function's version; null if it states none. */
  readonly version: string | null;
  readonly clusters: readonly ClusterStatus[];
}

/** Adds findings of the checks `session` and `function`. @returns undefined if one of them failed */
export async function checkAws(
  options: AwsOptions,
  io: Io,
  findings: Finding[],
): Promise<FunctionApi | undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  let stack: Stack | undefined;
  const toFailure = (error: CliError) => failureOf(error, commands, findings.length > 0, stack);
  return attempt(findings, toFailure, async () => {
    const caller = await io.step('checking your AWS session', () => aws.caller());
    findings.push(passed('session', caller.arn));
    stack = await io.step('looking for the refresher', () => aws.stack());
    const refresher = new Refresher(aws, stack);
    const {
      version = null,
      clusters,
      subscribers,
    } = await io.step('calling the refresher', () => refresher.overview());
    findings.push(
      passed(
        'function',
        `${stack.functionName}, version ${version ?? 'unknown'}, clusters: ${clusters.length}`,
      ),
    );
    findings.push(ofSubscribers(subscribers, commands));
    return { refresher, stack, version, clusters };
  });
}

function ofSubscribers(subscribers: Subscribers | undefined, commands: ShellCommands): Finding {
  if (!subscribers)
    return skipped(
      'subscribers',
      'the refresher could not read the subscriptions of the topic of the alarms',
    );
  if (subscribers.confirmed > 0) return passed('subscribers', `confirmed: ${subscribers.confirmed}`);
  return failed('alarms-not-delivered', notDelivered(subscribers), {
    investigate: commands.aws(listSubscriptions(subscribers)),
    hint: 'Subscribe to the topic, and confirm it ("No e-mail arrives" in docs/troubleshooting.md).',
  });
}

/** Inspects clusters, or all if none is named. @returns undefined if the function failed: then findings has the failure */
export async function inspect(
  { refresher, stack }: FunctionApi,
  names: readonly string[],
  options: AwsOptions,
  io: Io,
  findings: Finding[],
): Promise<readonly ClusterSummary[] | undefined> {
  const toFailure = (error: CliError) => failureOf(error, new ShellCommands(options, {}), true, stack);
  return attempt(findings, toFailure, async () => {
    const step = `checking ${names[0] ?? 'all clusters'} from AWS`;
    return (await io.step(step, () => refresher.inspect(names))).clusters;
  });
}

/** Returns the result of `work`. If it fails, adds the finding for that, and returns undefined. */
async function attempt<T>(
  findings: Finding[],
  toFailure: (error: CliError) => Finding,
  work: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof CliError) || error.code === 'interrupted') throw error;
    findings.push(toFailure(error));
    return undefined;
  }
}

/** @param stack the stack whose function failed, if it was found */
function failureOf(error: CliError, commands: ShellCommands, hasSession: boolean, stack?: Stack): Finding {
  const [code, investigate] = causeOf(error, commands, hasSession, stack);
  return failed(code, error.message, { investigate, hint: error.hint });
}

/** The code of the failure, and the command that shows more. */
function causeOf(
  { code, exitCode }: CliError,
  commands: ShellCommands,
  hasSession: boolean,
  stack: Stack | undefined,
): readonly [FailureCode, string] {
  const callerIdentity = commands.aws(['sts', 'get-caller-identity']);
  if (!hasSession) {
    const configuration = commands.aws(['configure', 'list']);
    if (code === 'no-region') return [code, configuration];
    if (exitCode === EXIT.unauthenticated) return ['no-session', configuration];
    return ['aws-unavailable', callerIdentity];
  }
  if (code === 'function-too-old' || code === 'function-too-new') return [code, commands.diff()];
  if (stack === undefined && exitCode === EXIT.notFound) {
    const names = ['--query', 'Stacks[].StackName', '--output', 'text'];
    return ['stack-not-found', commands.aws(['cloudformation', 'describe-stacks', ...names])];
  }
  if (stack === undefined || exitCode !== EXIT.failed) return ['function-unavailable', callerIdentity];
  const group = commands.aws([
    ...['lambda', 'get-function-configuration', '--function-name', stack.functionName],
    ...['--query', 'LoggingConfig.LogGroup', '--output', 'text'],
  ]);
  return ['function-failed', `${commands.aws(['logs', 'tail', '--since', '1h'])} "$(${group})"`];
}
