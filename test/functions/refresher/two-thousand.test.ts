// 2,000 registered clusters at the wire, and the function's own bundle in a process of its own: how often AWS is asked,
// what is held in memory, and what an empty run takes. The figures are printed: docs/operations.md has them.
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CreateTableCommand, DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, ENVIRONMENT, METRIC } from '../../../functions/refresher/settings.ts';
import { embeddedMetrics } from '../../bed/cloudwatch-alarms.ts';
import { type Emulator, startEmulator } from '../../bed/emulator.ts';
import { tools } from '../../bed/toolchain.ts';
import { synthWithBundle } from '../../infra/synth.ts';
import { type ApiServer, json, page, startApiServer } from '../api-server.ts';
import { type SecretsManager, startSecretsManager } from '../secrets-manager.ts';

const CLUSTERS = 2_000;
/** Nearly what a secret can hold, 64 KiB (Secrets Manager quotas): together twice what the process may. */
const KUBECONFIG_BYTES = 60_000;
const HEAP_MIB = 64;

let dir: string;
let emulator: Emulator;
let dynamo: DynamoDBClient;
let registry: SecretsManager;
let server: ApiServer;
let bundle: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  bundle = synthWithBundle(join(dir, 'bundle'));
  emulator = await startEmulator({ dir: join(dir, 'aws'), python: tools().python });
  dynamo = new DynamoDBClient(emulator.clientConfig);
  await dynamo.send(
    new CreateTableCommand({
      TableName: 'memory',
      BillingMode: 'PAY_PER_REQUEST',
      KeySchema: [{ AttributeName: 'cluster', KeyType: 'HASH' }],
      AttributeDefinitions: [{ AttributeName: 'cluster', AttributeType: 'S' }],
    }),
  );
  server = await startApiServer((_, response) => json(response, page([])));
  const kubeconfig = (index: number) => {
    const text = JSON.stringify({
      'current-context': 'main',
      contexts: [{ name: 'main', context: { cluster: 'main', user: 'main' } }],
      clusters: [
        {
          name: 'main',
          cluster: {
            server: `${server.url}/${index}`,
            'certificate-authority-data': Buffer.from(server.caPem).toString('base64'),
          },
        },
      ],
      users: [{ name: 'main', user: { token: `token-${index}` } }],
    });
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
  dynamo?.destroy();
  await emulator?.stop();
  await rm(dir, { recursive: true, force: true });
});

test('an empty run', { timeout: 300_000 }, async () => {
  const invoke = `
    const { handler } = await import(${JSON.stringify(join(bundle, 'index.mjs'))});
    const began = performance.now();
    const answer = await handler({}, { getRemainingTimeInMillis: () => 900_000 });
    console.log(JSON.stringify({
      served: answer.clusters.filter(({ served }) => served).length,
      seconds: (performance.now() - began) / 1000,
      cpuSeconds: (process.resourceUsage().userCPUTime + process.resourceUsage().systemCPUTime) / 1e6,
      maxMib: process.resourceUsage().maxRSS / 1024,
    }));
    process.exit(0);`;
  const { stdout } = await promisify(execFile)(
    process.execPath,
    [`--max-old-space-size=${HEAP_MIB}`, '--input-type=module', '-e', invoke],
    {
      env: {
        ...emulator.env,
        AWS_ENDPOINT_URL_SECRETS_MANAGER: registry.url,
        [ENVIRONMENT.clusterDeadline]: '120',
        [ENVIRONMENT.clusterConcurrency]: '25',
        [ENVIRONMENT.memoryTable]: 'memory',
        [ENVIRONMENT.allowLocalServers]: 'true',
        AWS_LAMBDA_FUNCTION_NAME: 'refresher',
      },
      maxBuffer: 16 * 1024 * 1024,
    },
  );
  const lines = stdout.trim().split('\n');
  const figures = JSON.parse(lines.at(-1) ?? '') as Record<string, number>;
  console.log(`${CLUSTERS} clusters, an empty run:`, figures);
  expect(figures).toMatchObject({ served: CLUSTERS });

  // As many requests as there must be, none of them alone; each kind may be asked 100 times a second (Secrets Manager
  // quotas), and is asked no more often in the whole run.
  const count = (operation: string) => registry.calls.filter((call) => call.operation === operation).length;
  expect({
    lists: count('ListSecrets'),
    batches: count('BatchGetSecretValue'),
    alone: count('GetSecretValue'),
  }).toEqual({ lists: CLUSTERS / 100, batches: CLUSTERS / 20, alone: 0 });
  expect(server.requests).toHaveLength(CLUSTERS);

  expect(embeddedMetrics(lines)).toContainEqual(
    expect.objectContaining({ name: METRIC.clustersServed, value: CLUSTERS }),
  );
  let known = 0;
  for (let from: Record<string, never> | undefined, first = true; first || from; first = false) {
    const { Count = 0, LastEvaluatedKey } = await dynamo.send(
      new ScanCommand({ TableName: 'memory', Select: 'COUNT', ExclusiveStartKey: from }),
    );
    known += Count;
    from = LastEvaluatedKey as typeof from;
  }
  expect(known).toBe(CLUSTERS);
});
