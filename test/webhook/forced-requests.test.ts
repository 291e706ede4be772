// Forced requests at the webhook bundle: whatever the callers send, the calls to ECR keep their interval, every request is
// answered in time, and none gets a token from before it.
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, test } from 'vitest';
import { ANNOTATION } from '../../contract/names.ts';
import { ask } from './ask.ts';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';
import { annotated, authsOf, edited, type Manifest, manifest } from './support.ts';

const INTERVAL_MS = 2_000;
/** The calls are timed where they arrive. */
const JITTER_MS = 250;
const TIMEOUT_S = 20;

const forced = (mark: string, from: Manifest = manifest()) =>
  annotated(from, { [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: mark });

/** Creates a Secret with a forced mark, and expects a token of a call that ended after the request was sent. */
async function create(webhook: RunningWebhook, mark: string, username: string): Promise<string> {
  const sentAt = Date.now();
  const { response, secret } = await ask(webhook, { object: forced(mark), username });
  expect(response).toMatchObject({ allowed: true });
  const { password } = authsOf(secret)[webhook.ecr.host] as { password: string };
  const call = webhook.ecr.calls.find((one) => one.password === password);
  expect(call?.at).toBeGreaterThanOrEqual(sentAt);
  return password;
}

const gaps = ({ ecr }: RunningWebhook) =>
  ecr.calls.slice(1).map(({ at }, index) => at - (ecr.calls[index]?.at ?? 0));

/** How long the webhook took for its admissions, by its log: this machine may be slower than the API server's timeout. */
const answeredIn = ({ program }: RunningWebhook) =>
  [...program.log().matchAll(/"ms":(\d+),"msg":"admission"/g)].map(([, ms]) => Number(ms));

test('500 different marks cause a call each two seconds, and other callers are answered from the cache', async () => {
  await using webhook = await runWebhook({ env: { TIMEOUT_SECONDS: String(TIMEOUT_S) } });
  await ask(webhook, { object: manifest() });
  const startedAt = Date.now();
  const attack = Array.from({ length: 500 }, (_, index) => create(webhook, `mark-${index}`, `user-${index}`));
  const over = webhook.client();
  for (const _ of Array.from({ length: 20 })) {
    const { response } = await ask(webhook, { object: manifest() }, over);
    expect(response).toMatchObject({ allowed: true });
    await sleep(200);
  }
  const tokens = new Set(await Promise.all(attack));
  const { calls } = webhook.ecr;
  expect(tokens.size).toBeGreaterThan(1);
  expect(calls.length).toBeLessThanOrEqual(2 + Math.ceil((Date.now() - startedAt) / INTERVAL_MS));
  for (const gap of gaps(webhook)) expect(gap).toBeGreaterThan(INTERVAL_MS - JITTER_MS);
  await expect.poll(() => answeredIn(webhook)).toHaveLength(521);
  expect(Math.max(...answeredIn(webhook))).toBeLessThan(TIMEOUT_S * 1_000);
});

test('while ECR throttles, marks cause no more calls than that, each with its one retry', async () => {
  await using webhook = await runWebhook({ env: { TIMEOUT_SECONDS: String(TIMEOUT_S) } });
  webhook.ecr.settings.mode = 'throttle';
  const startedAt = Date.now();
  await Promise.all(
    Array.from({ length: 200 }, async (_, index) => {
      const { response } = await ask(webhook, { object: forced(`mark-${index}`) });
      expect(response).toMatchObject({ allowed: false, status: { code: 503 } });
    }),
  );
  const starts = 1 + Math.ceil((Date.now() - startedAt) / INTERVAL_MS);
  expect(webhook.ecr.calls.length).toBeLessThanOrEqual(2 * starts);
  await expect.poll(() => answeredIn(webhook)).toHaveLength(200);
  expect(Math.max(...answeredIn(webhook))).toBeLessThan(TIMEOUT_S * 1_000);
});

test('the Secrets of one forced run share a token; another user with the same mark does not get it', async () => {
  await using webhook = await runWebhook({ env: { TIMEOUT_SECONDS: String(TIMEOUT_S) } });
  const first = await create(webhook, 'mark', 'alice');
  const run = await Promise.all(
    Array.from({ length: 30 }, async (_, index) => {
      const object = edited(forced('mark'), ({ metadata }) => {
        metadata.name = `pull-${index}`;
      });
      const { secret } = await ask(webhook, { object, username: 'alice' });
      return (authsOf(secret)[webhook.ecr.host] as { password: string }).password;
    }),
  );
  expect(new Set(run)).toEqual(new Set([first]));
  expect(await create(webhook, 'mark', 'mallory')).not.toBe(first);
  expect(webhook.ecr.calls).toHaveLength(2);
});
