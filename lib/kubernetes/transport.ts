// Sends HTTP requests to one API server. The refresher, the webhook and the command line share it, so that TLS trust,
// time limits, size limits and failures are the same for all three. It knows nothing of Kubernetes objects.

import type { LookupFunction, Socket } from 'node:net';
import { Agent, buildConnector, type Dispatcher, Pool, ProxyAgent } from 'undici';
import { abortable } from '../abort.ts';
import { sanitize } from '../text.ts';
import { connectToAny } from './connect.ts';
import { LOCAL_ADDRESS_CODE } from './local-addresses.ts';
import { trust } from './trust.ts';

/** Where an API server is and how its connections are secured. Certificates and keys are PEM. */
export interface Endpoint {
  /** An http or https URL. Its path, if any, precedes the path of each request. */
  readonly server: string;
  /** The certificate authorities to trust; absent: those of Node.js. */
  readonly ca?: string | undefined;
  /** The name in the server's certificate, if it is not the host of `server`. */
  readonly serverName?: string | undefined;
  /** The client certificate and its key. */
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Skips the check of the server's certificate. */
  readonly isInsecure?: boolean | undefined;
  /** An http or https URL of a proxy that supports CONNECT, with its user and password. */
  readonly proxyUrl?: string | undefined;
  /** Opens a TCP connection to the server by other means, such as SOCKS. Takes precedence over `proxyUrl`. */
  readonly openTunnel?: ((host: string, port: number) => Promise<Socket>) | undefined;
  /** Resolves host names, of a proxy too, in place of `dns.lookup`. Its errors may carry `LOCAL_ADDRESS_CODE`. */
  readonly lookup?: LookupFunction | undefined;
}

export interface Limits {
  /** Requests at the same time; more wait. */
  readonly connections?: number;
  /** Until a connection is established, TLS included. */
  readonly connectMs: number;
  /** Until the headers of a response arrive, and between two parts of its body. */
  readonly idleMs: number;
  /** Size of a response body. */
  readonly maxBytes: number;
  /**
   * Called once a body is larger than `LARGE_BODY_BYTES`. The rest of the body stays unread until it resolves. The function
   * that it returns is called when the body has been read.
   */
  readonly admitLargeBody?: ((signal: AbortSignal) => Promise<() => void>) | undefined;
}

export interface Request {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE';
  /** Without the query. */
  readonly path: string;
  readonly query?: Readonly<Record<string, string>> | undefined;
  /** A header with several values is sent several times. */
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body?: string | undefined;
  /** Ends the request, also while its connection is still being established. */
  readonly signal: AbortSignal;
}

/** Any response that arrived in full, whatever its status. */
export interface Response {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
  /** From the call of `send` until the headers arrived, in milliseconds. */
  readonly headersAfterMs: number;
}

/** Why no response arrived. */
export type TransportCode =
  /** The host name cannot be resolved. */
  | 'dns'
  /** The lookup refused the host's address. */
  | 'local-address'
  /** The host refuses the connection. */
  | 'refused'
  /** The host or its network cannot be reached. */
  | 'unreachable'
  /** The TLS handshake failed: in most cases the certificate is not trusted, or is for another name. */
  | 'tls'
  /** The proxy refused to connect, or failed. */
  | 'proxy'
  /** A time limit passed, or the signal's own (`AbortSignal.timeout`). */
  | 'timeout'
  /** The response body exceeds the size limit. */
  | 'too-large'
  /** The connection broke. */
  | 'disconnected'
  /** The signal was aborted. */
  | 'aborted'
  /** Anything else; `message` has the details. */
  | 'failed';

/** A request without a response. The message is one line and names the failure of Node.js or undici, its `cause`. */
export class TransportError extends Error {
  override readonly name = 'TransportError';
  readonly code: TransportCode;

  constructor(code: TransportCode, message: string, cause: unknown) {
    super(message, { cause });
    this.code = code;
  }
}

const MAX_MESSAGE_LENGTH = 400;
/** Bodies up to this size are read without `admitLargeBody`. */
export const LARGE_BODY_BYTES = 128 * 1024;

/** Keeps connections open between requests. Dispose of it to close them. */
export class Transport implements AsyncDisposable {
  readonly #origin: string;
  readonly #basePath: string;
  readonly #dispatcher: Dispatcher;
  readonly #limits: Limits;

  /** @throws TransportError where a URL of the endpoint is invalid */
  constructor(endpoint: Endpoint, limits: Limits) {
    this.#limits = limits;
    try {
      const { origin, pathname } = new URL(endpoint.server);
      this.#origin = origin;
      this.#basePath = pathname.replace(/(?<!\/)\/+$/, '');
      this.#dispatcher = dispatcherFor(endpoint, limits);
    } catch (error) {
      throw transportError(error);
    }
  }

  /** Sends one request, once. @throws TransportError */
  async send(request: Request): Promise<Response> {
    const startedAt = performance.now();
    return settle(request.signal, async () => {
      const { statusCode, headers, body } = await this.#open(request);
      const headersAfterMs = performance.now() - startedAt;
      return { status: statusCode, headers, text: await this.#read(body, request.signal), headersAfterMs };
    });
  }

  /**
   * Sends one request, once, and returns the body of its response in parts, as they arrive. Read them all, or abort the signal.
   *
   * @param idleMs the longest time between two parts
   * @throws TransportError, also while the parts are read
   */
  async stream(request: Request, idleMs: number): Promise<{ status: number; parts: AsyncIterable<string> }> {
    const { signal } = request;
    const { statusCode, body } = await settle(signal, () => this.#open(request, { bodyTimeout: idleMs }));
    const arriving = body.setEncoding('utf8')[Symbol.asyncIterator]() as AsyncIterator<string>;
    const next = () => settle(signal, () => arriving.next());
    return { status: statusCode, parts: { [Symbol.asyncIterator]: () => ({ next }) } };
  }

  /** Reads a body into one buffer: a server may send it in parts of one byte, which take a hundred times their size. */
  async #read(body: AsyncIterable<Uint8Array>, signal: AbortSignal): Promise<string> {
    const { admitLargeBody } = this.#limits;
    let buffer = Buffer.allocUnsafe(16 * 1024);
    let size = 0;
    let release: (() => void) | undefined;
    try {
      for await (const part of body) {
        if (size + part.length > LARGE_BODY_BYTES) release ??= await admitLargeBody?.(signal);
        if (size + part.length > buffer.length) {
          const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, size + part.length));
          buffer.copy(larger, 0, 0, size);
          buffer = larger;
        }
        buffer.set(part, size);
        size += part.length;
      }
      return new TextDecoder().decode(buffer.subarray(0, size));
    } finally {
      release?.();
    }
  }

  #open(
    { method, path, query, headers, body, signal }: Request,
    limits: { readonly bodyTimeout?: number } = {},
  ): Promise<Dispatcher.ResponseData> {
    const search = new URLSearchParams(query).toString();
    return this.#dispatcher.request({
      origin: this.#origin,
      path: `${this.#basePath}${path}${search && `?${search}`}`,
      method,
      headers,
      body: body ?? null,
      signal,
      ...limits,
    });
  }

  /** Closes the connections once their requests have ended. Send no more. */
  async close(): Promise<void> {
    await this.#dispatcher.close();
  }

  /** Closes the connections at once. Requests that are under way fail. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispatcher.destroy().catch(() => {});
  }
}

/** Waits for a part of a request. @throws TransportError */
async function settle<Value>(signal: AbortSignal, part: () => Promise<Value>): Promise<Value> {
  try {
    signal.throwIfAborted();
    // undici heeds a request's signal only once the request has a connection.
    return await abortable(part(), signal);
  } catch (error) {
    if (!signal.aborted) throw transportError(error);
    const isTimeout = (signal.reason as { name?: unknown } | undefined)?.name === 'TimeoutError';
    throw isTimeout
      ? new TransportError('timeout', 'the time limit passed', error)
      : new TransportError('aborted', 'the request was aborted', error);
  }
}

function dispatcherFor(endpoint: Endpoint, { connections, connectMs, idleMs, maxBytes }: Limits): Dispatcher {
  const { ca, cert, key, serverName, isInsecure, proxyUrl, openTunnel, lookup } = endpoint;
  const options = {
    ...(connections !== undefined && { connections }),
    headersTimeout: idleMs,
    bodyTimeout: idleMs,
    maxResponseSize: maxBytes,
  };
  const tls = {
    ...(ca !== undefined && trust(ca)),
    ...(cert !== undefined && { cert }),
    ...(key !== undefined && { key }),
    ...(serverName !== undefined && { servername: serverName }),
    ...(isInsecure && { rejectUnauthorized: false }),
  };
  if (openTunnel) return new Agent({ ...options, connect: connector(asProxy(openTunnel), connectMs, tls) });
  const openSocket: OpenSocket = (host, port, signal) => connectToAny(host, port, lookup, signal);
  if (proxyUrl === undefined)
    return new Agent({ ...options, connect: connector(openSocket, connectMs, tls) });
  return new ProxyAgent({
    ...options,
    uri: proxyUrl,
    // The proxy answers CONNECT once it is connected to the server.
    clientFactory: (origin) =>
      new Pool(origin, { connect: connector(openSocket, connectMs), headersTimeout: connectMs }),
    requestTls: { timeout: connectMs, ...tls },
  });
}

type OpenSocket = (host: string, port: number, signal: AbortSignal) => Promise<Socket>;

/** Opens connections through a tunnel, whose failure is one of the proxy. */
function asProxy(openTunnel: NonNullable<Endpoint['openTunnel']>): OpenSocket {
  return async (host, port, signal) => {
    const opening = openTunnel(host, port);
    try {
      return await abortable(opening, signal);
    } catch (error) {
      opening.then(
        (socket) => socket.destroy(),
        () => {},
      );
      throw signal.aborted ? error : new TransportError('proxy', describe('proxy', error), error);
    }
  };
}

/** Opens a connection, and secures it if the URL is https. One time limit is for both. */
function connector(open: OpenSocket, connectMs: number, tls: object = {}): buildConnector.connector {
  const secure = buildConnector({ timeout: connectMs, ...tls });
  const connect = async (options: buildConnector.Options, signal: AbortSignal): Promise<Socket> => {
    const { hostname, port, protocol } = options;
    const isSecure = protocol === 'https:';
    const host = hostname.replace(/^\[|\]$/g, '');
    const socket = await open(host, Number(port) || (isSecure ? 443 : 80), signal);
    if (!isSecure) return socket;
    const secured = new Promise<Socket>((resolve, reject) => {
      secure({ ...options, httpSocket: socket }, (...[error, result]) =>
        result ? resolve(result) : reject(error),
      );
    });
    return abortable(secured, signal).catch((error: unknown) => {
      socket.destroy();
      throw error;
    });
  };
  return (options, callback) => {
    connect(options, AbortSignal.timeout(connectMs)).then(
      (socket) => callback(null, socket),
      (error: Error) =>
        callback(
          error.name === 'TimeoutError'
            ? new TransportError('timeout', `no connection within ${connectMs / 1000} s`, error)
            : error,
          null,
        ),
    );
  };
}

const CODES: Readonly<Record<string, TransportCode>> = {
  [LOCAL_ADDRESS_CODE]: 'local-address',
  ENOTFOUND: 'dns',
  ECONNREFUSED: 'refused',
  EHOSTUNREACH: 'unreachable',
  ENETUNREACH: 'unreachable',
  EHOSTDOWN: 'unreachable',
  ENETDOWN: 'unreachable',
  EADDRNOTAVAIL: 'unreachable',
  ECONNRESET: 'disconnected',
  EPIPE: 'disconnected',
  UND_ERR_SOCKET: 'disconnected',
  ETIMEDOUT: 'timeout',
  UND_ERR_CONNECT_TIMEOUT: 'timeout',
  UND_ERR_HEADERS_TIMEOUT: 'timeout',
  UND_ERR_BODY_TIMEOUT: 'timeout',
  UND_ERR_RES_EXCEEDED_MAX_SIZE: 'too-large',
  UND_ERR_PRX_CONN: 'proxy',
  UND_ERR_PRX_TLS: 'proxy',
  // undici's code for a proxy that answers CONNECT with another status than 200; the signal is not aborted here.
  UND_ERR_ABORTED: 'proxy',
  EPROTO: 'tls',
};

/** Codes of OpenSSL and Node.js (Node.js, "TLS: X509 certificate error codes"). */
const TLS_CODE =
  /^(ERR_(TLS|SSL|OSSL)_|CERT_|UNABLE_TO_|DEPTH_ZERO_|SELF_SIGNED_|HOSTNAME_MISMATCH|INVALID_|CRL_|ERROR_IN_)/;

const DESCRIPTIONS: Readonly<Partial<Record<TransportCode, string>>> = {
  dns: 'host name not resolved',
  'local-address': 'address not allowed',
  refused: 'connection refused',
  unreachable: 'host not reachable',
  tls: 'TLS failed',
  proxy: 'proxy failed',
  timeout: 'time limit passed',
  'too-large': 'response too large',
  disconnected: 'connection lost',
};

function transportError(error: unknown): TransportError {
  if (error instanceof TransportError) return error;
  // A host with several addresses fails with one error for each of them, and no message of its own. A machine without IPv6
  // reaches no IPv6 address, which says nothing about the host.
  const causes: unknown[] = error instanceof AggregateError ? error.errors : [error];
  const cause =
    causes.find((one) => codeOf((one as NodeJS.ErrnoException).code) !== 'unreachable') ?? causes[0];
  const code = codeOf((cause as NodeJS.ErrnoException | undefined)?.code);
  return new TransportError(code, describe(code, cause), cause);
}

function codeOf(code: string | undefined): TransportCode {
  if (typeof code !== 'string') return 'failed';
  if (Object.hasOwn(CODES, code)) return CODES[code] ?? 'failed';
  if (code.startsWith('EAI_')) return 'dns';
  return TLS_CODE.test(code) ? 'tls' : 'failed';
}

/** The description of a code, then the words and the code of Node.js or undici. */
function describe(code: TransportCode, cause: unknown): string {
  const { message = String(cause), code: causeCode } = (cause ?? {}) as Partial<NodeJS.ErrnoException>;
  const description = DESCRIPTIONS[code];
  const details = sanitize(message.slice(0, MAX_MESSAGE_LENGTH)).trim();
  const isShown = causeCode === undefined || causeCode === LOCAL_ADDRESS_CODE || details.includes(causeCode);
  return `${description === undefined ? '' : `${description}: `}${details}${isShown ? '' : ` (${causeCode})`}`;
}
