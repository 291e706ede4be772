// A cluster's turn against a server that may fail in any way: when it ends early, and what it says then.
import { afterEach, expect, test } from 'vitest';
import { ANNOTATION } from '../../../../contract/names.ts';
import { KubernetesApi } from '../../../../functions/refresher/kubernetes/client.ts';
import { type ClusterReport, refreshCluster } from '../../../../functions/refresher/run/cluster.ts';
import { type Answer, json, object, page, refuse, startApiServer } from '../../api-server.ts';
import { outcomesOf } from '../../real-cluster.ts';

const NOW = Date.parse('2026-11-23T12:00:00Z');
const FRESH = { [ANNOTATION.expiresAt]: '2026-11-24T00:00:00Z' };

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

interface Fake {
  namespaces?: readonly string[];
  /** In each namespace; all of them due. */
  secrets?: readonly string[];
  patch?: Answer;
  list?: Answer;
  deadlineMs?: number;
}

async function turn({
  namespaces = ['team'],
  secrets = [],
  patch = (_, response) => json(response, object({ name: 'x', annotations: FRESH })),
  list = (_, response) => json(response, page(secrets.map((name) => ({ name })))),
  deadlineMs = 30_000,
}: Fake): Promise<ClusterReport> {
  const server = stack.use(
    await startApiServer((request, response, count) => {
      if (request.method === 'PATCH') patch(request, response, count);
      else if (request.path.endsWith('/secrets')) list(request, response, count);
      else json(response, page(namespaces.map((name) => ({ name }))));
    }),
  );
  const signal = AbortSignal.timeout(deadlineMs);
  const access = { server: server.url, ca: server.caPem, identity: { token: 'token' } };
  await using api = new KubernetesApi(access, 8, signal);
  return await refreshCluster('cluster', api, { dryRun: false, force: false }, NOW, signal);
}

const named = (length: number) => Array.from({ length }, (_, i) => `pull-${i}`);

test.each<{ title: string; patch: Answer; says: string }>([
  {
    title: 'with the port of each connection in it',
    patch: (_, response, count) =>
      refuse(
        response,
        500,
        `failed calling webhook: read tcp 127.0.0.1:${40_000 + count}->127.0.0.1:8443: connection reset by peer`,
      ),
    says: 'connection reset by peer',
  },
  {
    title: 'with the time in it',
    patch: (_, response, count) =>
      refuse(
        response,
        503,
        `admission webhook "x" denied the request: expired at 2026-11-23T12:00:${count}Z`,
      ),
    says: 'expired at',
  },
  {
    title: 'in words that are also names of Secrets',
    patch: (_, response) => refuse(response, 500, 'failed calling webhook: pull, ecr and regcred'),
    says: 'failed calling webhook: pull, ecr and regcred',
  },
])('the same failure over and over ends the turn: $title', async ({ patch, says }) => {
  const secrets = ['pull', 'ecr', 'regcred', 'webhook', ...named(96)];
  const report = await turn({ secrets, patch });
  const { refused = 0, 'not-attempted': notAttempted, ...others } = outcomesOf(report);
  expect(others).toEqual({});
  expect(refused).toBeLessThanOrEqual(5 + 7);
  expect(notAttempted).toBe(100 - refused);
  expect(report.reason).toMatch(/^ended after 5 failures in a row: /);
  expect(report.reason).toContain(says);
});

test('failures of single Secrets do not end the turn', async () => {
  const report = await turn({
    secrets: named(50),
    patch: (_, response) => refuse(response, 403, 'admission webhook "x" denied the request: immutable'),
  });
  expect(outcomesOf(report)).toEqual({ refused: 50 });
  expect(report).toMatchObject({ served: true, failed: true });
});

test("the cluster's time is up: what was not asked for is counted", async () => {
  const report = await turn({
    secrets: named(200),
    deadlineMs: 1_000,
    patch: (_, response) => setTimeout(() => json(response, object({ name: 'x', annotations: FRESH })), 100),
  });
  const { refreshed = 0, refused = 0, 'not-attempted': notAttempted = 0 } = outcomesOf(report);
  expect(refreshed).toBeGreaterThan(0);
  expect(notAttempted).toBeGreaterThan(0);
  expect(refreshed + refused + notAttempted).toBe(200);
  expect(report).toMatchObject({ served: true, failed: true });
  expect(report.reason).toBe("the cluster's time was up");
});

test('no more than eight requests are under way at the same time', async () => {
  let underWay = 0;
  let most = 0;
  const slowly = (response: Parameters<Answer>[1], body: object) => {
    underWay += 1;
    most = Math.max(most, underWay);
    setTimeout(() => {
      underWay -= 1;
      json(response, body);
    }, 10);
  };
  const report = await turn({
    namespaces: named(20),
    secrets: named(5),
    list: (_, response) => slowly(response, page(named(5).map((name) => ({ name })))),
    patch: (_, response) => slowly(response, object({ name: 'x', annotations: FRESH })),
  });
  expect(outcomesOf(report)).toEqual({ refreshed: 100 });
  expect(most).toBe(8);
});

test('a namespace that hangs costs the others their turn only when time is up', async () => {
  const report = await turn({
    namespaces: ['a', 'hangs', 'b'],
    deadlineMs: 1_000,
    list: ({ path }, response) => {
      if (!path.includes('hangs')) json(response, page([]));
    },
  });
  expect(report).toMatchObject({ served: true, failed: true });
  expect(report.reason).toMatch(/^GET .*\/hangs\/secrets: no answer before the cluster's deadline$/);
});

test('thousands of namespaces that cannot be listed make one reason of bearable length', async () => {
  const report = await turn({
    namespaces: named(2_000),
    list: (_, response) => refuse(response, 403, 'x'.repeat(100_000)),
  });
  expect(report.served).toBe(false);
  expect(report.reason).toMatch(/and 1980 more$/);
  expect(report.reason?.length).toBeLessThan(20_000);
});

test('no namespace is enabled: nothing to do, and no failure', async () => {
  expect(await turn({ namespaces: [] })).toEqual({
    cluster: 'cluster',
    served: true,
    failed: false,
    namespaces: [],
    managed: 0,
    results: [],
  });
});

test.each<{ title: string; registries: string; warnings: string[]; reason: string }>([
  {
    title: 'in the words of the webhook, and nobody else’s',
    registries: 'a.example=2026-11-24T00:00:00Z,b.example=2026-11-23T11:00:00Z',
    warnings: [
      'somebody: speaks of b.example',
      'b.example: no credentials (aws-role-denied): the role cannot be assumed',
    ],
    reason: 'b.example: no credentials (aws-role-denied): the role cannot be assumed',
  },
  {
    title: 'by its expiry, where the webhook said nothing',
    registries: 'a.example=2026-11-24T00:00:00Z,b.example=2026-11-23T14:00:00Z',
    warnings: [],
    reason: 'b.example: expires at 2026-11-23T14:00:00Z',
  },
  {
    title: 'by what was removed, where nothing is left',
    registries: '',
    warnings: ['b.example: removed: the namespace team is not entitled to it'],
    reason: 'b.example: removed: the namespace team is not entitled to it',
  },
])('partial: the registry is named, $title', async ({ registries, warnings, reason }) => {
  const annotations = { [ANNOTATION.updatedAt]: '2026-11-23T12:00:00Z', [ANNOTATION.registries]: registries };
  const report = await turn({
    secrets: ['pull'],
    patch: (_, response) => {
      response.setHeader(
        'warning',
        warnings.map((text) => `299 - "${text}"`),
      );
      json(response, object({ name: 'pull', annotations }));
    },
  });
  expect(report).toMatchObject({ failed: true, results: [{ outcome: 'partial', reason }] });
});
