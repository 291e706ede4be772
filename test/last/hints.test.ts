// Every command of the command line that it printed in the tests exists, with its options.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { EVIDENCE_DIR } from '../bed/evidence.ts';

const dir = process.env[EVIDENCE_DIR] ?? '';

test('every command that the command line printed exists, with its options', async () => {
  const files = (await readdir(dir)).filter((file) => file.startsWith('cli.'));
  const printed = (await Promise.all(files.map((file) => readFile(join(dir, file), 'utf8')))).join('\n');
  const { commands } = createProgram(AbortSignal.abort());
  // A name in front of a colon is that of the program in a message.
  const found = [
    ...printed.matchAll(/\becr-anywhere ([a-z][a-z-]*)((?: (?:--?[a-z][\w-]*|'[^'\n]*'|[\w@%+=:,./-]+))*)/g),
  ];
  const problems = found.flatMap(([text, name = '', rest = '']) => {
    const command = commands.find((one) => one.name() === name);
    // The chart's release has the same name: "helm upgrade ecr-anywhere webhook/chart".
    if (!command) return [];
    const known = command.options.flatMap(({ long, short }) => [long, short]);
    return [...rest.matchAll(/(?<=\s)--?[a-z][a-z-]*/g)]
      .filter(([option]) => !known.includes(option))
      .map(() => text);
  });
  expect(problems).toEqual([]);
  expect(found.length).toBeGreaterThan(20);
});
