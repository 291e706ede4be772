// Imitates AWS Secrets Manager (AWS JSON 1.1): lists, values alone and in batches, versions and their labels, and failures
// that a test chooses. A version without a label is deleted at once, which AWS may do too (API reference,
// UpdateSecretVersionStage: "deprecated").
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { text } from 'node:stream/consumers';
import { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import { requestLimits } from '../../lib/aws/request-limits.ts';

export interface AwsError {
  readonly status: number;
  readonly type: string;
  readonly message: string;
}

/** The response for a name. 'never' leaves the request unanswered, and is absent from a batch. */
export type Value = string | { readonly binary: string } | { readonly error: AwsError } | 'never';

/** A version of a secret. */
export interface Version {
  readonly id: string;
  readonly value: Stored;
  readonly stages: ReadonlySet<string>;
}

/** A hook throws it to close the connection without a response. */
export const HANG_UP = Symbol('hang up');
/** A hook throws it to send only the beginning of a response. */
export const HALF_AN_ANSWER = Symbol('half an answer');

export interface SecretsManager extends AsyncDisposable {
  readonly client: SecretsManagerClient;
  readonly url: string;
  /** In the order of the requests. */
  readonly calls: readonly { readonly operation: string; readonly input: Record<string, unknown> }[];
  /** Makes all later lists fail with this error, or hang. */
  failLists(how: AwsError | 'never'): void;
  /** The versions of a secret that have labels. */
  versions(name: string): readonly Version[];
  /** The text that GetSecretValue returns. */
  current(name: string): string;
  /** Stores a value as an operator does with `aws secretsmanager put-secret-value`. */
  register(name: string, value: string): void;
  /** Stores a value that is not current, under a label of its own. */
  stage(name: string, value: string, stage: string): void;
}

export interface SecretsManagerOptions {
  /** The number of secrets on a page of ListSecrets. */
  readonly pageSize?: number;
  /** By full names. */
  readonly tags?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Full names of recent secrets, which ListSecrets does not show yet. It lags by up to five minutes. */
  readonly unlisted?: readonly string[];
  /** By full names: the earlier tags, if ListSecrets still shows them. */
  readonly listedTags?: Readonly<Record<string, Readonly<Record<string, string>>>>;
  /** Full names of secrets that are scheduled for deletion, which ListSecrets still shows. */
  readonly deleted?: readonly string[];
  /** By full names: the error of DescribeSecret. */
  readonly notDescribed?: Readonly<Record<string, AwsError>>;
  /** The client's time for the response to an attempt, in milliseconds. */
  readonly attemptMs?: number;
  /** Called before an operation. It may wait, or throw the response: an AwsError, HANG_UP, or HALF_AN_ANSWER. */
  readonly before?: (operation: string) => Promise<void> | void;
  /** Called after an operation and before its response. It may do the same. */
  readonly after?: (operation: string) => Promise<void> | void;
}

/** Starts it on a free loopback port. @param secrets by their full names, as ListSecrets finds them */
export async function startSecretsManager(
  secrets: Readonly<Record<string, Value>>,
  {
    pageSize = 2,
    tags = {},
    unlisted = [],
    listedTags = {},
    deleted = [],
    notDescribed = {},
    attemptMs,
    before,
    after,
  }: SecretsManagerOptions = {},
): Promise<SecretsManager> {
  const calls: { operation: string; input: Record<string, unknown> }[] = [];
  let lists: AwsError | 'never' | undefined;

  const written = new Map<string, Version[]>();
  const versionsOf = (name: string): Version[] => {
    const value = secrets[name];
    return written.get(name) ?? (isValue(value) ? [{ id: FIRST, value, stages: new Set([CURRENT]) }] : []);
  };
  /** The version with the label AWSCURRENT, or the response in its place. */
  const currentOf = (name: string): Version | Unavailable | undefined => {
    const versions = written.get(name) ?? secrets[name];
    if (!Array.isArray(versions) && !isValue(versions)) return versions as Unavailable | undefined;
    return versionsOf(name).find(({ stages }) => stages.has(CURRENT));
  };
  const label = (name: string, stage: string, id: string) => {
    const from = versionsOf(name).find(({ stages }) => stages.has(stage));
    const versions = versionsOf(name).map((version) => {
      const stages = new Set(version.stages);
      stages.delete(stage);
      if (version.id === id) stages.add(stage);
      return { ...version, stages };
    });
    written.set(name, versions);
    if (stage === CURRENT && from && from.id !== id) label(name, 'AWSPREVIOUS', from.id);
  };
  const deleteUnlabelled = (name: string) =>
    written.set(
      name,
      versionsOf(name).filter(({ stages }) => stages.size > 0),
    );
  const put = (name: string, id: string, value: Stored, stages: readonly string[]) => {
    const same = versionsOf(name).find((version) => version.id === id);
    if (same && same.value !== value) throw { status: 400, type: 'ResourceExistsException', message: id };
    if (same) return;
    written.set(name, [...versionsOf(name), { id, value, stages: new Set() }]);
    for (const stage of stages) label(name, stage, id);
    deleteUnlabelled(name);
  };
  const putVersion = (reply: Reply, input: Record<string, unknown>) => {
    const { SecretId, SecretString, ClientRequestToken, VersionStages = [CURRENT] } = input;
    const name = String(SecretId);
    if (versionsOf(name).length === 0) return fail(reply, NOT_FOUND);
    put(name, String(ClientRequestToken), String(SecretString), VersionStages as string[]);
    return reply(200, { Name: name, VersionId: ClientRequestToken, VersionStages });
  };
  const moveLabel = (reply: Reply, input: Record<string, unknown>) => {
    const { SecretId, VersionStage, RemoveFromVersionId, MoveToVersionId } = input;
    const [name, stage, to] = [String(SecretId), String(VersionStage), String(MoveToVersionId)];
    const versions = versionsOf(name);
    if (!versions.some(({ id }) => id === to)) return fail(reply, NOT_FOUND);
    const holder = versions.find(({ stages }) => stages.has(stage));
    if (holder && holder.id !== RemoveFromVersionId)
      return fail(reply, {
        status: 400,
        type: 'InvalidParameterException',
        message: `Staging label ${stage} is currently attached to version ${holder.id}`,
      });
    label(name, stage, to);
    deleteUnlabelled(name);
    return reply(200, { Name: name });
  };

  const list = (reply: Reply, { NextToken, MaxResults, Filters }: Record<string, unknown>) => {
    if (lists === 'never') return;
    if (lists) return fail(reply, lists);
    const start = Number(NextToken ?? 0);
    const names = Object.keys(secrets).filter(
      (name) =>
        !unlisted.includes(name) &&
        (Filters as readonly NameFilter[]).every(({ Values }) =>
          Values.some((value) => name.startsWith(value)),
        ),
    );
    const end = start + Math.min(pageSize, Number(MaxResults));
    reply(200, {
      SecretList: names.slice(start, end).map((Name) => ({
        Name,
        Tags: tagsOf(listedTags[Name] ?? tags[Name]),
      })),
      ...(end < names.length && { NextToken: String(end) }),
    });
  };
  const describe = (reply: Reply, { SecretId }: Record<string, unknown>) => {
    const Name = String(SecretId);
    const error = notDescribed[Name];
    if (error) return fail(reply, error);
    if (!(Name in secrets)) return fail(reply, NOT_FOUND);
    return reply(200, {
      Name,
      Tags: tagsOf(tags[Name]),
      ...(deleted.includes(Name) && { DeletedDate: 1_700_000_000 }),
    });
  };
  const returnBatch = (reply: Reply, { SecretIdList }: Record<string, unknown>) => {
    const names = SecretIdList as string[];
    if (names.length > 20) {
      fail(reply, { status: 400, type: 'ValidationException', message: 'at most 20' });
      return;
    }
    const answers = names.map((name) => ({ name, value: currentOf(name) }));
    reply(200, {
      SecretValues: answers.flatMap(({ name, value }) => (isVersion(value) ? [answerOf(name, value)] : [])),
      Errors: answers.flatMap(({ name, value }) => {
        if (value === 'never' || isVersion(value)) return [];
        const { type, message } = value?.error ?? NOT_FOUND;
        return [{ SecretId: name, ErrorCode: type, Message: message }];
      }),
    });
  };
  const returnValue = (
    reply: Reply,
    { SecretId, VersionId, VersionStage = CURRENT }: Record<string, unknown>,
  ) => {
    const name = String(SecretId);
    const value =
      VersionId === undefined && VersionStage === CURRENT
        ? currentOf(name)
        : versionsOf(name).find(({ id, stages }) =>
            VersionId === undefined ? stages.has(String(VersionStage)) : id === VersionId,
          );
    if (value === 'never') return;
    if (isVersion(value)) reply(200, answerOf(String(SecretId), value));
    else fail(reply, value?.error ?? NOT_FOUND);
  };
  const server = createServer(async (request, response) => {
    const operation = String(request.headers['x-amz-target']).split('.')[1] ?? '';
    const input = JSON.parse(await text(request)) as Record<string, unknown>;
    calls.push({ operation, input });
    // Kept back until the `after` hook has run.
    let answered: { status: number; body: object } | undefined;
    const reply: Reply = (status, body) => {
      answered = { status, body };
    };
    try {
      await before?.(operation);
      answer(reply, operation, input);
      await after?.(operation);
    } catch (error) {
      if (error === HANG_UP) return request.socket.destroy();
      if (error === HALF_AN_ANSWER) {
        response.writeHead(200, { 'content-type': 'application/x-amz-json-1.1', 'content-length': 100 });
        return response.write('{');
      }
      fail(reply, error as AwsError);
    }
    if (!answered) return;
    response.writeHead(answered.status, { 'content-type': 'application/x-amz-json-1.1' });
    response.end(JSON.stringify(answered.body));
  });
  const answer = (reply: Reply, operation: string, input: Record<string, unknown>) => {
    if (operation === 'ListSecrets') list(reply, input);
    else if (operation === 'DescribeSecret') describe(reply, input);
    else if (operation === 'GetSecretValue') returnValue(reply, input);
    else if (operation === 'BatchGetSecretValue') returnBatch(reply, input);
    else if (operation === 'PutSecretValue') putVersion(reply, input);
    else if (operation === 'UpdateSecretVersionStage') moveLabel(reply, input);
    else fail(reply, { status: 400, type: 'UnknownOperationException', message: operation });
  };
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
    ...(attemptMs !== undefined && { requestHandler: requestLimits(attemptMs) }),
  });
  return {
    client,
    url,
    calls,
    failLists(how) {
      lists = how;
    },
    versions: versionsOf,
    current(name) {
      const value = currentOf(name);
      if (!isVersion(value) || typeof value.value !== 'string') throw new Error(`${name} has no text`);
      return value.value;
    },
    register: (name, value) => put(name, randomUUID(), value, [CURRENT]),
    stage: (name, value, stage) => put(name, randomUUID(), value, [stage]),
    async [Symbol.asyncDispose]() {
      client.destroy();
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

const CURRENT = 'AWSCURRENT';
const FIRST = '00000000-0000-4000-8000-000000000001';

const NOT_FOUND: AwsError = {
  status: 400,
  type: 'ResourceNotFoundException',
  message: "Secrets Manager can't find the specified secret.",
};

/** Matches the beginnings of names, in the same case (API reference, Filter). */
interface NameFilter {
  readonly Key: 'name';
  readonly Values: readonly string[];
}

/** Sets the response of a request. */
type Reply = (status: number, body: object) => void;

type Unavailable = 'never' | { readonly error: AwsError };
type Stored = Extract<Value, string | { readonly binary: string }>;

function tagsOf(tags: Readonly<Record<string, string>> = {}): object[] {
  return Object.entries(tags).map(([Key, Value]) => ({ Key, Value }));
}

function isValue(value: Value | undefined): value is Stored {
  return value !== undefined && value !== 'never' && (typeof value === 'string' || 'binary' in value);
}

function isVersion(value: Version | Unavailable | undefined): value is Version {
  return typeof value === 'object' && 'stages' in value;
}

function answerOf(Name: string, { id: VersionId, value }: Version): object {
  return typeof value === 'string'
    ? { Name, VersionId, SecretString: value }
    : { Name, VersionId, SecretBinary: Buffer.from(value.binary).toString('base64') };
}

function fail(reply: Reply, { status, type, message }: AwsError): void {
  reply(status, { __type: type, message });
}
