// The whole loop with real parts: the schedule, the deployed function with its own role, API servers, the chart, the
// webhook bundle, and TLS between all of them. Only AWS is emulated.
import { once } from 'node:events';
import { createServer, type Server } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { formatTime, freshness, parseTime } from '../../contract/freshness.ts';
import { ANNOTATION, SECRET_KEY } from '../../contract/names.ts';
import { METRIC } from '../../functions/refresher/settings.ts';
import { embeddedMetrics } from '../bed/cloudwatch-alarms.ts';
import { relayMetrics } from '../bed/metrics.ts';
import { Bed, pullSecretManifest } from '../bed/up.ts';

/** Seconds that the function may spend on one cluster. */
const DEADLINE_S = 4;

let bed: Bed;
let hanging: Server;

beforeAll(async () => {
  bed = await Bed.create({
    clusters: ['alpha', 'beta'],
    context: { rateMinutes: 1, clusterDeadlineSeconds: DEADLINE_S },
  });
  await bed.start();
  hanging = createServer(() => {}).listen(0, '127.0.0.1');
  await once(hanging, 'listening');
});

afterAll(async () => {
  hanging?.close();
  await bed?.[Symbol.asyncDispose]();
});

interface Stored {
  readonly annotations: Readonly<Record<string, string>>;
  readonly password: string;
  readonly text: string;
}

async function readSecret(cluster: string, namespace: string, name = 'pull'): Promise<Stored> {
  const { controlPlane } = bed.cluster(cluster);
  const { stdout } = await controlPlane.kubectl(['get', 'secret', name, '-n', namespace, '-o', 'json']);
  const { metadata, data } = JSON.parse(stdout);
  const text = Buffer.from(data[SECRET_KEY], 'base64').toString();
  return { annotations: metadata.annotations, password: JSON.parse(text).auths[bed.ecr.host].password, text };
}

async function apply(cluster: string, text: string): Promise<string> {
  const { controlPlane } = bed.cluster(cluster);
  return (await controlPlane.kubectl(['apply', '-f', '-'], { input: text })).stdout;
}

/** Creates a Secret whose credentials are due from the start. */
async function applyDue(cluster: string, namespace: string): Promise<Stored> {
  // A restarted webhook has no cached token, and it does not reuse the short-lived one later.
  const { webhook } = bed.cluster(cluster);
  await webhook.program.stop();
  await webhook.start();
  bed.ecr.settings.nextLifetimesSeconds = [300];
  await apply(cluster, pullSecretManifest(namespace));
  bed.ecr.settings.nextLifetimesSeconds = [];
  const secret = await readSecret(cluster, namespace);
  expect(freshness(secret.annotations[ANNOTATION.expiresAt], Date.now())).toMatchObject({
    due: true,
    reason: 'expiring',
  });
  // For two seconds after a call, a running webhook reuses its token, even one that is due.
  await webhook.program.stop();
  await webhook.start();
  return secret;
}

describe('one Secret', () => {
  test('is refreshed when the schedule fires, with a token created after that moment', {
    timeout: 150_000,
  }, async () => {
    const before = await applyDue('alpha', 'team-a');
    const since = Date.now();
    await vi.waitFor(
      async () => expect((await readSecret('alpha', 'team-a')).password).not.toBe(before.password),
      {
        timeout: 120_000,
        interval: 500,
      },
    );
    await bed.deployment.stopSchedule();

    const { annotations, password } = await readSecret('alpha', 'team-a');
    // The request carries the time of the run, and so far only the schedule has invoked the function.
    const requestedAt = parseTime(annotations[ANNOTATION.requestedAt] ?? '') ?? 0;
    const call = bed.ecr.calls.find((candidate) => candidate.password === password);
    expect(requestedAt).toBeGreaterThan(since);
    expect(call?.at).toBeGreaterThanOrEqual(requestedAt);
    expect(annotations[ANNOTATION.expiresAt]).toBe(formatTime(call?.expiresAt ?? 0));
    const updatedAt = parseTime(annotations[ANNOTATION.updatedAt] ?? '') ?? 0;
    expect(updatedAt).toBeGreaterThanOrEqual(Math.floor((call?.at ?? 0) / 1000) * 1000);
    expect(updatedAt).toBeLessThanOrEqual(Date.now());
  });

  test('does not change when its manifest is applied again, and shows no difference', async () => {
    expect(await apply('alpha', pullSecretManifest('team-a'))).toMatch(/^secret\/pull unchanged$/m);
    const { controlPlane } = bed.cluster('alpha');
    const diff = await controlPlane.kubectl(['diff', '-f', '-'], {
      input: pullSecretManifest('team-a'),
      mayFail: true,
    });
    expect(diff).toMatchObject({ code: 0, stdout: '' });
  });
});

describe('two healthy clusters, one that never responds, and one whose secret is not a kubeconfig', () => {
  const address = () => {
    const { port } = hanging.address() as { port: number };
    return bed
      .cluster('alpha')
      .controlPlane.kubeconfigForToken('x')
      .replace(/server: .*/, `server: https://127.0.0.1:${port}`);
  };

  test('a run refreshes the healthy ones, and names and counts the others with a reason', async () => {
    await bed.deployment.registerCluster('hanging', address());
    await bed.deployment.registerCluster('scribble', 'not: [a kubeconfig');
    const before = { alpha: await applyDue('alpha', 'team-b'), beta: await applyDue('beta', 'team-b') };
    const since = Date.now();

    const { payload, functionError } = await bed.deployment.invoke();

    expect(functionError).toBeUndefined();
    expect(payload).toMatchObject({
      clusters: [
        { cluster: 'alpha', served: true, failed: false, outcomes: { refreshed: 1 } },
        { cluster: 'beta', served: true, failed: false, outcomes: { refreshed: 1 } },
        {
          cluster: 'hanging',
          served: false,
          failed: true,
          reason: expect.stringContaining('no answer before'),
        },
        { cluster: 'scribble', served: false, failed: true, reason: expect.stringContaining('not YAML') },
      ],
    });
    for (const cluster of ['alpha', 'beta'] as const) {
      expect((await readSecret(cluster, 'team-b')).password).not.toBe(before[cluster].password);
    }
    const log = (await bed.deployment.logs(since)).map(({ message }) => message);
    for (const name of ['hanging', 'scribble']) {
      const line = log.filter((text) => text.startsWith('{')).map((text) => JSON.parse(text));
      expect(line).toContainEqual(
        expect.objectContaining({
          level: 'ERROR',
          message: 'cluster',
          cluster: name,
          reason: expect.any(String),
        }),
      );
    }
    expect(embeddedMetrics(log)).toEqual(
      expect.arrayContaining([
        expect.objectContaining({ name: METRIC.clustersRegistered, value: 4 }),
        expect.objectContaining({ name: METRIC.clustersServed, value: 2 }),
        expect.objectContaining({ name: METRIC.clustersFailed, value: 2 }),
        expect.objectContaining({ name: METRIC.secretsRefreshed, value: 2 }),
      ]),
    );
  });

  test('a run limited to one cluster and namespace changes nothing else, and a dry run changes nothing', async () => {
    const due = { alpha: await applyDue('alpha', 'team-c'), beta: await applyDue('beta', 'team-c') };
    const dry = await bed.deployment.invoke({ clusters: ['beta'], namespaces: ['team-c'], dryRun: true });
    expect(dry.payload).toMatchObject({
      clusters: [{ cluster: 'beta', due: 1, outcomes: { refreshed: 1 } }],
    });
    expect((await readSecret('beta', 'team-c')).text).toBe(due.beta.text);

    await bed.deployment.invoke({ clusters: ['beta'], namespaces: ['team-c'] });
    expect((await readSecret('beta', 'team-c')).password).not.toBe(due.beta.password);
    expect((await readSecret('alpha', 'team-c')).text).toBe(due.alpha.text);
  });

  test('the function names the valid fields for an invalid event, and the registered clusters for an unknown one', async () => {
    const wrong = await bed.deployment.invoke({ cluster: 'alpha' });
    expect(wrong.functionError).toBeUndefined();
    expect(wrong.payload).toMatchObject({
      invalidEvent: { message: expect.stringContaining('"clusters": [names]') },
    });
    const unknown = await bed.deployment.invoke({ clusters: ['gamma'] });
    expect(unknown.functionError).toBeUndefined();
    expect(unknown.payload).toEqual({
      clusters: [],
      notRegistered: { names: ['gamma'], registered: ['alpha', 'beta', 'hanging', 'scribble'] },
    });
  });

  test('an inspection reports the identity of the refresher, and that no right is missing', async () => {
    const { payload } = await bed.deployment.invoke({ action: 'inspect', clusters: ['beta'] });
    expect(payload).toMatchObject({
      clusters: [
        {
          ...{ cluster: 'beta', served: true, failed: false },
          inspection: {
            server: new URL(bed.cluster('beta').controlPlane.server).origin,
            username: 'system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher',
            clusterUid: expect.stringMatching(/^[0-9a-f-]{36}$/),
            kubernetesVersion: expect.stringMatching(/^v1\./),
            clockSkewSeconds: 0,
            forbidden: [],
          },
        },
      ],
    });
  });

  test('the invocation fails if no cluster is served, and the error alarm is in ALARM', async () => {
    await bed.deployment.unregisterCluster('alpha');
    await bed.deployment.unregisterCluster('beta');
    await using _ = relayMetrics(bed.deployment);
    const { functionError, payload } = await bed.deployment.invoke();
    expect(functionError).toBe('Unhandled');
    expect(payload).toMatchObject({
      errorMessage: expect.stringMatching(/None of 2 clusters.*hanging: .*scribble: /s),
    });
    await vi.waitFor(async () => expect(await bed.deployment.alarms()).toMatchObject({ Errors: 'ALARM' }), {
      timeout: 20_000,
      interval: 500,
    });
  });
});

test('no log contains a credential', async () => {
  await sleep(500);
  const logs = [
    ...(await bed.deployment.logs()).map(({ message }) => message),
    ...['alpha', 'beta'].map((name) => bed.cluster(name).webhook.program.log()),
  ].join('\n');
  expect(logs).toContain('"message":"cluster"');
  expect(logs).toContain('"msg":"admission"');
  const passwords = bed.ecr.calls.flatMap(({ password }) => password ?? []);
  expect(passwords.length).toBeGreaterThan(5);
  for (const password of passwords) {
    expect(logs).not.toContain(password);
    expect(logs).not.toContain(Buffer.from(`AWS:${password}`).toString('base64'));
  }
  // Bearer tokens of ServiceAccounts are JWTs. Kubeconfigs name the other credentials.
  expect(logs).not.toMatch(/eyJhbGciOi|client-key-data|PRIVATE KEY/);
});
