// Before the first test: bundles the function, from which the stack is synthesized, and creates the directory for
// test/bed/evidence.ts, which it removes after the last test.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildFunction } from '../functions/build.ts';
import { EVIDENCE_DIR } from './bed/evidence.ts';

export default async function setup(): Promise<() => Promise<void>> {
  await buildFunction();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-evidence-'));
  process.env[EVIDENCE_DIR] = dir;
  return () => rm(dir, { recursive: true, force: true });
}
