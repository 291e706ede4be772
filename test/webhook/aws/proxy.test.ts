// A cluster whose only way to AWS is a proxy that opens TLS: AWS' names resolve nowhere, and its certificates are of an
// authority that only the chart's extraCA brings.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createServer as createTlsServer } from 'node:tls';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { createAuthority } from '../../bed/certificates.ts';
import { ask } from '../ask.ts';
import { runWebhook } from '../running-webhook.ts';
import { manifest } from '../support.ts';

const HOSTS = ['api.ecr.eu-central-1.amazonaws.test', 'sts.eu-central-1.amazonaws.test'];
const ROLE = 'arn:aws:iam::123456789012:role/pull';

const stack = new AsyncDisposableStack();
const asked: string[] = [];
let env: Record<string, string>;

beforeAll(async () => {
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-proxy-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const aws = stack.use(await startAwsEndpoint());
  const authority = await createAuthority('proxy');
  await writeFile(join(dir, 'ca.crt'), authority.caPem);
  await writeFile(join(dir, 'token'), 'token');
  const { certPem, keyPem } = await authority.serving(HOSTS);
  const tls = createTlsServer({ cert: certPem, key: keyPem }, (socket) => {
    const onward = connect(Number(new URL(aws.url).port), '127.0.0.1');
    for (const end of [socket, onward]) end.on('error', () => {});
    socket.pipe(onward).pipe(socket);
  });
  const portOf = (server: { address(): unknown }) => (server.address() as AddressInfo).port;
  const proxy = createServer((_, response) => response.writeHead(405).end());
  proxy.on('connect', (request, socket) => {
    asked.push(request.url ?? '');
    const onward = connect(portOf(tls), '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
      socket.pipe(onward).pipe(socket);
    });
    for (const end of [socket, onward]) end.on('error', () => {});
  });
  for (const server of [tls, proxy]) {
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    stack.defer(() => void server.close());
  }
  env = {
    HTTPS_PROXY: `http://127.0.0.1:${portOf(proxy)}`,
    NO_PROXY: 'localhost,127.0.0.1',
    NODE_EXTRA_CA_CERTS: join(dir, 'ca.crt'),
    AWS_ENDPOINT_URL_ECR: `https://${HOSTS[0]}`,
    AWS_ENDPOINT_URL_STS: `https://${HOSTS[1]}`,
    AWS_ROLE_ARN: ROLE,
    AWS_WEB_IDENTITY_TOKEN_FILE: join(dir, 'token'),
  };
});
afterAll(() => stack.disposeAsync());

const NO_KEYS = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };

test('reaches ECR and STS through the proxy', async () => {
  await using webhook = await runWebhook({ env: { ...env, ...NO_KEYS } });
  expect((await ask(webhook, { object: manifest() })).response).toMatchObject({ allowed: true });
  expect([...new Set(asked)].sort()).toEqual(HOSTS.map((host) => `${host}:443`));
});

test('fails without the proxy and names the cause', async () => {
  await using webhook = await runWebhook({ env: { ...env, ...NO_KEYS, HTTPS_PROXY: undefined } });
  const { response } = await ask(webhook, { object: manifest() });
  expect(response).toMatchObject({ allowed: false, status: { code: 503 } });
  expect(response.status?.message).toMatch(/ENOTFOUND|EAI_AGAIN|no answer|TimeoutError/);
});
