// Collects logs, metrics and warnings while the tests run. The suite's last tests search all of it for credentials.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Environment variable with the directory; set by the suite. If unset, nothing is kept. */
export const EVIDENCE_DIR = 'EVIDENCE_DIR';

export type Kind = 'log' | 'metrics' | 'warnings' | 'report' | 'cli';

let kept = 0;

/** Saves an output. @param name of the program that wrote it */
export function keepEvidence(kind: Kind, name: string, text: string): void {
  const dir = process.env[EVIDENCE_DIR];
  if (dir === undefined || text === '') return;
  kept += 1;
  const file = `${kind}.${name.replaceAll(/[^\w.-]+/g, '-')}.${process.pid}-${kept}`;
  writeFileSync(join(dir, file), text);
}
