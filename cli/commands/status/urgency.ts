// Which cluster needs somebody, and how soon. Pure: `now` is an argument.

import { freshness, MAX_INTERVAL_MS, parseTime, REFRESH_WINDOW_MS } from '../../../contract/freshness.ts';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';

/** From what needs somebody first to what needs nobody. */
export const STATES = ['expired', 'expiring', 'failing', 'silent', 'new', 'paused', 'well'] as const;
export type State = (typeof STATES)[number];

const MINUTE_MS = 60_000;
/** No schedule lets a cluster be without a look for longer: the longest interval, and a sixth of it to begin at random. */
const SILENT_AFTER_MS = (MAX_INTERVAL_MS * 7) / 6;

/** What these need: somebody. */
export const NEEDY: ReadonlySet<State> = new Set(['expired', 'expiring', 'failing', 'silent']);

/**
 * How a cluster is. `expired`: pods cannot pull. `expiring`: half of the time to act is over, as the alarm SoonestExpiry
 * has it. `silent`: nobody has looked for longer than any schedule allows. `new`: nobody has looked yet.
 */
export function stateOf(cluster: ClusterStatus, now: number): State {
  const { soonestExpiry, failures = 0, lookedAt, isPaused } = cluster;
  const expiry = soonestExpiry === undefined ? undefined : parseTime(soonestExpiry);
  if (expiry !== undefined && expiry <= now) return 'expired';
  if (expiry !== undefined && expiry <= now + REFRESH_WINDOW_MS / 2) return 'expiring';
  if (isPaused) return 'paused';
  if (failures > 0) return 'failing';
  if (lookedAt === undefined) return 'new';
  return isSilent(lookedAt, now) ? 'silent' : 'well';
}

/** Whether the last look is longer ago than any schedule allows. @param lookedAt RFC 3339 */
export function isSilent(lookedAt: string, now: number): boolean {
  return now - Date.parse(lookedAt) > SILENT_AFTER_MS;
}

/** Who needs somebody first: by state, then by expiry, then by name. */
export function byUrgency(now: number): (a: ClusterStatus, b: ClusterStatus) => number {
  const rank = (cluster: ClusterStatus) => STATES.indexOf(stateOf(cluster, now));
  const expiry = ({ soonestExpiry }: ClusterStatus) =>
    freshness(soonestExpiry, now).expiresAt ?? Number.POSITIVE_INFINITY;
  return (a, b) => rank(a) - rank(b) || compare(expiry(a), expiry(b)) || compare(a.name, b.name);
}

function compare<Value extends number | string>(a: Value, b: Value): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** A time from now, for people: `5h 12m`, `-3m`. @param ms milliseconds */
export function span(ms: number): string {
  const minutes = Math.floor(Math.abs(ms) / MINUTE_MS);
  const [days, hours, rest] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24, minutes % 60];
  const text =
    days > 0 ? `${days}d ${hours}h` : hours > 0 ? `${hours}h ${rest}m` : minutes > 0 ? `${rest}m` : '0m';
  return ms < 0 && minutes > 0 ? `-${text}` : text;
}
