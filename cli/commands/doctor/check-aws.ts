// The links up to the refresher's function, which every other one that is seen from AWS is asked of: session, stack,
// function.

import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import { Aws, type Stack } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { CliError, EXIT } from '../../output/errors.ts';
import type { Io } from '../../output/io.ts';
import type { AwsOptions, KubeOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { broken, type Finding, type LinkName, well } from './checks.ts';

/** What has been got hold of in AWS. */
export interface Door {
  readonly refresher: Refresher;
  readonly stack: Stack;
  readonly clusters: readonly ClusterStatus[];
}

/** @returns undefined where the chain is broken at one of them, as is then among the findings */
export async function toTheFunction(
  options: AwsOptions & KubeOptions,
  io: Io,
  findings: Finding[],
): Promise<Door | undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const caller = await link(findings, 'session', commands, () =>
    io.step('who you are to AWS', () => aws.caller()),
  );
  if (!caller) return undefined;
  findings.push(well('session', caller.arn));
  const stack = await link(findings, 'stack', commands, () =>
    io.step('the deployed refresher', () => aws.stack()),
  );
  if (!stack) return undefined;
  findings.push(well('stack', stack.functionName));
  const refresher = new Refresher(aws, stack);
  const clusters = await link(
    findings,
    'function',
    commands,
    () => io.step('what the refresher knows', () => refresher.status()),
    stack,
  );
  if (!clusters) return undefined;
  findings.push(
    well('function', `it knows ${clusters.length === 1 ? '1 cluster' : `${clusters.length} clusters`}`),
  );
  return { refresher, stack, clusters };
}

/** Asks something that a link stands or falls with. @returns undefined where it is broken */
export async function link<T>(
  findings: Finding[],
  name: LinkName,
  commands: ShellCommands,
  ask: () => Promise<T>,
  stack?: Stack,
): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof CliError) || error.code === 'interrupted') throw error;
    findings.push(broken(name, error.message, commandFor(error, commands, stack), error.hint));
    return undefined;
  }
}

/** The command that a failure at AWS calls for. @param stack whose function it is that has failed */
function commandFor({ code, exitCode }: CliError, commands: ShellCommands, stack?: Stack): string {
  if (exitCode === EXIT.unauthenticated) return commands.aws(['sso', 'login']);
  if (code === 'no-region') return 'export AWS_REGION=REGION';
  if (exitCode === EXIT.notFound || code === 'function-too-old') return commands.deploy();
  if (stack === undefined || exitCode !== EXIT.failed) return commands.aws(['sts', 'get-caller-identity']);
  const group = commands.aws([
    ...['lambda', 'get-function-configuration', '--function-name', stack.functionName],
    ...['--query', 'LoggingConfig.LogGroup', '--output', 'text'],
  ]);
  return `${commands.aws(['logs', 'tail', '--since', '1h'])} "$(${group})"`;
}
