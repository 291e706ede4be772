// The webhook bundle as a process, over TLS: bodies that are not what they should be, an ECR that fails, certificates
// that change, and an end under load.
import { spawnSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE, WEBHOOK_PATH } from '../../contract/names.ts';
import type { ReviewAnswer } from '../../webhook/review.ts';
import { NOT_CONNECTED, type RunningWebhook, runWebhook, writePair } from './running-webhook.ts';
import { annotated, applied, type Manifest, manifest } from './support.ts';

const KIND = { group: '', version: 'v1', kind: 'Secret' };

/** A review as text; what is given takes the place of its request's fields. */
function review(fields: Record<string, unknown> = {}): string {
  const request = {
    uid: 'u-1',
    kind: KIND,
    operation: 'CREATE',
    namespace: 'team-a',
    name: 'pull',
    object: manifest(),
    ...fields,
  };
  return JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', request });
}
const withMetadata = (metadata: Record<string, unknown>) =>
  review({ object: { metadata, type: SECRET_TYPE } });
const holding = (config: string) =>
  review({
    object: {
      metadata: { labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
      type: SECRET_TYPE,
      data: { [SECRET_KEY]: Buffer.from(config).toString('base64') },
    },
  });
const responseOf = (text: string) => (JSON.parse(text) as ReviewAnswer).response;

let webhook: RunningWebhook;
beforeAll(async () => {
  webhook = await runWebhook();
});
afterAll(async () => webhook?.[Symbol.asyncDispose]());

describe('a body that is not what it should be gets an answer that names what is wrong', () => {
  const DEEP = 500_000;
  test.each<[string, string, number, RegExp]>([
    ['truncated', review().slice(0, -20), 400, /Send an AdmissionReview as application\/json: /],
    ['empty', '', 400, /Send an AdmissionReview as application\/json: .*empty/],
    ['null', 'null', 400, /AdmissionReview: body: .*null/],
    ['an array', '[]', 400, /AdmissionReview: body: .*array/],
    ['a number', '1', 400, /AdmissionReview: body: .*number/],
    [
      'another version',
      review().replace('admission.k8s.io/v1', 'admission.k8s.io/v1beta1'),
      400,
      /apiVersion: /,
    ],
    ['without a request', '{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview"}', 400, /request: /],
    ['without a uid', review({ uid: undefined }), 400, /request.uid: /],
    ['8 MiB', JSON.stringify({ x: 'x'.repeat(8 * 1024 * 1024) }), 413, /too large/],
    ['nested without end', '['.repeat(DEEP), 400, /Send an AdmissionReview/],
    ['nested deeply', `${'['.repeat(DEEP)}${']'.repeat(DEEP)}`, 400, /AdmissionReview: body: .*array/],
  ])('%s', async (_, body, status, message) => {
    const answer = await webhook.send(WEBHOOK_PATH, body);
    expect(answer).toMatchObject({ status, text: expect.stringMatching(message) });
    expect(responseOf((await webhook.send(WEBHOOK_PATH, review())).text).allowed).toBe(true);
  });

  test.each<[string, string, RegExp]>([
    ['without an object', review({ object: null }), /object: .*null/],
    ['an update without the old object', review({ operation: 'UPDATE' }), /oldObject: /],
    [
      'about a Pod',
      review({ kind: { ...KIND, kind: 'Pod' } }),
      /serves v1 Secrets, not v1\/Pod: narrow the rules/,
    ],
    ['about a Secret of another group', review({ kind: { ...KIND, group: 'x' } }), /not x\/v1\/Secret/],
    ['without metadata', review({ object: { type: SECRET_TYPE } }), /object.metadata: /],
    ['labels that are a list', withMetadata({ labels: [] }), /object.metadata.labels: /],
    [
      'a label that is no text',
      withMetadata({ labels: { [SECRET_LABEL.key]: true } }),
      /object.metadata.labels.* boolean/,
    ],
    ['annotations that are text', withMetadata({ annotations: 'x' }), /object.metadata.annotations: /],
    ['data that is text', review({ object: { ...manifest(), data: 'x' } }), /object.data: /],
    [
      'data that holds numbers',
      review({ object: { ...manifest(), data: { [SECRET_KEY]: 1 } } }),
      /object.data.* number/,
    ],
  ])('%s: denied', async (_, body, message) => {
    const { status, text } = await webhook.send(WEBHOOK_PATH, body);
    expect(status).toBe(200);
    expect(responseOf(text)).toMatchObject({
      uid: 'u-1',
      allowed: false,
      status: { code: 400, message: expect.stringMatching(message) },
    });
  });

  test.each([
    ['a docker config nested without end', '{"auths":'.repeat(DEEP)],
    ['an entry nested deeply', `{"auths":{"example.com":${'{"a":'.repeat(50_000)}1${'}'.repeat(50_000)}}}`],
  ])('%s: answered', async (_, config) => {
    const { status, text } = await webhook.send(WEBHOOK_PATH, holding(config));
    expect(status).toBe(200);
    expect(responseOf(text).uid).toBe('u-1');
    expect(responseOf((await webhook.send(WEBHOOK_PATH, review())).text).allowed).toBe(true);
  });

  test('the content type may name its charset; another type is refused', async () => {
    const utf8 = await webhook.send(WEBHOOK_PATH, review(), { type: 'application/json; charset=utf-8' });
    expect(responseOf(utf8.text).allowed).toBe(true);
    expect(await webhook.send(WEBHOOK_PATH, review(), { type: 'text/plain' })).toMatchObject({
      status: 415,
      text: expect.stringContaining('Send an AdmissionReview as application/json'),
    });
  });

  test('another path or method is told where reviews go', async () => {
    for (const answer of [
      await webhook.send('/', review()),
      await webhook.send(WEBHOOK_PATH, undefined, { method: 'GET' }),
    ]) {
      expect(answer).toMatchObject({ status: 404, text: expect.stringContaining(`POST ${WEBHOOK_PATH}`) });
    }
  });

  test('a dry run gets the same answer', async () => {
    const [dry, wet] = await Promise.all(
      [true, false].map((dryRun) => webhook.send(WEBHOOK_PATH, review({ dryRun }))),
    );
    const dataOf = (text = '') =>
      JSON.parse(Buffer.from(responseOf(text).patch ?? '', 'base64').toString()).find(
        ({ path }: { path: string }) => path === '/data',
      );
    expect(dataOf(dry?.text)).toEqual(dataOf(wet?.text));
    expect(dataOf(wet?.text)).toBeDefined();
  });
});

describe('while ECR fails', () => {
  const create = (from: RunningWebhook) =>
    from.send(WEBHOOK_PATH, review()).then(({ text }) => responseOf(text));
  const update = (from: RunningWebhook, object: Manifest, oldObject: Manifest) =>
    from
      .send(WEBHOOK_PATH, review({ operation: 'UPDATE', object, oldObject }))
      .then(({ text }) => responseOf(text));

  /** A Secret whose credentials are valid and due. */
  const due = async () => {
    await using other = await runWebhook();
    other.ecr.settings.lifetimeSeconds = 3600;
    const { patch = '' } = await create(other);
    return applied(manifest(), JSON.parse(Buffer.from(patch, 'base64').toString()));
  };

  test.each([
    ['throttle', /ThrottlingException: Rate exceeded/],
    ['down', /ServerException/],
    ['denied', /AccessDeniedException: User is not authorized/],
    ['hang', /gave no token within 2.5 s/],
  ] as const)(
    '%s: cold, it denies within its time and names the cause; stored credentials stay',
    async (mode, cause) => {
      const stored = await due();
      await using cold = await runWebhook();
      cold.ecr.settings.mode = mode;
      const startedAt = performance.now();
      expect(await create(cold)).toMatchObject({
        allowed: false,
        status: { code: 503, message: expect.stringMatching(cause) },
      });
      expect(performance.now() - startedAt).toBeLessThan(4_000); // TIMEOUT_SECONDS: the API server would have given up
      expect(
        await update(cold, annotated(stored, { [ANNOTATION.requestedAt]: '2026-11-23T12:00:00Z' }), stored),
      ).toMatchObject({
        allowed: false,
        status: { code: 503 },
      });
      const other = await update(
        cold,
        { ...stored, metadata: { ...stored.metadata, finalizers: ['a/b'] } },
        stored,
      );
      expect(other).toMatchObject({ allowed: true, warnings: [expect.stringMatching(cause)] });
      expect(other).not.toHaveProperty('patch');

      cold.ecr.settings.mode = 'ok';
      expect(await create(cold)).toMatchObject({ allowed: true, patchType: 'JSONPatch' });
      cold.ecr.settings.mode = mode;
      const calls = cold.ecr.calls.length;
      expect(await create(cold)).toMatchObject({ allowed: true, patchType: 'JSONPatch' });
      expect(cold.ecr.calls).toHaveLength(calls);
    },
  );
});

describe('certificates', () => {
  test('new files are served without a failed request; a key that does not fit changes nothing', async () => {
    await using own = await runWebhook();
    let failures = 0;
    let isRunning = true;
    const traffic = (async () => {
      while (isRunning) {
        const { status } = await own.send(WEBHOOK_PATH, review()).catch(() => ({ status: 0 }));
        if (status !== 200) failures += 1;
        await sleep(20);
      }
    })();
    const first = await own.servedSerial();
    await writePair(own.authority, own.dir);
    await vi.waitFor(async () => expect(await own.servedSerial()).not.toBe(first), {
      timeout: 15_000,
      interval: 250,
    });

    const second = await own.servedSerial();
    await writeFile(join(own.dir, 'tls.key'), (await own.authority.serving(['localhost'])).keyPem);
    await vi.waitFor(() => expect(own.program.log()).toMatch(/are not a certificate and its key/), {
      timeout: 15_000,
      interval: 250,
    });
    expect(await own.servedSerial()).toBe(second);
    isRunning = false;
    await traffic;
    expect(failures).toBe(0);
  });
});

describe('the end', () => {
  test('under load every request in flight is answered, then it exits with 0', async () => {
    await using own = await runWebhook({ DRAIN_SECONDS: '1' });
    own.ecr.settings.latencyMs = 800;
    const slow = own.send(WEBHOOK_PATH, review()); // cold: waits for ECR
    await vi.waitFor(() => expect(own.program.isRunning()).toBe(true));
    const results = { answered: 0, refused: 0, dropped: [] as string[] };
    const client = async () => {
      while (results.refused === 0) {
        try {
          const { status } = await own.send(WEBHOOK_PATH, review({ operation: 'DELETE' }));
          if (status === 200) results.answered += 1;
          else results.dropped.push(`HTTP ${status}`);
        } catch (error) {
          const { code, message } = error as NodeJS.ErrnoException;
          if (code === NOT_CONNECTED) results.refused += 1;
          else results.dropped.push(code ?? message);
        }
      }
    };
    const load = Array.from({ length: 32 }, client);
    await sleep(300);
    own.program.signal('SIGTERM');
    await sleep(200);
    expect(await own.send('/readyz', undefined, { method: 'GET' })).toMatchObject({ status: 503 });
    await Promise.all(load);
    expect(responseOf((await slow).text).allowed).toBe(true);
    expect(await own.program.ended).toBe(0);
    expect(results.answered).toBeGreaterThan(100);
    expect(results.dropped).toEqual([]);
  });
});

describe('settings that are wrong', () => {
  const start = (env: Record<string, string>) =>
    spawnSync(process.execPath, [join(webhook.dir, 'webhook.mjs')], {
      env,
      encoding: 'utf8',
      timeout: 20_000,
    });

  test('are all named at once', () => {
    const { status, stdout } = start({ PORT: '0', TIMEOUT_SECONDS: '60', LOG_LEVEL: 'loud' });
    expect(status).not.toBe(0);
    for (const name of ['PORT', 'TIMEOUT_SECONDS', 'LOG_LEVEL', 'AWS_REGION is missing'])
      expect(stdout).toContain(name);
  });
  test('so is a certificate that is not there', () => {
    const { status, stdout } = start({ AWS_REGION: 'eu-central-1', CERT_FILE: '/nowhere/tls.crt' });
    expect(status).not.toBe(0);
    expect(stdout).toContain('/nowhere/tls.crt');
  });
});

test('the log has a line for each admission and no credential', () => {
  const log = webhook.program.log();
  const lines = log
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  expect(lines).toContainEqual(
    expect.objectContaining({ msg: 'admission', secret: 'team-a/pull', action: 'inject', reason: 'created' }),
  );
  const passwords = webhook.ecr.calls.flatMap(({ password }) => password ?? []);
  expect(passwords.length).toBeGreaterThan(0);
  for (const password of passwords) {
    expect(log).not.toContain(password);
    expect(log).not.toContain(Buffer.from(`AWS:${password}`).toString('base64'));
  }
});
