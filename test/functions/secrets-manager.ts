// AWS Secrets Manager at the wire (AWS JSON 1.1): lists names and tags page by page, gives values alone and in batches,
// or fails as it is told.
import { once } from 'node:events';
import { createServer, type ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';

export interface AwsError {
  readonly status: number;
  readonly type: string;
  readonly message: string;
}

/** What is answered for a name; in a batch, 'never' is left out of the answer. */
export type Value = string | { readonly binary: string } | { readonly error: AwsError } | 'never';

export interface SecretsManager extends AsyncDisposable {
  readonly client: SecretsManagerClient;
  readonly url: string;
  /** Operation and secret of each call, in order. */
  readonly calls: readonly { readonly operation: string; readonly input: Record<string, unknown> }[];
  /** Lists fail with this error from now on; or they hang. */
  failLists(how: AwsError | 'never'): void;
}

export interface SecretsManagerOptions {
  /** Secrets on a page of ListSecrets, at most. */
  readonly pageSize?: number;
  /** By full names. */
  readonly tags?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Called before each answer; may wait, or throw what is answered. */
  readonly before?: (operation: string) => Promise<void> | void;
}

/** Starts it on a free loopback port. @param secrets by their full names, as ListSecrets finds them */
export async function startSecretsManager(
  secrets: Readonly<Record<string, Value>>,
  { pageSize = 2, tags = {}, before }: SecretsManagerOptions = {},
): Promise<SecretsManager> {
  const calls: { operation: string; input: Record<string, unknown> }[] = [];
  let lists: AwsError | 'never' | undefined;

  const list = (response: ServerResponse, { NextToken, MaxResults }: Record<string, unknown>) => {
    if (lists === 'never') return;
    if (lists) return fail(response, lists);
    const start = Number(NextToken ?? 0);
    const names = Object.keys(secrets);
    const end = start + Math.min(pageSize, Number(MaxResults));
    send(response, 200, {
      SecretList: names.slice(start, end).map((Name) => ({
        Name,
        Tags: Object.entries(tags[Name] ?? {}).map(([Key, Value]) => ({ Key, Value })),
      })),
      ...(end < names.length && { NextToken: String(end) }),
    });
  };
  const giveBatch = (response: ServerResponse, { SecretIdList }: Record<string, unknown>) => {
    const names = SecretIdList as string[];
    if (names.length > 20) {
      fail(response, { status: 400, type: 'ValidationException', message: 'at most 20' });
      return;
    }
    const answers = names.map((name) => ({ name, value: secrets[name] }));
    send(response, 200, {
      SecretValues: answers.flatMap(({ name, value }) => (isValue(value) ? [answerOf(name, value)] : [])),
      Errors: answers.flatMap(({ name, value }) => {
        if (value === 'never' || isValue(value)) return [];
        const { type, message } = value?.error ?? NOT_FOUND;
        return [{ SecretId: name, ErrorCode: type, Message: message }];
      }),
    });
  };
  const give = (response: ServerResponse, { SecretId }: Record<string, unknown>) => {
    const value = secrets[String(SecretId)];
    if (value === 'never') return;
    if (isValue(value)) send(response, 200, answerOf(String(SecretId), value));
    else fail(response, value?.error ?? NOT_FOUND);
  };
  const server = createServer(async (request, response) => {
    const operation = String(request.headers['x-amz-target']).split('.')[1] ?? '';
    const input = JSON.parse(await text(request)) as Record<string, unknown>;
    calls.push({ operation, input });
    try {
      await before?.(operation);
    } catch (error) {
      return fail(response, error as AwsError);
    }
    if (operation === 'ListSecrets') list(response, input);
    else if (operation === 'GetSecretValue') give(response, input);
    else if (operation === 'BatchGetSecretValue') giveBatch(response, input);
    else fail(response, { status: 400, type: 'UnknownOperationException', message: operation });
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the server has no port');
  const url = `http://127.0.0.1:${address.port}`;
  const client = new SecretsManagerClient({
    endpoint: url,
    region: 'eu-central-1',
    credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    maxAttempts: 2,
  });
  return {
    client,
    url,
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

const NOT_FOUND: AwsError = {
  status: 400,
  type: 'ResourceNotFoundException',
  message: "Secrets Manager can't find the specified secret.",
};

type Stored = Extract<Value, string | { readonly binary: string }>;

function isValue(value: Value | undefined): value is Stored {
  return value !== undefined && value !== 'never' && (typeof value === 'string' || 'binary' in value);
}

function answerOf(Name: string, value: Stored): object {
  const VersionId = '00000000-0000-4000-8000-000000000001';
  return typeof value === 'string'
    ? { Name, VersionId, SecretString: value }
    : { Name, VersionId, SecretBinary: Buffer.from(value.binary).toString('base64') };
}

function fail(response: ServerResponse, { status, type, message }: AwsError): void {
  send(response, status, { __type: type, message });
}

function send(response: ServerResponse, status: number, body: unknown): void {
  response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body));
}
