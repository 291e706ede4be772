// Tests a cluster run against a server that fails in any way: when the run ends early, and the codes in its report.
import { afterEach, expect, test } from 'vitest';
import { type DenialCause, registryField, type TokenFailure } from '../../../../contract/denials.ts';
import { ANNOTATION, WEBHOOK_NAME } from '../../../../contract/names.ts';
import type { FailureCode } from '../../../../contract/refresher-api.ts';
import { KubernetesApi } from '../../../../functions/refresher/kubernetes/client.ts';
import { refreshCluster } from '../../../../functions/refresher/run/cluster.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { type Answer, json, object, page, pageFor, refuse, startApiServer } from '../../api-server.ts';
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
  /** Names of due Secrets in each namespace. */
  secrets?: readonly string[];
  patch?: Answer;
  list?: Answer;
  /** Which Secrets the refresher may create. */
  review?: Answer;
  deadlineMs?: number;
}

async function refresh({
  namespaces = ['team'],
  secrets = [],
  patch = (_, response) => json(response, object({ name: 'x', annotations: FRESH })),
  list = (request, response) =>
    json(
      response,
      pageFor(
        request,
        secrets.map((name) => ({ name })),
      ),
    ),
  review = (_, response) => refuse(response, 403, 'forbidden'),
  deadlineMs = 30_000,
}: Fake): Promise<ClusterReport> {
  const server = stack.use(
    await startApiServer((request, response, count) => {
      if (request.method === 'PATCH') patch(request, response, count);
      else if (request.path.endsWith('/secrets')) list(request, response, count);
      else if (request.path.endsWith('/selfsubjectrulesreviews')) review(request, response, count);
      else
        json(
          response,
          pageFor(
            request,
            namespaces.map((name) => ({ name })),
          ),
        );
    }),
  );
  const signal = AbortSignal.timeout(deadlineMs);
  const access = { server: server.url, ca: server.caPem, identity: { token: 'credential-of-test' } };
  await using api = new KubernetesApi(access, 8, signal);
  return await refreshCluster('cluster', api, { dryRun: false, force: false }, NOW, signal);
}

const names = (length: number) => Array.from({ length }, (_, i) => `pull-${i}`);

test.each<{ title: string; patch: Answer; code: FailureCode }>([
  {
    title: 'with a different port in each message',
    patch: (_, response, count) =>
      refuse(
        response,
        500,
        `failed calling webhook: read tcp 127.0.0.1:${40_000 + count}->127.0.0.1:8443: connection reset by peer`,
      ),
    code: 'webhook-unreachable',
  },
  {
    title: 'with a different time in each message',
    patch: (_, response, count) =>
      refuse(
        response,
        503,
        `admission webhook "x" denied the request: expired at 2026-11-23T12:00:${count}Z`,
      ),
    code: 'server-error',
  },
  {
    title: 'with names of Secrets in the message',
    patch: (_, response) => refuse(response, 500, 'failed calling webhook: pull, ecr and regcred'),
    code: 'webhook-unreachable',
  },
])('stops after five failures with the same cause: $title', async ({ patch, code }) => {
  const secrets = ['pull', 'ecr', 'regcred', 'webhook', ...names(96)];
  const report = await refresh({ secrets, patch });
  const { refused = 0, 'not-attempted': notAttempted, ...others } = outcomesOf(report);
  expect(others).toEqual({});
  expect(refused).toBeLessThanOrEqual(5 + 7);
  expect(notAttempted).toBe(100 - refused);
  expect(report.codes).toEqual([code, 'secrets-not-refreshed']);
  expect(report.reason).toMatch(/5 failures in a row/);
  expect(report.results[0]).toMatchObject({ outcome: 'refused', code });
});

test('requests all Secrets although each is refused for itself', async () => {
  const report = await refresh({
    secrets: names(50),
    patch: (_, response) => refuse(response, 403, 'admission webhook "x" denied the request: immutable'),
  });
  expect(outcomesOf(report)).toEqual({ refused: 50 });
  expect(report).toMatchObject({ served: true, failed: true, codes: ['secrets-not-refreshed'] });
  expect(report.results.every(({ code, causes }) => code === 'forbidden' && !causes)).toBe(true);
});

/** The webhook's denial for a registry without a token. */
function noToken(reason: TokenFailure) {
  const causes: DenialCause[] = [
    { reason: 'no-token', message: 'no token for b.example' },
    { reason, field: registryField('b.example'), message: 'arn:aws:iam::1:role/x' },
  ];
  const message = `admission webhook "${WEBHOOK_NAME}" denied the request: no token for b.example`;
  return { kind: 'Status', apiVersion: 'v1', status: 'Failure', message, details: { causes } };
}

test('requests the Secrets of other registries although no role of one registry can be assumed', async () => {
  const report = await refresh({
    secrets: [...names(20), 'of-another-registry'],
    patch: ({ path }, response) =>
      path.endsWith('/of-another-registry')
        ? json(response, object({ name: 'of-another-registry', annotations: FRESH }))
        : json(response, noToken('aws-role-denied'), 503),
  });
  expect(outcomesOf(report)).toEqual({ refused: 20, refreshed: 1 });
  expect(report.codes).toEqual(['secrets-not-refreshed']);
});

/** A run over ten namespaces without a token for this reason, and one that has tokens. */
const withTenBroken = (reason: TokenFailure) =>
  refresh({
    namespaces: [...Array.from({ length: 10 }, (_, i) => `broken-${i}`), 'working'],
    secrets: names(2),
    patch: ({ path }, response) =>
      path.includes('/working/')
        ? json(response, object({ name: 'pull-0', annotations: FRESH }))
        : json(response, noToken(reason), 503),
  });

test.each<{ reason: TokenFailure }>([{ reason: 'ecr-denied' }, { reason: 'ecr-unavailable' }])(
  'requests the Secrets of a namespace although ten others have the failure $reason',
  async ({ reason }) => {
    expect(outcomesOf(await withTenBroken(reason))).toEqual({ refused: 20, refreshed: 2 });
  },
);

test('stops the cluster if the webhook has no AWS identity', async () => {
  const { 'not-attempted': notAttempted } = outcomesOf(await withTenBroken('aws-no-identity'));
  expect(notAttempted).toBeGreaterThan(0);
});

test('fails at the deadline if the API server does not answer which Secret to create', async () => {
  const report = await refresh({
    secrets: names(1),
    review: () => {},
    deadlineMs: 1_000,
  });
  expect(outcomesOf(report)).toEqual({ refreshed: 1 });
  expect(report).toMatchObject({ failed: true, codes: ['cluster-time-up'] });
});

test('counts the Secrets that were not requested before the deadline', async () => {
  const report = await refresh({
    secrets: names(200),
    deadlineMs: 1_000,
    patch: (_, response) => setTimeout(() => json(response, object({ name: 'x', annotations: FRESH })), 100),
  });
  const { refreshed = 0, refused = 0, 'not-attempted': notAttempted = 0 } = outcomesOf(report);
  expect(refreshed).toBeGreaterThan(0);
  expect(notAttempted).toBeGreaterThan(0);
  expect(refreshed + refused + notAttempted).toBe(200);
  expect(report).toMatchObject({ served: true, failed: true });
  expect(report.codes).toEqual(['cluster-time-up', 'secrets-not-refreshed']);
});

test('sends at most eight requests concurrently', async () => {
  let concurrent = 0;
  let most = 0;
  const slowly = (response: Parameters<Answer>[1], body: object) => {
    concurrent += 1;
    most = Math.max(most, concurrent);
    setTimeout(() => {
      concurrent -= 1;
      json(response, body);
    }, 10);
  };
  const report = await refresh({
    namespaces: names(20),
    secrets: names(5),
    list: (_, response) => slowly(response, page(names(5).map((name) => ({ name })))),
    patch: (_, response) => slowly(response, object({ name: 'x', annotations: FRESH })),
  });
  expect(outcomesOf(report)).toEqual({ refreshed: 100 });
  expect(most).toBe(8);
});

test('a namespace whose list never arrives fails at the deadline, and the others are listed', async () => {
  const report = await refresh({
    namespaces: ['a', 'hangs', 'b'],
    deadlineMs: 1_000,
    list: ({ path }, response) => {
      if (!path.includes('hangs')) json(response, page([]));
    },
  });
  expect(report).toMatchObject({ served: true, failed: true, codes: ['cluster-time-up'] });
  expect(report.reason).toContain('/hangs/secrets');
  expect(report.reason).not.toMatch(/\/[ab]\/secrets/);
});

test('joins the failures of thousands of namespaces to one reason of limited length', async () => {
  const report = await refresh({
    namespaces: names(2_000),
    list: (_, response) => refuse(response, 403, 'x'.repeat(100_000)),
  });
  expect(report).toMatchObject({ served: false, failedAt: 'permissions', codes: ['forbidden'] });
  expect(report.reason).toMatch(/and 1980 more$/);
  expect(report.reason?.length).toBeLessThan(20_000);
});

test('a cluster without enabled namespaces is served and has nothing to refresh', async () => {
  expect(await refresh({ namespaces: [] })).toEqual({
    cluster: 'cluster',
    served: true,
    failed: false,
    namespaces: [],
    managed: 0,
    results: [],
  });
});

test('a Secret that the webhook denies has the causes of the denial', async () => {
  const causes: DenialCause[] = [
    { reason: 'no-token', message: 'no token for b.example' },
    { reason: 'aws-role-denied', field: registryField('b.example'), message: 'arn:aws:iam::1:role/x' },
  ];
  const foreign = { reason: 'FieldValueInvalid', message: 'of another admission plugin' };
  const report = await refresh({
    secrets: ['pull'],
    patch: (_, response) => {
      const message = 'admission webhook "x" denied the request: no token for b.example';
      const details = { causes: [...causes, foreign] };
      json(response, { kind: 'Status', apiVersion: 'v1', status: 'Failure', message, details }, 503);
    },
  });
  expect(report.codes).toEqual(['secrets-not-refreshed']);
  expect(report.results).toMatchObject([{ outcome: 'refused', code: 'webhook-denied', causes }]);
});

interface PartialCase {
  title: string;
  /** The `registries` annotation before and after. */
  before?: string;
  registries: string;
  warnings: string[];
  reason: string;
}

test.each<PartialCase>([
  {
    title: 'the warning of the webhook, and none of another admission plugin',
    registries: 'a.example=2026-11-24T00:00:00Z,b.example=2026-11-23T11:00:00Z',
    warnings: [
      'other-plugin: a warning about b.example',
      'b.example: no credentials (aws-role-denied): the role cannot be assumed',
    ],
    reason: 'b.example: no credentials (aws-role-denied): the role cannot be assumed',
  },
  {
    title: 'its expiry, if the webhook sent no warning',
    registries: 'a.example=2026-11-24T00:00:00Z,b.example=2026-11-23T14:00:00Z',
    warnings: [],
    reason: 'b.example: expires at 2026-11-23T14:00:00Z',
  },
  {
    title: 'the warning of its removal, if no entry is left',
    before: 'b.example=2026-11-23T11:00:00Z',
    registries: '',
    warnings: ['b.example: removed: the namespace team is not entitled to it'],
    reason: 'b.example: removed: the namespace team is not entitled to it',
  },
])('a partial result names the registry with $title', async ({ before, registries, warnings, reason }) => {
  const annotations = { [ANNOTATION.updatedAt]: '2026-11-23T12:00:00Z', [ANNOTATION.registries]: registries };
  const stored = before === undefined ? {} : { [ANNOTATION.registries]: before };
  const report = await refresh({
    list: (_, response) => json(response, page([{ name: 'pull', annotations: stored }])),
    patch: (_, response) => {
      response.setHeader(
        'warning',
        warnings.map((text) => `299 - "${text}"`),
      );
      json(response, object({ name: 'pull', annotations }));
    },
  });
  expect(report).toMatchObject({
    failed: true,
    codes: ['secrets-not-refreshed'],
    results: [{ outcome: 'partial', registries: ['b.example'], reason }],
  });
});
