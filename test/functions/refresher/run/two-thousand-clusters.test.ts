// Runs the function's bundle, in a process of its own, over 2,000 registered clusters without due Secrets: counts the
// requests to AWS and limits the memory. It prints the measurements, which are in docs/sizing.md.

import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ScanCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { ENVIRONMENT, METRIC } from '../../../../functions/refresher/settings.ts';
import { embeddedMetrics } from '../../../bed/cloudwatch-alarms.ts';
import { type ApiServer, json, kubeconfigFor, page, startApiServer } from '../../api-server.ts';
import { type ClusterStateTable, startClusterStateTable } from '../../cluster-state-table.ts';
import { bundleIn } from '../../invoke-bundle.ts';
import { type SecretsManager, startSecretsManager } from '../../secrets-manager.ts';

const CLUSTERS = 2_000;
/** Nearly what a secret can hold, 64 KiB (Secrets Manager quotas): together twice what the process may. */
const KUBECONFIG_BYTES = 60_000;
const HEAP_MIB = 64;

let dir: string;
let table: ClusterStateTable;
let registry: SecretsManager;
let server: ApiServer;
let invoke: ReturnType<typeof bundleIn>;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  invoke = bundleIn(join(dir, 'bundle'));
  table = await startClusterStateTable(join(dir, 'aws'));
  server = await startApiServer((_, response) => json(response, page([])));
  const kubeconfig = (index: number) => {
    const text = kubeconfigFor(server, `token-${index}`, `/${index}`);
    return `${text}\n# ${'x'.repeat(KUBECONFIG_BYTES - text.length)}`;
  };
  const names = Array.from({ length: CLUSTERS }, (_, index) => `${CLUSTERS_PREFIX}cluster-${index}`);
  registry = await startSecretsManager(
    Object.fromEntries(names.map((name, index) => [name, kubeconfig(index)])),
    { pageSize: 100 },
  );
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  await server?.[Symbol.asyncDispose]();
  await table?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

test('a run over 2,000 clusters with nothing due serves all of them within the memory and the requests planned', {
  timeout: 300_000,
}, async () => {
  const { answer, lines, ...figures } = await invoke({
    heapMib: HEAP_MIB,
    env: {
      ...table.emulator.env,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: registry.url,
      [ENVIRONMENT.stateTable]: table.name,
      [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
      [ENVIRONMENT.stackName]: 'EcrAnywhere',
      [ENVIRONMENT.clusterMetrics]: 'true',
    },
  });
  console.log(`${CLUSTERS} clusters, an empty run:`, figures);
  expect(answer.clusters.filter(({ served }) => served)).toHaveLength(CLUSTERS);

  // As many requests as there must be, none of them alone; each kind may be asked 100 times a second (Secrets Manager
  // quotas), and is asked no more often in the whole run.
  const count = (operation: string) => registry.calls.filter((call) => call.operation === operation).length;
  expect({
    lists: count('ListSecrets'),
    batches: count('BatchGetSecretValue'),
    alone: count('GetSecretValue'),
  }).toEqual({ lists: CLUSTERS / 100, batches: CLUSTERS / 20, alone: 0 });
  expect(server.requests).toHaveLength(CLUSTERS);

  const metrics = embeddedMetrics(lines);
  expect(metrics).toContainEqual(expect.objectContaining({ name: METRIC.clustersServed, value: CLUSTERS }));
  const ofClusters = metrics.filter(({ name }) => name === METRIC.consecutiveFailures);
  expect(new Set(ofClusters.map(({ dimensions }) => dimensions.cluster)).size).toBe(CLUSTERS);
  expect(ofClusters[0]).toMatchObject({ dimensions: { service: expect.any(String) }, value: 0 });
  const warnings = lines.filter((line) => line.includes('too many clusters for the alarm ClusterFailing'));
  expect(warnings).toHaveLength(1);
  let stored = 0;
  for (let from: Record<string, never> | undefined, first = true; first || from; first = false) {
    const { Count = 0, LastEvaluatedKey } = await table.client.send(
      new ScanCommand({ TableName: table.name, Select: 'COUNT', ExclusiveStartKey: from }),
    );
    stored += Count;
    from = LastEvaluatedKey as typeof from;
  }
  expect(stored).toBe(CLUSTERS);
});
