// The one door to registered clusters: the refresher's function and its documented event (docs/function-api.md, "Asking
// the refresher"). Kubeconfigs are read behind it and nowhere else.

import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { z } from 'zod';
import type { ClusterStatus, RefreshAnswer, RevokeResult } from '../../contract/refresher-api.ts';
import { CliError, line } from '../output/errors.ts';
import { parseSanitized } from '../output/sanitize.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import { type Aws, clientConfig, type Stack } from './aws.ts';

/** A little more than AWS lets a function run. */
const INVOKE_MS = 920_000;
/** The `errorType` with which the function rejects an event that it does not know. */
const INVALID_EVENT = 'InvalidEventError';
/** The `errorType` with which Lambda reports that the function exceeded its time limit. Some runtimes report none. */
const TIMED_OUT = 'Sandbox.Timedout';
/** Of names that there are, so many are told. */
const NAMES_TOLD = 20;

/** What may be asked of clusters. */
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
type NamedInVain = z.infer<typeof NotRegistered>['notRegistered'];
/** As much of an answer as is relied on; another version's may have more. */
const Clusters = z.looseObject({
  clusters: z.array(z.looseObject({ cluster: z.string(), served: z.boolean() })),
});
const Statuses = z.object({ clusters: z.array(z.looseObject({ name: z.string(), isPaused: z.boolean() })) });
const Revoked = z.object({ revoked: z.array(z.looseObject({ cluster: z.string(), outcome: z.string() })) });

/** The refresher's function. Whatever it is asked rejects with a CliError. */
export class Refresher {
  readonly #aws: Aws;
  readonly #stack: Stack;
  readonly #commands: ShellCommands;

  constructor(aws: Aws, stack: Stack) {
    this.#aws = aws;
    this.#stack = stack;
    this.#commands = new ShellCommands(aws.options, {});
  }

  /** Refreshes what is due, or says what would be. */
  async refresh(request: RefreshRequest): Promise<RefreshAnswer> {
    return (await this.#ask('refreshing', request, Clusters)) as unknown as RefreshAnswer;
  }

  /** A dry run that also looks at who the refresher is there, and what it may do. */
  async inspect(clusters: readonly string[]): Promise<RefreshAnswer> {
    const event = { action: 'inspect', ...(clusters.length > 0 && { clusters }) };
    return (await this.#ask('inspecting', event, Clusters)) as unknown as RefreshAnswer;
  }

  /** What is known of each cluster; none is asked. */
  async status(): Promise<readonly ClusterStatus[]> {
    const { clusters } = await this.#ask('asking what is known', { action: 'status' }, Statuses);
    return clusters as unknown as readonly ClusterStatus[];
  }

  /** Ends the tokens that are registered for a cluster. */
  async revoke(cluster: string): Promise<RevokeResult> {
    const event = { action: 'revoke', clusters: [cluster] };
    const { revoked } = await this.#ask('revoking', event, Revoked);
    if (!revoked[0]) throw this.#otherVersion(`the refresher says nothing of ${cluster}`);
    return revoked[0] as unknown as RevokeResult;
  }

  async #ask<Schema extends z.ZodType>(
    what: string,
    event: object,
    schema: Schema,
  ): Promise<z.infer<Schema>> {
    // Once: a request that is repeated would be another run.
    const client = new LambdaClient({ ...clientConfig(this.#aws.options, INVOKE_MS), maxAttempts: 1 });
    const { functionName } = this.#stack;
    const command = new InvokeCommand({ FunctionName: functionName, Payload: JSON.stringify(event) });
    const { Payload, FunctionError } = await this.#aws.ask(
      `${what} (function ${functionName})`,
      (abortSignal) => client.send(command, { abortSignal }),
    );
    // The SDK's word for an empty body is no array of bytes.
    const answer: unknown = Payload?.length ? parsed(new TextDecoder().decode(Payload)) : undefined;
    if (FunctionError !== undefined) throw this.#failureOf(Failure.safeParse(answer).data ?? {});
    const unknown = NotRegistered.safeParse(answer);
    if (unknown.success) throw this.notRegistered(unknown.data.notRegistered);
    const known = schema.safeParse(answer);
    if (known.success) return known.data;
    throw this.#otherVersion(
      `the function ${functionName} answers what this command line does not understand`,
    );
  }

  /** The error for clusters that are not registered. */
  notRegistered({ names, registered, failures = [] }: NamedInVain): CliError {
    const more = registered.length - NAMES_TOLD;
    const known = [...registered.slice(0, NAMES_TOLD), ...(more > 0 ? [`and ${more} more`] : [])].join(', ');
    const looked = failures.length > 0 ? ` (${failures.join('; ')})` : '';
    return new CliError(
      'not-registered',
      `not registered: ${names.join(', ')}; registered are: ${known || 'none'}${looked}`,
      this.#commands.cli(['register', names[0] ?? 'NAME']),
    );
  }

  #failureOf(failure: z.infer<typeof Failure>): CliError {
    const { functionName } = this.#stack;
    const { errorType } = failure;
    const errorMessage = line(failure.errorMessage ?? errorType ?? '');
    if (errorType === INVALID_EVENT || errorMessage.includes('is not one that the refresher knows'))
      return this.#otherVersion(
        `the function ${functionName} does not understand what this command line asks: ${errorMessage}`,
      );
    if (errorType === TIMED_OUT || (errorType === undefined && /Task timed out/.test(errorMessage)))
      return new CliError(
        'function-timeout',
        `the function ${functionName} ran out of time: ${errorMessage}`,
        'name fewer clusters; docs/sizing.md says how long runs take',
      );
    return new CliError(
      'function-failed',
      `the function ${functionName} failed: ${errorMessage || 'it gave no reason'}`,
      'its log says more: the stack’s output TailLog',
    );
  }

  #otherVersion(message: string): CliError {
    return new CliError(
      'function-too-old',
      message,
      `deploy the version of this command line: ${this.#commands.deploy()}`,
    );
  }
}

/** Clusters name and word what is in an answer: here it is cleaned, once. */
function parsed(text: string): unknown {
  try {
    return parseSanitized(text);
  } catch {
    return undefined;
  }
}
