// The HTTPS server: routes, limits, certificates, and a shutdown that answers every request in flight.
import type { IncomingMessage } from 'node:http';
import { Server, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import Fastify, { type FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { WEBHOOK_PATH } from '../contract/names.ts';
import type { Answer } from './admission/admission.ts';
import type { KeyPair } from './tls/tls.ts';

/** The API server accepts bodies of up to 3 MiB; a review contains an object twice, and some fields. */
const BODY_LIMIT_BYTES = (2 * 3 + 1) * 1024 * 1024;

/** How long the server goes on reading a body that is too large. */
const BODY_END_MS = 5_000;
/** How often idle connections are closed during the shutdown. */
const IDLE_CHECK_MS = 500;
/** The time for the last answer to reach its client. */
const LAST_ANSWER_MS = 1_000;

export interface WebhookServer {
  listen(host: string | undefined, port: number): Promise<void>;
  /** Serves new connections with another certificate. Open connections stay. */
  useKeyPair(pair: KeyPair): void;
  /**
   * Answers for another `drainMs`, and closes each connection after its answer, while the cluster removes this server
   * from the Service. Then it stops listening and waits for the requests in flight, each of which is answered within
   * `answerWithinMs`. Connections without a complete request by then are dropped.
   */
  drain(drainMs: number, answerWithinMs: number): Promise<void>;
}

/**
 * Makes the server.
 *
 * @param answer called with the parsed body of each review
 * @param problem returns why the webhook is not ready; undefined if it is ready
 */
export function webhookServer(
  pair: KeyPair,
  answer: (body: unknown) => Promise<Answer>,
  problem: () => Promise<string | undefined>,
  logger: Logger,
): WebhookServer {
  let draining = false;
  let lastProblem: string | undefined;
  const sockets = new Set<Socket>();
  const server: FastifyInstance = Fastify({
    https: { ...pair, minVersion: 'TLSv1.2' },
    bodyLimit: BODY_LIMIT_BYTES,
    logger: false,
    // A Secret may have a key named __proto__. That is safe: the webhook merges no objects.
    onProtoPoisoning: 'ignore',
    onConstructorPoisoning: 'ignore',
    // Requests on open connections are answered during the shutdown.
    return503OnClosing: false,
  }) as unknown as FastifyInstance;

  server.server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.addHook('onSend', async (_request, reply) => {
    if (draining) reply.header('connection', 'close');
  });
  // Fastify would accept plain text as a body.
  server.removeContentTypeParser('text/plain');
  server.setErrorHandler(async (error: Error & { statusCode?: number }, request, reply) => {
    const status = error.statusCode ?? 500;
    // A client that is still sending a body that is too large would see a broken connection instead of the answer.
    if (status === 413) await bodyEnd(request.raw);
    logger[status < 500 ? 'warn' : 'error']({ status, message: error.message }, 'request refused');
    return reply.code(status).send({
      message:
        status < 500
          ? `Send an AdmissionReview as application/json: ${error.message}`
          : 'Internal error of the webhook; its log has the cause.',
    });
  });
  server.setNotFoundHandler(async (_request, reply) =>
    reply.code(404).send({ message: `Not found. Send AdmissionReviews to POST ${WEBHOOK_PATH}.` }),
  );
  server.post(WEBHOOK_PATH, async (request, reply) => {
    const { status, body } = await answer(request.body);
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
      (server.server as unknown as import('node:tls').Server).setSecureContext({
        ...next,
        minVersion: 'TLSv1.2',
      });
    },
    async drain(drainMs, answerWithinMs) {
      draining = true;
      await sleep(drainMs);
      // Node's HTTP close would also end connections whose first request is on its way. This close accepts no new
      // connection; each answer closes its own, and idle connections are closed at intervals.
      const closed = new Promise((resolve) => Server.prototype.close.call(server.server, resolve));
      const idle = setInterval(() => server.server.closeIdleConnections(), IDLE_CHECK_MS);
      const stalled = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
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

/** Reads the rest of a body and discards it, for a few seconds at most. */
async function bodyEnd(request: IncomingMessage): Promise<void> {
  await finished(request.resume(), { signal: AbortSignal.timeout(BODY_END_MS) }).catch(() => {});
}
