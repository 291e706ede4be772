// ecr-anywhere refresh: starts a run limited to one cluster, and prints the outcome of each Secret.

import { NAMESPACE_LABEL } from '../../contract/names.ts';
import { OUTCOMES_WITHOUT_FAILURE, type Outcome } from '../../contract/refresher-api.ts';
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

/** Refreshes a cluster. @returns EXIT.unhealthy if a requested refresh did not succeed. @throws CliError */
export async function refresh(name: string, options: RefreshOptions, io: Io): Promise<ExitCode | undefined> {
  const { namespace: namespaces, force = false, dryRun = false } = options;
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const refresher = new Refresher(aws, await io.step('finding the deployed refresher', () => aws.stack()));
  const answer = await io.step(dryRun ? `running a dry run over ${name}` : `refreshing ${name}`, () =>
    refresher
      .refresh({ clusters: [name], ...(namespaces && { namespaces }), force, dryRun })
      .catch((error: unknown) => {
        if (!io.signal.aborted || dryRun) throw error;
        throw new InterruptedError(
          `The command was interrupted: the refresh of ${name} continues in AWS.`,
          `${commands.cli(['status'])} shows its result.`,
        );
      }),
  );
  const [summary] = answer.clusters;
  for (const namespace of answer.namespacesNotEnabled ?? [])
    io.note(
      `The namespace ${namespace} is not enabled in this cluster. To enable it:\n  → ${labelCommand(namespace)}`,
    );
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
                colorize(colorOf(outcome), outcome),
                expiresAt,
                why,
              ]),
            ),
            '',
          ]
        : []),
      ...(secretsNotListed > 0
        ? [`${secretsNotListed} more Secrets are not listed here; the function's log has them.`]
        : []),
      ...(reason === undefined || summary.isPaused ? [] : [colorize('red', `${name}: ${reason}`)]),
      `${name}: ${formatOutcome(summary)}${dryRun ? ' (dry run: nothing was stored)' : ''}`,
      ...(summary.isPaused ? [`  → ${commands.cli(['resume', name])}`] : []),
    ].join('\n'),
  );
  return summary.failed || (answer.namespacesNotEnabled?.length ?? 0) > 0 || summary.isPaused
    ? EXIT.unhealthy
    : undefined;
}

function colorOf(outcome: Outcome): 'green' | 'yellow' | 'red' {
  if (outcome === 'not-provisioned') return 'yellow';
  return OUTCOMES_WITHOUT_FAILURE.has(outcome) ? 'green' : 'red';
}

/** The command has a placeholder for the context, which is unknown here. */
function labelCommand(namespace: string): string {
  const { key, value } = NAMESPACE_LABEL;
  return new ShellCommands({}, { context: 'CONTEXT' }).kubectl([
    'label',
    'namespace',
    namespace,
    `${key}=${value}`,
  ]);
}
