// ecr-anywhere status: one table of all clusters, who needs you first; once, or for as long as somebody watches.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterStatus, ClusterSummary } from '../../../contract/refresher-api.ts';
import { Aws } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { CliError, EXIT, type ExitCode } from '../../output/errors.ts';
import type { Io, IoOptions } from '../../output/io.ts';
import type { AwsOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { isNeedy, type Missed, overview, rowsOf, type Screen } from './overview.ts';

export interface StatusOptions extends AwsOptions, IoOptions {
  readonly live?: true;
  readonly watch?: true;
  /** Seconds. */
  readonly interval: number;
}

/** What was there before stays in the terminal's history. */
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

/** Shows it. @returns EXIT.unhealthy where a cluster needs somebody. @throws CliError */
export async function status(options: StatusOptions, io: Io): Promise<ExitCode | undefined> {
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  const look = () => (options.live ? lookLive(refresher) : refresher.status());
  if (options.watch) return watch(look, options, commands, io);
  const title = options.live ? 'asking the clusters' : 'asking the refresher what it knows';
  const all = await io.step(title, look);
  const now = Date.now();
  const clusters = rowsOf(all, now);
  io.print({ clusters }, () => overview(clusters, now, commands));
  return clusters.some(isNeedy) ? EXIT.unhealthy : undefined;
}

/** Looks again and again. @throws CliError where there is nothing to be shown yet; InterruptedError */
async function watch(
  look: () => Promise<readonly ClusterStatus[]>,
  { interval }: StatusOptions,
  commands: ShellCommands,
  io: Io,
): Promise<never> {
  let known: { readonly all: readonly ClusterStatus[]; readonly at: number } | undefined;
  for (;;) {
    let missed: Missed | undefined;
    try {
      // No progress: a table that is replaced shows itself that it is alive.
      known = { all: await look(), at: Date.now() };
    } catch (error) {
      io.signal.throwIfAborted();
      if (!known || !(error instanceof CliError)) throw error;
      missed = { error, knownAt: known.at };
    }
    const now = Date.now();
    const clusters = rowsOf(known.all, now);
    const screen = screenOf(io);
    if (screen) process.stdout.write(CLEAR_SCREEN);
    if (screen || !missed)
      io.print({ clusters }, () => overview(clusters, now, commands, { screen, missed }));
    else io.warn(`ecr-anywhere: the last look failed: ${missed.error.message}`);
    await sleep(interval * 1000, undefined, { signal: io.signal });
  }
}

/** Where a table is replaced by the next one; undefined: they follow one another. */
function screenOf({ isTerminal, format }: Io): Screen | undefined {
  const { rows, columns } = process.stdout;
  return isTerminal && format === 'text' && rows > 0 && columns > 0 ? { rows, columns } : undefined;
}

/** What is known, with what a dry run has seen just now in its place. */
async function lookLive(refresher: Refresher): Promise<ClusterStatus[]> {
  // One after the other: the function may be allowed one execution at a time.
  const known = await refresher.status();
  const { clusters } = await refresher.refresh({ dryRun: true });
  const seen = new Map(clusters.map((summary) => [summary.cluster, summary]));
  const lookedAt = new Date().toISOString();
  return known.map((cluster) => {
    const summary = seen.get(cluster.name);
    return summary ? { ...cluster, ...figuresOf(summary, cluster, lookedAt) } : cluster;
  });
}

function figuresOf(summary: ClusterSummary, known: ClusterStatus, lookedAt: string): Partial<ClusterStatus> {
  const { served, failed, isPaused, managed, due, soonestExpiry, reason, problems } = summary;
  if (isPaused) return {};
  const why = reason ?? problems.find((problem) => problem.reason !== undefined)?.reason;
  return {
    lookedAt,
    ...(served && { reachedAt: lookedAt, managed, due }),
    ...(soonestExpiry !== undefined && { soonestExpiry }),
    // A dry run is none of the runs that are counted.
    failures: failed ? Math.max(known.failures ?? 0, 1) : 0,
    ...(failed && why !== undefined && { reason: why }),
  };
}
