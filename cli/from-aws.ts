// The links that the refresher itself sees from AWS, read from what it answers. Pure.
import { REFRESHER_GROUP } from '../contract/names.ts';
import type { ClusterSummary } from '../functions/refresher/report.ts';
import type { ClusterStatus } from '../functions/refresher/status.ts';
import { broken, type Finding, type LinkName, unknown, well } from './links.ts';
import { problemsOf } from './outcomes.ts';
import { isSilent, span } from './urgency.ts';

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

/** What the refresher last knew of a cluster. @param now milliseconds since the epoch */
export function fromStatus(cluster: ClusterStatus, now: number): Finding[] {
  const { name, isPaused, pausedSince, lookedAt } = cluster;
  return [
    well('registered', cluster.source === 'registered' ? 'in Secrets Manager' : 'by its EKS tag'),
    isPaused
      ? broken(
          'paused',
          `paused${pausedSince === undefined ? '' : ` since ${pausedSince}`}`,
          `ecr-anywhere resume ${name}`,
        )
      : well('paused', 'it is refreshed'),
    schedule(lookedAt, now),
  ];
}

function schedule(lookedAt: string | undefined, now: number): Finding {
  if (lookedAt === undefined) return unknown('schedule', 'no run has looked at it yet');
  const says = `the last run looked ${span(now - Date.parse(lookedAt))} ago`;
  if (!isSilent(lookedAt, now)) return well('schedule', says);
  return broken(
    'schedule',
    says,
    'npx cdk deploy -c scheduleEnabled=true; else the alarm NotRunning says where to look',
  );
}

/**
 * What an inspection found.
 *
 * @param isFenced whether the refresher's identity there is one that the fence holds
 */
export function fromInspection(
  summary: ClusterSummary,
  isFenced: (identity: { username: string; groups: readonly string[] }) => boolean,
): Finding[] {
  const { cluster, served, reason = '', inspection } = summary;
  if (!served && !/HTTP 403/.test(reason)) {
    const failure = whyNotServed(cluster, reason);
    const before = failure.link === 'kubeconfig' ? [] : [well('kubeconfig', 'the refresher understands it')];
    const reached =
      failure.link === 'credential' ? [well('reachable', inspection?.server ?? 'it answers')] : [];
    const known = new Set([failure, ...before, ...reached].map(({ link }) => link));
    const rest = (['reachable', ...AFTER_REACHING] as const).filter((link) => !known.has(link));
    return [
      ...before,
      ...reached,
      failure,
      ...rest.map((link) => unknown(link, 'the refresher does not get that far')),
    ];
  }
  return [
    well('kubeconfig', 'the refresher understands it'),
    well('reachable', inspection?.server ?? 'it answers'),
    well('credential', inspection?.username ?? 'the API server takes it'),
    identity(cluster, inspection, isFenced),
    permissions(summary),
    renewal(summary),
    clock(inspection?.clockSkewSeconds),
    refreshed(summary),
  ];
}

function whyNotServed(cluster: string, reason: string): Finding {
  if (/HTTP 401/.test(reason))
    return broken('credential', reason, `ecr-anywhere register ${cluster} --replace`);
  // Requests are named by method and path; all else is said of what is registered.
  if (/^(GET|POST|PATCH) \//.test(reason) || /no answer|time was up/.test(reason))
    return broken(
      'reachable',
      reason,
      `is the address right, and open to AWS? ecr-anywhere register ${cluster} --replace --server https://…`,
    );
  return broken('kubeconfig', reason, `ecr-anywhere register ${cluster} --replace`);
}

function identity(
  cluster: string,
  inspection: ClusterSummary['inspection'],
  isFenced: (identity: { username: string; groups: readonly string[] }) => boolean,
): Finding {
  const { username, groups = [] } = inspection ?? {};
  if (username === undefined) return unknown('identity', 'the API server does not say who the refresher is');
  if (isFenced({ username, groups })) return well('identity', username);
  return broken(
    'identity',
    `${username} is neither the chart's ServiceAccount nor in the group ${REFRESHER_GROUP}`,
    `ecr-anywhere register ${cluster} --replace`,
  );
}

function permissions({ served, reason = '', inspection }: ClusterSummary): Finding {
  const forbidden = inspection?.forbidden ?? [];
  const refused = !served ? [reason, ...forbidden] : forbidden;
  if (refused.length > 0)
    return broken(
      'permissions',
      `it may not: ${refused.join(', ')}`,
      'helm upgrade brings the roles back; with the chart’s value refresher.namespaces every enabled namespace must be named there',
    );
  return inspection?.forbidden
    ? well('permissions', 'it may list and patch what it needs to')
    : unknown('permissions', 'the API server does not say what the refresher may do');
}

function renewal({ cluster, renewal: token }: ClusterSummary): Finding {
  if (token === undefined) return well('token', 'there is none that expires');
  const { outcome, reason = '', expiresAt = 'an unknown time' } = token;
  if (outcome === 'not-renewable' || outcome === 'failed')
    return broken(
      'token',
      `it expires at ${expiresAt}: ${reason}`,
      `ecr-anywhere register ${cluster} --replace`,
    );
  return well('token', `it expires at ${expiresAt}, and is renewed before`);
}

/** @param skewSeconds how far the API server's clock is ahead of AWS'; undefined where it is not known */
export function clock(skewSeconds: number | undefined): Finding {
  if (skewSeconds === undefined) return unknown('clock', 'the API server does not tell its time');
  const says = `the API server's clock is ${Math.abs(skewSeconds)} s ${skewSeconds < 0 ? 'behind' : 'ahead of'} AWS'`;
  return Math.abs(skewSeconds) > CLOCK_SKEW_SECONDS
    ? broken('clock', says, 'timedatectl set-ntp true, on the nodes of the control plane')
    : well('clock', says);
}

function refreshed(summary: ClusterSummary): Finding {
  const { cluster, managed, due, failed, isPaused, problems } = summary;
  if (isPaused && problems.length === 0) return unknown('refresh', 'the cluster is paused');
  if (failed && (problems.length > 0 || due > 0)) {
    const all = problemsOf(summary);
    const more = all.length - PROBLEMS_TOLD;
    const told = [...all.slice(0, PROBLEMS_TOLD), ...(more > 0 ? [`and ${more} more`] : [])].join('; ');
    return broken('refresh', told, `ecr-anywhere refresh ${cluster} --dry-run shows each`);
  }
  const secrets = `${managed} managed, ${due} due`;
  return well('refresh', due > 0 ? `${secrets}, and would be refreshed` : secrets);
}
