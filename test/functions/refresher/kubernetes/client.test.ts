// The Kubernetes calls against a server that may answer anything, over HTTP/1.1 and over HTTP/2.
import { createServer } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { afterEach, describe, expect, test } from 'vitest';
import { ANNOTATION } from '../../../../contract/names.ts';
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
    test('lists go page by page, ask for metadata only, and keep no annotation but ours', async () => {
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

    test('an empty list of metadata has null for its items', async () => {
      const { api } = await apiOf((_, response) => json(response, { ...page([]), items: null }), {
        protocol,
      });
      expect(await api.managedSecrets('team')).toEqual([]);
    });

    test("Kubernetes' own namespaces are never looked at", async () => {
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
      'a PATCH carries the annotations alone (dry run: $dryRun)',
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

    test("a PATCH's warnings are heard, without the token that some proxy may repeat", async () => {
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

    test('no warning has what a terminal would obey', async () => {
      const { api } = await apiOf(
        (_, response) => {
          // What HTTP lets through: a tab, and controls of eight bits.
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

    test('warnings without an end are cut', async () => {
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
        title: 'a connection that breaks',
        first: (request) => request.drop(),
      },
    ])('$title is tried again', async ({ first }) => {
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
      answer: Answer;
      says: string;
      affects: KubernetesError['affects'];
      status?: number;
      requests: number;
    }
    test.each<Failure>([
      {
        title: '503 again and again',
        answer: (_, response) => refuse(response, 503, 'apiserver not ready'),
        says: 'HTTP 503: apiserver not ready',
        affects: 'cluster',
        status: 503,
        requests: 4,
      },
      {
        title: "the webhook's denial",
        answer: (_, response) =>
          refuse(response, 503, 'admission webhook "sync.x" denied the request: No fresh ECR credentials'),
        says: 'denied the request: No fresh ECR credentials',
        affects: 'cluster',
        status: 503,
        requests: 1,
      },
      {
        title: 'a webhook that cannot be called',
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
        answer: (_, response) => refuse(response, 401, 'Unauthorized'),
        says: 'HTTP 401: Unauthorized (is the registered credential expired or revoked?)',
        affects: 'cluster',
        status: 401,
        requests: 1,
      },
      {
        title: '403',
        answer: (_, response) => refuse(response, 403, 'secrets "pull" is forbidden'),
        says: 'HTTP 403: secrets "pull" is forbidden',
        affects: 'object',
        status: 403,
        requests: 1,
      },
      {
        title: '404',
        answer: (_, response) => refuse(response, 404, 'secrets "pull" not found'),
        says: 'HTTP 404: secrets "pull" not found',
        affects: 'object',
        status: 404,
        requests: 1,
      },
      {
        title: 'a refusal without a word',
        answer: (_, response) => response.writeHead(418).end('<html>teapot</html>'),
        says: 'HTTP 418: no reason given',
        affects: 'object',
        status: 418,
        requests: 1,
      },
      {
        title: 'a redirect',
        answer: (_, response) => response.writeHead(302, { location: '/elsewhere' }).end(),
        says: 'HTTP 302: no reason given',
        affects: 'object',
        status: 302,
        requests: 1,
      },
      {
        title: 'garbage',
        answer: (_, response) => response.writeHead(200).end('<html>'),
        says: 'the answer is not a PartialObjectMetadata',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'a whole Secret',
        answer: (_, response) => json(response, { kind: 'Secret', metadata: { name: 'pull' }, data: {} }),
        says: 'the answer is not a PartialObjectMetadata',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'annotations of the wrong type',
        answer: (_, response) => json(response, object({ name: 'pull', annotations: { a: 1 } })),
        says: 'the answer is not a PartialObjectMetadata',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'a body without end',
        answer: (_, response) => pour(response),
        says: 'exceeded max size',
        affects: 'cluster',
        requests: 1,
      },
      {
        title: 'a refusal that repeats the request',
        answer: ({ headers }, response) =>
          refuse(response, 400, `bad: authorization: ${headers.authorization}`),
        says: 'HTTP 400: bad: authorization: Bearer …',
        affects: 'object',
        status: 400,
        requests: 1,
      },
    ])('$title is an error that says so', async ({ answer, says, affects, status, requests }) => {
      const { api, server } = await apiOf(answer, { protocol });
      const error = await errorOf(api.annotate(SECRET, {}, false));
      expect(error.message).toContain('PATCH /api/v1/namespaces/team/secrets/pull: ');
      expect(error.message).toContain(says);
      expect(error.message).not.toContain(TOKEN);
      expect(error.reason).not.toContain('/secrets/pull');
      expect([error.affects, error.status]).toEqual([affects, status]);
      expect(server.requests).toHaveLength(requests);
    });

    test.each<{ title: string; answer: Answer }>([
      { title: 'that never answers', answer: () => {} },
      {
        title: 'that never ends its answer',
        answer: (_, response) => {
          response.writeHead(200);
          const drip = setInterval(() => response.write(' '), 20);
          response.on('close', () => clearInterval(drip));
        },
      },
      {
        title: 'that asks to come back, for ever',
        answer: (_, response) => refuse(response, 429, 'later', { 'retry-after': '3600' }),
      },
    ])('a server $title holds nobody longer than the deadline', async ({ answer }) => {
      const { api, server } = await apiOf(answer, { protocol, deadlineMs: 500 });
      const error = await errorOf(api.enabledNamespaces());
      expect(error.message).toBe("GET /api/v1/namespaces: no answer before the cluster's deadline");
      expect(error.affects).toBe('cluster');
      expect(server.requests).toHaveLength(1);
    });

    test('a list without end is given up', async () => {
      const { api } = await apiOf((_, response) => json(response, page([], 'again')), { protocol });
      const error = await errorOf(api.enabledNamespaces());
      expect(error.message).toBe('GET /api/v1/namespaces: the list does not end');
    });

    test.each([
      { title: 'no items', body: { kind: 'PartialObjectMetadataList', metadata: {} } },
      { title: 'another kind', body: { ...page([]), kind: 'SecretList' } },
      { title: 'an item without a name', body: page([{}]) },
      { title: 'null', body: null },
    ])('a list with $title is not one', async ({ body }) => {
      const { api } = await apiOf((_, response) => json(response, body), { protocol });
      const error = await errorOf(api.managedSecrets('team'));
      expect(error.message).toContain('the answer is not a PartialObjectMetadataList');
    });

    test('many requests share a few connections, which are kept', async () => {
      const { api, server } = await apiOf(
        (_, response) => setTimeout(() => json(response, object({ name: 'pull' })), 5),
        { protocol },
      );
      // The first one settles the protocol; only then are there more connections.
      await api.annotate(SECRET, {}, false);
      for (let round = 0; round < 2; round++) {
        await Promise.all(Array.from({ length: 100 }, () => api.annotate(SECRET, {}, false)));
      }
      expect(server.requests).toHaveLength(201);
      expect(server.connections).toBe(protocol === 'h2' ? 1 : CONNECTIONS);
      expect(server.requests[0]?.httpVersion).toBe(protocol === 'h2' ? '2.0' : '1.1');
    });

    test('a token reaches the server', async () => {
      const { api, server } = await apiOf((_, response) => json(response, page([])), { protocol });
      await api.enabledNamespaces();
      expect(server.requests[0]?.headers.authorization).toBe(`Bearer ${TOKEN}`);
    });

    test('a client certificate reaches the server', async () => {
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

    test('a server behind a path keeps it', async () => {
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
  { title: 'no authority', access: async () => ({}) },
  {
    title: 'the authority of somebody else',
    access: async () => ({ ca: (await createAuthority('other')).caPem }),
  },
  {
    title: 'another name',
    access: async (server) => ({ ca: server.caPem, serverName: 'elsewhere.example' }),
  },
])('a server that is not to be trusted gets no request: $title', async ({ access }) => {
  const server = stack.use(await startApiServer((_, response) => json(response, page([]))));
  const api = stack.use(
    new KubernetesApi(
      { server: server.url, identity: { token: TOKEN }, ...(await access(server)) },
      1,
      AbortSignal.timeout(20_000),
    ),
  );
  const error = await errorOf(api.enabledNamespaces());
  expect(error.message).toMatch(/certificate|altnames/);
  expect(error.affects).toBe('cluster');
  expect(server.requests).toHaveLength(0);
});

describe('through a proxy', () => {
  /** An HTTP proxy that wants a password; what it was asked to connect to. */
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

  test('the server is reached, its certificate is judged, and the proxy sees no request', async () => {
    const proxy = await startProxy();
    const proxyUrl = `http://me:canary-proxy@${proxy.url}`;
    const { api, server } = await apiOf((_, response) => json(response, page([])), { access: { proxyUrl } });
    await api.enabledNamespaces();
    expect(server.requests).toHaveLength(1);
    expect(server.requests[0]?.headers).toMatchObject({ authorization: `Bearer ${TOKEN}` });
    expect(proxy.asked).toEqual([new URL(server.url).host]);
    const stranger = await apiOf((_, response) => json(response, page([])), {
      access: { proxyUrl, ca: (await createAuthority('other')).caPem },
    });
    expect((await errorOf(stranger.api.enabledNamespaces())).message).toMatch(/certificate/);
    expect(stranger.server.requests).toHaveLength(0);
  });

  test.each([
    { title: 'a wrong password', proxyUrl: (url: string) => `http://me:canary-wrong@${url}`, says: /407/ },
    { title: 'no proxy', proxyUrl: () => 'http://me:canary-wrong@127.0.0.1:1', says: /ECONNREFUSED/ },
    {
      title: 'a proxy on this machine by its name',
      proxyUrl: (url: string) => `http://me:canary-wrong@${url.replace('127.0.0.1', 'localhost')}`,
      says: /localhost is \S+, an address of this machine/,
    },
  ])('$title: said, and no password told', async ({ proxyUrl, says }) => {
    const proxy = await startProxy();
    const { api, server } = await apiOf((_, response) => json(response, page([])), {
      access: { proxyUrl: proxyUrl(proxy.url) },
    });
    const error = await errorOf(api.enabledNamespaces());
    expect(error.message).toMatch(says);
    expect(error.message).not.toContain('canary');
    expect(error.affects).toBe('cluster');
    expect(server.requests).toHaveLength(0);
  });
});

test('a server on this machine by its name is refused, unless it is allowed', async () => {
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
  expect(error.message).toMatch(/localhost is \S+, an address of this machine or its link/);
  expect(server.requests).toHaveLength(0);
  await apiFor({ isLocalAllowed: true }).enabledNamespaces();
});

test.each([
  { title: 'nobody listens', server: 'https://127.0.0.1:1', says: 'ECONNREFUSED' },
  { title: 'the name is unknown', server: 'https://cluster.invalid', says: 'cluster.invalid' },
])('$title', async ({ server, says }) => {
  const api = stack.use(
    new KubernetesApi({ server, identity: { token: TOKEN } }, 1, AbortSignal.timeout(20_000)),
  );
  const error = await errorOf(api.enabledNamespaces());
  expect(error.message).toContain(`GET /api/v1/namespaces: `);
  expect(error.message).toContain(says);
  expect(error.affects).toBe('cluster');
});

/** Goes on answering until the client has had enough. */
function pour(response: Response): void {
  const chunk = Buffer.alloc(1024 * 1024, ' ');
  response.writeHead(200);
  const more = () => {
    while (!response.destroyed && response.write(chunk));
  };
  response.on('drain', more);
  more();
}
