// Checks that every command of the project that README.md, CONTRIBUTING.md, docs and the issue template name exists, with its options: the
// command line's, npm's scripts, and the CDK app's settings.
import { readdirSync, readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { SETTING_NAMES } from '../../infra/settings.ts';
import manifest from '../../package.json' with { type: 'json' };

const ROOT = new URL('../../', import.meta.url);
const PAGES = [
  'README.md',
  'CONTRIBUTING.md',
  '.github/ISSUE_TEMPLATE/bug.yml',
  ...readdirSync(new URL('docs', ROOT), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => `docs/${name}`),
];

/** The code of a page: one line for each span in backticks, and for each logical line of a block. */
function codeOf(page: string): string[] {
  const text = readFileSync(new URL(page, ROOT), 'utf8');
  const blocks = [...text.matchAll(/^ *```\w*\n([\s\S]*?)^ *```/gm)].flatMap(([, block = '']) =>
    block.replaceAll(/\\\n\s*/g, '').split('\n'),
  );
  const spans = text.replaceAll(/^ *```[\s\S]*?^ *```/gm, '').matchAll(/`([^`\n]+)`/g);
  return [...blocks, ...[...spans].map(([, span = '']) => span)];
}

const code = PAGES.flatMap((page) => codeOf(page).map((line) => ({ page, line })));

test('every command of the command line exists, with its options', () => {
  const { commands } = createProgram(AbortSignal.abort());
  const problems = code.flatMap(({ page, line }) =>
    [...line.matchAll(/\becr-anywhere ([a-z][a-z-]*)((?: +[^#;|&]*)?)/g)]
      // Not a command of ours but an argument of helm, kubectl or aws.
      .filter(
        ({ index }) =>
          /(^|[(>\s])(npx )?$/.test(line.slice(0, index)) &&
          !/\b(helm|kubectl|aws)\b/.test(line.slice(0, index)),
      )
      .flatMap(([, name = '', rest = '']) => {
        const command = commands.find((one) => one.name() === name);
        if (!command) return [`${page}: ecr-anywhere ${name}`];
        const known = new Set(command.options.flatMap(({ long, short }) => [long, short]));
        return [...rest.matchAll(/(?<=\s)(--?[a-z][a-z-]*)/g)]
          .filter(([, option]) => !known.has(option) && option !== '--help')
          .map(([, option]) => `${page}: ecr-anywhere ${name} ${option}`);
      }),
  );
  expect(problems).toEqual([]);
});

test("every script of npm's exists", () => {
  const named = code.flatMap(({ line }) =>
    [...line.matchAll(/\bnpm run (?:--silent )?([a-z][a-z:]*)/g)].map(([, name = '']) => name),
  );
  expect(named.length).toBeGreaterThan(5);
  expect(named.filter((name) => !(name in manifest.scripts))).toEqual([]);
});

test('every setting that is set with -c exists', () => {
  const named = code.flatMap(({ line }) =>
    [...line.matchAll(/(?:^|\s)-c (\w+)=/g)].map(([, name = '']) => name),
  );
  expect(named.length).toBeGreaterThan(5);
  // `key` stands for any of them.
  expect(named.filter((name) => !SETTING_NAMES.includes(name) && name !== 'key')).toEqual([]);
});
