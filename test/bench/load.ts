// Generates load on one loopback HTTPS address for a bounded time; measures throughput and latency.
import { Pool } from 'undici';

export interface Load {
  readonly perSecond: number;
  /** Milliseconds. */
  readonly p99: number;
}

/** Posts the same body over `connections` keep-alive connections, one request at a time each, for `seconds`. */
export async function load(
  { origin, ca, path }: { origin: string; ca: string; path: string },
  body: string,
  connections: number,
  seconds: number,
): Promise<Load> {
  const pool = new Pool(origin, { connections, allowH2: false, connect: { ca, servername: 'localhost' } });
  const took: number[] = [];
  const startedAt = performance.now();
  const until = startedAt + seconds * 1000;
  const client = async () => {
    while (performance.now() < until) {
      const sentAt = performance.now();
      const headers = { 'content-type': 'application/json' };
      const answer = await pool.request({ method: 'POST', path, body, headers });
      if (answer.statusCode !== 200)
        throw new Error(`HTTP ${answer.statusCode}: ${await answer.body.text()}`);
      await answer.body.dump();
      took.push(performance.now() - sentAt);
    }
  };
  await Promise.all(Array.from({ length: connections }, client));
  const elapsed = (performance.now() - startedAt) / 1000;
  await pool.close();
  took.sort((a, b) => a - b);
  return { perSecond: took.length / elapsed, p99: took[Math.floor(took.length * 0.99)] ?? Number.NaN };
}

/** Posts one request. */
export async function post(
  { origin, ca, path }: { origin: string; ca: string; path: string },
  body: string,
): Promise<string> {
  const pool = new Pool(origin, { allowH2: false, connect: { ca, servername: 'localhost' } });
  const headers = { 'content-type': 'application/json' };
  const text = await (await pool.request({ method: 'POST', path, body, headers })).body.text();
  await pool.close();
  return text;
}
