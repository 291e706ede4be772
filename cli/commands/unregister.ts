// ecr-anywhere unregister: the token dies first, so that forgetting a cluster never leaves a credential behind.

import type { RevokeResult } from '../../contract/refresher-api.ts';
import { Aws } from '../aws/aws.ts';
import { Refresher } from '../aws/refresher.ts';
import { deleteRegistration } from '../aws/registration.ts';
import { CliError, EXIT, InterruptedError } from '../output/errors.ts';
import type { Io, IoOptions } from '../output/io.ts';
import type { AwsOptions } from '../output/options.ts';
import { ShellCommands } from '../output/shell-commands.ts';

export interface UnregisterOptions extends AwsOptions, IoOptions {
  readonly keepToken?: true;
}

/** Unregisters a cluster. @throws CliError; the cluster is registered still, as far as is known */
export async function unregister(name: string, options: UnregisterOptions, io: Io): Promise<undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  const clusters = await io.step('the registered clusters', () => refresher.status());
  const cluster = clusters.find((one) => one.name === name);
  if (!cluster) throw refresher.notRegistered({ names: [name], registered: clusters.map((one) => one.name) });
  if (cluster.source !== 'registered')
    throw new CliError(
      'found-by-tag',
      `${name} is not registered: the refresher finds it by its tag`,
      'take the tag ecr-anywhere.centml.ai/managed off the EKS cluster',
    );
  const revoked = options.keepToken ? undefined : await end(name, refresher, commands, io);
  // Registered and refused by its cluster is what doctor names; forgotten on the sly is what nobody asked for.
  if (io.signal.aborted) throw stillRegistered(name, commands);
  await io
    .step('deleting the registration', () => deleteRegistration(aws, name))
    .catch((error: unknown) => {
      if (io.signal.aborted) throw stillRegistered(name, commands);
      throw hasEnded(revoked) && error instanceof CliError ? halfDone(name, error, commands) : error;
    });
  const { outcome = 'kept', reason, secret } = revoked ?? {};
  const result = { cluster: name, isRegistered: false, token: outcome };
  io.print({ ...result, ...(reason !== undefined && { reason }), ...(secret && { secret }) }, () =>
    [
      `${name} is not registered any more.`,
      ...token(revoked).map((line) => `  ${line}`),
      '  Its managed Secrets stay as they are, and expire within twelve hours.',
    ].join('\n'),
  );
}

async function end(
  name: string,
  refresher: Refresher,
  commands: ShellCommands,
  io: Io,
): Promise<RevokeResult> {
  const revoked = await io
    .step('ending its token', () => refresher.revoke(name))
    .catch((error: unknown) => {
      // The function goes on, whether anybody waits for it or not.
      throw io.signal.aborted ? stillRegistered(name, commands) : error;
    });
  if (revoked.outcome !== 'failed') return revoked;
  const { secret, reason = 'no reason given' } = revoked;
  const byHand = secret ? `end it yourself: ${deletion(secret)}` : 'end it where it is from';
  throw new CliError(
    'token-not-revoked',
    `the token of ${name} could not be ended, so it stays registered: ${reason}`,
    `${byHand}; then ${commands.cli(['unregister', name, '--keep-token'])}`,
  );
}

/** Whether the API server refuses the registered token from now on, or has before. */
function hasEnded(revoked: RevokeResult | undefined): boolean {
  return revoked?.outcome === 'revoked' || revoked?.outcome === 'refused-already';
}

/** The token has ended, and the registration could not be deleted. */
function halfDone(
  name: string,
  { code, exitCode, message, hint }: CliError,
  commands: ShellCommands,
): CliError {
  // A no is a no; an answer that never came may have been a yes.
  const registered = exitCode === EXIT.network ? 'it may be registered still' : 'it is registered still';
  return new CliError(
    code,
    `the token of ${name} has ended, and ${registered}: ${message}`,
    [...(hint === undefined ? [] : [hint]), theRest(name, commands)].join('; then '),
  );
}

function stillRegistered(name: string, commands: ShellCommands): InterruptedError {
  return new InterruptedError(
    `interrupted: ${name} is registered still, and its token has ended or is about to`,
    theRest(name, commands),
  );
}

function theRest(name: string, commands: ShellCommands): string {
  return `${commands.cli(['unregister', name])} does the rest; ${commands.cli(['register', name, '--replace'])} gives it another token`;
}

/** The command that ends all that is bound to a Secret. Which context of the operator's is the cluster's, nobody has said. */
function deletion({ namespace, name }: NonNullable<RevokeResult['secret']>): string {
  return new ShellCommands({}, { context: 'CONTEXT' }).kubectl([
    ...['--namespace', namespace, 'delete', 'secret', name, '--ignore-not-found'],
  ]);
}

function token(revoked: RevokeResult | undefined): string[] {
  if (revoked === undefined) return ['Its token was not ended: it lives until it expires.'];
  const { outcome, reason = 'no reason given', secret } = revoked;
  if (outcome === 'revoked') return ['Its token, and all that it was renewed to, is refused from now on.'];
  if (outcome === 'refused-already')
    return [
      'Its API server refused the token already, so nothing could be ended with it. Whatever else is bound to the same',
      `Secret, such as a token that it was renewed to, lives on while that Secret does${secret ? ':' : '.'}`,
      ...(secret ? [`  → ${deletion(secret)}`] : []),
    ];
  return [`There was no token to end: ${reason}`];
}
