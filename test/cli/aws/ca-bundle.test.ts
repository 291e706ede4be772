// AWS_CA_BUNDLE: the command line trusts the certificate authorities of this file for endpoints of AWS.
import { once } from 'node:events';
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { createAuthority } from '../../bed/certificates.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { DEPLOYED, functionAnswer } from '../wire.ts';

let aws: Server;
let cli: CommandLine;
let bundle = '';
beforeAll(async () => {
  const authority = await createAuthority('inspecting proxy');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  aws = createServer({ cert: certPem, key: keyPem }, (request, response) => {
    const isLambda = /invocations/.test(request.url ?? '');
    const { status, headers, body } = isLambda ? functionAnswer({ clusters: [] }) : DEPLOYED;
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
});
afterAll(async () => {
  aws?.closeAllConnections();
  aws?.close();
  await cli?.[Symbol.asyncDispose]();
});

/** Files are relative to the home folder, in which the command runs. */
const run = (env: Record<string, string>) => cli.run(['status', '-o', 'json'], { env });

test.each([
  { AWS_CA_BUNDLE: 'bundle.pem' },
  { NODE_EXTRA_CA_CERTS: 'bundle.pem' },
  { AWS_CA_BUNDLE: 'third.pem', NODE_EXTRA_CA_CERTS: 'bundle.pem' },
])('trusts the authority with %j', async (env) => {
  const { code, stdout, stderr } = await run(env);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(JSON.parse(stdout)).toEqual({ clusters: [] });
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
