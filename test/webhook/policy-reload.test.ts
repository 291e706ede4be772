// The policy document of a running webhook: read again when it changes, kept when it is wrong. And what Prometheus reads.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ask, eventually, sample } from './ask.ts';
import { type RunningWebhook, runWebhook } from './running-webhook.ts';
import { annotated, authsOf, edited, type Manifest, manifest } from './support.ts';

const HOST = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';
const OTHER = '210987654321.dkr.ecr.us-east-1.amazonaws.com';
const ROLE = 'arn:aws:iam::210987654321:role/pull';
const policyOf = (hosts: readonly string[], more: object = {}) =>
  JSON.stringify({
    ...more,
    registries: hosts.map((host) => ({
      host,
      namespaces: ['team-a'],
      ...(host === OTHER && { roleArn: ROLE }),
    })),
  });

interface Line {
  level: number;
  msg: string;
  message?: string;
}
const linesOf = (webhook: RunningWebhook) =>
  webhook.program
    .log()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
const said = (webhook: RunningWebhook, msg: string) => linesOf(webhook).filter((line) => line.msg === msg);

describe('a document that changes', () => {
  let webhook: RunningWebhook;
  let stored: Manifest;
  const hosts = async () => {
    const { secret } = await ask(webhook, { object: annotated(stored, { a: 'b' }), oldObject: stored });
    stored = secret;
    return Object.keys(authsOf(stored)).sort();
  };
  const isValid = async () => sample(await webhook.metrics(), 'ecr_anywhere_policy_valid');

  beforeAll(async () => {
    webhook = await runWebhook({ policy: policyOf([HOST]) });
    ({ secret: stored } = await ask(webhook, { object: manifest() }));
  });
  afterAll(() => webhook?.[Symbol.asyncDispose]());

  test('a registry that is added is given, without a restart', async () => {
    expect(await hosts()).toEqual([HOST]);
    const calls = webhook.ecr.calls.length;
    await webhook.setPolicy(policyOf([HOST, OTHER]));
    await eventually(async () => (await hosts()).length === 2);
    expect(said(webhook, 'new policy in use')).toHaveLength(1);
    // The token that was there already serves on.
    expect(webhook.ecr.calls.slice(calls)).toMatchObject([{ region: 'us-east-1', role: ROLE }]);
    expect(await isValid()).toBe(1);
  });

  test('one that is wrong changes nothing, and every problem is told, once', async () => {
    await webhook.setPolicy(
      `loglevel: info\nregistries: [{host: ghcr.io, namespaces: ["*"]}, {host: ${HOST}}]`,
    );
    await eventually(async () => (await isValid()) === 0);
    expect(await hosts()).toEqual([HOST, OTHER]);
    // Looked at again, it is the same mistake.
    await sleep(6_000);
    const told = said(webhook, 'policy not replaced');
    expect(told).toHaveLength(1);
    for (const part of ['Unrecognized key: "loglevel"', 'registries[0].host: ', 'registries[1].namespaces: '])
      expect(told[0]?.message).toContain(part);
  });

  test('put back, all is well again, and nothing has changed', async () => {
    await webhook.setPolicy(policyOf([HOST, OTHER]));
    await eventually(async () => (await isValid()) === 1);
    expect(said(webhook, 'new policy in use')).toHaveLength(1);
    expect(await hosts()).toEqual([HOST, OTHER]);
  });

  test('one registry less: it leaves at the next admission', async () => {
    await webhook.setPolicy(policyOf([OTHER]));
    await eventually(async () => (await hosts()).join() === OTHER);
  });

  test('the log level goes with it', async () => {
    const admissions = () => said(webhook, 'admission').length;
    await webhook.setPolicy(policyOf([OTHER], { logLevel: 'warn' }));
    // The log is written a moment after the answer.
    const adds = async (ask: () => Promise<unknown>) => {
      const before = admissions();
      await ask();
      await sleep(300);
      return admissions() - before;
    };
    await eventually(async () => (await adds(hosts)) === 0);
    const refused = edited(manifest(), (copy) => {
      copy.type = 'Opaque';
    });
    expect(await adds(() => ask(webhook, { object: refused }))).toBe(1);
    await webhook.setPolicy(policyOf([OTHER]));
    await eventually(async () => (await adds(hosts)) === 1);
  });
});

test('a document that is wrong at the start keeps it from starting', async () => {
  await expect(runWebhook({ policy: 'registries: [{host: ghcr.io}]' })).rejects.toThrow(
    /the webhook ended(.|\n)*policy\.yaml cannot be used: registries\[0\]\.host: is no ECR host.*; registries\[0\]\.namespaces: say which/,
  );
});

describe('metrics', () => {
  test('of a good admission, of a refused one, and of an AWS that fails', async () => {
    await using webhook = await runWebhook({ policy: policyOf([HOST, OTHER]) });
    const { secret } = await ask(webhook, { object: manifest() });
    await ask(webhook, { object: annotated(secret, { a: 'b' }), oldObject: secret });
    webhook.ecr.settings.roles[ROLE] = { denied: true };
    webhook.ecr.settings.mode = 'down';
    const mark = new Date().toISOString();
    const forced = annotated(secret, {
      'ecr-anywhere.centml.ai/marked_for_update_at': mark,
      'ecr-anywhere.centml.ai/force': mark,
    });
    await ask(webhook, { object: forced, oldObject: secret });
    await webhook.send('/sync', '{}');
    const metrics = await webhook.metrics();

    const admissions = (labels: Record<string, string>) =>
      sample(metrics, 'ecr_anywhere_admissions_total', labels);
    expect(admissions({ operation: 'CREATE', action: 'inject', reason: 'created' })).toBe(1);
    expect(admissions({ operation: 'UPDATE', action: 'keep', reason: 'fresh' })).toBe(1);
    expect(admissions({ operation: 'UPDATE', action: 'deny', reason: 'no-token' })).toBe(1);
    expect(admissions({ operation: '', action: 'deny', reason: 'malformed' })).toBe(1);
    expect(sample(metrics, 'ecr_anywhere_admission_duration_seconds_count')).toBe(4);
    expect(sample(metrics, 'ecr_anywhere_admission_duration_seconds_sum')).toBeGreaterThan(0);

    const calls = (role: string, result: string) =>
      sample(metrics, 'ecr_anywhere_ecr_calls_total', { service: 'ecr', role, result });
    expect([calls('', 'ok'), calls(ROLE, 'ok')]).toEqual([1, 1]);
    expect(calls('', 'unavailable')).toBe(3);
    // The session that is there is used on: this role is denied to whoever asks anew.
    expect(calls(ROLE, 'unavailable')).toBe(3);

    const of = (name: string, registry: string) => sample(metrics, `ecr_anywhere_${name}`, { registry });
    const minted = webhook.ecr.calls.find(({ role }) => role === ROLE);
    expect(of('token_expiry_timestamp_seconds', OTHER)).toBeCloseTo((minted?.expiresAt ?? 0) / 1000, 0);
    expect(of('token_obtained_timestamp_seconds', OTHER)).toBeGreaterThan(Date.now() / 1000 - 30);
    expect([of('registry_failing', HOST), of('registry_failing', OTHER)]).toEqual([1, 1]);
    expect(metrics).toMatch(/^nodejs_eventloop_lag_seconds /m);
  });

  test('before the first token there is none to tell of', async () => {
    await using webhook = await runWebhook();
    const metrics = await webhook.metrics();
    expect(metrics).not.toMatch(/^ecr_anywhere_token_/m);
    expect(sample(metrics, 'ecr_anywhere_registry_failing')).toBe(0);
    expect(sample(metrics, 'ecr_anywhere_policy_valid')).toBe(1);
  });
});
