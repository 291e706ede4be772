// A run in batches on the deployed stack (setting `scaleOut`): its outcome is that of a plain run, and a batch that is killed
// affects its own clusters only.
import { createServer, type Server } from 'node:net';
import { DeleteItemCommand, DynamoDBClient, paginateScan } from '@aws-sdk/client-dynamodb';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { DescribeExecutionCommand, SFNClient, StartExecutionCommand } from '@aws-sdk/client-sfn';
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ClusterTransition } from '../../contract/cluster-events.ts';
import { SCALE_OUT_ALIAS } from '../../functions/refresher/settings.ts';
import { embeddedMetrics } from '../bed/cloudwatch-alarms.ts';
import { UNREACHABLE_KUBECONFIG } from '../bed/deployment.ts';
import { processOfConnection } from '../bed/process.ts';
import { type Subscribers, subscribe } from '../bed/subscribers.ts';
import { Bed, pullSecretManifest } from '../bed/up.ts';
import { refresherKubeconfig } from '../bed/webhook.ts';

const BATCH = 40;
const NAMES = Array.from({ length: 200 }, (_, index) => `c${String(index).padStart(3, '0')}`);
const FAILING = NAMES.filter((_, index) => index % 10 === 7);
const KILLER = 'c100';

let bed: Bed;
let subscribers: Subscribers;
let states: SFNClient;
let table: DynamoDBClient;
let server: Server;

beforeAll(async () => {
  bed = await Bed.create({
    clusters: ['east', 'west'],
    registersClusters: false,
    // The local AWS serves one request at a time: more at once would exceed the time limits of a request.
    context: { scaleOut: true, scheduleEnabled: false, clusterConcurrency: 5 },
    functionEnv: { BATCH_CLUSTERS: String(BATCH) },
  });
  await bed.start();
  const { emulator, outputs } = bed.deployment;
  subscribers = await subscribe(emulator, outputs.AlarmTopicArn ?? '');
  states = new SFNClient(emulator.clientConfig);
  table = new DynamoDBClient(emulator.clientConfig);
  const kubeconfigs: string[] = [];
  for (const name of ['east', 'west']) {
    const { controlPlane } = bed.cluster(name);
    await controlPlane.kubectl(['apply', '-f', '-'], { input: pullSecretManifest('team-a') });
    kubeconfigs.push(await refresherKubeconfig(controlPlane));
  }
  for (const [index, name] of NAMES.entries())
    await bed.deployment.registerCluster(
      name,
      FAILING.includes(name) ? UNREACHABLE_KUBECONFIG : (kubeconfigs[index % 2] ?? ''),
    );
});
afterAll(async () => {
  server?.close();
  states?.destroy();
  table?.destroy();
  subscribers?.[Symbol.dispose]();
  await bed?.[Symbol.asyncDispose]();
});

/** What people and machines learn of a run. */
interface Outcome {
  /** Without times, by cluster. */
  readonly states: Readonly<Record<string, object>>;
  readonly metrics: Readonly<Record<string, number>>;
  /** Sorted: `CLUSTER TRANSITION`. */
  readonly transitions: readonly string[];
}

async function outcomeOf(run: () => Promise<unknown>): Promise<Outcome> {
  const since = Date.now();
  await run();
  const metrics: Record<string, number> = {};
  await expect
    .poll(
      async () => {
        const lines = (await bed.deployment.logs(since)).map(({ message }) => message);
        for (const { name, value, time } of embeddedMetrics(lines)) if (time >= since) metrics[name] = value;
        return metrics;
      },
      { timeout: 60_000 },
    )
    .toHaveProperty('TransitionsNotAnnounced');
  const transitions: ClusterTransition[] = [];
  for (let events = await subscribers.events(); events.length > 0; events = await subscribers.events())
    transitions.push(...events);
  return {
    states: await storedStates(),
    metrics,
    transitions: transitions.map(({ cluster, transition }) => `${cluster} ${transition}`).sort(),
  };
}

const TIMES = ['lookedAt', 'reachedAt', 'failingSince', 'announcedAt', 'recoveredAt', 'forgetAt'];

async function storedStates(): Promise<Record<string, object>> {
  const TableName = bed.deployment.resource('RefresherFunctionMemory');
  const found: Record<string, object> = {};
  for await (const { Items = [] } of paginateScan({ client: table }, { TableName, ConsistentRead: true }))
    for (const { cluster, ...item } of Items)
      found[cluster?.S ?? ''] = Object.fromEntries(
        Object.entries(item).map(([name, value]) => [name, TIMES.includes(name) ? 'a time' : value]),
      );
  return found;
}

async function forgetStates(): Promise<void> {
  const TableName = bed.deployment.resource('RefresherFunctionMemory');
  for (const name of Object.keys(await storedStates()))
    await table.send(new DeleteItemCommand({ TableName, Key: { cluster: { S: name } } }));
}

/** Starts an execution, and waits until it has ended. @returns how it ended, and its output or error */
async function runInBatches(): Promise<Execution> {
  const stateMachineArn = bed.deployment.resource('RefresherScaleOutStateMachine');
  const { executionArn } = await states.send(new StartExecutionCommand({ stateMachineArn }));
  const describe = () => states.send(new DescribeExecutionCommand({ executionArn }));
  await expect
    .poll(async () => (await describe()).status, { timeout: 300_000, interval: 1_000 })
    .not.toBe('RUNNING');
  const { status, output, error, cause } = await describe();
  return status === 'SUCCEEDED' ? { status, output: JSON.parse(output ?? '{}') } : { status, error, cause };
}

interface Execution {
  readonly status: string | undefined;
  readonly output?: object;
  readonly error?: string | undefined;
  readonly cause?: string | undefined;
}

async function completeInBatches(): Promise<void> {
  const { status, error, cause } = await runInBatches();
  if (status !== 'SUCCEEDED') throw new Error(`The execution ended as ${status}: ${error}: ${cause}`);
}

const plainRun = async () => expect(await bed.deployment.invoke()).not.toHaveProperty('functionError');

test('a run in batches has the outcome of a plain run', async () => {
  const plain = [await outcomeOf(plainRun), await outcomeOf(plainRun)];
  await forgetStates();
  const inBatches = [await outcomeOf(completeInBatches), await outcomeOf(completeInBatches)];

  expect(plain[1]?.transitions).toEqual(FAILING.map((name) => `${name} failing`));
  expect(plain[1]?.metrics).toMatchObject({
    ClustersRegistered: 200,
    ClustersServed: 180,
    ClustersFailed: 20,
  });
  for (const [index, { metrics, ...outcome }] of inBatches.entries()) {
    const { BatchesEnded, SoonestExpiry, ...others } = metrics;
    const { SoonestExpiry: plainExpiry = 0, ...plainOthers } = plain[index]?.metrics ?? {};
    expect(others).toEqual(plainOthers);
    expect(BatchesEnded).toBe(0);
    // Some seconds later.
    expect(SoonestExpiry).toBeLessThanOrEqual(plainExpiry);
    expect(outcome).toEqual({ states: plain[index]?.states, transitions: plain[index]?.transitions });
  }
});

test('a killed batch affects its own clusters only, and from the third run on only the cluster that kills', async () => {
  server = createServer((socket) => {
    const { remotePort = 0, localPort = 0 } = socket;
    socket.on('error', () => {});
    void processOfConnection(remotePort, localPort).then((pid) => {
      if (pid !== undefined) process.kill(pid, 'SIGKILL');
      socket.destroy();
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as { port: number };
  await bed.deployment.registerCluster(
    KILLER,
    UNREACHABLE_KUBECONFIG.replace('127.0.0.1:1', `127.0.0.1:${port}`),
  );
  const before = await storedStates();
  const since = Date.now();

  const runs = [];
  for (let run = 1; run <= 3; run += 1) {
    let execution: Execution | undefined;
    const outcome = await outcomeOf(async () => {
      execution = await runInBatches();
      if (execution.status !== 'SUCCEEDED') throw new Error(JSON.stringify(execution));
    });
    runs.push({ ...outcome, execution });
  }

  const ended = await endedBatches(since);
  expect(ended).toHaveLength(3);
  for (const { metrics, execution } of runs) {
    expect(execution).toMatchObject({ status: 'SUCCEEDED', output: { clusters: 200, batchesEnded: 1 } });
    expect(metrics).toMatchObject({ BatchesEnded: 1, ClustersRegistered: 200 });
  }
  // Each run takes fewer with it.
  expect(ended.map(({ clusters }) => clusters.includes(KILLER))).toEqual([true, true, true]);
  expect(ended[0]?.clusters.length).toBeLessThanOrEqual(BATCH);
  expect(ended[1]?.clusters.length).toBeLessThanOrEqual(2);
  expect(ended[2]?.clusters).toEqual([KILLER]);

  for (const [index, { states: after }] of runs.entries()) {
    const own = ended[index]?.clusters ?? [];
    const others = NAMES.filter((name) => !own.includes(name) && !FAILING.includes(name));
    for (const name of others) expect(after[name], name).toMatchObject({ failures: { N: '0' } });
  }
  const [last] = runs.slice(-1);
  expect(last?.states[KILLER]).toMatchObject({ failures: { N: '3' }, codes: { L: [{ S: 'batch-ended' }] } });
  for (const name of FAILING) expect(last?.states[name]).toMatchObject({ failures: { N: '5' } });
  expect(Object.keys(last?.states ?? {})).toEqual(expect.arrayContaining(Object.keys(before)));
  expect(runs[1]?.transitions).toContain(`${KILLER} failing`);
  expect(runs[2]?.transitions).not.toContain(`${KILLER} failing`);
});

/** The batches that the summaries report, oldest first. */
async function endedBatches(since: number): Promise<{ batch: number; clusters: string[] }[]> {
  return (await bed.deployment.logs(since)).flatMap(({ message }) => {
    if (!message.includes('"batch ended"')) return [];
    return [JSON.parse(message) as { batch: number; clusters: string[] }];
  });
}

test.each(['secretsmanager:ListSecrets', 's3:PutObject', 's3:GetObject'])(
  'without %s, an execution fails',
  async (action) => {
    const restore = await bed.deployment.forbid(action);
    try {
      const { status, cause } = await runInBatches();
      expect(status).toBe('FAILED');
      expect(cause).toContain(action);
    } finally {
      await restore();
    }
  },
);

test('a batch for which the run has no time left stores that its clusters were not started', async () => {
  const lambda = new LambdaClient(bed.deployment.emulator.clientConfig);
  const step = async (event: object) => {
    const { Payload, FunctionError } = await lambda.send(
      new InvokeCommand({
        FunctionName: `${bed.deployment.functionName}:${SCALE_OUT_ALIAS}`,
        Payload: JSON.stringify({ ...event, run: 'late' }),
      }),
    );
    expect(FunctionError).toBeUndefined();
    return JSON.parse(new TextDecoder().decode(Payload));
  };
  const started = new Date(Date.now() - 3_600_000).toISOString();
  expect(await step({ scaleOut: 'list', started, seconds: 1 })).toMatchObject({
    batches: [0, 1, 2, 3, 4, 5],
  });
  expect(await step({ scaleOut: 'batch', batch: 0 })).toEqual({});
  lambda.destroy();

  const notStarted = Object.entries(await storedStates()).filter(([, state]) =>
    JSON.stringify(state).includes('run-time-up'),
  );
  expect(notStarted).toHaveLength(BATCH);
});
