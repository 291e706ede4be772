// A clock that a test moves, for processes and for the AWS at the wire that they call: a virtual day takes seconds.
import { renameSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

export interface VirtualClock {
  /** Milliseconds since the epoch. */
  now(): number;
  advance(ms: number): void;
  /** Makes a Node process live by this clock; to be given before its program. */
  readonly nodeArgs: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** @param file where processes read how far it is ahead */
export function virtualClock(file: string): VirtualClock {
  let shiftMs = 0;
  const write = () => {
    writeFileSync(`${file}.new`, String(shiftMs));
    renameSync(`${file}.new`, file);
  };
  write();
  return {
    now: () => Date.now() + shiftMs,
    advance(ms) {
      shiftMs += ms;
      write();
    },
    nodeArgs: ['--import', fileURLToPath(new URL('./shifted-clock.ts', import.meta.url))],
    env: { SHIFT_CLOCK_FILE: file },
  };
}
