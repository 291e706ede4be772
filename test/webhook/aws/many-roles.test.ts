// Hundreds of roles with an ECR that allows twenty calls a second: the webhook answers every request in time, with few
// calls, and from its cache.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { denialCauses, registryField, registryOf } from '../../../contract/denials.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import { virtualClock } from '../../virtual-clock.ts';
import { ask, sample } from '../ask.ts';
import { type RunningWebhook, runWebhook } from '../running-webhook.ts';
import { annotated, authsOf, edited, type Manifest, manifest } from '../support.ts';

const SECOND = 1_000;
/** How long the API server waits: twice the chart's default, so that the test passes on a busy machine. */
const TIMEOUT_S = 20;
const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-roles-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const hostOf = (index: number) => `${100_000_000_000 + index}.dkr.ecr.eu-central-1.amazonaws.com`;
const roleOf = (index: number) => `arn:aws:iam::${100_000_000_000 + index}:role/pull`;
const numbers = (count: number) => Array.from({ length: count }, (_, index) => index);

/** A policy with one registry per role. @param namespaces returns the namespace by the role's number */
const policyOf = (count: number, namespaces: (index: number) => string) =>
  JSON.stringify({
    registries: numbers(count).map((index) => ({
      host: hostOf(index),
      roleArn: roleOf(index),
      namespaces: [namespaces(index)],
    })),
  });
const secretIn = (namespace: string): Manifest =>
  edited(manifest(), ({ metadata }) => {
    metadata.namespace = namespace;
  });
const callsByMetric = async (webhook: RunningWebhook, result?: string) =>
  sample(await webhook.metrics(), 'ecr_anywhere_ecr_calls_total', result === undefined ? {} : { result });

describe('150 roles, one per namespace', () => {
  const PAIRS = 150;
  const clock = virtualClock(join(dir, 'clock'));
  const namespaceOf = (index: number) => `team-${index}`;
  let webhook: RunningWebhook;
  const stored = new Map<number, Manifest>();
  afterAll(() => webhook?.[Symbol.asyncDispose]());

  test('with a cold cache, all requests are answered in time with at most two attempts each', async () => {
    webhook = await runWebhook({
      clock,
      policy: policyOf(PAIRS, namespaceOf),
      env: { TIMEOUT_SECONDS: String(TIMEOUT_S) },
    });
    webhook.ecr.settings.limit = { perSecond: 20, burst: 100, refillsAfterCalls: 115 };
    const answers = await Promise.all(
      numbers(PAIRS).map((index) => ask(webhook, { object: secretIn(namespaceOf(index)) })),
    );
    const { calls, stsCalls } = webhook.ecr;
    const refused: string[] = [];
    answers.forEach(({ response, secret, ms }, index) => {
      expect(ms).toBeLessThan(TIMEOUT_S * SECOND);
      if (response.allowed) stored.set(index, secret);
      else refused.push(response.status?.message ?? '');
    });
    // Second attempts are spread over time; on a busy machine some may coincide. Usually none is denied.
    expect(refused.length).toBeLessThanOrEqual(5);
    for (const message of refused) expect(message).toContain('ThrottlingException: Rate exceeded');
    const throttled = calls.filter(({ outcome }) => outcome === 'throttle').length;
    // The first 115 calls exceed the burst by 15, however fast this machine is.
    expect(throttled).toBeGreaterThanOrEqual(15);
    expect(calls.length).toBeLessThanOrEqual(2 * PAIRS);
    expect(calls.filter(({ outcome }) => outcome === 'ok')).toHaveLength(PAIRS - refused.length);
    expect(stsCalls).toHaveLength(PAIRS);
    expect(await callsByMetric(webhook, 'throttled')).toBe(throttled);
    expect(await callsByMetric(webhook)).toBe(calls.length);

    clock.advance(5 * SECOND);
    for (const index of numbers(PAIRS).filter((number) => !stored.has(number))) {
      const { response, secret } = await ask(webhook, { object: secretIn(namespaceOf(index)) });
      expect(response).toMatchObject({ allowed: true });
      stored.set(index, secret);
    }
  });

  test('each got the token of its own role', () => {
    const passwords = new Map(webhook.ecr.calls.map(({ role, password }) => [role, password]));
    expect(stored.size).toBe(PAIRS);
    for (const [index, secret] of stored)
      expect(authsOf(secret)).toMatchObject({ [hostOf(index)]: { password: passwords.get(roleOf(index)) } });
  });

  test('a minute with a warm cache needs no call', async () => {
    const before = [webhook.ecr.calls.length, webhook.ecr.stsCalls.length];
    for (let second = 0; second < 60; second++) {
      clock.advance(SECOND);
      await Promise.all(
        numbers(15).map(async (offset) => {
          const index = (second * 15 + offset) % PAIRS;
          const oldObject = stored.get(index) ?? manifest();
          const object = [
            secretIn(namespaceOf(index)),
            annotated(oldObject, { 'example.com/owner': String(second) }),
            annotated(oldObject, { [ANNOTATION.requestedAt]: new Date(clock.now()).toISOString() }),
          ][offset % 3];
          if (!object) throw new Error('no object');
          const { response } = await ask(webhook, offset % 3 === 0 ? { object } : { object, oldObject });
          expect(response).toMatchObject({ allowed: true });
          expect(response).not.toHaveProperty('warnings');
        }),
      );
    }
    expect([webhook.ecr.calls.length, webhook.ecr.stsCalls.length]).toEqual(before);
  });
});

test('a Secret with 60 roles gets all entries although the burst is smaller', async () => {
  await using webhook = await runWebhook({
    policy: policyOf(60, () => 'team-a'),
    env: { TIMEOUT_SECONDS: String(TIMEOUT_S) },
  });
  webhook.ecr.settings.limit = { perSecond: 20, burst: 30 };
  const { response, secret, ms } = await ask(webhook, { object: manifest() });
  expect(ms).toBeLessThan(TIMEOUT_S * SECOND);
  expect(response.status?.message).toBeUndefined();
  expect(Object.keys(authsOf(secret))).toHaveLength(60);
  expect(webhook.ecr.calls.length).toBeLessThanOrEqual(120);
});

test('hundreds of denied admissions do not cause hundreds of calls', async () => {
  await using webhook = await runWebhook({ policy: policyOf(10, () => '*') });
  webhook.ecr.settings.limit = { perSecond: 0, burst: 0 };
  const startedAt = performance.now();
  let refused = 0;
  while (performance.now() - startedAt < 4 * SECOND) {
    const answers = await Promise.all(numbers(20).map(() => ask(webhook, { object: manifest() })));
    for (const { response } of answers) {
      expect(response).toMatchObject({ allowed: false, status: { code: 503 } });
      expect(response.status?.details.causes.map((cause) => [cause.reason, registryOf(cause)])).toEqual([
        ['no-token', undefined],
        ...numbers(10).map((index) => ['ecr-throttled', hostOf(index)]),
      ]);
      refused += 1;
    }
  }
  // Several waves of twenty: without the webhook's cache of failures, each would call ECR again.
  expect(refused).toBeGreaterThanOrEqual(60);
  // Two attempts per role, and at most two more after the cached failure expired.
  expect(webhook.ecr.calls.length).toBeLessThanOrEqual(10 * 2 * 2);
  webhook.ecr.settings.limit = undefined;
  await expect
    .poll(async () => (await ask(webhook, { object: manifest() })).response.allowed, { timeout: 10_000 })
    .toBe(true);
});

test('an STS that is silent for one role does not delay another one', async () => {
  await using webhook = await runWebhook({
    policy: policyOf(2, (index) => `team-${index}`),
    env: (ecr) => ({ TIMEOUT_SECONDS: String(TIMEOUT_S), ...ecr.env }),
  });
  webhook.ecr.settings.roles[roleOf(0)] = { silent: true };
  const order: string[] = [];
  const [silent, other] = await Promise.all(
    [0, 1].map(async (index) => {
      const answer = await ask(webhook, { object: secretIn(`team-${index}`) });
      order.push(`team-${index}`);
      return answer;
    }),
  );
  expect(order).toEqual(['team-1', 'team-0']);
  expect(other?.response).toMatchObject({ allowed: true });
  expect(other?.ms).toBeLessThan(4 * SECOND);
  expect(silent?.ms).toBeLessThan(TIMEOUT_S * SECOND);
  expect(denialCauses(silent?.response.status)).toEqual([
    expect.objectContaining({ reason: 'no-token' }),
    {
      reason: 'ecr-unavailable',
      field: registryField(hostOf(0)),
      message: expect.stringContaining('TimeoutError'),
    },
  ]);
});
