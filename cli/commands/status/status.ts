// ecr-anywhere status: prints all clusters in one table, the most urgent first; once, or repeatedly with --watch.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterStatus, ClusterSummary, StatusAnswer } from '../../../contract/refresher-api.ts';
import { Aws } from '../../aws/aws.ts';
import { Refresher } from '../../aws/refresher.ts';
import { CliError, EXIT, type ExitCode } from '../../output/errors.ts';
import type { Io, IoOptions } from '../../output/io.ts';
import type { AwsOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { type FailedUpdate, needsAttention, overview, rowsOf, type Screen } from './overview.ts';

export interface StatusOptions extends AwsOptions, IoOptions {
  readonly live?: true;
  readonly watch?: true;
  /** Seconds. */
  readonly interval?: number;
}

const DEFAULT_INTERVAL_SECONDS = 10;
/** Clears the screen, and keeps what the terminal has scrolled away. */
const CLEAR_SCREEN = '\u001b[H\u001b[2J';

/** Prints the table. @returns EXIT.unhealthy if a cluster needs attention. @throws CliError */
export async function status(options: StatusOptions, io: Io): Promise<ExitCode | undefined> {
  if (options.interval !== undefined && !options.watch)
    throw new CliError(
      'usage',
      '--interval has no effect without --watch.',
      'Add --watch, or leave --interval out.',
    );
  const aws = new Aws(options, io.signal);
  const commands = new ShellCommands(options, {});
  const refresher = new Refresher(aws, await io.step('finding the deployed refresher', () => aws.stack()));
  const fetchAll = () => (options.live ? fetchLive(refresher) : refresher.overview());
  if (options.watch) return watch(fetchAll, options, commands, io);
  const {
    version,
    clusters: all,
    subscribers,
  } = await io.step(
    options.live ? 'running a dry run over the clusters' : 'reading the saved state',
    fetchAll,
  );
  const now = Date.now();
  const clusters = rowsOf(all, now);
  const isWide = io.format === 'wide';
  io.print({ version, clusters, subscribers }, () =>
    overview(clusters, now, commands, { isWide, subscribers }),
  );
  return clusters.some(needsAttention) ? EXIT.unhealthy : undefined;
}

/**
 * Prints the table every interval. After the first table, an update that fails does not end the command.
 *
 * @throws CliError if the first update fails; InterruptedError
 */
async function watch(
  fetchAll: () => Promise<StatusAnswer>,
  { interval = DEFAULT_INTERVAL_SECONDS }: StatusOptions,
  commands: ShellCommands,
  io: Io,
): Promise<never> {
  let last: (StatusAnswer & { readonly at: number }) | undefined;
  for (;;) {
    let failed: FailedUpdate | undefined;
    try {
      // Without progress: the table itself shows that the command is running.
      last = { ...(await fetchAll()), at: Date.now() };
    } catch (error) {
      io.signal.throwIfAborted();
      if (!last || !(error instanceof CliError)) throw error;
      failed = { error, lastUpdate: last.at };
    }
    const now = Date.now();
    const clusters = rowsOf(last.clusters, now);
    const { version, subscribers } = last;
    const screen = screenOf(io);
    const isWide = io.format === 'wide';
    if (screen) process.stdout.write(CLEAR_SCREEN);
    if (screen || !failed)
      io.print({ version, clusters, subscribers }, () =>
        overview(clusters, now, commands, { screen, failed, isWide, subscribers }),
      );
    else io.warn(`ecr-anywhere: The last update failed: ${failed.error.message}`);
    await sleep(interval * 1000, undefined, { signal: io.signal });
  }
}

/** The terminal in which each table replaces the one before; undefined: the tables are printed one after the other. */
function screenOf({ isTerminal, format }: Io): Screen | undefined {
  const { rows, columns } = process.stdout;
  return isTerminal && format !== 'json' && rows > 0 && columns > 0 ? { rows, columns } : undefined;
}

/** The saved state, updated with the results of a dry run over all clusters. */
async function fetchLive(refresher: Refresher): Promise<StatusAnswer> {
  // In sequence: the function's reserved concurrency may be 1.
  const { clusters: saved, ...rest } = await refresher.overview();
  const { clusters } = await refresher.refresh({ dryRun: true });
  const summaries = new Map(clusters.map((summary) => [summary.cluster, summary]));
  const lookedAt = new Date().toISOString();
  return {
    ...rest,
    clusters: saved.map((cluster) => {
      const summary = summaries.get(cluster.name);
      return summary ? withObservation(cluster, summary, lookedAt) : cluster;
    }),
  };
}

function withObservation(saved: ClusterStatus, summary: ClusterSummary, lookedAt: string): ClusterStatus {
  const { served, failed, isPaused, managed, due, soonestExpiry, codes, problems } = summary;
  if (isPaused) return saved;
  // The saved reason and codes are those of an earlier failure.
  const { reason: _, codes: __, ...rest } = saved;
  const reason = summary.reason ?? problems.find((problem) => problem.reason !== undefined)?.reason;
  return {
    ...rest,
    lookedAt,
    ...(served && { reachedAt: lookedAt, managed, due }),
    ...(soonestExpiry !== undefined && { soonestExpiry }),
    // The refresher does not count dry runs.
    failures: failed ? Math.max(saved.failures ?? 0, 1) : 0,
    ...(failed && reason !== undefined && { reason }),
    ...(failed && codes && { codes }),
  };
}
