// The options of the refresher's AWS clients, against a proxy that refuses every connection.
import { once } from 'node:events';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { GetCallerIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { clientLimits } from '../../../lib/aws/request-limits.ts';

const asked: string[] = [];
const proxy = createServer();
proxy.on('connect', (request, socket) => {
  asked.push(request.url ?? '');
  socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
});

beforeAll(() => once(proxy.listen(0, '127.0.0.1'), 'listening'));
afterAll(() => void proxy.close());
beforeEach(() => {
  asked.length = 0;
  vi.stubEnv('HTTPS_PROXY', `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`);
});
afterEach(() => vi.unstubAllEnvs());

/** Sends a request to a host that does not exist. */
async function call(): Promise<void> {
  const sts = new STSClient({
    ...clientLimits(1_000, 1),
    region: 'eu-central-1',
    endpoint: 'https://sts.eu-central-1.invalid',
    credentials: { accessKeyId: 'AKIAIOSFODNN7EXAMPLE', secretAccessKey: 'secret' },
  });
  await expect(sts.send(new GetCallerIdentityCommand({}))).rejects.toThrow();
}

test('send requests through the proxy of HTTPS_PROXY', async () => {
  await call();
  expect(asked).toEqual(['sts.eu-central-1.invalid:443']);
});

test('send requests to hosts of NO_PROXY without it', async () => {
  vi.stubEnv('NO_PROXY', '.invalid');
  await call();
  expect(asked).toEqual([]);
});
