// The HTTPS server: routes, limits, certificates, and an end that answers every request in flight.
import type { IncomingMessage } from 'node:http';
import { Server, type Socket } from 'node:net';
import { finished } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import Fastify, { type FastifyInstance } from 'fastify';
import type { Logger } from 'pino';
import { WEBHOOK_PATH } from '../contract/names.ts';
import type { Answer } from './admission/admission.ts';
import type { KeyPair } from './tls/tls.ts';

/** The API server takes request bodies of up to 3 MiB; a review carries an object twice, and a little around it. */
const BODY_LIMIT_BYTES = (2 * 3 + 1) * 1024 * 1024;

/** How long the rest of a body that is too large is read on. */
const BODY_END_MS = 5_000;
/** How often, at the end, connections are dropped on which nothing is being asked. */
const SILENT_MS = 500;
/** For an answer's way to whoever waits for it. */
const LAST_ANSWER_MS = 1_000;

export interface WebhookServer {
  listen(host: string | undefined, port: number): Promise<void>;
  /** Serves new connections with another certificate; those that are open go on. */
  useKeyPair(pair: KeyPair): void;
  /**
   * Goes on answering for `drainMs`, closing each connection with its answer, while the cluster takes this
   * server out of the Service; then stops listening and waits for the requests in flight, each of which is answered
   * within `answerWithinMs`. Connections that have not brought a whole request by then are dropped.
   */
  drain(drainMs: number, answerWithinMs: number): Promise<void>;
}

/**
 * Makes the server.
 *
 * @param answer gets the parsed body of each review
 * @param problem why it is not ready, if it is not
 */
export function webhookServer(
  pair: KeyPair,
  answer: (body: unknown) => Promise<Answer>,
  problem: () => Promise<string | undefined>,
  logger: Logger,
): WebhookServer {
  let draining = false;
  let said: string | undefined;
  const sockets = new Set<Socket>();
  const server: FastifyInstance = Fastify({
    https: { ...pair, minVersion: 'TLSv1.2' },
    bodyLimit: BODY_LIMIT_BYTES,
    logger: false,
    // A Secret may have a key named __proto__; nothing here merges objects.
    onProtoPoisoning: 'ignore',
    onConstructorPoisoning: 'ignore',
    // Whoever still has a connection while this server closes is answered.
    return503OnClosing: false,
  }) as unknown as FastifyInstance;

  server.server.on('connection', (socket: Socket) => {
    sockets.add(socket);
    socket.once('close', () => sockets.delete(socket));
  });
  server.addHook('onSend', async (_request, reply) => {
    if (draining) reply.header('connection', 'close');
  });
  // Fastify would take plain text for a body as well.
  server.removeContentTypeParser('text/plain');
  server.setErrorHandler(async (error: Error & { statusCode?: number }, request, reply) => {
    const status = error.statusCode ?? 500;
    // Whoever is still writing a body that is too large sees its connection break instead of the answer.
    if (status === 413) await bodyEnd(request.raw);
    logger[status < 500 ? 'warn' : 'error']({ status, message: error.message }, 'request refused');
    return reply.code(status).send({
      message:
        status < 500 ? `Send an AdmissionReview as application/json: ${error.message}` : 'internal error',
    });
  });
  server.setNotFoundHandler(async (_request, reply) =>
    reply.code(404).send({ message: `AdmissionReviews go to POST ${WEBHOOK_PATH}` }),
  );
  server.post(WEBHOOK_PATH, async (request, reply) => {
    const { status, body } = await answer(request.body);
    return reply.code(status).send(body);
  });
  server.get('/healthz', async () => ({ status: 'ok' }));
  server.get('/readyz', async (_request, reply) => {
    if (draining) return reply.code(503).send({ status: 'draining' });
    const message = await problem();
    if (message !== said) {
      if (message === undefined) logger.info('ready');
      else logger.warn({ message }, 'not ready');
      said = message;
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
      // Node's own close would also end connections whose first request is on its way. Here nobody new is let in, and
      // each answer still closes its connection; those that stay silent are ended after a while.
      const closed = new Promise((resolve) => Server.prototype.close.call(server.server, resolve));
      const silent = setInterval(() => server.server.closeIdleConnections(), SILENT_MS);
      const stalled = setTimeout(() => {
        for (const socket of sockets) socket.destroy();
      }, answerWithinMs + LAST_ANSWER_MS);
      await closed;
      clearInterval(silent);
      clearTimeout(stalled);
    },
  };
}

/** Listens on an address; on none that is given: on all, of both families where the machine has both. */
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

/** Reads on to a body's end and forgets it, for a few seconds at most. */
async function bodyEnd(request: IncomingMessage): Promise<void> {
  await finished(request.resume(), { signal: AbortSignal.timeout(BODY_END_MS) }).catch(() => {});
}
