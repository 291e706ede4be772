// Callers that try to starve the webhook bundle: with connections, with bodies that do not arrive, with much JSON. Its
// memory stays below the chart's limit, and other callers are answered.
import { readFileSync } from 'node:fs';
import { createConnection } from 'node:net';
import { connect, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { SECRET_KEY, WEBHOOK_PATH } from '../../contract/names.ts';
import { ask } from './ask.ts';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';
import { encode, manifest, reviewOf } from './support.ts';

const MIB = 1024 * 1024;
const TIMEOUT_S = 10;
/** The API server keeps idle connections for so long. */
const API_SERVER_IDLE_S = 90;
const VALUES = new URL('../../webhook/chart/values.yaml', import.meta.url);
const LIMIT_MIB = Number.parseInt(parse(readFileSync(VALUES, 'utf8')).resources.limits.memory, 10);
const ATTACKER = '127.0.0.66';

/** The most memory that a process has had, in MiB. */
const peakMib = ({ program }: RunningWebhook) => {
  const [, kib] = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${program.pid}/status`, 'utf8')) ?? [];
  return Number(kib) / 1024;
};

interface Raw {
  readonly socket: TLSSocket;
  /** What the webhook has answered. */
  answer(): string;
  /** Resolves when the connection is closed. */
  readonly closed: Promise<void>;
}

const opened: Raw[] = [];

/** A TLS connection from an address, which sends this and then nothing. */
async function open(
  { port, authority }: RunningWebhook,
  localAddress: string,
  ...parts: (string | Buffer)[]
): Promise<Raw> {
  const tcp = createConnection({ host: '127.0.0.1', port, localAddress });
  const socket = connect({ socket: tcp, ca: authority.caPem, servername: 'localhost' });
  let answer = '';
  socket.on('data', (chunk: Buffer) => {
    answer += chunk.toString();
  });
  socket.on('error', () => {});
  tcp.on('error', () => {});
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  const raw = { socket, answer: () => answer, closed };
  opened.push(raw);
  await Promise.race([new Promise((resolve) => socket.once('secureConnect', resolve)), closed]);
  for (const part of parts) socket.write(part);
  return raw;
}

const head = (length: number) =>
  `POST ${WEBHOOK_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\n\r\n`;
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);
const statusOf = ({ answer }: Raw) => /^HTTP\/1\.1 (\d+)/.exec(answer())?.[1];

/** A review with other entries of so many bytes. */
const largeReview = (bytes: number) =>
  reviewOf({ object: { ...manifest(), data: { [SECRET_KEY]: encode(largeConfig(bytes)) } } });
const largeConfig = (bytes: number) =>
  JSON.stringify({ auths: { 'registry.example.com': { auth: 'x'.repeat(bytes) } } });

afterAll(() => {
  for (const { socket } of opened) socket.destroy();
});

describe('80 connections that stall at 6.9 of 7 MiB', () => {
  let webhook: RunningWebhook;
  let attack: Raw[];
  beforeAll(async () => {
    webhook = await runWebhook({ env: { TIMEOUT_SECONDS: String(TIMEOUT_S) } });
    const body = Buffer.alloc(6.9 * MIB, ' ');
    attack = [];
    // One after another: a busy machine would not finish 80 handshakes at once, beside the bodies, in time.
    for (const _ of numbers(80)) attack.push(await open(webhook, ATTACKER, head(7 * MIB), body));
  });
  afterAll(() => webhook?.[Symbol.asyncDispose]());

  test('other callers are answered, with small bodies and with large ones', async () => {
    const small = ask(webhook, { object: manifest() });
    const large = webhook.send(WEBHOOK_PATH, JSON.stringify(largeReview(700_000)));
    expect((await small).response).toMatchObject({ allowed: true });
    const { status, text } = await large;
    expect([status, JSON.parse(text).response.allowed], text).toEqual([200, true]);
    // Its body waited for a part of the attack to time out, and the rest still waits.
    expect(attack.some((one) => statusOf(one) === undefined)).toBe(true);
    expect((await webhook.send('/readyz', undefined, { method: 'GET' })).status).toBe(200);
  });

  test('each is refused with 408 or, if its turn did not come in time, with 503', async () => {
    const refused = () =>
      webhook.program
        .log()
        .trim()
        .split('\n')
        .map((line) => JSON.parse(line))
        .filter(({ msg }) => msg === 'request refused');
    await expect.poll(refused, { timeout: 90_000 }).toHaveLength(80);
    await Promise.all(attack.map(({ closed }) => closed));
    expect(new Set(refused().map(({ address }) => address))).toEqual(new Set([ATTACKER]));
    expect(new Set(refused().map(({ status }) => status))).toEqual(new Set([408, 503]));
  });

  test('the memory stays below the limit of the chart', () => {
    expect(peakMib(webhook)).toBeLessThan(LIMIT_MIB * 0.75);
  });
});

describe('a single webhook', () => {
  let webhook: RunningWebhook;
  beforeAll(async () => {
    webhook = await runWebhook({ env: { TIMEOUT_SECONDS: String(TIMEOUT_S) } });
  });
  afterAll(() => webhook?.[Symbol.asyncDispose]());

  test('logs the address of the caller with each admission and each refusal', async () => {
    const body = JSON.stringify(reviewOf({ object: manifest() }));
    const good = await open(webhook, '127.0.0.21', head(body.length), body);
    const bad = await open(webhook, '127.0.0.22', head(4), 'hunt');
    await expect.poll(() => [statusOf(good), statusOf(bad)]).toEqual(['200', '400']);
    await expect.poll(() => webhook.program.log()).toMatch(/"address":"127\.0\.0\.21".*"msg":"admission"/);
    await expect
      .poll(() => webhook.program.log())
      .toMatch(/"address":"127\.0\.0\.22".*"msg":"request refused"/);
    // The parser's own message would quote the body.
    expect(webhook.program.log()).not.toContain('hunt');
  });

  test('keeps an idle connection for longer than the API server does', async () => {
    const answered = await open(webhook, '127.0.0.1', 'GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n');
    await expect.poll(() => statusOf(answered)).toBe('200');
    const [, seconds] = /^keep-alive: timeout=(\d+)/im.exec(answered.answer()) ?? [];
    expect(Number(seconds)).toBeGreaterThan(API_SERVER_IDLE_S);
  });

  test('closes a connection whose body it does not read', async () => {
    const lost = await open(webhook, '127.0.0.1', head(100).replace(WEBHOOK_PATH, '/lost'), '{');
    const plain = await open(webhook, '127.0.0.1', head(100).replace('application/json', 'text/plain'), '{');
    await Promise.all([lost.closed, plain.closed]);
    expect(statusOf(plain)).toBe('415');
  });

  test.each([
    { what: 'no handshake', start: undefined },
    { what: 'half a head', start: `POST ${WEBHOOK_PATH} HTTP/1.1\r\nhost: localhost\r\n` },
  ])('closes a connection that brings $what', async ({ start }) => {
    if (start !== undefined) return (await open(webhook, '127.0.0.1', start)).closed;
    const socket = createConnection({ host: '127.0.0.1', port: webhook.port }).on('error', () => {});
    await new Promise((resolve) => socket.resume().once('close', resolve));
  });

  test('closes a connection that sends requests before the answer to an earlier one', async () => {
    webhook.ecr.settings.latencyMs = 1_000;
    const body = JSON.stringify(reviewOf({ object: manifest() }));
    const raw = await open(
      webhook,
      '127.0.0.1',
      numbers(100)
        .map(() => head(body.length) + body)
        .join(''),
    );
    await raw.closed;
    expect(raw.answer().match(/HTTP\/1\.1 /g) ?? []).toHaveLength(0);
    webhook.ecr.settings.latencyMs = 0;
  });

  test.each([
    { what: 'objects', part: '{},' },
    { what: 'lists', part: '[],' },
    { what: 'numbers', part: '0,' },
  ])('refuses 7 MiB of small $what', async ({ part }) => {
    const text = `{"x":[${part.repeat((6.9 * MIB) / part.length)}0]}`;
    const answers = await Promise.all(numbers(4).map(() => webhook.send(WEBHOOK_PATH, text)));
    for (const { status, text: answer } of answers)
      expect([status, JSON.parse(answer).message]).toEqual([400, expect.stringContaining('values')]);
  });

  test("does not serve more than 50 connections on the metrics' port", async () => {
    const port = Number(new URL(webhook.metricsUrl).port);
    const sockets = numbers(60).map(() =>
      createConnection({ host: '127.0.0.1', port }).on('error', () => {}),
    );
    let closed = 0;
    for (const socket of sockets) socket.once('close', () => closed++);
    await expect.poll(() => closed).toBeGreaterThanOrEqual(10);
    for (const socket of sockets) socket.destroy();
    await expect.poll(() => webhook.metrics().catch(() => '')).toContain('ecr_anywhere_policy_valid');
  });

  test('answers a new caller while 700 connections idle, and probes stay good', async () => {
    const idle: Raw[] = [];
    for (const _ of numbers(35))
      idle.push(...(await Promise.all(numbers(20).map(() => open(webhook, ATTACKER)))));
    const over = webhook.client();
    expect((await ask(webhook, { object: manifest() }, over)).response).toMatchObject({ allowed: true });
    expect((await webhook.send('/readyz', undefined, { method: 'GET', over: webhook.client() })).status).toBe(
      200,
    );
    await expect
      .poll(() => webhook.program.log())
      .toMatch(/"address":"127\.0\.0\.66".*"msg":"too many connections"/);
    for (const { socket } of idle) socket.destroy();
  });

  test('has used less memory than the limit of the chart', () => {
    expect(peakMib(webhook)).toBeLessThan(LIMIT_MIB * 0.75);
  });
});
