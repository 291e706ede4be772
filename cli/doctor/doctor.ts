// ecr-anywhere doctor: walks the chain, and names the first link that is broken.
import type { ClusterSummary } from '../../functions/refresher/report.ts';
import type { ClusterStatus } from '../../functions/refresher/status.ts';
import { Aws, type AwsOptions, type Stack } from '../aws.ts';
import { clusterUidOf, type Found, refresherUsername } from '../chart.ts';
import { CliError, EXIT, type ExitCode } from '../errors.ts';
import { type Identity, isFenced } from '../identity.ts';
import { type Io, type IoOptions, paint } from '../io.ts';
import { type KubeOptions, Kubernetes } from '../kubernetes.ts';
import { Refresher } from '../refresher.ts';
import { Repairs } from '../repairs.ts';
import { table } from '../table.ts';
import { fromInspection, fromStatus, type Subject } from './from-aws.ts';
import { inCluster } from './in-cluster.ts';
import { broken, type Finding, firstBroken, judge, LINKS, type LinkName, well } from './links.ts';

type DoctorOptions = AwsOptions & KubeOptions & IoOptions;

/** Of a refresher whose release is not known: some ServiceAccount of the chart's name. */
const A_REFRESHER = /^system:serviceaccount:[^:]+:[^:]+-refresher$/;

const MARKS = { well: '✔', broken: '✖', unknown: '–' } as const;
const COLOURS = { well: 'green', broken: 'red', unknown: 'gray' } as const;

/**
 * Walks the chain of one cluster, or what of all clusters can be seen from AWS.
 *
 * @returns EXIT.unwell where a link is broken
 */
export async function doctor(
  name: string | undefined,
  options: DoctorOptions,
  io: Io,
): Promise<ExitCode | undefined> {
  const findings: Finding[] = [];
  const door = await upToTheFunction(options, io, findings);
  if (!door) return tell(name, findings, io);
  return name === undefined ? fleet(door, options, findings, io) : one(name, door, options, findings, io);
}

/** What has been got hold of in AWS. */
interface Door {
  readonly refresher: Refresher;
  readonly stack: Stack;
  readonly clusters: readonly ClusterStatus[];
}

/** AWS session, stack, function. @returns undefined where the chain is broken at one of them */
async function upToTheFunction(
  options: DoctorOptions,
  io: Io,
  findings: Finding[],
): Promise<Door | undefined> {
  const aws = new Aws(options, io.signal);
  const repairs = new Repairs(options, {});
  const caller = await link(findings, 'session', repairs, () =>
    io.step('who you are to AWS', () => aws.caller()),
  );
  if (!caller) return undefined;
  findings.push(well('session', caller.arn));
  const stack = await link(findings, 'stack', repairs, () =>
    io.step('the deployed refresher', () => aws.stack()),
  );
  if (!stack) return undefined;
  findings.push(well('stack', stack.functionName));
  const refresher = new Refresher(aws, stack);
  const clusters = await link(
    findings,
    'function',
    repairs,
    () => io.step('what the refresher knows', () => refresher.status()),
    stack,
  );
  if (!clusters) return undefined;
  findings.push(
    well('function', `it knows ${clusters.length === 1 ? '1 cluster' : `${clusters.length} clusters`}`),
  );
  return { refresher, stack, clusters };
}

/** Asks something that a link stands or falls with. @returns undefined where it is broken */
async function link<T>(
  findings: Finding[],
  name: LinkName,
  repairs: Repairs,
  ask: () => Promise<T>,
  stack?: Stack,
): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode === EXIT.interrupted) throw error;
    findings.push(broken(name, error.message, commandFor(error, repairs, stack), error.hint));
    return undefined;
  }
}

/** The command that a failure at AWS calls for. @param stack whose function it is that has failed */
function commandFor({ exitCode, message }: CliError, repairs: Repairs, stack?: Stack): string {
  if (exitCode === EXIT.signIn) return repairs.aws(['sso', 'login']);
  if (exitCode === EXIT.usage) return 'export AWS_REGION=REGION';
  if (exitCode === EXIT.notFound || /does not understand/.test(message)) return repairs.deploy();
  if (stack === undefined || exitCode !== EXIT.failed) return repairs.aws(['sts', 'get-caller-identity']);
  const group = repairs.aws([
    ...['lambda', 'get-function-configuration', '--function-name', stack.functionName],
    ...['--query', 'LoggingConfig.LogGroup', '--output', 'text'],
  ]);
  return `${repairs.aws(['logs', 'tail', '--since', '1h'])} "$(${group})"`;
}

async function one(
  name: string,
  { refresher, stack, clusters }: Door,
  options: DoctorOptions,
  findings: Finding[],
  io: Io,
): Promise<ExitCode | undefined> {
  const status = clusters.find((cluster) => cluster.name === name && cluster.source !== 'eks-scope');
  let summary: ClusterSummary | undefined;
  if (status) {
    const answer = await link(
      findings,
      'function',
      new Repairs(options, {}),
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
    const subject = { ...subjectOf(status, own), missingChart };
    findings.push(...fromStatus(subject, Date.now()), ...(summary ? fromInspection(summary, subject) : []));
    return tell(name, findings, io);
  }
  // A cluster has one name.
  const known = clusters.find(({ clusterUid }) => clusterUid !== undefined && clusterUid === own.uid);
  findings.push(
    known
      ? broken(
          'registered',
          `there is no cluster ${name}: the one of this context is registered as ${known.name}`,
          own.repairs.own(['doctor', known.name], true),
        )
      : broken(
          'registered',
          `there is no cluster ${name}; there are: ${clusters.map((cluster) => cluster.name).join(', ') || 'none'}`,
          own.repairs.own(['register', name], true),
        ),
  );
  return tell(name, findings, io);
}

/** What the operator's own context yields. */
interface Inside {
  readonly findings: readonly Finding[];
  readonly found: Found;
  readonly repairs: Repairs;
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
  const nothing = { found: { originals: [] }, repairs: new Repairs(options, { roleArn }) };
  let context: string | undefined;
  try {
    const kubernetes = Kubernetes.load(options, io.signal);
    context = kubernetes.context;
    const uid = await io.step(`the context ${context}`, () => clusterUidOf(kubernetes));
    const server = URL.parse((await kubernetes.server()).url)?.origin;
    // By its tag, where the refresher does not get there.
    const wanted = status?.clusterUid ?? summary?.inspection?.clusterUid;
    if (wanted !== undefined && wanted !== uid)
      return {
        ...nothing,
        findings: [
          broken(
            'context',
            `the context ${context} is of another cluster than ${name}`,
            new Repairs(options, { context: 'CONTEXT' }).own(['doctor', name], true),
            'with one of those that kubectl config get-contexts shows',
          ),
        ],
      };
    const says = wanted === undefined ? 'that it is the same cluster is not known' : `of ${name}`;
    const inside = await io.step('looking into the cluster as you', () =>
      inCluster(kubernetes, ({ release }) => new Repairs(options, { context, release, roleArn })),
    );
    return {
      ...inside,
      findings: [well('context', `${context}, ${says}`), ...inside.findings],
      ...{ uid, server },
    };
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode === EXIT.interrupted) throw error;
    const { message, hint = 'then --context', exitCode } = error;
    const repair =
      context !== undefined && exitCode === EXIT.signIn
        ? new Repairs(options, { context }).kubectl(['auth', 'whoami'])
        : 'kubectl config get-contexts';
    return { ...nothing, findings: [broken('context', message, repair, hint)] };
  }
}

function subjectOf(
  status: ClusterStatus,
  { found, repairs, server }: Pick<Inside, 'found' | 'repairs' | 'server'>,
): Subject {
  const { installation } = found;
  return {
    ...{ status, repairs, ownServer: server },
    isFenced: (identity: Identity) =>
      isFenced(
        identity,
        installation
          ? refresherUsername(installation)
          : A_REFRESHER.test(identity.username)
            ? identity.username
            : undefined,
      ),
  };
}

/** Every cluster, as far as it can be seen from AWS. */
async function fleet(
  { refresher, stack, clusters }: Door,
  options: DoctorOptions,
  findings: Finding[],
  io: Io,
): Promise<ExitCode | undefined> {
  const repairs = new Repairs(options, { roleArn: stack.roleArn });
  const inspected = await link(
    findings,
    'function',
    repairs,
    () => io.step('looking at all clusters from AWS', () => refresher.inspect([])),
    stack,
  );
  if (!inspected) return tell(undefined, findings, io);
  const now = Date.now();
  const summaries = new Map(inspected.clusters.map((summary) => [summary.cluster, summary]));
  const results = clusters.map((status) => {
    const subject = subjectOf(status, { found: { originals: [] }, repairs });
    const summary = summaries.get(status.name);
    const first = firstBroken([
      ...fromStatus(subject, now),
      // Of a paused one nothing was asked.
      ...(summary && !summary.isPaused ? fromInspection(summary, subject) : []),
    ]);
    return { cluster: status.name, ...(first && { firstBroken: inFull(first) }) };
  });
  const wrong = results.filter((result) => result.firstBroken !== undefined).length;
  io.print({ findings: findings.map(inFull), clusters: results }, () =>
    [
      ...findings.map(lineOf),
      '',
      ...(results.length > 0
        ? [
            table(
              ['CLUSTER', 'FIRST BROKEN LINK', 'SAYS'],
              results.map(({ cluster, firstBroken: first }) => [
                cluster,
                first ? paint('red', first.title) : paint('green', 'none'),
                first?.says ?? '',
              ]),
            ),
          ]
        : ['No cluster is registered.']),
      '',
      wrong === 0
        ? paint('green', 'All well, as far as it can be seen from AWS.')
        : `${wrong} of ${results.length} ${wrong === 1 ? 'has' : 'have'} a broken link.`,
      '  → ecr-anywhere doctor NAME looks into a cluster, too, and says what repairs it',
    ].join('\n'),
  );
  return wrong > 0 ? EXIT.unwell : undefined;
}

function tell(name: string | undefined, findings: readonly Finding[], io: Io): ExitCode | undefined {
  const all = judge(findings);
  const first = firstBroken(findings);
  const blind = all.filter(({ verdict }) => verdict === 'unknown').length;
  const result = {
    cluster: name,
    allWell: !first && blind === 0,
    ...(first && { firstBroken: inFull(first) }),
    findings: all.map(inFull),
  };
  io.print(result, () =>
    [
      ...all.map(lineOf),
      '',
      ...(first
        ? [
            `${paint(['bold', 'red'], `First broken link: ${LINKS[first.link].title}`)} (${first.link})`,
            `  ${first.says}`,
            `  ${LINKS[first.link].means}`,
            `  → ${first.repair}`,
            ...(first.hint === undefined ? [] : [`    (${first.hint})`]),
          ]
        : [
            blind === 0
              ? paint(['bold', 'green'], 'All well.')
              : `No broken link, among those that could be looked at (${blind} could not).`,
          ]),
    ].join('\n'),
  );
  return first ? EXIT.unwell : undefined;
}

/** With what is the same for every cluster; `means` where it is broken. */
function inFull({ link: name, ...finding }: Finding) {
  const { title, means } = LINKS[name];
  return { link: name, title, ...finding, ...(finding.verdict === 'broken' && { means }) };
}

function lineOf({ link: name, verdict, says }: Finding): string {
  return `${paint(COLOURS[verdict], MARKS[verdict])} ${LINKS[name].title.padEnd(32)} ${verdict === 'broken' ? says : paint('dim', says)}`;
}
