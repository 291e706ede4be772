// ecr-anywhere pause and resume: a tag of the registered secret, or of the EKS cluster.

import { EKSClient, TagResourceCommand, UntagResourceCommand } from '@aws-sdk/client-eks';
import { TAG } from '../../contract/names.ts';
import { Aws, clientConfig } from '../aws/aws.ts';
import { Refresher } from '../aws/refresher.ts';
import { tagPaused } from '../aws/registration.ts';
import { CliError } from '../output/errors.ts';
import type { Io, IoOptions } from '../output/io.ts';
import type { AwsOptions } from '../output/options.ts';
import { ShellCommands } from '../output/shell-commands.ts';

/** Pauses a cluster, or resumes it. Idempotent. @throws CliError */
export async function setPaused(
  name: string,
  isPaused: boolean,
  options: AwsOptions & IoOptions,
  io: Io,
): Promise<undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  const clusters = await io.step('the clusters', () => refresher.status());
  const cluster = clusters.find((one) => one.name === name);
  if (!cluster) throw refresher.notRegistered({ names: [name], registered: clusters.map((one) => one.name) });
  if (cluster.source === 'eks-discovery')
    throw new CliError(
      'not-a-cluster',
      `${name} is a place where clusters are looked for, and no cluster`,
      `${commands.cli(['status'])} has their names`,
    );
  await io.step(isPaused ? 'pausing' : 'resuming', () =>
    cluster.source === 'eks' ? tagEks(aws, name, isPaused) : tagPaused(aws, name, isPaused),
  );
  io.print({ cluster: name, isPaused }, () =>
    isPaused
      ? `${name} is paused: its Secrets are not refreshed, and expire. Only its token is renewed.\n  → ${commands.cli(['resume', name])}`
      : `${name} is refreshed again, from the next run on.\n  → ${commands.cli(['refresh', name])} does so now`,
  );
}

async function tagEks(aws: Aws, resourceArn: string, isPaused: boolean): Promise<void> {
  // arn:aws:eks:REGION:ACCOUNT:cluster/NAME
  const [, , , region = ''] = resourceArn.split(':');
  const eks = new EKSClient(clientConfig({ ...aws.options, region }));
  await aws.change(`tagging ${resourceArn}`, async (abortSignal) => {
    if (isPaused)
      await eks.send(new TagResourceCommand({ resourceArn, tags: { [TAG.paused]: 'true' } }), {
        abortSignal,
      });
    else await eks.send(new UntagResourceCommand({ resourceArn, tagKeys: [TAG.paused] }), { abortSignal });
  });
}
