// Runs the function's bundle, with the memory that Lambda gives it, over API servers that return as much as they can, and
// one good cluster.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { ANNOTATION, CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { clusterStates } from '../../../../functions/refresher/clusters/cluster-state.ts';
import { ENVIRONMENT, METRIC } from '../../../../functions/refresher/settings.ts';
import { embeddedMetrics } from '../../../bed/cloudwatch-alarms.ts';
import {
  type Answer,
  type ApiServer,
  json,
  kubeconfigFor,
  object,
  page,
  pageFor,
  type Response,
  refuse,
  startApiServer,
} from '../../api-server.ts';
import { type ClusterStateTable, startClusterStateTable } from '../../cluster-state-table.ts';
import { bundleIn } from '../../invoke-bundle.ts';
import { type SecretsManager, startSecretsManager } from '../../secrets-manager.ts';

const HOUR = 3_600_000;
const NAMESPACES = page(Array.from({ length: 12 }, (_, index) => ({ name: `team-${index}` })));
const START = '{"kind":"PartialObjectMetadataList","metadata":{},"items":[';
const TINY_ITEM = '{"metadata":{"name":"a"}}';
/** 12.7 MB. */
const TINY_ITEMS = Buffer.from(`${START}${`${TINY_ITEM},`.repeat(488_000)}${TINY_ITEM}]}`);
const TINY_VALUES = Buffer.from(`${START}],"x":[${'[],'.repeat(4_000_000)}[]]}`);

/** Answers lists of Secrets. */
const hostile =
  (secrets: Answer): Answer =>
  (request, response, count) =>
    request.path === '/api/v1/namespaces' ? json(response, NAMESPACES) : secrets(request, response, count);

function send(response: Response, body: Buffer): void {
  response.writeHead(200, { 'content-type': 'application/json' });
  response.write(body);
  response.end();
}

const text = 'x'.repeat(30_000);
const HOSTILE: Readonly<Record<string, Answer>> = {
  'a-tiny-items': hostile((_, response) => send(response, TINY_ITEMS)),
  'b-tiny-values': hostile((_, response) => send(response, TINY_VALUES)),
  'c-endless-annotations': hostile((_, response) =>
    json(response, page(Array(50).fill({ name: 'pull', annotations: { [ANNOTATION.only]: text } }), 'more')),
  ),
};

/** Refuses each of its 200 Secrets with a message that is 1.9 MB long, of which the report keeps the beginning. */
const longRefusals: Answer = (request, response) => {
  if (request.path === '/api/v1/namespaces') return json(response, page([{ name: 'team' }]));
  if (request.method !== 'GET') return refuse(response, 403, 'x'.repeat(1_900_000));
  const secrets = Array.from({ length: 200 }, (_, index) => ({ name: `pull-${index}` }));
  return json(response, pageFor(request, secrets));
};

const good: Answer = ({ method, path }, response) => {
  if (path === '/api/v1/namespaces') return json(response, page([{ name: 'team' }]));
  if (method === 'GET') return json(response, page([{ name: 'pull', namespace: 'team' }]));
  const expiresAt = new Date(Date.now() + 12 * HOUR).toISOString();
  return json(
    response,
    object({ name: 'pull', namespace: 'team', annotations: { [ANNOTATION.expiresAt]: expiresAt } }),
  );
};

let dir: string;
let table: ClusterStateTable;
let registry: SecretsManager;
let invoke: () => ReturnType<ReturnType<typeof bundleIn>>;
const servers: ApiServer[] = [];

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  const bundle = bundleIn(join(dir, 'bundle'));
  table = await startClusterStateTable(join(dir, 'aws'));
  const secrets: Record<string, string> = {};
  for (const [name, answer] of Object.entries({
    ...HOSTILE,
    'd-long-refusals': longRefusals,
    good,
    'good-and-soon': good,
  })) {
    const server = await startApiServer(answer);
    servers.push(server);
    secrets[`${CLUSTERS_PREFIX}${name}`] = kubeconfigFor(server, 'token');
  }
  registry = await startSecretsManager(secrets);
  const states = clusterStates(table.client, table.name);
  for (const [cluster, hours] of Object.entries({ 'a-tiny-items': 3, good: 2, 'good-and-soon': 1 })) {
    const observed = { served: true, failed: false, managed: 1, due: 0, at: Date.now() - HOUR };
    const observation = { ...observed, cluster, soonestExpiry: Date.now() + hours * HOUR };
    await states.save(observation, AbortSignal.timeout(10_000));
  }
  const env = {
    ...table.emulator.env,
    AWS_ENDPOINT_URL_SECRETS_MANAGER: registry.url,
    [ENVIRONMENT.stateTable]: table.name,
    [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
    [ENVIRONMENT.stackName]: 'EcrAnywhere',
  };
  invoke = () => bundle({ env });
});
afterAll(async () => {
  await registry?.[Symbol.asyncDispose]();
  for (const server of servers) await server[Symbol.asyncDispose]();
  await table?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});

test('a run within the memory of Lambda refreshes the good clusters and names those that return too much', async () => {
  const { answer, lines, ...figures } = await invoke();
  console.log('hostile API servers:', figures);
  const { clusters } = answer;
  expect(Object.fromEntries(clusters.map(({ cluster, codes }) => [cluster, codes]))).toEqual({
    'good-and-soon': undefined,
    good: undefined,
    'a-tiny-items': ['too-much-data'],
    'b-tiny-values': ['too-much-data'],
    'c-endless-annotations': ['too-much-data'],
    'd-long-refusals': ['secrets-not-refreshed'],
  });
  expect(clusters.filter(({ outcomes }) => outcomes.refreshed === 1)).toHaveLength(2);
  expect(embeddedMetrics(lines)).toContainEqual(
    expect.objectContaining({ name: METRIC.clustersServed, value: 3 }),
  );
  expect(figures.maxMib).toBeLessThan(512);

  const log = lines.slice(0, -1).map((line) => JSON.parse(line));
  const ownLines = log.filter(({ message }) => message !== undefined);
  expect(new Set(ownLines.map((line) => line.function_request_id))).toEqual(new Set(['request-1']));
  const started = log.filter(({ message }) => message === 'cluster started');
  expect(started.map(({ cluster }) => cluster)).toEqual([
    'good-and-soon',
    'good',
    'a-tiny-items',
    'b-tiny-values',
    'c-endless-annotations',
    'd-long-refusals',
  ]);
});
