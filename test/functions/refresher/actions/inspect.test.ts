// Tests the inspection of a cluster whose API server responds in any way: each part is reported or left out independently,
// and no state is stored.

import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { ANNOTATION, CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import type { FailureCode } from '../../../../contract/refresher-api.ts';
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
/** The permissions that are refused: verb, resource and namespace, which is '*' for all namespaces. */
let forbidden: Set<string>;
/** Responses by path, instead of those of a working API server. */
let answers: Record<string, (response: Response, request: Received) => void>;

beforeEach(async () => {
  stack = new AsyncDisposableStack();
  // In the middle of a second, which the inspection assumes of the server's Date header.
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
    const userInfo = { username: 'refresher', groups: ['system:authenticated', 'ecr-anywhere:refreshers'] };
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
      clusterDeadlineMs: deadlineMs,
      clusterConcurrency: 1,
      region: 'eu-central-1',
      allowLocalServers: true,
      eksDiscovery: [],
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
  username: 'refresher',
  groups: ['system:authenticated', 'ecr-anywhere:refreshers'],
  clusterUid: UID,
  kubernetesVersion: 'v1.36.3',
  clockSkewSeconds: 0,
  forbidden: [],
  readsEverySecret: true,
};

test('reports all parts, also in the summary, and the origin of a server with a path', async () => {
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

test('a refresh sends none of the requests of an inspection', async () => {
  await inspect({ action: 'refresh', dryRun: true });
  const paths = server.requests.map(({ path }) => path);
  for (const path of [PATHS.whoAmI, PATHS.access, PATHS.version]) expect(paths).not.toContain(path);
});

test.each([-3600, -2, 0, 2, 90])('reports a server clock that is %i s ahead', async (seconds) => {
  answers[PATHS.version] = (response) => {
    // In the middle of its second, which is the average.
    const date = new Date(Math.floor(now / 1000) * 1000 + seconds * 1000);
    json(response, { gitVersion: 'v1.36.3' }, 200, { date: date.toUTCString() });
  };
  const { inspection } = await inspect();
  expect(inspection?.clockSkewSeconds).toBe(seconds);
});

test('subtracts half of the response time from the clock skew', async () => {
  answers[PATHS.version] = (response) => {
    const date = new Date(now);
    now += 3_000;
    setTimeout(() => json(response, { gitVersion: 'v1.36.3' }, 200, { date: date.toUTCString() }), 3_000);
  };
  // The refresher's clock advances by three seconds during the request; the server's Date is of its beginning.
  const { inspection } = await inspect();
  expect(inspection?.clockSkewSeconds).toBeGreaterThanOrEqual(-2);
  expect(inspection?.clockSkewSeconds).toBeLessThanOrEqual(-1);
}, 20_000);

test.each<{ title: string; path: string; missing: string[]; answer: (response: Response) => void }>([
  {
    title: 'the user if SelfSubjectReview is missing, as before Kubernetes 1.28',
    path: PATHS.whoAmI,
    missing: ['username', 'groups'],
    answer: (response) => refuse(response, 404, 'not found'),
  },
  {
    title: 'version and clock if the version is forbidden',
    path: PATHS.version,
    missing: ['kubernetesVersion', 'clockSkewSeconds'],
    answer: (response) => refuse(response, 403, 'forbidden'),
  },
  {
    title: 'the clock if the Date header is unreadable',
    path: PATHS.version,
    missing: ['clockSkewSeconds'],
    answer: (response) => json(response, { gitVersion: 'v1.36.3' }, 200, { date: 'tomorrow' }),
  },
  {
    title: 'the permissions if access reviews are forbidden',
    path: PATHS.access,
    missing: ['forbidden', 'readsEverySecret'],
    answer: (response) => refuse(response, 403, 'forbidden'),
  },
  {
    title: 'the user if the response is of another kind',
    path: PATHS.whoAmI,
    missing: ['username', 'groups'],
    answer: (response) => json(response, { kind: 'Pod' }, 201),
  },
])('leaves out only $title', async ({ path, missing, answer: own }) => {
  answers[path] = own;
  const { inspection, served } = await inspect();
  expect(served).toBe(true);
  const rest = Object.entries(GOOD).filter(([name]) => !missing.includes(name));
  expect(inspection).toEqual({ server: server.url, ...Object.fromEntries(rest) });
});

test('if namespaces may not be listed, the report fails with forbidden and the inspection lists the permission', async () => {
  answers[PATHS.namespaces] = (response) => refuse(response, 403, 'namespaces is forbidden');
  forbidden = new Set(['list namespaces *', 'list secrets *', 'patch secrets *']);
  const { failedAt, codes, inspection } = await inspect();
  expect([failedAt, codes]).toEqual(['permissions', ['forbidden']]);
  expect(inspection?.forbidden).toEqual(['list namespaces']);
  expect(inspection).not.toHaveProperty('clusterUid');
});

test('if the credential is refused, leaves out user and permissions and reports server, version and clock', async () => {
  const denied = (response: Response) => refuse(response, 401, 'Unauthorized');
  answers = { [PATHS.namespaces]: denied, [PATHS.whoAmI]: denied, [PATHS.access]: denied };
  const { codes, failedAt, inspection } = await inspect();
  expect([failedAt, codes]).toEqual(['credential', ['unauthorized']]);
  const { identity, kubernetesVersion, clockSkewSeconds } = GOOD;
  expect(inspection).toEqual({ server: server.url, identity, kubernetesVersion, clockSkewSeconds });
});

describe('the missing permissions', () => {
  const reviewed = () =>
    server.requests
      .filter(({ path }) => path === PATHS.access)
      .map(({ body }) => JSON.parse(body).spec.resourceAttributes)
      .map(({ verb, resource, namespace = '*' }) => `${verb} ${resource} ${namespace}`);

  test('are requested for all namespaces together, if that is allowed', async () => {
    await inspect();
    expect(reviewed().sort()).toEqual(['list namespaces *', 'list secrets *', 'patch secrets *']);
  });

  test('are reported for each namespace', async () => {
    forbidden = new Set(['list secrets *', 'patch secrets *', 'patch secrets team-a', 'list secrets team-b']);
    const { inspection } = await inspect();
    expect(inspection?.forbidden?.toSorted()).toEqual(['list secrets in team-b', 'patch secrets in team-a']);
  });

  test('are none if Roles in each namespace grant them', async () => {
    forbidden = new Set(['list secrets *', 'patch secrets *']);
    expect((await inspect()).inspection).toMatchObject({ forbidden: [], readsEverySecret: false });
  });

  test('are truncated to the first fifty', async () => {
    const names = Array.from({ length: 50 }, (_, index) => `n-${index}`);
    answers[PATHS.namespaces] = (response) => json(response, page(names.map((name) => ({ name }))));
    answers[PATHS.access] = (response) =>
      json(response, { kind: 'SelfSubjectAccessReview', status: { allowed: false } }, 201);
    const { inspection } = await inspect();
    expect(inspection?.forbidden).toHaveLength(51);
    expect(inspection?.forbidden?.at(-1)).toBe('and 51 more');
  });

  test('include the request for the next token, if the registered token is renewable', async () => {
    forbidden = new Set(['create serviceaccounts ns']);
    const of = { namespace: 'ns', serviceaccount: { name: 'sa' }, secret: { name: 's', uid: 'u' } };
    const token = jwt({ iat: 1, exp: 2_000_000_000, aud: ['x'], 'kubernetes.io': of });
    const { inspection } = await inspect({}, { kubeconfig: kubeconfigFor(server, token) });
    expect(inspection?.forbidden).toEqual(['create serviceaccounts/token sa in ns']);
    expect(inspection?.token).toEqual({ renewable: true, expiresAt: '2033-05-18T03:33:20.000Z' });
  });
});

describe('the registered token', () => {
  test.each([
    [{ exp: 2_000_000_000 }, { expiresAt: '2033-05-18T03:33:20.000Z' }],
    [{ sub: 'refresher' }, {}],
  ])('with the claims %j is not bound to a Secret, and so not renewable', async (claims, token) => {
    const { inspection } = await inspect({}, { kubeconfig: kubeconfigFor(server, jwt(claims)) });
    expect(inspection?.token).toEqual({
      ...token,
      renewable: false,
      code: 'token-not-bound',
      reason: expect.any(String),
    });
  });

  test('is left out if it is not a JWT', async () => {
    expect((await inspect()).inspection).not.toHaveProperty('token');
  });
});

test('removes the token from the texts of the server, and truncates them', async () => {
  const long = `canary-3f9b ${'x'.repeat(30_000)}`;
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

test('does not repeat requests to a server that refuses connections', async () => {
  const { url } = server;
  await server[Symbol.asyncDispose]();
  const began = performance.now();
  const { failedAt, inspection } = await inspect();
  expect(failedAt).toBe('reach');
  expect(inspection).toEqual({ server: url, identity: 'token' });
  expect(performance.now() - began).toBeLessThan(6_000);
  server = await startApiServer(answer);
});

test('ends at the deadline if the server never responds', async () => {
  const silent = () => {};
  answers = Object.fromEntries(Object.values(PATHS).map((path) => [path, silent]));
  const began = performance.now();
  expect((await inspect({}, { deadlineMs: 500 })).inspection).toEqual({
    server: server.url,
    identity: 'token',
  });
  expect(performance.now() - began).toBeLessThan(3_000);
});

test('reports no inspection of a kubeconfig that cannot be used', async () => {
  const report = await inspect({}, { kubeconfig: 'not a kubeconfig' });
  expect(report).toMatchObject({
    served: false,
    failedAt: 'kubeconfig',
    codes: ['kubeconfig-unusable'],
  });
  expect(report).not.toHaveProperty('inspection');
});

test.each([
  ['keyless', ['ecr-anywhere', 'get-token', '--cluster', 'a']],
  ['eks', ['aws', 'eks', 'get-token', '--cluster-name', 'x']],
])(
  'reports the server and the identity %s if no token can be made for it',
  async (identity, [command, ...args]) => {
    const config = JSON.parse(kubeconfigFor(server, ''));
    const users = [{ name: 'main', user: { exec: { command, args } } }];
    const report = await inspect({}, { kubeconfig: JSON.stringify({ ...config, users }) });
    expect(report.served).toBe(false);
    expect(report.inspection).toEqual({ server: server.url, identity });
    expect(server.requests).toEqual([]);
  },
);

test.each<{ title: string; failedAt: string; code: FailureCode; answer: (response: Response) => void }>([
  {
    title: "a proxy's 403",
    failedAt: 'reach',
    code: 'unexpected-response',
    answer: (response) => response.writeHead(403).end('<html>forbidden: HTTP 401</html>'),
  },
  {
    title: "the API server's 403",
    failedAt: 'permissions',
    code: 'forbidden',
    answer: (response) => refuse(response, 403, 'no'),
  },
  {
    title: 'a 401',
    failedAt: 'credential',
    code: 'unauthorized',
    answer: (response) => response.writeHead(401).end('who?'),
  },
  {
    title: 'a 500',
    failedAt: 'reach',
    code: 'server-error',
    answer: (response) => refuse(response, 500, 'HTTP 403: forbidden'),
  },
  {
    title: 'a 429',
    failedAt: 'reach',
    code: 'throttled',
    answer: (response) => refuse(response, 429, 'too many requests'),
  },
  {
    title: 'an object of another kind',
    failedAt: 'reach',
    code: 'unexpected-response',
    answer: (response) => json(response, { kind: 'Pod' }),
  },
])('$title fails at $failedAt with $code', async ({ failedAt, code, answer: own }) => {
  answers[PATHS.namespaces] = own;
  const report = await inspect();
  expect(report).toMatchObject({ failedAt, codes: [code] });
  expect(summarize(report)).toMatchObject({ failedAt, codes: [code] });
});

test('a cluster is served if the Secrets of at least one namespace can be listed', async () => {
  const secretsOf = (name: string) => `${PATHS.namespaces}/${name}/secrets`;
  const denied = (response: Response) => refuse(response, 403, 'secrets is forbidden');
  answers = { [secretsOf('team-a')]: denied, [secretsOf('team-b')]: denied };
  expect(await inspect()).toMatchObject({ served: false, failedAt: 'permissions', codes: ['forbidden'] });
  delete answers[secretsOf('team-b')];
  const report = await inspect();
  expect(report).toMatchObject({ served: true, failed: true, codes: ['forbidden'] });
  expect(report).not.toHaveProperty('failedAt');
});

test('replaces control characters in every part of a response', async () => {
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
  const secrets = `${PATHS.namespaces}/${encodeURIComponent(SANITIZED)}/secrets`;
  const annotations = {
    [ANNOTATION.registries]: `${HOSTILE}=2020-01-01T00:00:00Z`,
    [ANNOTATION.expiresAt]: HOSTILE,
  };
  answers[secrets] = (response) => json(response, page([{ name: HOSTILE, annotations }]));
  answers[`${secrets}/${encodeURIComponent(SANITIZED)}`] = (response) => refuse(response, 422, HOSTILE);
  const report = await inspect();
  const { inspection, results } = report;
  expect(inspection).toMatchObject({
    username: SANITIZED,
    groups: [SANITIZED],
    clusterUid: SANITIZED,
    kubernetesVersion: SANITIZED,
  });
  expect(results).toEqual([
    {
      secret: `${SANITIZED}/${SANITIZED}`,
      due: 'expiry-unreadable',
      outcome: 'refused',
      code: 'invalid',
      reason: expect.stringContaining(`HTTP 422: ${SANITIZED}`),
    },
  ]);
  for (const text of strings([report, summarize(report)])) expect(text).not.toMatch(unsafe);

  answers[PATHS.namespaces] = (response) => refuse(response, 500, HOSTILE);
  const refusal = await inspect();
  expect(refusal.reason).toContain(SANITIZED);
  for (const text of strings(refusal)) expect(text).not.toMatch(unsafe);
});

/** The hostile text after sanitizing. */
const SANITIZED = '\ufffd]0;owned\ufffd\ufffd[2Jeasy level=info \ufffdgnihton \ufffd1m';

function strings(value: unknown): string[] {
  if (typeof value === 'string') return [value];
  return typeof value === 'object' && value !== null ? Object.values(value).flatMap(strings) : [];
}

describe('a paused cluster', () => {
  const paused = { tags: { [TAG.paused]: 'true' } };

  test('is inspected if the event names it, and is reported as paused', async () => {
    const report = await inspect({ clusters: ['a'] }, paused);
    expect(report).toMatchObject({ served: true, failed: false, isPaused: true, inspection: GOOD });
    expect(summarize(report)).toMatchObject({ isPaused: true, inspection: GOOD });
    expect(report).not.toHaveProperty('reason');
  });

  test('is reported with its failure if the event names it', async () => {
    answers[PATHS.namespaces] = (response) => refuse(response, 403, 'namespaces is forbidden');
    expect(await inspect({ clusters: ['a'] }, paused)).toMatchObject({
      served: false,
      failed: true,
      isPaused: true,
      codes: ['forbidden'],
    });
  });

  test('gets no request from an inspection of all clusters, nor from a dry run that names it', async () => {
    for (const event of [{}, { action: 'refresh', dryRun: true, clusters: ['a'] }]) {
      const report = await inspect(event, paused);
      expect(report).toMatchObject({ served: false, failed: false, isPaused: true });
      expect(report).not.toHaveProperty('inspection');
    }
    expect(server.requests).toEqual([]);
  });
});
