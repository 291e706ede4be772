// The checks that the refresher does from AWS, read from the answers of the function API. Pure.
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import type { ClusterStatus, ClusterSummary, Inspection } from '../../../contract/refresher-api.ts';
import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import { parseEksArn } from '../../aws/arn.ts';
import { type Installation, refresherUsername } from '../../kubernetes/chart.ts';
import { type Identity, isRestricted } from '../../kubernetes/identity.ts';
import { formatDuration } from '../../output/duration.ts';
import { formatProblems } from '../../output/format-outcome.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { isSilent } from '../status/urgency.ts';
import {
  type FailureCode,
  type Finding,
  failed,
  investigate,
  passed,
  type Remedy,
  remedyOf,
  repair,
  skipped,
} from './checks.ts';

/** API servers and AWS reject tokens and certificates if clocks differ by minutes. */
const MAX_CLOCK_SKEW_SECONDS = 300;
/** How many problems of Secrets a message lists. */
const MAX_PROBLEMS = 3;

/** The cluster, and what the operator's context shows of it. */
export interface Subject {
  readonly status: ClusterStatus;
  readonly commands: ShellCommands;
  /** Whether the operator's context belongs to this cluster, by the cluster's UID. */
  readonly isVerified?: boolean;
  /** Origin of the API server that the operator's context names. */
  readonly server?: string | undefined;
  /** The remedy for the chart, if the operator sees that it is not installed. */
  readonly missingChart?: Remedy | undefined;
  /** Whether the write policy restricts this identity. */
  readonly isRestricted: (identity: Identity) => boolean;
}

/** The refresher's ServiceAccount of a release whose name is not known. */
const ANY_REFRESHER = /^system:serviceaccount:[^:]+:[^:]+-refresher$/;

/** @param context what the checks by the operator's context found, if there were any */
export function subjectOf(
  status: ClusterStatus,
  context: {
    readonly commands: ShellCommands;
    readonly findings?: readonly Finding[];
    readonly found?: { readonly installation?: Installation | undefined };
    readonly isVerified?: boolean;
    readonly server?: string | undefined;
  },
): Subject {
  const { commands, findings = [], found, isVerified = false, server } = context;
  const installation = found?.installation;
  const chart = findings.find(({ check, verdict }) => check === 'chart' && verdict === 'failed');
  const refresherOf = ({ username }: Identity) => (ANY_REFRESHER.test(username) ? username : undefined);
  return {
    status,
    commands,
    isVerified,
    server,
    missingChart: chart && !installation ? remedyOf(chart) : undefined,
    isRestricted: (identity) =>
      isRestricted(identity, installation ? refresherUsername(installation) : refresherOf(identity)),
  };
}

const SOURCES = {
  registered: 'in Secrets Manager',
  eks: 'found by its EKS tag',
  'eks-discovery': 'a discovery target for EKS clusters',
} as const;

/** The checks `registration` and `schedule`, from the stored state. @param now milliseconds since the epoch */
export function fromStatus({ status, commands }: Subject, now: number): Finding[] {
  const { name, isPaused, pausedSince, lookedAt, source } = status;
  return [
    passed('registration', SOURCES[source]),
    ...(isPaused
      ? [
          failed(
            'paused',
            `The cluster is paused${pausedSince === undefined ? '' : ` since ${pausedSince}`}.`,
            repair(commands.cli(['resume', name])),
          ),
        ]
      : []),
    schedule(lookedAt, now, commands),
  ];
}

function schedule(lookedAt: string | undefined, now: number, commands: ShellCommands): Finding {
  if (lookedAt === undefined) return skipped('schedule', 'no run has reached the cluster yet');
  const age = formatDuration(now - Date.parse(lookedAt));
  if (!isSilent(lookedAt, now)) return passed('schedule', `last run ${age} ago`);
  return failed(
    'no-recent-run',
    `The last run was ${age} ago.`,
    investigate(
      commands.aws(['scheduler', 'list-schedules', '--query', 'Schedules[].[Name,State,Target.Arn]']),
      `If the schedule is disabled: ${commands.deploy({ scheduleEnabled: 'true' })}. If it is enabled, the alarm NotRunning names the cause.`,
    ),
  );
}

/** The code, by where the cluster failed. */
const CODES = {
  kubeconfig: 'registration-unusable',
  setting: 'setting-missing',
  reach: 'unreachable',
  credential: 'credential-rejected',
  permissions: 'permission-missing',
} as const satisfies Readonly<Record<NonNullable<ClusterSummary['failedAt']>, FailureCode>>;

/** The other checks, from an inspection. */
export function fromInspection(summary: ClusterSummary, subject: Subject): Finding[] {
  const { served, failedAt, inspection } = summary;
  const skew = inspection?.clockSkewSeconds;
  const reachable = passed('reachable', inspection?.server ?? 'the API server responds');
  if (!served && failedAt !== 'permissions')
    return [
      failureOf(summary, subject),
      ...(failedAt === 'credential' ? [reachable] : []),
      skew === undefined ? skipped('clock', 'the refresher could not sign in to the cluster') : clock(skew),
    ];
  return [
    ...differentCluster(summary, subject),
    reachable,
    credential(summary, subject),
    ...identity(summary, subject),
    permissions(summary, subject),
    clock(skew),
    refresh(summary, subject),
  ];
}

function failureOf(summary: ClusterSummary, subject: Subject): Finding {
  const { reason = '', failedAt, inspection } = summary;
  const { status, commands } = subject;
  if (status.source === 'eks-discovery')
    return failed(
      'discovery-failed',
      reason,
      investigate(
        commands.aws([
          ...['iam', 'simulate-principal-policy', '--policy-source-arn', commands.roleArn],
          ...['--action-names', 'eks:ListClusters', 'eks:DescribeCluster'],
        ]),
        'See "Discovery by tag" in docs/registering.md.',
      ),
    );
  if (failedAt === undefined)
    return failed(
      'function-too-old',
      `${reason}; the answer does not state where the cluster failed`,
      investigate(commands.diff(), 'Deploy the refresher and use the command line from the same checkout.'),
    );
  const code = CODES[failedAt];
  if (failedAt === 'setting')
    return failed(
      code,
      reason,
      investigate(
        commands.diff(inspection?.identity === 'keyless' ? { keyless: 'true' } : {}),
        'The command shows what a deployment would change. A deployment resets every setting that you omit. Add the setting that the message names, then deploy.',
      ),
    );
  // An access entry repairs neither the endpoint of an EKS cluster nor its description.
  if (status.source === 'eks' && failedAt !== 'credential')
    return failed(code, reason, endpointOfEks(summary, subject));
  if (failedAt !== 'reach') return failed(code, reason, registerAgain(summary, subject));
  if (inspection?.identity === 'eks') return failed(code, reason, endpointOfEks(summary, subject));
  const register = commands.cli(
    ['register', status.name, '--replace', ...again(summary).flags, '--server', 'https://ADDRESS'],
    true,
  );
  return failed(
    code,
    reason,
    investigate(
      commands.kubectl(['cluster-info']),
      `The registered address is ${inspection?.server ?? 'in the message'}. If AWS reaches the API server at another address: ${register}. Otherwise a firewall may block it.`,
    ),
  );
}

/** How each kind of identity is registered again. */
const AGAIN: Readonly<
  Record<
    Inspection['identity'] | 'unknown',
    { readonly flags: readonly string[]; readonly hint: string; readonly isCertain?: true }
  >
> = {
  token: {
    flags: [],
    isCertain: true,
    hint: "It registers a token of the chart's ServiceAccount. For another identity, add --credential KUBECONFIG.",
  },
  certificate: {
    flags: ['--credential', 'KUBECONFIG'],
    hint: `KUBECONFIG must hold a credential of a member of the group ${REFRESHER_GROUP}. Without --credential, a token of the chart's ServiceAccount replaces the certificate.`,
  },
  eks: { flags: ['--eks'], isCertain: true, hint: 'It creates the access entry, or adds the group to it.' },
  keyless: { flags: ['--keyless'], hint: 'It prints what the API server needs.' },
  unknown: {
    flags: [],
    hint: 'Add --eks, --keyless or --credential KUBECONFIG if the cluster was registered with it. Without, a token is registered.',
  },
};

function again({ inspection }: ClusterSummary) {
  return AGAIN[inspection?.identity ?? 'unknown'];
}

/** How the operator registers the cluster again as what it is. Certain only if the context belongs to the cluster. */
function registerAgain(
  summary: ClusterSummary,
  { status, commands, server: ownServer, isVerified, missingChart }: Subject,
  keepsAddress = true,
): Remedy {
  const { inspection } = summary;
  if (status.source === 'eks') return accessEntry(status, commands);
  // Only a token depends on the ServiceAccount of the chart.
  if (missingChart && (inspection?.identity ?? 'token') === 'token') return missingChart;
  const { flags, hint, isCertain } = again(summary);
  // AWS may not reach the API server at the address of the context. EKS itself names its endpoint.
  const address =
    keepsAddress &&
    inspection !== undefined &&
    inspection.server !== ownServer &&
    inspection.identity !== 'eks'
      ? ['--server', inspection.server]
      : [];
  const args = ['register', status.name, '--replace', ...flags, ...address];
  if (isCertain && isVerified) return repair(commands.cli(args, true), hint);
  return investigate(
    commands.cli([...args, '--dry-run'], true),
    `${hint} Without --dry-run, the command registers the cluster again.`,
  );
}

function accessEntry({ name: arn }: ClusterStatus, commands: ShellCommands): Remedy {
  const { region, name } = parseEksArn(arn);
  const entry = ['--cluster-name', name, '--principal-arn', commands.roleArn];
  const create = ['eks', 'create-access-entry', ...entry, '--kubernetes-groups', REFRESHER_GROUP];
  return investigate(
    commands.aws(['eks', 'describe-access-entry', ...entry], region),
    `The entry must have the group ${REFRESHER_GROUP}. If there is no entry: ${commands.aws(create, region)}. See "EKS clusters" in docs/registering.md.`,
  );
}

/** Shows who may reach the API server of an EKS cluster. */
function endpointOfEks({ inspection }: ClusterSummary, { status, commands }: Subject): Remedy {
  const { region, name } =
    status.source === 'eks'
      ? parseEksArn(status.name)
      : { region: inspection && regionOfEndpoint(inspection.server), name: 'NAME' };
  return investigate(
    commands.aws(
      ['eks', 'describe-cluster', '--name', name, '--query', 'cluster.resourcesVpcConfig'],
      region,
    ),
    'It shows whether the endpoint is public, and for which addresses. See "EKS clusters" in docs/registering.md.',
  );
}

/** The registration's address may belong to a different cluster. */
function differentCluster(summary: ClusterSummary, subject: Subject): Finding[] {
  const { clusterUid, name } = subject.status;
  const actual = summary.inspection?.clusterUid;
  if (clusterUid === undefined || actual === undefined || actual === clusterUid) return [];
  return [
    failed(
      'different-cluster',
      `The registration leads to a different cluster (${actual}) than the one that was registered as ${name} (${clusterUid}).`,
      registerAgain(summary, { ...subject, missingChart: undefined }, false),
    ),
  ];
}

function identity(summary: ClusterSummary, subject: Subject): Finding[] {
  const { username, groups = [] } = summary.inspection ?? {};
  if (username === undefined)
    return [skipped('permissions', "the API server did not state the refresher's identity")];
  if (subject.isRestricted({ username, groups })) return [];
  return [
    failed(
      'identity-not-restricted',
      `${username} is neither the chart's ServiceAccount nor in the group ${REFRESHER_GROUP}.`,
      registerAgain(summary, subject),
    ),
  ];
}

/** A permission that the chart gives the refresher in every installation. */
const CLUSTER_WIDE = 'list namespaces';

function permissions(
  { served, reason = '', inspection }: ClusterSummary,
  { commands, isVerified, missingChart }: Subject,
): Finding {
  const forbidden = inspection?.forbidden ?? [];
  if (forbidden.length === 0 && served)
    return inspection?.forbidden && inspection.username !== undefined
      ? passed('permissions', `${inspection.username} may list and patch managed Secrets`)
      : skipped('permissions', "the API server did not state the refresher's permissions");
  const upgrade = commands.upgrade();
  return failed(
    'permission-missing',
    forbidden.length > 0 ? `The refresher may not: ${forbidden.join(', ')}.` : reason,
    missingChart ??
      (isVerified && forbidden.includes(CLUSTER_WIDE)
        ? repair(upgrade)
        : investigate(
            commands.helm([
              ...['get', 'values', commands.release.release, '--namespace', commands.release.namespace],
            ]),
            `If the chart's value refresher.namespaces is set, it must name every enabled namespace. If it does: ${upgrade}.`,
          )),
  );
}

function credential(summary: ClusterSummary, subject: Subject): Finding {
  const { token, username = 'the API server accepts it' } = summary.inspection ?? {};
  if (token === undefined) return passed('credential', username);
  const { expiresAt, renewable } = token;
  const expiry = expiresAt === undefined ? 'never expires' : `expires at ${expiresAt}`;
  const notRenewed = (why: string) =>
    failed(
      'token-not-renewed',
      `The registered token ${expiry}, and is not renewed: ${why}`,
      registerAgain(summary, subject),
    );
  if (!renewable) return notRenewed(token.reason ?? 'no reason given');
  // The last run may have failed to renew the token that is still registered.
  const { codes = [], tokenExpiresAt, reason = '' } = subject.status;
  if (codes.includes('token-late') && tokenExpiresAt === expiresAt) return notRenewed(reason);
  return passed('credential', `${username}; the token ${expiry}, and is renewed before`);
}

/** @param skewSeconds how far the API server's clock is ahead of that of AWS, if it is known */
export function clock(skewSeconds: number | undefined): Finding {
  if (skewSeconds === undefined) return skipped('clock', 'the API server did not state its time');
  const message = `The API server's clock is ${Math.abs(skewSeconds)} s ${skewSeconds < 0 ? 'behind' : 'ahead of'} that of AWS.`;
  return Math.abs(skewSeconds) > MAX_CLOCK_SKEW_SECONDS
    ? failed(
        'clock-skew',
        message,
        investigate(
          'timedatectl status',
          'Run it on the nodes of the control plane. The provider is responsible for the clock of a managed control plane.',
        ),
      )
    : passed('clock', message);
}

function refresh(summary: ClusterSummary, { commands }: Subject): Finding {
  const { cluster, managed, due, failed: hasFailed } = summary;
  const secrets = `${managed} managed, ${due} due`;
  if (!hasFailed) return passed('refresh', due > 0 ? `${secrets}, and would be refreshed` : secrets);
  const all = formatProblems(summary);
  const more = all.length - MAX_PROBLEMS;
  return failed(
    'not-refreshed',
    [...all.slice(0, MAX_PROBLEMS), ...(more > 0 ? [`and ${more} more`] : [])].join('; '),
    investigate(commands.cli(['refresh', cluster, '--dry-run']), 'It shows the reason for each Secret.'),
  );
}
