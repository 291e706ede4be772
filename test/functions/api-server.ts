// A small HTTPS server in the place of a Kubernetes API server. A test's function answers each request, also with what no
// API server would answer.
import { once } from 'node:events';
import type { IncomingMessage } from 'node:http';
import { createSecureServer, type Http2ServerRequest } from 'node:http2';
import { createServer } from 'node:https';
import type { Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import type { TLSSocket } from 'node:tls';
import { createAuthority } from '../bed/certificates.ts';

export interface Received {
  readonly method: string;
  readonly path: string;
  readonly query: URLSearchParams;
  readonly headers: Http2ServerRequest['headers'];
  readonly httpVersion: string;
  readonly body: string;
  /** The common name of a valid client certificate. */
  readonly clientName?: string;
  /** Closes the connection. */
  drop(): void;
}

/** The methods that responses over HTTP/1.1 and HTTP/2 share. */
export interface Response {
  setHeader(name: string, value: string | readonly string[]): unknown;
  writeHead(status: number, headers?: Record<string, string>): Response;
  write(chunk: string | Uint8Array): boolean;
  end(): unknown;
  end(text: string): unknown;
  on(event: 'drain' | 'close', listener: () => void): unknown;
  readonly destroyed: boolean;
}

export type Answer = (request: Received, response: Response, count: number) => void;

export interface ApiServer extends AsyncDisposable {
  readonly url: string;
  readonly caPem: string;
  readonly requests: readonly Received[];
  /** The number of connections so far. */
  readonly connections: number;
}

export type Protocol = 'http/1.1' | 'h2';

/** Starts it on a free loopback port. @param clientCa requests client certificates of this authority */
export async function startApiServer(
  answer: Answer,
  { protocol = 'http/1.1', clientCa }: { protocol?: Protocol; clientCa?: string } = {},
): Promise<ApiServer> {
  const authority = await createAuthority('test');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const requests: Received[] = [];
  const open = new Set<Socket>();
  let connections = 0;

  const receive = async (request: IncomingMessage | Http2ServerRequest, response: Response) => {
    const { pathname, searchParams } = new URL(request.url ?? '', 'https://test');
    const session = 'stream' in request ? request.stream.session : undefined;
    const socket = (session?.socket ?? request.socket) as TLSSocket;
    const clientName = socket.authorized ? socket.getPeerCertificate().subject?.CN : undefined;
    const received: Received = {
      method: request.method ?? '',
      path: pathname,
      query: searchParams,
      headers: request.headers,
      httpVersion: request.httpVersion,
      body: await text(request),
      ...(typeof clientName === 'string' && { clientName }),
      drop: () => (session ?? socket).destroy(),
    };
    requests.push(received);
    answer(received, response, requests.length);
  };
  const tls = {
    cert: certPem,
    key: keyPem,
    ...(clientCa !== undefined && { ca: clientCa, requestCert: true, rejectUnauthorized: false }),
  };
  const server = protocol === 'h2' ? createSecureServer(tls, receive) : createServer(tls, receive);
  server.on('connection', (socket: Socket) => {
    connections += 1;
    open.add(socket);
    socket.on('close', () => open.delete(socket));
    socket.on('error', () => {});
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  return {
    url: `https://127.0.0.1:${address.port}`,
    caPem: authority.caPem,
    requests,
    get connections() {
      return connections;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of open) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

/** A kubeconfig (JSON) for the server. @param path a path in the server's URL */
export function kubeconfigFor(
  { url, caPem }: Pick<ApiServer, 'url' | 'caPem'>,
  token: string,
  path = '',
): string {
  const server = {
    server: `${url}${path}`,
    'certificate-authority-data': Buffer.from(caPem).toString('base64'),
  };
  return JSON.stringify({
    'current-context': 'main',
    contexts: [{ name: 'main', context: { cluster: 'main', user: 'main' } }],
    clusters: [{ name: 'main', cluster: server }],
    users: [{ name: 'main', user: { token } }],
  });
}

/** Answers with JSON. */
export function json(
  response: Response,
  body: unknown,
  status = 200,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers });
  response.end(JSON.stringify(body));
}

/** Answers with an error status and a Status. */
export function refuse(
  response: Response,
  status: number,
  message: string,
  headers: Record<string, string> = {},
): void {
  json(
    response,
    { kind: 'Status', apiVersion: 'v1', status: 'Failure', message, code: status },
    status,
    headers,
  );
}

/** A page of a list of metadata. @param next the token of the next page */
export function page(items: readonly object[], next?: string): object {
  return {
    kind: 'PartialObjectMetadataList',
    apiVersion: 'meta.k8s.io/v1',
    metadata: { resourceVersion: '1', ...(next !== undefined && { continue: next }) },
    items: items.map((metadata) => ({ metadata })),
  };
}

/** The page that a request asks for, by its `limit` and `continue`. */
export function pageFor({ query }: Received, items: readonly object[]): object {
  const start = Number(query.get('continue') ?? 0);
  const end = start + Number(query.get('limit') ?? items.length);
  return page(items.slice(start, end), end < items.length ? String(end) : undefined);
}

/** The metadata of one object. */
export function object(metadata: object): object {
  return { kind: 'PartialObjectMetadata', apiVersion: 'meta.k8s.io/v1', metadata };
}
