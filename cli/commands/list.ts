// ecr-anywhere list: the clusters that there are, and where each comes from.

import { Aws } from '../aws/aws.ts';
import { Refresher } from '../aws/refresher.ts';
import type { Io, IoOptions } from '../output/io.ts';
import type { AwsOptions } from '../output/options.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import { table } from '../output/table.ts';

const SOURCES = { registered: 'registered', eks: 'EKS tag', 'eks-discovery': 'EKS search' } as const;

/** Lists them. @throws CliError */
export async function list(options: AwsOptions & IoOptions, io: Io): Promise<undefined> {
  const aws = new Aws(options, io.signal);
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  const clusters = await io.step('the clusters', () => refresher.status());
  io.print({ clusters }, () =>
    clusters.length === 0
      ? `No cluster is registered.\n  → ${new ShellCommands(options, {}).cli(['register', 'NAME'])}`
      : table(
          ['CLUSTER', 'SOURCE', 'PAUSED', 'TOKEN EXPIRES', 'CONTEXT'],
          clusters.map(({ name, source, isPaused, tokenExpiresAt = '', context = '' }) => [
            name,
            SOURCES[source],
            isPaused ? 'yes' : '',
            tokenExpiresAt.replace(/\.\d+Z$/, 'Z'),
            context,
          ]),
        ),
  );
}
