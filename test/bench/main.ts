// `npm run bench`: measures throughput as a ratio to bare references within one run, because absolute figures vary from
// minute to minute. Load goes to loopback only and is bounded in time.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchAdmissions } from './admissions.ts';
import { benchFunction } from './function.ts';
import { benchRefresh } from './refresh.ts';
import { type Row, table } from './table.ts';

const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-bench-'));
const rows: Row[] = [];
try {
  console.log('• cold start of the function (seconds)');
  rows.push(...(await benchFunction(join(dir, 'function'))));
  console.log('• 500 Secrets through API server, policies and webhook (about a minute)');
  rows.push(...(await benchRefresh(join(dir, 'refresh'))));
  console.log('• admissions per second (about a minute and a half)');
  rows.push(...(await benchAdmissions(join(dir, 'admissions'))));
} finally {
  await rm(dir, { recursive: true, force: true });
}
console.log(`\n${table(rows)}\nratio: ours over the floor in the same round, the median of the rounds`);
process.exit(0);
