// A stack of the last version is upgraded and destroyed by the real CDK: what belongs to the clusters stays.
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { DynamoDBClient, PutItemCommand, ScanCommand } from '@aws-sdk/client-dynamodb';
import { DescribeSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { CLUSTERS_PREFIX } from '../../contract/names.ts';
import { STATE_ATTRIBUTE } from '../../functions/refresher/settings.ts';
import { deployStack, destroyStack, exists } from '../bed/deploy.ts';
import type { Deployment } from '../bed/deployment.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** The default stack as the last version synthesized it; ASSET stands for the hash of the bundle. */
const RELEASED = new URL('./released/0.1.0.template.json', import.meta.url);
const STACK = 'EcrAnywhere';

let dir: string;
let emulator: Emulator;
let secrets: SecretsManagerClient;
let before: Deployment;
let after: Deployment;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  emulator = await startEmulator({ dir, python: tools().python });
  secrets = new SecretsManagerClient(emulator.clientConfig);
  before = await deployStack(emulator, { app: { command: await releasedApp(), stackName: STACK } });
  await before.registerCluster('nowhere', 'not a kubeconfig');
  await new DynamoDBClient(emulator.clientConfig).send(
    new PutItemCommand({
      TableName: before.resource('RefresherFunctionMemory'),
      Item: { [STATE_ATTRIBUTE.cluster]: { S: 'nowhere' }, [STATE_ATTRIBUTE.failures]: { N: '7' } },
    }),
  );
  after = await deployStack(emulator, { context: { scheduleEnabled: false } });
});
afterAll(async () => {
  await emulator?.stop();
  await rm(dir, { recursive: true, force: true });
});

test('an upgrade replaces no resource and removes none', () => {
  const metadata = (id: string) => id.startsWith('CDKMetadata');
  const old = [...before.resources].filter(([id]) => !metadata(id));
  expect(old.length).toBeGreaterThan(15);
  expect(old.filter(([id, name]) => after.resources.get(id) !== name)).toEqual([]);
});

test('an upgrade keeps the clusters, their states and the alarms, and the function serves them', async () => {
  const { Items = [] } = await new DynamoDBClient(emulator.clientConfig).send(
    new ScanCommand({ TableName: after.resource('RefresherFunctionMemory') }),
  );
  expect(Items).toEqual([expect.objectContaining({ failures: { N: '7' } })]);
  expect(Object.keys(await after.alarms())).toEqual(
    expect.arrayContaining(Object.keys(await before.alarms())),
  );
  expect((await after.invoke({ clusters: ['nowhere'] })).payload).toMatchObject({
    clusters: [{ cluster: 'nowhere', failures: 8, codes: ['kubeconfig-unusable'] }],
  });
});

test('cdk destroy leaves the registered secrets alone', async () => {
  await destroyStack(emulator, STACK);
  expect(await exists(emulator, STACK)).toBe(false);
  const secret = await secrets.send(new DescribeSecretCommand({ SecretId: `${CLUSTERS_PREFIX}nowhere` }));
  expect(secret.DeletedDate).toBeUndefined();
});

/** A cloud assembly that deploys the template of the last version, with the present bundle. */
async function releasedApp(): Promise<string> {
  const output = join(dir, 'released');
  await promisify(execFile)('cdk', ['synth', '--quiet', '--no-notices', '--output', output], {
    cwd: ROOT,
    env: { ...emulator.env, CDK_DISABLE_CLI_TELEMETRY: 'true' },
  });
  const asset = (await readdir(output)).find((name) => name.startsWith('asset.'))?.slice('asset.'.length);
  const template = await readFile(RELEASED, 'utf8');
  await writeFile(join(output, `${STACK}.template.json`), template.replaceAll('ASSET', asset ?? ''));
  return output;
}
