// Tests how the registered clusters are read from Secrets Manager: which secrets are clusters, how their values are batched,
// and that a failure affects only its own cluster.

import { afterEach, describe, expect, test } from 'vitest';
import { CLUSTERS_PREFIX, REGISTERING_STAGE, TAG } from '../../../../contract/names.ts';
import type { FailureCode } from '../../../../contract/refresher-api.ts';
import { listClusters } from '../../../../functions/refresher/clusters/registered-clusters.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { ClusterSecretsClient } from '../../../../functions/refresher/tokens/cluster-secrets.ts';
import { type ApiServer, json, kubeconfigFor, page, startApiServer } from '../../api-server.ts';
import { NO_EKS, NO_KEYLESS } from '../../real-cluster.ts';
import {
  HALF_AN_ANSWER,
  type SecretsManager,
  type SecretsManagerOptions,
  startSecretsManager,
  type Value,
} from '../../secrets-manager.ts';

const CANARY = 'canary-token-3f9b';
const SETTINGS = {
  clusterDeadlineMs: 1_000,
  clusterConcurrency: 10,
  region: 'eu-central-1',
  allowLocalServers: true,
  eksDiscovery: [],
};

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

async function registryOf(
  clusters: Readonly<Record<string, Value>>,
  { tags = {}, ...options }: SecretsManagerOptions = {},
): Promise<SecretsManager> {
  const prefixed = <Item>(items: Readonly<Record<string, Item>>) =>
    Object.fromEntries(Object.entries(items).map(([name, item]) => [`${CLUSTERS_PREFIX}${name}`, item]));
  return stack.use(await startSecretsManager(prefixed(clusters), { ...options, tags: prefixed(tags) }));
}

/** An API server without enabled namespaces, and its kubeconfig. */
async function emptyCluster(): Promise<{ server: ApiServer; kubeconfig: string }> {
  const server = stack.use(await startApiServer((_, response) => json(response, page([]))));
  return { server, kubeconfig: kubeconfigFor(server, CANARY) };
}

function runAll(
  { client }: SecretsManager,
  event: object = {},
  signal = AbortSignal.timeout(30_000),
  { clusterDeadlineMs } = SETTINGS,
) {
  return run(
    { secrets: client, eks: NO_EKS, keyless: NO_KEYLESS },
    readEvent(event),
    { ...SETTINGS, clusterDeadlineMs },
    Date.now,
    signal,
    () => {},
  );
}

test('lists every secret under the prefix as a cluster, from all pages', async () => {
  const names = ['c', 'a', 'b/nested', 'd', 'e'];
  const secrets = stack.use(
    await startSecretsManager({
      ...Object.fromEntries(names.map((name) => [`${CLUSTERS_PREFIX}${name}`, 'x'])),
      [CLUSTERS_PREFIX]: 'the prefix itself',
      [`other/${CLUSTERS_PREFIX}x`]: 'the prefix within the name',
      [`${CLUSTERS_PREFIX.toUpperCase()}X`]: 'the prefix in another case',
    }),
  );
  const listed = await listClusters(secrets.client, AbortSignal.timeout(10_000));
  expect(listed.map(({ name }) => name)).toEqual(['a', 'b/nested', 'c', 'd', 'e']);
  // The filter matches the five and the prefix itself, two on a page.
  expect(secrets.calls.map(({ operation }) => operation)).toEqual(Array(3).fill('ListSecrets'));
});

test('a refresher with a prefix of its own reads the clusters under it, and no others', async () => {
  const own = 'ecr-anywhere-Live/clusters/';
  const { kubeconfig } = await emptyCluster();
  const secrets = stack.use(
    await startSecretsManager({ [`${own}a`]: kubeconfig, [`${CLUSTERS_PREFIX}b`]: kubeconfig }),
  );
  const client = new ClusterSecretsClient(own, {
    ...{ endpoint: secrets.url, region: 'eu-central-1' },
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
  });
  stack.defer(() => client.destroy());
  for (const event of [{}, { clusters: ['a'] }])
    expect(
      (await runAll({ ...secrets, client }, event)).map(({ cluster, served }) => [cluster, served]),
    ).toEqual([['a', true]]);
  await expect(runAll({ ...secrets, client }, { clusters: ['b'] })).rejects.toThrow(
    'Not registered: b. Registered are: a.',
  );
});

test('a cluster that an event names is found, paused and forgotten before lists show it', async () => {
  const { kubeconfig } = await emptyCluster();
  const secrets = await registryOf(
    { created: kubeconfig, paused: kubeconfig, deleted: kubeconfig, other: kubeconfig },
    {
      tags: { paused: { [TAG.paused]: 'true' } },
      listedTags: { [`${CLUSTERS_PREFIX}paused`]: {} },
      unlisted: [`${CLUSTERS_PREFIX}created`],
      deleted: [`${CLUSTERS_PREFIX}deleted`],
    },
  );
  const reports = await runAll(secrets, { clusters: ['paused', 'created'] });
  expect(reports.map(({ cluster, isPaused }) => [cluster, isPaused])).toEqual([
    ['created', undefined],
    ['paused', true],
  ]);
  expect(secrets.calls.map(({ operation }) => operation)).not.toContain('ListSecrets');
  await expect(runAll(secrets, { clusters: ['deleted'] })).rejects.toThrow(
    'Not registered: deleted. Registered are: other, paused.',
  );
});

describe('a registration that is not complete', () => {
  const REGISTERING = { [TAG.registering]: 'true' };

  test('is in no run over all clusters, and no event that names it uses it', async () => {
    const { server, kubeconfig } = await emptyCluster();
    const secrets = await registryOf({ a: kubeconfig, b: kubeconfig }, { tags: { a: REGISTERING } });
    for (const event of [{}, { action: 'inspect' }])
      expect((await runAll(secrets, event)).map(({ cluster }) => cluster)).toEqual(['b']);
    const before = server.requests.length;
    for (const event of [{ clusters: ['a'] }, { clusters: ['a'], dryRun: true }])
      expect(await runAll(secrets, event)).toEqual([
        expect.objectContaining({ cluster: 'a', served: false, codes: ['registration-incomplete'] }),
      ]);
    expect(server.requests).toHaveLength(before);
    const read = secrets.calls.filter(({ operation }) => /Value$/.test(operation));
    expect(JSON.stringify(read)).not.toContain(`${CLUSTERS_PREFIX}a`);
  });

  test('is inspected by name with what register has stored, as is a replacement by its version', async () => {
    const [current, next] = [await emptyCluster(), await emptyCluster()];
    const secrets = await registryOf(
      { first: 'placeholder', replaced: current.kubeconfig, none: 'placeholder' },
      { tags: { first: REGISTERING, none: REGISTERING } },
    );
    const versionOf = (name: string) =>
      secrets.versions(`${CLUSTERS_PREFIX}${name}`).find(({ stages }) => stages.has(REGISTERING_STAGE))?.id;
    for (const name of ['first', 'replaced'])
      secrets.stage(`${CLUSTERS_PREFIX}${name}`, next.kubeconfig, REGISTERING_STAGE);
    const inspect = async (name: string, version?: string) => {
      const [report] = await runAll(secrets, { action: 'inspect', clusters: [name], version });
      return [report?.served, report?.inspection?.server, report?.codes];
    };
    const serverOf = (kubeconfig: string) => JSON.parse(kubeconfig).clusters[0].cluster.server;
    const [earlier, later] = [serverOf(current.kubeconfig), serverOf(next.kubeconfig)];
    expect(await inspect('first')).toEqual([true, later, undefined]);
    expect(await inspect('first', versionOf('first'))).toEqual([true, later, undefined]);
    expect(await inspect('replaced', versionOf('replaced'))).toEqual([true, later, undefined]);
    expect(await inspect('replaced')).toEqual([true, earlier, undefined]);
    expect(await inspect('none')).toEqual([false, undefined, ['registration-unreadable']]);
  });
});

test('a named cluster that Secrets Manager does not describe fails alone', async () => {
  const { kubeconfig } = await emptyCluster();
  const denied = { status: 400, type: 'AccessDeniedException', message: 'not authorized to describe' };
  const secrets = await registryOf(
    { denied: kubeconfig, good: kubeconfig },
    { notDescribed: { [`${CLUSTERS_PREFIX}denied`]: denied } },
  );
  const reports = await runAll(secrets, { clusters: ['denied', 'good'] });
  expect(reports.map(({ cluster, served, codes, reason }) => [cluster, served, codes, reason])).toEqual([
    ['denied', false, ['registration-unreadable'], 'AccessDeniedException: not authorized to describe'],
    ['good', true, undefined, undefined],
  ]);
});

test('a value that cannot be read or used fails only its own cluster', async () => {
  const { kubeconfig } = await emptyCluster();
  const error = (type: string, message: string) => ({ error: { status: 400, type, message } });
  const secrets = await registryOf({
    good: kubeconfig,
    denied: error(
      'AccessDeniedException',
      'User is not authorized to perform: secretsmanager:GetSecretValue',
    ),
    'deleted meanwhile': error(
      'ResourceNotFoundException',
      "Secrets Manager can't find the specified secret.",
    ),
    binary: { binary: kubeconfig },
    empty: '',
    junk: `not a kubeconfig: ${CANARY}`,
    silent: 'never',
  });
  const reports = await runAll(secrets);
  const outcomes = Object.fromEntries(
    reports.map(({ cluster, served, failed, failedAt, codes }) => [
      cluster,
      { served, failed, failedAt, codes },
    ]),
  );
  const failedWith = (code: FailureCode, failedAt = 'kubeconfig') => ({
    served: false,
    failed: true,
    failedAt,
    codes: [code],
  });
  expect(outcomes).toEqual({
    good: { served: true, failed: false },
    denied: failedWith('registration-unreadable'),
    'deleted meanwhile': failedWith('registration-unreadable'),
    binary: failedWith('registration-unreadable'),
    empty: failedWith('registration-unreadable'),
    junk: failedWith('kubeconfig-unusable'),
    silent: failedWith('cluster-time-up', 'reach'),
  });
  const reasonOf = (name: string) => reports.find(({ cluster }) => cluster === name)?.reason;
  // The messages of AWS.
  expect(reasonOf('denied')).toContain('not authorized');
  expect(reasonOf('deleted meanwhile')).toContain("can't find the specified secret");
  expect(JSON.stringify(reports)).not.toContain(CANARY);
});

test('reads only the values of the clusters that the event names', async () => {
  const { server, kubeconfig } = await emptyCluster();
  const secrets = await registryOf({ a: kubeconfig, b: kubeconfig, c: kubeconfig });
  const reports = await runAll(secrets, { clusters: ['b', 'b'] });
  expect(reports.map(({ cluster }) => cluster)).toEqual(['b']);
  const read = secrets.calls.filter(({ operation }) => operation !== 'DescribeSecret');
  expect(read.map(({ input }) => input.SecretIdList)).toEqual([[`${CLUSTERS_PREFIX}b`]]);
  expect(server.requests).toHaveLength(1);
});

test('an event that names an unknown cluster rejects and reads no value', async () => {
  const secrets = await registryOf({ a: 'x', b: 'x' });
  await expect(runAll(secrets, { clusters: ['a', 'typo'] })).rejects.toMatchObject({
    name: 'NotRegisteredError',
    names: ['typo'],
    registered: ['a', 'b'],
    failures: [],
  });
  const operations = new Set(secrets.calls.map(({ operation }) => operation));
  expect(operations).toEqual(new Set(['DescribeSecret', 'ListSecrets']));
});

test('sends no request to a paused cluster whose token is not due, which has not failed, until the tag is removed', async () => {
  const { server, kubeconfig } = await emptyCluster();
  const tags: Record<string, Record<string, string>> = { a: { [TAG.paused]: 'true' } };
  const secrets = await registryOf({ a: kubeconfig }, { tags });
  for (const event of [{}, { clusters: ['a'] }, { force: true }]) {
    expect(await runAll(secrets, event)).toEqual([
      expect.objectContaining({ cluster: 'a', isPaused: true, failed: false, served: false }),
    ]);
  }
  expect(server.requests).toEqual([]);
  const untagged = await registryOf({ a: kubeconfig }, { tags: { a: { [TAG.paused]: 'false' } } });
  expect(await runAll(untagged)).toEqual([expect.objectContaining({ served: true })]);
});

test('uses the context that the tag names', async () => {
  const [one, two] = [await emptyCluster(), await emptyCluster()];
  const both = JSON.parse(one.kubeconfig);
  const second = JSON.parse(two.kubeconfig);
  both.contexts.push({ name: 'second', context: { cluster: 'second', user: 'main' } });
  both.clusters.push({ ...second.clusters[0], name: 'second' });
  const text = JSON.stringify(both);
  const secrets = await registryOf(
    { current: text, empty: text, tagged: text, mistyped: text },
    {
      tags: {
        empty: { [TAG.context]: '' },
        tagged: { [TAG.context]: 'second' },
        mistyped: { [TAG.context]: 'secnod' },
      },
    },
  );
  const reports = await runAll(secrets);
  expect(reports.map(({ cluster, served, codes }) => [cluster, served, codes])).toEqual([
    ['current', true, undefined],
    ['empty', true, undefined],
    ['mistyped', false, ['kubeconfig-unusable']],
    ['tagged', true, undefined],
  ]);
  expect([one.server.requests.length, two.server.requests.length]).toEqual([2, 1]);
});

test('reads the values in batches of twenty, each once', async () => {
  const { kubeconfig } = await emptyCluster();
  const names = Array.from({ length: 45 }, (_, index) => `c${String(index).padStart(2, '0')}`);
  const secrets = await registryOf(Object.fromEntries(names.map((name) => [name, kubeconfig])), {
    pageSize: 100,
  });
  const reports = await runAll(secrets, {}, undefined, { ...SETTINGS, clusterDeadlineMs: 120_000 });
  expect(reports.map(({ cluster, served }) => (served ? cluster : ''))).toEqual(names);
  const batches = secrets.calls.filter(({ operation }) => operation !== 'ListSecrets');
  expect(batches.map(({ operation, input }) => [operation, (input.SecretIdList as string[]).length])).toEqual(
    [20, 20, 5].map((length) => ['BatchGetSecretValue', length]),
  );
});

describe('a batch that fails as a whole', () => {
  const NAMES = Array.from({ length: 25 }, (_, index) => `c${String(index).padStart(2, '0')}`);

  test.each<{ how: string; before: (batch: number) => Promise<void> | void; deadlineMs?: number }>([
    {
      how: 'is denied',
      before: () => {
        throw { status: 400, type: 'AccessDeniedException', message: 'not authorized to BatchGet' };
      },
    },
    { how: 'has no answer', before: () => new Promise(() => {}), deadlineMs: 12_000 },
    {
      how: 'has half an answer',
      before: () => {
        throw HALF_AN_ANSWER;
      },
      deadlineMs: 12_000,
    },
  ])('is read value by value if it $how', async ({ before, deadlineMs = 120_000 }) => {
    const { kubeconfig } = await emptyCluster();
    let batches = 0;
    const secrets = await registryOf(Object.fromEntries(NAMES.map((name) => [name, kubeconfig])), {
      before(operation) {
        if (operation !== 'BatchGetSecretValue') return;
        batches += 1;
        if (batches === 1) return before(batches);
        // Throttled once; the SDK retries.
        if (batches === 2) throw { status: 400, type: 'ThrottlingException', message: 'Rate exceeded' };
      },
    });
    const reports = await runAll(secrets, {}, undefined, { ...SETTINGS, clusterDeadlineMs: deadlineMs });
    expect(reports.map(({ cluster, served }) => (served ? cluster : ''))).toEqual(NAMES);
    const alone = secrets.calls.filter(({ operation }) => operation === 'GetSecretValue');
    expect(alone.map(({ input }) => input.SecretId)).toEqual(
      expect.arrayContaining(NAMES.slice(0, 20).map((name) => `${CLUSTERS_PREFIX}${name}`)),
    );
  });

  test('fails only the clusters whose values cannot be read alone', async () => {
    const { kubeconfig } = await emptyCluster();
    const denied = { error: { status: 400, type: 'AccessDeniedException', message: 'not authorized' } };
    const secrets = await registryOf(
      { a: kubeconfig, b: denied, c: 'never' },
      {
        attemptMs: 200,
        before(operation) {
          if (operation === 'BatchGetSecretValue') throw denied.error;
        },
      },
    );
    const reports = await runAll(secrets, {}, undefined, { ...SETTINGS, clusterDeadlineMs: 60_000 });
    expect(reports.map(({ cluster, codes, reason }) => [cluster, codes, reason])).toEqual([
      ['a', undefined, undefined],
      ['b', ['registration-unreadable'], 'AccessDeniedException: not authorized'],
      ['c', ['registration-unreadable'], 'no answer in time'],
    ]);
  });
});

test('a run without registered clusters has no reports', async () => {
  expect(await runAll(await registryOf({}))).toEqual([]);
});

test('a run rejects with the AWS error if the clusters cannot be listed', async () => {
  const secrets = await registryOf({ a: 'x' });
  secrets.failLists({ status: 400, type: 'AccessDeniedException', message: 'not authorized to list' });
  await expect(runAll(secrets)).rejects.toMatchObject({ name: 'AccessDeniedException' });
});

test('a run ends at its deadline if Secrets Manager does not respond', async () => {
  const secrets = await registryOf({ a: 'x' });
  secrets.failLists('never');
  await expect(runAll(secrets, {}, AbortSignal.timeout(300))).rejects.toThrow(/abort/i);
});

test('reports each cluster as soon as its run is over, and those that were not started', async () => {
  const { kubeconfig } = await emptyCluster();
  const secrets = await registryOf({ a: kubeconfig, b: 'never', c: kubeconfig });
  const reported: string[] = [];
  const reports = await run(
    { secrets: secrets.client, eks: NO_EKS, keyless: NO_KEYLESS },
    readEvent({}),
    { ...SETTINGS, clusterDeadlineMs: 20_000, clusterConcurrency: 1 },
    Date.now,
    AbortSignal.timeout(1_000),
    ({ cluster, served, codes }) => reported.push(`${cluster} ${served ? 'served' : codes}`),
  );
  expect(reported).toEqual(['a served', 'b cluster-time-up', 'c run-time-up']);
  expect(reports.map(({ cluster }) => cluster)).toEqual(['a', 'b', 'c']);
});
