// Tests a run on a real API server with 500 managed Secrets in 20 enabled namespaces among 2,000 others: it requests exactly
// the due Secrets, independently of their writer and of the webhook's clock.
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ANNOTATION } from '../../../../contract/names.ts';
import { jitterOf } from '../../../../functions/refresher/run/plan.ts';
import { HOUR, type Manifest, outcomesOf, type RealCluster, startRealCluster } from '../../real-cluster.ts';

const NAMESPACES = Array.from({ length: 20 }, (_, i) => `team-${i}`);
const SECRETS = Array.from({ length: 500 }, (_, i) => `${NAMESPACES[i % 20]}/pull-${i}`);
const MINUTE = 60_000;
const isDue = (i: number) => i % 2 === 0;

/** Milliseconds until the expiry of the i-th Secret, on both sides of the window, the nearest a minute away. */
function expiryOf(i: number): number {
  const window = 6 * HOUR;
  if (isDue(i)) return window - MINUTE - (i / 500) * 7 * HOUR;
  return window + jitterOf('cluster') + MINUTE + (i / 500) * 4 * HOUR;
}

let cluster: RealCluster;
beforeAll(async () => {
  cluster = await startRealCluster();
  await Promise.all(NAMESPACES.map((name) => cluster.createNamespace(name)));
  await cluster.createNamespace('elsewhere', false);
  const others = Array.from({ length: 2_000 }, (_, i) => ({
    namespace: [...NAMESPACES, 'elsewhere'][i % 21] ?? '',
    name: `other-${i}`,
    managed: false,
    config: { auths: {} },
  }));
  await cluster.createSecrets(others);
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

const manifest = (path: string): Manifest => {
  const [namespace = '', name = ''] = path.split('/');
  return { namespace, name };
};

/** As the original's webhook leaves a Secret: no fingerprint, and times with its machine's offset. */
function originals(path: string, i: number): Manifest {
  const offset = (ms: number) => new Date(ms + 2 * HOUR).toISOString().replace(/\.\d+Z$/, '+02:00');
  const writtenAt = Date.now() + expiryOf(i) - 12 * HOUR;
  const password = 'an older token';
  const auth = Buffer.from(`AWS:${password}`).toString('base64');
  return {
    ...manifest(path),
    annotations: {
      [ANNOTATION.requestedAt]: offset(writtenAt),
      [ANNOTATION.updatedAt]: offset(writtenAt),
      [ANNOTATION.expiresAt]: offset(writtenAt + 12 * HOUR),
    },
    config: { auths: { [`https://${cluster.ecr.host}`]: { username: 'AWS', password, auth } } },
  };
}

const agesOf = () => cluster.age(new Map(SECRETS.map((path, i) => [path, expiryOf(i)])));

/** Restarts the webhook with an empty cache. @param shiftMs how far its clock is ahead */
async function restartWebhook(shiftMs = 0): Promise<void> {
  const preload = fileURLToPath(new URL('../../../shifted-clock.ts', import.meta.url));
  const shifted = { NODE_OPTIONS: `--import=${preload}`, SHIFT_CLOCK_MS: String(shiftMs) };
  await cluster.restartWebhook(shiftMs === 0 ? {} : shifted);
}

interface Case {
  title: string;
  prepare: () => Promise<void>;
  webhookClockMs?: number;
}
test.each<Case>([
  {
    title: 'that this webhook wrote',
    prepare: async () => {
      await cluster.createSecrets(SECRETS.map(manifest));
      await agesOf();
    },
  },
  {
    title: "that CentML/ecr-anywhere's webhook wrote",
    prepare: () =>
      cluster.withoutWebhook(async () => {
        for (const namespace of NAMESPACES) {
          await cluster.admin(
            'DELETE',
            `/api/v1/namespaces/${namespace}/secrets?labelSelector=ecr-anywhere.centml.ai/managed=true`,
          );
        }
        await cluster.createSecrets(SECRETS.map(originals));
      }),
  },
  { title: "while the webhook's clock is five minutes ahead", prepare: agesOf, webhookClockMs: 5 * MINUTE },
  { title: "while the webhook's clock is five minutes behind", prepare: agesOf, webhookClockMs: -5 * MINUTE },
])('refreshes exactly the due Secrets $title', async ({ prepare, webhookClockMs }) => {
  await prepare();
  await restartWebhook(webhookClockMs);
  const before = await cluster.secrets();
  const calls = cluster.ecr.calls.length;
  const startedAt = Date.now();

  const report = await cluster.refresh();

  expect(report.reason).toBeUndefined();
  expect(outcomesOf(report)).toEqual({ refreshed: 250 });
  expect(report).toMatchObject({ served: true, failed: false, managed: 500 });
  expect(report.namespaces).toHaveLength(21);
  const due = SECRETS.filter((_, i) => isDue(i));
  expect(report.results.map(({ secret }) => secret).sort()).toEqual(due.toSorted());

  const [token, ...more] = cluster.ecr.calls.slice(calls);
  expect(more).toEqual([]);
  const after = await cluster.secrets();
  const changed = [...after].filter(
    ([path, { metadata }]) => metadata.resourceVersion !== before.get(path)?.metadata.resourceVersion,
  );
  expect(after.size).toBe(before.size);
  expect(changed.map(([path]) => path).sort()).toEqual(due.toSorted());
  for (const [, { metadata, data }] of changed) {
    const config = Buffer.from(data?.['.dockerconfigjson'] ?? '', 'base64').toString();
    expect(Object.keys(JSON.parse(config).auths)).toEqual([cluster.ecr.host]);
    expect(config).toContain(token?.password);
    const expiresAt = Date.parse(metadata.annotations?.[ANNOTATION.expiresAt] ?? '');
    expect(expiresAt).toBe(Math.floor((token?.expiresAt ?? 0) / 1000) * 1000);
    const updatedAt = Date.parse(metadata.annotations?.[ANNOTATION.updatedAt] ?? '');
    const aheadMs = updatedAt - (webhookClockMs ?? 0) - startedAt;
    expect(Math.abs(aheadMs)).toBeLessThan(MINUTE);
  }
  const soonest = Math.min(
    ...[...after.values()]
      .map(({ metadata }) => Date.parse(metadata.annotations?.[ANNOTATION.expiresAt] ?? ''))
      .filter((time) => !Number.isNaN(time)),
  );
  expect(report.soonestExpiry).toBe(soonest);

  const again = await cluster.refresh();
  expect(again).toMatchObject({ served: true, failed: false, managed: 500, results: [] });
  expect(await cluster.secrets()).toEqual(after);
  expect(cluster.ecr.calls).toHaveLength(calls + 1);
});
