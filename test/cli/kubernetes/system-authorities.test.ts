// Compares the command line with kubectl where a kubeconfig has no CA: both trust the operating system's authorities. In a
// process of its own, because Node.js reads these once.
import { execFile } from 'node:child_process';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { expect, test } from 'vitest';
import { createAuthority } from '../../bed/certificates.ts';
import { runCommand } from '../../bed/control-plane.ts';
import { tools } from '../../bed/toolchain.ts';
import { json, startApiServer } from '../../functions/api-server.ts';

const CLIENT = new URL('../../../cli/kubernetes/client.ts', import.meta.url);
const PROGRAM = `
  const { Kubernetes } = await import(${JSON.stringify(CLIENT)});
  await Kubernetes.load({}, AbortSignal.timeout(20_000)).get('/version').then(
    () => console.log('accepted'),
    ({ code }) => console.log(code));`;

test.each([
  { title: 'is accepted if the system trusts its authority', isTrusted: true },
  { title: 'is refused if the system does not', isTrusted: false },
])('a server $title', async ({ isTrusted }) => {
  await using dir = await mkdtempDisposable(join(tmpdir(), 'authorities-'));
  await using server = await startApiServer((_, response) => json(response, { gitVersion: 'v1.36.3' }));
  const inDir = (name: string) => join(dir.path, name);
  const { caPem } = isTrusted ? server : await createAuthority('another');
  await writeFile(inDir('authorities.pem'), caPem);
  await writeFile(
    inDir('kubeconfig'),
    JSON.stringify({
      'current-context': 'main',
      contexts: [{ name: 'main', context: { cluster: 'main', user: 'main' } }],
      clusters: [{ name: 'main', cluster: { server: server.url } }],
      users: [{ name: 'main', user: { token: 'x' } }],
    }),
  );
  const env = {
    PATH: process.env.PATH ?? '',
    HOME: dir.path,
    KUBECONFIG: inDir('kubeconfig'),
    SSL_CERT_FILE: inDir('authorities.pem'),
    SSL_CERT_DIR: dir.path,
  };
  const kubectl = await runCommand(tools().kubectl, ['get', '--raw', '/version'], env);
  expect(kubectl.code === 0).toBe(isTrusted);
  const { stdout } = await promisify(execFile)(process.execPath, ['--input-type=module', '-e', PROGRAM], {
    env,
  });
  expect(stdout.trim()).toBe(isTrusted ? 'accepted' : 'network');
});
