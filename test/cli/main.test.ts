// The command line's bundle: what it prints where, and its exit codes.
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
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

const COMMANDS = [
  ...['register', 'unregister', 'pause', 'resume', 'refresh', 'status', 'doctor'],
  ...['get-token', 'authentication-config', 'completion'],
];

describe('help', () => {
  test.each(['--help', '-h', 'help'])('%s lists the commands', (arg) => {
    const { status, stdout, stderr } = run(arg);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const command of COMMANDS) expect(stdout).toContain(`  ${command} `);
  });

  test.each(['get-token', 'authentication-config'])('%s lists its options', (command) => {
    const { status, stdout } = run(command, '--help');
    expect(status).toBe(0);
    expect(stdout).toMatch(new RegExp(`^Usage: ecr-anywhere ${command} \\[options\\][^]*--cluster <name>`));
  });
});

test.each([
  { args: ['frobnicate'], code: 'usage' },
  { args: ['status', '--frobnicate'], code: 'usage' },
  { args: ['status'], code: 'no-region' },
])('with --output json the error is an object: $args', ({ args, code }) => {
  for (const option of [['--output', 'json'], ['--output=json'], ['-o', 'json'], ['-ojson']]) {
    const { status, stdout, stderr } = run(...args, ...option);
    expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
    const { error } = JSON.parse(stderr) as { error: object };
    expect(error).toEqual({
      code,
      message: expect.any(String),
      hint: expect.any(String),
      exitCode: status,
    });
  }
});

const CONFIG = ['authentication-config', '--cluster', 'a', '--issuer', 'https://x.example', '--role-arn'];
const ROLE = 'arn:aws:iam::123456789012:role/refresher';

test.each([
  { args: [], says: 'Usage: ecr-anywhere [options] [command]' },
  { args: ['frobnicate'], says: "unknown command 'frobnicate'" },
  { args: ['regster'], says: '(Did you mean register?)' },
  { args: ['get-token'], says: "required option '--cluster <name>' not specified" },
  { args: ['get-token', '--cluster', 'a', '--verbose'], says: "unknown option '--verbose'" },
  { args: ['get-token', '--cluster', 'a', 'b'], says: 'too many arguments' },
  { args: ['get-token', '--cluster', '*'], says: '"*" is not a valid name of a registered cluster' },
  { args: ['authentication-config', '--cluster', 'a'], says: "required option '--issuer <url>'" },
  { args: [...CONFIG, 'refresher'], says: '--role-arn must be the ARN of a role' },
  { args: [...CONFIG, ROLE, '--issuer', 'http://x.example'], says: '--issuer must be an https URL' },
  { args: [...CONFIG, ROLE, '--api-version', 'v2'], says: 'Allowed choices are v1beta1, v1' },
  { args: [...CONFIG, ROLE, '--cluster', 'a:b'], says: '"a:b" is not a valid name of a registered cluster' },
  { args: [...CONFIG, ROLE, '--stack-name', 'a:b'], says: '"a:b" is not a valid stack name' },
  { args: ['status', '--output', 'xml'], says: 'Allowed choices are text, wide, json' },
  { args: ['status', '--watch', '--interval', '0.5'], says: '--interval must be between 1s and 24h' },
  { args: ['status', '--watch', '--interval', '25h'], says: '--interval must be between 1s and 24h' },
  { args: ['status', '--watch', '--interval', '1e9'], says: 'is not a duration for --interval' },
  { args: ['register'], says: "missing required argument 'name'" },
  { args: ['register', 'a b'], says: '"a b"' },
  { args: ['register', 'a', '--server', 'http://x'], says: '--server must be an https URL' },
  {
    args: ['register', 'a', '--server', 'https://me:pw@x'],
    says: '--server must not contain a user name or a password',
  },
  { args: ['register', 'a', '--duration', 'long'], says: '"long" is not a duration for --duration' },
  { args: ['register', 'a', '--duration', '7d'], says: '"7d" is not a duration for --duration' },
  { args: ['register', 'a', '--eks', '--keyless'], says: 'cannot be used with option' },
  { args: ['register', 'a', '--eks-name', 'b', '--keyless'], says: 'cannot be used with option' },
  { args: ['status', '--interval', '10s'], says: '--interval has no effect without --watch' },
  { args: ['help', 'nope'], says: 'There is no command "nope"' },
])('not understood: $args', ({ args, says }) => {
  const { status, stdout, stderr } = run(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain(says);
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
