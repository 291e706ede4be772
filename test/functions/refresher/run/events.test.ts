// Which Events a cluster run writes on Secrets, and what it does if the API server answers them with anything.
import { afterEach, describe, expect, test } from 'vitest';
import type { DenialCause } from '../../../../contract/denials.ts';
import { formatTime } from '../../../../contract/freshness.ts';
import { ANNOTATION } from '../../../../contract/names.ts';
import type { SecretResult } from '../../../../contract/refresher-api.ts';
import { KubernetesApi } from '../../../../functions/refresher/kubernetes/client.ts';
import { refreshCluster } from '../../../../functions/refresher/run/cluster.ts';
import type { ClusterReport, Failure } from '../../../../functions/refresher/run/cluster-report.ts';
import { eventsOf, MAX_EVENTS } from '../../../../functions/refresher/run/events.ts';
import { logReport } from '../../../../functions/refresher/run/log-report.ts';
import {
  type Answer,
  type ApiServer,
  json,
  object,
  pageFor,
  refuse,
  startApiServer,
} from '../../api-server.ts';

const NOW = Date.parse('2026-11-23T12:00:00Z');
const HOUR = 3_600_000;
const HOST = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';
const PRINCIPAL = 'arn:aws:iam::123456789012:role/internal';

interface Case {
  readonly result: Partial<SecretResult>;
  /** Hours until the credentials expired before the run; undefined: no expiry is known. */
  readonly hours?: number | undefined;
  readonly name?: string;
  readonly uid?: string;
  readonly stop?: Failure;
}

function eventOf({ result, hours, name = 'ecr', uid = 'uid-1', stop }: Case) {
  const annotations = hours === undefined ? {} : { [ANNOTATION.expiresAt]: formatTime(NOW + hours * HOUR) };
  const secret = { namespace: 'team', name, uid, annotations };
  const all: SecretResult = { secret: `team/${name}`, due: 'expiring', outcome: 'refused', ...result };
  return eventsOf([{ secret, reason: 'expiring' }], [all], () => stop, NOW)[0];
}

const denied = (...causes: DenialCause[]): Partial<SecretResult> => ({
  code: 'webhook-denied',
  causes,
  reason: `PATCH /api/v1/namespaces/other/secrets/x: ${PRINCIPAL}`,
});
const noToken = denied(
  { reason: 'no-token', message: `${HOST}: ${PRINCIPAL} cannot be assumed` },
  { reason: 'aws-role-denied', field: `data[.dockerconfigjson].auths[${HOST}]`, message: PRINCIPAL },
);
const notEntitled = denied({ reason: 'not-entitled', message: 'The namespace team is entitled to none.' });
const unreachable: Partial<SecretResult> = {
  code: 'webhook-unreachable',
  reason: 'failed calling webhook: Post "https://10.0.0.7:443/sync": refused',
};

test.each<{ title: string; reason: string; note: string } & Case>([
  {
    title: 'a registry without a token, by its code and without the AWS principal',
    result: noToken,
    hours: 4,
    reason: 'RefreshFailed',
    note: `The webhook got no new credentials: ${HOST}: AWS does not let the webhook assume the role of this registry (aws-role-denied). The credentials expire at 2026-11-23T16:00:00Z.`,
  },
  {
    title: 'credentials that have expired',
    result: noToken,
    hours: -1,
    reason: 'RefreshFailed',
    note: `The webhook got no new credentials: ${HOST}: AWS does not let the webhook assume the role of this registry (aws-role-denied). The credentials expired at 2026-11-23T11:00:00Z.`,
  },
  {
    title: "the webhook's sentence about the Secret",
    result: notEntitled,
    reason: 'RefreshFailed',
    note: 'The namespace team is entitled to none. The Secret states no expiry.',
  },
  {
    title: 'any other denial by its code alone',
    result: denied({ reason: 'internal-error', message: 'secret internals' }),
    hours: 4,
    reason: 'RefreshFailed',
    note: 'The webhook denied the request (internal-error). The credentials expire at 2026-11-23T16:00:00Z.',
  },
  {
    title: 'a webhook that does not answer, without its address',
    result: unreachable,
    hours: 4,
    reason: 'RefreshFailed',
    note: 'The API server could not call an admission webhook (webhook-unreachable). The credentials expire at 2026-11-23T16:00:00Z.',
  },
  {
    title: 'a refusal by its code alone',
    result: { code: 'forbidden', reason: 'admission webhook "x" denied the request: 10.0.0.7' },
    hours: 4,
    reason: 'RefreshFailed',
    note: 'The API server refused the request (forbidden). The credentials expire at 2026-11-23T16:00:00Z.',
  },
  {
    title: 'a request that did not reach the webhook',
    result: { outcome: 'not-mutated', code: 'not-mutated' },
    hours: 4,
    reason: 'RefreshFailed',
    note: "The API server did not call the webhook (not-mutated): does the webhook's configuration select this namespace? The credentials expire at 2026-11-23T16:00:00Z.",
  },
  {
    title: 'a Secret that was not attempted and expires soon',
    result: { outcome: 'not-attempted' },
    hours: 2,
    stop: { code: 'webhook-unreachable', reason: 'PATCH /api/v1/namespaces/other/secrets/x: refused' },
    reason: 'RefreshFailed',
    note: 'The refresher did not get to this Secret, because its requests for others failed (webhook-unreachable). The credentials expire at 2026-11-23T14:00:00Z.',
  },
  {
    title: 'the registries that were not refreshed',
    result: { outcome: 'partial', registries: [HOST, 'b.example'], expiresAt: '2026-11-23T13:00:00Z' },
    hours: 1,
    reason: 'RefreshPartial',
    note: `The credentials of ${HOST}, b.example were not refreshed. The credentials expire at 2026-11-23T13:00:00Z.`,
  },
  {
    title: 'a refresh with less time left than a healthy Secret has',
    result: { outcome: 'refreshed', expiresAt: '2026-11-24T00:00:00Z' },
    hours: 2.9,
    reason: 'RefreshRecovered',
    note: 'The credentials were refreshed shortly before their expiry, and now expire at 2026-11-24T00:00:00Z.',
  },
  {
    title: 'a refresh after the expiry',
    result: { outcome: 'refreshed', expiresAt: '2026-11-24T00:00:00Z' },
    hours: -3,
    reason: 'RefreshRecovered',
    note: 'The credentials were refreshed after their expiry, and now expire at 2026-11-24T00:00:00Z.',
  },
])('an Event names $title', ({ reason, note, ...told }) => {
  const event = eventOf(told);
  expect(event).toMatchObject({ reason, note, secret: { namespace: 'team', name: 'ecr', uid: 'uid-1' } });
  expect(event?.type).toBe(reason === 'RefreshRecovered' ? 'Normal' : 'Warning');
});

test.each<{ title: string } & Case>([
  { title: 'a refresh in time', result: { outcome: 'refreshed', expiresAt: 'x' }, hours: 3.1 },
  { title: 'the first credentials of a Secret', result: { outcome: 'refreshed', expiresAt: 'x' } },
  { title: 'a Secret that was deleted', result: { outcome: 'gone' }, hours: 1 },
  { title: 'a Secret that the next run attempts in time', result: { outcome: 'not-attempted' }, hours: 3.1 },
])('there is no Event for $title', ({ title: _, ...told }) => {
  expect(eventOf(told)).toBeUndefined();
});

test('an Event has the same name as long as it says the same of the same Secret', () => {
  const names = [
    { result: noToken, hours: 4 },
    { result: noToken, hours: 5 },
    { result: notEntitled, hours: 4 },
    { result: noToken, hours: 4, uid: 'uid-2' },
    { result: noToken, hours: 4, name: 'other' },
    { result: { outcome: 'not-mutated' as const }, hours: 4 },
  ].map((told) => eventOf(told)?.name);
  expect(new Set(names).size).toBe(names.length);
  expect(eventOf({ result: noToken, hours: 4 })?.name).toBe(names[0]);
});

test("names and notes stay within Kubernetes' limits", () => {
  const message = '€'.repeat(400);
  const long = eventOf({
    result: denied({ reason: 'not-entitled', message }),
    name: `${'a'.repeat(235)}.${'b'.repeat(17)}`,
  });
  expect(long?.name).toMatch(/^a{235}\.[0-9a-f]{16}$/);
  expect(Buffer.byteLength(long?.note ?? '')).toBeLessThanOrEqual(1024);
  expect(long?.note).toMatch(/^€{300,}.?…$/u);
});

describe('on a server that may answer anything', () => {
  let stack = new AsyncDisposableStack();
  afterEach(async () => {
    await stack.disposeAsync();
    stack = new AsyncDisposableStack();
  });

  const created: Answer = (_, response) => json(response, object({ name: 'x' }), 201);
  const review =
    (allowed: boolean): Answer =>
    (_, response) =>
      json(response, { kind: 'SelfSubjectAccessReview', status: { allowed } }, 201);

  interface Fake {
    secrets?: number;
    patch?: Answer;
    allowed?: Answer;
    event?: Answer;
    dryRun?: boolean;
    signal?: AbortSignal;
  }

  async function refresh({
    secrets = 1,
    patch = (_, response) => refuse(response, 403, 'denied'),
    allowed = review(true),
    event = created,
    dryRun = false,
    signal = AbortSignal.timeout(30_000),
  }: Fake): Promise<{ report: ClusterReport; server: ApiServer; posted: Record<string, unknown>[] }> {
    const names = Array.from({ length: secrets }, (_, index) => ({ name: `pull-${index}` }));
    const server = stack.use(
      await startApiServer((request, response, count) => {
        if (request.method === 'PATCH') patch(request, response, count);
        else if (request.path.endsWith('/selfsubjectaccessreviews')) allowed(request, response, count);
        else if (request.path.endsWith('/events')) event(request, response, count);
        else json(response, pageFor(request, request.path.endsWith('/secrets') ? names : [{ name: 'team' }]));
      }),
    );
    const access = { server: server.url, ca: server.caPem, identity: { token: 'credential-of-test' } };
    await using api = new KubernetesApi(access, 8, signal);
    const report = await refreshCluster('cluster', api, { dryRun, force: false }, NOW, signal);
    const posted = server.requests
      .filter(({ path }) => path.endsWith('/events'))
      .map(({ body }) => JSON.parse(body));
    return { report, server, posted };
  }

  const reviews = ({ requests }: ApiServer) => requests.filter(({ path }) => path.endsWith('accessreviews'));

  test('the refresher asks once whether it may create Events, and writes one', async () => {
    const { report, server, posted } = await refresh({});
    expect(reviews(server).map(({ body }) => JSON.parse(body).spec)).toEqual([
      {
        resourceAttributes: { verb: 'create', group: 'events.k8s.io', resource: 'events', namespace: 'team' },
      },
    ]);
    expect(posted).toEqual([
      expect.objectContaining({
        metadata: { name: expect.stringMatching(/^pull-0\./), namespace: 'team' },
        eventTime: '2026-11-23T12:00:00.000000Z',
      }),
    ]);
    expect(report).toMatchObject({ events: { written: 1, notWritten: 0 } });
  });

  test.each<{ title: string } & Fake>([
    { title: 'if it may not create Events', allowed: review(false) },
    { title: 'in a dry run', dryRun: true },
    {
      title: 'if nothing failed',
      patch: (_, response) =>
        json(
          response,
          object({ name: 'x', annotations: { [ANNOTATION.expiresAt]: '2026-11-24T00:00:00Z' } }),
        ),
    },
    { title: 'if the API server closes the connections', secrets: 10, patch: ({ drop }) => drop() },
  ])('the refresher writes no Event $title', async ({ title: _, ...fake }) => {
    const { report, posted } = await refresh(fake);
    expect(posted).toEqual([]);
    expect(report.events).toBeUndefined();
  });

  test('an Event that exists already is neither written nor a failure', async () => {
    const { report } = await refresh({ event: (_, response) => refuse(response, 409, 'already exists') });
    expect(report.events).toBeUndefined();
  });

  test('a run with 200 failing Secrets writes 50 Events, and counts the others', async () => {
    const { report, posted } = await refresh({ secrets: 200 });
    expect(posted).toHaveLength(MAX_EVENTS);
    expect(report.events).toMatchObject({ written: 50, notWritten: 150 });
    expect(report.events?.reason).toMatch(/at most 50/);
  });

  test.each<{ title: string; reason: RegExp } & Fake>([
    {
      title: 'the question fails',
      allowed: (_, response) => refuse(response, 500, 'broken'),
      reason: /HTTP 500: broken/,
    },
    {
      title: 'the answer to the question is another object',
      allowed: (_, response) => json(response, object({ name: 'x' })),
      reason: /not a SelfSubjectAccessReview/,
    },
    {
      title: 'each Event is refused',
      event: (_, response) => refuse(response, 403, 'forbidden by a policy'),
      reason: /HTTP 403: forbidden by a policy/,
    },
    {
      title: 'the answer to an Event is no JSON',
      event: (_, response) => response.writeHead(201).end('<html>'),
      reason: /not a PartialObjectMetadata/,
    },
  ])(
    'the cluster has the same result, and the report says why, if $title',
    async ({ title: _, reason, ...fake }) => {
      const { report } = await refresh({ secrets: 3, ...fake });
      expect(report.codes).toEqual(['secrets-not-refreshed']);
      expect(report.events).toMatchObject({ written: 0, notWritten: 3 });
      expect(report.events?.reason).toMatch(reason);
    },
  );

  test.each([
    { title: 'info if all are written', secrets: 1, level: 'info', fields: { written: 1, notWritten: 0 } },
    { title: 'warn if not', secrets: 51, level: 'warn', fields: { written: 50, notWritten: 1 } },
  ])('the log has a line `events` of the level $title', async ({ secrets, level, fields }) => {
    const { report } = await refresh({ secrets });
    const lines: [level: string, message: string, fields: object][] = [];
    const at = (name: string) => (message: string, line: object) => lines.push([name, message, line]);
    logReport({ info: at('info'), warn: at('warn'), error: at('error') }, report);
    expect(lines).toContainEqual([
      level,
      'events',
      expect.objectContaining({ cluster: 'cluster', ...fields }),
    ]);
  });

  test("a server that does not answer Events delays the report no longer than until the cluster's deadline", async () => {
    const deadline = new AbortController();
    const { report } = await refresh({ event: () => deadline.abort(), signal: deadline.signal });
    expect(report).toMatchObject({ served: true, codes: ['secrets-not-refreshed'] });
    expect(report.events).toMatchObject({ written: 0, notWritten: 1 });
  });
});
