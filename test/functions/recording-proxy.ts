// A TLS reverse proxy between the refresher and an API server. It records every request and response, and calls a test's
// hook before it forwards a request.
import { once } from 'node:events';
import { Agent, createServer, request } from 'node:https';
import { text } from 'node:stream/consumers';
import { parse, stringify } from 'yaml';
import { createAuthority } from '../bed/certificates.ts';
import type { ControlPlane } from '../bed/control-plane.ts';

export interface Exchange {
  readonly method: string;
  readonly path: string;
  readonly query: Readonly<Record<string, string>>;
  readonly accept: string;
  readonly body: string;
  readonly status: number;
  readonly answer: string;
}

export interface RecordingProxy extends AsyncDisposable {
  readonly exchanges: Exchange[];
  /** Called before a request is forwarded. */
  before: (method: string, path: string) => Promise<void>;
  /** Returns the kubeconfig with this proxy as its server. */
  through(kubeconfig: string): string;
}

/** Starts it on a free loopback port. */
export async function startRecordingProxy(target: ControlPlane): Promise<RecordingProxy> {
  const authority = await createAuthority('proxy');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const agent = new Agent({ keepAlive: true, ca: target.caPem });
  const exchanges: Exchange[] = [];
  let port = 0;

  const server = createServer({ cert: certPem, key: keyPem }, async (received, response) => {
    const body = await text(received);
    const method = received.method ?? '';
    const url = new URL(received.url ?? '', 'https://proxy');
    await proxy.before(method, url.pathname);
    const { host: _, ...headers } = received.headers;
    const forwarded = request(new URL(received.url ?? '', target.server), { method, agent, headers });
    forwarded.on('error', () => response.destroy());
    forwarded.on('response', async (answered) => {
      const answer = await text(answered);
      const status = answered.statusCode ?? 0;
      exchanges.push({
        method,
        path: url.pathname,
        query: Object.fromEntries(url.searchParams),
        accept: received.headers.accept ?? '',
        body,
        status,
        answer,
      });
      const { 'content-length': __, 'transfer-encoding': ___, ...answeredHeaders } = answered.headers;
      response.writeHead(status, answeredHeaders).end(answer);
    });
    forwarded.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address !== null && typeof address !== 'string') port = address.port;

  const proxy: RecordingProxy = {
    exchanges,
    before: async () => {},
    through(kubeconfig) {
      const config = parse(kubeconfig) as { clusters: { name: string; cluster: object }[] };
      const cluster = {
        server: `https://127.0.0.1:${port}`,
        'certificate-authority-data': Buffer.from(authority.caPem).toString('base64'),
      };
      return stringify({ ...config, clusters: config.clusters.map(({ name }) => ({ name, cluster })) });
    },
    async [Symbol.asyncDispose]() {
      agent.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return proxy;
}
