// The policy document of a running webhook: a new one is used without a restart, an invalid one is not. And the metrics.
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { denialCauses } from '../../contract/denials.ts';
import { ANNOTATION } from '../../contract/names.ts';
import { freePorts } from '../bed/process.ts';
import { ask, sample } from './ask.ts';
import { OWN_REGISTRY, type RunningWebhook, runWebhook } from './running-webhook.ts';
import { annotated, authsOf, edited, type Manifest, manifest } from './support.ts';

const POLL = { timeout: 10_000, interval: 50 };
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
  secret?: string;
}
const linesOf = (webhook: RunningWebhook) =>
  webhook.program
    .log()
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line) as Line);
const logged = (webhook: RunningWebhook, msg: string) => linesOf(webhook).filter((line) => line.msg === msg);

describe('a policy document that changes', () => {
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

  test('adds the entry of a new registry without a restart', async () => {
    expect(await hosts()).toEqual([HOST]);
    const calls = webhook.ecr.calls.length;
    await webhook.setPolicy(policyOf([HOST, OTHER]));
    await expect.poll(async () => (await hosts()).length, POLL).toBe(2);
    // The log is written after the answer.
    await expect.poll(() => logged(webhook, 'new policy in use')).toHaveLength(1);
    // The cached token of the other registry is reused.
    expect(webhook.ecr.calls.slice(calls)).toMatchObject([{ region: 'us-east-1', role: ROLE }]);
    expect(await isValid()).toBe(1);
  });

  test('is not used while it is invalid, and the log names every problem once', async () => {
    await webhook.setPolicy(
      `loglevel: info\nregistries: [{host: ghcr.io, namespaces: ["*"]}, {host: ${HOST}}]`,
    );
    await expect.poll(isValid, POLL).toBe(0);
    expect(await hosts()).toEqual([HOST, OTHER]);
    // The webhook reads it again meanwhile, and the problems are the same.
    await sleep(6_000);
    const refusals = logged(webhook, 'policy not replaced');
    expect(refusals).toHaveLength(1);
    for (const part of ['Unrecognized key: "loglevel"', 'registries[0].host: ', 'registries[1].namespaces: '])
      expect(refusals[0]?.message).toContain(part);
  });

  test('is valid again when the earlier one is restored, and is not reported as new', async () => {
    await webhook.setPolicy(policyOf([HOST, OTHER]));
    await expect.poll(isValid, POLL).toBe(1);
    expect(logged(webhook, 'new policy in use')).toHaveLength(1);
    expect(await hosts()).toEqual([HOST, OTHER]);
  });

  test('removes the entries of a removed registry at the next admission', async () => {
    await webhook.setPolicy(policyOf([OTHER]));
    await expect.poll(async () => (await hosts()).join(), POLL).toBe(OTHER);
  });

  /** Sets a document and waits until it is in use. The log cannot show that: its level may hide the line. */
  const use = async (names: readonly string[], more: object = {}) => {
    await webhook.setPolicy(policyOf(names, more));
    await expect.poll(async () => (await hosts()).join(), POLL).toBe([...names].sort().join());
  };
  const admit = (name: string, type?: string) =>
    ask(webhook, {
      object: edited(manifest(), (copy) => {
        copy.metadata.name = name;
        if (type !== undefined) copy.type = type;
      }),
    });
  const admitted = () => logged(webhook, 'admission').map(({ secret }) => secret);
  /** The log is written a moment after the answer, and in order. */
  const isLogged = (name: string) => expect.poll(admitted, POLL).toContain(`team-a/${name}`);

  test('sets the log level', async () => {
    await use([HOST, OTHER], { logLevel: 'warn' });
    await admit('good-at-warn');
    await admit('refused-at-warn', 'Opaque');
    await isLogged('refused-at-warn');
    expect(admitted()).not.toContain('team-a/good-at-warn');

    await use([OTHER], { logLevel: 'debug' });
    await admit('good-at-debug');
    await isLogged('good-at-debug');

    await use([HOST, OTHER], { logLevel: 'error' });
    await admit('refused-at-error', 'Opaque');
    // Without a level the one of the environment.
    await use([OTHER]);
    await admit('good-at-last');
    await isLogged('good-at-last');
    expect(admitted()).not.toContain('team-a/refused-at-error');
  });

  test('is reported again when it becomes invalid a second time', async () => {
    const refusals = () => logged(webhook, 'policy not replaced').length;
    const before = refusals();
    await webhook.setPolicy('registries: [');
    await expect.poll(refusals, POLL).toBe(before + 1);
    await webhook.setPolicy(policyOf([OTHER]));
    await expect.poll(isValid, POLL).toBe(1);
    await webhook.setPolicy('registries: [');
    await expect.poll(refusals, POLL).toBe(before + 2);
    expect(await hosts()).toEqual([OTHER]);
  });
});

describe('a document that is invalid when the webhook starts', () => {
  const INVALID = `loglevel: info\nregistries: [{host: ghcr.io}, {host: ${HOST}, externalId: x y}]`;
  let webhook: RunningWebhook;
  const probe = (path: string) => webhook.send(path, undefined, { method: 'GET' });
  const isValid = async () => sample(await webhook.metrics(), 'ecr_anywhere_policy_valid');

  beforeAll(async () => {
    webhook = await runWebhook({ policy: INVALID, startedPath: '/healthz' });
  });
  afterAll(() => webhook?.[Symbol.asyncDispose]());

  test('leaves it live, not ready, and one line names every problem', async () => {
    expect(await probe('/healthz')).toMatchObject({ status: 200 });
    const { status, text } = await probe('/readyz');
    expect(status).toBe(503);
    // Every pod can read the answer.
    expect(JSON.parse(text)).toMatchObject({ message: expect.stringContaining('no policy in use') });
    for (const secret of ['ghcr.io', HOST]) expect(text).not.toContain(secret);
    expect(await isValid()).toBe(0);
    const lines = logged(webhook, 'no policy in use');
    expect(lines).toHaveLength(1);
    for (const part of [
      join(webhook.dir, 'policy.yaml'),
      'Unrecognized key: "loglevel"',
      'registries[0].host: is not an ECR host',
      'registries[0].namespaces: list the namespaces',
      'registries[1].namespaces: list the namespaces',
      'registries[1].externalId: is not an external id',
    ])
      expect(lines[0]?.message).toContain(part);
  });

  test('denies every managed Secret, and lets others pass', async () => {
    const { response } = await ask(webhook, { object: manifest() });
    expect(response).toMatchObject({ allowed: false, status: { code: 503 } });
    expect(denialCauses(response.status)).toMatchObject([{ reason: 'policy-invalid' }]);
    expect(JSON.stringify(response)).not.toContain('ghcr.io');
    const unmanaged = edited(manifest(), ({ metadata }) => {
      metadata.labels = {};
    });
    expect((await ask(webhook, { object: unmanaged })).response.allowed).toBe(true);
    expect(webhook.ecr.calls).toEqual([]);
  });

  test('is reported again when it is invalid in another way', async () => {
    await webhook.setPolicy('registries: [');
    await expect.poll(() => logged(webhook, 'no policy in use').length, POLL).toBe(2);
    expect((await probe('/readyz')).status).toBe(503);
    expect(await isValid()).toBe(0);
  });

  test('becomes ready without a restart when the document is mended', async () => {
    await webhook.setPolicy(policyOf([HOST]));
    await expect.poll(async () => (await probe('/readyz')).status, POLL).toBe(200);
    expect(await isValid()).toBe(1);
    expect(webhook.program.isRunning()).toBe(true);
    const { secret } = await ask(webhook, { object: manifest() });
    expect(Object.keys(authsOf(secret))).toEqual([HOST]);
  });

  test('keeps the mended one when it is invalid again', async () => {
    await webhook.setPolicy('registries: [');
    await expect.poll(() => logged(webhook, 'policy not replaced').length, POLL).toBe(1);
    expect((await probe('/readyz')).status).toBe(200);
  });
});

describe('a document that names no namespace', () => {
  test.each(['', '# all entries are commented out', 'ownRegistry:\nregistries:'])(
    'is valid, and gives nothing: %j',
    async (policy) => {
      await using webhook = await runWebhook({ policy });
      expect(sample(await webhook.metrics(), 'ecr_anywhere_policy_valid')).toBe(1);
      const { response } = await ask(webhook, { object: manifest() });
      expect(denialCauses(response.status)).toMatchObject([{ reason: 'not-entitled' }]);
      expect(webhook.ecr.calls).toEqual([]);
    },
  );

  test('takes access away when it replaces one that names some', async () => {
    await using webhook = await runWebhook({ policy: OWN_REGISTRY });
    const { secret: stored } = await ask(webhook, { object: manifest() });
    expect(Object.keys(authsOf(stored))).toEqual([HOST]);
    await webhook.setPolicy('registries: []');
    const change = { object: annotated(stored, { a: 'b' }), oldObject: stored };
    await expect
      .poll(async () => Object.keys(authsOf((await ask(webhook, change)).secret)), POLL)
      .toEqual([]);
    const { response } = await ask(webhook, { object: manifest() });
    expect(denialCauses(response.status)).toMatchObject([{ reason: 'not-entitled' }]);
  });

  test('is not what a missing document is: the webhook is not ready', async () => {
    await using webhook = await runWebhook({
      env: { POLICY_FILE: '/nonexistent/policy.yaml' },
      startedPath: '/healthz',
    });
    expect(await webhook.send('/readyz', undefined, { method: 'GET' })).toMatchObject({ status: 503 });
    expect(logged(webhook, 'no policy in use')).toMatchObject([
      { message: expect.stringContaining('/nonexistent/policy.yaml') },
    ]);
  });
});

describe('metrics', () => {
  test('count admissions by action and reason, and calls to AWS by result', async () => {
    await using webhook = await runWebhook({ policy: policyOf([HOST, OTHER]) });
    const { secret } = await ask(webhook, { object: manifest() });
    await ask(webhook, { object: annotated(secret, { a: 'b' }), oldObject: secret });
    webhook.ecr.settings.roles[ROLE] = { denied: true };
    webhook.ecr.settings.mode = 'down';
    const mark = new Date().toISOString();
    const forced = annotated(secret, {
      [ANNOTATION.requestedAt]: mark,
      [ANNOTATION.force]: mark,
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
    // The webhook still has a session of this role; only a new one would be denied.
    expect(calls(ROLE, 'unavailable')).toBe(3);

    const of = (name: string, registry: string) => sample(metrics, `ecr_anywhere_${name}`, { registry });
    const minted = webhook.ecr.calls.find(({ role }) => role === ROLE);
    expect(of('token_expiry_timestamp_seconds', OTHER)).toBeCloseTo((minted?.expiresAt ?? 0) / 1000, 0);
    expect(of('token_obtained_timestamp_seconds', OTHER)).toBeGreaterThan(Date.now() / 1000 - 30);
    expect([of('registry_failing', HOST), of('registry_failing', OTHER)]).toEqual([1, 1]);
    expect(metrics).toMatch(/^nodejs_eventloop_lag_seconds /m);
    expect(metrics.match(/(?<=^# TYPE )ecr_anywhere_.*/gm)?.sort()).toEqual([
      'ecr_anywhere_admission_duration_seconds histogram',
      'ecr_anywhere_admissions_total counter',
      'ecr_anywhere_certificate_expiry_timestamp_seconds gauge',
      'ecr_anywhere_certificate_failing gauge',
      'ecr_anywhere_ecr_calls_total counter',
      'ecr_anywhere_policy_valid gauge',
      'ecr_anywhere_registry_failing gauge',
      'ecr_anywhere_token_expiry_timestamp_seconds gauge',
      'ecr_anywhere_token_obtained_timestamp_seconds gauge',
    ]);
    const labels = `registry="${OTHER}",region="us-east-1",role="${ROLE}"`;
    expect(metrics).toContain(`ecr_anywhere_registry_failing{${labels}} 1`);
    expect(metrics).toContain(`ecr_anywhere_token_expiry_timestamp_seconds{${labels}} `);
    // No namespace, no user, no credential.
    for (const word of ['team-a', 'alice', 'ecr-token-', 'secret-access-key-', 'session-token-', 'ASIA'])
      expect(metrics).not.toContain(word);
  });

  test('are the only thing that their port serves', async () => {
    const [port = 0] = await freePorts(1);
    await using webhook = await runWebhook({ env: { METRICS_PORT: String(port) } });
    const status = async (path: string, method = 'GET') =>
      (await fetch(`http://127.0.0.1:${port}${path}`, { method })).status;
    expect(await status('/metrics')).toBe(200);
    for (const path of ['/', '/metrics/x', '/healthz', '/readyz', '/sync', '/debug/pprof', '/../etc/passwd'])
      expect(await status(path), path).toBe(404);
    for (const method of ['POST', 'PUT', 'DELETE']) {
      expect(await status('/metrics', method)).toBe(404);
      expect(await status('/sync', method)).toBe(404);
    }
    // The API server's port serves no metrics.
    expect(await webhook.send('/metrics', undefined, { method: 'GET' })).toMatchObject({ status: 404 });
  });

  test('contain no token times before the first token', async () => {
    await using webhook = await runWebhook();
    const metrics = await webhook.metrics();
    expect(metrics).not.toMatch(/^ecr_anywhere_token_/m);
    expect(sample(metrics, 'ecr_anywhere_registry_failing')).toBe(0);
    expect(sample(metrics, 'ecr_anywhere_policy_valid')).toBe(1);
  });
});
