// Preloaded into a process (node --import): divides the delays of `setTimeout` of node:timers/promises by FAST_TIMERS, so that
// a test sees in a moment what the process does in hours. Time limits of connections stay as they are.
import { syncBuiltinESMExports } from 'node:module';
import timers from 'node:timers/promises';

const { setTimeout } = timers;
const factor = Number(process.env.FAST_TIMERS);
timers.setTimeout = (ms, value, options) => setTimeout((ms ?? 0) / factor, value, options);
syncBuiltinESMExports();
