// Inspecting a cluster whose API server says what it likes: each part is told or left out on its own, and nothing is
// remembered.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ANNOTATION, CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import type { ClusterStateWriter } from '../../../../functions/refresher/clusters/cluster-state.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { summarize } from '../../../../functions/refresher/run/summaries.ts';
import {
  type ApiServer,
  json,
  kubeconfigFor,
  page,
  type Received,
  type Response,
  refuse,
  startApiServer,
} from '../../api-server.ts';
import { NO_EKS, NO_KEYLESS } from '../../real-cluster.ts';
import { startSecretsManager } from '../../secrets-manager.ts';
import { jwt } from '../../token-issuer.ts';

const UID = '6d5f3a1e-0000-4000-8000-000000000000';
const NEVER: ClusterStateWriter = {
  save: () => Promise.reject(new Error('an inspection stores its state')),
};

let stack: AsyncDisposableStack;
let server: ApiServer;
let now: number;
/** Which permissions are refused: by verb, resource and namespace, which is '*' for all of them. */
let forbidden: Set<string>;
/** What is answered by path, in place of what a good server says. */
let answers: Record<string, (response: Response, request: Received) => void>;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  // In the middle of a second, as what a server says is taken to be.
  now = Math.floor(Date.now() / 1000) * 1000 + 500;
  forbidden = new Set();
  answers = {};
  server = stack.use(await startApiServer(answer));
});
afterEach(() => stack.disposeAsync());

const PATHS = {
  namespaces: '/api/v1/namespaces',
  version: '/version',
  whoAmI: '/apis/authentication.k8s.io/v1/selfsubjectreviews',
  access: '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
};

function answer(request: Received, response: Response) {
  const { path, query, body } = request;
  const own = answers[path];
  if (own) return own(response, request);
  if (path === PATHS.version)
    return json(response, { gitVersion: 'v1.36.3', major: '1' }, 200, { date: new Date(now).toUTCString() });
  if (path === PATHS.whoAmI) {
    const userInfo = { username: 'somebody', groups: ['system:authenticated', 'ecr-anywhere:refreshers'] };
    return json(response, { kind: 'SelfSubjectReview', status: { userInfo } }, 201);
  }
  if (path === PATHS.access) {
    const { verb, resource, namespace = '*' } = JSON.parse(body).spec.resourceAttributes;
    const allowed = !forbidden.has(`${verb} ${resource} ${namespace}`);
    return json(response, { kind: 'SelfSubjectAccessReview', status: { allowed } }, 201);
  }
  if (path !== PATHS.namespaces) return json(response, page([]));
  if (query.get('fieldSelector') === 'metadata.name=kube-system')
    return json(response, page([{ name: 'kube-system', uid: UID }]));
  json(response, page([{ name: 'team-a' }, { name: 'team-b' }]));
}

async function inspect(
  event: object = {},
  {
    tags = {},
    kubeconfig = kubeconfigFor(server, 'canary-3f9b'),
    deadlineMs = 20_000,
  }: { tags?: Record<string, string>; kubeconfig?: string; deadlineMs?: number } = {},
): Promise<ClusterReport> {
  const name = `${CLUSTERS_PREFIX}a`;
  await using registry = await startSecretsManager({ [name]: kubeconfig }, { tags: { [name]: tags } });
  const [report] = await run(
    { secrets: registry.client, eks: NO_EKS, keyless: NO_KEYLESS, state: NEVER },
    readEvent({ action: 'inspect', ...event }),
    {
      ...{ clusterDeadlineMs: deadlineMs, clusterConcurrency: 1, region: 'eu-central-1' },
      ...{ allowLocalServers: true, eksDiscovery: [] },
    },
    () => now,
    AbortSignal.timeout(30_000),
    () => {},
  );
  if (!report) throw new Error('no report');
  expect(JSON.stringify([report, summarize(report)])).not.toContain('canary-3f9b');
  expect(report).not.toHaveProperty('stateNotSaved');
  return report;
}

const GOOD = {
  identity: 'token',
  username: 'somebody',
  groups: ['system:authenticated', 'ecr-anywhere:refreshers'],
  clusterUid: UID,
  kubernetesVersion: 'v1.36.3',
  clockSkewSeconds: 0,
  forbidden: [],
};

test('all there is, in the summary too; of a server with a path, its origin', async () => {
  const report = await inspect();
  expect(report).toMatchObject({ served: true, failed: false });
  expect(report.inspection).toEqual({ server: server.url, ...GOOD });
  expect(summarize(report).inspection).toEqual(report.inspection);
  const proxied = await inspect(
    {},
    { kubeconfig: kubeconfigFor(server, 'canary-3f9b', '/k8s/clusters/c-1') },
  );
  expect(proxied.inspection?.server).toBe(server.url);
});

test('a refresh does not ask for any of it', async () => {
  await inspect({ action: 'refresh', dryRun: true });
  expect(server.requests.filter(({ method }) => method !== 'GET')).toEqual([]);
  expect(server.requests.map(({ path }) => path)).not.toContain(PATHS.version);
});

test.each([-3600, -2, 0, 2, 90])('a server whose clock is %i s ahead', async (seconds) => {
  answers[PATHS.version] = (response) => {
    // In the middle of its second, as a server is on average.
    const date = new Date(Math.floor(now / 1000) * 1000 + seconds * 1000);
    json(response, { gitVersion: 'v1.36.3' }, 200, { date: date.toUTCString() });
  };
  const { inspection } = await inspect();
  expect(inspection?.clockSkewSeconds).toBe(seconds);
});

test('half of the time that the answer takes is its way back', async () => {
  answers[PATHS.version] = (response) => {
    const date = new Date(now);
    now += 3_000;
    setTimeout(() => json(response, { gitVersion: 'v1.36.3' }, 200, { date: date.toUTCString() }), 3_000);
  };
  // Ours moves by three seconds while the answer comes; theirs is said to be at the beginning of it.
  const { inspection } = await inspect();
  expect(inspection?.clockSkewSeconds).toBeGreaterThanOrEqual(-2);
  expect(inspection?.clockSkewSeconds).toBeLessThanOrEqual(-1);
}, 20_000);

test.each<{ title: string; path: string; missing: string[]; answer: (response: Response) => void }>([
  {
    title: 'no SelfSubjectReview, as before Kubernetes 1.28',
    path: PATHS.whoAmI,
    missing: ['username', 'groups'],
    answer: (response) => refuse(response, 404, 'not found'),
  },
  {
    title: 'no version',
    path: PATHS.version,
    missing: ['kubernetesVersion', 'clockSkewSeconds'],
    answer: (response) => refuse(response, 403, 'forbidden'),
  },
  {
    title: 'no clock',
    path: PATHS.version,
    missing: ['clockSkewSeconds'],
    answer: (response) => json(response, { gitVersion: 'v1.36.3' }, 200, { date: 'tomorrow' }),
  },
  {
    title: 'no access reviews',
    path: PATHS.access,
    missing: ['forbidden'],
    answer: (response) => refuse(response, 403, 'forbidden'),
  },
  {
    title: 'something else in place of a review',
    path: PATHS.whoAmI,
    missing: ['username', 'groups'],
    answer: (response) => json(response, { kind: 'Pod' }, 201),
  },
])('$title: left out, and nothing else with it', async ({ path, missing, answer: own }) => {
  answers[path] = own;
  const { inspection, served } = await inspect();
  expect(served).toBe(true);
  const rest = Object.entries(GOOD).filter(([name]) => !missing.includes(name));
  expect(inspection).toEqual({ server: server.url, ...Object.fromEntries(rest) });
});

test('a namespace list that is refused: the report says why, the inspection what', async () => {
  answers[PATHS.namespaces] = (response) => refuse(response, 403, 'namespaces is forbidden');
  forbidden = new Set(['list namespaces *', 'list secrets *', 'patch secrets *']);
  const { failedAt, reason, inspection } = await inspect();
  expect([failedAt, reason]).toEqual(['permissions', expect.stringContaining('namespaces is forbidden')]);
  expect(inspection?.forbidden).toEqual(['list namespaces']);
  expect(inspection).not.toHaveProperty('clusterUid');
});

test('a credential that is refused: who and what is left out, not where', async () => {
  const denied = (response: Response) => refuse(response, 401, 'Unauthorized');
  answers = { [PATHS.namespaces]: denied, [PATHS.whoAmI]: denied, [PATHS.access]: denied };
  const { reason, failedAt, inspection } = await inspect();
  expect([failedAt, reason]).toEqual(['credential', expect.stringContaining('HTTP 401')]);
  const { identity, kubernetesVersion, clockSkewSeconds } = GOOD;
  expect(inspection).toEqual({ server: server.url, identity, kubernetesVersion, clockSkewSeconds });
});

describe('what is forbidden', () => {
  const asked = () =>
    server.requests
      .filter(({ path }) => path === PATHS.access)
      .map(({ body }) => JSON.parse(body).spec.resourceAttributes)
      .map(({ verb, resource, namespace = '*' }) => `${verb} ${resource} ${namespace}`);

  test('is asked of all namespaces together, and of each only where that is refused', async () => {
    await inspect();
    expect(asked().sort()).toEqual(['list namespaces *', 'list secrets *', 'patch secrets *']);
  });

  test('is told of each namespace', async () => {
    forbidden = new Set(['list secrets *', 'patch secrets *', 'patch secrets team-a', 'list secrets team-b']);
    const { inspection } = await inspect();
    expect(inspection?.forbidden?.toSorted()).toEqual(['list secrets in team-b', 'patch secrets in team-a']);
  });

  test('is nothing where roles in each namespace allow it', async () => {
    forbidden = new Set(['list secrets *', 'patch secrets *']);
    expect((await inspect()).inspection?.forbidden).toEqual([]);
  });

  test('of very many, the first are told', async () => {
    const names = Array.from({ length: 300 }, (_, index) => `n-${index}`);
    answers[PATHS.namespaces] = (response) => json(response, page(names.map((name) => ({ name }))));
    answers[PATHS.access] = (response) =>
      json(response, { kind: 'SelfSubjectAccessReview', status: { allowed: false } }, 201);
    const { inspection } = await inspect();
    expect(inspection?.forbidden).toHaveLength(51);
    expect(inspection?.forbidden?.at(-1)).toBe('and 551 more');
  });

  test('is also the next token, where what is registered could be renewed', async () => {
    forbidden = new Set(['create serviceaccounts ns']);
    const of = { namespace: 'ns', serviceaccount: { name: 'sa' }, secret: { name: 's', uid: 'u' } };
    const token = jwt({ iat: 1, exp: 2_000_000_000, aud: ['x'], 'kubernetes.io': of });
    const { inspection } = await inspect({}, { kubeconfig: kubeconfigFor(server, token) });
    expect(inspection?.forbidden).toEqual(['create serviceaccounts/token sa in ns']);
    expect(inspection?.token).toEqual({ renewable: true, expiresAt: '2033-05-18T03:33:20.000Z' });
  });
});

describe('what the token says of itself', () => {
  test.each([
    [{ exp: 2_000_000_000 }, { renewable: false, expiresAt: '2033-05-18T03:33:20.000Z' }],
    [{ sub: 'somebody' }, { renewable: false }],
  ])('%j, which is bound to no Secret', async (claims, token) => {
    const { inspection } = await inspect({}, { kubeconfig: kubeconfigFor(server, jwt(claims)) });
    expect(inspection?.token).toEqual({ ...token, reason: expect.stringContaining('bound to a Secret') });
  });

  test('is nothing where it is no JWT', async () => {
    expect((await inspect()).inspection).not.toHaveProperty('token');
  });
});

test('a server that repeats the token, or never ends what it says of itself, fills nothing with it', async () => {
  const long = `canary-3f9b ${'x'.repeat(100_000)}`;
  answers[PATHS.whoAmI] = (response) => {
    const userInfo = { username: long, groups: Array.from({ length: 60 }, () => long) };
    json(response, { kind: 'SelfSubjectReview', status: { userInfo } }, 201);
  };
  answers[PATHS.version] = (response) => json(response, { gitVersion: long });
  answers[PATHS.namespaces] = (response) => json(response, page([{ name: 'kube-system', uid: long }]));
  const { inspection } = await inspect();
  expect(inspection?.username).toMatch(/^… x+$/);
  expect(JSON.stringify(inspection).length).toBeLessThan(20_000);
});

test('a server that nobody listens at is asked once, not for each part', async () => {
  const { url } = server;
  await server[Symbol.asyncDispose]();
  const began = performance.now();
  const { failedAt, inspection } = await inspect();
  expect(failedAt).toBe('reach');
  expect(inspection).toEqual({ server: url, identity: 'token' });
  expect(performance.now() - began).toBeLessThan(6_000);
  server = await startApiServer(answer);
});

test('a server that never answers: all is over with the deadline', async () => {
  const silent = () => {};
  answers = Object.fromEntries(Object.values(PATHS).map((path) => [path, silent]));
  const began = performance.now();
  expect((await inspect({}, { deadlineMs: 500 })).inspection).toEqual({
    ...{ server: server.url, identity: 'token' },
  });
  expect(performance.now() - began).toBeLessThan(3_000);
});

test('a kubeconfig that cannot be used has no inspection', async () => {
  const report = await inspect({}, { kubeconfig: 'not a kubeconfig' });
  expect(report).toMatchObject({
    ...{ served: false, failedAt: 'kubeconfig' },
    reason: expect.stringContaining('not a kubeconfig'),
  });
  expect(report).not.toHaveProperty('inspection');
});

test.each([
  ['keyless', ['ecr-anywhere', 'get-token', '--cluster', 'a']],
  ['eks', ['aws', 'eks', 'get-token', '--cluster-name', 'x']],
])(
  'what is registered is told where no token can be made for it: %s',
  async (identity, [command, ...args]) => {
    const config = JSON.parse(kubeconfigFor(server, ''));
    const users = [{ name: 'main', user: { exec: { command, args } } }];
    const report = await inspect({}, { kubeconfig: JSON.stringify({ ...config, users }) });
    expect(report.served).toBe(false);
    expect(report.inspection).toEqual({ server: server.url, identity });
    expect(server.requests).toEqual([]);
  },
);

test.each<{ title: string; failedAt: string; answer: (response: Response) => void }>([
  {
    title: "a proxy's 403",
    failedAt: 'reach',
    answer: (response) => response.writeHead(403).end('<html>forbidden: HTTP 401</html>'),
  },
  {
    title: "the API server's 403",
    failedAt: 'permissions',
    answer: (response) => refuse(response, 403, 'no'),
  },
  { title: '401', failedAt: 'credential', answer: (response) => response.writeHead(401).end('who?') },
  { title: '500', failedAt: 'reach', answer: (response) => refuse(response, 500, 'HTTP 403: forbidden') },
  { title: 'something else', failedAt: 'reach', answer: (response) => json(response, { kind: 'Pod' }) },
])('where it failed, at $title: $failedAt', async ({ failedAt, answer: own }) => {
  answers[PATHS.namespaces] = own;
  const report = await inspect();
  expect([report.failedAt, summarize(report).failedAt]).toEqual([failedAt, failedAt]);
});

test('where every namespace refuses its Secrets: permissions; one that does not, and it is served', async () => {
  const secretsOf = (name: string) => `${PATHS.namespaces}/${name}/secrets`;
  const denied = (response: Response) => refuse(response, 403, 'secrets is forbidden');
  answers = { [secretsOf('team-a')]: denied, [secretsOf('team-b')]: denied };
  expect((await inspect()).failedAt).toBe('permissions');
  delete answers[secretsOf('team-b')];
  const report = await inspect();
  expect(report).toMatchObject({ served: true, failed: true });
  expect(report).not.toHaveProperty('failedAt');
});

test('what a terminal would obey reaches nobody, whatever part of its answers it is in', async () => {
  const HOSTILE = '\u001b]0;owned\u0007\u001b[2Jeasy\r\nlevel=info \u202egnihton\u2028\u009b1m';
  const unsafe = /[\p{C}\p{Zl}\p{Zp}]/u;
  answers[PATHS.whoAmI] = (response) =>
    json(
      response,
      { kind: 'SelfSubjectReview', status: { userInfo: { username: HOSTILE, groups: [HOSTILE] } } },
      201,
    );
  answers[PATHS.version] = (response) => json(response, { gitVersion: HOSTILE });
  answers[PATHS.namespaces] = (response, { query }) =>
    json(response, page([{ name: query.has('fieldSelector') ? 'kube-system' : HOSTILE, uid: HOSTILE }]));
  const secrets = `${PATHS.namespaces}/${encodeURIComponent(HEARD)}/secrets`;
  const annotations = {
    [ANNOTATION.registries]: `${HOSTILE}=2020-01-01T00:00:00Z`,
    [ANNOTATION.expiresAt]: HOSTILE,
  };
  answers[secrets] = (response) => json(response, page([{ name: HOSTILE, annotations }]));
  answers[`${secrets}/${encodeURIComponent(HEARD)}`] = (response) => refuse(response, 422, HOSTILE);
  const report = await inspect();
  const { inspection, results } = report;
  expect(inspection).toMatchObject({
    username: HEARD,
    groups: [HEARD],
    clusterUid: HEARD,
    kubernetesVersion: HEARD,
  });
  expect(results).toEqual([
    {
      ...{ secret: `${HEARD}/${HEARD}`, due: 'expiry-unreadable', outcome: 'refused' },
      reason: expect.stringContaining(`HTTP 422: ${HEARD}`),
    },
  ]);
  for (const text of strings([report, summarize(report)])) expect(text).not.toMatch(unsafe);

  answers[PATHS.namespaces] = (response) => refuse(response, 500, HOSTILE);
  const refusal = await inspect();
  expect(refusal.reason).toContain(HEARD);
  for (const text of strings(refusal)) expect(text).not.toMatch(unsafe);
});

/** What is left of it. */
const HEARD = '\ufffd]0;owned\ufffd\ufffd[2Jeasy level=info \ufffdgnihton \ufffd1m';

function strings(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(strings) : [];
}

describe('a paused cluster', () => {
  const paused = { tags: { [TAG.paused]: 'true' } };

  test('is inspected where somebody names it, and is said to be paused', async () => {
    const report = await inspect({ clusters: ['a'] }, paused);
    expect(report).toMatchObject({ served: true, failed: false, isPaused: true, inspection: GOOD });
    expect(summarize(report)).toMatchObject({ isPaused: true, inspection: GOOD });
    expect(report).not.toHaveProperty('reason');
  });

  test('says then what is wrong with it', async () => {
    answers[PATHS.namespaces] = (response) => refuse(response, 403, 'namespaces is forbidden');
    expect(await inspect({ clusters: ['a'] }, paused)).toMatchObject({
      ...{ served: false, failed: true, isPaused: true },
      reason: expect.stringContaining('namespaces is forbidden'),
    });
  });

  test('is left alone where all are inspected, and by a dry run by its name', async () => {
    for (const event of [{}, { action: 'refresh', dryRun: true, clusters: ['a'] }]) {
      const report = await inspect(event, paused);
      expect(report).toMatchObject({ served: false, failed: false, isPaused: true });
      expect(report).not.toHaveProperty('inspection');
    }
    expect(server.requests).toEqual([]);
  });
});
