// The command line's bundle: what it prints where, and its exit codes.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import { buildCli } from '../../cli/build.ts';

const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
const bundle = join(dir, 'ecr-anywhere');
beforeAll(() => buildCli(bundle));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

function run(...args: string[]) {
  const env = { PATH: `${dirname(process.execPath)}:/usr/bin:/bin`, HOME: dir };
  const { status, stdout, stderr } = spawnSync(bundle, args, { encoding: 'utf8', env });
  return { status, stdout, stderr };
}

test('the build writes the file that package.json links as ecr-anywhere', () => {
  const root = new URL('../../', import.meta.url);
  const { bin } = JSON.parse(readFileSync(new URL('package.json', root), 'utf8'));
  const { status, stderr } = spawnSync(process.execPath, [fileURLToPath(new URL('cli/build.ts', root))], {
    cwd: dir,
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  const linked = spawnSync(join(dir, bin['ecr-anywhere']), ['--help'], {
    encoding: 'utf8',
    env: { PATH: `${dirname(process.execPath)}:/usr/bin:/bin` },
  });
  expect(linked.stdout).toContain('Usage: ecr-anywhere [options] [command]');
});

test('an older Node.js prints the required version', () => {
  const older = "data:text/javascript,Object.defineProperty(process.versions,'node',{value:'22.23.0'})";
  const { status, stdout, stderr } = spawnSync(process.execPath, ['--import', older, bundle, 'status'], {
    encoding: 'utf8',
  });
  expect({ status, stdout, stderr }).toEqual({
    status: 2,
    stdout: '',
    stderr: 'ecr-anywhere needs Node.js 24 or later, and this is 22.23.0.\n',
  });
});

test.each(['--help', '-h', 'help'])('%s lists the commands', (arg) => {
  const { status, stdout, stderr } = run(arg);
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  for (const command of ['register', 'status', 'get-token', 'completion'])
    expect(stdout).toContain(`  ${command} `);
});

test.each([
  { args: [], says: 'Usage: ecr-anywhere [options] [command]' },
  { args: ['help', 'nope'], says: 'There is no command "nope"' },
  { args: ['regster'], says: '(Did you mean register?)' },
  { args: ['get-token'], says: "required option '--cluster <name>' not specified" },
  { args: ['status', '--watch', '--interval', '25h'], says: '--interval must be between 1s and 24h' },
])('prints the usage error of $args on standard error', ({ args, says }) => {
  const { status, stdout, stderr } = run(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain(says);
});

/** Runs a command that fails, and returns what it prints as JSON. */
function failureOf(...args: string[]): unknown {
  const { status, stdout, stderr } = run(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  return JSON.parse(stderr);
}

test.each(['--output json', '--output=json', '-o json', '-ojson'])(
  'with %s the error is an object',
  (option) => {
    expect(failureOf('frobnicate', ...option.split(' '))).toEqual({
      error: { code: 'usage', message: expect.any(String), hint: expect.any(String), exitCode: 2 },
    });
  },
);

const CONFIG = ['authentication-config', '--cluster', 'a', '--issuer', 'https://x.example', '--role-arn'];
const ROLE = 'arn:aws:iam::123456789012:role/refresher';

test.each([
  { args: ['status'], code: 'no-region' },
  { args: ['status', '--interval', '10s'], code: 'usage' },
  { args: ['get-token', '--cluster', '*'], code: 'usage' },
  { args: ['register', 'a b'], code: 'usage' },
  { args: [...CONFIG, 'refresher'], code: 'usage' },
  { args: [...CONFIG, ROLE, '--issuer', 'http://x.example'], code: 'usage' },
  { args: [...CONFIG, ROLE, '--cluster', 'a:b'], code: 'usage' },
  { args: [...CONFIG, ROLE, '--stack-name', 'a:b'], code: 'usage' },
])('$args fails with the code $code', ({ args, code }) => {
  expect(failureOf(...args, '-o', 'json')).toMatchObject({ error: { code } });
});

test('the configuration is for one role and one audience', () => {
  const { status, stdout } = run(...CONFIG, ROLE, '--api-version', 'v1');
  expect(status).toBe(0);
  expect(parse(stdout)).toEqual({
    apiVersion: 'apiserver.config.k8s.io/v1',
    kind: 'AuthenticationConfiguration',
    jwt: [
      {
        issuer: { url: 'https://x.example', audiences: ['ecr-anywhere:EcrAnywhere:a'] },
        claimValidationRules: [
          { expression: `claims.sub == "${ROLE}"`, message: expect.any(String) },
          { expression: expect.stringContaining('ecr-anywhere:EcrAnywhere:a'), message: expect.any(String) },
        ],
        claimMappings: {
          username: { expression: "'ecr-anywhere:' + claims.sub" },
          groups: { expression: "['ecr-anywhere:refreshers']" },
        },
      },
    ],
  });
});
