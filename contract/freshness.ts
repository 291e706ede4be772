// The rule by which the webhook and the refresher decide whether a managed Secret is due. Pure: `now` is an argument.

const HOUR_MS = 3_600_000;

/** The lifetime of an ECR authorization token (Amazon ECR API reference, GetAuthorizationToken). */
export const TOKEN_LIFETIME_MS = 12 * HOUR_MS;

/** A Secret whose credentials expire within this time is due. */
export const REFRESH_WINDOW_MS = TOKEN_LIFETIME_MS / 2;

/**
 * The longest interval of the schedule. The credentials of a due Secret last for the refresh window. With a quarter of it
 * between runs, three runs in a row may fail, and the alarms and one more run come before the expiry.
 */
export const MAX_INTERVAL_MS = REFRESH_WINDOW_MS / 4;

/** The longest time between two runs: the longest interval, and a sixth of it for the random start of a run. */
export const MAX_BETWEEN_RUNS_MS = (MAX_INTERVAL_MS * 7) / 6;

/** The longest time between two looks at a cluster: a run in batches, which may take the whole interval, may look late. */
export const MAX_BETWEEN_LOOKS_MS = 2 * MAX_INTERVAL_MS;

/** The largest difference between ECR's clock and the reader's at which an expiry is still plausible. */
export const CLOCK_TOLERANCE_MS = HOUR_MS;

/** Earlier expiries are implausible, because no token of ECR had them. Year 0 with an offset would be before year 0. */
const EARLIEST_EXPIRY_MS = Date.UTC(2000, 0);

export type DueReason =
  | 'expiry-missing'
  | 'expiry-unreadable'
  | 'expiry-implausible'
  | 'expired'
  | 'expiring';

export type Freshness =
  | { due: false; expiresAt: number }
  | { due: true; reason: DueReason; expiresAt?: number };

/**
 * Judges an `expires_at` annotation.
 *
 * @param expiresAt the annotation's value; undefined if the Secret has no such annotation
 * @param now milliseconds since the epoch
 * @param earlierByMs extends the refresh window, in milliseconds (the refresher's jitter)
 * @returns whether the Secret is due and why; and the expiry in milliseconds since the epoch, if it is plausible
 */
export function freshness(expiresAt: string | undefined, now: number, earlierByMs = 0): Freshness {
  if (expiresAt === undefined) return { due: true, reason: 'expiry-missing' };
  const time = parseTime(expiresAt);
  if (time === undefined) return { due: true, reason: 'expiry-unreadable' };
  if (time < EARLIEST_EXPIRY_MS || time > now + TOKEN_LIFETIME_MS + CLOCK_TOLERANCE_MS)
    return { due: true, reason: 'expiry-implausible' };
  if (time <= now) return { due: true, reason: 'expired', expiresAt: time };
  if (time <= now + REFRESH_WINDOW_MS + earlierByMs)
    return { due: true, reason: 'expiring', expiresAt: time };
  return { due: false, expiresAt: time };
}

const RFC_3339 = /^(\d{4}-\d{2}-\d{2})T((?:[01]\d|2[0-3]):\d{2}:\d{2})(\.\d+)?(Z|[+-]\d{2}:\d{2})$/i;

/** Reads an RFC 3339 time (section 5.6). @returns milliseconds since the epoch; undefined if the value is no such time */
export function parseTime(value: string): number | undefined {
  const match = RFC_3339.exec(value);
  if (!match) return undefined;
  const [, date, time, fraction = '', zone = 'Z'] = match;
  const ms = Date.parse(`${date}T${time}${fraction.slice(0, 4)}${zone.toUpperCase()}`);
  if (Number.isNaN(ms)) return undefined;
  // Date.parse converts 31 February to 3 March. A day that does not exist is not a time.
  const day = Number(date?.slice(8));
  return new Date(`${date}T00:00:00Z`).getUTCDate() === day ? ms : undefined;
}

/** Writes milliseconds since the epoch as RFC 3339 in UTC, to the second, as CentML/ecr-anywhere does. */
export function formatTime(ms: number): string {
  return `${new Date(Math.floor(ms / 1000) * 1000).toISOString().slice(0, 19)}Z`;
}
