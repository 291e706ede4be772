// doctor without a name: every cluster with its first failed check, as far as the refresher sees it.
import type { ClusterSummary } from '../../../contract/refresher-api.ts';
import { EXIT, type ExitCode } from '../../output/errors.ts';
import { colorize, type Io } from '../../output/io.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { table, terminalColumns, wrap } from '../../output/table.ts';
import type { FunctionApi } from './check-aws.ts';
import { fromInspection, fromOthers, fromStatus } from './check-cluster.ts';
import { CHECKS, type Finding, firstProblem, skipped, toJson } from './checks.ts';
import { renderChecks } from './render.ts';
import { renderVersionWarnings, versionsOf } from './versions.ts';

/** The table has no more rows than this, but for clusters with a problem. */
const MAX_ROWS = 50;

/** A cluster, and its first check that failed, else its first that was skipped. */
export interface ClusterResult {
  readonly cluster: string;
  readonly problem?: Finding | undefined;
}

/** Judges all clusters and prints the result. @param inspected the answer of the function */
export function printFleet(
  { stack, version, clusters }: FunctionApi,
  inspected: readonly ClusterSummary[],
  options: ConstructorParameters<typeof ShellCommands>[0],
  findings: readonly Finding[],
  io: Io,
): ExitCode | undefined {
  const commands = new ShellCommands(options, { roleArn: stack.roleArn });
  const now = Date.now();
  const summaries = new Map(inspected.map((summary) => [summary.cluster, summary]));
  const results = clusters.map((status): ClusterResult => {
    const subject = { status, commands };
    const summary = summaries.get(status.name);
    // The answer names a discovery target only if the search failed.
    const isMissing = !summary && status.source !== 'eks-discovery';
    const observed = [
      ...fromStatus(subject, now),
      ...fromOthers(subject, clusters),
      ...(summary && !summary.isPaused ? fromInspection(summary, subject) : []),
      ...(isMissing ? [skipped('reachable', "the refresher's answer does not contain the cluster")] : []),
    ];
    return { cluster: status.name, problem: firstProblem(observed) };
  });
  const ok =
    results.every(({ problem }) => !problem) && findings.every(({ verdict }) => verdict === 'passed');
  const versions = versionsOf({ function: version }, commands);
  const json = {
    ok,
    ...versions,
    findings: findings.map(toJson),
    clusters: results.map(({ cluster, problem }) => ({
      cluster,
      ok: !problem,
      ...(problem && { problem: toJson(problem) }),
    })),
  };
  io.print(json, () =>
    [
      renderChecks(findings),
      ...renderVersionWarnings(versions.versionWarnings, terminalColumns()),
      '',
      renderFleet(results, commands.cli(['doctor', 'NAME'])),
    ].join('\n'),
  );
  return ok ? undefined : EXIT.unhealthy;
}

const HEAD = ['CLUSTER', 'FIRST FAILED CHECK', 'MESSAGE'];

/** Failed clusters first, then skipped ones. @param command that checks one cluster. @param columns of the terminal */
export function renderFleet(
  results: readonly ClusterResult[],
  command: string,
  columns = terminalColumns(),
): string {
  const {
    failed = [],
    skipped: unknown = [],
    passed = [],
  } = Object.groupBy(results, ({ problem }) => problem?.verdict ?? 'passed');
  const shown = passed.slice(0, Math.max(MAX_ROWS - failed.length - unknown.length, 0));
  const more = passed.length - shown.length;
  const rows = [...failed, ...unknown, ...shown].map(({ cluster, problem }) => {
    const title = problem ? CHECKS[problem.check].title : 'none';
    const colour = problem?.verdict === 'failed' ? 'red' : problem ? 'gray' : 'green';
    return [
      cluster,
      colorize(colour, problem?.verdict === 'skipped' ? `skipped: ${title}` : title),
      problem?.message ?? '',
    ];
  });
  return [
    ...(results.length === 0 ? ['No cluster is registered.'] : [table(HEAD, rows, { columns })]),
    ...(more > 0 ? [`… and ${more} more without a problem`] : []),
    '',
    failed.length + unknown.length === 0
      ? colorize('green', 'All clusters passed the checks from AWS.')
      : wrap(
          `Clusters: ${results.length}, of which ${failed.length} failed, ${unknown.length} could not be checked (both exit code 1), ${passed.length} passed.`,
          columns,
        ),
    `  → ${command} also checks inside the cluster, and prints what to do`,
  ].join('\n');
}
