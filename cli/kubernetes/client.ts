// An API server, as the operator or as a credential that is to be registered: whatever kubeconfig kubectl would take,
// exec plugins too, since this is the operator's own machine.

import { EventEmitter } from 'node:events';
import { existsSync } from 'node:fs';
import type { RequestOptions } from 'node:https';
import type { Socket } from 'node:net';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { KubeConfig } from '@kubernetes/client-node';
import { z } from 'zod';
import { type DenialCause, denialCauses } from '../../contract/denials.ts';
import { abortable } from '../../lib/abort.ts';
import { readExecPlugin } from '../../lib/kubernetes/exec-plugin.ts';
import { type Endpoint, Transport } from '../../lib/kubernetes/transport.ts';
import { CliError, type ErrorCode, line, toCliError } from '../output/errors.ts';
import type { KubeOptions } from '../output/options.ts';
import { addSecret } from '../output/redact.ts';
import { parseSanitized, sanitize } from '../output/sanitize.ts';
import { ShellCommands } from '../output/shell-commands.ts';

/** Where an API server is. Certificates are PEM. */
export interface Server {
  readonly url: string;
  readonly ca?: string;
  readonly serverName?: string;
  readonly proxyUrl?: string;
  /** Its certificate is not looked at. */
  readonly isInsecure?: true;
}

/** By HTTP status; any other is `kubernetes-error`. */
const API_ERROR_CODES: Readonly<Partial<Record<number, ErrorCode>>> = {
  401: 'kubernetes-unauthorized',
  403: 'kubernetes-forbidden',
};

/** What the API server refused. */
export class ApiError extends CliError {
  readonly status: number;
  /** Its own words. */
  readonly said: string;
  /** Why the webhook denied the request, if it did. */
  readonly causes: readonly DenialCause[];

  constructor(
    what: string,
    status: number,
    said: string,
    commands: ShellCommands,
    causes: readonly DenialCause[] = [],
  ) {
    const code = API_ERROR_CODES[status] ?? 'kubernetes-error';
    super(code, `${what}: HTTP ${status}: ${said}`, hintFor(code, commands));
    this.status = status;
    this.said = said;
    this.causes = causes;
  }
}

export interface Answer<Body> {
  /** Every string in it is printable. */
  readonly body: Body;
}

export interface Request {
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: object;
  /** Only the metadata of what is asked for: of a Secret, never its data. */
  readonly metadataOnly?: 'PartialObjectMetadata' | 'PartialObjectMetadataList';
}

const REQUEST_MS = 30_000;
/** `REQUEST_MS` covers the exec plugin, the connection and the response; it ends a request before these do. */
const LIMITS = {
  connectMs: 2 * REQUEST_MS,
  idleMs: 2 * REQUEST_MS,
  /** Two times a page of objects whose annotations are as large as Kubernetes allows (256 KiB each). */
  maxBytes: 256 * 1024 * 1024,
};
const PAGE_SIZE = '500';
const Status = z.object({ kind: z.literal('Status'), message: z.string() });
const Page = z.object({
  metadata: z.object({ continue: z.string().optional() }).optional(),
  items: z.array(z.unknown()).nullish(),
});

/** Requests to one API server as one identity. They reject with a CliError. */
export class Kubernetes {
  readonly #config: KubeConfig;
  readonly #commands: ShellCommands;
  #transport: { readonly key: string; readonly transport: Transport } | undefined;
  /** Ends every request. */
  readonly signal: AbortSignal;

  /** @param kubeconfig as the operator has named it, if at all */
  private constructor(config: KubeConfig, signal: AbortSignal, kubeconfig?: string) {
    this.#config = config;
    this.signal = signal;
    const context = sanitize(config.getCurrentContext());
    this.#commands = new ShellCommands({ ...(kubeconfig !== undefined && { kubeconfig }) }, { context });
  }

  /**
   * As kubectl finds it: --kubeconfig, KUBECONFIG, ~/.kube/config; --context, or the current one.
   *
   * @throws CliError where there is none, or it has no such context
   */
  static load({ kubeconfig, context }: KubeOptions, signal: AbortSignal): Kubernetes {
    const config = new KubeConfig();
    const fallback = join(homedir(), '.kube', 'config');
    const where = kubeconfig ?? (process.env.KUBECONFIG || fallback);
    if (kubeconfig === undefined && !process.env.KUBECONFIG && !existsSync(fallback))
      throw new CliError('no-kubeconfig', 'there is no kubeconfig', 'give --kubeconfig, or set KUBECONFIG');
    try {
      if (kubeconfig === undefined) config.loadFromDefault();
      else config.loadFromFile(kubeconfig);
    } catch (error) {
      // The parser's message quotes what it found, which may be a token.
      const { code } = error as NodeJS.ErrnoException;
      const why = code === undefined ? 'it is not a kubeconfig' : code;
      throw new CliError(
        'kubeconfig-unreadable',
        `the kubeconfig ${where} cannot be read: ${why}`,
        '--kubeconfig',
        error,
      );
    }
    if (context !== undefined) config.setCurrentContext(context);
    const name = config.getCurrentContext();
    if (!name)
      throw new CliError('no-context', `the kubeconfig ${where} has no current context`, 'give --context');
    if (!config.getContextObject(name) || !config.getCurrentCluster() || !config.getCurrentUser()) {
      const names = config.getContexts().map((one) => one.name);
      throw new CliError(
        'no-context',
        `there is no context ${line(name)}, or it names no cluster and user, in ${where}`,
        `contexts: ${names.map(line).join(', ') || 'none'}`,
      );
    }
    keepSecrets(config);
    return new Kubernetes(config, signal, kubeconfig);
  }

  /** The name of the kubeconfig's context, printable. */
  get context(): string {
    return sanitize(this.#config.getCurrentContext());
  }

  /** Where the API server is, as the kubeconfig says. @throws CliError where a file that it names cannot be read */
  async server(): Promise<Server> {
    const cluster = this.#config.getCurrentCluster();
    const options: RequestOptions = {};
    await this.#config.applyToHTTPSOptions(options).catch((error: unknown) => {
      throw toCliError(
        error,
        `reading the credential of the kubeconfig’s user ${line(this.#config.getCurrentUser()?.name ?? '')}`,
      );
    });
    return {
      url: cluster?.server ?? '',
      ...(options.ca !== undefined && { ca: String(options.ca) }),
      ...(cluster?.tlsServerName !== undefined && { serverName: cluster.tlsServerName }),
      ...(cluster?.proxyUrl !== undefined && { proxyUrl: cluster.proxyUrl }),
      ...(cluster?.skipTLSVerify && { isInsecure: true }),
    };
  }

  /** The EKS cluster whose tokens the context's exec plugin gives; undefined where it gives others, or there is none. */
  eks(): { readonly cluster: string; readonly region?: string } | undefined {
    try {
      const identity = readExecPlugin(this.#config.getCurrentUser()?.exec);
      return 'eks' in identity ? identity.eks : undefined;
    } catch {
      return undefined;
    }
  }

  /** A server and an identity of which nothing is in any file. @param kubeconfig YAML or JSON */
  static of(kubeconfig: string, signal: AbortSignal): Kubernetes {
    const config = new KubeConfig();
    config.loadFromString(kubeconfig);
    keepSecrets(config);
    return new Kubernetes(config, signal);
  }

  get<Body>(path: string, request: Request = {}): Promise<Answer<Body>> {
    return this.#request('GET', path, request);
  }

  post<Body>(path: string, request: Request): Promise<Answer<Body>> {
    return this.#request('POST', path, request);
  }

  delete<Body>(path: string, request: Request): Promise<Answer<Body>> {
    return this.#request('DELETE', path, request);
  }

  /** An object; undefined where there is none. */
  async find<Body>(path: string): Promise<Body | undefined> {
    try {
      return (await this.get<Body>(path)).body;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** All items of a list, page by page. */
  async list<Item>(path: string, request: Request = {}): Promise<Item[]> {
    const items: Item[] = [];
    let next: string | undefined;
    do {
      const query = { ...request.query, limit: PAGE_SIZE, ...(next && { continue: next }) };
      const { body } = await this.get(path, { ...request, query });
      const page = Page.parse(body);
      items.push(...((page.items ?? []) as Item[]));
      next = page.metadata?.continue;
    } while (next);
    return items;
  }

  /** @throws CliError that says what became of the plugin, and nothing of what it printed */
  async #authenticate(options: RequestOptions): Promise<void> {
    const user = this.#config.getCurrentUser();
    await this.#config.applyToHTTPSOptions(options).catch((error: NodeJS.ErrnoException) => {
      if (user?.exec === undefined) throw error;
      const { command } = user.exec as { command?: string };
      const says =
        error instanceof SyntaxError ? 'it prints no ExecCredential' : line(error.message) || 'it failed';
      throw new CliError(
        'exec-plugin-failed',
        `${line(command ?? 'the exec plugin')}, which the kubeconfig names for the user ${line(user.name)}: ${says}`,
        `${this.#commands.kubectl(['auth', 'whoami'])} runs the same: sign in as it says`,
        error,
      );
    });
    addSecret(
      /^Bearer (.+)$/.exec(String((options.headers as { Authorization?: string })?.Authorization))?.[1],
    );
  }

  /** The transport of the last request, unless the credentials have changed since. */
  #transportFor({ ca, cert, key, rejectUnauthorized, agent }: RequestOptions): Transport {
    const { server = '', tlsServerName, proxyUrl } = this.#config.getCurrentCluster() ?? {};
    const pem = (value: typeof ca) => (value === undefined ? undefined : String(value));
    const isSocks = proxyUrl?.startsWith('socks') ?? false;
    const endpoint: Endpoint = {
      server,
      serverName: tlsServerName || undefined,
      ca: pem(ca),
      cert: pem(cert),
      key: pem(key as typeof ca),
      isInsecure: rejectUnauthorized === false,
      ...(isSocks ? { openTunnel: socksTunnel(agent) } : { proxyUrl: proxyUrl || undefined }),
    };
    const identifier = JSON.stringify([endpoint.cert, endpoint.key]);
    if (this.#transport?.key !== identifier) {
      void this.#transport?.transport.close();
      this.#transport = { key: identifier, transport: new Transport(endpoint, LIMITS) };
    }
    return this.#transport.transport;
  }

  async #request<Body>(
    method: 'GET' | 'POST' | 'DELETE',
    path: string,
    { query = {}, body, metadataOnly }: Request,
  ): Promise<Answer<Body>> {
    const what = `${method} ${path}`;
    const signal = AbortSignal.any([this.signal, AbortSignal.timeout(REQUEST_MS)]);
    try {
      const options: RequestOptions = {};
      // client-node gives an exec plugin no signal.
      await abortable(this.#authenticate(options), signal);
      const { status, text } = await this.#transportFor(options).send({
        method,
        path,
        query,
        headers: {
          ...authorization(options, this.#config.getCurrentCluster()?.server ?? ''),
          accept: `application/json${metadataOnly === undefined ? '' : `;as=${metadataOnly};g=meta.k8s.io;v=v1`}`,
          'user-agent': 'ecr-anywhere',
          ...(body && { 'content-type': 'application/json' }),
        },
        body: body && JSON.stringify(body),
        signal,
      });
      if (status >= 300) throw new ApiError(what, status, wordsOf(text), this.#commands, causesOf(text));
      return { body: parsed(what, text, this.#commands) as Body };
    } catch (error) {
      this.signal.throwIfAborted();
      if (signal.aborted)
        throw new CliError(
          'network',
          `${what}: no answer within ${REQUEST_MS / 1000} s`,
          'is the context’s API server reachable from here?',
          error,
        );
      throw toCliError(error, what);
    }
  }
}

/** The headers that client-node sets, and basic authentication, which it leaves to the HTTP client. */
function authorization({ headers, auth }: RequestOptions, server: string): Record<string, string> {
  const set = Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name, String(value)]));
  const { username, password } = new URL(server);
  const user = auth ?? (username && `${decodeURIComponent(username)}:${decodeURIComponent(password)}`);
  if (!user || 'Authorization' in set) return set;
  return { ...set, Authorization: `Basic ${Buffer.from(user).toString('base64')}` };
}

/**
 * Opens connections with client-node's SOCKS agent, which supports every version of SOCKS. undici has SOCKS5 only, and
 * prints a warning that it is experimental.
 */
function socksTunnel(agent: RequestOptions['agent']): NonNullable<Endpoint['openTunnel']> {
  const { connect } = agent as unknown as {
    connect(request: EventEmitter, target: object): Promise<Socket>;
  };
  return (host, port) =>
    connect.call(agent, Object.assign(new EventEmitter(), { destroy() {} }), {
      host,
      port,
      secureEndpoint: false,
    });
}

/** Has what a kubeconfig holds never be shown, whoever repeats it. */
function keepSecrets(config: KubeConfig): void {
  const user = config.getCurrentUser();
  addSecret(user?.token);
  addSecret(user?.password);
  addSecret(user?.keyData);
  const { server = '', proxyUrl = '' } = config.getCurrentCluster() ?? {};
  for (const url of [server, proxyUrl])
    if (URL.canParse(url)) addSecret(decodeURIComponent(new URL(url).password));
}

function hintFor(code: ErrorCode, commands: ShellCommands): string {
  if (code === 'kubernetes-unauthorized')
    return `sign in to the cluster again: ${commands.kubectl(['auth', 'whoami'])} tells whether it takes you`;
  if (code === 'kubernetes-forbidden')
    return 'you need to be allowed that, too, in the cluster: docs/command-line.md; or name another --context';
  return `is it the API server of a cluster? ${commands.kubectl(['version'])} asks the same one`;
}

/**
 * Whoever may make objects in the cluster has named and annotated what is in an answer: here it is cleaned, once.
 *
 * @throws CliError where it is not JSON: something else answers, and its words may be anything
 */
function parsed(what: string, answered: string, commands: ShellCommands): unknown {
  try {
    return parseSanitized(answered);
  } catch {
    throw new CliError(
      'unexpected-response',
      `${what}: what answers is no API server`,
      hintFor('kubernetes-error', commands),
    );
  }
}

function causesOf(answered: string): DenialCause[] {
  try {
    return denialCauses(parseSanitized(answered));
  } catch {
    return [];
  }
}

function wordsOf(answered: string): string {
  try {
    const status = Status.safeParse(JSON.parse(answered));
    if (status.success) return line(status.data.message);
  } catch {
    // A proxy's page, perhaps with the request in it.
  }
  return 'no reason given';
}
