// Calls the refresher's Lambda function (docs/function-api.md). Only that function reads registered kubeconfigs.

import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { z } from 'zod';
import {
  type ClusterStatus,
  ERROR_TYPE,
  needsOperatorAlias,
  OPERATOR_ALIAS,
  type RefreshAnswer,
  type RevokeResult,
  SOURCES,
  type StatusAnswer,
} from '../../contract/refresher-api.ts';
import { compareVersions, VERSION } from '../../lib/version.ts';
import { CliError, line } from '../output/errors.ts';
import { formatList } from '../output/format-list.ts';
import { parseSanitized } from '../output/sanitize.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import { type Aws, clientConfig, type Stack } from './aws.ts';

/** Slightly more than the longest time limit of a Lambda function. */
const INVOKE_MS = 920_000;
/** The `errorType` with which Lambda reports that the function exceeded its time limit. Some runtimes report none. */
const TIMED_OUT = 'Sandbox.Timedout';
/** How many of the registered names an error lists. */
const MAX_NAMES = 20;

/** The options of a refresh. */
export interface RefreshRequest {
  readonly clusters?: readonly string[];
  readonly namespaces?: readonly string[];
  readonly dryRun?: boolean;
  readonly force?: boolean;
}

const Failure = z.object({ errorMessage: z.string().optional(), errorType: z.string().optional() });
const NotRegistered = z.object({
  notRegistered: z.object({
    names: z.array(z.string()),
    registered: z.array(z.string()),
    failures: z.array(z.string()).optional(),
  }),
});
const InvalidEvent = z.object({ invalidEvent: z.object({ message: z.string() }) });
/** Functions of earlier versions state no version. */
const Versioned = z.object({ version: z.string() });
type NotRegisteredNames = z.infer<typeof NotRegistered>['notRegistered'];
/** The required part of an answer. Answers of other versions may have more. */
const Clusters = z.looseObject({
  clusters: z.array(z.looseObject({ cluster: z.string(), served: z.boolean() })),
});
const Statuses = z.object({
  version: z.string().optional().catch(undefined),
  clusters: z.array(z.looseObject({ name: z.string(), source: z.enum(SOURCES), isPaused: z.boolean() })),
  subscribers: z
    .object({ topicArn: z.string(), confirmed: z.number(), pending: z.number() })
    .optional()
    .catch(undefined),
});
const Revoked = z.object({ revoked: z.array(z.looseObject({ cluster: z.string(), outcome: z.string() })) });

/** The event names clusters that the refresher does not know. */
export class NotRegisteredError extends CliError {
  readonly names: readonly string[];

  constructor(names: readonly string[], message: string, hint: string) {
    super('not-registered', message, hint);
    this.names = names;
  }
}

/** The refresher's function. Every method rejects with a CliError. */
export class Refresher {
  readonly #aws: Aws;
  readonly #stack: Stack;
  readonly #commands: ShellCommands;

  constructor(aws: Aws, stack: Stack) {
    this.#aws = aws;
    this.#stack = stack;
    this.#commands = new ShellCommands(aws.options, {});
  }

  /** Refreshes the Secrets that are due; as a dry run, reports what it would do. */
  async refresh(request: RefreshRequest): Promise<RefreshAnswer> {
    return (await this.#call('refreshing', request, Clusters)) as unknown as RefreshAnswer;
  }

  /** A dry run that also reports the refresher's identity and permissions in each cluster. */
  async inspect(clusters: readonly string[]): Promise<RefreshAnswer> {
    return this.#inspect(clusters.length > 0 ? { clusters } : {});
  }

  /** The same for one cluster, with a version of its registered secret that is not the current one. */
  async inspectVersion(cluster: string, version: string): Promise<RefreshAnswer> {
    return this.#inspect({ clusters: [cluster], version });
  }

  async #inspect(fields: object): Promise<RefreshAnswer> {
    const event = { action: 'inspect' as const, ...fields };
    return (await this.#call('inspecting', event, Clusters)) as unknown as RefreshAnswer;
  }

  /** The saved state of each cluster; no cluster is contacted. */
  async status(): Promise<readonly ClusterStatus[]> {
    return (await this.overview()).clusters;
  }

  /** The saved state of each cluster, and the subscribers of the alarms. */
  async overview(): Promise<StatusAnswer> {
    const answer = await this.#call('reading the saved state', { action: 'status' }, Statuses);
    return answer as unknown as StatusAnswer;
  }

  /** Revokes the tokens that are registered for a cluster. */
  async revoke(cluster: string): Promise<RevokeResult> {
    const event = { action: 'revoke' as const, clusters: [cluster] };
    const { revoked } = await this.#call('revoking', event, Revoked);
    if (!revoked[0]) throw this.#versionMismatch(`The answer of the refresher does not mention ${cluster}.`);
    return revoked[0] as unknown as RevokeResult;
  }

  async #call<Schema extends z.ZodType>(
    action: string,
    event: Parameters<typeof needsOperatorAlias>[0],
    schema: Schema,
  ): Promise<z.infer<Schema>> {
    // No retries: each request is a run.
    const client = new LambdaClient({ ...clientConfig(this.#aws.options, INVOKE_MS), maxAttempts: 1 });
    const isForAlias = needsOperatorAlias(event);
    const functionName = `${this.#stack.functionName}${isForAlias ? `:${OPERATOR_ALIAS}` : ''}`;
    const command = new InvokeCommand({ FunctionName: functionName, Payload: JSON.stringify(event) });
    const { Payload, FunctionError } = await this.#aws.ask(
      `${action} (function ${functionName})`,
      (abortSignal) =>
        client.send(command, { abortSignal }).catch((error: Error) => {
          if (isForAlias && error.name === 'ResourceNotFoundException')
            throw this.#versionMismatch(
              `The function has no alias ${OPERATOR_ALIAS}: ${line(error.message)}`,
            );
          throw error;
        }),
    );
    // For an empty body the SDK returns something else than an array of bytes.
    const answer: unknown = Payload?.length ? parsed(new TextDecoder().decode(Payload)) : undefined;
    if (FunctionError !== undefined) throw this.#failureOf(Failure.safeParse(answer).data ?? {});
    const unknown = NotRegistered.safeParse(answer);
    if (unknown.success) throw this.notRegistered(unknown.data.notRegistered);
    const invalid = InvalidEvent.safeParse(answer);
    if (invalid.success) throw this.#eventNotUnderstood(invalid.data.invalidEvent.message, answer);
    const expected = schema.safeParse(answer);
    if (expected.success) return expected.data;
    throw this.#versionMismatch(
      `This version of the command line does not understand the answer of the function ${functionName}.`,
      answer,
    );
  }

  /** The error for clusters that are not registered. */
  notRegistered({ names, registered, failures = [] }: NotRegisteredNames): NotRegisteredError {
    const known = formatList(registered, MAX_NAMES) || 'none';
    const incomplete = failures.length > 0 ? ` (${failures.join('; ')})` : '';
    return new NotRegisteredError(
      names,
      `No cluster ${names.join(', ')} is registered. Registered clusters: ${known}${incomplete}.`,
      this.#commands.cli(['register', names[0] ?? 'NAME']),
    );
  }

  #failureOf(failure: z.infer<typeof Failure>): CliError {
    const { functionName } = this.#stack;
    const { errorType } = failure;
    const errorMessage = line(failure.errorMessage ?? errorType ?? '');
    if (errorType === ERROR_TYPE.invalidEvent) return this.#eventNotUnderstood(errorMessage);
    if (errorType === TIMED_OUT || (errorType === undefined && /Task timed out/.test(errorMessage)))
      return new CliError(
        'function-timeout',
        `The function ${functionName} exceeded its time limit: ${errorMessage}`,
        `To run over one cluster only: ${this.#commands.cli(['refresh', 'NAME'])}. If that also exceeds the limit, lower the setting clusterDeadlineSeconds (docs/sizing.md, docs/settings.md).`,
      );
    return new CliError(
      'function-failed',
      `The function ${functionName} failed: ${errorMessage || 'it gave no reason.'}`,
      'Read its log: the output ReadLog of the stack is the command.',
    );
  }

  #eventNotUnderstood(message: string, answer?: unknown): CliError {
    return this.#versionMismatch(
      `The function ${this.#stack.functionName} does not understand this version of the command line: ${line(message)}`,
      answer,
    );
  }

  /** @param answer may state the function's version */
  #versionMismatch(message: string, answer?: unknown): CliError {
    const version = Versioned.safeParse(answer).data?.version;
    if (version !== undefined && compareVersions(version, VERSION) > 0)
      return new CliError(
        'function-too-new',
        `${message} The function has version ${version}, this command line ${VERSION}.`,
        `Use the command line of version ${version}.`,
      );
    return new CliError(
      'function-too-old',
      message,
      `Deploy the version of this command line: ${this.#commands.deploy()}`,
    );
  }
}

/** Answers contain text from clusters, which is sanitized here. */
function parsed(text: string): unknown {
  try {
    return parseSanitized(text);
  } catch {
    return undefined;
  }
}
