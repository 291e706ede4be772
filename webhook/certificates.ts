// The serving certificate: read from files, and read again when the kubelet has put new ones in their place.
import { readFile } from 'node:fs/promises';
import { createSecureContext } from 'node:tls';

export interface KeyPair {
  readonly cert: string;
  readonly key: string;
}

/** The kubelet takes about a minute to bring a changed Secret to its files; a few seconds more do not matter. */
const LOOK_AGAIN_MS = 5_000;

/** Reads a certificate and its key. @throws Error that names the file, or says that the two do not fit. */
export async function readKeyPair(certFile: string, keyFile: string): Promise<KeyPair> {
  const [cert, key] = await Promise.all([read(certFile), read(keyFile)]);
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

function read(file: string): Promise<string> {
  return readFile(file, 'utf8').catch((error: Error) => {
    throw new Error(`${file} cannot be read: ${error.message}`);
  });
}

/**
 * Calls `onChange` with each new, usable key pair. Files that do not fit each other (a change half way through)
 * change nothing; `onError` hears of them once.
 *
 * @returns what ends the watch
 */
export function watchKeyPair(
  certFile: string,
  keyFile: string,
  first: KeyPair,
  onChange: (pair: KeyPair) => void,
  onError: (error: Error) => void,
): () => void {
  let current = first;
  let said = '';
  const timer = setInterval(async () => {
    try {
      const pair = await readKeyPair(certFile, keyFile);
      said = '';
      if (pair.cert === current.cert && pair.key === current.key) return;
      current = pair;
      onChange(pair);
    } catch (error) {
      if (said !== (error as Error).message) onError(error as Error);
      said = (error as Error).message;
    }
  }, LOOK_AGAIN_MS);
  return () => clearInterval(timer);
}
