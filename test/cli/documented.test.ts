// Checks docs/command-line.md against the command line: commands, options, exit codes, error codes, doctor's checks.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { CHECKS } from '../../cli/commands/doctor/checks.ts';
import { ERRORS, EXIT } from '../../cli/output/errors.ts';
import { createProgram } from '../../cli/program.ts';

const page = readFileSync(new URL('../../docs/command-line.md', import.meta.url), 'utf8');
const program = createProgram(AbortSignal.abort());

/** The cells of the page's table that has this head. */
function rowsOf(head: string): string[][] {
  const [, rows = ''] = page.split(`${head}\n`)[1]?.match(/^[|-]+\n((?:\|.*\n?)*)/) ?? [];
  return rows
    .trim()
    .split('\n')
    .map((row) =>
      row
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    );
}

test('the page lists every command', () => {
  const named = rowsOf('| command | does | identity |').flatMap(([cell = '']) =>
    [...cell.matchAll(/`([a-z-]+)/g)].map(([, name]) => name),
  );
  const all = program.commands
    .map((command) => command.name())
    // Called by the completion script; printed by commander.
    .filter((name) => !['complete', 'help'].includes(name));
  expect(named.toSorted()).toEqual(all.toSorted());
});

test('every option that the page names exists', () => {
  const options = new Set(
    program.commands.flatMap((command) => command.options.map(({ long = '' }) => long)),
  );
  const own = page.replaceAll(/`(?:aws|kubectl|helm) [^`]*`/g, '');
  const named = [...own.matchAll(/`[^`\n]*?(--[a-z-]+)/g)].map(([, option = '']) => option);
  expect(named.length).toBeGreaterThan(10);
  expect(named.filter((option) => !options.has(option))).toEqual([]);
});

test('the page lists every exit code', () => {
  const codes = rowsOf('| code | means |').map(([code]) => Number(code));
  expect(codes).toEqual([0, ...Object.values(EXIT)]);
});

test('the page lists every error code, with its exit code and meaning', () => {
  expect(rowsOf('| error code | exit code | meaning |')).toEqual(
    Object.entries(ERRORS).map(([code, { exitCode, meaning }]) => [`\`${code}\``, String(exitCode), meaning]),
  );
});

test('lists the checks of doctor in order, with their codes and what a failure means', () => {
  expect(rowsOf('| check | title | codes | a failure means |')).toEqual(
    Object.entries(CHECKS).map(([check, { title, codes, means }]) => [
      `\`${check}\``,
      title,
      codes.map((code) => `\`${code}\``).join(', '),
      means,
    ]),
  );
});
