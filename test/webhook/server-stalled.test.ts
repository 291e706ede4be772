// Clients that connect and then go silent: they must not keep the webhook from ending, nor cost others an answer.
import { type Socket, connect as tcp } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect as tls } from 'node:tls';
import { expect, test } from 'vitest';
import { WEBHOOK_PATH } from '../../contract/names.ts';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';
import { manifest, reviewOf } from './support.ts';

const TIMEOUT_S = 3;
const HEAD = `POST ${WEBHOOK_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n`;

/** A TLS connection that sends this and no more. */
function sending(text: string): (webhook: RunningWebhook) => Socket {
  return ({ port, authority }) => {
    const socket = tls({ host: '127.0.0.1', port, ca: authority.caPem, servername: 'localhost' });
    return socket.once('secureConnect', () => socket.write(text));
  };
}

test.each([
  { what: 'no handshake', open: ({ port }: RunningWebhook) => tcp(port, '127.0.0.1') },
  // What a Go client leaves behind that dialled for a request which another connection then took.
  { what: 'no request', open: sending('') },
  { what: 'half a head', open: sending(HEAD) },
  { what: 'half a body', open: sending(`${HEAD}content-length: 100\r\n\r\n{"apiVersion":`) },
])(
  'SIGTERM while a connection brings $what: what is in flight is answered, then exit 0 in time',
  async ({ open }) => {
    await using webhook = await runWebhook({ env: { TIMEOUT_SECONDS: String(TIMEOUT_S) } });
    const socket = open(webhook).on('error', () => {});
    webhook.ecr.settings.latencyMs = 500;
    const inFlight = webhook.send(WEBHOOK_PATH, JSON.stringify(reviewOf({ object: manifest() })));
    await sleep(200);
    webhook.program.signal('SIGTERM');
    expect(await inFlight).toMatchObject({ status: 200, text: expect.stringContaining('"allowed":true') });
    // The API server waits no longer for an answer; a while later the kubelet would kill the process.
    const end = await Promise.race([
      webhook.program.ended,
      sleep((TIMEOUT_S + 2) * 1_000, 'still running', { ref: false }),
    ]);
    socket.destroy();
    expect(end).toBe(0);
  },
);
