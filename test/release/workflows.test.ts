// The workflows of GitHub cannot run here: they are linted, they call only commands that run here, and they use pinned actions.
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  cpSync,
  globSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import manifest from '../../package.json' with { type: 'json' };
import { tools } from '../bed/toolchain.ts';

const ROOT = join(import.meta.dirname, '../..');
const textOf = (path: string) => readFileSync(join(ROOT, path), 'utf8');
const WORKFLOWS = globSync('.github/workflows/*.{yml,yaml}', { cwd: ROOT }).sort();

interface Step {
  readonly uses?: string;
  readonly run?: string;
}
interface Job {
  readonly uses?: string;
  readonly permissions?: object;
  readonly 'timeout-minutes'?: number;
  readonly steps?: readonly Step[];
}
interface Workflow {
  readonly permissions: object;
  readonly concurrency: object;
  readonly jobs: Readonly<Record<string, Job>>;
}
const jobs = WORKFLOWS.flatMap((path) =>
  Object.entries((parse(textOf(path)) as Workflow).jobs).map(([name, job]) => ({
    name: `${path}: ${name}`,
    job,
  })),
);
const runs = [...new Set(jobs.flatMap(({ job }) => job.steps ?? []).flatMap(({ run }) => run ?? []))];

/** Lints a workflow's text. Without programs that only some machines have. */
function lint(text: string) {
  const args = ['-no-color', '-shellcheck=', '-pyflakes=', '-'];
  const { status, stdout, error } = spawnSync(tools().actionlint, args, {
    input: text,
    encoding: 'utf8',
    cwd: ROOT,
  });
  if (error) throw error;
  return { status, stdout };
}

test.each(WORKFLOWS)('actionlint finds nothing in %s', (path) => {
  expect(lint(textOf(path))).toEqual({ status: 0, stdout: '' });
});

test('actionlint finds a job that does not exist', () => {
  const { status, stdout } = lint(
    textOf('.github/workflows/release.yml').replace('needs: test', 'needs: tset'),
  );
  expect(status).toBe(1);
  expect(stdout).toContain('[job-needs]');
});

test.each(WORKFLOWS)(
  '%s has no permission but those of its jobs, and a rule for runs at the same time',
  (path) => {
    const { permissions, concurrency } = parse(textOf(path)) as Workflow;
    expect(permissions).toEqual({});
    expect(concurrency).toHaveProperty('group');
  },
);

test.each(jobs)('$name has permissions and, unless it is another workflow, a time limit', ({ job }) => {
  expect(Object.values(job.permissions ?? {}).length).toBeGreaterThan(0);
  if (!job.uses) expect(job['timeout-minutes']).toBeLessThanOrEqual(120);
});

test('each action is pinned to a commit, with its version in a comment', () => {
  const used = WORKFLOWS.flatMap((path) => [...textOf(path).matchAll(/^\s*(?:- )?uses: (.+)$/gm)]);
  const others = used.map(([, action = '']) => action).filter((action) => !action.startsWith('./'));
  expect(others).not.toEqual([]);
  expect(others.filter((action) => !/^[\w-]+\/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$/.test(action))).toEqual(
    [],
  );
});

describe('each step that runs a command', () => {
  const NPM = /^npm (?:run )?(?<script>[\w:]+)/;

  test('has one command, and takes input from outside only as a quoted variable', () => {
    const plain =
      /^(?:npm (?:test|run [\w:]+)|node test\/bed\/setup\.mjs)(?: (?:[\w./-]+|"\$GITHUB_REF_NAME"))*$/;
    expect(runs.filter((run) => !plain.test(run))).toEqual([]);
  });

  test('calls a command that .ci/run runs, or a script of release that has a test', () => {
    const ci = textOf('.ci/run');
    const tests = globSync('test/release/*.test.ts', { cwd: ROOT }).map(textOf).join('\n');
    const scripts: Readonly<Record<string, string>> = manifest.scripts;
    const isTried = (run: string) => {
      const script = NPM.exec(run)?.groups?.script;
      if (script === undefined) return ci.includes('node test/bed/setup.mjs');
      if (new RegExp(`npm (?:run )?(?:--silent )?${script}(?![\\w:])`).test(ci)) return true;
      const file = /^node (release\/[\w-]+\.ts)$/.exec(scripts[script] ?? '')?.[1];
      return file !== undefined && tests.includes(file);
    };
    expect(runs.filter((run) => !isTried(run))).toEqual([]);
    expect(isTried('npm run pictures')).toBe(false);
  });
});

describe('the command that creates the GitHub release', () => {
  const TAG = `v${manifest.version}`;
  let dir: string;
  beforeEach(() => {
    // A checkout whose version is released.
    dir = mkdtempSync(join(tmpdir(), 'github-'));
    for (const folder of ['release', 'lib', 'bin']) mkdirSync(join(dir, folder));
    for (const path of [
      ...['release/notes.ts', 'release/github.ts', 'release/release-error.ts'],
      ...['lib/version.ts', 'package.json'],
    ])
      cpSync(join(ROOT, path), join(dir, path));
    writeFileSync(
      join(dir, 'CHANGELOG.md'),
      `## Unreleased\n\n## ${manifest.version} - 2030-01-31\n\n- [A](docs/versions.md).\n`,
    );
    // Stands in for GitHub's program: writes down what it is asked, and fails.
    writeFileSync(
      join(dir, 'bin/gh'),
      '#!/bin/sh\nprintf "%s\\n" "$@" > "$0.args"\ncat > "$0.input"\nexit 7\n',
    );
    chmodSync(join(dir, 'bin/gh'), 0o755);
  });
  afterEach(() => rmSync(dir, { recursive: true, force: true }));

  const create = (...args: string[]) =>
    spawnSync(process.execPath, ['release/github.ts', ...args], {
      cwd: dir,
      encoding: 'utf8',
      env: {
        ...process.env,
        PATH: `${join(dir, 'bin')}${delimiter}${process.env.PATH}`,
        GITHUB_REPOSITORY: 'o/r',
        GITHUB_SERVER_URL: 'https://example.com',
      },
    });
  const read = (path: string) => readFileSync(join(dir, path), 'utf8');

  test('gives gh the tag, the files and the notes, and ends with the exit code of gh', () => {
    expect(create(TAG, 'package.json', 'lib/version.ts').status).toBe(7);
    expect(read('bin/gh.args').trimEnd().split('\n')).toEqual([
      ...['release', 'create', TAG, '--verify-tag', '--title', TAG, '--notes-file', '-'],
      ...['package.json', 'lib/version.ts'],
    ]);
    expect(read('bin/gh.input')).toBe(`- [A](https://example.com/o/r/blob/${TAG}/docs/versions.md).`);
  });

  test.each([
    { name: 'without a file', args: [TAG] },
    { name: 'with a file that does not exist', args: [TAG, 'no-such-file.zip'] },
    { name: 'for a tag of another version', args: ['v99.0.0', 'package.json'] },
  ])('does not call gh $name', ({ args }) => {
    expect(create(...args).status).toBe(2);
    expect(globSync('bin/gh.*', { cwd: dir })).toEqual([]);
  });
});
