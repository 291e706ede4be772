// Tests what the transport sends, and the code it gives to each failure. The clients' own tests cover trust and proxies.
import { once } from 'node:events';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer, type Server, type Socket } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { lookupNonLocal } from '../../../lib/kubernetes/local-addresses.ts';
import {
  type Endpoint,
  type Limits,
  type Request,
  Transport,
  type TransportCode,
  TransportError,
} from '../../../lib/kubernetes/transport.ts';
import { createAuthority } from '../../bed/certificates.ts';
import { type Answer, type ApiServer, json, startApiServer } from '../../functions/api-server.ts';

const LIMITS: Limits = { connections: 2, connectMs: 10_000, idleMs: 10_000, maxBytes: 1_000 };

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

const start = async (answer: Answer = (_, response) => json(response, {})): Promise<ApiServer> =>
  stack.use(await startApiServer(answer));

const connectTo = (endpoint: Endpoint, limits: Partial<Limits> = {}): Transport =>
  stack.use(new Transport(endpoint, { ...LIMITS, ...limits }));

const get = (signal = AbortSignal.timeout(20_000)): Request => ({
  method: 'GET',
  path: '/version',
  headers: {},
  signal,
});

async function listen(server: Server): Promise<number> {
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
  return (server.address() as AddressInfo).port;
}

async function errorOf(promise: Promise<unknown>): Promise<TransportError> {
  const error: unknown = await promise.then(
    () => 'it succeeded',
    (reason: unknown) => reason,
  );
  if (!(error instanceof TransportError)) throw new Error(`not a TransportError: ${error}`);
  return error;
}

describe('a request', () => {
  test('is sent with its method, query, headers and body, below the path of the server', async () => {
    const server = await start();
    const transport = connectTo({ server: `${server.url}/k8s/clusters/c-1/`, ca: server.caPem });
    await transport.send({
      method: 'PATCH',
      path: '/api/v1/nodes/a',
      query: { labelSelector: 'a=b&c', limit: '1' },
      headers: { 'content-type': 'application/json', 'x-test': 'yes' },
      body: '{"a":1}',
      signal: AbortSignal.timeout(20_000),
    });
    const [request = expect.fail('the server received no request')] = server.requests;
    expect(request).toMatchObject({
      method: 'PATCH',
      path: '/k8s/clusters/c-1/api/v1/nodes/a',
      headers: { 'content-type': 'application/json', 'x-test': 'yes' },
      body: '{"a":1}',
    });
    expect(Object.fromEntries(request.query)).toEqual({ labelSelector: 'a=b&c', limit: '1' });
  });

  test('returns status, headers and body of a response, whatever its status', async () => {
    const server = await start((_, response) => json(response, { a: 1 }, 503, { 'retry-after': '7' }));
    const response = await connectTo({ server: server.url, ca: server.caPem }).send(get());
    expect(response).toMatchObject({ status: 503, headers: { 'retry-after': '7' }, text: '{"a":1}' });
    expect(response.headersAfterMs).toBeGreaterThan(0);
  });

  test('is not sent again after a failure', async () => {
    const server = await start((request) => request.drop());
    await errorOf(connectTo({ server: server.url, ca: server.caPem }).send(get()));
    expect(server.requests).toHaveLength(1);
  });
});

describe('a failure', () => {
  interface Failure {
    title: string;
    code: TransportCode;
    answer?: Answer;
    endpoint?: (server: ApiServer) => Partial<Endpoint> | Promise<Partial<Endpoint>>;
    limits?: Partial<Limits>;
  }
  test.each<Failure>([
    {
      title: 'of the name resolution',
      code: 'dns',
      endpoint: () => ({ server: 'https://cluster.invalid' }),
    },
    {
      title: 'of a lookup that refuses the address',
      code: 'local-address',
      endpoint: ({ url }) => ({ server: url.replace('127.0.0.1', 'localhost'), lookup: lookupNonLocal }),
    },
    {
      title: 'of a port where no process listens',
      code: 'refused',
      endpoint: () => ({ server: 'https://127.0.0.1:1' }),
    },
    { title: 'of a certificate without a known authority', code: 'tls', endpoint: () => ({ ca: undefined }) },
    {
      title: 'of a certificate of another authority',
      code: 'tls',
      endpoint: async () => ({ ca: (await createAuthority('other')).caPem }),
    },
    {
      title: 'of a certificate for another name',
      code: 'tls',
      endpoint: () => ({ serverName: 'elsewhere.example' }),
    },
    {
      title: 'of a server that speaks HTTP without TLS',
      code: 'tls',
      endpoint: async () => ({ server: `https://127.0.0.1:${await listen(createHttpServer())}` }),
    },
    {
      title: 'of a TLS handshake that takes too long',
      code: 'timeout',
      endpoint: async () => ({ server: `https://127.0.0.1:${await listen(createServer())}` }),
      limits: { connectMs: 100 },
    },
    { title: 'of headers that take too long', code: 'timeout', answer: () => {}, limits: { idleMs: 100 } },
    {
      title: 'of a body that takes too long',
      code: 'timeout',
      answer: (_, response) => void response.writeHead(200).write('{'),
      limits: { idleMs: 100 },
    },
    {
      title: 'of a body above the limit',
      code: 'too-large',
      answer: (_, response) => json(response, 'x'.repeat(1_000)),
    },
    { title: 'of a connection that breaks', code: 'disconnected', answer: (request) => request.drop() },
    {
      title: 'of a proxy that refuses to connect',
      code: 'proxy',
      endpoint: async () => {
        const proxy = createHttpServer().on('connect', (_, socket) => {
          socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n');
        });
        return { proxyUrl: `http://me:canary@127.0.0.1:${await listen(proxy)}` };
      },
    },
    {
      title: 'of a proxy that closes the connection',
      code: 'proxy',
      endpoint: async () => {
        const proxy = createServer((socket) => socket.destroy());
        return { proxyUrl: `http://me:canary@127.0.0.1:${await listen(proxy)}` };
      },
    },
    {
      title: 'of a proxy that does not respond to CONNECT',
      code: 'timeout',
      endpoint: async () => ({ proxyUrl: `http://127.0.0.1:${await listen(createServer())}` }),
      limits: { connectMs: 500 },
    },
    {
      title: 'of a tunnel that does not open',
      code: 'timeout',
      endpoint: () => ({ openTunnel: () => new Promise(() => {}) }),
      limits: { connectMs: 100 },
    },
    {
      title: 'of a tunnel',
      code: 'proxy',
      endpoint: () => ({ openTunnel: () => Promise.reject(new Error('SOCKS says no')) }),
    },
  ])('$title has the code $code', async ({ code, answer, endpoint = () => ({}), limits }) => {
    const server = await start(answer);
    const transport = connectTo(
      { server: server.url, ca: server.caPem, ...(await endpoint(server)) },
      limits,
    );
    const error = await errorOf(transport.send(get()));
    expect(error).toMatchObject({ code, cause: expect.any(Error) });
    expect(error.message).not.toContain('canary');
    expect(error.message).not.toContain('\n');
  });

  test('names the code of Node.js once', async () => {
    const { message } = await errorOf(connectTo({ server: 'https://127.0.0.1:1' }).send(get()));
    expect(message).toBe('connection refused: connect ECONNREFUSED 127.0.0.1:1');
  });

  test.each(['gopher://proxy', 'http://[::1:3128'])('of the proxy URL %s is one at once', (proxyUrl) => {
    expect(() => new Transport({ server: 'https://127.0.0.1', proxyUrl }, LIMITS)).toThrow(TransportError);
  });
});

describe('the signal of a request', () => {
  test.each<{ title: string; code: TransportCode; signal: () => AbortSignal }>([
    { title: 'that is aborted', code: 'aborted', signal: () => AbortSignal.abort() },
    { title: 'that times out', code: 'timeout', signal: () => AbortSignal.timeout(50) },
    {
      title: 'that is aborted later',
      code: 'aborted',
      signal: () => {
        const controller = new AbortController();
        setTimeout(() => controller.abort(), 50);
        return controller.signal;
      },
    },
  ])('$title ends it with the code $code', async ({ code, signal }) => {
    const server = await start(() => {});
    const transport = connectTo({ server: server.url, ca: server.caPem });
    expect(await errorOf(transport.send(get(signal())))).toMatchObject({ code });
  });

  test('ends it while its connection is being established', async () => {
    const server = `https://127.0.0.1:${await listen(createServer())}`;
    const startedAt = performance.now();
    const transport = connectTo({ server });
    expect(await errorOf(transport.send(get(AbortSignal.timeout(50))))).toMatchObject({ code: 'timeout' });
    expect(performance.now() - startedAt).toBeLessThan(LIMITS.connectMs);
  });
});

describe('a stream', () => {
  const open = async (answer: Answer, { idleMs = 20_000, signal = AbortSignal.timeout(20_000) } = {}) => {
    const server = await start(answer);
    const transport = connectTo({ server: server.url, ca: server.caPem }, { idleMs: 600_000 });
    return transport.stream(get(signal), idleMs);
  };
  const all = async (parts: AsyncIterable<string>) => {
    let text = '';
    for await (const part of parts) text += part;
    return text;
  };

  test('returns the status, and the parts of the body as they arrive, without broken characters', async () => {
    let rest = () => {};
    const { status, parts } = await open((_, response) => {
      const [first, second] = Buffer.from('é');
      response.writeHead(410).write(Uint8Array.of(0x61, first ?? 0));
      rest = () => {
        response.write(Uint8Array.of(second ?? 0));
        response.end('b');
      };
    });
    expect(status).toBe(410);
    const arriving = parts[Symbol.asyncIterator]();
    expect((await arriving.next()).value).toBe('a');
    rest();
    expect(await all({ [Symbol.asyncIterator]: () => arriving })).toBe('éb');
  });

  test.each<{ title: string; code: TransportCode; answer: Answer; idleMs?: number; abort?: boolean }>([
    {
      title: 'pauses for longer than its own limit',
      code: 'timeout',
      answer: (_, response) => void response.writeHead(200).write('a'),
      idleMs: 100,
    },
    {
      title: 'is larger than the limit',
      code: 'too-large',
      answer: (_, response) => void response.writeHead(200).write('x'.repeat(1_001)),
    },
    {
      title: 'breaks off',
      code: 'disconnected',
      answer: (request, response) => {
        response.writeHead(200).write('a');
        setImmediate(() => request.drop());
      },
    },
    {
      title: 'is aborted',
      code: 'aborted',
      answer: (_, response) => void response.writeHead(200).write('a'),
      abort: true,
    },
  ])('that $title fails with the code $code', async ({ code, answer, idleMs, abort = false }) => {
    const controller = new AbortController();
    const { parts } = await open(answer, { ...(idleMs && { idleMs }), signal: controller.signal });
    if (abort) setImmediate(() => controller.abort());
    expect(await errorOf(all(parts))).toMatchObject({ code });
  });
});

test('close waits for the response of a request, and then closes the connection', async () => {
  const server = await start((_, response) => void setTimeout(() => json(response, { a: 1 }), 100));
  const transport = connectTo({ server: server.url, ca: server.caPem });
  const response = transport.send(get());
  await transport.close();
  expect(await response).toMatchObject({ text: '{"a":1}' });
});
