// ECR fails while hundreds of Secrets are due: the run ends early with one reason, and what is stored stays.
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, expect, test } from 'vitest';
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

test.each<{ mode: EcrMode; says: string }>([
  { mode: 'throttle', says: 'ThrottlingException: Rate exceeded' },
  { mode: 'down', says: 'ServerException: Internal failure' },
  { mode: 'denied', says: 'AccessDeniedException: User is not authorized' },
  { mode: 'hang', says: 'ECR gave no token within' },
])('ECR: $mode', async ({ mode, says }) => {
  await cluster.restartWebhook();
  cluster.ecr.settings.mode = mode;
  const before = await cluster.secrets();

  const report = await cluster.refresh();

  expect(report).toMatchObject({ served: true, failed: true, managed: 500 });
  expect(report.reason).toMatch(/^ended after 5 failures in a row: /);
  expect(report.reason).toContain(says);
  const { refused = 0, 'not-attempted': notAttempted, ...others } = outcomesOf(report);
  expect(others).toEqual({});
  // Those under way when the fifth failed are waited for.
  expect(refused).toBeGreaterThanOrEqual(5);
  expect(refused).toBeLessThanOrEqual(5 + 7);
  expect(notAttempted).toBe(500 - refused);
  for (const { outcome, reason } of report.results) {
    if (outcome === 'refused') expect(reason).toContain(says);
  }
  expect(await cluster.secrets()).toEqual(before);
});

test('ECR is back: all of them are refreshed', async () => {
  cluster.ecr.settings.mode = 'ok';
  // The webhook remembers a failure for so long.
  await sleep(5_000);
  const calls = cluster.ecr.calls.length;
  const report = await cluster.refresh();
  expect(report.failed).toBe(false);
  expect(outcomesOf(report)).toEqual({ refreshed: 500 });
  expect(cluster.ecr.calls.length - calls).toBe(1);
});
