// The real CDK deploys the stack into a local AWS that enforces IAM, and the tests invoke it there: bundle, role, log,
// metrics, queues, schedule and alarms together.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { METRIC, METRICS_NAMESPACE } from '../../functions/refresher/settings.ts';
import { VERSION } from '../../lib/version.ts';
import { embeddedMetrics } from '../bed/cloudwatch-alarms.ts';
import { deployStack } from '../bed/deploy.ts';
import { type Deployment, UNREACHABLE_KUBECONFIG } from '../bed/deployment.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { relayMetrics } from '../bed/metrics.ts';
import { tools } from '../bed/toolchain.ts';
import type { ProbeEvent } from './probe/handler.ts';

const ROLE = 'arn:aws:iam::210987654321:role/clusters';

let dir: string;
let emulator: Emulator;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  emulator = await startEmulator({ dir, python: tools().python });
});

afterAll(async () => {
  await emulator?.stop();
  await rm(dir, { recursive: true, force: true });
});

describe('the stack', () => {
  let stack: Deployment;

  beforeAll(async () => {
    stack = await deployStack(emulator, {
      context: {
        ...{ scheduleEnabled: false, clusterDeadlineSeconds: 5, allowLocalServers: true },
        ...{ keyless: true, eksRegions: 'eu-central-1,us-east-1', assumableRoles: ROLE },
      },
    });
  });

  /** The saved state of a cluster, from the table that the output Status names. */
  async function savedState(cluster: string): Promise<Record<string, string> | undefined> {
    const [, table = ''] = / --table-name (\S+)/.exec(stack.outputs.Status ?? '') ?? [];
    const dynamo = new DynamoDBClient(emulator.clientConfig);
    const { Items = [] } = await dynamo.send(new ScanCommand({ TableName: table }));
    const items = Items.map((item) =>
      Object.fromEntries(Object.entries(item).map(([name, { S, N }]) => [name, S ?? N ?? ''])),
    );
    return items.find((item) => item.cluster === cluster);
  }

  test('answers a run without clusters, and publishes the count 0', async () => {
    expect(await stack.invoke()).toMatchObject({ payload: { clusters: [] } });
    // The log arrives shortly after the answer.
    await vi.waitFor(
      async () => {
        const metrics = embeddedMetrics((await stack.logs()).map(({ message }) => message));
        expect(metrics).toContainEqual(
          expect.objectContaining({
            namespace: METRICS_NAMESPACE,
            name: METRIC.clustersRegistered,
            dimensions: { service: stack.functionName },
            value: 0,
          }),
        );
      },
      { timeout: 10_000, interval: 200 },
    );
  });

  test('has outputs with the names of its resources', () => {
    expect(stack.outputs).toMatchObject({
      FunctionName: stack.functionName,
      AlarmTopicArn: expect.stringContaining(':sns:'),
      RegisterCluster: `ecr-anywhere register NAME --context CONTEXT --region ${emulator.region}`,
      DryRun: expect.stringContaining(`--function-name ${stack.functionName} `),
      ReadLog: `aws logs tail ${stack.logGroupName} --region ${emulator.region} --since 3h`,
    });
  });

  test('answers an operator’s request for a failing cluster with the reason, and the invocation succeeds', async () => {
    await stack.registerCluster('nowhere', UNREACHABLE_KUBECONFIG);
    const refused = {
      ...{ cluster: 'nowhere', served: false, failed: true, problems: [], secrets: [] },
      reason: expect.stringContaining('ECONNREFUSED 127.0.0.1:1'),
    };
    for (const event of [{ dryRun: true }, { action: 'inspect' }]) {
      const { functionError, payload } = await stack.invoke({ clusters: ['nowhere'], ...event });
      expect(functionError).toBeUndefined();
      expect(payload).toMatchObject({ clusters: [refused] });
    }
    expect(await savedState('nowhere')).toBeUndefined();
    const { functionError, payload } = await stack.invoke({ clusters: ['nowhere'] });
    expect(functionError).toBeUndefined();
    expect(payload).toMatchObject({ clusters: [{ ...refused, failures: 1 }] });
    expect(await savedState('nowhere')).toMatchObject({ failures: '1', reason: refused.reason });
  });

  test('answers status from the saved state, and lists a cluster that was just registered', async () => {
    await stack.registerCluster('new', UNREACHABLE_KUBECONFIG);
    const { functionError, payload, logTail } = await stack.invoke({ action: 'status' });
    expect(functionError).toBeUndefined();
    const was = await savedState('nowhere');
    expect(payload).toEqual({
      version: VERSION,
      subscribers: { topicArn: stack.outputs.AlarmTopicArn, confirmed: 0, pending: 0 },
      clusters: [
        { name: 'new', source: 'registered', isPaused: false },
        {
          ...{ name: 'nowhere', source: 'registered', isPaused: false, failures: 1, reason: was?.reason },
          codes: expect.any(Array),
          ...{ lookedAt: was?.lookedAt, failingSince: was?.failingSince },
        },
      ],
    });
    expect(logTail).not.toContain('"cluster":"n');
    await stack.unregisterCluster('new');
  });

  test('answers every action for an unregistered name with the registered names', async () => {
    for (const action of ['refresh', 'inspect', 'revoke']) {
      const event = { action, clusters: ['nowhere', 'typo'] };
      const { functionError, payload } = await stack.invoke(event);
      expect(functionError).toBeUndefined();
      expect(payload).toEqual({
        clusters: [],
        notRegistered: { names: ['typo'], registered: ['nowhere'] },
      });
    }
    expect(await savedState('nowhere')).toMatchObject({ failures: '1' });
  });

  test('answers nothing-to-revoke for a cluster without a revocable token', async () => {
    const { payload } = await stack.invoke({ action: 'revoke', clusters: ['nowhere'] });
    expect(payload).toEqual({
      revoked: [
        {
          cluster: 'nowhere',
          outcome: 'nothing-to-revoke',
          code: expect.any(String),
          reason: expect.any(String),
        },
      ],
    });
  });

  test('fails a scheduled run in which no cluster was served, once, and sends it to the queue for failures', async () => {
    const { functionError, payload } = await stack.invoke();
    expect(functionError).toBe('Unhandled');
    // The local AWS names no error type; AWS gives the error's name (handler.test.ts).
    expect(payload).toMatchObject({ errorMessage: expect.stringContaining('nowhere:') });

    const before = (await stack.logs()).length;
    await stack.invokeAsync();
    await vi.waitFor(async () => expect(await stack.failures()).toHaveLength(1), {
      timeout: 20_000,
      interval: 200,
    });
    const [failure = ''] = await stack.failures();
    expect(JSON.parse(failure)).toMatchObject({ requestPayload: {} });
    const runs = (await stack.logs()).slice(before).filter(({ message }) => message.startsWith('START '));
    expect(runs).toHaveLength(1);
  });

  test('a failing run raises the alarms', async () => {
    await using relay = relayMetrics(stack);
    await stack.registerCluster('nowhere', UNREACHABLE_KUBECONFIG);
    await stack.invoke();
    await vi.waitFor(
      async () => expect(await stack.alarms()).toMatchObject({ Errors: 'ALARM', ClustersFailed: 'ALARM' }),
      { timeout: 20_000, interval: 500 },
    );
    expect(relay.metrics.map(({ name }) => name)).toContain(METRIC.clustersFailed);
    // With the permissions of the function's role.
    const announcements = (await stack.logs()).filter(({ message }) => message.includes('announced"'));
    expect(announcements.map(({ message }) => JSON.parse(message))).toEqual([
      expect.objectContaining({ message: 'announced', cluster: 'nowhere', transition: 'failing' }),
    ]);
    await stack.unregisterCluster('nowhere');
    expect(await stack.invoke()).toMatchObject({ payload: { clusters: [] } });
  });

  test('is invoked by its schedule', { timeout: 120_000 }, async () => {
    const since = Date.now();
    await stack.startSchedule({ rateMinutes: 1 });
    const runs = async () =>
      embeddedMetrics((await stack.logs(since)).map(({ message }) => message)).filter(
        ({ name }) => name === METRIC.clustersRegistered,
      );
    await vi.waitFor(async () => expect((await runs()).length).toBeGreaterThan(0), {
      timeout: 110_000,
      interval: 1_000,
    });
    await stack.stopSchedule();
    expect(await stack.deadLetters()).toEqual([]);
  });
});

describe("the function's role", () => {
  const OWN = 'ecr-anywhere-Probe/clusters/one';
  let probe: Deployment;
  const call = async (event: ProbeEvent) => (await probe.invoke(event)).payload;

  beforeAll(async () => {
    const app = `node ${join(import.meta.dirname, 'probe/app.ts')}`;
    probe = await deployStack(emulator, { app: { command: app, stackName: 'Probe' } });
    const secrets = new SecretsManagerClient(emulator.clientConfig);
    for (const Name of [OWN, 'ecr-anywhere/clusters/one', 'ecr-anywhere-Probe/other', 'database']) {
      await secrets.send(new CreateSecretCommand({ Name, SecretString: 'x' }));
    }
  });

  test.each<ProbeEvent>([
    { call: 'ListSecrets' },
    { call: 'GetSecretValue', target: OWN },
    { call: 'PutSecretValue', target: OWN },
  ])('may $call $target', async (event) => {
    expect(await call(event)).toBe('allowed');
  });

  test('may send to the queue for failures, not read it', async () => {
    const target = probe.resource('RefresherFunctionFailures');
    expect(await call({ call: 'SendMessage', target })).toBe('allowed');
    expect(await call({ call: 'ReceiveMessage', target })).toMatch(/AccessDenied/);
  });

  test('may update and scan the cluster state table, not get single items', async () => {
    const target = probe.resource('RefresherFunctionMemory');
    for (const allowed of ['UpdateItem', 'Scan'] as const)
      expect(await call({ call: allowed, target })).toBe('allowed');
    expect(await call({ call: 'GetItem', target })).toMatch(/AccessDenied/);
  });

  test.each<ProbeEvent>([
    // Of another stack.
    { call: 'GetSecretValue', target: 'ecr-anywhere/clusters/one' },
    { call: 'PutSecretValue', target: 'ecr-anywhere/clusters/one' },
    { call: 'UpdateSecretVersionStage', target: 'ecr-anywhere-Probe/other' },
    { call: 'GetSecretValue', target: 'ecr-anywhere-Probe/other' },
    { call: 'GetSecretValue', target: 'database' },
    { call: 'PutSecretValue', target: 'ecr-anywhere-Probe/other' },
    { call: 'DeleteSecret', target: OWN },
    { call: 'CreateSecret', target: 'ecr-anywhere-Probe/clusters/two' },
  ])('may not $call $target', async (event) => {
    expect(await call(event)).toMatch(/AccessDenied/);
  });

  test('may not invoke itself', async () => {
    expect(await call({ call: 'Invoke', target: probe.functionName })).toMatch(/AccessDenied/);
  });
});
