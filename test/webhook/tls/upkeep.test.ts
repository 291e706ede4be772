// A watch that ends in any way begins again, and every change is checked. The server sends what an API server sends in rare
// cases, or what only a broken one or a proxy sends. watch.test.ts has a real API server.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Logger, pino } from 'pino';
import { describe, type TestContext, test } from 'vitest';
import { OwnObjects } from '../../../webhook/tls/objects.ts';
import { keepUp } from '../../../webhook/tls/upkeep.ts';
import { type ApiServer, json, type Response, refuse, startApiServer } from '../../functions/api-server.ts';

const POLL = { timeout: 30_000, interval: 20 };
const SECRET = '/api/v1/namespaces/ns/secrets/mine';
/** A canary: what a server sends may be a key. */
const KEY = 'canary';

const event = (type: string, resourceVersion: string) =>
  `${JSON.stringify({ type, object: { kind: 'PartialObjectMetadata', metadata: { resourceVersion } } })}\n`;
const stream = (response: Response, text = '') => response.writeHead(200).write(text);

interface Running {
  readonly server: ApiServer;
  /** The directory of the ServiceAccount's token and CA. */
  readonly dir: string;
  /** The response to the latest watch. */
  readonly response: () => Response | undefined;
  readonly objects: OwnObjects;
  /** The number of checks. */
  readonly checks: () => number;
  /** The log lines so far. */
  readonly log: () => string;
}

/** Keeps up the Secret of a server. @param onWatch answers a watch; the first one has the number 1 */
async function start(
  { onTestFinished }: TestContext,
  onWatch: (response: Response, number: number, drop: () => void) => void = (response) => stream(response),
  { watchIdleMs = 60_000, isDue = (): boolean => false } = {},
): Promise<Running> {
  const stack = new AsyncDisposableStack();
  onTestFinished(() => stack.disposeAsync());
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-upkeep-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  let watches = 0;
  let latest: Response | undefined;
  const server = stack.use(
    await startApiServer((request, response) => {
      if (!request.query.has('watch')) return json(response, { metadata: { resourceVersion: '7' } });
      watches += 1;
      latest = response;
      onWatch(response, watches, () => request.drop());
    }),
  );
  await writeFile(join(dir, 'token'), 'first');
  await writeFile(join(dir, 'ca.crt'), server.caPem);
  const objects = new OwnObjects({
    server: server.url,
    serviceAccountDir: dir,
    namespace: 'ns',
    secret: 'mine',
    configuration: '',
    webhook: '',
    watchIdleMs,
  });
  let log = '';
  const logger: Logger = pino(
    { base: null },
    {
      write(line: string) {
        log += line;
      },
    },
  );
  let checks = 0;
  const ending = new AbortController();
  const check = async () => {
    checks += 1;
  };
  const keeping = keepUp({ check, isDue, watches: [objects.watchSecret] }, ending.signal, logger);
  stack.defer(async () => {
    ending.abort();
    await keeping;
    await objects.close();
  });
  return { server, dir, response: () => latest, objects, checks: () => checks, log: () => log };
}

const watchesOf = ({ requests }: ApiServer) => requests.filter(({ query }) => query.has('watch'));

describe.concurrent('a watch', () => {
  test('selects one object, asks for its metadata only, and has the current token', async (context) => {
    const { expect } = context;
    const { server, dir } = await start(context, (response, number) => {
      if (number === 1) response.writeHead(200).end();
      else stream(response);
    });
    await expect.poll(() => watchesOf(server).length, POLL).toBe(1);
    await writeFile(join(dir, 'token'), 'second\n');
    await expect.poll(() => watchesOf(server).length, POLL).toBe(2);
    const [first, second] = watchesOf(server);
    expect(first?.path).toBe('/api/v1/namespaces/ns/secrets');
    expect(Object.fromEntries(first?.query ?? [])).toEqual({
      watch: 'true',
      fieldSelector: 'metadata.name=mine',
      resourceVersion: '0',
      allowWatchBookmarks: 'true',
      timeoutSeconds: expect.stringMatching(/^\d{3}$/),
    });
    expect(first?.headers.accept).toContain('as=PartialObjectMetadata');
    expect(second?.headers.authorization).toBe('Bearer second');
  });

  test.for<{ what: string; answer: (response: Response, drop: () => void) => void; watchIdleMs?: number }>([
    { what: 'ends', answer: (response) => response.writeHead(200).end() },
    {
      what: 'ends with an expired resource version',
      answer: (response) => {
        const object = { kind: 'Status', message: 'too old resource version', reason: 'Expired', code: 410 };
        stream(response, `${JSON.stringify({ type: 'ERROR', object })}\n`);
      },
    },
    { what: 'is refused with 410', answer: (response) => refuse(response, 410, 'too old') },
    { what: 'is refused with 429', answer: (response) => refuse(response, 429, 'storage is initializing') },
    { what: 'is answered by a proxy', answer: (response) => response.writeHead(502).end('<html>') },
    { what: 'sends a line that is not JSON', answer: (response) => stream(response, `{"${KEY}\n`) },
    { what: 'sends JSON that is not an event', answer: (response) => stream(response, `["${KEY}"]\n`) },
    { what: 'sends a line without an end', answer: (response) => stream(response, KEY.repeat(1_000_000)) },
    { what: 'breaks off', answer: (_, drop) => drop() },
    {
      what: 'breaks off in a line',
      answer: (response, drop) => {
        stream(response, event('MODIFIED', '8').slice(0, 20));
        setImmediate(drop);
      },
    },
    {
      what: 'falls silent',
      answer: (response) => stream(response, event('BOOKMARK', '8')),
      watchIdleMs: 200,
    },
  ])(
    'that $what begins again, and no change is missed',
    async ({ answer, watchIdleMs = 60_000 }, context) => {
      const { expect } = context;
      const onWatch = (response: Response, number: number, drop: () => void) => {
        if (number === 1) answer(response, drop);
        else stream(response);
      };
      const { server, response, checks, log } = await start(context, onWatch, { watchIdleMs });
      await expect.poll(() => watchesOf(server).length, POLL).toBeGreaterThan(1);
      // The beginning of a watch is a reason for a check.
      await expect.poll(checks, POLL).toBeGreaterThan(0);
      const before = checks();
      response()?.write(event('MODIFIED', '9'));
      await expect.poll(checks, POLL).toBeGreaterThan(before);
      expect(log()).not.toContain(KEY);
    },
  );

  test('is not affected by characters and lines that arrive in parts', async (context) => {
    const { expect } = context;
    const { checks, response, server } = await start(context);
    await expect.poll(checks, POLL).toBe(1);
    for (const byte of Buffer.from(event('MODIFIED', 'é').repeat(2))) response()?.write(Uint8Array.of(byte));
    await expect.poll(checks, POLL).toBe(2);
    expect(watchesOf(server)).toHaveLength(1);
  });

  test('that fails repeatedly is logged once, and has the object read each time', async (context) => {
    const { expect } = context;
    const { server, checks, log } = await start(context, (response) =>
      refuse(response, 403, 'forbidden: watch'),
    );
    await expect.poll(() => watchesOf(server).length, POLL).toBeGreaterThan(2);
    await expect.poll(checks, POLL).toBeGreaterThan(2);
    const lines = log().trim().split('\n');
    expect(lines).toHaveLength(1);
    expect(JSON.parse(lines[0] ?? '')).toMatchObject({
      msg: 'watch failed',
      message: `WATCH ${SECRET}: 403: forbidden: watch`,
    });
  });
});

describe.concurrent('a check', () => {
  test('follows each change, except one that the webhook has read already', async (context) => {
    const { expect } = context;
    const { checks, response, objects } = await start(context);
    await expect.poll(checks, POLL).toBe(1);
    await objects.secret();
    for (const known of [event('ADDED', '7'), event('MODIFIED', '7'), event('BOOKMARK', '8')])
      response()?.write(known);
    response()?.write(event('MODIFIED', '9'));
    await expect.poll(checks, POLL).toBe(2);
    response()?.write(event('DELETED', '7'));
    await expect.poll(checks, POLL).toBe(3);
  });

  test('covers all changes that happened before it', async (context) => {
    const { expect } = context;
    const { checks, response } = await start(context);
    await expect.poll(checks, POLL).toBe(1);
    for (let version = 10; version < 1_000; version += 1)
      response()?.write(event('MODIFIED', String(version)));
    await expect.poll(checks, POLL).toBeGreaterThan(1);
    const before = checks();
    response()?.write(event('MODIFIED', '1000'));
    await expect.poll(checks, POLL).toBeGreaterThan(before);
    expect(checks()).toBeLessThan(10);
  });

  test('follows the clock without a change', async (context) => {
    const { expect } = context;
    let isDue = false;
    const { checks } = await start(context, undefined, { isDue: () => isDue });
    await expect.poll(checks, POLL).toBe(1);
    isDue = true;
    await expect.poll(checks, POLL).toBe(2);
  });
});
