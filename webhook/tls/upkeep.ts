// Runs the upkeep of the webhook's own objects: at once when one of them changes, and when something is due by the clock.
import { setTimeout as sleep } from 'node:timers/promises';
import type { Logger } from 'pino';
import type { Watch } from './objects.ts';

/**
 * The time between two looks at the clock, in milliseconds. What is due is decided by the wall clock, not by this timer,
 * because a node can be suspended.
 */
export const TICK_MS = 5_000;
/** The shortest time from one check to the next: another program may write an object in a loop. */
const MIN_GAP_MS = 1_000;
/** The delay before a watch begins again: the shortest, doubled after each failure up to the longest. */
const WATCH_AGAIN_MS = { min: 1_000, max: 30_000 };

export interface Upkeep {
  /** Reads the objects and does what is due. Must not reject. */
  readonly check: () => Promise<void>;
  /** Whether a check is due although no object changed: by the clock, or because the last check failed. Sends no request. */
  readonly isDue: () => boolean | Promise<boolean>;
  /**
   * The time between two calls of `isDue`, in milliseconds. A random fifth is added, so that replicas that started together
   * do not write together. Default: `TICK_MS`.
   */
  readonly everyMs?: () => number;
  /** The objects to watch. */
  readonly watches: readonly Watch[];
}

/** Resolves after `signal` is aborted and the last check has ended. */
export async function keepUp(
  { check, isDue, everyMs = () => TICK_MS, watches }: Upkeep,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  let isChanged = false;
  let tick = new AbortController();
  const onChange = () => {
    isChanged = true;
    tick.abort();
  };
  signal.addEventListener('abort', () => tick.abort(), { once: true });
  const checking = async () => {
    while (!signal.aborted) {
      tick = new AbortController();
      if (!isChanged) await pause(everyMs() * (1 + Math.random() / 5), tick.signal);
      if (signal.aborted || !(isChanged || (await isDue()))) continue;
      isChanged = false;
      await check();
      await pause(MIN_GAP_MS, signal);
    }
  };
  await Promise.all([checking(), ...watches.map((watch) => follow(watch, onChange, signal, logger))]);
}

/** Repeats a watch. While it fails, each attempt has the objects read instead. */
async function follow(
  watch: Watch,
  onChange: () => void,
  signal: AbortSignal,
  logger: Logger,
): Promise<void> {
  const { min, max } = WATCH_AGAIN_MS;
  let failures = 0;
  let reported = '';
  while (!signal.aborted) {
    const startedAt = performance.now();
    let message = 'the watch ended at once';
    try {
      await watch(onChange, signal);
    } catch (error) {
      ({ message } = error as Error);
      onChange();
    }
    // A watch ends in the ordinary course of things, and a connection may break. Two failures in a row are reported.
    failures = performance.now() - startedAt > max ? 0 : failures + 1;
    if (failures === 0) reported = '';
    if (failures > 1 && message !== reported && !signal.aborted) {
      logger.warn({ message }, 'watch failed');
      reported = message;
    }
    await pause(Math.min(max, min * 2 ** failures) * (0.5 + Math.random() / 2), signal);
  }
}

/** Resolves when the time is over, or the signal is aborted. */
async function pause(ms: number, signal: AbortSignal): Promise<void> {
  await sleep(ms, undefined, { signal }).catch(() => {});
}
