// Tests how the command line connects to an API server: through proxies, with each kind of credential, and without
// verification of the certificate where the kubeconfig says so.
import { once } from 'node:events';
import { mkdtempDisposable, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Kubernetes } from '../../../cli/kubernetes/client.ts';
import { EXIT } from '../../../cli/output/errors.ts';
import { ShellCommands } from '../../../cli/output/shell-commands.ts';
import { createAuthority } from '../../bed/certificates.ts';
import { type Answer, type ApiServer, json, startApiServer } from '../../functions/api-server.ts';

const TOKEN = 'canary-token-3f9b';

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

const VERSION: Answer = (_, response) => json(response, { gitVersion: 'v1.36.3' });

const start = async (clientCa?: string, answer = VERSION): Promise<ApiServer> =>
  stack.use(await startApiServer(answer, { ...(clientCa !== undefined && { clientCa }) }));

function kubeconfigOf({ url, caPem }: ApiServer, cluster: object = {}, user: object = { token: TOKEN }) {
  const changed = { server: url, 'certificate-authority-data': base64(caPem), ...cluster };
  return JSON.stringify({
    'current-context': 'the main',
    contexts: [{ name: 'the main', context: { cluster: 'of-main', user: 'me' } }],
    clusters: [{ name: 'of-main', cluster: changed }],
    users: [{ name: 'me', user }],
  });
}

const clientOf = (...args: Parameters<typeof kubeconfigOf>) =>
  Kubernetes.of(kubeconfigOf(...args), AbortSignal.timeout(20_000), new ShellCommands({}, {}));

/** Writes a file. @returns its path */
async function fileOf(text: string): Promise<string> {
  const { path } = stack.use(await mkdtempDisposable(join(tmpdir(), 'kubeconfig-')));
  await writeFile(join(path, 'config'), text);
  return join(path, 'config');
}

const base64 = (text: string) => Buffer.from(text).toString('base64');

async function listen(server: Server): Promise<string> {
  const open = new Set<Socket>();
  server.on('connection', (socket: Socket) => {
    open.add(socket);
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  stack.defer(() => {
    for (const socket of open) socket.destroy();
    server.close();
  });
  return `127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function pipe(socket: Socket, host: string, port: number, greeting: string | Uint8Array): void {
  const onward = connect(port, host, () => {
    socket.write(greeting);
    socket.pipe(onward).pipe(socket);
  });
  onward.on('error', () => socket.destroy());
}

/** A SOCKS5 proxy without authentication (RFC 1928), for IPv4 addresses. @returns its host and port */
function startSocksProxy(targets: string[]): Promise<string> {
  return listen(
    createServer((socket) => {
      socket.once('data', () => {
        socket.write(Uint8Array.of(5, 0));
        socket.once('data', (request) => {
          const host = [...request.subarray(4, 8)].join('.');
          const port = request.readUInt16BE(8);
          targets.push(`${host}:${port}`);
          pipe(socket, host, port, Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0));
        });
      });
    }),
  );
}

/** An HTTP proxy that answers CONNECT. @returns its host and port */
function startHttpProxy(targets: string[]): Promise<string> {
  const proxy = createHttpServer().on('connect', ({ url = '' }, socket) => {
    targets.push(url);
    const [host = '', port] = url.split(':');
    pipe(socket as Socket, host, Number(port), 'HTTP/1.1 200 Connection established\r\n\r\n');
  });
  return listen(proxy);
}

describe('a proxy-url', () => {
  test.each([
    { scheme: 'socks5', startProxy: startSocksProxy },
    { scheme: 'socks5h', startProxy: startSocksProxy },
    { scheme: 'http', startProxy: startHttpProxy },
  ])('of scheme $scheme carries the requests', async ({ scheme, startProxy }) => {
    const targets: string[] = [];
    const server = await start();
    const kubernetes = clientOf(server, { 'proxy-url': `${scheme}://${await startProxy(targets)}` });
    for (let count = 0; count < 2; count++)
      expect(await kubernetes.get('/version')).toEqual({ body: { gitVersion: 'v1.36.3' } });
    expect([...new Set(targets)]).toEqual([new URL(server.url).host]);
    expect(server.requests[0]?.headers.authorization).toBe(`Bearer ${TOKEN}`);
  });

  test.each([
    { scheme: 'socks5', startProxy: startSocksProxy },
    { scheme: 'http', startProxy: startHttpProxy },
  ])('of scheme $scheme does not replace the check of the certificate', async ({ scheme, startProxy }) => {
    const server = await start();
    const kubernetes = clientOf(server, {
      'proxy-url': `${scheme}://${await startProxy([])}`,
      'certificate-authority-data': base64((await createAuthority('other')).caPem),
    });
    await expect(kubernetes.get('/version')).rejects.toMatchObject({ exitCode: EXIT.network });
    expect(server.requests).toEqual([]);
  });

  test.each(['socks5', 'socks4', 'http'])(
    'of scheme %s to a closed port is a network error',
    async (scheme) => {
      const kubernetes = clientOf(await start(), { 'proxy-url': `${scheme}://127.0.0.1:1` });
      await expect(kubernetes.get('/version')).rejects.toMatchObject({ exitCode: EXIT.network });
    },
  );
});

describe('a proxy-url that is not the URL of a proxy', () => {
  test.each(['http://me:canary-password@[::1:3128', 'proxy:3128', 'gopher://proxy:70'])(
    '%s makes the kubeconfig unreadable',
    async (proxyUrl) => {
      const kubeconfig = await fileOf(kubeconfigOf(await start(), { 'proxy-url': proxyUrl }));
      const load = () => Kubernetes.load({ kubeconfig }, AbortSignal.timeout(20_000));
      expect(load).toThrow(
        expect.objectContaining({
          code: 'kubeconfig-unreadable',
          message: expect.stringMatching(/proxy-url of the cluster of-main/),
        }),
      );
      expect(load).not.toThrow(proxyUrl);
    },
  );
});

describe('the certificate of the server', () => {
  test.each([
    {
      title: 'of another authority is refused',
      cluster: async () => ({ 'certificate-authority-data': base64((await createAuthority('other')).caPem) }),
    },
    {
      title: 'for another name is refused',
      cluster: async () => ({ 'tls-server-name': 'elsewhere.example' }),
    },
  ])('$title', async ({ cluster }) => {
    const server = await start();
    const kubernetes = clientOf(server, await cluster());
    await expect(kubernetes.get('/version')).rejects.toMatchObject({ exitCode: EXIT.network });
    expect(server.requests).toEqual([]);
  });

  test('is not verified with insecure-skip-tls-verify', async () => {
    const server = await start();
    const kubernetes = clientOf(server, {
      'certificate-authority-data': undefined,
      'insecure-skip-tls-verify': true,
    });
    expect((await kubernetes.get<object>('/version')).body).toEqual({ gitVersion: 'v1.36.3' });
  });
});

describe('the user of the kubeconfig', () => {
  test.each([
    { title: '', clusterOf: async () => ({}) },
    {
      title: ' through a SOCKS proxy',
      clusterOf: async () => ({ 'proxy-url': `socks5://${await startSocksProxy([])}` }),
    },
  ])('is authenticated by a client certificate$title', async ({ clusterOf }) => {
    const authority = await createAuthority('clients');
    const { certPem, keyPem } = await authority.client('operator', []);
    const server = await start(authority.caPem);
    const user = { 'client-certificate-data': base64(certPem), 'client-key-data': base64(keyPem) };
    await clientOf(server, await clusterOf(), user).get('/version');
    expect(server.requests[0]).toMatchObject({ clientName: 'operator' });
  });

  test('is authenticated by each new client certificate of the exec plugin', async () => {
    const authority = await createAuthority('clients');
    const server = await start(authority.caPem);
    const printed = await fileOf('');
    const apiVersion = 'client.authentication.k8s.io/v1';
    const exec = { apiVersion, interactiveMode: 'Never', command: 'cat', args: [printed] };
    const kubernetes = clientOf(server, {}, { exec });
    for (const name of ['first', 'second']) {
      const { certPem, keyPem } = await authority.client(name, []);
      const expirationTimestamp = new Date().toISOString();
      const status = { clientCertificateData: certPem, clientKeyData: keyPem, expirationTimestamp };
      await writeFile(printed, JSON.stringify({ apiVersion, kind: 'ExecCredential', status }));
      await kubernetes.get('/version');
    }
    expect(server.requests.map(({ clientName }) => clientName)).toEqual(['first', 'second']);
  });

  test('is authenticated by a name and a password', async () => {
    const server = await start();
    await clientOf(server, {}, { username: 'me', password: 'canary-password' }).get('/version');
    expect(server.requests[0]?.headers.authorization).toBe(`Basic ${base64('me:canary-password')}`);
  });

  test('is authenticated by the name and the password in the URL of the server', async () => {
    const server = await start();
    const url = server.url.replace('https://', 'https://me:canary%20password@');
    await clientOf(server, { server: url }, {}).get('/version');
    expect(server.requests[0]?.headers.authorization).toBe(`Basic ${base64('me:canary password')}`);
  });
});

test.each([
  { status: 401, body: '{}', code: 'kubernetes-unauthorized', command: 'auth whoami' },
  { status: 500, body: '{}', code: 'kubernetes-error', command: 'version' },
  { status: 200, body: 'nginx', code: 'unexpected-response', command: 'version' },
])(
  'HTTP $status gives $code, and a command for the same cluster',
  async ({ status, body, code, command }) => {
    const server = await start(undefined, (_, response) => response.writeHead(status).end(body));
    const kubeconfig = await fileOf(kubeconfigOf(server));
    const kubernetes = Kubernetes.load({ kubeconfig }, AbortSignal.timeout(20_000));
    const hint = expect.stringContaining(
      `kubectl --kubeconfig ${kubeconfig} --context 'the main' ${command}`,
    );
    await expect(kubernetes.get('/version')).rejects.toMatchObject({ code, hint });
  },
);
