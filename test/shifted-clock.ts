// Preloaded into a process (node --import): shifts its clock forward by SHIFT_CLOCK_MS, or by the current content of the
// file SHIFT_CLOCK_FILE.
import { readFileSync } from 'node:fs';

const { SHIFT_CLOCK_MS, SHIFT_CLOCK_FILE: file } = process.env;
const shiftMs = file === undefined ? () => Number(SHIFT_CLOCK_MS) : () => Number(readFileSync(file, 'utf8'));

globalThis.Date = new Proxy(Date, {
  construct: (target, args, newTarget) =>
    Reflect.construct(target, args.length === 0 ? [target.now() + shiftMs()] : args, newTarget),
  get: (target, key) => (key === 'now' ? () => target.now() + shiftMs() : Reflect.get(target, key)),
});
