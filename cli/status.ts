// ecr-anywhere status: one table of all clusters, who needs you first.
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterSummary } from '../functions/refresher/report.ts';
import type { ClusterStatus } from '../functions/refresher/status.ts';
import { Aws, type AwsOptions } from './aws.ts';
import { EXIT, type ExitCode } from './errors.ts';
import { type Io, type IoOptions, paint } from './io.ts';
import { Refresher } from './refresher.ts';
import { table } from './table.ts';
import { byUrgency, NEEDY, type State, span, stateOf } from './urgency.ts';

export interface StatusOptions extends AwsOptions, IoOptions {
  readonly live?: true;
  readonly watch?: true;
  /** Seconds. */
  readonly interval: number;
}

const COLOURS: Readonly<Record<State, Parameters<typeof paint>[0]>> = {
  expired: ['bold', 'red'],
  expiring: 'red',
  failing: 'yellow',
  silent: 'yellow',
  new: 'cyan',
  paused: 'gray',
  well: 'green',
};
const CLEAR_SCREEN = '\u001b[H\u001b[2J\u001b[3J';

/** Shows it. @returns EXIT.unwell where a cluster needs somebody. @throws CliError */
export async function status(options: StatusOptions, io: Io): Promise<ExitCode | undefined> {
  const aws = new Aws(options, io.signal);
  const refresher = new Refresher(aws, await io.step('the deployed refresher', () => aws.stack()));
  for (;;) {
    const look = () => (options.live ? lookLive(refresher) : refresher.status());
    const title = options.live ? 'asking the clusters' : 'asking the refresher what it knows';
    // A table that is replaced shows itself that it is alive.
    const clusters = options.watch ? await look() : await io.step(title, look);
    const now = Date.now();
    const sorted = clusters
      .toSorted(byUrgency(now))
      .map((cluster) => ({ state: stateOf(cluster, now), ...cluster }));
    const needy = sorted.filter(({ state }) => NEEDY.has(state)).length;
    if (options.watch && io.isTerminal && io.format === 'text') process.stdout.write(CLEAR_SCREEN);
    io.print({ clusters: sorted }, () => inWords(sorted, needy, now));
    if (!options.watch) return needy > 0 ? EXIT.unwell : undefined;
    await sleep(options.interval * 1000, undefined, { signal: io.signal });
  }
}

/** What is known, with what a dry run has seen just now in its place. */
async function lookLive(refresher: Refresher): Promise<ClusterStatus[]> {
  const [known, { clusters }] = await Promise.all([refresher.status(), refresher.refresh({ dryRun: true })]);
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

type Row = ClusterStatus & { readonly state: State };

function inWords(clusters: readonly Row[], needy: number, now: number): string {
  if (clusters.length === 0) return 'No cluster is registered.\n  → ecr-anywhere register NAME';
  const ago = (time: string | undefined) =>
    time === undefined ? '-' : `${span(now - Date.parse(time))} ago`;
  const rows = clusters.map((cluster) => {
    const { name, state, managed, due, soonestExpiry, failures = 0, reachedAt, reason = '' } = cluster;
    return [
      name,
      paint(COLOURS[state], state),
      ago(reachedAt),
      managed === undefined ? '-' : String(managed),
      due === undefined ? '-' : String(due),
      soonestExpiry === undefined ? '-' : span(Date.parse(soonestExpiry) - now),
      failures === 0 ? '-' : paint('yellow', String(failures)),
      failures === 0 ? '' : reason,
    ];
  });
  const count = `${clusters.length} ${clusters.length === 1 ? 'cluster' : 'clusters'}`;
  const worst = clusters[0]?.name ?? '';
  return [
    table(['CLUSTER', 'STATE', 'REACHED', 'SECRETS', 'DUE', 'EXPIRES IN', 'FAILURES', 'REASON'], rows, {
      lines: 2,
    }),
    '',
    needy === 0
      ? paint('green', `${count}, none needs you.`)
      : `${count}, ${paint(['bold', 'red'], `${needy} ${needy === 1 ? 'needs' : 'need'} you`)}.\n  → ecr-anywhere doctor ${worst}`,
  ].join('\n');
}
