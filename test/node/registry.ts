// Registries for a node: a public one, and "ECR", which serves the same images under the real ECR host name, over TLS, and only
// with a token that the bed's ECR endpoint has issued and that is still valid.
import { once } from 'node:events';
import { appendFile, mkdir, writeFile } from 'node:fs/promises';
import { request } from 'node:http';
import { createServer } from 'node:https';
import { join } from 'node:path';
import type { AwsEndpoint } from '../bed/aws-endpoint.ts';
import { createAuthority } from '../bed/certificates.ts';
import { freePorts, startProgram } from '../bed/process.ts';

/** The host of the public registry, in names of images. */
export const PUBLIC_HOST = 'registry.example.com';

export interface Registries extends AsyncDisposable {
  /** The public registry's address on loopback, where images are pushed to. */
  readonly address: string;
  /** The folder of the certificate authority of "ECR", for programs with --cert-dir. */
  readonly certificates: string;
  /** Expires every ECR token that was issued so far. */
  expireTokens(): void;
}

/** Starts both registries, and has containerd and this machine find them by name. @param ecr issues the tokens */
export async function startRegistries(dir: string, ecr: AwsEndpoint): Promise<Registries> {
  await mkdir(dir, { recursive: true });
  await using undo = new AsyncDisposableStack();
  const [port = 0] = await freePorts(1);
  const address = `127.0.0.1:${port}`;
  await writeFile(
    join(dir, 'registry.json'),
    JSON.stringify({
      version: '0.1',
      storage: { filesystem: { rootdirectory: join(dir, 'images') } },
      // The host that the client used is not the registry's own.
      http: { addr: address, relativeurls: true },
    }),
  );
  undo.use(
    await startProgram('docker-registry', '/usr/bin/docker-registry', ['serve', join(dir, 'registry.json')], {
      env: {},
      logPath: join(dir, 'docker-registry.log'),
      isReady: async () => (await fetch(`http://${address}/v2/`)).ok,
    }),
  );

  let expiredCalls = 0;
  const isValid = (authorization = '') => {
    const [user, password] = Buffer.from(authorization.replace(/^Basic /, ''), 'base64')
      .toString()
      .split(':');
    return ecr.calls.some(
      (call, index) =>
        index >= expiredCalls &&
        user === 'AWS' &&
        password !== undefined &&
        call.password === password &&
        (call.expiresAt ?? 0) > Date.now(),
    );
  };
  const authority = await createAuthority('the authority of the registry');
  const { certPem, keyPem } = await authority.serving([ecr.host]);
  const door = createServer({ cert: certPem, key: keyPem }, (incoming, response) => {
    if (!isValid(incoming.headers.authorization)) {
      const realm = `Basic realm="https://${ecr.host}/",service="ecr.amazonaws.com"`;
      response.writeHead(401, { 'www-authenticate': realm }).end('Not Authorized');
      return;
    }
    const { method, url: path, headers } = incoming;
    const asked = request({ host: '127.0.0.1', port, method, path, headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      answer.pipe(response);
    });
    asked.on('error', () => response.destroy());
    incoming.pipe(asked);
  });
  door.listen(443, '127.0.0.1');
  await once(door, 'listening');
  undo.defer(() => {
    door.closeAllConnections();
    door.close();
  });

  await appendFile('/etc/hosts', `127.0.0.1 ${ecr.host}\n`);
  const certificates = join('/etc/containerd/certs.d', ecr.host);
  await mkdir(certificates, { recursive: true });
  await writeFile(join(certificates, 'ca.crt'), authority.caPem);
  await writeFile(
    join(certificates, 'hosts.toml'),
    `[host."https://${ecr.host}"]\ncapabilities = ["pull", "resolve"]\nca = "${join(certificates, 'ca.crt')}"\n`,
  );
  await mkdir(join('/etc/containerd/certs.d', PUBLIC_HOST), { recursive: true });
  await writeFile(
    join('/etc/containerd/certs.d', PUBLIC_HOST, 'hosts.toml'),
    `[host."http://${address}"]\ncapabilities = ["pull", "resolve"]\n`,
  );

  const parts = undo.move();
  return {
    address,
    certificates,
    expireTokens() {
      expiredCalls = ecr.calls.length;
    },
    [Symbol.asyncDispose]: () => parts.disposeAsync(),
  };
}
