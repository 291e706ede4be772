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
  expect(linked.stdout).toContain('Usage: ecr-anywhere COMMAND');
});

describe('help', () => {
  test.each(['--help', '-h', 'help'])('%s lists the commands', (arg) => {
    const { status, stdout, stderr } = run(arg);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    for (const command of ['get-token', 'authentication-config']) expect(stdout).toContain(`  ${command} `);
  });

  test.each(['get-token', 'authentication-config'])('%s says what it takes', (command) => {
    const { status, stdout } = run(command, '--help');
    expect(status).toBe(0);
    expect(stdout).toMatch(new RegExp(`^Usage: ecr-anywhere ${command} --cluster NAME`));
  });
});

const CONFIG = ['authentication-config', '--cluster', 'a', '--issuer', 'https://x.example', '--role-arn'];
const ROLE = 'arn:aws:iam::123456789012:role/refresher';

test.each([
  { args: [], says: 'Usage: ecr-anywhere COMMAND' },
  { args: ['frobnicate'], says: 'There is no command "frobnicate"' },
  { args: ['get-token'], says: 'missing: --cluster' },
  { args: ['get-token', '--cluster', 'a', '--verbose'], says: "Unknown option '--verbose'" },
  { args: ['get-token', '--cluster', 'a', 'b'], says: 'Unexpected argument' },
  { args: ['authentication-config', '--cluster', 'a'], says: 'missing: --issuer, --role-arn' },
  { args: [...CONFIG, 'refresher'], says: '--role-arn must be such as' },
  { args: [...CONFIG, ROLE, '--issuer', 'http://x.example'], says: '--issuer must be an https URL' },
  { args: [...CONFIG, ROLE, '--api-version', 'v2'], says: '--api-version must be v1beta1 or v1' },
])('not understood: $args', ({ args, says }) => {
  const { status, stdout, stderr } = run(...args);
  expect({ status, stdout }).toEqual({ status: 2, stdout: '' });
  expect(stderr).toContain(says);
  expect(stderr).toContain('Usage: ');
});

test.each([
  { args: [...CONFIG, ROLE, '--cluster', 'a:b'], says: '"a:b" is no name of a registered cluster' },
  { args: [...CONFIG, ROLE, '--stage', 'a:b'], says: '"a:b" is no name of a stack' },
  { args: ['get-token', '--cluster', '*'], says: '"*" is no name of a registered cluster' },
])('cannot be done: $args', ({ args, says }) => {
  const { status, stdout, stderr } = run(
    ...args,
    ...(args[0] === 'get-token' ? ['--region', 'eu-central-1'] : []),
  );
  expect({ status, stdout }).toEqual({ status: 1, stdout: '' });
  expect(stderr).toContain(says);
  expect(stderr).not.toContain('Usage: ');
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
