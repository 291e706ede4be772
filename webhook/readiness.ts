// Whether the API server can call the webhook: it dials its own port, as the API server will, by the Service's name.
import type { X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';

const WITHIN_MS = 1_000;

/** What is dialled, and what is to be found there. */
export interface OwnPort {
  readonly host: string;
  readonly port: number;
  /** The DNS name that the API server calls. */
  readonly serverName: string | undefined;
  /** What the API servers trust, PEM; undefined where the webhook does not know it. */
  readonly trusted: () => string | undefined;
}

/** Why the API server could not call this webhook; undefined where it could. Those who ask at once share an answer. */
export function readiness(port: OwnPort): () => Promise<string | undefined> {
  let asked: Promise<string | undefined> | undefined;
  return () => {
    asked ??= problem(port).finally(() => {
      asked = undefined;
    });
    return asked;
  };
}

async function problem({ host, port, serverName, trusted }: OwnPort): Promise<string | undefined> {
  const ca = trusted();
  if (ca === '')
    return 'the webhook configuration has no caBundle yet, is not there, or is of another tls.mode';
  return new Promise((resolve) => {
    const socket: TLSSocket = connect({
      host,
      port,
      ...(serverName !== undefined && { servername: serverName }),
      // The chain is for API servers to judge; where they trust what is known, it is judged here as well.
      ...(ca === undefined ? { rejectUnauthorized: false } : { ca }),
    });
    const done = (answer: string | undefined) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(WITHIN_MS, () => done('its own port does not answer'));
    socket.once('error', ({ message }) => done(`its own port: ${message}`));
    socket.once('secureConnect', () => done(unservable(socket.getPeerX509Certificate(), serverName)));
  });
}

function unservable(served: X509Certificate | undefined, serverName: string | undefined): string | undefined {
  if (!served) return 'no certificate is served';
  if (served.validToDate.getTime() <= Date.now())
    return `the certificate expired at ${served.validToDate.toISOString()}`;
  if (serverName !== undefined && served.checkHost(serverName) === undefined)
    return `the certificate is not for ${serverName}, but for ${served.subjectAltName ?? 'nothing'}`;
  return undefined;
}
