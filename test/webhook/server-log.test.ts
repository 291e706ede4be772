// The whole log of a webhook, with valid requests, invalid ones and failures of ECR: it names users, Secrets and decisions,
// and never contains a credential in any encoding.
import { randomBytes } from 'node:crypto';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY, WEBHOOK_PATH } from '../../contract/names.ts';
import type { ReviewAnswer } from '../../webhook/admission/review.ts';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';
import { annotated, applied, type Change, decode, encode, holding, manifest, reviewOf } from './support.ts';

/** The credentials that users sent. */
const sent: string[] = [];
const secretText = () => {
  const text = `hunter2-${randomBytes(24).toString('hex')}`;
  sent.push(text);
  return text;
};
const configWith = (password: string, host = 'registry.example.com') =>
  JSON.stringify({ auths: { [host]: { username: 'bot', password, auth: encode(`bot:${password}`) } } });

/** A text and its base64 at each alignment, without the ends that depend on the text around it. */
function traces(text: string): string[] {
  const shifted = [0, 1, 2].map((offset) => {
    const base64 = Buffer.from(' '.repeat(offset) + text).toString('base64');
    return base64.slice(offset === 0 ? 0 : 4, -4);
  });
  return [text, ...shifted];
}

let webhook: RunningWebhook;
const patches: string[] = [];
beforeAll(async () => {
  webhook = await runWebhook({ env: { LOG_LEVEL: 'debug', TIMEOUT_SECONDS: '3' } });
});
afterAll(async () => webhook?.[Symbol.asyncDispose]());

async function review(change: Change): Promise<ReviewAnswer['response']> {
  const { text } = await webhook.send(WEBHOOK_PATH, JSON.stringify(reviewOf(change)));
  const { response } = JSON.parse(text) as ReviewAnswer;
  if (response.patch) patches.push(response.patch);
  return response;
}

test('contains no credential', async () => {
  const created = await review({ object: manifest(configWith(secretText())) });
  const stored = applied(manifest(configWith(secretText())), JSON.parse(decode(created.patch ?? '')));
  const mark = '2026-11-23T12:00:00Z';
  const marked = annotated(stored, { [ANNOTATION.requestedAt]: mark });
  const forced = annotated(marked, { [ANNOTATION.force]: mark });
  const answers = [created];
  for (const mode of ['ok', 'throttle', 'down', 'denied', 'hang'] as const) {
    webhook.ecr.settings.mode = mode;
    for (const object of [
      marked,
      annotated(forced, { [ANNOTATION.requestedAt]: mode, [ANNOTATION.force]: mode }),
    ])
      answers.push(await review({ object, oldObject: stored }));
    answers.push(
      await review({
        object: holding(stored, configWith(secretText(), webhook.ecr.host)),
        oldObject: stored,
      }),
    );
    answers.push(await review({ object: { ...manifest(configWith(secretText())), type: 'Opaque' } }));
    answers.push(await review({ object: holding(stored, secretText()), oldObject: stored }));
  }
  expect(new Set(answers.map(({ allowed }) => allowed))).toEqual(new Set([true, false]));

  // Bodies that cannot be read, and a document that cannot be processed.
  const whole = JSON.stringify(reviewOf({ object: manifest(configWith(secretText())) }));
  expect((await webhook.send(WEBHOOK_PATH, `${whole.slice(0, -3)}${secretText()}`)).status).toBe(400);
  expect((await webhook.send(WEBHOOK_PATH, secretText())).status).toBe(400);
  const deep = `{"auths":{"registry.example.com":{"password":"${secretText()}","a":${'['.repeat(200_000)}${']'.repeat(200_000)}}}}`;
  expect((await review({ object: manifest(deep) })).uid).toBeDefined();
  const odd = { ...manifest(), data: { [SECRET_KEY]: [secretText()] } };
  const { text } = await webhook.send(
    WEBHOOK_PATH,
    JSON.stringify({
      ...reviewOf({ object: manifest() }),
      request: { ...reviewOf({ object: manifest() }).request, object: odd },
    }),
  );
  expect(text).toContain('object.data');

  // The log is written after the answer.
  const admissionCount = () => webhook.program.log().match(/"msg":"admission"/g)?.length;
  await expect.poll(admissionCount).toBeGreaterThanOrEqual(answers.length);
  const log = webhook.program.log();
  const minted = webhook.ecr.calls.flatMap(({ password }) => password ?? []);
  expect(minted.length).toBeGreaterThan(1);
  expect(patches.length).toBeGreaterThan(1);
  const forbidden = [...[...minted, ...sent].flatMap(traces), ...patches];
  expect(forbidden.filter((trace) => log.includes(trace))).toEqual([]);

  // The search itself works: it finds credentials in the patches.
  expect(traces(minted[0] ?? '').some((trace) => decode(patches[0] ?? '').includes(trace))).toBe(true);

  const lines = log
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const admissions = lines.filter(({ msg }) => msg === 'admission');
  for (const line of admissions.filter(({ reason }) => reason !== 'malformed')) {
    expect(line).toMatchObject({
      uid: expect.any(String),
      operation: expect.stringMatching(/^(CREATE|UPDATE)$/),
      secret: 'team-a/pull',
      user: 'alice',
      action: expect.any(String),
      reason: expect.any(String),
    });
  }
});
