// ecr-anywhere doctor: checks everything from the operator's AWS session to the credentials in a Secret.
import type { ClusterStatus, ClusterSummary } from '../../../contract/refresher-api.ts';
import { CliError, EXIT, type ExitCode } from '../../output/errors.ts';
import { formatList } from '../../output/format-list.ts';
import type { Io, IoOptions } from '../../output/io.ts';
import type { AwsOptions, KubeOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { terminalColumns } from '../../output/table.ts';
import { checkAws, type FunctionApi, inspect } from './check-aws.ts';
import { fromInspection, fromOthers, fromStatus } from './check-cluster.ts';
import { type ContextResult, checkContext } from './check-context.ts';
import { type Finding, FUNCTION_CHECKS, failed, IN_CLUSTER_CHECKS, judge, toJson } from './checks.ts';
import { printFleet } from './fleet.ts';
import { renderReport } from './render.ts';
import { renderVersionWarnings, versionsOf } from './versions.ts';

type DoctorOptions = AwsOptions &
  KubeOptions &
  IoOptions & { readonly namespace?: string; readonly inCluster?: boolean };

/** How many names of clusters a message lists. */
const MAX_NAMES = 20;

/**
 * Checks one cluster, or all clusters as far as the refresher sees them. Without an AWS session it checks the cluster of
 * the context.
 *
 * @returns EXIT.unhealthy unless every check passed: a skipped check may hide a failure
 * @throws CliError if the name is a discovery target's, or if neither AWS nor a cluster can be checked
 */
export async function doctor(
  name: string | undefined,
  options: DoctorOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  if (options.inCluster) return doctorInCluster(name, options, io);
  const findings: Finding[] = [];
  let inside: ContextResult | undefined;
  const api = await checkAws(options, io, findings);
  if (api && name === undefined) {
    const summaries = await inspectAll(api, options, io, findings);
    if (summaries) return printFleet(api, summaries, options, findings, io);
  } else if (api && name !== undefined) {
    const checked = await checkCluster(name, api, options, findings, io);
    inside = checked.inside;
    findings.push(...checked.findings);
  } else {
    const [sessionFailure] = findings.filter(
      ({ check, verdict }) => check === 'session' && verdict === 'failed',
    );
    inside = await checkContext({ name }, options, io);
    if (sessionFailure && inside.error) throw nothingToCheck(sessionFailure, inside.error);
    findings.push(...inside.findings);
  }
  return print(name, findings, { api, inside }, options, io);
}

/** Checks the cluster of the context, whose refresher runs in it. It needs nothing of AWS. */
async function doctorInCluster(
  name: string | undefined,
  options: DoctorOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  if (name !== undefined)
    throw new CliError(
      'usage',
      'doctor --in-cluster takes no name: it checks the cluster of the context, which is not registered.',
      'For example: ecr-anywhere doctor --in-cluster --context prod',
    );
  const inside = await checkContext({ name }, options, io);
  if (inside.error) throw inside.error;
  return print(undefined, inside.findings, { inside }, options, io, IN_CLUSTER_CHECKS);
}

function nothingToCheck({ code, message }: Finding, error: CliError): CliError {
  return new CliError(
    code === 'no-session' ? 'no-aws-credentials' : code === 'no-region' ? 'no-region' : 'network',
    `doctor can check neither AWS nor a cluster. ${message} ${error.message}`,
    'Sign in to AWS (aws sso login, or name a profile with --profile), or name a context of the cluster with --context.',
    error,
  );
}

/** Inspects all clusters. AWS may list one a few minutes after it was registered: then it is inspected by its name. */
async function inspectAll(
  api: FunctionApi,
  options: DoctorOptions,
  io: Io,
  findings: Finding[],
): Promise<readonly ClusterSummary[] | undefined> {
  const listed = await inspect(api, [], options, io, findings);
  if (!listed) return undefined;
  const names = new Set(listed.map(({ cluster }) => cluster));
  const unlisted = api.clusters
    .filter(
      ({ name, source, isRegistering }) => source === 'registered' && !isRegistering && !names.has(name),
    )
    .map(({ name }) => name);
  if (unlisted.length === 0) return listed;
  const named = await inspect(api, unlisted, options, io, findings);
  return named && [...listed, ...named];
}

/** @param findings those of checkAws; a failure of the function is added */
async function checkCluster(
  name: string,
  api: FunctionApi,
  options: DoctorOptions,
  findings: Finding[],
  io: Io,
): Promise<{ readonly findings: readonly Finding[]; readonly inside: ContextResult }> {
  const { stack, clusters } = api;
  const status = clusters.find((cluster) => cluster.name === name);
  if (status?.source === 'eks-discovery') throw notACluster(status, new ShellCommands(options, {}));
  const [summary] = (status && (await inspect(api, [name], options, io, findings))) ?? [];
  const uid = status?.clusterUid ?? summary?.inspection?.clusterUid;
  const target = { name, uid, isRegistered: status !== undefined, roleArn: stack.roleArn };
  const inside = await checkContext(target, options, io);
  if (!status) return { inside, findings: [...inside.findings, notRegistered(name, clusters, inside)] };
  const subject = { ...inside, status };
  return {
    inside,
    findings: [
      ...inside.findings,
      ...fromStatus(subject, Date.now()),
      ...fromOthers(subject, clusters),
      ...(summary ? fromInspection(summary, subject) : []),
    ],
  };
}

function notRegistered(name: string, clusters: readonly ClusterStatus[], inside: ContextResult): Finding {
  const { commands, findings, uid } = inside;
  const other = clusters.find(({ clusterUid }) => clusterUid !== undefined && clusterUid === uid);
  if (other)
    return failed(
      'registered-under-other-name',
      `There is no cluster ${name}. The cluster of this context is registered as ${other.name}.`,
      { investigate: commands.cli(['doctor', other.name], true) },
    );
  const names = clusters.flatMap((one) => (one.source === 'eks-discovery' ? [] : [one.name]));
  const message = `There is no cluster ${name}. Registered are: ${formatList(names, MAX_NAMES) || 'none'}.`;
  const register = ['register', name];
  // Only if the operator named the context, the cluster is certainly the right one.
  if (findings.some(({ check, verdict }) => check === 'context' && verdict === 'passed'))
    return failed('not-registered', message, { repair: commands.cli(register, true) });
  return failed('not-registered', message, {
    investigate: commands.cli([...register, '--dry-run'], true),
    hint: 'Without --dry-run, the command registers the cluster of the context.',
  });
}

/** The error for a discovery target, which `status` lists beside the clusters. */
function notACluster({ name, reason }: ClusterStatus, commands: ShellCommands): CliError {
  const last = reason === undefined ? '' : ` The last search failed: ${reason}`;
  return new CliError(
    'not-a-cluster',
    `${name} is a discovery target, not a cluster.${last}`,
    `${commands.cli(['doctor'])} checks all discovery targets and clusters. See "Discovery by tag" in docs/registering.md.`,
  );
}

function print(
  name: string | undefined,
  findings: readonly Finding[],
  { api, inside }: { readonly api?: FunctionApi | undefined; readonly inside?: ContextResult | undefined },
  options: AwsOptions & KubeOptions,
  io: Io,
  checks = FUNCTION_CHECKS,
): ExitCode | undefined {
  const judged = judge(findings, checks);
  const ok = judged.every(({ verdict }) => verdict === 'passed');
  const firstFailed = judged.find(({ verdict }) => verdict === 'failed');
  const versions = versionsOf(
    { function: api?.version, chart: inside?.installation?.version },
    inside?.commands ?? new ShellCommands(options, {}),
  );
  const result = {
    cluster: name,
    ok,
    ...versions,
    ...(firstFailed && { firstFailed: toJson(firstFailed) }),
    findings: judged.map(toJson),
  };
  io.print(result, () =>
    [renderReport(judged), ...renderVersionWarnings(versions.versionWarnings, terminalColumns())].join('\n'),
  );
  return ok ? undefined : EXIT.unhealthy;
}
