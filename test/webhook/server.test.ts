// The webhook bundle as a process, over TLS: invalid bodies, failures of ECR, certificates that change, the shutdown under
// load, and the message when it cannot start.
import { spawnSync } from 'node:child_process';
import { unlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import type { TokenFailure } from '../../contract/denials.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE, WEBHOOK_PATH } from '../../contract/names.ts';
import { parseWarning } from '../../contract/warnings.ts';
import type { ReviewAnswer } from '../../webhook/admission/review.ts';
import {
  ended,
  type Layout,
  NOT_CONNECTED,
  type RunningWebhook,
  runWebhook,
  writePair,
} from './running-webhook.ts';
import { annotated, applied, encode, holding, type Manifest, manifest } from './support.ts';

const MIB = 1024 * 1024;
const KIND = { group: '', version: 'v1', kind: 'Secret' };

let reviews = 0;
/** A review as text; `fields` replace fields of its request. */
function review(fields: Record<string, unknown> = {}): string {
  reviews += 1;
  const request = {
    uid: `u-${reviews}`,
    kind: KIND,
    operation: 'CREATE',
    namespace: 'team-a',
    name: 'pull',
    object: manifest(),
    ...fields,
  };
  return JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request });
}
const withMetadata = (metadata: Record<string, unknown>) => ({ object: { metadata, type: SECRET_TYPE } });
const withData = (data: unknown) => ({ object: { ...manifest(), data } });
const nested = (depth: number) => `${'{"a":'.repeat(depth)}1${'}'.repeat(depth)}`;

/** The uids of the reviews that were answered. */
const asked = new Set<string>();

/** Sends a review and reads its answer. */
async function ask(
  from: RunningWebhook,
  fields: Record<string, unknown> = {},
  options: Parameters<RunningWebhook['send']>[2] = {},
): Promise<ReviewAnswer['response']> {
  const body = review(fields);
  const { uid } = JSON.parse(body).request;
  const { status, text } = await from.send(WEBHOOK_PATH, body, options);
  expect(status, text).toBe(200);
  const { response } = JSON.parse(text) as ReviewAnswer;
  expect(response.uid).toBe(uid);
  asked.add(uid);
  return response;
}
const patchOf = ({ patch }: ReviewAnswer['response']) =>
  JSON.parse(Buffer.from(patch ?? encode('[]'), 'base64').toString());

let webhook: RunningWebhook;
beforeAll(async () => {
  webhook = await runWebhook();
});
afterAll(async () => webhook?.[Symbol.asyncDispose]());

describe('an invalid body', () => {
  type Refused = [what: string, send: () => ReturnType<RunningWebhook['send']>, status: number, says: RegExp];
  const over = () => {
    const client = webhook.client();
    let connections = 0;
    client.on('connect', () => {
      connections += 1;
    });
    return { client, connections: () => connections };
  };
  let own: ReturnType<typeof over>;
  const post = (body?: string | Readable, type?: string) => () =>
    webhook.send(WEBHOOK_PATH, body, { over: own.client, ...(type !== undefined && { type }) });
  const JSON_WANTED = /Send an AdmissionReview as application\/json: /;
  const tooLarge = JSON.stringify({ x: 'x'.repeat(8 * MIB) });

  test.each<Refused>([
    ['truncated', post(review().slice(0, -20)), 400, JSON_WANTED],
    ['no body', post(), 400, JSON_WANTED],
    ['an empty body', post(''), 400, /as application\/json: .*empty/],
    ['not JSON', post('apiVersion: v1'), 400, JSON_WANTED],
    ['null', post('null'), 400, /AdmissionReview: body: .*null/],
    ['an array', post('[]'), 400, /AdmissionReview: body: .*array/],
    ['a number', post('1'), 400, /AdmissionReview: body: .*number/],
    ['another version', post(review().replace('io/v1', 'io/v1beta1')), 400, /apiVersion: /],
    ['another kind', post(review().replace('AdmissionReview', 'Status')), 400, /kind: /],
    [
      'without a request',
      post('{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}'),
      400,
      /request: /,
    ],
    ['without a uid', post(review({ uid: undefined })), 400, /request.uid: /],
    ['nested without end', post('['.repeat(MIB)), 400, JSON_WANTED],
    [
      'nested deeply',
      post(`${'['.repeat(99_999)}${']'.repeat(99_999)}`),
      400,
      /AdmissionReview: body: .*array/,
    ],
    ['more values than a Secret has', post(`[${'0,'.repeat(100_000)}0]`), 400, /more than 100000 values/],
    ['plain text', post(review(), 'text/plain'), 415, JSON_WANTED],
    ['a form', post('a=b', 'application/x-www-form-urlencoded'), 415, JSON_WANTED],
    ['no type', post(review(), ''), 415, JSON_WANTED],
    ['8 MiB', post(tooLarge), 413, /too large/],
    ['8 MiB without a length ahead', () => post(Readable.from([tooLarge]))(), 413, /too large/],
    [
      'another path',
      () => webhook.send('/', review(), { over: own.client }),
      404,
      /AdmissionReviews to POST \/sync/,
    ],
    [
      'another method',
      () => webhook.send(WEBHOOK_PATH, undefined, { over: own.client, method: 'GET' }),
      404,
      /AdmissionReviews to POST \/sync/,
    ],
  ])('gets an answer that names the problem: %s', async (_, send, status, says) => {
    own = over();
    const { text, closes, ...answer } = await send();
    expect(answer).toEqual({ status });
    expect(JSON.parse(text)).toEqual({ message: expect.stringMatching(says) });
    expect(await ask(webhook, {}, { over: own.client })).toMatchObject({ allowed: true });
    expect(own.connections()).toBe(closes ? 2 : 1);
  });

  test.each<[string, Record<string, unknown>, RegExp]>([
    ['no object', { object: undefined }, /object: .*undefined/],
    ['an object that is null', { object: null }, /object: .*null/],
    ['an update without the old object', { operation: 'UPDATE' }, /oldObject: .*undefined/],
    ['an update whose old object is null', { operation: 'UPDATE', oldObject: null }, /oldObject: .*null/],
    ['a Pod', { kind: { ...KIND, kind: 'Pod' } }, /serves v1 Secrets, not v1\/Pod\. Limit the rules/],
    ['a Secret of another group', { kind: { ...KIND, group: 'x' } }, /not x\/v1\/Secret/],
    ['no kind', { kind: undefined }, /kind: /],
    ['no namespace', { namespace: undefined }, /namespace: /],
    ['no metadata', { object: { type: SECRET_TYPE } }, /object.metadata: /],
    ['labels that are a list', withMetadata({ labels: [] }), /object.metadata.labels: /],
    ['a label that is no text', withMetadata({ labels: { [SECRET_LABEL.key]: true } }), /labels.* boolean/],
    ['annotations that are text', withMetadata({ annotations: 'x' }), /object.metadata.annotations: /],
    ['data that is text', withData('x'), /object.data: /],
    ['data that is a list', withData(['x']), /object.data: /],
    ['data that holds numbers', withData({ [SECRET_KEY]: 1 }), /object.data.* number/],
  ])('is denied and the problem is named: %s', async (_, fields, says) => {
    expect(await ask(webhook, fields)).toMatchObject({
      allowed: false,
      status: {
        code: 400,
        message: expect.stringMatching(says),
        details: { causes: [{ reason: 'malformed', message: expect.stringMatching(says) }] },
      },
    });
    expect(await ask(webhook)).toMatchObject({ allowed: true });
  });

  test('of 20,000 problems, ten are named and the rest is counted', async () => {
    const labels = Object.fromEntries(
      Array.from({ length: 20_000 }, (_, index) => [`label-${index}`, index]),
    );
    const { status } = await ask(webhook, withMetadata({ labels }));
    expect(status?.message).toMatch(/labels.label-0: .*; and 19990 more$/);
    expect(status?.message.length).toBeLessThan(5_000);
  });

  test.each<[string, string, object]>([
    ['nested without end', '['.repeat(MIB), { allowed: true, patchType: 'JSONPatch' }],
    [
      'auths within auths without end',
      '{"auths":'.repeat(MIB / 9),
      { allowed: true, patchType: 'JSONPatch' },
    ],
    [
      'an entry nested 50 levels deep',
      `{"auths":{"example.com":${nested(50)}}}`,
      { allowed: true, patchType: 'JSONPatch' },
    ],
    [
      'an entry nested deeper than a stack',
      `{"auths":{"example.com":${nested(MIB / 8)}}}`,
      {
        allowed: false,
        status: {
          code: 500,
          details: {
            causes: [{ reason: 'internal-error', message: expect.stringContaining('RangeError') }],
          },
        },
      },
    ],
  ])('gets an answer although its docker config is %s', async (_, config, answer) => {
    const { client, connections } = over();
    expect(await ask(webhook, { object: holding(manifest(), config) }, { over: client })).toMatchObject(
      answer,
    );
    expect(await ask(webhook, {}, { over: client })).toMatchObject({ allowed: true });
    expect(connections()).toBe(1);
  });

  test.each([
    { what: 'data', object: { ...manifest(), data: { [SECRET_KEY]: null } } },
    {
      what: 'a label',
      object: { ...manifest(), metadata: { labels: { ...manifest().metadata.labels, a: null } } },
    },
    {
      what: 'an annotation',
      object: { ...manifest(), metadata: { ...manifest().metadata, annotations: { a: null } } },
    },
  ])('gets credentials although $what is null', async ({ object }) => {
    const response = await ask(webhook, { object });
    expect(response).toMatchObject({ allowed: true, patchType: 'JSONPatch' });
    const { data } = applied(object as unknown as Manifest, patchOf(response));
    expect(Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString()).toContain(webhook.ecr.host);
  });

  test('may have a content type with a charset', async () => {
    expect(await ask(webhook, {}, { type: 'application/json; charset=utf-8' })).toMatchObject({
      allowed: true,
      patchType: 'JSONPatch',
    });
  });

  test('gets the same answer as a dry run', async () => {
    // Two answers of the same second must be equal.
    await vi.waitFor(async () => {
      const [wet, dry] = await Promise.all([false, true].map((dryRun) => ask(webhook, { dryRun })));
      expect(wet).toMatchObject({ allowed: true, patchType: 'JSONPatch' });
      expect({ ...dry, uid: wet?.uid }).toEqual(wet);
    });
  });
});

describe('while ECR fails', () => {
  /** A Secret whose credentials are valid and due. */
  let stored: Manifest;
  beforeAll(async () => {
    await using other = await runWebhook();
    other.ecr.settings.lifetimeSeconds = 3600;
    stored = applied(manifest(), patchOf(await ask(other)));
  });
  const update = (from: RunningWebhook, object: Manifest) =>
    ask(from, { operation: 'UPDATE', object, oldObject: stored });

  /** Expects that a webhook without a cached token denies, and keeps stored entries. */
  const deniesAndKeeps = async (cold: RunningWebhook, reason: TokenFailure, names: string) => {
    const startedAt = performance.now();
    const created = await ask(cold);
    expect(performance.now() - startedAt).toBeLessThan(3_000); // TIMEOUT_SECONDS: the API server would have given up
    const denial = {
      allowed: false,
      status: {
        code: 503,
        message: expect.stringContaining(names),
        details: { causes: [{ reason: 'no-token' }, { reason, message: expect.stringContaining(names) }] },
      },
    };
    expect(created).toMatchObject(denial);

    const marked = annotated(stored, { [ANNOTATION.requestedAt]: '2026-11-23T12:00:00Z' });
    expect(await update(cold, marked)).toMatchObject(denial);

    const labelled = {
      ...stored,
      metadata: { ...stored.metadata, labels: { ...stored.metadata.labels, a: 'b' } },
    };
    const other = await update(cold, labelled);
    expect(other).toMatchObject({ allowed: true });
    expect(other.warnings?.map(parseWarning)).toEqual([
      { host: cold.ecr.host, kind: 'kept', reason, message: expect.stringContaining(names) },
    ]);
    expect(other).not.toHaveProperty('patch');

    const overwriting = holding(labelled, 'FAKE');
    const restoring = await update(cold, overwriting);
    expect(restoring).toMatchObject({ allowed: true });
    expect(applied(overwriting, patchOf(restoring))).toEqual(labelled);
  };

  test.each([
    ['throttle', 'ecr-throttled', 'ThrottlingException'],
    ['down', 'ecr-unavailable', 'ServerException'],
    ['denied', 'ecr-denied', 'AccessDeniedException'],
    ['hang', 'ecr-unavailable', '1.5 s'],
  ] as const)(
    '%s: with a cold cache it denies in time with the reason %s; with a warm one it serves',
    async (mode, reason, names) => {
      await using own = await runWebhook();
      own.ecr.settings.mode = mode;
      await deniesAndKeeps(own, reason, names);

      // The failure is reused for a moment.
      own.ecr.settings.mode = 'ok';
      await vi.waitFor(
        async () => expect(await ask(own)).toMatchObject({ allowed: true, patchType: 'JSONPatch' }),
        { timeout: 8_000, interval: 500 },
      );
      own.ecr.settings.mode = mode;
      const calls = own.ecr.calls.length;
      const warm = await ask(own);
      expect(warm).toMatchObject({ allowed: true, patchType: 'JSONPatch' });
      expect(warm).not.toHaveProperty('warnings');
      expect(own.ecr.calls).toHaveLength(calls);
    },
  );

  test('not listening: denies and keeps as well', async () => {
    await using own = await runWebhook();
    await own.ecr.stop();
    await deniesAndKeeps(own, 'ecr-unavailable', 'ECONNREFUSED');
  });

  test('a request without need of a token does not wait for those with one', async () => {
    await using own = await runWebhook();
    own.ecr.settings.mode = 'hang';
    const order: string[] = [];
    await Promise.all([
      ask(own).then(() => order.push('needs a token')),
      ask(own, { namespace: 'kube-system' }).then(() => order.push('needs none')),
      own.send('/healthz', undefined, { method: 'GET' }).then(({ status }) => order.push(`health ${status}`)),
    ]);
    expect(order).toHaveLength(3);
    expect(order.at(-1)).toBe('needs a token');
  });
});

describe.concurrent('certificates', () => {
  const PATIENCE = { timeout: 12_000, interval: 200 };

  test.each<[string, Layout]>([
    ['written in place', 'files'],
    ['behind a link that the kubelet swaps', 'links'],
  ])('new ones, %s, are served without a failed request; invalid ones change nothing', async (_, layout) => {
    await using own = await runWebhook({ layout });
    const failures: unknown[] = [];
    let answered = 0;
    let isRunning = true;
    const traffic = async (isEachANewConnection: boolean) => {
      let over = own.client();
      while (isRunning) {
        await ask(own, {}, { over }).then(
          () => answered++,
          (error: unknown) => failures.push(error),
        );
        if (isEachANewConnection) {
          await over.close();
          over = own.client();
        }
        await sleep(20);
      }
    };
    const load = [false, false, true, true].map(traffic);

    const first = await own.servedSerial();
    await writePair(own.authority, own.dir, layout);
    await vi.waitFor(async () => expect(await own.servedSerial()).not.toBe(first), PATIENCE);

    const second = await own.servedSerial();
    const { certPem, keyPem } = await own.authority.serving(['localhost']);
    await writeFile(join(own.dir, 'tls.key'), keyPem);
    await vi.waitFor(
      () =>
        expect(own.program.log()).toMatch(
          /tls\.crt and \S*tls\.key are not a certificate and its key.*serving certificate not replaced/,
        ),
      PATIENCE,
    );
    expect(own.program.isRunning()).toBe(true);
    expect(await own.servedSerial()).toBe(second);

    await unlink(join(own.dir, 'tls.crt'));
    await vi.waitFor(
      () =>
        expect(own.program.log()).toMatch(
          /tls\.crt cannot be read: ENOENT.*serving certificate not replaced/,
        ),
      PATIENCE,
    );
    expect(await own.servedSerial()).toBe(second);

    await writeFile(join(own.dir, 'tls.crt'), certPem);
    await vi.waitFor(async () => expect(await own.servedSerial()).not.toBe(second), PATIENCE);
    isRunning = false;
    await Promise.all(load);
    expect(failures).toEqual([]);
    expect(answered).toBeGreaterThan(100);
    await vi.waitFor(
      () => expect(own.program.log().match(/new serving certificate in use/g)).toHaveLength(2),
      PATIENCE,
    );
  });
});

describe('the shutdown', () => {
  test('answers every request on an open connection, then exits with 0', async () => {
    await using own = await runWebhook({ env: { DRAIN_SECONDS: '2' } });
    await ask(own);
    const results = { before: 0, after: 0, refused: 0, failed: [] as string[] };
    let isDraining = false;
    const load = Array.from({ length: 32 }, async () => {
      const over = own.client();
      for (;;) {
        try {
          const { allowed } = await ask(own, {}, { over });
          if (!allowed) results.failed.push('denied');
          results[isDraining ? 'after' : 'before'] += 1;
        } catch (error) {
          const { code, message } = error as NodeJS.ErrnoException;
          if (code === NOT_CONNECTED) break; // it no longer listens
          results.failed.push(code ?? message);
        }
        await sleep(30);
      }
      results.refused += 1;
    });
    await expect.poll(() => results.before, { timeout: 20_000 }).toBeGreaterThan(32);
    const drainedAt = performance.now();
    isDraining = true;
    own.program.signal('SIGTERM');
    await expect.poll(() => own.program.log(), { interval: 20, timeout: 5_000 }).toContain('draining');
    const probes = new Set<string>();
    const probe = async (path: string) => {
      const { status } = await own.send(path, undefined, { method: 'GET', over: own.client() });
      probes.add(`${path} ${status}`);
    };
    const isRefused = () =>
      Promise.all(['/readyz', '/healthz'].map(probe)).then(
        () => false,
        () => true,
      );
    await expect.poll(isRefused, { timeout: 20_000 }).toBe(true);
    expect([...probes].sort()).toEqual(['/healthz 200', '/readyz 503']);
    await Promise.all(load);
    expect(await own.program.ended).toBe(0);
    expect(performance.now() - drainedAt).toBeGreaterThan(2_000);
    expect(results).toMatchObject({ refused: 32, failed: [] });
    expect(results.after).toBeGreaterThan(32);
    expect(own.program.log().trim().split('\n').at(-1)).toContain('stopped');
  });

  test('answers a request that outlasts the drain', async () => {
    await using own = await runWebhook({ env: { DRAIN_SECONDS: '0.5', TIMEOUT_SECONDS: '10' } });
    own.ecr.settings.latencyMs = 1_500;
    const slow = ask(own).then((response) => ({ response, at: performance.now() }));
    await sleep(400);
    const drainedAt = performance.now();
    own.program.signal('SIGTERM');
    const { response, at } = await slow;
    expect(response).toMatchObject({ allowed: true, patchType: 'JSONPatch' });
    expect(at - drainedAt).toBeGreaterThan(500);
    expect(await own.program.ended).toBe(0);
  });
});

describe('one line names why it cannot start', () => {
  const start = (env: Record<string, string>) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [join(webhook.dir, 'webhook.mjs')], {
      env,
      encoding: 'utf8',
      timeout: 20_000,
    });
    const lines = `${stdout}${stderr}`.trim().split('\n');
    expect(lines).toHaveLength(1);
    expect(lines[0]?.length).toBeLessThan(2_000);
    expect(status).toBe(1);
    return lines[0];
  };
  const usable = () => ({
    AWS_REGION: 'eu-central-1',
    HOST: '127.0.0.1',
    CERT_FILE: join(webhook.dir, 'tls.crt'),
    KEY_FILE: join(webhook.dir, 'tls.key'),
    POLICY_FILE: join(webhook.dir, 'policy.yaml'),
  });

  test('every invalid setting', () => {
    const wrong = {
      AWS_REGION: 'frankfurt',
      HOST: '',
      PORT: '0',
      CERT_FILE: '',
      KEY_FILE: '',
      TIMEOUT_SECONDS: '60',
      DRAIN_SECONDS: 'soon',
      LOG_LEVEL: 'loud',
      REFRESHER_USERNAME: '',
    };
    const line = start(wrong);
    for (const name of Object.keys(wrong)) expect(line).toContain(name);
    expect(start({})).toContain('AWS_REGION is missing');
  });

  test.each<[string, string, RegExp]>([
    ['that is not there', 'nowhere.pem', /nowhere\.pem cannot be read: ENOENT/],
    ['that is a directory', '.', /cannot be read: EISDIR/],
    ['that is none', 'webhook.mjs', /webhook\.mjs.* not a certificate and its key/],
  ])('a certificate or a key %s', (_, file, says) => {
    const path = join(webhook.dir, file);
    for (const name of ['CERT_FILE', 'KEY_FILE']) {
      const line = start({ ...usable(), [name]: path });
      expect(line).toContain(path);
      expect(line).toMatch(says);
    }
  });

  test('a key of another certificate', async () => {
    const other = join(webhook.dir, 'other.key');
    await writeFile(other, (await webhook.authority.serving(['localhost'])).keyPem);
    const line = start({ ...usable(), KEY_FILE: other });
    expect(line).toContain(`${usable().CERT_FILE} and ${other} are not a certificate and its key`);
  });

  test('a port that is taken', () => {
    expect(start({ ...usable(), PORT: String(webhook.port) })).toMatch(
      new RegExp(`EADDRINUSE.*127.0.0.1:${webhook.port}`),
    );
  });
});

describe('the logs of these tests', () => {
  const logs = () => [...ended, { log: webhook.program.log(), ecr: webhook.ecr }];

  test('have one line for each admission', async () => {
    const lines = () =>
      logs()
        .flatMap(({ log }) => log.trim().split('\n'))
        .map((line) => JSON.parse(line) as { msg: string; uid?: string; [field: string]: unknown })
        .filter(({ msg, uid }) => msg.startsWith('admission') && uid !== undefined);
    expect(asked.size).toBeGreaterThan(500);
    // The log is written after the answer.
    await expect
      .poll(() =>
        lines()
          .map(({ uid }) => uid)
          .sort(),
      )
      .toEqual([...asked].sort());
    expect(lines()).toContainEqual(
      expect.objectContaining({
        operation: 'CREATE',
        secret: 'team-a/pull',
        action: 'inject',
        reason: 'created',
      }),
    );
  });

  test('have no credential in any encoding', () => {
    let tokens = 0;
    for (const { log, ecr } of logs()) {
      for (const { password } of ecr.calls) {
        if (password === undefined) continue;
        tokens += 1;
        // The token itself, its entry's `auth`, the Secret's data, the answer's patch.
        for (const form of encodings(password.slice(0, 200), 3)) expect(log).not.toContain(form);
      }
    }
    expect(tokens).toBeGreaterThan(8);
  });

  test('would show a credential: the search finds one in a patch', () => {
    const patch = encode(
      JSON.stringify({ a: encode(JSON.stringify({ auth: encode(`AWS:ecr-token-${'x'.repeat(200)}`) })) }),
    );
    expect(encodings(`ecr-token-${'x'.repeat(190)}`, 3).some((form) => patch.includes(form))).toBe(true);
  });
});

/** A text, and what is certain to be within its base64 wherever in a longer text it stands; that again so many times. */
function encodings(text: string, times: number): string[] {
  if (times === 0) return [text];
  const inBase64 = ['', 'x', 'xx'].map((before) => encode(before + text).slice(4, -4));
  return [text, ...inBase64.flatMap((form) => encodings(form, times - 1))];
}
