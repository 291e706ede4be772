// A client for an API server: as the operator, with any kubeconfig that kubectl accepts, or with a credential that is to
// be registered. Exec plugins may run, since this is the operator's own machine.

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

/** The address of an API server, and how to verify it. Certificates are PEM. */
export interface Server {
  readonly url: string;
  readonly ca?: string;
  readonly serverName?: string;
  readonly proxyUrl?: string;
  /** The client does not verify the server's certificate. */
  readonly isInsecure?: true;
}

/** Error codes by HTTP status. Any other status is `kubernetes-error`. */
const API_ERROR_CODES: Readonly<Partial<Record<number, ErrorCode>>> = {
  401: 'kubernetes-unauthorized',
  403: 'kubernetes-forbidden',
};

const Status = z.object({ kind: z.literal('Status'), message: z.string() });

/** The API server answered with an error. */
export class ApiError extends CliError {
  readonly status: number;
  /** The message in the API server's response. */
  readonly serverMessage: string;
  /** The reasons for which the webhook denied the request. Empty if it did not. */
  readonly causes: readonly DenialCause[];

  /** @param body the response; the message shows only that of a Status */
  constructor(what: string, status: number, body: unknown, commands: ShellCommands) {
    const code = API_ERROR_CODES[status] ?? 'kubernetes-error';
    const { data } = Status.safeParse(body);
    const serverMessage = data ? line(data.message) : 'no reason given';
    super(code, `${what}: HTTP ${status}: ${serverMessage}`, hintFor(code, commands));
    this.status = status;
    this.serverMessage = serverMessage;
    this.causes = denialCauses(body);
  }
}

export interface Answer<Body> {
  /** Every string in it is printable. */
  readonly body: Body;
}

export interface Request {
  readonly query?: Readonly<Record<string, string>>;
  readonly body?: object;
  /** Requests only the metadata of the objects: of a Secret, never its data. */
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
const Page = z.object({
  metadata: z.object({ continue: z.string().optional() }).optional(),
  items: z.array(z.unknown()).nullish(),
});

/** Sends requests to one API server as one identity. Every method rejects with a CliError. */
export class Kubernetes {
  readonly #config: KubeConfig;
  readonly #commands: ShellCommands;
  #transport: { readonly key: string; readonly transport: Transport } | undefined;
  /** Aborts every request. */
  readonly signal: AbortSignal;

  /** @param kubeconfig the path that the operator gave, if any */
  private constructor(config: KubeConfig, signal: AbortSignal, kubeconfig?: string) {
    this.#config = config;
    this.signal = signal;
    const context = sanitize(config.getCurrentContext());
    this.#commands = new ShellCommands({ ...(kubeconfig !== undefined && { kubeconfig }) }, { context });
  }

  /**
   * Reads the kubeconfig that kubectl would use: --kubeconfig, KUBECONFIG or ~/.kube/config, and in it --context or the
   * current context.
   *
   * @throws CliError if there is no kubeconfig, or it is invalid, or has no such context
   */
  static load({ kubeconfig, context }: KubeOptions, signal: AbortSignal): Kubernetes {
    const config = new KubeConfig();
    const fallback = join(homedir(), '.kube', 'config');
    const where = kubeconfig ?? (process.env.KUBECONFIG || fallback);
    if (kubeconfig === undefined && !process.env.KUBECONFIG && !existsSync(fallback))
      throw new CliError('no-kubeconfig', 'There is no kubeconfig.', 'Set KUBECONFIG, or use --kubeconfig.');
    const unreadable = (why: string, cause?: unknown) =>
      new CliError(
        'kubeconfig-unreadable',
        `The kubeconfig ${where} cannot be read: ${why}.`,
        'Correct the file, or select another one with --kubeconfig.',
        cause,
      );
    try {
      if (kubeconfig === undefined) config.loadFromDefault();
      else config.loadFromFile(kubeconfig);
    } catch (error) {
      // The parser's message quotes the file, and the quoted part may be a token.
      throw unreadable((error as NodeJS.ErrnoException).code ?? 'it is not a kubeconfig', error);
    }
    if (context !== undefined) config.setCurrentContext(context);
    const name = config.getCurrentContext();
    if (!name)
      throw new CliError(
        'no-context',
        `The kubeconfig ${where} has no current context.`,
        'Select a context with --context.',
      );
    const cluster = config.getCurrentCluster();
    if (!config.getContextObject(name) || !cluster || !config.getCurrentUser()) {
      const names = config.getContexts().map((one) => one.name);
      throw new CliError(
        'no-context',
        `The kubeconfig ${where} has no context ${line(name)} with a cluster and a user.`,
        names.length === 0
          ? 'It has no contexts. Select another kubeconfig with --kubeconfig.'
          : `Select one of its contexts with --context: ${names.map(line).join(', ')}.`,
      );
    }
    if (cluster.proxyUrl && !isProxyUrl(cluster.proxyUrl))
      throw unreadable(`the field proxy-url of the cluster ${line(cluster.name)} is not the URL of a proxy`);
    redactCredentials(config);
    return new Kubernetes(config, signal, kubeconfig);
  }

  /** The name of the kubeconfig's context, printable. */
  get context(): string {
    return sanitize(this.#config.getCurrentContext());
  }

  /** The API server of the context. @throws CliError if a file that the kubeconfig names cannot be read */
  async server(): Promise<Server> {
    const cluster = this.#config.getCurrentCluster();
    const options: RequestOptions = {};
    await this.#config.applyToHTTPSOptions(options).catch((error: unknown) => {
      throw toCliError(
        error,
        `reading the credential of the kubeconfig's user ${line(this.#config.getCurrentUser()?.name ?? '')}`,
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

  /** The EKS cluster that the context's exec plugin prints tokens for. Undefined if it has no exec plugin for EKS. */
  eks(): { readonly cluster: string; readonly region?: string } | undefined {
    try {
      const identity = readExecPlugin(this.#config.getCurrentUser()?.exec);
      return 'eks' in identity ? identity.eks : undefined;
    } catch {
      return undefined;
    }
  }

  /** A client for a kubeconfig that is in no file. @param kubeconfig YAML or JSON */
  static of(kubeconfig: string, signal: AbortSignal): Kubernetes {
    const config = new KubeConfig();
    config.loadFromString(kubeconfig);
    redactCredentials(config);
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

  /** Gets an object. Undefined if it does not exist. */
  async find<Body>(path: string): Promise<Body | undefined> {
    try {
      return (await this.get<Body>(path)).body;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) return undefined;
      throw error;
    }
  }

  /** Gets all items of a list, page by page. */
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

  /** @throws CliError with the reason why the exec plugin failed, and without what it printed on standard output */
  async #authenticate(options: RequestOptions): Promise<void> {
    const user = this.#config.getCurrentUser();
    await this.#config.applyToHTTPSOptions(options).catch((error: NodeJS.ErrnoException) => {
      if (user?.exec === undefined) throw error;
      const { command } = user.exec as { command?: string };
      const reason =
        error instanceof SyntaxError
          ? 'it printed no ExecCredential'
          : line(error.message).replace(/\.$/, '') || 'it gave no reason';
      throw new CliError(
        'exec-plugin-failed',
        `The exec plugin ${line(command ?? '(no command)')} of the kubeconfig's user ${line(user.name)} failed: ${reason}.`,
        `Follow the instructions that this command prints: ${this.#commands.kubectl(['auth', 'whoami'])}`,
        error,
      );
    });
    addSecret(
      /^Bearer (.+)$/.exec(String((options.headers as { Authorization?: string })?.Authorization))?.[1],
    );
  }

  /** The transport of the last request, or a new one if the client certificate has changed since. */
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
      // client-node passes no signal to an exec plugin.
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
      const answer = parsedJson(text);
      if (status >= 300) throw new ApiError(what, status, answer, this.#commands);
      if (answer === undefined)
        throw new CliError(
          'unexpected-response',
          `${what} failed: the response is not one of an API server. Is a proxy or captive portal in the way?`,
          hintFor('kubernetes-error', this.#commands),
        );
      return { body: answer as Body };
    } catch (error) {
      this.signal.throwIfAborted();
      if (signal.aborted)
        throw new CliError(
          'network',
          `${what} failed: no response within ${REQUEST_MS / 1000} s.`,
          `Check that this machine reaches the API server: ${this.#commands.kubectl(['version'])}`,
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

/** Whether client-node and undici accept a `proxy-url`. */
function isProxyUrl(url: string): boolean {
  return URL.canParse(url) && /^(https?|socks(4a?|5h?)?):$/.test(new URL(url).protocol);
}

/** Registers the credentials of a kubeconfig, so that no message shows them. */
function redactCredentials(config: KubeConfig): void {
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
    return `Sign in to the cluster again. To check your identity: ${commands.kubectl(['auth', 'whoami'])}`;
  if (code === 'kubernetes-forbidden')
    return 'docs/command-line.md lists the permissions that your identity needs in the cluster. Or select another context with --context.';
  return `Check that the context's server is an API server: ${commands.kubectl(['version'])}`;
}

/** Parses a response, and removes what is unprintable: anyone who may create objects chooses their names. */
function parsedJson(text: string): unknown {
  try {
    return parseSanitized(text);
  } catch {
    // The page of a proxy, which may quote the request and its credential.
    return undefined;
  }
}
