// ecr-anywhere unregister: revokes the token before it deletes the registration, so that no valid credential is left.

import type { RevokeResult } from '../../contract/refresher-api.ts';
import { Aws } from '../aws/aws.ts';
import { Refresher } from '../aws/refresher.ts';
import { deleteRegistration, withCurrent } from '../aws/registration.ts';
import { CliError, EXIT, InterruptedError } from '../output/errors.ts';
import type { Io, IoOptions } from '../output/io.ts';
import type { AwsOptions } from '../output/options.ts';
import { ShellCommands } from '../output/shell-commands.ts';

export interface UnregisterOptions extends AwsOptions, IoOptions {
  readonly keepToken?: true;
}

/** Unregisters a cluster. @throws CliError; the cluster is then still registered, unless the message says otherwise */
export async function unregister(name: string, options: UnregisterOptions, io: Io): Promise<undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const stack = await io.step('finding the deployed refresher', () => aws.stack());
  const refresher = new Refresher(aws, stack);
  const clusters = await io.step('reading the saved state', async () =>
    withCurrent(aws, stack, name, await refresher.status()),
  );
  const cluster = clusters.find((one) => one.name === name);
  if (!cluster) throw refresher.notRegistered({ names: [name], registered: clusters.map((one) => one.name) });
  if (cluster.source !== 'registered')
    throw new CliError(
      'found-by-tag',
      `${name} is not registered: the refresher finds it by its EKS tag.`,
      'Remove the tag ecr-anywhere.centml.ai/managed from the EKS cluster.',
    );
  // After Ctrl-C the registration stays: doctor reports the revoked token. The function continues to revoke it.
  const failWith = (error: unknown) => {
    throw io.signal.aborted && !options.keepToken ? stillRegistered(name, commands) : error;
  };
  const revoked = options.keepToken
    ? undefined
    : await io.step('revoking its token', () => refresher.revoke(name)).catch(failWith);
  if (revoked?.outcome === 'failed') throw notRevoked(name, revoked, commands);
  const isRevoked = revoked?.outcome === 'revoked' || revoked?.outcome === 'refused-already';
  await io
    .step('deleting the registration', () => deleteRegistration(aws, stack, name))
    .catch((error: unknown) =>
      failWith(isRevoked && error instanceof CliError ? halfDone(name, error, commands) : error),
    );
  const { outcome = 'kept', reason, secret } = revoked ?? {};
  const result = { cluster: name, isRegistered: false, token: outcome };
  io.print({ ...result, ...(reason !== undefined && { reason }), ...(secret && { secret }) }, () =>
    [
      `${name} is no longer registered.`,
      ...formatToken(revoked).map((line) => `  ${line}`),
      '  Its managed Secrets stay; their credentials expire within twelve hours.',
    ].join('\n'),
  );
}

function notRevoked(
  name: string,
  { secret, reason = 'no reason given' }: RevokeResult,
  commands: ShellCommands,
): CliError {
  const byHand = secret
    ? `To revoke the token: ${deletion(secret)}.`
    : 'Revoke the token where it was issued.';
  return new CliError(
    'token-not-revoked',
    `The token of ${name} could not be revoked, so the cluster stays registered: ${reason}`,
    `${byHand} Then: ${commands.cli(['unregister', name, '--keep-token'])}`,
  );
}

/** The error if the token was revoked, and the registration could not be deleted. */
function halfDone(
  name: string,
  { code, exitCode, message, hint }: CliError,
  commands: ShellCommands,
): CliError {
  // Without a response, the deletion may have succeeded.
  const registered = exitCode === EXIT.network ? 'may still be registered' : 'is still registered';
  return new CliError(
    code,
    `The token of ${name} was revoked, but the cluster ${registered}. ${message}`,
    [...(hint === undefined ? [] : [hint]), nextSteps(name, commands)].join(' Then: '),
  );
}

function stillRegistered(name: string, commands: ShellCommands): InterruptedError {
  return new InterruptedError(
    `The command was interrupted: ${name} is still registered, and its token was or will be revoked.`,
    nextSteps(name, commands),
  );
}

function nextSteps(name: string, commands: ShellCommands): string {
  return `${commands.cli(['unregister', name])} completes this; ${commands.cli(['register', name, '--replace'])} registers another token.`;
}

/** The command that revokes all tokens that are bound to a Secret. The cluster's context is unknown here. */
function deletion({ namespace, name }: NonNullable<RevokeResult['secret']>): string {
  return new ShellCommands({}, { context: 'CONTEXT' }).kubectl([
    ...['--namespace', namespace, 'delete', 'secret', name, '--ignore-not-found'],
  ]);
}

function formatToken(revoked: RevokeResult | undefined): string[] {
  if (revoked === undefined) return ['Its token was not revoked: it stays valid until it expires.'];
  const { outcome, reason = 'no reason given', secret } = revoked;
  if (outcome === 'revoked') return ['Its token, and all tokens that it was renewed to, are revoked.'];
  if (outcome === 'refused-already')
    return [
      'Its API server had already rejected the token, so nothing could be revoked with it. Other tokens that are bound to',
      `the same Secret stay valid as long as that Secret exists.${secret ? ' To delete it:' : ''}`,
      ...(secret ? [`  → ${deletion(secret)}`] : []),
    ];
  return [`There was no token to revoke: ${reason}`];
}
