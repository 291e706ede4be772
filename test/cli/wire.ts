// A reverse proxy between the command line and the local AWS or an API server. A test sees each request. It can delay the
// request or its response, respond itself, or never respond.
import { once } from 'node:events';
import {
  createServer as createHttpServer,
  type IncomingHttpHeaders,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { Agent, createServer as createHttpsServer, request } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { parse, stringify } from 'yaml';
import { type Authority, createAuthority } from '../bed/certificates.ts';
import type { ControlPlane } from '../bed/control-plane.ts';
import type { Emulator } from '../bed/emulator.ts';

export interface Call {
  /** `secretsmanager:CreateSecret`, `lambda:InvokeFunction status` (by the event's action); `POST /api/v1/…`. */
  readonly name: string;
  readonly headers: IncomingHttpHeaders;
  readonly body: string;
}

export interface Reply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body: string;
}

/** How the proxy handles a request. By default, it forwards the request and the response at once. */
export interface Treatment {
  /** Sent instead of forwarding the request. */
  readonly reply?: Reply;
  /** The proxy neither forwards the request nor responds. */
  readonly isSilent?: true;
  /** Runs before the request is forwarded. The proxy forwards it even if the client has closed the connection. */
  readonly before?: () => Promise<unknown>;
  /** Runs before the response is sent. */
  readonly after?: () => Promise<unknown>;
}

export interface Wire extends AsyncDisposable {
  readonly url: string;
  readonly calls: Call[];
  handle: (call: Call) => Treatment | undefined;
}

/** Starts a proxy for the local AWS, without TLS. Without an emulator, the test must respond to every request. */
export async function startAwsWire(emulator?: Emulator): Promise<Wire> {
  const tokens = new ClientRequestTokens();
  const server = createHttpServer();
  return serve(server, 'http', async (received, body, wire) => {
    const call = { name: awsName(received, body), headers: received.headers, body };
    wire.calls.push(call);
    return {
      treatment: wire.handle(call) ?? {},
      pass: () => {
        if (!emulator) throw new Error(`the test does not handle ${call.name}`);
        const { httpsAgent } = emulator.clientConfig.requestHandler;
        return tokens.pass(call, (sent) =>
          forward(received, sent, emulator.endpoint, httpsAgent, { keepsHost: true }),
        );
      },
    };
  });
}

export interface ClusterWire extends Wire {
  /** Returns the kubeconfig with the proxy as its server. */
  through(kubeconfig: string): string;
}

/**
 * Starts a proxy for an API server, with TLS. It forwards no client certificates, so clients must use tokens.
 *
 * @param prefix of the paths, such as `/k8s/clusters/c-m-x`
 * @param authority of its certificate; default: one of its own
 */
export async function startClusterWire(
  target: ControlPlane,
  { prefix = '', authority: given }: { prefix?: string; authority?: Authority } = {},
): Promise<ClusterWire> {
  const authority = given ?? (await createAuthority('wire'));
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const agent = new Agent({ keepAlive: true, ca: target.caPem });
  const server = createHttpsServer({ cert: certPem, key: keyPem });
  const wire = await serve(server, 'https', async (received, body, { calls, handle }) => {
    received.url = received.url?.slice(prefix.length) ?? '';
    const { pathname } = new URL(received.url ?? '', target.server);
    const call = { name: `${received.method} ${pathname}`, headers: received.headers, body };
    calls.push(call);
    return { treatment: handle(call) ?? {}, pass: () => forward(received, body, target.server, agent) };
  });
  return Object.assign(wire, {
    through(kubeconfig: string) {
      const config = parse(kubeconfig) as { clusters: { name: string }[] };
      const cluster = {
        server: `${wire.url}${prefix}`,
        'certificate-authority-data': Buffer.from(authority.caPem).toString('base64'),
      };
      return stringify({ ...config, clusters: config.clusters.map(({ name }) => ({ name, cluster })) });
    },
  });
}

type Receive = (
  received: IncomingMessage,
  body: string,
  wire: Wire,
) => Promise<{ treatment: Treatment; pass: () => Promise<Reply> }>;

export async function serve(
  server: ReturnType<typeof createHttpServer> | ReturnType<typeof createHttpsServer>,
  scheme: string,
  receive: Receive,
): Promise<Wire> {
  server.on('request', async (received: IncomingMessage, response: ServerResponse) => {
    try {
      const { treatment, pass } = await receive(received, await text(received), wire);
      const { reply, isSilent, before, after } = treatment;
      if (isSilent) return;
      await before?.();
      const { status, headers, body } = reply ?? (await pass());
      await after?.();
      if (!response.destroyed) response.writeHead(status, headers).end(body);
    } catch {
      response.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const wire: Wire = {
    url: `${scheme}://127.0.0.1:${port}`,
    calls: [],
    handle: () => undefined,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
  return wire;
}

/** @param keepsHost whether to forward the Host header, which AWS' signatures cover */
export function forward(
  received: IncomingMessage,
  body: string,
  target: string,
  agent: Agent,
  { keepsHost = false } = {},
): Promise<Reply> {
  const { host, 'content-length': _, 'transfer-encoding': __, ...headers } = received.headers;
  return new Promise((resolve, reject) => {
    const passed = request(new URL(received.url ?? '', target), {
      ...{ method: received.method, agent },
      headers: { ...headers, ...(keepsHost && { host }), 'content-length': Buffer.byteLength(body) },
    });
    passed.on('error', reject);
    passed.on('response', async (answered) => {
      const {
        'content-length': ___,
        'transfer-encoding': ____,
        connection: _____,
        ...rest
      } = answered.headers;
      resolve({
        status: answered.statusCode ?? 0,
        headers: rest as Record<string, string>,
        body: await text(answered),
      });
    });
    passed.end(body);
  });
}

/** `secretsmanager:CreateSecret`, `lambda:InvokeFunction status`. */
export function awsName({ method = '', url = '', headers }: IncomingMessage, body: string): string {
  const [, service = ''] = /Credential=[^/]+\/\d+\/[^/]+\/([^/]+)\//.exec(headers.authorization ?? '') ?? [];
  const target = headers['x-amz-target']?.toString();
  if (target !== undefined) return `${service}:${target.split('.').at(-1)}`;
  if (/\/functions\/[^/]+\/invocations/.test(url)) {
    const { action = 'refresh' } = JSON.parse(body || '{}') as { action?: string };
    return `lambda:InvokeFunction ${action}`;
  }
  if (/\/functions\/[^/]+\/configuration/.test(url)) return 'lambda:GetFunctionConfiguration';
  const action = new URLSearchParams(body).get('Action');
  return action === null ? `${service}:${method} ${url}` : `${service}:${action}`;
}

/**
 * Idempotency, which the local AWS lacks: a request's token becomes the id of the version that it creates, and a repeated
 * request gets the same response (Secrets Manager API reference, CreateSecret, ClientRequestToken).
 */
class ClientRequestTokens {
  /** Tokens by the local AWS' version ids. */
  readonly #tokens = new Map<string, string>();
  readonly #answers = new Map<string, Reply>();

  async pass({ name, body }: Call, pass: (body: string) => Promise<Reply>): Promise<Reply> {
    const makesVersion = /:(CreateSecret|PutSecretValue)$/.test(name);
    const token = makesVersion
      ? (JSON.parse(body) as { ClientRequestToken?: string }).ClientRequestToken
      : undefined;
    const before = token === undefined ? undefined : this.#answers.get(token);
    if (before) return before;
    let sent = body;
    for (const [id, known] of this.#tokens) sent = sent.replaceAll(known, id);
    const reply = await pass(sent);
    if (token !== undefined && reply.status === 200)
      this.#tokens.set((JSON.parse(reply.body) as { VersionId: string }).VersionId, token);
    let answer = reply.body;
    for (const [id, known] of this.#tokens) answer = answer.replaceAll(id, known);
    const answered = { ...reply, body: answer };
    if (token !== undefined && reply.status === 200) this.#answers.set(token, answered);
    return answered;
  }
}

/** An error in the format of the AWS service: XML (query), REST JSON or JSON 1.1. @param code without "Exception" */
export function awsError(name: string, code: string, message: string, status = 403): Reply {
  const [service = ''] = name.split(':');
  if (service === 'cloudformation' || service === 'sts')
    return {
      status,
      headers: { 'content-type': 'text/xml' },
      body: `<ErrorResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><Error><Type>Sender</Type><Code>${code}</Code><Message>${message.replaceAll('&', '&amp;').replaceAll('<', '&lt;')}</Message></Error><RequestId>7d5e6c0a-0000-4000-8000-000000000000</RequestId></ErrorResponse>`,
    };
  if (service === 'lambda' || service === 'eks')
    return {
      status,
      headers: { 'content-type': 'application/json', 'x-amzn-errortype': `${code}Exception:` },
      body: JSON.stringify(code === 'AccessDenied' ? { Message: message } : { message }),
    };
  return {
    status: 400,
    headers: { 'content-type': 'application/x-amz-json-1.1' },
    body: JSON.stringify(
      code === 'AccessDenied'
        ? { __type: 'AccessDeniedException', Message: message }
        : { __type: `${code}Exception`, message },
    ),
  };
}

/** The response of CloudFormation for the refresher's stack. */
export const DEPLOYED: Reply = {
  status: 200,
  headers: { 'content-type': 'text/xml' },
  body: `<DescribeStacksResponse xmlns="http://cloudformation.amazonaws.com/doc/2010-05-15/"><DescribeStacksResult><Stacks><member><StackName>EcrAnywhere</StackName><CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>CREATE_COMPLETE</StackStatus><Outputs>${Object.entries(
    { FunctionName: 'refresher', RoleArn: 'arn:aws:iam::111122223333:role/refresher' },
  )
    .map(
      ([key, value]) => `<member><OutputKey>${key}</OutputKey><OutputValue>${value}</OutputValue></member>`,
    )
    .join('')}</Outputs></member></Stacks></DescribeStacksResult></DescribeStacksResponse>`,
};

/** The response to DescribeSecret if only alpha is registered. @param body of the request */
export function description(body: string): Reply {
  const { SecretId } = JSON.parse(body) as { SecretId: string };
  if (!SecretId.endsWith('/alpha'))
    return awsError('secretsmanager:DescribeSecret', 'ResourceNotFound', 'no such secret');
  return {
    status: 200,
    headers: { 'content-type': 'application/x-amz-json-1.1' },
    body: JSON.stringify({
      ARN: `arn:aws:secretsmanager:eu-central-1:111122223333:secret:${SecretId}-AbCdEf`,
    }),
  };
}

/** The error of AWS for a request that no policy allows. @param name of a call */
export function notAuthorized(name: string): Reply {
  const [action = ''] = name.split(' ');
  return awsError(
    action,
    'AccessDenied',
    `User: arn:aws:iam::111122223333:user/operator is not authorized to perform: ${action} on resource: arn:aws:some:thing because no identity-based policy allows the ${action} action`,
  );
}

/** The response of a Lambda function. @param payload '' for an empty one @param error set if the function failed */
export function functionAnswer(payload: unknown, error?: 'Unhandled'): Reply {
  return {
    status: 200,
    headers: { 'content-type': 'application/json', ...(error && { 'x-amz-function-error': error }) },
    body: payload === '' ? '' : JSON.stringify(payload),
  };
}
