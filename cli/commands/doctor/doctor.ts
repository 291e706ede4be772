// ecr-anywhere doctor: walks the chain, and names the first link that is broken.

import type { ClusterStatus, ClusterSummary } from '../../../contract/refresher-api.ts';
import type { Stack } from '../../aws/aws.ts';
import { clusterUidOf, type Found } from '../../kubernetes/chart.ts';
import { Kubernetes } from '../../kubernetes/client.ts';
import { CliError, EXIT, type ExitCode } from '../../output/errors.ts';
import { formatList } from '../../output/format-list.ts';
import { colorize, type Io, type IoOptions } from '../../output/io.ts';
import type { AwsOptions, KubeOptions } from '../../output/options.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import { type Door, link, toTheFunction } from './check-aws.ts';
import { fromInspection, fromStatus, subjectOf } from './check-cluster.ts';
import { broken, type Finding, firstBroken, inFull, judge, unknown, well } from './checks.ts';
import { fleet } from './fleet.ts';
import { inCluster } from './in-cluster.ts';
import { blindnessInWords, firstBrokenInWords, walkInWords } from './render.ts';

type DoctorOptions = AwsOptions & KubeOptions & IoOptions;

/** Of the clusters that there are, so many are named to whoever has misspelt one. */
const NAMES_TOLD = 20;

/**
 * Walks the chain of one cluster, or what of all clusters can be seen from AWS.
 *
 * @returns EXIT.unhealthy unless all is well: what could not be looked at may be broken
 * @throws CliError where the name is no cluster's
 */
export async function doctor(
  name: string | undefined,
  options: DoctorOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  const findings: Finding[] = [];
  const door = await toTheFunction(options, io, findings);
  if (!door) return tell(name, findings, io);
  if (name !== undefined) return one(name, door, options, findings, io);
  const looked = await fleet(door, options, findings, io);
  return looked ? looked.exitCode : tell(name, findings, io);
}

async function one(
  name: string,
  { refresher, stack, clusters }: Door,
  options: DoctorOptions,
  findings: Finding[],
  io: Io,
): Promise<ExitCode | undefined> {
  const status = clusters.find((cluster) => cluster.name === name);
  if (status?.source === 'eks-discovery') throw noCluster(status, new ShellCommands(options, {}));
  let summary: ClusterSummary | undefined;
  if (status) {
    const answer = await link(
      findings,
      'function',
      new ShellCommands(options, {}),
      () => io.step(`looking at ${name} from AWS`, () => refresher.inspect([name])),
      stack,
    );
    summary = answer?.clusters[0];
  }
  const own = await lookInside(name, options, io, { status, summary, stack });
  findings.push(...own.findings);
  if (status) {
    const chart = own.findings.find(({ link: of, verdict }) => of === 'chart' && verdict === 'broken');
    const missingChart = own.found.installation ? undefined : chart;
    const subject = subjectOf(status, {
      ...{ missingChart, commands: own.commands, ownServer: own.server },
      installation: own.found.installation,
    });
    findings.push(...fromStatus(subject, Date.now()), ...(summary ? fromInspection(summary, subject) : []));
    return tell(name, findings, io);
  }
  const names = clusters.flatMap((one) => (one.source === 'eks-discovery' ? [] : [one.name]));
  // A cluster has one name.
  const known = clusters.find(({ clusterUid }) => clusterUid !== undefined && clusterUid === own.uid);
  findings.push(
    known
      ? broken(
          'registered',
          `there is no cluster ${name}: the one of this context is registered as ${known.name}`,
          own.commands.cli(['doctor', known.name], true),
        )
      : broken(
          'registered',
          `there is no cluster ${name}; there are: ${formatList(names, NAMES_TOLD) || 'none'}`,
          own.commands.cli(['register', name], true),
        ),
  );
  return tell(name, findings, io);
}

/** The error for a place where clusters are looked for, which `status` names beside them. */
function noCluster({ name, reason }: ClusterStatus, commands: ShellCommands): CliError {
  const last = reason === undefined ? '' : `; the last look failed: ${reason}`;
  return new CliError(
    'not-a-cluster',
    `${name} is a place where EKS clusters are looked for, and no cluster${last}`,
    `${commands.cli(['doctor'])} looks there, and at the clusters; docs/registering.md, "EKS clusters"`,
  );
}

/** What the operator's own context yields. */
interface Inside {
  readonly findings: readonly Finding[];
  readonly found: Found;
  readonly commands: ShellCommands;
  /** Of its cluster. */
  readonly uid?: string | undefined;
  /** Origin. */
  readonly server?: string | undefined;
}

async function lookInside(
  name: string,
  options: DoctorOptions,
  io: Io,
  {
    status,
    summary,
    stack,
  }: { status: ClusterStatus | undefined; summary: ClusterSummary | undefined; stack: Stack },
): Promise<Inside> {
  const { roleArn } = stack;
  const seenWith = (context?: string) => ({
    found: { originals: [] },
    commands: new ShellCommands(options, { context, roleArn }),
  });
  let context: string | undefined;
  try {
    const kubernetes = Kubernetes.load(options, io.signal);
    context = kubernetes.context;
    const uid = await io.step(`the context ${context}`, () => clusterUidOf(kubernetes));
    // By its tag, where the refresher does not get there.
    const wanted = status?.clusterUid ?? summary?.inspection?.clusterUid;
    if (wanted !== undefined && wanted !== uid) {
      const other = seenWith('CONTEXT');
      return {
        ...other,
        findings: [
          broken(
            'context',
            `the context ${context} is of another cluster than ${name}`,
            other.commands.cli(['doctor', name], true),
            `with one of those that ${kubectlOf(options, ['config', 'get-contexts'])} shows`,
          ),
        ],
      };
    }
    const isNamed = options.context !== undefined || options.kubeconfig !== undefined;
    // Whichever is current may be anybody's: what is broken there would be said of another cluster, and mended there.
    if (wanted === undefined && !isNamed)
      return {
        // One that is to be registered yet is the one of the context, or known by it under another name.
        ...(status ? seenWith('CONTEXT') : seenWith(context)),
        findings: [
          unknown(
            'context',
            `it is not known whether the context ${context} is of ${name}: name it with --context`,
          ),
        ],
        uid,
      };
    const server = URL.parse((await kubernetes.server()).url)?.origin;
    const says = wanted === undefined ? 'which is not known to be the same cluster' : `of ${name}`;
    const inside = await io.step('looking into the cluster as you', () =>
      inCluster(kubernetes, ({ release }) => new ShellCommands(options, { context, release, roleArn })),
    );
    return {
      ...inside,
      findings: [well('context', `${context}, ${says}`), ...inside.findings],
      ...{ uid, server },
    };
  } catch (error) {
    if (!(error instanceof CliError) || error.code === 'interrupted') throw error;
    const { message, hint = 'then --context', exitCode } = error;
    const repair =
      context !== undefined && exitCode === EXIT.unauthenticated
        ? kubectlOf(options, ['auth', 'whoami'], context)
        : kubectlOf(options, ['config', 'get-contexts']);
    return { ...seenWith(), findings: [broken('context', message, repair, hint)] };
  }
}

function kubectlOf(options: DoctorOptions, args: readonly string[], context?: string): string {
  return new ShellCommands(options, { context }).kubectl(args);
}

function tell(name: string | undefined, findings: readonly Finding[], io: Io): ExitCode | undefined {
  const all = judge(findings);
  const first = firstBroken(findings);
  const allWell = all.every(({ verdict }) => verdict === 'well');
  const result = {
    ...{ cluster: name, allWell },
    ...(first && { firstBroken: inFull(first) }),
    findings: all.map(inFull),
  };
  io.print(result, () =>
    [
      walkInWords(all),
      '',
      first
        ? firstBrokenInWords(first)
        : allWell
          ? colorize(['bold', 'green'], 'All well.')
          : blindnessInWords(all),
    ].join('\n'),
  );
  return allWell ? undefined : EXIT.unhealthy;
}
