// Recognises the API server by its client certificate, where the control plane is configured to send one (docs/callers.md).
import { X509Certificate } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import type { TLSSocket } from 'node:tls';
import type { Logger } from 'pino';
import { watch } from '../watch-file.ts';

export interface ClientCertificates {
  /** The authorities whose client certificates are accepted, PEM. */
  ca(): string;
  /** Why the caller on a connection is not accepted; undefined if it is. */
  problem(socket: TLSSocket): string | undefined;
  stop(): void;
}

/**
 * Reads the authorities from a file, and follows its changes until `stop`.
 *
 * @param names accepted common names, DNS names and URIs
 * @param onChange called when other authorities are accepted
 * @throws Error if the file cannot be read, or has no certificate
 */
export async function watchClientCa(
  file: string,
  names: readonly string[],
  onChange: () => void,
  logger: Logger,
): Promise<ClientCertificates> {
  let current = await readAuthorities(file);
  const stop = watch(
    () => readAuthorities(file),
    (a, b) => a === b,
    current,
    (next) => {
      current = next;
      onChange();
      logger.info('new client authorities in use');
    },
    ({ message }) => logger.error({ message }, 'client authorities not replaced'),
  );
  return { ca: () => current, problem: (socket) => callerProblem(socket, names), stop };
}

async function readAuthorities(file: string): Promise<string> {
  const text = await readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`${file} cannot be read: ${error.message}`);
  });
  const blocks = text.match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g);
  if (!blocks) throw new Error(`${file} has no PEM certificate of a client authority`);
  for (const block of blocks) {
    try {
      new X509Certificate(block);
    } catch (error) {
      throw new Error(`${file} has an invalid certificate: ${(error as Error).message}`);
    }
  }
  return blocks.join('\n');
}

function callerProblem(socket: TLSSocket, names: readonly string[]): string | undefined {
  const certificate = socket.getPeerX509Certificate();
  if (!certificate) return 'the caller sent no client certificate';
  if (!socket.authorized)
    return `the client certificate is not accepted: ${String(socket.authorizationError)}`;
  const given = namesOf(certificate);
  return given.some((name) => names.includes(name))
    ? undefined
    : `the client certificate is for ${given.join(', ') || 'no name'}, which is none of the accepted names`;
}

/** A name in a subject or a list of alternative names, as Node prints both; names with special characters are in quotes. */
const SUBJECT_CN = /^CN=(.*)$/gm;
const ALTERNATIVE = /(?:^|, )(DNS|URI):("(?:[^"\\]|\\.)*"|[^,]*)/g;

/** The common name, DNS names and URIs of a certificate. */
function namesOf({ subject, subjectAltName = '' }: X509Certificate): string[] {
  const common = [...(subject ?? '').matchAll(SUBJECT_CN)].map(([, name = '']) => name);
  const others = [...subjectAltName.matchAll(ALTERNATIVE)].map(([, , name = '']) =>
    name.startsWith('"') ? String(JSON.parse(name)) : name,
  );
  return [...common, ...others];
}
