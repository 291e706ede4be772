// A proxy in front of the local AWS that records the calls of the deployed function.
import { once } from 'node:events';
import { createServer } from 'node:http';
import { request } from 'node:https';
import { buffer } from 'node:stream/consumers';
import type { Emulator } from './emulator.ts';

export interface WireCall {
  /** As in a policy: `secretsmanager:ListSecrets`. */
  readonly action: string;
  readonly region: string;
  /** The parameters of the Query protocol; empty for JSON. */
  readonly form: URLSearchParams;
  /** The HTTP status of the answer. */
  readonly status: number;
}

export interface Wire extends AsyncDisposable {
  readonly url: string;
  readonly calls: readonly WireCall[];
  /** Sends all requests from now on to this local AWS. */
  to(emulator: Emulator): void;
}

/** The operations of EKS that the function calls, by their paths. */
const EKS: readonly (readonly [RegExp, string])[] = [
  [/^\/clusters(\?|$)/, 'ListClusters'],
  [/^\/clusters\/[^/]+$/, 'DescribeCluster'],
];

/** Starts it on a free loopback port. Give its URL to the function as AWS_ENDPOINT_URL. */
export async function startWire(): Promise<Wire> {
  const calls: WireCall[] = [];
  let target: Emulator | undefined;
  const server = createServer(async (received, response) => {
    const { method, url = '', headers } = received;
    const body = await buffer(received);
    if (!target) return void response.writeHead(503).end();
    const { endpoint, clientConfig } = target;
    const options = { method, headers, agent: clientConfig.requestHandler.httpsAgent };
    const forwarded = request(`${endpoint}${url}`, options, (answer) => {
      const { statusCode: status = 0 } = answer;
      const form = new URLSearchParams(headers['x-amz-target'] ? '' : body.toString());
      const [, region = '', service = ''] =
        /Credential=[^/]+\/\d+\/([^/]+)\/([^/]+)\//.exec(headers.authorization ?? '') ?? [];
      const operation = String(headers['x-amz-target'] ?? '').replace(/^.*\./, '');
      const name = operation || form.get('Action') || EKS.find(([pattern]) => pattern.test(url))?.[1];
      calls.push({ action: `${service}:${name}`, region, form, status });
      response.writeHead(status, answer.headers);
      answer.pipe(response);
    });
    forwarded.on('error', () => response.destroy());
    forwarded.end(body);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the proxy has no port');
  return {
    url: `http://127.0.0.1:${address.port}`,
    calls,
    to: (emulator) => {
      target = emulator;
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
