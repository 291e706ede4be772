// Decides what to announce of a cluster, from its stored state. Pure. Each transition is announced once: what was announced
// is part of the state, and only what differs from it is announced.
import { CONDITIONS, type Condition, FAILURES, type Transition } from '../../../contract/cluster-events.ts';
import { REFRESH_WINDOW_MS } from '../../../contract/freshness.ts';
import type { ClusterState } from '../clusters/cluster-state.ts';

/** Runs in a row without a failure after which it has recovered. */
const SUCCESSES = 2;
const HOUR_MS = 3_600_000;
export const DAY_MS = 24 * HOUR_MS;
/** Credentials that expire sooner than this are announced. */
const EXPIRING_MS = REFRESH_WINDOW_MS / 2;
/**
 * A cluster that fails again within a day of its recovery is not announced again, and the day begins anew: a cluster that
 * flaps for weeks would send two messages a day. It is announced if its credentials expire sooner than this: they are due
 * then, and at least one request for them has failed.
 */
const AT_RISK_MS = (REFRESH_WINDOW_MS * 3) / 4;
/** The time of day, UTC, from which the first run sends the daily reminder. */
const REMINDER_HOUR = 8;

export interface Decision {
  /** Absent if the state of what was announced changes without a message. */
  readonly transition?: Transition | 'reminder';
  readonly conditions: readonly Condition[];
  /** What is announced after this. */
  readonly announced: readonly Condition[];
  /** It recovered, or it failed again within a day of that: a day begins in which a further failure is not announced. */
  readonly startsQuietDay?: boolean;
}

/** What is wrong with a cluster, the least urgent first. A paused one is silent. @param now milliseconds since the epoch */
export function conditionsOf(state: ClusterState, now: number): Condition[] {
  const { failures, codes, soonestExpiry, isPaused } = state;
  if (isPaused) return [];
  const left = soonestExpiry === undefined ? Number.POSITIVE_INFINITY : soonestExpiry - now;
  const applies: Record<Condition, boolean> = {
    failing: failures >= FAILURES,
    'token-ending': codes.includes('token-late'),
    expiring: left > 0 && left < EXPIRING_MS,
    expired: left <= 0,
  };
  return CONDITIONS.filter((condition) => applies[condition]);
}

/** What to announce of a cluster; undefined if nothing changed. @param now milliseconds since the epoch */
export function decide(state: ClusterState, now: number): Decision | undefined {
  const { announced } = state;
  const conditions = conditionsOf(state, now);
  if (state.isPaused) return announced.length > 0 ? { conditions, announced: [] } : undefined;
  const added = conditions.filter(
    (condition) => !announced.includes(condition) && !(condition === 'failing' && isFlapping(state, now)),
  );
  const transition = added.at(-1);
  if (transition)
    return {
      transition,
      conditions,
      // It may fail and recover in turns: until it has recovered for good, it is failing.
      announced: CONDITIONS.filter(
        (condition) =>
          added.includes(condition) ||
          (announced.includes(condition) && (condition === 'failing' || conditions.includes(condition))),
      ),
    };
  // Once for each time it fails: if it stays down, it is announced after the day.
  if (conditions.includes('failing') && !announced.includes('failing') && state.failures === FAILURES)
    return { conditions, announced, startsQuietDay: true };
  if (announced.length === 0) return undefined;
  if (conditions.length === 0)
    return state.successes >= SUCCESSES
      ? { transition: 'recovered', conditions, announced: [], startsQuietDay: true }
      : undefined;
  // What has ended is announced again if it returns.
  const kept = announced.filter((condition) => condition === 'failing' || conditions.includes(condition));
  if (kept.length < announced.length) return { conditions, announced: kept };
  if (isReminderDue(state, now)) return { transition: 'reminder', conditions, announced };
  return undefined;
}

/** Whether a cluster has been failing for days: known, and reminded of once a day. */
export function isFailingForDays({ failures, failingSince }: ClusterState, now: number): boolean {
  return failures >= FAILURES && failingSince !== undefined && now - failingSince >= DAY_MS;
}

function isFlapping({ recoveredAt, soonestExpiry }: ClusterState, now: number): boolean {
  if (recoveredAt === undefined || now - recoveredAt >= DAY_MS) return false;
  return soonestExpiry === undefined || soonestExpiry - now >= AT_RISK_MS;
}

/** Once a day, in one run for all clusters, for those of which a message is older than half a day. */
function isReminderDue({ announcedAt }: ClusterState, now: number): boolean {
  if (announcedAt === undefined) return false;
  const dayOf = (at: number) => Math.floor((at - REMINDER_HOUR * HOUR_MS) / DAY_MS);
  return dayOf(announcedAt) < dayOf(now) && now - announcedAt >= DAY_MS / 2;
}
