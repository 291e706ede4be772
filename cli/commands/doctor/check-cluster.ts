// The links that the refresher itself sees from AWS, read from what it answers. Pure.

import { REFRESHER_GROUP } from '../../../contract/names.ts';
import type { ClusterStatus, ClusterSummary, Inspection } from '../../../contract/refresher-api.ts';
import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import { type Installation, refresherUsername } from '../../kubernetes/chart.ts';
import { type Identity, isFenced } from '../../kubernetes/identity.ts';
import { formatDuration } from '../../output/duration.ts';
import { formatProblems } from '../../output/format-outcome.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { isSilent } from '../status/urgency.ts';
import { broken, type Finding, type LinkName, unknown, well } from './checks.ts';

/** API servers and webhooks refuse tokens and certificates that are minutes off. */
const CLOCK_SKEW_SECONDS = 300;
/** Of problems, so many are told. */
const PROBLEMS_TOLD = 3;

const AFTER_REACHING: readonly LinkName[] = [
  'credential',
  'identity',
  'permissions',
  'token',
  'clock',
  'refresh',
];

/** What the findings are of, and how it is spoken to. */
export interface Subject {
  readonly status: ClusterStatus;
  readonly commands: ShellCommands;
  /** Origin of the API server that the operator's context names; undefined where there is none. */
  readonly ownServer?: string | undefined;
  /** Where the operator sees that the chart is not there. */
  readonly missingChart?: Finding | undefined;
  /** Whether the fence holds this identity. */
  readonly isFenced: (identity: Identity) => boolean;
}

/** Of a refresher whose release is not known: some ServiceAccount of the chart's name. */
const A_REFRESHER = /^system:serviceaccount:[^:]+:[^:]+-refresher$/;

/** @param installation as the operator sees it, if so */
export function subjectOf(
  status: ClusterStatus,
  {
    installation,
    ...rest
  }: Pick<Subject, 'commands' | 'ownServer' | 'missingChart'> & {
    readonly installation?: Installation | undefined;
  },
): Subject {
  const refresherOf = ({ username }: Identity) => (A_REFRESHER.test(username) ? username : undefined);
  return {
    status,
    ...rest,
    isFenced: (identity) =>
      isFenced(identity, installation ? refresherUsername(installation) : refresherOf(identity)),
  };
}

const SOURCES = {
  registered: 'in Secrets Manager',
  eks: 'by its EKS tag',
  'eks-discovery': 'a place where EKS clusters are looked for',
} as const;

/** What the refresher last knew of a cluster. @param now milliseconds since the epoch */
export function fromStatus({ status, commands }: Subject, now: number): Finding[] {
  const { name, isPaused, pausedSince, lookedAt, source } = status;
  return [
    well('registered', SOURCES[source]),
    isPaused
      ? broken(
          'paused',
          `paused${pausedSince === undefined ? '' : ` since ${pausedSince}`}`,
          commands.cli(['resume', name]),
        )
      : well('paused', 'it is refreshed'),
    schedule(lookedAt, now, commands),
  ];
}

function schedule(lookedAt: string | undefined, now: number, commands: ShellCommands): Finding {
  if (lookedAt === undefined) return unknown('schedule', 'no run has looked at it yet');
  const says = `the last run looked ${formatDuration(now - Date.parse(lookedAt))} ago`;
  if (!isSilent(lookedAt, now)) return well('schedule', says);
  return broken(
    'schedule',
    says,
    commands.deploy({ scheduleEnabled: 'true' }),
    'where it is switched on, the alarm NotRunning says where to look',
  );
}

/** The link that is broken, by where the refresher says that it failed. */
const LINK_OF = {
  kubeconfig: 'kubeconfig',
  setting: 'kubeconfig',
  reach: 'reachable',
  credential: 'credential',
  permissions: 'permissions',
} as const satisfies Readonly<Record<NonNullable<ClusterSummary['failedAt']>, LinkName>>;

/** What an inspection found. */
export function fromInspection(summary: ClusterSummary, subject: Subject): Finding[] {
  const { served, failedAt, inspection } = summary;
  if (!served && failedAt !== 'permissions') {
    const failure = whyNotServed(summary, subject);
    const reached = well('reachable', inspection?.server ?? 'it answers');
    return [
      failure,
      ...(failure.link === 'kubeconfig' ? [] : [understood]),
      ...(failure.link === 'credential' ? [reached] : []),
      ...(['reachable', ...AFTER_REACHING] as const).map((link) =>
        unknown(link, 'the refresher does not get that far'),
      ),
    ];
  }
  return [
    leadsElsewhere(summary, subject) ?? understood,
    well('reachable', inspection?.server ?? 'it answers'),
    well('credential', inspection?.username ?? 'the API server takes it'),
    identity(summary, subject),
    permissions(summary, subject),
    token(summary, subject),
    clock(inspection?.clockSkewSeconds),
    refreshed(summary, subject),
  ];
}

const understood = well('kubeconfig', 'the refresher understands it');

function whyNotServed(summary: ClusterSummary, subject: Subject): Finding {
  const { reason = '', failedAt, inspection } = summary;
  const { status, commands } = subject;
  if (status.source === 'eks-discovery')
    return broken(
      'registered',
      `EKS clusters cannot be looked for: ${reason}`,
      commands.deploy(),
      'or the role that is named there: docs/registering.md, "EKS clusters"',
    );
  if (failedAt === undefined)
    return broken(
      'reachable',
      `${reason} (the refresher does not say where it failed)`,
      commands.deploy(),
      'it is of another version than this command line: deploy it from a checkout of the same',
    );
  const link = LINK_OF[failedAt];
  if (failedAt === 'setting')
    return broken(
      link,
      reason,
      commands.deploy(inspection?.identity === 'keyless' ? { keyless: 'true' } : { SETTING: 'VALUE' }),
      'the setting that is named; a list keeps what it has',
    );
  // Its access entry mends neither an endpoint nor what EKS says of it.
  if (status.source === 'eks' && failedAt !== 'credential')
    return broken(link, reason, ...endpointOfEks(summary, subject));
  if (failedAt !== 'reach') return broken(link, reason, ...registerAgain(summary, subject));
  if (inspection?.identity === 'eks') return broken(link, reason, ...endpointOfEks(summary, subject));
  const [repair, hint] = again(summary, subject, ['--server', 'https://ADDRESS']);
  return broken(
    link,
    reason,
    repair,
    `with the address by which AWS reaches the API server; where the registered one is right, a firewall is in the way. ${hint}`,
  );
}

/** How the refresher is let in again. @returns a command and a hint */
function registerAgain(summary: ClusterSummary, subject: Subject): [repair: string, hint: string] {
  const { status, commands, ownServer, missingChart } = subject;
  const { server, identity: kind = 'token' } = summary.inspection ?? {};
  if (status.source === 'eks') {
    const { region, name } = partsOf(status.name);
    return [
      commands.aws(
        [
          ...['eks', 'create-access-entry', '--cluster-name', name],
          ...['--principal-arn', commands.roleArn, '--kubernetes-groups', REFRESHER_GROUP],
        ],
        region,
      ),
      'docs/registering.md, "EKS clusters"; where the entry is there: update-access-entry',
    ];
  }
  // Registered under an address of its own, by which the context's would perhaps not be reached from AWS.
  const address = server !== undefined && server !== ownServer ? ['--server', server] : [];
  const [register, hint] = again(summary, subject, address);
  // Only tokens are of what the chart has made.
  if (missingChart?.repair !== undefined && kind === 'token')
    return [
      missingChart.repair,
      `the chart is not there, and so not whom the refresher was registered as; afterwards: ${register}`,
    ];
  return [register, hint];
}

/** By what is registered: with what it is registered so again, and what to know. */
const AGAIN: Readonly<
  Record<Inspection['identity'] | 'unknown', { readonly flags: readonly string[]; readonly hint: string }>
> = {
  token: { flags: [], hint: 'With --credential KUBECONFIG, where it was registered so' },
  certificate: {
    flags: ['--credential', 'KUBECONFIG'],
    hint: `KUBECONFIG: of a member of the group ${REFRESHER_GROUP}. Without --credential, a token of the chart’s ServiceAccount is registered in place of the certificate`,
  },
  eks: { flags: ['--eks'], hint: 'Its access entry is made, or widened by the group' },
  keyless: {
    flags: ['--keyless'],
    hint: 'It prints what the API server needs; --wait SECONDS until it has read that',
  },
  unknown: {
    flags: [],
    hint: 'With --eks, --keyless or --credential KUBECONFIG, where it was registered so: without, a token is stored',
  },
};

/** Registers a cluster as what it is. @param address as an option, if one is to be given */
function again(
  { inspection }: ClusterSummary,
  { status, commands }: Subject,
  address: readonly string[],
): [repair: string, hint: string] {
  const { flags, hint } = AGAIN[inspection?.identity ?? 'unknown'];
  // EKS itself names the endpoint.
  const given = inspection?.identity === 'eks' ? [] : address;
  return [commands.cli(['register', status.name, '--replace', ...flags, ...given], true), hint];
}

/** Who may reach an EKS cluster's API server. @returns a command and a hint */
function endpointOfEks(
  { inspection }: ClusterSummary,
  { status, commands }: Subject,
): [repair: string, hint: string] {
  const { region, name } =
    status.source === 'eks'
      ? partsOf(status.name)
      : { region: inspection && regionOfEndpoint(inspection.server), name: 'NAME' };
  return [
    commands.aws(
      ['eks', 'describe-cluster', '--name', name, '--query', 'cluster.resourcesVpcConfig'],
      region,
    ),
    'it shows who may reach the endpoint, and whether it is a private one only: docs/registering.md, "EKS clusters"',
  ];
}

/** arn:aws:eks:REGION:ACCOUNT:cluster/NAME */
function partsOf(arn: string): { region: string; name: string } {
  const [, , , region = '', , path = ''] = arn.split(':');
  return { region, name: path.replace(/^cluster\//, '') };
}

/** The registered address may be another cluster's. */
function leadsElsewhere(summary: ClusterSummary, subject: Subject): Finding | undefined {
  const { clusterUid } = subject.status;
  const seen = summary.inspection?.clusterUid;
  if (clusterUid === undefined || seen === undefined || seen === clusterUid) return undefined;
  const { name } = subject.status;
  return broken(
    'kubeconfig',
    `it leads to another cluster (${seen}) than the one that was registered as ${name} (${clusterUid})`,
    again(summary, subject, [])[0],
    `from a context of ${name}; where the cluster was made anew, unregister it first`,
  );
}

function identity(summary: ClusterSummary, subject: Subject): Finding {
  const { username, groups = [] } = summary.inspection ?? {};
  if (username === undefined) return unknown('identity', 'the API server does not say who the refresher is');
  if (subject.isFenced({ username, groups })) return well('identity', username);
  return broken(
    'identity',
    `${username} is neither the chart's ServiceAccount nor in the group ${REFRESHER_GROUP}`,
    ...registerAgain(summary, subject),
  );
}

function permissions(
  { served, reason = '', inspection }: ClusterSummary,
  { commands, missingChart }: Subject,
): Finding {
  const forbidden = inspection?.forbidden ?? [];
  const refused = forbidden.length > 0 || served ? forbidden : [reason];
  if (refused.length > 0)
    return broken(
      'permissions',
      `it may not: ${refused.join(', ')}`,
      missingChart?.repair ?? commands.upgrade(),
      'with the chart’s value refresher.namespaces, every enabled namespace must be named there',
    );
  return inspection?.forbidden
    ? well('permissions', 'it may list and patch what it needs to')
    : unknown('permissions', 'the API server does not say what the refresher may do');
}

function token(summary: ClusterSummary, subject: Subject): Finding {
  const { token: shown } = summary.inspection ?? {};
  if (shown === undefined) return well('token', 'there is none that expires');
  const { expiresAt, renewable } = shown;
  const until = expiresAt === undefined ? 'it never expires' : `it expires at ${expiresAt}`;
  const wrong = (why: string) =>
    broken('token', `${until}, and is not renewed: ${why}`, ...registerAgain(summary, subject));
  if (!renewable) return wrong(shown.reason ?? '');
  // What a run said of the one that is registered still.
  const { tokenExpiresAt, failures = 0, reason = '' } = subject.status;
  const [, why] = /the registered token expires at \S+ and is not renewed: (.*)/.exec(reason) ?? [];
  if (failures > 0 && why !== undefined && tokenExpiresAt === expiresAt) return wrong(why);
  return well('token', `${until}, and is renewed before`);
}

/** @param skewSeconds how far the API server's clock is ahead of AWS'; undefined where it is not known */
export function clock(skewSeconds: number | undefined): Finding {
  if (skewSeconds === undefined) return unknown('clock', 'the API server does not tell its time');
  const says = `the API server's clock is ${Math.abs(skewSeconds)} s ${skewSeconds < 0 ? 'behind' : 'ahead of'} AWS'`;
  return Math.abs(skewSeconds) > CLOCK_SKEW_SECONDS
    ? broken('clock', says, 'timedatectl set-ntp true', 'on the nodes of the control plane')
    : well('clock', says);
}

function refreshed(summary: ClusterSummary, { commands }: Subject): Finding {
  const { cluster, managed, due, failed } = summary;
  const secrets = `${managed} managed, ${due} due`;
  if (!failed) return well('refresh', due > 0 ? `${secrets}, and would be refreshed` : secrets);
  const all = formatProblems(summary);
  const more = all.length - PROBLEMS_TOLD;
  return broken(
    'refresh',
    [...all.slice(0, PROBLEMS_TOLD), ...(more > 0 ? [`and ${more} more`] : [])].join('; '),
    commands.cli(['refresh', cluster, '--dry-run']),
    'shows each, with its reason',
  );
}
