// The set-up installs what the lockfile names, also where npm's cache holds older lists of versions.
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { cp, mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const run = promisify(execFile);
const SETUP = fileURLToPath(new URL('./setup.mjs', import.meta.url));

let dir: string;
let registry: Server;
let published: readonly string[] = [];
const tarballs = new Map<string, Buffer>();

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-setup-'));
  for (const version of ['1.0.0', '1.0.1']) tarballs.set(version, await pack(version));
  registry = createServer((request, response) => {
    const tarball = tarballs.get(/probe-(.*)\.tgz$/.exec(request.url ?? '')?.[1] ?? '');
    // A registry lets npm keep a list of versions for minutes.
    response.setHeader('cache-control', 'public, max-age=300');
    if (tarball) response.end(tarball);
    else if (request.url === '/probe') response.end(JSON.stringify(versions()));
    else response.writeHead(404).end('{}');
  });
  await new Promise<void>((resolve) => registry.listen(0, '127.0.0.1', resolve));
});
afterAll(async () => {
  registry?.closeAllConnections();
  registry?.close();
  await rm(dir, { recursive: true, force: true });
});

test('installs a version that was published after npm cached the list of versions', async () => {
  published = ['1.0.0'];
  expect(await setUp('before', '1.0.0')).toBe('1.0.0');

  published = ['1.0.0', '1.0.1'];
  expect(await setUp('after', '1.0.1')).toBe('1.0.1');
});

test('fails with the output of npm when the registry does not have the version either', async () => {
  published = ['1.0.0'];
  await expect(setUp('never', '9.9.9')).rejects.toThrow(/No matching version found for probe@9\.9\.9/);
});

/** Runs the set-up in a checkout of its own. @returns the version of the dependency that it installed */
async function setUp(name: string, version: string): Promise<string> {
  const checkout = join(dir, name);
  await mkdir(join(checkout, 'test/bed'), { recursive: true });
  await cp(SETUP, join(checkout, 'test/bed/setup.mjs'));
  const root = { name: 'checkout', version: '1.0.0', dependencies: { probe: version } };
  await writeFile(join(checkout, 'package.json'), JSON.stringify(root));
  await writeFile(
    join(checkout, 'package-lock.json'),
    // As the project's lockfile: without the registry's addresses, so that npm reads the lists of versions.
    JSON.stringify({
      ...root,
      lockfileVersion: 3,
      packages: { '': root, 'node_modules/probe': { version, integrity: integrity(version) } },
    }),
  );
  await run(process.execPath, ['test/bed/setup.mjs', '--npm-only'], {
    cwd: checkout,
    env: {
      ...process.env,
      npm_config_registry: url(),
      npm_config_cache: join(dir, 'cache'),
      npm_config_fetch_retries: '0',
    },
  });
  return JSON.parse(await readFile(join(checkout, 'node_modules/probe/package.json'), 'utf8')).version;
}

async function pack(version: string): Promise<Buffer> {
  const source = join(dir, `probe-${version}`);
  await mkdir(source);
  await writeFile(join(source, 'package.json'), JSON.stringify({ name: 'probe', version }));
  await run('npm', ['pack', '--silent', '--pack-destination', dir], { cwd: source });
  return readFile(join(dir, `probe-${version}.tgz`));
}

/** The registry's list of the versions that are published. */
function versions() {
  return {
    name: 'probe',
    'dist-tags': { latest: published.at(-1) },
    versions: Object.fromEntries(
      published.map((version) => [
        version,
        {
          name: 'probe',
          version,
          dist: { tarball: `${url()}/probe/-/probe-${version}.tgz`, integrity: integrity(version) },
        },
      ]),
    ),
  };
}

function integrity(version: string): string {
  return `sha512-${createHash('sha512')
    .update(tarballs.get(version) ?? '')
    .digest('base64')}`;
}

function url(): string {
  return `http://127.0.0.1:${(registry.address() as AddressInfo).port}`;
}
