// A TLS proxy in front of an API server that changes its responses: their date, or their body.
import { once } from 'node:events';
import { Agent, createServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { parse, stringify } from 'yaml';
import { createAuthority } from '../../../bed/certificates.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';

export interface ChangingProxy extends AsyncDisposable {
  /** Seconds by which the Date of each response is moved ahead. */
  aheadSeconds: number;
  /** Bodies that replace those of the API server, by path. */
  readonly bodies: Map<string, object>;
  /** The kubeconfig with this proxy as its server. */
  through(kubeconfig: string): string;
}

/** Starts it on a free loopback port. */
export async function startChangingProxy(target: ControlPlane): Promise<ChangingProxy> {
  const authority = await createAuthority('proxy');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const agent = new Agent({ keepAlive: true, ca: target.caPem });
  const server = createServer({ cert: certPem, key: keyPem }, async (received, response) => {
    const body = await text(received);
    const { host: _, ...headers } = received.headers;
    const url = new URL(received.url ?? '', target.server);
    const passed = request(url, { method: received.method, agent, headers });
    passed.on('error', () => response.destroy());
    passed.on('response', async (answered) => {
      const original = await text(answered);
      const { 'content-length': __, 'transfer-encoding': ___, date = '', ...rest } = answered.headers;
      const shifted = new Date(Date.parse(date) + proxy.aheadSeconds * 1000).toUTCString();
      const changed = proxy.bodies.get(url.pathname);
      response
        .writeHead(answered.statusCode ?? 0, { ...rest, date: shifted })
        .end(changed ? JSON.stringify(changed) : original);
    });
    passed.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const proxy: ChangingProxy = {
    aheadSeconds: 0,
    bodies: new Map(),
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
