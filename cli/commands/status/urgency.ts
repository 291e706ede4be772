// Which clusters need attention, and in which order. Pure: `now` is an argument.

import { FAILURES } from '../../../contract/cluster-events.ts';
import {
  freshness,
  MAX_BETWEEN_LOOKS_MS,
  parseTime,
  REFRESH_WINDOW_MS,
} from '../../../contract/freshness.ts';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';

/** From the most urgent to the least urgent. */
export const STATES = [
  'expired',
  'expiring',
  'failing',
  'failed',
  'silent',
  'incomplete',
  'new',
  'paused',
  'healthy',
] as const;
export type State = (typeof STATES)[number];

/** The states in which an operator has to act. */
export const ATTENTION_STATES: ReadonlySet<State> = new Set([
  'expired',
  'expiring',
  'failing',
  'failed',
  'silent',
  'incomplete',
]);

/**
 * The state of a cluster. `expired`: Pods cannot pull. `expiring`: half of the refresh window is over, as for the alarm
 * SoonestExpiry. `failing`: it failed twice in a row, as in announcements. `failed`: in its last run only. `silent`: no run for
 * longer than any schedule allows. `incomplete`: `register` has not completed. `new`: no run yet.
 */
export function stateOf(cluster: ClusterStatus, now: number): State {
  const { soonestExpiry, failures = 0, lookedAt, isPaused, isRegistering } = cluster;
  if (isRegistering) return 'incomplete';
  const expiry = soonestExpiry === undefined ? undefined : parseTime(soonestExpiry);
  if (expiry !== undefined && expiry <= now) return 'expired';
  if (expiry !== undefined && expiry <= now + REFRESH_WINDOW_MS / 2) return 'expiring';
  if (isPaused) return 'paused';
  if (failures > 0) return failures >= FAILURES ? 'failing' : 'failed';
  if (lookedAt === undefined) return 'new';
  return isSilent(lookedAt, now) ? 'silent' : 'healthy';
}

/** Whether the last run is longer ago than any schedule allows. @param lookedAt start of the last run (RFC 3339) */
export function isSilent(lookedAt: string, now: number): boolean {
  return now - Date.parse(lookedAt) > MAX_BETWEEN_LOOKS_MS;
}

/** Orders clusters by state, then by expiry, then by name. */
export function byUrgency(now: number): (a: ClusterStatus, b: ClusterStatus) => number {
  const rank = (cluster: ClusterStatus) => STATES.indexOf(stateOf(cluster, now));
  const expiry = ({ soonestExpiry }: ClusterStatus) =>
    freshness(soonestExpiry, now).expiresAt ?? Number.POSITIVE_INFINITY;
  return (a, b) => rank(a) - rank(b) || compare(expiry(a), expiry(b)) || compare(a.name, b.name);
}

function compare<Value extends number | string>(a: Value, b: Value): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
