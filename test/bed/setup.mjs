// The first half of `npm run demo`, `npm test`, `npm run bench` and `npm run bed`. On a machine with only Node, npm, Go
// and Python it installs and builds everything else, prints its progress, and returns at once the next time.
// `--npm-only` stops after the npm dependencies: unit tests need no more, and neither Go nor Python.
// `--demo-only` leaves out what only tests start: the oldest API server, Helm 4, linters.
// Plain JavaScript without dependencies, because it runs before any are installed.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const stamp = `${root}node_modules/.installed-lockfile`;

const isNpmOnly = process.argv.includes('--npm-only');

/** Required beforehand: command, arguments, the oldest version that works, how to get it. */
const REQUIRED_BY_NPM = [
  ['node', ['--version'], [20, 0], 'Node.js 20 or later (nodejs.org, or your package manager)'],
  ['npm', ['--version'], [10, 0], 'npm 10 or later (comes with Node.js)'],
];
const REQUIRED_BY_PROGRAMS = [
  [
    'go',
    ['version'],
    [1, 26],
    'Go 1.26 or later (go.dev): it builds helm, and kube-apiserver and etcd where they cannot be downloaded',
  ],
  ['python3', ['--version'], [3, 11], 'Python 3.11 or later: it runs the local AWS'],
  [
    'python3',
    ['-c', 'import venv, ensurepip; print("0.0")'],
    [0, 0],
    "Python's venv module (Debian: python3-venv)",
  ],
];

function missing([command, args, [major, minor], how]) {
  const { status, stdout } = spawnSync(command, args, { encoding: 'utf8' });
  const version = status === 0 && /(\d+)\.(\d+)/.exec(stdout);
  if (!version) return `${command} is missing: install ${how}`;
  const isOld = Number(version[1]) < major || (Number(version[1]) === major && Number(version[2]) < minor);
  return isOld ? `${command} is ${version[0]}: install ${how}` : undefined;
}

function exitCode(command, args) {
  const { status, error } = spawnSync(command, args, { cwd: root, stdio: 'inherit' });
  if (error) throw error;
  return status;
}

function run(command, args) {
  const status = exitCode(command, args);
  if (status !== 0) {
    console.error(`\n✖ ${command} ${args.join(' ')} failed (exit code ${status}). See its output above.`);
    process.exit(1);
  }
}

const problems = [...REQUIRED_BY_NPM, ...(isNpmOnly ? [] : REQUIRED_BY_PROGRAMS)]
  .map(missing)
  .filter(Boolean);
if (problems.length > 0) {
  console.error(
    `✖ This machine lacks programs that the set-up needs:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`,
  );
  process.exit(1);
}

const lockfile = createHash('sha256')
  .update(readFileSync(`${root}package-lock.json`))
  .digest('hex');
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lockfile) {
  console.log('• npm dependencies: installing');
  const install = ['ci', '--no-audit', '--no-fund', '--loglevel=error'];
  // npm's cache may hold a list of versions that is older than the lockfile, and `--prefer-offline` believes it.
  if (exitCode('npm', [...install, '--prefer-offline']) !== 0) {
    console.log(
      "• npm dependencies: again, with the registry's lists of versions in place of the cached ones",
    );
    run('npm', [...install, '--prefer-online']);
  }
  writeFileSync(stamp, lockfile);
}
if (!isNpmOnly) run(`${root}node_modules/.bin/node`, ['test/bed/toolchain.ts', ...process.argv.slice(2)]);
