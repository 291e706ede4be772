// AWS Secrets Manager at the wire (AWS JSON 1.1): lists names page by page and gives values, or fails as it is told.
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';

export interface AwsError {
  readonly status: number;
  readonly type: string;
  readonly message: string;
}

/** What GetSecretValue answers for a name. */
export type Value = string | { readonly binary: string } | { readonly error: AwsError } | 'never';

export interface SecretsManager extends AsyncDisposable {
  readonly client: SecretsManagerClient;
  /** Operation and secret of each call, in order. */
  readonly calls: readonly { readonly operation: string; readonly input: Record<string, unknown> }[];
  /** Lists fail with this error from now on; or they hang. */
  failLists(how: AwsError | 'never'): void;
}

const PAGE = 2;

/** Starts it on a free loopback port. @param secrets by their full names, as ListSecrets finds them */
export async function startSecretsManager(secrets: Readonly<Record<string, Value>>): Promise<SecretsManager> {
  const calls: { operation: string; input: Record<string, unknown> }[] = [];
  let lists: AwsError | 'never' | undefined;

  const list = (response: ServerResponse, { NextToken }: Record<string, unknown>) => {
    if (lists === 'never') return;
    if (lists) return fail(response, lists);
    const start = Number(NextToken ?? 0);
    const names = Object.keys(secrets);
    send(response, 200, {
      SecretList: names.slice(start, start + PAGE).map((Name) => ({ Name })),
      ...(start + PAGE < names.length && { NextToken: String(start + PAGE) }),
    });
  };
  const give = (response: ServerResponse, { SecretId }: Record<string, unknown>) => {
    const value = secrets[String(SecretId)];
    if (value === 'never') return;
    if (value === undefined) fail(response, { status: 400, type: 'ResourceNotFoundException', message: '?' });
    else if (typeof value === 'string') send(response, 200, { Name: SecretId, SecretString: value });
    else if ('binary' in value) {
      send(response, 200, { Name: SecretId, SecretBinary: Buffer.from(value.binary).toString('base64') });
    } else fail(response, value.error);
  };
  const server = createServer(async (request, response) => {
    const operation = String(request.headers['x-amz-target']).split('.')[1] ?? '';
    const input = JSON.parse(await text(request)) as Record<string, unknown>;
    calls.push({ operation, input });
    if (operation === 'ListSecrets') list(response, input);
    else if (operation === 'GetSecretValue') give(response, input);
    else fail(response, { status: 400, type: 'UnknownOperationException', message: operation });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const client = new SecretsManagerClient({
    endpoint: `http://127.0.0.1:${address.port}`,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    maxAttempts: 2,
  });
  return {
    client,
    calls,
    failLists(how) {
      lists = how;
    },
    async [Symbol.asyncDispose]() {
      client.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

function fail(response: ServerResponse, { status, type, message }: AwsError): void {
  send(response, status, { __type: type, message });
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body));
}
