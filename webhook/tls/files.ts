// tls.mode provided and cert-manager: serves the certificate of mounted files, and follows their renewal.
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';
import type { Logger } from 'pino';
import { watch } from '../watch-file.ts';
import type { KeyPair, Tls } from './tls.ts';

/**
 * Reads the files, and watches them until `stop`.
 *
 * @param onPair called with each new certificate
 * @throws Error if a file cannot be read, or the two are not a certificate and its key
 */
export async function watchTlsFiles(
  certFile: string,
  keyFile: string,
  onPair: (pair: KeyPair) => void,
  logger: Logger,
): Promise<Tls> {
  let isFailing = false;
  const read = async () => {
    const next = await readKeyPair(certFile, keyFile);
    isFailing = false;
    return next;
  };
  let pair = await read();
  const stop = watch(
    read,
    (a, b) => a.cert === b.cert && a.key === b.key,
    pair,
    (next) => {
      pair = next;
      onPair(next);
    },
    ({ message }) => {
      isFailing = true;
      logger.error({ message }, 'serving certificate not replaced');
    },
  );
  return { pair: () => pair, trusted: () => undefined, isFailing: () => isFailing, stop: async () => stop() };
}

async function readKeyPair(certFile: string, keyFile: string): Promise<KeyPair> {
  const [cert, key] = await Promise.all([readText(certFile), readText(keyFile)]);
  const pair = { cert, key };
  try {
    createSecureContext(pair);
  } catch (error) {
    throw new Error(
      `${certFile} and ${keyFile} are not a certificate and its key: ${(error as Error).message}`,
    );
  }
  return pair;
}

function readText(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`${file} cannot be read: ${error.message}`);
  });
}
