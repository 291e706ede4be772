// A published archive of programs spares a build: it is downloaded, checked against a pinned checksum, and unpacked. Where its
// host does not respond, that is known within seconds, and the caller builds.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createWriteStream, mkdirSync, rmSync } from 'node:fs';
import http, { type IncomingMessage } from 'node:http';
import https from 'node:https';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';

export interface PublishedArchive {
  readonly url: string;
  /** Checksum, hexadecimal. */
  readonly sha512: string;
  /** How many folders of the archive lie above its programs. */
  readonly depth: number;
}

/**
 * Downloads and unpacks an archive (tar, gzip). Nothing is unpacked before the checksum is right.
 *
 * @param target the folder for its programs
 * @param silentMs how long the host may send nothing: until it responds, and between two parts
 * @throws Error that says what happened with the URL
 */
export async function unpackArchive(
  { url, sha512, depth }: PublishedArchive,
  target: string,
  silentMs = 5_000,
): Promise<void> {
  mkdirSync(target, { recursive: true });
  const file = join(target, 'archive.tar.gz');
  const actual = await download(url, file, silentMs);
  if (actual !== sha512)
    throw new Error(
      `${url} has the wrong checksum: its sha512 is ${actual}, the pinned one is ${sha512}. ` +
        'Do not use this archive: it was changed after it was pinned, or on its way here',
    );
  const tar = ['-xzf', file, '-C', target, `--strip-components=${depth}`];
  const { status, stderr, error } = spawnSync('tar', tar, { encoding: 'utf8' });
  if (status !== 0) throw new Error(`tar cannot unpack ${url}: ${error?.message ?? stderr.trim()}`);
  rmSync(file);
}

/** Downloads into a file. @returns the sha512 of its content */
async function download(url: string, file: string, silentMs: number): Promise<string> {
  const hash = createHash('sha512');
  const silence = new AbortController();
  const timer = setTimeout(() => silence.abort(), silentMs);
  try {
    await pipeline(
      await open(url, silence.signal),
      async function* (parts) {
        for await (const part of parts) {
          timer.refresh();
          hash.update(part);
          yield part;
        }
      },
      createWriteStream(file),
    );
    return hash.digest('hex');
  } catch (error) {
    const { message, code } = error as NodeJS.ErrnoException;
    const reason = silence.signal.aborted ? `it sent nothing for ${silentMs / 1000} s` : message || code;
    throw new Error(`${url} cannot be downloaded: ${reason}`, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

/** Requests a URL, and follows its redirects. Not with fetch: it repeats CONNECT without end if a proxy closes the connection. */
async function open(url: string, signal: AbortSignal, redirects = 5): Promise<IncomingMessage> {
  const request = (url.startsWith('https:') ? https : http).get(url, { signal });
  const [response] = (await once(request, 'response')) as [IncomingMessage];
  const { statusCode = 0, headers } = response;
  if (statusCode === 200) return response;
  response.destroy();
  if (statusCode < 300 || statusCode >= 400 || !headers.location || redirects === 0)
    throw new Error(`it responded ${statusCode}`);
  return open(new URL(headers.location, url).href, signal, redirects - 1);
}
