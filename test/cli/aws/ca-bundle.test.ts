// AWS_CA_BUNDLE and ca_bundle: the command line trusts the certificate authorities of this file for endpoints of AWS.
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createAuthority } from '../../bed/certificates.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { DEPLOYED, functionAnswer } from '../wire.ts';

/** The response of the SSO portal's GetRoleCredentials. */
const SSO_CREDENTIALS = JSON.stringify({
  roleCredentials: {
    accessKeyId: 'ASIAEXAMPLE',
    secretAccessKey: 'secret',
    sessionToken: 'session',
    expiration: Date.now() + 3_600_000,
  },
});
const START_URL = 'https://example.awsapps.com/start';

let aws: Server;
let cli: CommandLine;
let bundle = '';
beforeAll(async () => {
  const authority = await createAuthority('inspecting proxy');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  aws = createServer({ cert: certPem, key: keyPem }, (request, response) => {
    const { url = '' } = request;
    if (url.startsWith('/federation/credentials'))
      return response.writeHead(200, { 'content-type': 'application/json' }).end(SSO_CREDENTIALS);
    const { status, headers, body } = url.includes('invocations')
      ? functionAnswer({ clusters: [] })
      : DEPLOYED;
    response.writeHead(status, headers).end(body);
  }).listen(0, '127.0.0.1');
  await once(aws, 'listening');
  const { port } = aws.address() as AddressInfo;
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: `https://127.0.0.1:${port}`,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
  });
  bundle = join(cli.home, 'bundle.pem');
  // Real bundles have comments and several authorities.
  const other = await createAuthority('another');
  await writeFile(bundle, `# CN=another\n${other.caPem}\n# CN=inspecting proxy\n${authority.caPem}`);
  await writeFile(join(cli.home, 'third.pem'), (await createAuthority('a third')).caPem);
  await writeFile(join(cli.home, 'empty.pem'), 'no certificate');
  await signInToSso(cli.home);
});

/** Writes a profile "sso" and the token that `aws sso login` caches. */
async function signInToSso(home: string): Promise<void> {
  const cache = join(home, '.aws', 'sso', 'cache');
  await mkdir(cache, { recursive: true });
  const profile = [
    '[profile sso]',
    `sso_start_url = ${START_URL}`,
    'sso_region = eu-central-1',
    'sso_account_id = 123456789012',
    'sso_role_name = admin',
    'ca_bundle = bundle.pem',
  ];
  await writeFile(join(home, '.aws', 'config'), profile.join('\n'));
  const token = { accessToken: 'token', expiresAt: new Date(Date.now() + 3_600_000).toISOString() };
  const name = createHash('sha1').update(START_URL).digest('hex');
  await writeFile(join(cache, `${name}.json`), JSON.stringify(token));
}
afterAll(async () => {
  aws?.closeAllConnections();
  aws?.close();
  await cli?.[Symbol.asyncDispose]();
});

/** Files are relative to the home folder, in which the command runs. */
const run = (env: Record<string, string | undefined>, ...args: string[]) =>
  cli.run(['status', '-o', 'json', ...args], { env });

test.each([
  { AWS_CA_BUNDLE: 'bundle.pem' },
  { NODE_EXTRA_CA_CERTS: 'bundle.pem' },
  { AWS_CA_BUNDLE: 'third.pem', NODE_EXTRA_CA_CERTS: 'bundle.pem' },
])('trusts the authority with %j', async (env) => {
  const { code, stdout, stderr } = await run(env);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({ clusters: [] });
});

test('trusts the ca_bundle of a profile, for its SSO credentials too, unless AWS_CA_BUNDLE is set', async () => {
  const env = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };
  expect(await run(env, '--profile', 'sso')).toMatchObject({ code: 0, stderr: '' });
  const other = await run({ ...env, AWS_CA_BUNDLE: 'nope.pem' }, '--profile', 'sso');
  expect(other).toMatchObject({ code: 2, stderr: expect.stringContaining('nope.pem') });
});

test.each([
  [{}, 'network', 7],
  [{ AWS_CA_BUNDLE: '' }, 'network', 7],
  [{ AWS_CA_BUNDLE: 'third.pem' }, 'network', 7],
  [{ AWS_CA_BUNDLE: 'nope.pem' }, 'ca-bundle-unreadable', 2],
  [{ AWS_CA_BUNDLE: '/tmp' }, 'ca-bundle-unreadable', 2],
  [{ AWS_CA_BUNDLE: 'empty.pem' }, 'ca-bundle-unreadable', 2],
])('fails with %j: %s', async (env, code, exitCode) => {
  const ended = await run(env);
  expect(ended).toMatchObject({ code: exitCode, stdout: '' });
  expect(JSON.parse(ended.stderr)).toMatchObject({ error: { code, exitCode } });
});
