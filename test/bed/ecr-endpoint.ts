// ECR at the wire: answers GetAuthorizationToken (AWS JSON 1.1) with a new token each time, counts, and misbehaves on
// demand. Steered in this process, or from another one over HTTP: POST /_control, GET /_calls.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';

export type EcrMode = 'ok' | 'throttle' | 'down' | 'hang' | 'denied';

export interface EcrSettings {
  mode: EcrMode;
  /** Seconds that a token lives, from now on. */
  lifetimeSeconds: number;
  /** For so many of the next tokens, another lifetime each; used up from the front. */
  nextLifetimesSeconds: number[];
  /** Before each answer. */
  latencyMs: number;
}

export interface EcrCall {
  /** Milliseconds since the epoch. */
  readonly at: number;
  readonly outcome: EcrMode;
  /** The token that was minted; absent where none was. */
  readonly password?: string;
  readonly expiresAt?: number;
}

export interface EcrEndpoint extends AsyncDisposable {
  readonly url: string;
  /** The registry that its tokens are for. */
  readonly host: string;
  readonly settings: EcrSettings;
  readonly calls: readonly EcrCall[];
  stop(): Promise<void>;
}

const TWELVE_HOURS_S = 12 * 3600;

/** Starts it on a free loopback port. */
export async function startEcrEndpoint({
  account = '123456789012',
  region = 'eu-central-1',
} = {}): Promise<EcrEndpoint> {
  const host = `${account}.dkr.ecr.${region}.amazonaws.com`;
  const settings: EcrSettings = {
    mode: 'ok',
    lifetimeSeconds: TWELVE_HOURS_S,
    nextLifetimesSeconds: [],
    latencyMs: 0,
  };
  const calls: EcrCall[] = [];

  const token = (response: ServerResponse) => {
    const at = Date.now();
    const { mode } = settings;
    if (mode !== 'ok') calls.push({ at, outcome: mode });
    if (mode === 'hang') return;
    if (mode === 'throttle')
      return send(response, 400, { __type: 'ThrottlingException', message: 'Rate exceeded' });
    if (mode === 'down')
      return send(response, 500, { __type: 'ServerException', message: 'Internal failure' });
    if (mode === 'denied') {
      const message = 'User is not authorized to perform: ecr:GetAuthorizationToken';
      return send(response, 400, { __type: 'AccessDeniedException', message });
    }
    const lifetime = settings.nextLifetimesSeconds.shift() ?? settings.lifetimeSeconds;
    // As long as ECR's own are, and recognisable.
    const password = `ecr-token-${calls.length + 1}-${randomBytes(1_300).toString('base64url')}`;
    const expiresAt = at + lifetime * 1000;
    calls.push({ at, outcome: mode, password, expiresAt });
    const authorizationToken = Buffer.from(`AWS:${password}`).toString('base64');
    send(response, 200, {
      authorizationData: [
        { authorizationToken, expiresAt: expiresAt / 1000, proxyEndpoint: `https://${host}` },
      ],
    });
  };

  const server = createServer(async (request, response) => {
    const body = await read(request);
    if (request.url === '/_control') {
      Object.assign(settings, JSON.parse(body));
      send(response, 200, settings);
    } else if (request.url === '/_calls') {
      send(response, 200, calls);
    } else if (request.headers['x-amz-target']?.toString().endsWith('.GetAuthorizationToken')) {
      setTimeout(() => token(response), settings.latencyMs);
    } else {
      send(response, 400, { __type: 'UnknownOperationException' });
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the ECR endpoint has no port');
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
  return {
    url: `http://127.0.0.1:${address.port}`,
    host,
    settings,
    calls,
    stop,
    [Symbol.asyncDispose]: stop,
  };
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body));
}

async function read(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString();
}
