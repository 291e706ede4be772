// The set-up takes the published control plane if its host sends what is pinned, and builds one if not.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmod, cp, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type RequestListener, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { newestRelease } from './envtest-pin.ts';
import { unpackArchive } from './published-archive.ts';

const run = promisify(execFile);
const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const VERSION = 'v1.2.3';
const PATH = `/envtest-${VERSION}/archive.tar.gz`;

let dir: string;
/** A copy of the tool chain with another pin: the archive below. */
let checkout: string;
let cache: string;
let archive: Buffer;
let sha512: string;
let host: Server;
let answer: RequestListener;
const requested: string[] = [];

const sendArchive: RequestListener = (_, response) => response.end(archive);

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-archive-'));
  const programs = join(dir, 'controller-tools/envtest');
  await mkdir(programs, { recursive: true });
  for (const name of ['kube-apiserver', 'etcd', 'kubectl'])
    await writeFile(join(programs, name), `published ${name}`, { mode: 0o755 });
  await run('tar', ['-czf', join(dir, 'archive.tar.gz'), '-C', dir, 'controller-tools']);
  archive = await readFile(join(dir, 'archive.tar.gz'));
  sha512 = createHash('sha512').update(archive).digest('hex');

  checkout = join(dir, 'checkout');
  await mkdir(join(checkout, 'test/bed'), { recursive: true });
  await writeFile(join(checkout, 'package.json'), '{"type": "module"}');
  for (const name of ['toolchain.ts', 'published-archive.ts', 'toolchain'])
    await cp(here(name), join(checkout, 'test/bed', name), { recursive: true });
  const archives = { [`${process.platform}-${process.arch}`]: { path: PATH.slice(1), sha512 } };
  await writeFile(
    join(checkout, 'test/bed/toolchain/envtest.json'),
    JSON.stringify({ version: VERSION, archives }),
  );

  // Building Kubernetes takes minutes: these write what the real ones would build.
  const bin = join(dir, 'bin');
  await mkdir(bin);
  await writeFile(
    join(bin, 'go'),
    '#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\nmkdir -p "$(dirname "$2")"; echo built >"$2"\n',
  );
  await writeFile(
    join(bin, 'python3'),
    `#!/bin/sh\nmkdir -p "$3/bin"; printf '#!/bin/sh\\n' >"$3/bin/python"; cp "$3/bin/python" "$3/bin/ministack"; chmod +x "$3"/bin/*\n`,
  );
  await writeFile(join(bin, 'kubectl'), '#!/bin/sh\nexit 1\n');
  for (const name of ['go', 'python3', 'kubectl']) await chmod(join(bin, name), 0o755);

  host = createServer((request, response) => {
    requested.push(request.url ?? '');
    answer(request, response);
  });
  await new Promise<void>((resolve) => host.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  host?.closeAllConnections();
  host?.close();
  await rm(dir, { recursive: true, force: true });
});
beforeEach(async () => {
  cache = await mkdtemp(join(dir, 'cache-'));
  answer = sendArchive;
  requested.length = 0;
});

test('uses the published control plane and its kubectl, and does not download it twice', async () => {
  const first = await setUp();
  expect(first).toMatchObject({ version: VERSION, apiServer: 'published kube-apiserver' });
  expect(first).toMatchObject({ etcd: 'published etcd', kubectl: 'published kubectl' });
  // What only tests start is left out.
  const made = (await readdir(cache)).map((name) => name.replace(/-[0-9a-f]{12}$/, '')).sort();
  expect(made).toEqual(['helm', 'kube-apiserver-v1.2.3-and-etcd-of-envtest', 'the-local-AWS-MiniStack-']);
  expect(requested).toEqual([PATH]);

  expect(await setUp({ ECR_ANYWHERE_ENVTEST_URL: 'http://127.0.0.1:1' })).toMatchObject({
    version: VERSION,
    apiServer: 'published kube-apiserver',
    stdout: '',
  });
  expect(requested).toEqual([PATH]);
});

test('downloads through the proxy that HTTP_PROXY names', async () => {
  const result = await setUp({ ECR_ANYWHERE_ENVTEST_URL: 'http://envtest.invalid', HTTP_PROXY: url() });
  expect(result).toMatchObject({ apiServer: 'published kube-apiserver' });
  expect(requested).toEqual([`http://envtest.invalid${PATH}`]);
});

test('follows the redirects of the host', async () => {
  answer = (request, response) =>
    request.url === '/stored'
      ? sendArchive(request, response)
      : response.writeHead(302, { location: '/stored' }).end();
  expect(await setUp()).toMatchObject({ apiServer: 'published kube-apiserver' });
  expect(requested).toEqual([PATH, '/stored']);
});

test.each([
  {
    title: 'the checksum is wrong',
    respond: ((_, response) => response.end('something else')) satisfies RequestListener,
    reason: /has the wrong checksum: its sha512 is \w{128}, the pinned one is \w{128}/,
  },
  {
    title: 'the archive does not exist',
    respond: ((_, response) => response.writeHead(404).end()) satisfies RequestListener,
    reason: /it responded 404/,
  },
  {
    title: 'the connection ends early',
    respond: ((_, response) => {
      response.writeHead(200, { 'content-length': archive.length });
      response.write(archive.subarray(0, 20), () => response.destroy());
    }) satisfies RequestListener,
    reason: /cannot be downloaded: \S/,
  },
])('builds one, and keeps nothing of the archive, if $title', async ({ respond, reason }) => {
  answer = respond;
  const result = await setUp();
  expect(result).toMatchObject({ apiServer: 'built\n', etcd: 'built\n', kubectl: 'built\n' });
  expect(result.stdout).toMatch(reason);
  expect((await readdir(cache)).filter((name) => name.includes('envtest'))).toEqual([]);
});

test('builds one if the host refuses connections', async () => {
  const result = await setUp({ ECR_ANYWHERE_ENVTEST_URL: 'http://127.0.0.1:1' });
  expect(result).toMatchObject({ apiServer: 'built\n' });
  expect(result.stdout).toMatch(/cannot be downloaded: .*ECONNREFUSED/);
});

test('builds one, without a request, if ECR_ANYWHERE_ENVTEST_URL is none', async () => {
  expect(await setUp({ ECR_ANYWHERE_ENVTEST_URL: 'none' })).toMatchObject({ apiServer: 'built\n' });
  expect(requested).toEqual([]);
});

test('uses the built control plane, of the newest version, if both are cached', async () => {
  await setUp();
  await setUp({ ECR_ANYWHERE_ENVTEST_URL: 'none' });
  const { version, apiServer } = await setUp();
  expect(apiServer).toBe('built\n');
  expect(version).not.toBe(VERSION);
});

test('uses $KUBEBUILDER_ASSETS, at the version that its API server states, and downloads nothing', async () => {
  const assets = join(dir, 'assets');
  await mkdir(assets);
  for (const name of ['kube-apiserver', 'etcd'])
    await writeFile(join(assets, name), '#!/bin/sh\necho Kubernetes v1.35.0-given\n', { mode: 0o755 });
  expect(await setUp({ KUBEBUILDER_ASSETS: assets })).toMatchObject({
    version: 'v1.35.0-given',
    apiServer: expect.stringContaining('v1.35.0-given'),
  });
  expect(requested).toEqual([]);
});

test.each([
  { title: 'does not respond', respond: (() => {}) satisfies RequestListener },
  {
    title: 'stops in the middle',
    respond: ((_, response) => void response.write(archive.subarray(0, 20))) satisfies RequestListener,
  },
])('gives up on a host that $title', async ({ respond }) => {
  answer = respond;
  const download = unpackArchive({ url: `${url()}${PATH}`, sha512, depth: 2 }, cache, 100);
  await expect(download).rejects.toThrow('it sent nothing for 0.1 s');
});

test('pins the newest release of the index, with a checksum for each platform', () => {
  const platforms = ['linux-amd64', 'linux-arm64', 'darwin-amd64', 'darwin-arm64', 'windows-amd64'];
  const release = (version: string, names = platforms) =>
    names.map((name) => [`envtest-${version}-${name}.tar.gz`, { hash: sha512 }]);
  const index = (versions: Record<string, string[]>) =>
    JSON.stringify({
      releases: Object.fromEntries(
        Object.entries(versions).map(([version, names]) => [
          version,
          Object.fromEntries(release(version, names)),
        ]),
      ),
    });
  const { version, archives } = newestRelease(
    index({ 'v1.9.9': platforms, 'v1.10.1': platforms, 'v1.10.0': platforms, 'v1.11.0-rc.0': platforms }),
  );
  expect(version).toBe('v1.10.1');
  expect(archives['darwin-arm64']).toEqual({
    path: 'envtest-v1.10.1/envtest-v1.10.1-darwin-arm64.tar.gz',
    sha512,
  });
  expect(() => newestRelease(index({ 'v1.10.1': ['linux-amd64'] }))).toThrow(
    'The index has no sha512 of envtest-v1.10.1-linux-arm64.tar.gz.',
  );
});

/** Sets up the programs of the demo, then reads what the tool chain returns. */
async function setUp(env: Readonly<Record<string, string>> = {}) {
  const { HTTP_PROXY: _, HTTPS_PROXY: __, NO_PROXY: ___, ...inherited } = process.env;
  const options = {
    cwd: checkout,
    env: {
      ...inherited,
      PATH: `${join(dir, 'bin')}${delimiter}${process.env.PATH}`,
      ECR_ANYWHERE_CACHE: cache,
      ECR_ANYWHERE_ENVTEST_URL: url(),
      KUBEBUILDER_ASSETS: '',
      ...env,
    },
  };
  const { stdout } = await run(process.execPath, ['test/bed/toolchain.ts', '--demo-only'], options);
  const script = `
    import { readFileSync } from 'node:fs';
    import { KUBERNETES_VERSION, tools } from './test/bed/toolchain.ts';
    const { kubeApiserver, etcd, kubectl } = tools();
    const [apiServer, ...others] = [kubeApiserver, etcd, kubectl].map((path) => readFileSync(path, 'utf8'));
    console.log(JSON.stringify({ version: KUBERNETES_VERSION, apiServer, etcd: others[0], kubectl: others[1] }));`;
  const read = await run(process.execPath, ['--input-type=module', '--eval', script], options);
  return { stdout, ...JSON.parse(read.stdout) } as Record<
    'stdout' | 'version' | 'apiServer' | 'etcd' | 'kubectl',
    string
  >;
}

function url(): string {
  return `http://127.0.0.1:${(host.address() as AddressInfo).port}`;
}
