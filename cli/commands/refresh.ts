// ecr-anywhere refresh: a run limited to one cluster, now, and what came of each Secret.

import { NAMESPACE_LABEL } from '../../contract/names.ts';
import { Aws } from '../aws/aws.ts';
import { Refresher } from '../aws/refresher.ts';
import { EXIT, type ExitCode, InterruptedError } from '../output/errors.ts';
import { formatOutcome } from '../output/format-outcome.ts';
import { colorize, type Io, type IoOptions } from '../output/io.ts';
import type { AwsOptions } from '../output/options.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import { table } from '../output/table.ts';

export interface RefreshOptions extends AwsOptions, IoOptions {
  readonly namespace?: readonly string[];
  readonly force?: true;
  readonly dryRun?: true;
}

const WELL: ReadonlySet<string> = new Set(['refreshed', 'gone']);

/** Refreshes a cluster. @returns EXIT.unhealthy where something that was asked for was not refreshed. @throws CliError */
export async function refresh(name: string, options: RefreshOptions, io: Io): Promise<ExitCode | undefined> {
  const { namespace: namespaces, force = false, dryRun = false } = options;
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  const answer = await io.step(dryRun ? `asking ${name} what would be` : `refreshing ${name}`, () =>
    refresher
      .refresh({ clusters: [name], ...(namespaces && { namespaces }), force, dryRun })
      .catch((error: unknown) => {
        if (!io.signal.aborted || dryRun) throw error;
        throw new InterruptedError(
          `interrupted: the refresh of ${name} goes on in AWS`,
          `${commands.cli(['status'])} tells what came of it`,
        );
      }),
  );
  const [summary] = answer.clusters;
  for (const namespace of answer.namespacesNotEnabled ?? [])
    io.note(`The namespace ${namespace} is not enabled there:\n  → ${labelling(namespace)}`);
  if (!summary) return EXIT.unhealthy;
  const { secrets = [], secretsNotListed = 0, reason } = summary;
  io.print(answer, () =>
    [
      ...(secrets.length > 0
        ? [
            table(
              ['SECRET', 'DUE', 'OUTCOME', 'EXPIRES', 'REASON'],
              secrets.map(({ secret, due, outcome, expiresAt = '', reason: why = '' }) => [
                secret,
                due,
                colorize(WELL.has(outcome) ? 'green' : 'red', outcome),
                expiresAt,
                why,
              ]),
            ),
            '',
          ]
        : []),
      ...(secretsNotListed > 0 ? [`${secretsNotListed} more; the function's log has them all.`] : []),
      ...(reason === undefined || summary.isPaused ? [] : [colorize('red', `${name}: ${reason}`)]),
      `${name}: ${formatOutcome(summary)}${dryRun ? ' (dry run: nothing was stored)' : ''}`,
      ...(summary.isPaused ? [`  → ${commands.cli(['resume', name])}`] : []),
    ].join('\n'),
  );
  return summary.failed || (answer.namespacesNotEnabled?.length ?? 0) > 0 || summary.isPaused
    ? EXIT.unhealthy
    : undefined;
}

/** Which context of the operator's is the cluster's, nobody has said. */
function labelling(namespace: string): string {
  const { key, value } = NAMESPACE_LABEL;
  return new ShellCommands({}, { context: 'CONTEXT' }).kubectl([
    'label',
    'namespace',
    namespace,
    `${key}=${value}`,
  ]);
}
