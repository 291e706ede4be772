// Tests a run on a real cluster while ECR fails and hundreds of Secrets are due: each namespace stops early, and stored
// credentials stay as they are.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { TokenFailure } from '../../../../contract/denials.ts';
import type { EcrMode } from '../../../bed/aws-endpoint.ts';
import { HOUR, outcomesOf, type RealCluster, startRealCluster } from '../../real-cluster.ts';

const NAMESPACES = Array.from({ length: 10 }, (_, i) => `team-${i}`);
const SECRETS = Array.from({ length: 500 }, (_, i) => ({
  namespace: NAMESPACES[i % 10] ?? '',
  name: `pull-${i}`,
}));

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await startRealCluster();
  await Promise.all(NAMESPACES.map((name) => cluster.createNamespace(name)));
  await cluster.createSecrets(SECRETS);
  await cluster.age(new Map(SECRETS.map(({ namespace, name }) => [`${namespace}/${name}`, HOUR])));
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

test.each<{ mode: EcrMode; reason: TokenFailure }>([
  { mode: 'throttle', reason: 'ecr-throttled' },
  { mode: 'down', reason: 'ecr-unavailable' },
  { mode: 'denied', reason: 'ecr-denied' },
  { mode: 'hang', reason: 'ecr-unavailable' },
])(
  'stops each namespace after five denials with the cause $reason while ECR is in the mode $mode',
  async ({ mode, reason }) => {
    await cluster.restartWebhook();
    cluster.ecr.settings.mode = mode;
    const before = await cluster.secrets();

    const report = await cluster.refresh();

    expect(report).toMatchObject({
      served: true,
      failed: true,
      managed: 500,
      codes: ['webhook-denied', 'secrets-not-refreshed'],
    });
    const { refused = 0, 'not-attempted': notAttempted, ...others } = outcomesOf(report);
    expect(others).toEqual({});
    // Requests that were sent before a namespace's fifth failure are completed.
    expect(refused).toBeGreaterThanOrEqual(5 * NAMESPACES.length);
    expect(refused).toBeLessThanOrEqual((5 + 7) * NAMESPACES.length);
    expect(notAttempted).toBe(500 - refused);
    for (const { outcome, code, causes = [] } of report.results) {
      if (outcome !== 'refused') continue;
      expect(code).toBe('webhook-denied');
      expect(causes.map((cause) => cause.reason)).toEqual(['no-token', reason]);
    }
    expect(await cluster.secrets()).toEqual(before);
  },
);

test('refreshes all Secrets with one token after ECR has recovered', async () => {
  cluster.ecr.settings.mode = 'ok';
  // The webhook caches a failure for this time.
  await sleep(5_000);
  const calls = cluster.ecr.calls.length;
  const report = await cluster.refresh();
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: 500 });
  expect(cluster.ecr.calls.length - calls).toBe(1);
});
