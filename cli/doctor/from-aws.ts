// The links that the refresher itself sees from AWS, read from what it answers. Pure.
import { REFRESHER_GROUP } from '../../contract/names.ts';
import type { ClusterSummary } from '../../functions/refresher/report.ts';
import type { ClusterStatus } from '../../functions/refresher/status.ts';
import type { Identity } from '../identity.ts';
import { problemsOf } from '../outcomes.ts';
import type { Repairs } from '../repairs.ts';
import { isSilent, span } from '../urgency.ts';
import { broken, type Finding, type LinkName, unknown, well } from './links.ts';

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
  readonly repairs: Repairs;
  /** Origin of the API server that the operator's context names; undefined where there is none. */
  readonly ownServer?: string | undefined;
  /** Where the operator sees that the chart is not there. */
  readonly missingChart?: Finding | undefined;
  /** Whether the fence holds this identity. */
  readonly isFenced: (identity: Identity) => boolean;
}

/** What the refresher last knew of a cluster. @param now milliseconds since the epoch */
export function fromStatus({ status, repairs }: Subject, now: number): Finding[] {
  const { name, isPaused, pausedSince, lookedAt, source } = status;
  return [
    well('registered', source === 'registered' ? 'in Secrets Manager' : 'by its EKS tag'),
    isPaused
      ? broken(
          'paused',
          `paused${pausedSince === undefined ? '' : ` since ${pausedSince}`}`,
          repairs.own(['resume', name]),
        )
      : well('paused', 'it is refreshed'),
    schedule(lookedAt, now, repairs),
  ];
}

function schedule(lookedAt: string | undefined, now: number, repairs: Repairs): Finding {
  if (lookedAt === undefined) return unknown('schedule', 'no run has looked at it yet');
  const says = `the last run looked ${span(now - Date.parse(lookedAt))} ago`;
  if (!isSilent(lookedAt, now)) return well('schedule', says);
  return broken(
    'schedule',
    says,
    repairs.deploy({ scheduleEnabled: 'true' }),
    'with the other settings that you deploy with; where it is switched on, the alarm NotRunning says where to look',
  );
}

/** What an inspection found. */
export function fromInspection(summary: ClusterSummary, subject: Subject): Finding[] {
  const { served, reason = '', inspection } = summary;
  const isForbidden = /HTTP 403: .*forbidden/.test(reason);
  if (!served && !isForbidden) {
    const failure = whyNotServed(reason, summary, subject);
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

function whyNotServed(reason: string, summary: ClusterSummary, subject: Subject): Finding {
  const again = registerAgain(summary, subject);
  if (/HTTP 401/.test(reason)) return broken('credential', reason, ...again);
  if (subject.status.source === 'eks-scope')
    return broken(
      'registered',
      `EKS clusters cannot be looked for: ${reason}`,
      subject.repairs.deploy({ eksDiscovery: 'REGIONS' }),
      'docs/operations.md, "EKS clusters"',
    );
  // Requests are named by method and path; all else is said of what is registered.
  if (/^(GET|POST|PATCH) \//.test(reason) || /no answer|time was up/.test(reason)) {
    const { status, repairs } = subject;
    if (status.source !== 'registered') return broken('reachable', reason, ...again);
    return broken(
      'reachable',
      reason,
      repairs.own(['register', status.name, '--replace', '--server', 'https://ADDRESS'], true),
      'with the address by which AWS reaches the API server; where the registered one is right, a firewall is in the way',
    );
  }
  return broken('kubeconfig', reason, ...again);
}

/** How the refresher is let in again. @returns a command and, perhaps, a hint */
function registerAgain(
  { inspection }: ClusterSummary,
  { status, repairs, ownServer, missingChart }: Subject,
): [repair: string, hint?: string] {
  if (status.source === 'eks') {
    // arn:aws:eks:REGION:ACCOUNT:cluster/NAME
    const [, , , region = '', , path = ''] = status.name.split(':');
    return [
      repairs.aws(
        [
          ...['eks', 'create-access-entry', '--cluster-name', path.replace(/^cluster\//, '')],
          ...['--principal-arn', repairs.roleArn, '--kubernetes-groups', REFRESHER_GROUP],
        ],
        region,
      ),
      'docs/operations.md, "EKS clusters"; where the entry is there: update-access-entry',
    ];
  }
  // Registered under an address of its own, by which the context's would perhaps not be reached from AWS.
  const server = inspection?.server;
  const address = server !== undefined && server !== ownServer ? ['--server', server] : [];
  const register = repairs.own(['register', status.name, '--replace', ...address], true);
  if (missingChart?.repair !== undefined)
    return [
      missingChart.repair,
      `the chart is not there, and so not whom the refresher was registered as; afterwards: ${register}`,
    ];
  return [register, 'with --eks or --keyless, where it was registered so'];
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
    subject.repairs.own(['register', name, '--replace'], true),
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

function permissions({ served, reason = '', inspection }: ClusterSummary, { repairs }: Subject): Finding {
  const forbidden = inspection?.forbidden ?? [];
  const refused = forbidden.length > 0 || served ? forbidden : [reason];
  if (refused.length > 0)
    return broken(
      'permissions',
      `it may not: ${refused.join(', ')}`,
      repairs.upgrade(),
      'with the chart’s value refresher.namespaces, every enabled namespace must be named there',
    );
  return inspection?.forbidden
    ? well('permissions', 'it may list and patch what it needs to')
    : unknown('permissions', 'the API server does not say what the refresher may do');
}

function token(summary: ClusterSummary, subject: Subject): Finding {
  const { token: shown } = summary.inspection ?? {};
  if (shown === undefined) return well('token', 'there is none that expires');
  const { expiresAt, renewable, whyNot = '' } = shown;
  const until = expiresAt === undefined ? 'it never expires' : `it expires at ${expiresAt}`;
  const wrong = (why: string) =>
    broken('token', `${until}, and is not renewed: ${why}`, ...registerAgain(summary, subject));
  if (!renewable) return wrong(whyNot);
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

function refreshed(summary: ClusterSummary, { repairs }: Subject): Finding {
  const { cluster, managed, due, failed } = summary;
  const secrets = `${managed} managed, ${due} due`;
  if (!failed) return well('refresh', due > 0 ? `${secrets}, and would be refreshed` : secrets);
  const all = problemsOf(summary);
  const more = all.length - PROBLEMS_TOLD;
  return broken(
    'refresh',
    [...all.slice(0, PROBLEMS_TOLD), ...(more > 0 ? [`and ${more} more`] : [])].join('; '),
    repairs.own(['refresh', cluster, '--dry-run']),
    'shows each, with its reason',
  );
}
