// doctor without a name: every cluster with its first broken link, as far as that can be seen from AWS.
import { EXIT, type ExitCode } from '../../output/errors.ts';
import { colorize, type Io } from '../../output/io.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { table } from '../../output/table.ts';
import { type Door, link } from './check-aws.ts';
import { fromInspection, fromStatus, subjectOf } from './check-cluster.ts';
import { type Finding, firstBroken, firstUnknown, inFull, unknown } from './checks.ts';
import { terminalColumns, walkInWords, wrapped } from './render.ts';

/** Of thousands of clusters, those that are well fill up to so many rows. */
const ROWS = 50;

/** What of a cluster is wrong, or not known. */
export interface ClusterResult {
  readonly cluster: string;
  readonly firstBroken?: ReturnType<typeof inFull>;
  /** Where nothing is broken: it may be. */
  readonly firstUnknown?: ReturnType<typeof inFull>;
}

/** Looks at all of them. @returns undefined where the refresher does not answer, as is then among the findings */
export async function fleet(
  { refresher, stack, clusters }: Door,
  options: ConstructorParameters<typeof ShellCommands>[0],
  findings: Finding[],
  io: Io,
): Promise<{ exitCode: ExitCode | undefined } | undefined> {
  const commands = new ShellCommands(options, { roleArn: stack.roleArn });
  const inspected = await link(
    findings,
    'function',
    commands,
    () => io.step('looking at all clusters from AWS', () => refresher.inspect([])),
    stack,
  );
  if (!inspected) return undefined;
  const now = Date.now();
  const summaries = new Map(inspected.clusters.map((summary) => [summary.cluster, summary]));
  const results = clusters.map((status): ClusterResult => {
    const subject = subjectOf(status, { commands });
    const summary = summaries.get(status.name);
    const seen = [
      ...fromStatus(subject, now),
      ...(summary
        ? // Of a paused one nothing was asked.
          summary.isPaused
          ? []
          : fromInspection(summary, subject)
        : // A place is in the answer only where it fails.
          status.source === 'eks-discovery'
          ? []
          : [unknown('kubeconfig', 'the refresher has not answered for it')]),
    ];
    const first = firstBroken(seen);
    const blind = first ? undefined : firstUnknown(seen);
    return {
      cluster: status.name,
      ...(first && { firstBroken: inFull(first) }),
      ...(blind && { firstUnknown: inFull(blind) }),
    };
  });
  io.print({ findings: findings.map(inFull), clusters: results }, () =>
    [walkInWords(findings), '', fleetInWords(results, commands.cli(['doctor', 'NAME']))].join('\n'),
  );
  return { exitCode: results.every(isWell) ? undefined : EXIT.unhealthy };
}

function isWell(result: ClusterResult): boolean {
  return !result.firstBroken && !result.firstUnknown;
}

/** Broken ones first. @param command that looks at one. @param columns of the terminal */
export function fleetInWords(
  results: readonly ClusterResult[],
  command: string,
  columns = terminalColumns(),
): string {
  const broken = results.filter((result) => result.firstBroken);
  const blind = results.filter((result) => result.firstUnknown);
  const well = results.filter(isWell);
  const shown = well.slice(0, Math.max(ROWS - broken.length - blind.length, 0));
  const more = well.length - shown.length;
  const rows = [...broken, ...blind, ...shown].map(
    ({ cluster, firstBroken: first, firstUnknown: other }) => ({
      cluster,
      link: first?.title ?? (other ? `not known: ${other.title}` : 'none'),
      colour: first ? ('red' as const) : other ? ('gray' as const) : ('green' as const),
      says: first?.says ?? other?.says ?? '',
    }),
  );
  const head = ['CLUSTER', 'FIRST BROKEN LINK', 'SAYS'] as const;
  const width = (texts: readonly string[]) => Math.max(...texts.map((text) => text.length)) + 3;
  const indent =
    width([head[0], ...rows.map(({ cluster }) => cluster)]) +
    width([head[1], ...rows.map((row) => row.link)]);
  return [
    results.length === 0
      ? 'No cluster is registered.'
      : table(
          head,
          rows.map(({ cluster, link: title, colour, says }) => [
            cluster,
            colorize(colour, title),
            wrapped(says, columns && columns - indent).join('\n'),
          ]),
          { columns },
        ),
    ...(more > 0 ? [`… and ${more} more, which ${more === 1 ? 'is' : 'are'} well`] : []),
    '',
    broken.length + blind.length === 0
      ? colorize('green', 'All well, as far as it can be seen from AWS.')
      : wrapped(
          [
            `${broken.length} of ${results.length} ${broken.length === 1 ? 'has' : 'have'} a broken link`,
            ...(blind.length > 0
              ? [`${blind.length} could not be looked at, which counts (exit code 1)`]
              : []),
            `${well.length} ${well.length === 1 ? 'is' : 'are'} well.`,
          ].join('; '),
          columns,
        ).join('\n'),
    `  → ${command} looks into a cluster, too, and says what commands it`,
  ].join('\n');
}
