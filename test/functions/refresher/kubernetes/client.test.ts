// Tests the refresher's Kubernetes requests, over HTTP/1.1 and HTTP/2, against a server that may answer anything.

import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import {
  ANNOTATION,
  PROVISION_FIELD_MANAGER,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_NAME,
} from '../../../../contract/names.ts';
import type { FailureCode } from '../../../../contract/refresher-api.ts';
import { KubernetesApi, KubernetesError } from '../../../../functions/refresher/kubernetes/client.ts';
import type { ClusterAccess } from '../../../../lib/kubernetes/kubeconfig.ts';
import { createAuthority } from '../../../bed/certificates.ts';
import {
  type Answer,
  type ApiServer,
  json,
  object,
  type Protocol,
  page,
  type Response,
  refuse,
  startApiServer,
} from '../../api-server.ts';

const TOKEN = 'canary-token-3f9b';
const CONNECTIONS = 8;
const SECRET = { namespace: 'team', name: 'pull', annotations: {} };

let stack = new AsyncDisposableStack();
afterEach(async () => {
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

interface Setup {
  protocol?: Protocol;
  clientCa?: string;
  deadlineMs?: number;
  access?: Partial<ClusterAccess>;
}

async function apiOf(
  answer: Answer,
  { deadlineMs = 20_000, access = {}, ...options }: Setup = {},
): Promise<{ api: KubernetesApi; server: ApiServer }> {
  const server = stack.use(await startApiServer(answer, options));
  const api = new KubernetesApi(
    { server: server.url, ca: server.caPem, identity: { token: TOKEN }, ...access },
    CONNECTIONS,
    AbortSignal.timeout(deadlineMs),
  );
  return { api: stack.use(api), server };
}

async function errorOf(promise: Promise<unknown>): Promise<KubernetesError> {
  const error: unknown = await promise.then(
    () => 'it succeeded',
    (reason: unknown) => reason,
  );
  if (!(error instanceof KubernetesError)) throw new Error(`not a KubernetesError: ${error}`);
  return error;
}

describe.each<{ protocol: Protocol }>([{ protocol: 'http/1.1' }, { protocol: 'h2' }])(
  'over $protocol',
  ({ protocol }) => {
    test('lists every page as metadata only, and keeps only own annotations', async () => {
      const pages = [
        page([{ name: 'a', annotations: { [ANNOTATION.expiresAt]: 'x', other: 'hidden' } }], 'two & more'),
        page([{ name: 'b' }, { name: 'c', annotations: null }], 'three'),
        page([]),
      ];
      const { api, server } = await apiOf((_, response, count) => json(response, pages[count - 1]), {
        protocol,
      });
      expect(await api.managedSecrets('team')).toEqual([
        { namespace: 'team', name: 'a', annotations: { [ANNOTATION.expiresAt]: 'x' } },
        { namespace: 'team', name: 'b', annotations: {} },
        { namespace: 'team', name: 'c', annotations: {} },
      ]);
      const asked = server.requests.map(({ method, path, query, headers }) => ({
        method,
        path,
        selectors: [query.get('labelSelector'), query.get('fieldSelector')],
        next: query.get('continue'),
        accept: headers.accept,
      }));
      const same = {
        method: 'GET',
        path: '/api/v1/namespaces/team/secrets',
        selectors: ['ecr-anywhere.centml.ai/managed=true', 'type=kubernetes.io/dockerconfigjson'],
        accept: 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1',
      };
      expect(asked).toEqual([
        { ...same, next: null },
        { ...same, next: 'two & more' },
        { ...same, next: 'three' },
      ]);
    });

    test('accepts null as the items of an empty list', async () => {
      const { api } = await apiOf((_, response) => json(response, { ...page([]), items: null }), {
        protocol,
      });
      expect(await api.managedSecrets('team')).toEqual([]);
    });

    test('leaves out kube-system and kube-public', async () => {
      const names = ['team', 'kube-system', 'kube-public', 'default'];
      const { api, server } = await apiOf(
        (_, response) => json(response, page(names.map((name) => ({ name })))),
        {
          protocol,
        },
      );
      expect(await api.enabledNamespaces()).toEqual(['team', 'default']);
      expect(server.requests[0]?.query.get('labelSelector')).toBe('ecr-anywhere.centml.ai/namespace=enabled');
    });

    test.each([{ dryRun: false }, { dryRun: true }])(
      'patches only the annotations (dry run: $dryRun)',
      async ({ dryRun }) => {
        const after = { name: 'pull', annotations: { [ANNOTATION.expiresAt]: 'x', other: 'hidden' } };
        const { api, server } = await apiOf((_, response) => json(response, object(after)), { protocol });
        expect(await api.annotate(SECRET, { [ANNOTATION.requestedAt]: 'now' }, dryRun)).toEqual({
          ...SECRET,
          annotations: { [ANNOTATION.expiresAt]: 'x' },
          warnings: [],
        });
        const [{ method, path, query, headers, body } = expect.fail('no request came')] = server.requests;
        expect([method, path, headers['content-type'], headers.accept]).toEqual([
          'PATCH',
          '/api/v1/namespaces/team/secrets/pull',
          'application/merge-patch+json',
          'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1',
        ]);
        expect(JSON.parse(body)).toEqual({ metadata: { annotations: { [ANNOTATION.requestedAt]: 'now' } } });
        expect(query.get('dryRun')).toBe(dryRun ? 'All' : null);
      },
    );

    test('creates a managed Secret by server-side apply, with its type and label alone', async () => {
      const { api, server } = await apiOf((_, response) => json(response, object({ name: 'ecr' })), {
        protocol,
      });
      await api.createManagedSecret('team', 'ecr', true);
      const [{ method, path, query, headers, body } = expect.fail('no request came')] = server.requests;
      expect([method, path, headers['content-type'], headers.accept]).toEqual([
        'PATCH',
        '/api/v1/namespaces/team/secrets/ecr',
        'application/apply-patch+yaml',
        'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1',
      ]);
      expect(JSON.parse(body)).toEqual({
        apiVersion: 'v1',
        kind: 'Secret',
        type: SECRET_TYPE,
        metadata: {
          name: 'ecr',
          namespace: 'team',
          labels: { [SECRET_LABEL.key]: SECRET_LABEL.value },
        },
      });
      expect(Object.fromEntries(query)).toEqual({ fieldManager: PROVISION_FIELD_MANAGER, dryRun: 'All' });
    });

    const create = (...resourceNames: string[]) => ({
      verbs: ['create'],
      apiGroups: [''],
      resources: ['secrets'],
      resourceNames,
    });
    test.each([
      { what: 'the name of the rule', rules: [create('ecr')], name: 'ecr' },
      { what: 'a name that two rules have', rules: [create('ecr'), create('ecr')], name: 'ecr' },
      { what: 'nothing without rules', rules: [], name: undefined },
      { what: 'nothing if the rules are null', rules: null, name: undefined },
      {
        what: 'nothing of other verbs, groups and resources',
        rules: [
          { ...create('a'), verbs: ['list', 'patch'] },
          { ...create('b'), apiGroups: ['apps'] },
          { ...create('c'), resources: ['serviceaccounts/token'] },
        ],
        name: undefined,
      },
      { what: 'nothing of two names', rules: [create('ecr'), create('other')], name: undefined },
      {
        what: 'nothing of many names',
        rules: [create(...Array.from({ length: 50_000 }, (_, n) => `n-${n}`))],
        name: undefined,
      },
      {
        what: 'nothing if it may create any Secret',
        rules: [create('ecr'), { verbs: ['*'], apiGroups: ['*'], resources: ['*'] }],
        name: undefined,
      },
      {
        what: 'nothing of a name that Kubernetes does not allow',
        rules: [create('../x?y')],
        name: undefined,
      },
      { what: 'nothing of a name that is too long', rules: [create('x'.repeat(254))], name: undefined },
    ])('takes from the rules that it may create: $what', async ({ rules, name }) => {
      const status = { resourceRules: rules, nonResourceRules: [], incomplete: true };
      const { api, server } = await apiOf(
        (_, response) => json(response, { kind: 'SelfSubjectRulesReview', status }),
        { protocol },
      );
      expect(await api.creatableSecret('team')).toBe(name);
      expect(JSON.parse(server.requests[0]?.body ?? '')).toMatchObject({ spec: { namespace: 'team' } });
    });

    test.each([
      { what: 'may create any Secret there', more: { ...create(), resourceNames: null } },
      { what: 'may create another one there', more: create('other') },
    ])('takes the name from kube-system if it $what, by a role of the namespace', async ({ more }) => {
      const { api } = await apiOf(
        ({ body }, response) => {
          const isAdmins = JSON.parse(body).spec.namespace === 'kube-system';
          const resourceRules = isAdmins ? [create('ecr')] : [create('ecr'), more];
          json(response, { kind: 'SelfSubjectRulesReview', status: { resourceRules } });
        },
        { protocol },
      );
      expect(await api.creatableSecret('team')).toBe('ecr');
    });

    test('fails for rules that cannot be read', async () => {
      const { api } = await apiOf((_, response) => json(response, { kind: 'SelfSubjectRulesReview' }), {
        protocol,
      });
      expect(await errorOf(api.creatableSecret('team'))).toMatchObject({ code: 'unexpected-response' });
    });

    test('returns the warnings of a PATCH without the token', async () => {
      const { api } = await apiOf(
        (_, response) => {
          response.setHeader('warning', [
            '299 - "a \\"quoted\\" one, with 299 in it"',
            `299 host "token=${TOKEN}"`,
          ]);
          json(response, object({ name: 'pull' }));
        },
        { protocol },
      );
      const { warnings } = await api.annotate(SECRET, {}, false);
      expect(warnings).toEqual(['a "quoted" one, with 299 in it', 'token=…']);
    });

    test('removes control characters from warnings', async () => {
      const { api } = await apiOf(
        (_, response) => {
          // HTTP allows a tab and 8-bit control characters in headers.
          response.setHeader('warning', '299 - "a\tb\u009b2Jc\u0085d"');
          json(response, object({ name: 'pull' }));
        },
        { protocol },
      );
      const { warnings } = await api.annotate(SECRET, {}, false);
      expect(warnings).toHaveLength(1);
      expect(warnings[0]).toMatch(/^a b.*2Jc.*d$/);
      expect(warnings[0]).not.toMatch(/[\p{C}\p{Zl}\p{Zp}]/u);
    });

    test('shortens long warnings', async () => {
      const { api } = await apiOf(
        (_, response) => {
          response.setHeader('warning', `299 - "${'x'.repeat(10_000)}"`);
          json(response, object({ name: 'pull' }));
        },
        { protocol },
      );
      const { warnings } = await api.annotate(SECRET, {}, false);
      expect(warnings).toEqual(['x'.repeat(400)]);
    });

    test.each<{ title: string; first: Answer }>([
      {
        title: '429 with Retry-After',
        first: (_, response) => refuse(response, 429, 'slow', { 'retry-after': '1' }),
      },
      { title: '503', first: (_, response) => refuse(response, 503, 'apiserver not ready') },
      { title: '502 of a proxy', first: (_, response) => response.writeHead(502).end('<html>') },
      { title: '504', first: (_, response) => refuse(response, 504, 'timeout') },
      {
        title: 'a broken connection',
        first: (request) => request.drop(),
      },
    ])('retries after $title', async ({ first }) => {
      const { api, server } = await apiOf(
        (request, response, count) =>
          count === 1 ? first(request, response, count) : json(response, object({ name: 'pull' })),
        { protocol },
      );
      await expect(api.annotate(SECRET, {}, false)).resolves.toMatchObject({ name: 'pull' });
      expect(server.requests).toHaveLength(2);
    });

    interface Failure {
      title: string;
      code: FailureCode;
      answer: Answer;
      says: string;
      causes?: KubernetesError['causes'];
      affects: KubernetesError['affects'];
      status?: number;
      requests: number;
    }
    test.each<Failure>([
      {
        title: '503 for every attempt',
        code: 'server-error',
        answer: (_, response) => refuse(response, 503, 'apiserver not ready'),
        says: 'HTTP 503: apiserver not ready',
        affects: 'cluster',
        status: 503,
        requests: 4,
      },
      {
        title: 'a denial without causes',
        code: 'server-error',
        answer: (_, response) =>
          refuse(response, 503, 'admission webhook "sync.x" denied the request: No fresh ECR credentials'),
        says: 'denied the request: No fresh ECR credentials',
        affects: 'cluster',
        status: 503,
        requests: 1,
      },
      {
        title: 'a denial with causes, sanitized',
        code: 'webhook-denied',
        answer: ({ headers }, response) => {
          const message = `role\u0007 ${headers.authorization}`;
          const field = 'data[.dockerconfigjson].auths[host]';
          const causes = [
            { reason: 'no-token', message: '' },
            { reason: 'aws-role-denied', field, message },
            { reason: 'FieldValueInvalid', message: 'of another plugin' },
          ];
          const status = {
            kind: 'Status',
            message: 'admission webhook "sync.x" denied',
            details: { causes },
          };
          json(response, status, 503);
        },
        says: 'admission webhook "sync.x" denied',
        affects: 'object',
        status: 503,
        requests: 1,
        causes: [
          { reason: 'no-token', message: '' },
          {
            reason: 'aws-role-denied',
            field: 'data[.dockerconfigjson].auths[host]',
            message: 'role\ufffd Bearer …',
          },
        ],
      },
      {
        title: 'a webhook that the API server cannot call',
        code: 'webhook-unreachable',
        answer: (_, response) =>
          refuse(
            response,
            500,
            'Internal error occurred: failed calling webhook "sync.x": connection refused',
          ),
        says: 'failed calling webhook "sync.x": connection refused',
        affects: 'cluster',
        status: 500,
        requests: 1,
      },
      {
        title: '401',
        code: 'unauthorized',
        answer: (_, response) => refuse(response, 401, 'Unauthorized'),
        says: 'HTTP 401: Unauthorized (is the credential expired or revoked?)',
        affects: 'cluster',
        status: 401,
        requests: 1,
      },
      {
        title: '403',
        code: 'forbidden',
        answer: (_, response) => refuse(response, 403, 'secrets "pull" is forbidden'),
        says: 'HTTP 403: secrets "pull" is forbidden',
        affects: 'object',
        status: 403,
        requests: 1,
      },
      {
        title: 'a denial of a webhook that sends no causes',
        code: 'webhook-denied',
        answer: (_, response) =>
          refuse(response, 403, `admission webhook "${WEBHOOK_NAME}" denied the request: no registry`),
        says: `HTTP 403: admission webhook "${WEBHOOK_NAME}" denied the request: no registry`,
        affects: 'object',
        status: 403,
        requests: 1,
      },
      {
        title: '404',
        code: 'not-found',
        answer: (_, response) => refuse(response, 404, 'secrets "pull" not found'),
        says: 'HTTP 404: secrets "pull" not found',
        affects: 'object',
        status: 404,
        requests: 1,
      },
      {
        title: 'an error without a Status',
        code: 'unexpected-response',
        answer: (_, response) => response.writeHead(418).end('<html>teapot</html>'),
        says: 'HTTP 418: no reason given',
        affects: 'object',
        status: 418,
        requests: 1,
      },
      {
        title: 'a redirect',
        code: 'unexpected-response',
        answer: (_, response) => response.writeHead(302, { location: '/elsewhere' }).end(),
        says: 'HTTP 302: no reason given',
        affects: 'object',
        status: 302,
        requests: 1,
      },
      {
        title: 'a body that is not JSON',
        code: 'unexpected-response',
        answer: (_, response) => response.writeHead(200).end('<html>'),
        says: 'the answer is not a PartialObjectMetadata',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'a whole Secret',
        code: 'unexpected-response',
        answer: (_, response) => json(response, { kind: 'Secret', metadata: { name: 'pull' }, data: {} }),
        says: 'the answer is not a PartialObjectMetadata',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'annotations of the wrong type',
        code: 'unexpected-response',
        answer: (_, response) => json(response, object({ name: 'pull', annotations: { a: 1 } })),
        says: 'the answer is not a PartialObjectMetadata',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'a body that never ends',
        code: 'too-much-data',
        answer: (_, response) => pour(response),
        says: 'exceeded max size',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'an error that repeats the headers of the request',
        code: 'invalid',
        answer: ({ headers }, response) =>
          refuse(response, 400, `bad: authorization: ${headers.authorization}`),
        says: 'HTTP 400: bad: authorization: Bearer …',
        affects: 'object',
        status: 400,
        requests: 1,
      },
    ])(
      'fails for $title with its code',
      async ({ answer, says, affects, status, requests, code, causes = [] }) => {
        const { api, server } = await apiOf(answer, { protocol });
        const error = await errorOf(api.annotate(SECRET, {}, false));
        expect(error.message).toContain('PATCH /api/v1/namespaces/team/secrets/pull: ');
        expect(error.message).toContain(says);
        expect(error.message).not.toContain(TOKEN);
        expect(error.reason).not.toContain('/secrets/pull');
        expect(error).toMatchObject({ code, affects, causes });
        expect(error.status).toBe(status);
        expect(server.requests).toHaveLength(requests);
      },
    );

    test.each<{ title: string; answer: Answer }>([
      { title: 'that never answers', answer: () => {} },
      {
        title: 'that never ends its response',
        answer: (_, response) => {
          response.writeHead(200);
          const drip = setInterval(() => response.write(' '), 20);
          response.on('close', () => clearInterval(drip));
        },
      },
      {
        title: 'that always asks to retry later',
        answer: (_, response) => refuse(response, 429, 'later', { 'retry-after': '3600' }),
      },
    ])('fails at the deadline for a server $title', async ({ answer }) => {
      const { api, server } = await apiOf(answer, { protocol, deadlineMs: 500 });
      const error = await errorOf(api.enabledNamespaces());
      expect(error.message).toBe("GET /api/v1/namespaces: no answer before the cluster's deadline");
      expect(error.affects).toBe('cluster');
      expect(server.requests).toHaveLength(1);
    });

    test('fails for a list that never ends', async () => {
      const { api } = await apiOf((_, response) => json(response, page([], 'again')), { protocol });
      const error = await errorOf(api.enabledNamespaces());
      expect(error.message).toBe('GET /api/v1/namespaces: the list does not end');
    });

    test('starts a list again if the API server has forgotten its version', async () => {
      let isExpired = true;
      const { api, server } = await apiOf(
        ({ query }, response) => {
          if (!query.get('continue')) return json(response, page([{ name: 'a' }], 'two'));
          if (!isExpired) return json(response, page([{ name: 'b' }]));
          isExpired = false;
          return refuse(response, 410, 'The provided continue parameter is too old');
        },
        { protocol },
      );
      expect(await api.enabledNamespaces()).toEqual(['a', 'b']);
      expect(server.requests.map(({ query }) => query.get('continue'))).toEqual([null, 'two', null, 'two']);
    });

    test('fails for a list whose version the API server always forgets', async () => {
      const { api, server } = await apiOf(
        ({ query }, response) =>
          query.get('continue') ? refuse(response, 410, 'expired') : json(response, page([], 'two')),
        { protocol },
      );
      expect(await errorOf(api.enabledNamespaces())).toMatchObject({ status: 410 });
      expect(server.requests).toHaveLength(6);
    });

    test('requests fewer objects if a page is too large', async () => {
      const large = { other: 'x'.repeat(256 * 1024) };
      const names = Array.from({ length: 12 }, (_, index) => `pull-${index}`);
      const { api, server } = await apiOf(
        ({ query }, response) => {
          const start = Number(query.get('continue') ?? 0);
          const end = start + Number(query.get('limit'));
          const items = names.slice(start, end).map((name) => ({ name, annotations: large }));
          json(response, page(items, end < names.length ? String(end) : undefined));
        },
        { protocol },
      );
      const secrets = await api.managedSecrets('team');
      expect(secrets.map(({ name }) => name)).toEqual(names);
      expect(new Set(server.requests.map(({ query }) => query.get('limit')))).toEqual(new Set(['50', '5']));
    });

    test.each([
      { title: 'a page with more objects than requested', body: page(Array(51).fill({ name: 'pull' })) },
      { title: 'pages of many small values', body: { ...page([]), small: Array(100_000).fill([]) } },
      { title: 'pages that exceed the size of any object', body: { ...page([]), large: 'x'.repeat(3e6) } },
    ])('fails for $title', async ({ body }) => {
      const { api } = await apiOf((_, response) => json(response, body), { protocol });
      expect(await errorOf(api.managedSecrets('team'))).toMatchObject({
        code: 'too-much-data',
        affects: 'cluster',
      });
    });

    test('ends a list that is larger than any cluster, and sends no more requests once all of it is', async () => {
      const text = 'x'.repeat(20_000);
      const { api, server } = await apiOf(
        ({ method }, response) =>
          method === 'GET'
            ? json(
                response,
                page(Array(50).fill({ name: 'pull', annotations: { [ANNOTATION.only]: text } }), 'n'),
              )
            : json(response, object({ name: 'pull', annotations: { [ANNOTATION.only]: text.repeat(50) } })),
        { protocol },
      );
      expect(await errorOf(api.managedSecrets('team'))).toMatchObject({ code: 'too-much-data' });
      // What is listed can still be refreshed.
      await api.annotate(SECRET, {}, false);
      for (let count = 0; count < 20; count++) await api.annotate(SECRET, {}, false).catch(() => {});
      const sent = server.requests.length;
      expect(await errorOf(api.annotate(SECRET, {}, false))).toMatchObject({ code: 'too-much-data' });
      expect(server.requests).toHaveLength(sent);
    });

    test.each([
      { title: 'without items', body: { kind: 'PartialObjectMetadataList', metadata: {} } },
      { title: 'of another kind', body: { ...page([]), kind: 'SecretList' } },
      { title: 'with an item without a name', body: page([{}]) },
      { title: 'that is null', body: null },
    ])('fails for a list $title', async ({ body }) => {
      const { api } = await apiOf((_, response) => json(response, body), { protocol });
      const error = await errorOf(api.managedSecrets('team'));
      expect(error.message).toContain('the answer is not a PartialObjectMetadataList');
    });

    test('sends many requests over a few connections', async () => {
      const { api, server } = await apiOf(
        (_, response) => setTimeout(() => json(response, object({ name: 'pull' })), 5),
        { protocol },
      );
      // undici opens further connections only after the first one has negotiated its protocol.
      await api.annotate(SECRET, {}, false);
      for (let round = 0; round < 2; round++) {
        await Promise.all(Array.from({ length: 100 }, () => api.annotate(SECRET, {}, false)));
      }
      expect(server.requests).toHaveLength(201);
      expect(server.connections).toBe(protocol === 'h2' ? 1 : CONNECTIONS);
      expect(server.requests[0]?.httpVersion).toBe(protocol === 'h2' ? '2.0' : '1.1');
    });

    test('authenticates with a token', async () => {
      const { api, server } = await apiOf((_, response) => json(response, page([])), { protocol });
      await api.enabledNamespaces();
      expect(server.requests[0]?.headers.authorization).toBe(`Bearer ${TOKEN}`);
    });

    test('authenticates with a client certificate', async () => {
      const authority = await createAuthority('clients');
      const { certPem: cert, keyPem: key } = await authority.client('refresher', []);
      const { api, server } = await apiOf((_, response) => json(response, page([])), {
        protocol,
        clientCa: authority.caPem,
        access: { identity: { cert, key } },
      });
      await api.enabledNamespaces();
      expect(server.requests[0]).toMatchObject({ clientName: 'refresher' });
      expect(server.requests[0]?.headers).not.toHaveProperty('authorization');
    });

    test('prefixes paths with the path of the server', async () => {
      const { api, server } = await apiOf((_, response) => json(response, page([])), { protocol });
      await using behind = new KubernetesApi(
        { server: `${server.url}/k8s/clusters/c-1`, ca: server.caPem, identity: { token: TOKEN } },
        1,
        AbortSignal.timeout(20_000),
      );
      await behind.enabledNamespaces();
      await api.enabledNamespaces();
      expect(server.requests.map(({ path }) => path)).toEqual([
        '/k8s/clusters/c-1/api/v1/namespaces',
        '/api/v1/namespaces',
      ]);
    });
  },
);

test.each<{ title: string; access: (server: ApiServer) => Promise<Partial<ClusterAccess>> }>([
  { title: 'of an unknown authority', access: async () => ({}) },
  {
    title: 'of another authority',
    access: async () => ({ ca: (await createAuthority('other')).caPem }),
  },
  {
    title: 'for another name',
    access: async (server) => ({ ca: server.caPem, serverName: 'elsewhere.example' }),
  },
])('sends no request to a server with a certificate $title', async ({ access }) => {
  const server = stack.use(await startApiServer((_, response) => json(response, page([]))));
  const api = stack.use(
    new KubernetesApi(
      { server: server.url, identity: { token: TOKEN }, ...(await access(server)) },
      1,
      AbortSignal.timeout(20_000),
    ),
  );
  const error = await errorOf(api.enabledNamespaces());
  expect(error).toMatchObject({ code: 'unreachable', cause: { code: 'tls' } });
  expect(error.affects).toBe('cluster');
  expect(server.requests).toHaveLength(0);
});

describe('through a proxy', () => {
  /** Starts an HTTP proxy that requires a password. @returns its address and the targets of CONNECT */
  async function startProxy(): Promise<{ url: string; asked: string[] }> {
    const asked: string[] = [];
    const server = createServer();
    server.on('connect', (request, socket) => {
      const isKnown = request.headers['proxy-authorization'] === `Basic ${btoa('me:canary-proxy')}`;
      asked.push(request.url ?? '');
      if (!isKnown) return void socket.end('HTTP/1.1 407 Proxy Authentication Required\r\n\r\n');
      const [host, port] = (request.url ?? '').split(':');
      const onward = connect(Number(port), host, () => {
        socket.write('HTTP/1.1 200 Connection established\r\n\r\n');
        socket.pipe(onward).pipe(socket);
      });
      for (const end of [socket, onward]) end.on('error', () => {});
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    stack.defer(() => {
      server.closeAllConnections();
      server.close();
    });
    return { url: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked };
  }

  test('reaches the server, and verifies its certificate', async () => {
    const proxy = await startProxy();
    const proxyUrl = `http://me:canary-proxy@${proxy.url}`;
    const { api, server } = await apiOf((_, response) => json(response, page([])), { access: { proxyUrl } });
    await api.enabledNamespaces();
    expect(server.requests).toHaveLength(1);
    expect(server.requests[0]?.headers).toMatchObject({ authorization: `Bearer ${TOKEN}` });
    expect(proxy.asked).toEqual([new URL(server.url).host]);
    const other = await apiOf((_, response) => json(response, page([])), {
      access: { proxyUrl, ca: (await createAuthority('other')).caPem },
    });
    expect(await errorOf(other.api.enabledNamespaces())).toMatchObject({ cause: { code: 'tls' } });
    expect(other.server.requests).toHaveLength(0);
  });

  test.each([
    { title: 'a wrong password', proxyUrl: (url: string) => `http://me:canary-wrong@${url}`, code: 'proxy' },
    { title: 'a closed port', proxyUrl: () => 'http://me:canary-wrong@127.0.0.1:1', code: 'refused' },
    {
      title: 'a name that resolves to this machine',
      proxyUrl: (url: string) => `http://me:canary-wrong@${url.replace('127.0.0.1', 'localhost')}`,
      code: 'local-address',
    },
  ])('fails for $title with an error without the password', async ({ proxyUrl, code }) => {
    const proxy = await startProxy();
    const { api, server } = await apiOf((_, response) => json(response, page([])), {
      access: { proxyUrl: proxyUrl(proxy.url) },
    });
    const error = await errorOf(api.enabledNamespaces());
    expect(error).toMatchObject({ code: 'unreachable', cause: { code } });
    expect(error.message).not.toContain('canary');
    expect(error.affects).toBe('cluster');
    expect(server.requests).toHaveLength(0);
  });
});

test('refuses a server whose name resolves to this machine, unless that is allowed', async () => {
  const answer: Answer = (_, response) => json(response, page([]));
  const named = { server: '', serverName: '127.0.0.1' };
  const server = stack.use(await startApiServer(answer));
  const access = {
    ...named,
    server: server.url.replace('127.0.0.1', 'localhost'),
    ca: server.caPem,
    identity: { token: TOKEN },
  };
  const apiFor = (more: object) =>
    stack.use(new KubernetesApi({ ...access, ...more }, 1, AbortSignal.timeout(20_000)));
  const error = await errorOf(apiFor({}).enabledNamespaces());
  expect(error).toMatchObject({ code: 'unreachable', cause: { code: 'local-address' } });
  expect(server.requests).toHaveLength(0);
  await apiFor({ isLocalAllowed: true }).enabledNamespaces();
});

test.each([
  { title: 'a closed port', server: 'https://127.0.0.1:1', code: 'refused' },
  { title: 'an unknown name', server: 'https://cluster.invalid', code: 'dns' },
])('fails for $title with its code', async ({ server, code }) => {
  const api = stack.use(
    new KubernetesApi({ server, identity: { token: TOKEN } }, 1, AbortSignal.timeout(20_000)),
  );
  const error = await errorOf(api.enabledNamespaces());
  expect(error.message).toContain('GET /api/v1/namespaces: ');
  expect(error).toMatchObject({ code: 'unreachable', cause: { code } });
  expect(error.affects).toBe('cluster');
});

/** Writes the body until the client closes the connection. */
function pour(response: Response): void {
  const chunk = Buffer.alloc(1024 * 1024, ' ');
  response.writeHead(200);
  const more = () => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on('drain', more);
  more();
}
