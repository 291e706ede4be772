// What programs, metrics and warnings said while the tests ran, kept for the suite's last step, which looks for
// credentials in all of it.
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Set by the suite; without it nothing is kept. */
export const EVIDENCE_DIR = 'EVIDENCE_DIR';

export type Kind = 'log' | 'metrics' | 'warnings' | 'report' | 'cli';

let kept = 0;

/** Keeps a text. @param name of what said it */
export function keepEvidence(kind: Kind, name: string, text: string): void {
  const dir = process.env[EVIDENCE_DIR];
  if (dir === undefined || text === '') return;
  kept += 1;
  const file = `${kind}.${name.replaceAll(/[^\w.-]+/g, '-')}.${process.pid}-${kept}`;
  writeFileSync(join(dir, file), text);
}
