// Creates the directory for test/bed/evidence.ts before the first test, and removes it after the last one.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { EVIDENCE_DIR } from './bed/evidence.ts';

export default async function setup(): Promise<() => Promise<void>> {
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-evidence-'));
  process.env[EVIDENCE_DIR] = dir;
  return () => rm(dir, { recursive: true, force: true });
}
