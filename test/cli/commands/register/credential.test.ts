// Reading the kubeconfig of --credential: which credentials are accepted, and when they expire.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { readCredentialFile } from '../../../../cli/commands/register/credential.ts';
import { createAuthority } from '../../../bed/certificates.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-credential-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function fileOf(text: string): Promise<string> {
  const path = join(await mkdtemp(join(dir, 'given-')), 'kubeconfig');
  await writeFile(path, text, { mode: 0o600 });
  return path;
}

const kubeconfigOf = (user: object, more: readonly object[] = []) =>
  JSON.stringify({
    'current-context': 'a',
    contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
    clusters: [{ name: 'a', cluster: { server: 'https://a.example' } }],
    users: [{ name: 'a', user }, ...more],
  });

const jwt = (claims: object) =>
  [{ alg: 'RS256' }, claims]
    .map((part) => Buffer.from(JSON.stringify(part)).toString('base64url'))
    .concat('c2ln')
    .join('.');

const HOUR = { iat: 1_700_000_000, exp: 1_700_003_600 };
const ISSUED = HOUR.iat * 1000;
const EXPIRED_AT = '2023-11-14T23:13:20Z';
const BOUND = {
  ...HOUR,
  aud: ['https://kubernetes.default.svc'],
  'kubernetes.io': {
    namespace: 'ecr-anywhere',
    serviceaccount: { name: 'refresher' },
    secret: { name: 'refresher-token', uid: '6a0c' },
  },
};

describe('readCredentialFile', () => {
  test.each([
    {
      title: 'is renewed if it is bound to a Secret',
      token: jwt(BOUND),
      isRenewed: true,
      expiresAt: EXPIRED_AT,
    },
    { title: 'is not renewed if it is not bound', token: jwt(HOUR), isRenewed: false, expiresAt: EXPIRED_AT },
    { title: 'has no expiry if it is opaque', token: 'opaque-token', isRenewed: false },
  ])('a token $title', async ({ token, isRenewed, expiresAt }) => {
    const path = await fileOf(kubeconfigOf({ token }));
    expect(await readCredentialFile(path, ISSUED)).toEqual({
      user: { token },
      isRenewed,
      ...(expiresAt !== undefined && { expiresAt }),
    });
  });

  test('a client certificate expires at its end of validity, is not renewed, and nothing else is read', async () => {
    const { certPem, keyPem } = await (await createAuthority('ca')).client('team', []);
    const user = {
      'client-certificate-data': Buffer.from(certPem).toString('base64'),
      'client-key-data': Buffer.from(keyPem).toString('base64'),
    };
    const path = await fileOf(kubeconfigOf(user, [{ name: 'other', user: { token: 'of-another-user' } }]));
    const credential = await readCredentialFile(path);
    expect(credential).toEqual({ user, isRenewed: false, expiresAt: expect.stringMatching(/T.*Z$/) });
    expect(Date.parse(credential.expiresAt ?? '')).toBeGreaterThan(Date.now());
  });

  test.each<{ title: string; text: string; names: string }>([
    { title: 'invalid YAML', text: '"', names: 'not YAML' },
    { title: 'YAML that is no kubeconfig', text: 'a: 1', names: 'not a kubeconfig' },
    {
      title: 'an exec plugin',
      text: kubeconfigOf({ exec: { command: 'aws', args: ['eks', 'get-token', '--cluster-name', 'a'] } }),
      names: '--eks or --keyless',
    },
    {
      title: 'a reference to a token file',
      text: kubeconfigOf({ tokenFile: '/root/secret' }),
      names: '"tokenFile"',
    },
  ])('rejects $title', async ({ text, names }) => {
    await expect(readCredentialFile(await fileOf(text))).rejects.toMatchObject({
      code: 'credential-unreadable',
      exitCode: 2,
      message: expect.stringContaining(names),
    });
  });

  test('rejects a file that does not exist', async () => {
    await expect(readCredentialFile('/nowhere/it/is')).rejects.toMatchObject({
      code: 'credential-unreadable',
      exitCode: 2,
      message: expect.stringMatching(/\/nowhere\/it\/is.*ENOENT/),
    });
  });

  test('rejects an expired token and names the expiry', async () => {
    const path = await fileOf(kubeconfigOf({ token: jwt(HOUR) }));
    await expect(readCredentialFile(path)).rejects.toMatchObject({
      code: 'credential-expired',
      exitCode: 4,
      message: expect.stringContaining(EXPIRED_AT),
      hint: expect.stringContaining('Omit --credential'),
    });
  });
});
