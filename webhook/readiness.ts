// The readiness check: the webhook has a policy, and connects to its own port as the API server does, by the Service's
// DNS name.
import type { X509Certificate } from 'node:crypto';
import { connect, type TLSSocket } from 'node:tls';
import { trust } from '../lib/kubernetes/trust.ts';
import type { Policy } from './admission/policy.ts';

const WITHIN_MS = 1_000;

/** The port to connect to, and what must be served there. */
export interface OwnPort {
  readonly host: string;
  readonly port: number;
  /** The DNS name that the API server calls. */
  readonly serverName: string | undefined;
  /** The CA certificates that the API server trusts, PEM; undefined if the webhook does not know them. */
  readonly trusted: () => string | undefined;
}

/**
 * Returns why the API server should not call this webhook; undefined if it should. Concurrent calls share one check.
 *
 * @param policy returns the policy in use
 */
export function readiness(
  policy: () => Pick<Policy, 'isInvalid'>,
  port: OwnPort,
): () => Promise<string | undefined> {
  let current: Promise<string | undefined> | undefined;
  return async () => {
    // Every pod can read the answer, and the problems name roles and namespaces: only the log has them.
    if (policy().isInvalid)
      return 'the registry policy is invalid: the log line "no policy in use" names every problem';
    current ??= problem(port).finally(() => {
      current = undefined;
    });
    return current;
  };
}

async function problem({ host, port, serverName, trusted }: OwnPort): Promise<string | undefined> {
  const ca = trusted();
  if (ca === '')
    return 'the MutatingWebhookConfiguration is missing, has no caBundle yet, or belongs to another tls.mode';
  return new Promise((resolve) => {
    const socket: TLSSocket = connect({
      host,
      port,
      ...(serverName !== undefined && { servername: serverName }),
      // Without a known caBundle only the API server can verify the chain.
      ...(ca === undefined ? { rejectUnauthorized: false } : trust(ca)),
    });
    const done = (answer: string | undefined) => {
      socket.destroy();
      resolve(answer);
    };
    socket.setTimeout(WITHIN_MS, () => done(`the webhook's own port ${port} does not answer`));
    socket.once('error', ({ message }) =>
      done(`the webhook cannot connect to its own port ${port}: ${message}`),
    );
    socket.once('secureConnect', () => done(unservable(socket.getPeerX509Certificate(), serverName)));
  });
}

function unservable(served: X509Certificate | undefined, serverName: string | undefined): string | undefined {
  if (!served) return 'the webhook serves no certificate';
  if (served.validToDate.getTime() <= Date.now())
    return `the certificate expired at ${served.validToDate.toISOString()}`;
  if (serverName !== undefined && served.checkHost(serverName) === undefined)
    return `the certificate is not for ${serverName}, but for ${served.subjectAltName ?? 'nothing'}`;
  return undefined;
}
