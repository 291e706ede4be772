// ecr-anywhere doctor: walks the chain, and names the first link that is broken.
import { Aws, type AwsOptions } from './aws.ts';
import { clusterUidOf } from './chart.ts';
import { CliError, EXIT, type ExitCode } from './errors.ts';
import { fromInspection, fromStatus } from './from-aws.ts';
import { isFenced } from './identity.ts';
import { inCluster } from './in-cluster.ts';
import { type Io, type IoOptions, paint } from './io.ts';
import { type KubeOptions, Kubernetes } from './kubernetes.ts';
import { broken, type Finding, firstBroken, inOrder, LINKS, type LinkName, unknown, well } from './links.ts';
import { Refresher } from './refresher.ts';
import { table } from './table.ts';

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
  const refresher = await upToTheFunction(options, io, findings);
  if (!refresher) return tell(name, findings, io);
  const clusters = await io.step('what the refresher knows', () => refresher.status());
  findings.push(well('function', `${clusters.length} clusters`));
  if (name === undefined) return fleet(refresher, findings, io);

  const cluster = clusters.find((one) => one.name === name);
  if (cluster) {
    findings.push(...fromStatus(cluster, Date.now()));
    const { clusters: inspected } = await io.step(`looking at ${name} from AWS`, () =>
      refresher.inspect([name]),
    );
    const [summary] = inspected;
    if (summary) findings.push(...fromInspection(summary, isHeld));
    findings.push(...(await intoTheCluster(name, options, io, summary?.inspection?.clusterUid)));
    return tell(name, findings, io);
  }
  findings.push(
    broken(
      'registered',
      `there is no cluster ${name}; there are: ${clusters.map((one) => one.name).join(', ') || 'none'}`,
      `ecr-anywhere register ${name}`,
    ),
  );
  findings.push(...(await intoTheCluster(name, options, io, undefined)));
  return tell(name, findings, io);
}

/** AWS session, stack. @returns undefined where the chain is broken before the function */
async function upToTheFunction(
  options: DoctorOptions,
  io: Io,
  findings: Finding[],
): Promise<Refresher | undefined> {
  const aws = new Aws(options, io.signal);
  const look = async <T>(link: LinkName, what: string, work: () => Promise<T>, says: (seen: T) => string) => {
    try {
      const seen = await io.step(what, work);
      findings.push(well(link, says(seen)));
      return seen;
    } catch (error) {
      if (!(error instanceof CliError) || error.exitCode === EXIT.interrupted) throw error;
      findings.push(broken(link, error.message, error.hint ?? 'docs/command-line.md'));
      return undefined;
    }
  };
  const caller = await look(
    'session',
    'who you are to AWS',
    () => aws.caller(),
    ({ arn }) => arn,
  );
  if (!caller) return undefined;
  const stack = await look(
    'stack',
    'the deployed refresher',
    () => aws.stack(),
    ({ functionName }) => functionName,
  );
  if (!stack) return undefined;
  const refresher = new Refresher(aws, stack);
  return refresher;
}

function isHeld(identity: { username: string; groups: readonly string[] }): boolean {
  return isFenced(identity, A_REFRESHER.test(identity.username) ? identity.username : undefined);
}

/** @param uid of the cluster, as the refresher sees it; undefined where it does not */
async function intoTheCluster(
  name: string,
  options: DoctorOptions,
  io: Io,
  uid: string | undefined,
): Promise<Finding[]> {
  let kubernetes: Kubernetes;
  try {
    kubernetes = Kubernetes.load(options, io.signal);
    const own = await io.step(`the context ${kubernetes.context}`, () => clusterUidOf(kubernetes));
    if (uid !== undefined && own !== uid)
      return [
        broken(
          'context',
          `the context ${kubernetes.context} is of another cluster than ${name}`,
          'kubectl config get-contexts; then --context',
        ),
      ];
  } catch (error) {
    if (!(error instanceof CliError) || error.exitCode === EXIT.interrupted) throw error;
    return [broken('context', error.message, error.hint ?? 'kubectl config get-contexts; then --context')];
  }
  const says = uid === undefined ? 'that it is the same cluster is not known' : `of ${name}`;
  const inside = await io.step(`looking into the cluster as you`, () => inCluster(kubernetes));
  return [well('context', `${kubernetes.context}, ${says}`), ...inside];
}

/** Every cluster, as far as it can be seen from AWS. */
async function fleet(
  refresher: Refresher,
  findings: readonly Finding[],
  io: Io,
): Promise<ExitCode | undefined> {
  const [known, { clusters }] = await io.step('looking at all clusters from AWS', () =>
    Promise.all([refresher.status(), refresher.inspect([])]),
  );
  const now = Date.now();
  const results = clusters.map((summary) => {
    const status = known.find(({ name }) => name === summary.cluster);
    const all = [
      ...(status ? fromStatus(status, now) : []),
      ...(summary.isPaused ? [] : fromInspection(summary, isHeld)),
    ];
    return { cluster: summary.cluster, first: firstBroken(all) };
  });
  const wrong = results.filter(({ first }) => first !== undefined);
  io.print({ findings, clusters: results }, () =>
    [
      ...inOrder(findings).map(lineOf),
      '',
      ...(results.length > 0
        ? [
            table(
              ['CLUSTER', 'FIRST BROKEN LINK', 'SAYS'],
              results.map(({ cluster, first }) => [
                cluster,
                first ? paint('red', LINKS[first.link].title) : paint('green', 'none'),
                first?.says ?? '',
              ]),
            ),
          ]
        : ['No cluster is registered.']),
      '',
      wrong.length === 0
        ? paint('green', 'All well, as far as it can be seen from AWS.')
        : `${wrong.length} of ${results.length} have a broken link.`,
      '  → ecr-anywhere doctor NAME looks into a cluster, too',
    ].join('\n'),
  );
  return wrong.length > 0 ? EXIT.unwell : undefined;
}

function tell(name: string | undefined, findings: readonly Finding[], io: Io): ExitCode | undefined {
  const seen = new Set(findings.map(({ link }) => link));
  const links = Object.keys(LINKS) as LinkName[];
  const rest = links.filter((link) => !seen.has(link)).map((link) => unknown(link, 'not looked at'));
  const all = inOrder([...unique(findings), ...rest]);
  const first = firstBroken(all);
  const blind = all.filter(({ verdict }) => verdict === 'unknown').length;
  io.print({ cluster: name, allWell: !first && blind === 0, firstBroken: first, findings: all }, () =>
    [
      ...all.map(lineOf),
      '',
      ...(first
        ? [
            `${paint(['bold', 'red'], `First broken link: ${LINKS[first.link].title}`)} (${first.link})`,
            `  ${first.says}`,
            `  ${LINKS[first.link].means}`,
            `  → ${first.repair}`,
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

/** One finding a link: what is broken, before what is well, before what is not known. */
function unique(findings: readonly Finding[]): Finding[] {
  const rank = { broken: 0, well: 1, unknown: 2 } as const;
  const best = new Map<LinkName, Finding>();
  for (const finding of findings) {
    const other = best.get(finding.link);
    if (!other || rank[finding.verdict] < rank[other.verdict]) best.set(finding.link, finding);
  }
  return [...best.values()];
}

function lineOf({ link, verdict, says }: Finding): string {
  return `${paint(COLOURS[verdict], MARKS[verdict])} ${LINKS[link].title.padEnd(32)} ${verdict === 'broken' ? says : paint('dim', says)}`;
}
