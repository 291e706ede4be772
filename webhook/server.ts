// The HTTPS server: routes, limits, certificates, and a shutdown that answers every request in flight.
import { constants } from 'node:crypto';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { Server, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { createSecureContext, type SecureContext, type TLSSocket, type Server as TlsServer } from 'node:tls';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { Logger } from 'pino';
import type { DenialReason } from '../contract/denials.ts';
import { WEBHOOK_PATH } from '../contract/names.ts';
import { Budget } from '../lib/budget.ts';
import { trust } from '../lib/kubernetes/trust.ts';
import { parseJson } from '../lib/parse-json.ts';
import type { Answer, Caller } from './admission/admission.ts';
import type { ClientCertificates } from './caller/client-certificate.ts';
import { type Connection, Connections } from './limits.ts';
import type { KeyPair } from './tls/tls.ts';

/** The API server accepts bodies of up to 3 MiB; a review contains an object twice, and some fields. */
const BODY_LIMIT_BYTES = (2 * 3 + 1) * 1024 * 1024;

/**
 * The bytes of requests that are read or answered at the same time. A request counts with its whole body, until its
 * answer is sent. With the memory that parsed JSON takes, all of it fits into the chart's memory limit.
 */
const LARGE_BODIES_BYTES = 4 * BODY_LIMIT_BYTES;
/** Small bodies, which most reviews have, do not wait for large ones. */
const SMALL_BODIES_BYTES = 16 * 1024 * 1024;
const SMALL_BODY_BYTES = 128 * 1024;

/** TLS connections, of which each takes some 100 kB. An API server opens a few, and a kubelet one for each probe. */
const MAX_CONNECTIONS = 500;

/** The time for the TLS handshake, and for the headers of a request from their first byte on. */
const HEADERS_MS = 5_000;
/** The time for a body, from when the server begins to read it. */
const BODY_MS = 5_000;
/**
 * How long an idle connection stays open, also one that has had no request: Go's client keeps spare ones. The API server
 * closes idle connections after 90 s (IdleConnTimeout of Go's transport); if the webhook closed first, a request could
 * meet the closing connection, and would fail.
 */
const KEEP_ALIVE_MS = 120_000;
/** How often connections are checked for headers that are over their time. */
const CHECK_MS = 1_000;

/** How long the server goes on reading a body that it refused. */
const BODY_END_MS = 5_000;
const UNREAD_BODY_END_MS = 1_000;
/** How often idle connections are closed during the shutdown. */
const IDLE_CHECK_MS = 500;
/** The time for the last answer to reach its client. */
const LAST_ANSWER_MS = 1_000;
/** The log names a full server once in this time. */
const FULL_LOG_MS = 10_000;

const NOT_AUTHENTICATED: DenialReason = 'caller-not-authenticated';

export interface WebhookServer {
  listen(host: string | undefined, port: number): Promise<void>;
  /** Serves new connections with another certificate. Open connections stay. */
  useKeyPair(pair: KeyPair): void;
  /** Accepts the client certificates of other authorities, on new connections only: it ends the open ones. */
  useClientAuthorities(): void;
  /**
   * Answers for another `drainMs`, and closes each connection after its answer, while the cluster removes this server
   * from the Service. Then it stops listening and waits for the requests in flight, each of which is answered within
   * `answerWithinMs`. Connections without a complete request by then are dropped.
   */
  drain(drainMs: number, answerWithinMs: number): Promise<void>;
}

interface ServedConnection extends Connection {
  tls?: Socket;
  /** Between the headers of a request and the end of its answer. */
  hasRequest: boolean;
  /** The bytes that had been read when the last answer ended. */
  idleAtBytes: number;
  /** When part of a request's headers was first seen. */
  headerSince?: number | undefined;
}

/** Whether the headers of a request began to arrive, and did not end in time. */
function isHeaderLate(connection: ServedConnection): boolean {
  const { tls, hasRequest, idleAtBytes, headerSince } = connection;
  if (!tls || hasRequest || tls.bytesRead <= idleAtBytes) {
    connection.headerSince = undefined;
    return false;
  }
  connection.headerSince ??= performance.now();
  return headerSince !== undefined && performance.now() - headerSince > HEADERS_MS;
}

/** A request that is refused for its body. The message never quotes the body. */
class RefusedBody extends Error {
  readonly statusCode: 400 | 408 | 503;

  constructor(statusCode: 400 | 408 | 503, message: string) {
    super(message);
    this.statusCode = statusCode;
  }
}

/**
 * Makes the server.
 *
 * @param answer called with the parsed body of each review
 * @param answerWithinMs the time from the arrival of a review until it must be answered
 * @param problem returns why the webhook is not ready; undefined if it is ready
 * @param clients if given, reviews are accepted only from these callers; the probes from any
 * @param onRefused called after each review of another caller
 */
export function webhookServer(
  pair: KeyPair,
  answer: (body: unknown, caller: Caller) => Promise<Answer>,
  answerWithinMs: number,
  problem: () => Promise<string | undefined>,
  logger: Logger,
  clients?: Pick<ClientCertificates, 'ca' | 'problem'>,
  onRefused: () => void = () => {},
): WebhookServer {
  let draining = false;
  let lastProblem: string | undefined;
  const connections = new Connections(MAX_CONNECTIONS);
  const connectionOf = new Map<string, ServedConnection>();
  const largeBodies = new Budget(LARGE_BODIES_BYTES);
  const smallBodies = new Budget(SMALL_BODIES_BYTES);
  let served = pair;
  /** Counts the changes of the client authorities. A connection is judged by those at its start. */
  let authorities = 0;
  const authoritiesOf = new WeakMap<Socket, number>();
  let context: SecureContext;
  const tlsOptions = () => {
    const options = {
      ...served,
      minVersion: 'TLSv1.2' as const,
      // Node.js would show the new certificate, and the verdict on the old one.
      secureOptions: constants.SSL_OP_NO_RENEGOTIATION,
      // Probes have no certificate.
      ...(clients && {
        ...trust(clients.ca()),
        requestCert: true,
        rejectUnauthorized: false,
      }),
    };
    context = createSecureContext(options);
    return options;
  };
  const server: FastifyInstance = Fastify({
    https: {
      ...tlsOptions(),
      // A server of Node.js ignores allowPartialTrustChain, but not in a context that it gets from this callback. Callers
      // that send no server name are judged without it: API servers send one.
      ...(clients && {
        SNICallback: (_name: string, done: (error: null, context: SecureContext) => void) =>
          done(null, context),
      }),
      handshakeTimeout: HEADERS_MS,
      // Node counts both from the start of a new connection, which may be a spare one. The limits below are shorter.
      headersTimeout: KEEP_ALIVE_MS,
    },
    keepAliveTimeout: KEEP_ALIVE_MS,
    requestTimeout: KEEP_ALIVE_MS,
    bodyLimit: BODY_LIMIT_BYTES,
    logger: false,
    // Requests on open connections are answered during the shutdown.
    return503OnClosing: false,
  }) as unknown as FastifyInstance;

  let fullLoggedAt = Number.NEGATIVE_INFINITY;
  server.server.on('connection', (socket: Socket) => {
    const key = keyOf(socket);
    const connection: ServedConnection = {
      address: addressOf(socket),
      isAnswering: false,
      close: () => socket.destroy(),
      hasRequest: false,
      idleAtBytes: 0,
    };
    connectionOf.set(key, connection);
    socket.once('close', () => {
      connections.delete(connection);
      if (connectionOf.get(key) === connection) connectionOf.delete(key);
    });
    const closed = connections.add(connection);
    if (!closed || performance.now() - fullLoggedAt < FULL_LOG_MS) return;
    fullLoggedAt = performance.now();
    logger.warn({ address: closed.address, connections: MAX_CONNECTIONS }, 'too many connections');
  });

  server.server.on('secureConnection', (tls: Socket) => {
    authoritiesOf.set(tls, authorities);
    const connection = connectionOf.get(keyOf(tls));
    if (connection) connection.tls = tls;
  });
  setInterval(() => {
    for (const connection of connectionOf.values()) if (isHeaderLate(connection)) connection.close();
  }, CHECK_MS).unref();

  /** The most recent response on each connection, finished or not. */
  const lastResponse = new WeakMap<Socket, ServerResponse>();
  const arrivals = new WeakMap<IncomingMessage, { readonly at: number; readonly signal: AbortSignal }>();
  server.addHook('onRequest', async ({ raw, socket }, reply) => {
    const isPipelined = lastResponse.get(socket)?.writableEnded === false;
    lastResponse.set(socket, reply.raw);
    if (isPipelined) {
      // Go's client never sends a request before the answer to the last one. Each would be held in memory.
      reply.hijack();
      socket.destroy();
      return;
    }
    const ending = new AbortController();
    arrivals.set(raw, { at: performance.now(), signal: ending.signal });
    const deadline = setTimeout(() => ending.abort(), answerWithinMs);
    // A client that does not take its answer.
    const last = setTimeout(() => socket.destroy(), answerWithinMs + BODY_END_MS + LAST_ANSWER_MS);
    const connection = connectionOf.get(keyOf(socket));
    if (connection) connection.hasRequest = true;
    reply.raw.once('close', () => {
      clearTimeout(deadline);
      clearTimeout(last);
      ending.abort();
      if (!connection) return;
      connection.isAnswering = false;
      connection.hasRequest = false;
      connection.idleAtBytes = socket.bytesRead;
    });
  });
  server.addHook('preParsing', async (request, reply, payload) => {
    const { raw, socket } = request;
    const length = raw.headers['content-length'];
    if (length === undefined && raw.headers['transfer-encoding'] === undefined) return payload;
    const bytes = length === undefined ? BODY_LIMIT_BYTES : Number(length);
    // It is refused without being kept.
    if (bytes > BODY_LIMIT_BYTES) return payload;
    const budget = bytes <= SMALL_BODY_BYTES ? smallBodies : largeBodies;
    const signal = arrivals.get(raw)?.signal ?? AbortSignal.timeout(answerWithinMs);
    const giveBack = await budget.take(bytes, addressOf(socket), signal);
    if (!giveBack)
      throw new RefusedBody(503, 'the webhook is busy with other requests: try again, or find their sender');
    reply.raw.once('close', giveBack);
    if (reply.raw.closed) giveBack();
    const stalled = setTimeout(
      () => raw.emit('error', new RefusedBody(408, `the body did not arrive within ${BODY_MS / 1_000} s`)),
      BODY_MS,
    );
    for (const event of ['end', 'error', 'close']) raw.once(event, () => clearTimeout(stalled));
    return payload;
  });
  server.addHook('preHandler', async ({ socket }) => {
    const connection = connectionOf.get(keyOf(socket));
    if (connection) connection.isAnswering = true;
  });
  const isOutdated = (socket: Socket) => authoritiesOf.get(socket) !== authorities;
  server.addHook('onSend', async (request, reply) => {
    const { complete, socket } = request.raw;
    // The rest of a body that was not read may never come.
    if (draining || !complete || (clients && isOutdated(socket))) reply.header('connection', 'close');
  });
  // Fastify would accept plain text as a body.
  server.removeContentTypeParser('text/plain');
  // A Secret may have a key named __proto__. That is safe: the webhook merges no objects.
  server.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (_request: unknown, body: Buffer) => {
      if (body.length === 0) throw new RefusedBody(400, 'the body is empty');
      try {
        return parseJson(body);
      } catch (error) {
        throw new RefusedBody(
          400,
          error instanceof RangeError ? error.message : 'the body is not valid JSON',
        );
      }
    },
  );
  server.setErrorHandler(async (error: Error & { statusCode?: number }, request, reply) => {
    const status = error.statusCode ?? 500;
    // A client that is still sending its body would see a broken connection instead of the answer.
    if (status === 413) await bodyEnd(request.raw, BODY_END_MS);
    if (status === 503) await bodyEnd(request.raw, UNREAD_BODY_END_MS);
    const address = addressOf(request.socket);
    logger[status === 500 ? 'error' : 'warn']({ status, address, message: error.message }, 'request refused');
    return reply.code(status).send({
      message:
        status === 503
          ? `The webhook cannot read the request in time: ${error.message}`
          : status < 500
            ? `Send an AdmissionReview as application/json: ${error.message}`
            : 'Internal error of the webhook; its log has the cause.',
    });
  });
  server.setNotFoundHandler(async (_request, reply) =>
    reply.code(404).send({ message: `Not found. Send AdmissionReviews to POST ${WEBHOOK_PATH}.` }),
  );
  /** Refuses a caller before its body is read. */
  const onRequest = async (request: FastifyRequest, reply: FastifyReply) => {
    if (clients === undefined) return;
    const socket = request.raw.socket as TLSSocket;
    const message = isOutdated(socket)
      ? 'the client authorities have changed since the connection began'
      : clients.problem(socket);
    if (message === undefined) return;
    logger.warn(
      { status: 401, reason: NOT_AUTHENTICATED, address: addressOf(socket), message },
      'caller refused',
    );
    onRefused();
    return reply.code(401).header('connection', 'close').send({
      code: NOT_AUTHENTICATED,
      message: 'The webhook answers only API servers with an accepted client certificate: docs/callers.md.',
    });
  };
  server.post(WEBHOOK_PATH, { onRequest }, async (request, reply) => {
    const { body: review, raw, socket } = request;
    // It is not kept while the webhook waits for ECR.
    request.body = undefined;
    const arrivedAt = arrivals.get(raw)?.at ?? performance.now();
    const { status, body } = await answer(review, { address: addressOf(socket), arrivedAt });
    return reply.code(status).send(body);
  });
  server.get('/healthz', async () => ({ status: 'ok' }));
  server.get('/readyz', async (_request, reply) => {
    if (draining) return reply.code(503).send({ status: 'draining' });
    const message = await problem();
    if (message !== lastProblem) {
      if (message === undefined) logger.info('ready');
      else logger.warn({ message }, 'not ready');
      lastProblem = message;
    }
    return message === undefined ? { status: 'ok' } : reply.code(503).send({ status: 'not ready', message });
  });

  return {
    listen: (host, port) => listen(server, host, port),
    useKeyPair(next) {
      served = next;
      (server.server as unknown as TlsServer).setSecureContext(tlsOptions());
    },
    useClientAuthorities() {
      authorities += 1;
      (server.server as unknown as TlsServer).setSecureContext(tlsOptions());
      server.server.closeIdleConnections();
    },
    async drain(drainMs, answerWithinMs) {
      draining = true;
      await sleep(drainMs);
      // Node's HTTP close would also end connections whose first request is on its way. This close accepts no new
      // connection; each answer closes its own, and idle connections are closed at intervals.
      const closed = new Promise((resolve) => Server.prototype.close.call(server.server, resolve));
      const idle = setInterval(() => server.server.closeIdleConnections(), IDLE_CHECK_MS);
      const stalled = setTimeout(() => {
        connections.closeAll();
      }, answerWithinMs + LAST_ANSWER_MS);
      await closed;
      clearInterval(idle);
      clearTimeout(stalled);
    },
  };
}

/** Listens on an address; without one on all addresses, IPv4 and IPv6 if the machine has both. */
export async function listen(
  server: Pick<FastifyInstance, 'listen'>,
  host: string | undefined,
  port: number,
): Promise<void> {
  await server.listen({ port, host: host ?? '::' }).catch((error: NodeJS.ErrnoException) => {
    if (host !== undefined || error.code !== 'EAFNOSUPPORT') throw error;
    return server.listen({ port, host: '0.0.0.0' });
  });
}

/** Reads the rest of a body and discards it. */
async function bodyEnd(request: IncomingMessage, withinMs: number): Promise<void> {
  await finished(request.resume(), { signal: AbortSignal.timeout(withinMs) }).catch(() => {});
}

/** The address that a connection comes from; an IPv4 address in its own form. */
function addressOf({ remoteAddress = '' }: Socket): string {
  return remoteAddress.replace(/^::ffff:(?=\d+\.)/, '');
}

/** The same for a TCP connection and for the TLS connection in it. */
function keyOf({ remoteAddress, remotePort }: Socket): string {
  return `${remoteAddress} ${remotePort}`;
}
