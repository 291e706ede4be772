// The checks that the refresher does from AWS, read from the answers of the function API. Pure.
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import type { ClusterStatus, ClusterSummary, Inspection } from '../../../contract/refresher-api.ts';
import { parseEksArn } from '../../aws/arn.ts';
import { incompleteHint } from '../../aws/registration.ts';
import { type Installation, refresherUsername } from '../../kubernetes/chart.ts';
import { isRestricted } from '../../kubernetes/identity.ts';
import { formatDuration } from '../../output/duration.ts';
import { formatList } from '../../output/format-list.ts';
import { formatProblems } from '../../output/format-outcome.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { isSilent } from '../status/urgency.ts';
import { type FailureCode, type Finding, failed, passed, type Remedy, skipped } from './checks.ts';

/** API servers and AWS reject tokens and certificates if clocks differ by minutes. */
const MAX_CLOCK_SKEW_SECONDS = 300;
/** How many problems of Secrets a message lists. */
const MAX_PROBLEMS = 3;

/** The cluster, and what the operator's context shows of it, if that was checked. */
export interface Subject {
  readonly status: ClusterStatus;
  readonly commands: ShellCommands;
  /** Whether the operator's context belongs to this cluster, by the cluster's UID. */
  readonly isVerified?: boolean;
  /** Origin of the API server that the operator's context names. */
  readonly server?: string | undefined;
  readonly installation?: Installation | undefined;
  /** The remedy for the chart, if the operator sees that it is not installed. */
  readonly missingChart?: Remedy | undefined;
}

/** The refresher's ServiceAccount of a release whose name is not known. */
const ANY_REFRESHER = /^system:serviceaccount:[^:]+:[^:]+-refresher$/;

const SOURCES = {
  registered: 'in Secrets Manager',
  eks: 'found by its EKS tag',
  'eks-discovery': 'a discovery target for EKS clusters',
} as const;

/** The checks `registration` and `schedule`, from the stored state. @param now milliseconds since the epoch */
export function fromStatus({ status, commands }: Subject, now: number): Finding[] {
  const { name, isPaused, isRegistering, pausedSince, lookedAt, source } = status;
  const since = pausedSince === undefined ? '' : ` since ${pausedSince}`;
  return [
    isRegistering
      ? failed('registration-incomplete', 'The registration is not complete, so no run uses it.', {
          investigate: commands.cli(['register', name, '--dry-run'], true),
          hint: incompleteHint(name, commands),
        })
      : passed('registration', SOURCES[source]),
    isPaused
      ? failed('paused', `The cluster is paused${since}.`, { repair: commands.cli(['resume', name]) })
      : schedule(lookedAt, now, commands),
  ];
}

/**
 * A failure of the check `registration` if the cluster is registered under another name, too. `register` refuses that, unless
 * two of them run at the same time.
 */
export function fromOthers({ status, commands }: Subject, all: readonly ClusterStatus[]): Finding[] {
  const { name, clusterUid } = status;
  const other = all.find((one) => one.name !== name && clusterUid && one.clusterUid === clusterUid);
  if (!other) return [];
  return [
    failed('registered-twice', `The cluster is also registered as ${other.name}.`, {
      investigate: commands.cli(['status']),
      hint: `The tokens of both are bound to the same Secret, so revoking one ends the other. To remove one: ${commands.cli(['unregister', other.name, '--keep-token'])}`,
    }),
  ];
}

function schedule(lookedAt: string | undefined, now: number, commands: ShellCommands): Finding {
  if (lookedAt === undefined) return skipped('schedule', 'no run has reached the cluster yet');
  const age = formatDuration(now - Date.parse(lookedAt));
  if (!isSilent(lookedAt, now)) return passed('schedule', `last run ${age} ago`);
  return failed('no-recent-run', `The last run was ${age} ago.`, {
    investigate: commands.aws([
      ...['scheduler', 'list-schedules', '--query', 'Schedules[].[Name,State,Target.Arn]'],
    ]),
    hint: `If the schedule is disabled: ${commands.deploy({ scheduleEnabled: 'true' })}. If it is enabled, the alarm NotRunning names the cause.`,
  });
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
    return [failureOf(summary, subject), ...(failedAt === 'credential' ? [reachable] : []), clock(skew)];
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
  const { reason = '', failedAt = 'reach', inspection } = summary;
  const { status, commands } = subject;
  if (status.source === 'eks-discovery')
    return failed('discovery-failed', reason, {
      investigate: commands.aws([
        ...['iam', 'simulate-principal-policy', '--policy-source-arn', commands.roleArn],
        ...['--action-names', 'eks:ListClusters', 'eks:DescribeCluster'],
      ]),
      hint: 'See "Discovery by tag" in docs/registering.md.',
    });
  const code = CODES[failedAt];
  if (failedAt === 'setting')
    return failed(code, reason, {
      investigate: commands.diff(inspection?.identity === 'keyless' ? { keyless: 'true' } : {}),
      hint: 'The command shows what a deployment would change. A deployment resets every setting that you omit. Add the setting that the message names, then deploy.',
    });
  // An access entry repairs neither the endpoint of an EKS cluster nor its description.
  if (status.source === 'eks' && failedAt !== 'credential')
    return failed(code, reason, endpointOfEks(status, commands));
  if (failedAt !== 'reach') return failed(code, reason, registerAgain(summary, subject));
  const { server = 'in the message', identity: kind = 'token' } = inspection ?? {};
  const register = ['register', status.name, '--replace', ...FLAGS[kind], '--server', 'https://ADDRESS'];
  return failed(code, reason, {
    investigate: commands.kubectl(['cluster-info']),
    hint:
      kind === 'eks'
        ? `The endpoint ${server} may be private, or closed to AWS Lambda. See "EKS clusters" in docs/registering.md.`
        : `The registered address is ${server}. If AWS reaches the API server at another address: ${commands.cli(register, true)}. Otherwise a firewall may block it.`,
  });
}

/** The options that register the same kind of identity again. */
const FLAGS: Readonly<Record<Inspection['identity'], readonly string[]>> = {
  token: [],
  certificate: ['--credential', 'KUBECONFIG'],
  eks: ['--eks'],
  keyless: ['--keyless'],
};

/** How the operator registers the cluster again as what it is. Certain only if the context belongs to the cluster. */
function registerAgain(
  { inspection }: ClusterSummary,
  { status, commands, server, isVerified, missingChart }: Subject,
): Remedy {
  if (status.source === 'eks') return accessEntry(status, commands);
  const kind = inspection?.identity;
  // Only a token depends on the ServiceAccount of the chart.
  if (missingChart && (kind === undefined || kind === 'token')) return missingChart;
  // AWS may not reach the API server at the address of the context. EKS itself names its endpoint.
  const keepsAddress = inspection && inspection.server !== server && kind !== 'eks';
  const address = keepsAddress ? ['--server', inspection.server] : [];
  const args = ['register', status.name, '--replace', ...FLAGS[kind ?? 'token'], ...address];
  const hint =
    "Without --eks, --keyless or --credential KUBECONFIG, the command registers a token of the chart's ServiceAccount (docs/registering.md).";
  if (isVerified && (kind === 'token' || kind === 'eks')) return { repair: commands.cli(args, true), hint };
  return {
    investigate: commands.cli([...args, '--dry-run'], true),
    hint: `${hint} Without --dry-run, it registers the cluster again.`,
  };
}

function accessEntry({ name: arn }: ClusterStatus, commands: ShellCommands): Remedy {
  const { region, name } = parseEksArn(arn);
  const entry = ['--cluster-name', name, '--principal-arn', commands.roleArn];
  const create = ['eks', 'create-access-entry', ...entry, '--kubernetes-groups', REFRESHER_GROUP];
  return {
    investigate: commands.aws(['eks', 'describe-access-entry', ...entry], region),
    hint: `The entry must have the group ${REFRESHER_GROUP}. If there is no entry: ${commands.aws(create, region)}. See "EKS clusters" in docs/registering.md.`,
  };
}

/** Shows who may reach the API server of an EKS cluster. */
function endpointOfEks({ name: arn }: ClusterStatus, commands: ShellCommands): Remedy {
  const { region, name } = parseEksArn(arn);
  const describe = ['eks', 'describe-cluster', '--name', name, '--query', 'cluster.resourcesVpcConfig'];
  return {
    investigate: commands.aws(describe, region),
    hint: 'It shows whether the endpoint is public, and for which addresses. See "EKS clusters" in docs/registering.md.',
  };
}

function differentCluster(summary: ClusterSummary, subject: Subject): Finding[] {
  const { clusterUid, name } = subject.status;
  const { clusterUid: actual, server } = summary.inspection ?? {};
  if (clusterUid === undefined || actual === undefined || actual === clusterUid) return [];
  // The registered address may belong to the different cluster, so it is not kept.
  const remedy = registerAgain(summary, { ...subject, missingChart: undefined, server });
  return [
    failed(
      'different-cluster',
      `The registration leads to a different cluster (${actual}) than the one that was registered as ${name} (${clusterUid}).`,
      remedy,
    ),
  ];
}

function identity(summary: ClusterSummary, subject: Subject): Finding[] {
  const { username, groups = [] } = summary.inspection ?? {};
  if (username === undefined) return [];
  const { installation } = subject;
  const anyRefresher = ANY_REFRESHER.test(username) ? username : undefined;
  const refresher = installation ? refresherUsername(installation) : anyRefresher;
  if (isRestricted({ username, groups }, refresher)) return [];
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

/** What the credential can read: a list of Secrets contains their data. */
function readsOf({ readsEverySecret }: Inspection): string {
  if (readsEverySecret === undefined) return '';
  return readsEverySecret
    ? '; it can read every Secret of the cluster (refresher.namespaces limits that)'
    : '; it can read Secrets of some namespaces only (refresher.namespaces)';
}

function permissions(
  { served, reason = '', inspection }: ClusterSummary,
  { commands, isVerified, missingChart }: Subject,
): Finding {
  const forbidden = inspection?.forbidden ?? [];
  if (forbidden.length === 0 && served)
    return inspection?.forbidden && inspection.username !== undefined
      ? passed(
          'permissions',
          `${inspection.username} may list and patch managed Secrets${readsOf(inspection)}`,
        )
      : skipped('permissions', "the API server did not state the refresher's identity and permissions");
  const { release, namespace } = commands.release;
  const message = forbidden.length > 0 ? `The refresher may not: ${forbidden.join(', ')}.` : reason;
  if (missingChart) return failed('permission-missing', message, missingChart);
  if (isVerified && forbidden.includes(CLUSTER_WIDE))
    return failed('permission-missing', message, { repair: commands.upgrade() });
  return failed('permission-missing', message, {
    investigate: commands.helm(['get', 'values', release, '--namespace', namespace]),
    hint: `The value refresher.namespaces of the chart must be * or name every enabled namespace. If it does: ${commands.upgrade()}.`,
  });
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
  if (Math.abs(skewSeconds) <= MAX_CLOCK_SKEW_SECONDS) return passed('clock', message);
  return failed('clock-skew', message, {
    investigate: 'timedatectl status',
    hint: 'Run it on the nodes of the control plane. The provider is responsible for the clock of a managed control plane.',
  });
}

function refresh(summary: ClusterSummary, { commands }: Subject): Finding {
  const { cluster, managed, due, failed: hasFailed } = summary;
  const secrets = `${managed} managed, ${due} due`;
  if (!hasFailed) return passed('refresh', due > 0 ? `${secrets}, and would be refreshed` : secrets);
  return failed('not-refreshed', formatList(formatProblems(summary), MAX_PROBLEMS), {
    investigate: commands.cli(['refresh', cluster, '--dry-run']),
    hint: 'It shows the reason for each Secret.',
  });
}
