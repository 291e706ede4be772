// Durations, read as Go writes them (`168h`, `1h30m`), and written for people. Pure.

const MINUTE_MS = 60_000;
/** Milliseconds of the units of Go's time.ParseDuration that a command line needs. */
const UNIT_MS: Readonly<Record<string, number>> = { h: 60 * MINUTE_MS, m: MINUTE_MS, s: 1_000, ms: 1 };
const GO_DURATION = /^(?:\d+(?:\.\d+)?(?:h|ms|m|s))+$/;

/**
 * Reads a duration. Packages for this accept text around a duration, or one unit only, so they would accept a typing
 * error.
 *
 * @param unitMs milliseconds that a plain number counts
 * @returns milliseconds; undefined where the text is not a duration
 */
export function parseDuration(text: string, unitMs: number): number | undefined {
  if (/^\d+(\.\d+)?$/.test(text)) return Number(text) * unitMs;
  if (!GO_DURATION.test(text)) return undefined;
  return text
    .matchAll(/([\d.]+)([a-z]+)/g)
    .reduce((sum, [, count, unit = '']) => sum + Number(count) * (UNIT_MS[unit] ?? 0), 0);
}

/** The two largest units of a duration: `1d 7h`, `5h 12m`, `-3m`, `0m`. @param ms milliseconds */
export function formatDuration(ms: number): string {
  const total = Math.floor(Math.abs(ms) / MINUTE_MS);
  const [days, hours, minutes] = [Math.floor(total / 1440), Math.floor(total / 60) % 24, total % 60];
  const units = days > 0 ? { days, hours } : hours > 0 ? { hours, minutes } : { minutes };
  const shown = new Intl.DurationFormat('en', {
    style: 'narrow',
    ...(days > 0 ? { hoursDisplay: 'always' } : { minutesDisplay: 'always' }),
  });
  return `${ms < 0 && total > 0 ? '-' : ''}${shown.format(units)}`;
}
