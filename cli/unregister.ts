// ecr-anywhere unregister: the token dies first, so that forgetting a cluster never leaves a credential behind.
import { Aws, type AwsOptions } from './aws.ts';
import { CliError, EXIT, Interrupted } from './errors.ts';
import type { Io, IoOptions } from './io.ts';
import { notRegistered, Refresher } from './refresher.ts';
import { deleteRegistration } from './registration.ts';

export interface UnregisterOptions extends AwsOptions, IoOptions {
  readonly keepToken?: true;
}

/** Unregisters a cluster. @throws CliError; the cluster is registered still */
export async function unregister(name: string, options: UnregisterOptions, io: Io): Promise<undefined> {
  const aws = new Aws(options, io.signal);
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  const clusters = await io.step('the registered clusters', () => refresher.status());
  const cluster = clusters.find((one) => one.name === name);
  if (!cluster) throw notRegistered({ names: [name], registered: clusters.map((one) => one.name) });
  if (cluster.source !== 'registered')
    throw new CliError(
      EXIT.conflict,
      `${name} is not registered: the refresher finds it by its tag`,
      'take the tag ecr-anywhere.centml.ai/managed off the EKS cluster',
    );
  const revoked = options.keepToken ? undefined : await end(name, refresher, io);
  // Registered and refused by its cluster is what doctor names; forgotten on the sly is what nobody asked for.
  if (io.signal.aborted) throw stillRegistered(name);
  await io.step('deleting the registration', () => deleteRegistration(aws, name));
  io.print({ cluster: name, isRegistered: false, token: revoked?.outcome ?? 'kept' }, () =>
    [
      `${name} is not registered any more.`,
      `  ${token(revoked)}`,
      '  Its managed Secrets stay as they are, and expire within twelve hours.',
    ].join('\n'),
  );
}

async function end(name: string, refresher: Refresher, io: Io): ReturnType<Refresher['revoke']> {
  const revoked = await io
    .step('ending its token', () => refresher.revoke(name))
    .catch((error: unknown) => {
      // The function goes on, whether anybody waits for it or not.
      throw io.signal.aborted ? stillRegistered(name) : error;
    });
  if (revoked.outcome !== 'failed') return revoked;
  throw new CliError(
    EXIT.unwell,
    `the token of ${name} could not be ended, so it stays registered: ${revoked.reason ?? 'no reason given'}`,
    `end it yourself: kubectl delete secret ecr-anywhere-refresher-token --namespace ecr-anywhere; then ecr-anywhere unregister ${name} --keep-token`,
  );
}

function stillRegistered(name: string): Interrupted {
  return new Interrupted(
    `interrupted: ${name} is registered still, and its token has ended or is about to`,
    `ecr-anywhere unregister ${name} does the rest; ecr-anywhere register ${name} --replace gives it another token`,
  );
}

function token(revoked: Awaited<ReturnType<Refresher['revoke']>> | undefined): string {
  if (revoked === undefined) return 'Its token was not ended: it lives until it expires.';
  if (revoked.outcome === 'revoked')
    return 'Its token, and all that it was renewed to, is refused from now on.';
  return `There was no token to end: ${revoked.reason ?? ''}`;
}
