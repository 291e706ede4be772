// Tests that a bundle is trusted as Go trusts it, on connections that the transport makes.
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Transport } from '../../../lib/kubernetes/transport.ts';
import { type Authority, createAuthority, type KeyPair } from '../../bed/certificates.ts';

const INVALID = '-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n';

let root: Authority;
let intermediate: Authority;
let other: Authority;
let serving: KeyPair;
let sibling: KeyPair;
const stack = new AsyncDisposableStack();
let server: string;

beforeAll(async () => {
  [root, other] = await Promise.all([createAuthority('root'), createAuthority('other')]);
  intermediate = await root.intermediate('intermediate');
  serving = await intermediate.serving(['127.0.0.1']);
  sibling = await intermediate.serving(['127.0.0.1']);
  const https = createServer(
    { cert: `${serving.certPem}\n${intermediate.caPem}`, key: serving.keyPem },
    (_, response) => response.end('{}'),
  );
  https.listen(0, '127.0.0.1');
  await once(https, 'listening');
  stack.defer(() => {
    https.closeAllConnections();
    https.close();
  });
  server = `https://127.0.0.1:${(https.address() as AddressInfo).port}`;
});
afterAll(() => stack.disposeAsync());

async function connectWith(ca: string): Promise<string> {
  await using transport = new Transport(
    { server, ca },
    { connectMs: 10_000, idleMs: 10_000, maxBytes: 1_000 },
  );
  const signal = AbortSignal.timeout(20_000);
  return await transport.send({ method: 'GET', path: '/', headers: {}, signal }).then(
    () => 'accepted',
    ({ code }: { code: string }) => code,
  );
}

test.each([
  { title: 'a root authority', bundle: () => root.caPem },
  { title: 'an intermediate authority without its root', bundle: () => intermediate.caPem },
  { title: "the server's own certificate", bundle: () => serving.certPem },
  { title: 'another authority, then the right one', bundle: () => `${other.caPem}\n${intermediate.caPem}` },
  { title: 'an invalid certificate, then the right one', bundle: () => `${INVALID}${intermediate.caPem}` },
  { title: 'a key and text, then the right one', bundle: () => `${serving.keyPem}\n# CA\n${root.caPem}` },
  { title: 'lines that end as on Windows', bundle: () => intermediate.caPem.replaceAll('\n', '\r\n') },
])('accepts the server with $title', async ({ bundle }) => {
  expect(await connectWith(bundle())).toBe('accepted');
});

test.each([
  { title: 'another authority', bundle: () => other.caPem },
  { title: 'another certificate of the same authority', bundle: () => sibling.certPem },
  { title: 'only an invalid certificate', bundle: () => INVALID },
  { title: 'no certificate', bundle: () => 'none' },
])('refuses the server with $title', async ({ bundle }) => {
  expect(await connectWith(bundle())).toBe('tls');
});
