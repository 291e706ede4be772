// The checks on the way to the refresher's function: the AWS session, and the function itself.
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import { Aws, type Stack } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { CliError, EXIT } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import type { AwsOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { type Finding, failed, investigate, passed } from './checks.ts';

/** The function API, and the clusters that it knows. */
export interface FunctionApi {
  readonly refresher: Refresher;
  readonly stack: Stack;
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
  const caller = await attempt(
    findings,
    (error) => sessionFailure(error, commands),
    () => io.step('checking your AWS session', () => aws.caller()),
  );
  if (!caller) return undefined;
  findings.push(passed('session', caller.arn));
  const stack = await attempt(
    findings,
    (error) => functionFailure(error, commands),
    () => io.step('looking for the refresher', () => aws.stack()),
  );
  if (!stack) return undefined;
  const refresher = new Refresher(aws, stack);
  const clusters = await attempt(
    findings,
    (error) => functionFailure(error, commands, stack),
    () => io.step('calling the refresher', () => refresher.status()),
  );
  if (!clusters) return undefined;
  const count = clusters.length === 1 ? '1 cluster' : `${clusters.length} clusters`;
  findings.push(passed('function', `${stack.functionName}, ${count}`));
  return { refresher, stack, clusters };
}

/** Returns the result of a request. If it fails, adds the finding for that, and returns undefined. */
export async function attempt<T>(
  findings: Finding[],
  toFinding: (error: CliError) => Finding,
  request: () => Promise<T>,
): Promise<T | undefined> {
  try {
    return await request();
  } catch (error) {
    if (!(error instanceof CliError) || error.code === 'interrupted') throw error;
    findings.push(toFinding(error));
    return undefined;
  }
}

function sessionFailure({ code, exitCode, message, hint }: CliError, commands: ShellCommands): Finding {
  if (exitCode === EXIT.unauthenticated)
    return failed('no-session', message, investigate(commands.aws(['configure', 'list']), hint));
  if (code === 'no-region')
    return failed('no-region', message, investigate(commands.aws(['configure', 'list']), hint));
  return failed('aws-unavailable', message, investigate(commands.aws(['sts', 'get-caller-identity']), hint));
}

/** @param stack the stack whose function failed, if it was found */
export function functionFailure(error: CliError, commands: ShellCommands, stack?: Stack): Finding {
  const { exitCode, message, hint } = error;
  if (stack === undefined && exitCode === EXIT.notFound)
    return failed(
      'stack-not-found',
      message,
      investigate(
        commands.aws([
          ...['cloudformation', 'describe-stacks', '--query', 'Stacks[].StackName', '--output', 'text'],
        ]),
        hint,
      ),
    );
  if (error.code === 'function-too-old')
    return failed('function-too-old', message, investigate(commands.diff(), hint));
  if (stack === undefined || exitCode !== EXIT.failed)
    return failed(
      'function-unavailable',
      message,
      investigate(commands.aws(['sts', 'get-caller-identity']), hint),
    );
  const group = commands.aws([
    ...['lambda', 'get-function-configuration', '--function-name', stack.functionName],
    ...['--query', 'LoggingConfig.LogGroup', '--output', 'text'],
  ]);
  return failed(
    'function-failed',
    message,
    investigate(`${commands.aws(['logs', 'tail', '--since', '1h'])} "$(${group})"`, hint),
  );
}
