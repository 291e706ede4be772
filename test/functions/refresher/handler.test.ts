// Tests the function's answers and error types at its handler, with a local Secrets Manager and without its state table.
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { CLUSTERS_PREFIX } from '../../../contract/names.ts';
import {
  type Answer,
  ERROR_TYPE,
  OPERATOR_ALIAS,
  type RefresherEvent,
} from '../../../contract/refresher-api.ts';
import { ENVIRONMENT } from '../../../functions/refresher/settings.ts';
import { VERSION } from '../../../lib/version.ts';
import { type SecretsManager, startSecretsManager } from '../secrets-manager.ts';

let registry: SecretsManager;
const FUNCTION_ARN = 'arn:aws:lambda:eu-central-1:111122223333:function:refresher';
let invoke: (event: RefresherEvent | object | string, invokedFunctionArn?: string) => Promise<Answer>;

beforeAll(async () => {
  registry = await startSecretsManager({ [`${CLUSTERS_PREFIX}broken`]: 'not a kubeconfig' });
  const env = {
    [ENVIRONMENT.clusterDeadline]: '5',
    [ENVIRONMENT.clusterConcurrency]: '1',
    [ENVIRONMENT.stateTable]: 'no-table',
    [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
    [ENVIRONMENT.stackName]: 'EcrAnywhere',
    AWS_LAMBDA_FUNCTION_NAME: 'refresher',
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_ENDPOINT_URL_SECRETS_MANAGER: registry.url,
    AWS_ENDPOINT_URL_DYNAMODB: 'http://127.0.0.1:1',
    POWERTOOLS_LOG_LEVEL: 'SILENT',
  };
  for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
  vi.spyOn(console, 'log').mockImplementation(() => {});
  // The handler reads its environment when it is loaded.
  const { handler } = await import('../../../functions/refresher/handler.ts');
  const context = { getRemainingTimeInMillis: () => 60_000 };
  invoke = (event, invokedFunctionArn = FUNCTION_ARN) =>
    handler(event, { ...context, invokedFunctionArn } as Parameters<typeof handler>[1]) as Promise<Answer>;
});
afterAll(async () => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  await registry?.[Symbol.asyncDispose]();
});

test.each([
  { event: { action: 'delete' }, fields: ['action'] },
  { event: { dryrun: true }, fields: ['dryrun'] },
  { event: 'refresh', fields: [] },
])(
  'the event $event is answered with its invalid fields, and the invocation succeeds',
  async ({ event, fields }) => {
    expect(await invoke(event)).toEqual({
      version: VERSION,
      invalidEvent: { message: expect.stringContaining('The refresher accepts'), fields },
    });
  },
);

const OF_ALIAS = [
  { event: { action: 'revoke', clusters: ['broken'] }, fields: ['action'] },
  { event: { clusters: ['broken'], force: true }, fields: ['force'] },
  { event: { force: true }, fields: ['force'] },
];

test.each(OF_ALIAS)('the function refuses $event, and does nothing', async ({ event, fields }) => {
  const before = registry.calls.length;
  for (const arn of [
    FUNCTION_ARN,
    `${FUNCTION_ARN}:$LATEST`,
    `${FUNCTION_ARN}:7`,
    `${FUNCTION_ARN}:operators`,
    '',
  ]) {
    const message = expect.stringMatching(/^Update the command line, or invoke the alias "operator"/);
    expect(await invoke(event, arn)).toEqual({ version: VERSION, invalidEvent: { message, fields } });
  }
  expect(registry.calls.length).toBe(before);
});

test('the alias accepts events that end tokens or force, and the function all others', async () => {
  const alias = `${FUNCTION_ARN}:${OPERATOR_ALIAS}`;
  expect(await invoke({ action: 'revoke', clusters: ['broken'] }, alias)).toHaveProperty('revoked');
  expect(await invoke({ clusters: ['broken'], force: true }, alias)).toHaveProperty('clusters');
  for (const event of [
    { clusters: ['broken'], force: true, dryRun: true },
    { clusters: ['broken'], force: false },
    { action: 'inspect', clusters: ['broken'] },
  ])
    expect(await invoke(event)).toHaveProperty('clusters');
});

test('a run over all clusters rejects with NoClusterServedError if none can be served', async () => {
  await expect(invoke({})).rejects.toMatchObject({ name: ERROR_TYPE.noClusterServed });
});

test('a run over named clusters answers with their codes', async () => {
  expect(await invoke({ clusters: ['broken'] })).toMatchObject({
    clusters: [
      {
        cluster: 'broken',
        served: false,
        failedAt: 'kubeconfig',
        codes: ['kubeconfig-unusable'],
        stateNotSaved: expect.any(String),
        stateNotSavedError: expect.any(String),
      },
    ],
  });
});

test('an unknown cluster is answered with the names of all clusters', async () => {
  expect(await invoke({ action: 'inspect', clusters: ['typo'] })).toEqual({
    clusters: [],
    notRegistered: { names: ['typo'], registered: ['broken'] },
  });
});
