// Checks that no sentence of a command names an option that the command does not have. test/last/hints.test.ts checks the
// commands in what the commands printed.
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { messagesOf } from '../messages.ts';

const source = (path: string) => readFileSync(path, 'utf8');

/** The modules that a module imports, at once or later, without types. */
function importsOf(path: string): string[] {
  const text = source(path).replaceAll(/^import type [\s\S]*?;$/gm, '');
  return [...text.matchAll(/(?:from|import\() ?'(\.[^']+\.ts)'/g)].map(([, to = '']) =>
    join(dirname(path), to),
  );
}

/** A module and all that it imports. */
function closureOf(path: string, found = new Set<string>()): Set<string> {
  if (!found.has(path)) {
    found.add(path);
    for (const one of importsOf(path)) closureOf(one, found);
  }
  return found;
}

/** The module of each command, by the command's name. */
const MODULES: Readonly<Record<string, string>> = {
  register: 'cli/commands/register/register.ts',
  unregister: 'cli/commands/unregister.ts',
  status: 'cli/commands/status/status.ts',
  refresh: 'cli/commands/refresh.ts',
  pause: 'cli/commands/pause.ts',
  resume: 'cli/commands/pause.ts',
  doctor: 'cli/commands/doctor/doctor.ts',
  'get-token': 'cli/commands/get-token.ts',
  'authentication-config': 'cli/commands/authentication-config.ts',
};

const { commands } = createProgram(AbortSignal.abort());
const namesOf = (hasReached: (name: string) => boolean) =>
  commands.map((one) => one.name()).filter(hasReached);
const optionsOf = (name: string) =>
  new Set(commands.find((one) => one.name() === name)?.options.map(({ long }) => long));

/** Options of other programs, and the meanings of error codes, which are sentences of the page on the command line. */
const FOREIGN = /(?:as|kube-apiserver's) --authentication-config|base64 --decode|\bkubectl .*$|`--[^`]*`/g;

/** Sentences of shared modules that not every command with the module can reach, and those that can. */
const REACHED_BY: Readonly<Record<string, readonly string[]>> = {
  'To replace its credential, add --replace.': ['register'],
  // Of the commands that find the stack.
  'Deploy it (npx cdk deploy), or select it': namesOf((name) => optionsOf(name).has('--function')),
  'Correct --function, --region or --profile.': namesOf((name) => optionsOf(name).has('--function')),
  // authentication-config calls no AWS.
  'Sign in ': namesOf((name) => name !== 'authentication-config'),
  'Set AWS_REGION, or add --region REGION.': namesOf((name) => name !== 'authentication-config'),
};

test('every command has a module here', () => {
  const others = ['help', 'completion', 'complete'];
  const names = commands.map((one) => one.name()).filter((name) => !others.includes(name));
  expect(Object.keys(MODULES).sort()).toEqual(names.sort());
});

test('no sentence names an option that its command does not have', () => {
  const problems = Object.entries(MODULES).flatMap(([name, module]) => {
    const known = optionsOf(name);
    // doctor prints commands of register, and says what their options do.
    if (name === 'doctor') for (const option of optionsOf('register')) known.add(option);
    return [...closureOf(module)]
      .filter((path) => path.startsWith('cli/'))
      .flatMap((path) => messagesOf(path, source(path)))
      .filter(({ text }) =>
        Object.entries(REACHED_BY).every(([start, by]) => !text.startsWith(start) || by.includes(name)),
      )
      .flatMap(({ path, line, text }) =>
        [...text.replaceAll(FOREIGN, '').matchAll(/(?<![\w-])--[a-z][a-z-]+/g)]
          .filter(([option]) => !known.has(option))
          .map(([option]) => `${name} does not have ${option}: ${path}:${line} ${text}`),
      );
  });
  expect(problems).toEqual([]);
});
