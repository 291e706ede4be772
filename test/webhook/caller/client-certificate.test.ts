// Client certificates of callers, against the running bundle: which callers get an answer, and what happens when the accepted
// authorities change.
import { once } from 'node:events';
import { rename, writeFile } from 'node:fs/promises';
import { Agent, request } from 'node:https';
import { join } from 'node:path';
import { connect, createSecureContext, type SecureVersion, type TLSSocket } from 'node:tls';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { WEBHOOK_PATH } from '../../../contract/names.ts';
import { type Authority, createAuthority, type KeyPair } from '../../bed/certificates.ts';
import { type CallAnswer, send } from '../caller.ts';
import { type RunningWebhook, runWebhook } from '../running-webhook.ts';
import { manifest, reviewOf } from '../support.ts';

const NAME = 'kube-apiserver';
const URI = 'spiffe://example.com/api-server';
const REASON = 'caller-not-authenticated';

let stack: AsyncDisposableStack;
let webhook: RunningWebhook;
let callers: Authority;
/** An authority that the webhook does not know, and one below it that it accepts. */
let root: Authority;
let issuing: Authority;
let caFile: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [callers, root] = await Promise.all([createAuthority('callers'), createAuthority('root')]);
  issuing = await root.intermediate('issuing');
  webhook = stack.use(
    await runWebhook({
      env: async (_ecr, dir) => {
        caFile = join(dir, 'client-ca.crt');
        await writeFile(caFile, `${callers.caPem}\n${issuing.caPem}`);
        return { CLIENT_CA_FILE: caFile, CLIENT_NAMES: `${NAME},${URI},*` };
      },
    }),
  );
});
afterAll(() => stack.disposeAsync());

/** Sends a request with a client certificate, or without one. */
function sendAs(
  pair: KeyPair | undefined,
  { path = WEBHOOK_PATH, agent = false as Agent | false } = {},
): Promise<CallAnswer> {
  const body = path === WEBHOOK_PATH ? JSON.stringify(reviewOf({ object: manifest() })) : undefined;
  const options = {
    ...{ method: body ? 'POST' : 'GET', agent, ca: webhook.authority.caPem, servername: 'localhost' },
    ...(pair && { cert: pair.certPem, key: pair.keyPem }),
    headers: { 'content-type': 'application/json' },
  };
  return send(`https://127.0.0.1:${webhook.port}${path}`, options, body);
}

describe('a caller gets an answer', () => {
  test.each([
    { title: 'with an accepted common name', pair: () => callers.client(NAME, []) },
    { title: 'with an accepted URI', pair: () => callers.client('x', [], ['https://example.com', URI]) },
    {
      title: 'with a certificate of an intermediate authority that it sends along',
      pair: async () => {
        const intermediate = await callers.intermediate('between');
        const { certPem, keyPem } = await intermediate.client(NAME, []);
        return { certPem: `${certPem}\n${intermediate.caPem}`, keyPem };
      },
    },
    {
      title: 'with a certificate of an accepted intermediate authority, whose root is not accepted',
      pair: () => issuing.client(NAME, []),
    },
    {
      title: 'with such a certificate that it sends with the whole chain',
      pair: async () => {
        const { certPem, keyPem } = await issuing.client(NAME, []);
        return { certPem: `${certPem}\n${issuing.caPem}\n${root.caPem}`, keyPem };
      },
    },
  ])('$title', async ({ pair }) => {
    const { status, text } = await sendAs(await pair());
    expect(status, text).toBe(200);
    expect(JSON.parse(text).response).toMatchObject({ allowed: true, patch: expect.any(String) });
  });

  test.each(['/healthz', '/readyz'])('without a certificate from %s, as the kubelet', async (path) => {
    expect((await sendAs(undefined, { path })).status).toBe(200);
  });
});

test('a caller cannot present another certificate by renegotiation, which Node.js would not verify', async () => {
  const alice = await callers.client('alice', []);
  const forged = await (await createAuthority('evil')).client(NAME, []);
  const socket = connect({
    ...{ host: '127.0.0.1', port: webhook.port, servername: 'localhost', ca: webhook.authority.caPem },
    ...{ cert: alice.certPem, key: alice.keyPem, maxVersion: 'TLSv1.2' },
  });
  try {
    await once(socket, 'secureConnect');
    socket.setKeyCert(createSecureContext({ cert: forged.certPem, key: forged.keyPem }));
    const renegotiated = await new Promise((resolve) => {
      socket.on('error', resolve);
      socket.renegotiate({}, (error) => resolve(error ?? 'renegotiated'));
    });
    expect(renegotiated).toMatchObject({ code: 'ERR_SSL_NO_RENEGOTIATION' });
  } finally {
    socket.destroy();
  }
});

describe('a session is resumed, and its caller gets an answer,', () => {
  /** Sends a review. @returns whether its session was resumed, its status, and a session to resume */
  const attempt = (pair: KeyPair, version: SecureVersion, session?: Buffer) => {
    const { promise, resolve, reject } = Promise.withResolvers<{ answer: unknown; session: Buffer }>();
    const next = Promise.withResolvers<Buffer>();
    const asked = request(
      `https://127.0.0.1:${webhook.port}${WEBHOOK_PATH}`,
      {
        ...{ method: 'POST', agent: false, ca: webhook.authority.caPem, servername: 'localhost' },
        ...{ cert: pair.certPem, key: pair.keyPem, minVersion: version, maxVersion: version },
        ...(session && { session }),
        headers: { 'content-type': 'application/json' },
      },
      async (response) => {
        response.resume();
        const isReused = (response.socket as TLSSocket).isSessionReused();
        const answer = { isReused, status: response.statusCode };
        resolve({ answer, session: isReused ? Buffer.of() : await next.promise });
      },
    );
    asked.on('socket', (socket) => socket.on('session', (given: Buffer) => next.resolve(given)));
    asked.on('error', reject);
    asked.end(JSON.stringify(reviewOf({ object: manifest() })));
    return promise;
  };

  test.each<SecureVersion>(['TLSv1.2', 'TLSv1.3'])('with %s', async (version) => {
    const pair = await issuing.client(NAME, []);
    const { answer, session } = await attempt(pair, version);
    expect(answer).toEqual({ isReused: false, status: 200 });
    const resumed = await attempt(pair, version, session);
    expect(resumed.answer).toEqual({ isReused: true, status: 200 });
  });
});

describe('a caller gets 401, and AWS no call,', () => {
  test.each<{ title: string; pair: () => Promise<KeyPair | undefined> }>([
    { title: 'without a certificate', pair: async () => undefined },
    {
      title: 'with a certificate of another authority',
      pair: async () => (await createAuthority('callers')).client(NAME, []),
    },
    { title: 'with another name', pair: () => callers.client('kubelet', []) },
    { title: 'with the accepted name as its group', pair: () => callers.client('kubelet', [NAME]) },
    { title: 'with a name that only contains the accepted one', pair: () => callers.client(`${NAME}x`, []) },
    { title: 'with a name of two lines', pair: () => callers.client(`kubelet\nCN=${NAME}`, []) },
    { title: 'with a name that looks like two', pair: () => callers.client(`kubelet, URI:${URI}`, []) },
    { title: 'with a certificate for servers', pair: () => callers.serving([NAME]) },
    {
      title: 'with a certificate for servers of an intermediate authority',
      pair: () => issuing.serving([NAME]),
    },
    {
      title: 'with a certificate of the root above an accepted authority',
      pair: () => root.client(NAME, []),
    },
    {
      title: 'with a certificate of another authority below that root',
      pair: async () => {
        const other = await root.intermediate('other');
        const { certPem, keyPem } = await other.client(NAME, []);
        return { certPem: `${certPem}\n${other.caPem}\n${root.caPem}`, keyPem };
      },
    },
  ])('$title', async ({ pair }) => {
    const calls = webhook.ecr.calls.length;
    const refused = () =>
      webhook.program
        .log()
        .split('\n')
        .filter((line) => line.includes('"msg":"caller refused"'));
    const before = refused().length;
    const { status, text } = await sendAs(await pair());
    expect(status).toBe(401);
    expect(JSON.parse(text)).toEqual({ code: REASON, message: expect.any(String) });
    expect(text).not.toContain('team-a');
    expect(webhook.ecr.calls.length).toBe(calls);
    // The log is written after the answer.
    await expect.poll(() => refused().length).toBe(before + 1);
    expect(JSON.parse(refused().at(-1) ?? '{}')).toMatchObject({ status: 401, reason: REASON });
    expect(await webhook.metrics()).toMatch(new RegExp(`admissions_total\\{.*reason="${REASON}"\\} [1-9]`));
  });
});

test('a change of the authorities ends what was accepted before, also on open and resumed connections', async () => {
  const old = await callers.client(NAME, []);
  const agent = new Agent({ keepAlive: true, maxSockets: 1, maxCachedSessions: 10 });
  stack.defer(() => agent.destroy());
  expect((await sendAs(old, { agent })).status).toBe(200);

  const next = await (await createAuthority('next root')).intermediate('next');
  const replace = async (text: string) => {
    await writeFile(`${caFile}.new`, text);
    await rename(`${caFile}.new`, caFile);
  };
  await replace('no certificate');
  await expect
    .poll(() => webhook.program.log(), { timeout: 20_000 })
    .toContain('client authorities not replaced');
  expect((await sendAs(old, { agent })).status).toBe(200);

  await replace(next.caPem);
  const attempt = (pair: KeyPair, over: Agent | false = false) =>
    sendAs(pair, { agent: over }).then(
      ({ status }) => status,
      () => 0,
    );
  const renewed = await next.client(NAME, []);
  await expect.poll(() => attempt(renewed), { timeout: 20_000 }).toBe(200);
  expect(await attempt(old)).toBe(401);
  await expect.poll(() => attempt(old, agent), { timeout: 20_000 }).toBe(401);
  expect(await attempt(old, agent)).toBe(401);
});
