// ecr-anywhere pause and resume: set or remove a tag of the registered secret, or of the EKS cluster.

import { EKSClient, TagResourceCommand, UntagResourceCommand } from '@aws-sdk/client-eks';
import { TAG } from '../../contract/names.ts';
import { parseEksArn } from '../aws/arn.ts';
import { Aws, clientConfig } from '../aws/aws.ts';
import { Refresher } from '../aws/refresher.ts';
import { incompleteRegistration, tagPaused, withCurrent } from '../aws/registration.ts';
import { CliError } from '../output/errors.ts';
import type { Io, IoOptions } from '../output/io.ts';
import type { AwsOptions } from '../output/options.ts';
import { ShellCommands } from '../output/shell-commands.ts';

/** Pauses or resumes a cluster. Idempotent. @throws CliError */
export async function setPaused(
  name: string,
  isPaused: boolean,
  options: AwsOptions & IoOptions,
  io: Io,
): Promise<undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const stack = await io.step('finding the deployed refresher', () => aws.stack());
  const refresher = new Refresher(aws, stack);
  const clusters = await io.step('reading the saved state', async () =>
    withCurrent(aws, stack, name, await refresher.status()),
  );
  const cluster = clusters.find((one) => one.name === name);
  if (!cluster) throw refresher.notRegistered({ names: [name], registered: clusters.map((one) => one.name) });
  if (cluster.source === 'eks-discovery')
    throw new CliError(
      'not-a-cluster',
      `${name} is a discovery target, not a cluster.`,
      `${commands.cli(['status'])} lists the names of the clusters.`,
    );
  if (cluster.isRegistering) throw incompleteRegistration(name, commands);
  await io.step(isPaused ? 'pausing' : 'resuming', () =>
    cluster.source === 'eks' ? tagEks(aws, name, isPaused) : tagPaused(aws, stack, name, isPaused),
  );
  io.print({ cluster: name, isPaused }, () =>
    isPaused
      ? `${name} is paused. Its Secrets are not refreshed, so their credentials expire; only its token is renewed.\n  → ${commands.cli(['resume', name])}`
      : `${name} is refreshed again from the next run on. To refresh it now:\n  → ${commands.cli(['refresh', name])}`,
  );
}

async function tagEks(aws: Aws, resourceArn: string, isPaused: boolean): Promise<void> {
  const eks = new EKSClient(clientConfig({ ...aws.options, region: parseEksArn(resourceArn).region }));
  await aws.change<unknown>(`tagging ${resourceArn}`, (abortSignal) =>
    isPaused
      ? eks.send(new TagResourceCommand({ resourceArn, tags: { [TAG.paused]: 'true' } }), { abortSignal })
      : eks.send(new UntagResourceCommand({ resourceArn, tagKeys: [TAG.paused] }), { abortSignal }),
  );
}
