// webhook/base-digest.ts against a registry on loopback that speaks the distribution API over TLS.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { createAuthority } from '../bed/certificates.ts';

const SCRIPT = fileURLToPath(new URL('../../webhook/base-digest.ts', import.meta.url));
const indexOf = (...architectures: readonly string[]) =>
  JSON.stringify({
    schemaVersion: 2,
    mediaType: 'application/vnd.oci.image.index.v1+json',
    manifests: architectures.map((architecture) => ({ platform: { os: 'linux', architecture } })),
  });
const digestOf = (body: string) => `sha256:${createHash('sha256').update(body).digest('hex')}`;
const INDEX = indexOf('amd64', 'arm64', 's390x');

let dir: string;
let server: Server;
let host: string;
let dockerfile: string;
/** What the registry has behind the tag, the digest that it states, and whether it wants a token. */
let registry: { body: string; stated?: string; wantsToken: boolean; challenge?: string };

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'base-digest-'));
  const authority = await createAuthority('the authority of the registry');
  await writeFile(join(dir, 'ca.crt'), authority.caPem);
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  server = createServer({ cert: certPem, key: keyPem }, ({ url, headers }, response) => {
    if (url === '/token?service=registry&scope=repository%3Abase%2Fnode%3Apull') {
      response.end(JSON.stringify({ token: 'anonymous' }));
    } else if (registry.wantsToken && headers.authorization !== 'Bearer anonymous') {
      const challenge = `Bearer realm="https://${host}/token",service="registry",scope="repository:base/node:pull"`;
      response.writeHead(401, { 'www-authenticate': registry.challenge ?? challenge }).end();
    } else if (
      url !== '/v2/base/node/manifests/nonroot' ||
      !headers.accept?.includes('image.index.v1+json')
    ) {
      response.writeHead(404).end();
    } else {
      response.setHeader('docker-content-digest', registry.stated ?? digestOf(registry.body));
      response.end(registry.body);
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  dockerfile = join(dir, 'Dockerfile');
});
beforeEach(async () => {
  registry = { body: INDEX, wantsToken: true };
  await writeBase(`${host}/base/node:nonroot`);
});
afterAll(async () => {
  server.closeAllConnections();
  server.close();
  await rm(dir, { recursive: true, force: true });
});

async function writeBase(base: string): Promise<void> {
  await writeFile(dockerfile, `# a comment\nARG BASE=${base}\nFROM \${BASE}\n`);
}

/** The base in the Dockerfile, without the registry's address. */
async function base(): Promise<string | undefined> {
  return /^ARG BASE=(.*)$/m.exec(await readFile(dockerfile, 'utf8'))?.[1]?.replace(host, 'HOST');
}

async function run(...args: readonly string[]): Promise<{ code: number; output: string }> {
  const env = { PATH: process.env.PATH, NODE_EXTRA_CA_CERTS: join(dir, 'ca.crt') };
  return new Promise((resolve) =>
    execFile(process.execPath, [SCRIPT, dockerfile, ...args], { env }, (error, stdout, stderr) =>
      resolve({ code: Number(error?.code ?? 0), output: stdout + stderr }),
    ),
  );
}

test.each([true, false])(
  'pins the base to the digest of its tag; the registry wants a token: %s',
  async (wantsToken) => {
    registry.wantsToken = wantsToken;
    expect(await run()).toMatchObject({ code: 0 });
    expect(await base()).toBe(`HOST/base/node:nonroot@${digestOf(INDEX)}`);
    expect(await run('--check')).toMatchObject({ code: 0 });
  },
);

test('replaces the pin when the tag has moved, and only then', async () => {
  await run();
  registry.body = indexOf('arm64', 'amd64');
  const { code, output } = await run('--check');
  expect(code).toBe(1);
  expect(output).toContain('Run "npm run image:base"');
  expect(await base()).toBe(`HOST/base/node:nonroot@${digestOf(INDEX)}`);
  expect(await run()).toMatchObject({ code: 0 });
  expect(await base()).toBe(`HOST/base/node:nonroot@${digestOf(registry.body)}`);
});

test('a check fails while the base is not pinned', async () => {
  expect(await run('--check')).toMatchObject({ code: 1 });
  expect(await base()).toBe('HOST/base/node:nonroot');
});

test.each([
  ['lacks a platform', () => ({ body: indexOf('amd64') }), 'linux/arm64'],
  ['is the manifest of a single image', () => ({ body: JSON.stringify({ config: {} }) }), 'linux/amd64'],
  ['is not what the registry states', () => ({ stated: digestOf('other') }), 'states the digest'],
  ['is not public', () => ({ challenge: 'Basic realm="https://127.0.0.1/"' }), 'public'],
  [
    'has a token of an address without TLS',
    () => ({ challenge: 'Bearer realm="http://127.0.0.1/"' }),
    'public',
  ],
])('leaves the Dockerfile as it is if the base %s', async (_, change, message) => {
  registry = { ...registry, ...change() };
  const { code, output } = await run();
  expect({ code, output }).toMatchObject({ code: 1, output: expect.stringContaining(message) });
  expect(await base()).toBe('HOST/base/node:nonroot');
});

test.each([
  ['does not exist', 'HOST/base/other:nonroot', '404'],
  ['has no host', 'node:24', 'HOST/NAME:TAG'],
  ['lies in a registry that does not answer', '127.0.0.1:1/base/node:nonroot', 'cannot be reached'],
])('fails with a sentence if the base %s', async (_, name, message) => {
  await writeBase(name.replace('HOST', host));
  registry.wantsToken = false;
  expect(await run()).toMatchObject({ code: 1, output: expect.stringContaining(message) });
});
