// A client for an API server: as the operator, with any kubeconfig that kubectl accepts, or with a credential that is to
// be registered. Exec plugins may run, since this is the operator's own machine.

import { EventEmitter } from 'node:events';
import { readFileSync } from 'node:fs';
import type { OutgoingHttpHeaders } from 'node:http';
import type { RequestOptions } from 'node:https';
import type { Socket } from 'node:net';
import { getCACertificates } from 'node:tls';
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
import { environmentProxy } from './environment-proxy.ts';
import { ExecPlugin } from './exec-plugin.ts';
import { isHttps, isProxyUrl, type KubeContext, loadContext, readContext, type User } from './kubeconfig.ts';

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
  /** Sends the request as this user. The operator needs the permission to impersonate it. */
  readonly impersonate?: string;
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
  readonly #context: KubeContext;
  readonly #proxyUrl: string | undefined;
  readonly #config: KubeConfig;
  readonly #plugin: ExecPlugin | undefined;
  readonly #commands: ShellCommands;
  #transport: { readonly key: string; readonly transport: Transport } | undefined;
  /** Aborts every request. */
  readonly signal: AbortSignal;

  private constructor(
    context: KubeContext,
    signal: AbortSignal,
    commands: ShellCommands,
    plugin = pluginOf(context),
  ) {
    this.#context = context;
    this.signal = signal;
    this.#commands = commands;
    this.#plugin = plugin;
    this.#proxyUrl = context.cluster['proxy-url'] || environmentProxy(context.cluster.server);
    redactCredentials(context, this.#proxyUrl);
    this.#config = clientConfigOf(context, this.#proxyUrl);
  }

  /**
   * Reads the kubeconfig that kubectl would use: --kubeconfig, KUBECONFIG or ~/.kube/config, and in it --context or the
   * current context.
   *
   * @throws CliError if there is no kubeconfig, or it is invalid, or has no such context
   */
  static load(options: KubeOptions, signal: AbortSignal): Kubernetes {
    const context = loadContext(options);
    return new Kubernetes(context, signal, commandsFor(context, options));
  }

  /**
   * A client for a kubeconfig that is in no file.
   *
   * @param kubeconfig YAML or JSON
   * @param commands for hints, which cannot name this kubeconfig
   */
  static of(kubeconfig: string, signal: AbortSignal, commands: ShellCommands): Kubernetes {
    return new Kubernetes(readContext(kubeconfig), signal, commands);
  }

  /**
   * The same API server and identity with another signal. The kubeconfig is not read again: it may have another current
   * context by now, or be a pipe.
   */
  withSignal(signal: AbortSignal): Kubernetes {
    return new Kubernetes(this.#context, signal, this.#commands, this.#plugin);
  }

  /** The name of the kubeconfig's context, printable. */
  get context(): string {
    return sanitize(this.#context.name);
  }

  /** The API server of the context. @throws CliError if a file that the kubeconfig names cannot be read */
  async server(): Promise<Server> {
    const { cluster, user } = this.#context;
    const options: RequestOptions = {};
    await this.#config.applyToHTTPSOptions(options).catch((error: unknown) => {
      throw toCliError(error, `reading the credential of the kubeconfig's user ${line(user.name)}`);
    });
    const { 'tls-server-name': serverName, 'proxy-url': proxyUrl } = cluster;
    return {
      url: cluster.server,
      ...(options.ca !== undefined && { ca: String(options.ca) }),
      ...(serverName && { serverName }),
      ...(proxyUrl && { proxyUrl }),
      ...(cluster['insecure-skip-tls-verify'] && { isInsecure: true }),
    };
  }

  /** The EKS cluster that the context's exec plugin prints tokens for. Undefined if it has no exec plugin for EKS. */
  eks(): { readonly cluster: string; readonly region?: string } | undefined {
    try {
      const identity = readExecPlugin(this.#context.user.exec);
      return 'eks' in identity ? identity.eks : undefined;
    } catch {
      return undefined;
    }
  }

  get<Body>(path: string, request: Request = {}): Promise<Answer<Body>> {
    return this.#request('GET', path, request);
  }

  post<Body>(path: string, request: Request): Promise<Answer<Body>> {
    return this.#request('POST', path, request);
  }

  /** @param request with a merge patch (RFC 7396) as its body */
  patch<Body>(path: string, request: Request): Promise<Answer<Body>> {
    return this.#request('PATCH', path, request);
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
  async #authenticate(signal: AbortSignal): Promise<RequestOptions> {
    const options: RequestOptions = {};
    await this.#config.applyToHTTPSOptions(options);
    const plugin = this.#plugin;
    if (!plugin) return options;
    const { exec, name } = this.#context.user;
    const { token, cert, key } = await plugin.credential(signal).catch((error: NodeJS.ErrnoException) => {
      const reason = line(error.message).replace(/\.$/, '') || 'it gave no reason';
      const installation = error.code === 'ENOENT' && exec?.installHint;
      throw new CliError(
        'exec-plugin-failed',
        `The exec plugin ${line(exec?.command ?? '')} of the kubeconfig's user ${line(name)} failed: ${reason}.`,
        installation
          ? line(installation)
          : `Follow the instructions that this command prints: ${this.#commands.kubectl(['auth', 'whoami'])}`,
        error,
      );
    });
    addSecret(token);
    return {
      ...options,
      ...(cert && key && { cert, key }),
      headers: {
        ...options.headers,
        ...(token && { Authorization: `Bearer ${token}` }),
      } as OutgoingHttpHeaders,
    };
  }

  /** The transport of the last request, or a new one if the client certificate has changed since. */
  #transportFor({ ca, cert, key, rejectUnauthorized, agent }: RequestOptions): Transport {
    const { server, 'tls-server-name': serverName } = this.#context.cluster;
    const proxyUrl = this.#proxyUrl;
    const pem = (value: typeof ca) => (value === undefined ? undefined : String(value));
    const isSocks = proxyUrl?.startsWith('socks') ?? false;
    const endpoint: Endpoint = {
      server,
      serverName: serverName || undefined,
      ca: pem(ca) ?? systemAuthorities(),
      cert: pem(cert),
      key: pem(key as typeof ca),
      isInsecure: rejectUnauthorized === false,
      ...(isSocks ? { openTunnel: socksTunnel(agent) } : { proxyUrl }),
    };
    const identifier = JSON.stringify([endpoint.cert, endpoint.key]);
    if (this.#transport?.key !== identifier) {
      void this.#transport?.transport.close();
      this.#transport = { key: identifier, transport: new Transport(endpoint, LIMITS) };
    }
    return this.#transport.transport;
  }

  async #request<Body>(
    method: 'GET' | 'POST' | 'PATCH' | 'DELETE',
    path: string,
    { query = {}, body, metadataOnly, impersonate }: Request,
  ): Promise<Answer<Body>> {
    const what = `${method} ${path}`;
    let signal = AbortSignal.any([this.signal, AbortSignal.timeout(REQUEST_MS)]);
    try {
      // An operator who signs in takes longer.
      const isSigningIn = this.#plugin?.isInteractive === true;
      const ofPlugin = isSigningIn ? this.signal : signal;
      const options = await abortable(this.#authenticate(ofPlugin), ofPlugin);
      if (isSigningIn) signal = AbortSignal.any([this.signal, AbortSignal.timeout(REQUEST_MS)]);
      const { status, text } = await this.#transportFor(options).send({
        method,
        path,
        query,
        headers: {
          ...authorization(options, this.#context.cluster.server),
          ...(impersonate === undefined
            ? impersonation(this.#context.user)
            : { 'impersonate-user': impersonate }),
          accept: `application/json${metadataOnly === undefined ? '' : `;as=${metadataOnly};g=meta.k8s.io;v=v1`}`,
          'user-agent': 'ecr-anywhere',
          ...(body && {
            'content-type': method === 'PATCH' ? 'application/merge-patch+json' : 'application/json',
          }),
        },
        body: body && JSON.stringify(body),
        signal,
      });
      if (status === 401) this.#plugin?.forget();
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

function commandsFor({ name }: KubeContext, { kubeconfig }: KubeOptions): ShellCommands {
  return new ShellCommands(kubeconfig ? { kubeconfig } : {}, { context: sanitize(name) });
}

/** client-node reads the files of certificates, sets the headers of a user, and connects through SOCKS. */
function clientConfigOf({ name, cluster, user }: KubeContext, proxyUrl: string | undefined): KubeConfig {
  if (proxyUrl !== undefined && !isProxyUrl(proxyUrl))
    throw new CliError(
      'network',
      'The environment names no valid URL of a proxy.',
      'Correct HTTPS_PROXY and HTTP_PROXY, or exclude the API server with NO_PROXY.',
    );
  const hasCertificate = user['client-certificate'] || user['client-certificate-data'];
  const config = new KubeConfig();
  config.loadFromOptions({
    currentContext: name,
    contexts: [{ name, cluster: cluster.name, user: user.name }],
    clusters: [
      {
        name: cluster.name,
        server: cluster.server,
        caFile: cluster['certificate-authority'],
        caData: cluster['certificate-authority-data'],
        // client-node refuses plain HTTP otherwise.
        skipTLSVerify: cluster['insecure-skip-tls-verify'] || !isHttps(cluster),
        // As in Go, the proxy resolves host names, which may exist behind it only.
        ...(proxyUrl !== undefined && { proxyUrl: proxyUrl.replace(/^socks5:/i, 'socks5h:') }),
      },
    ],
    users: [
      {
        name: user.name,
        token: user.token,
        username: user.username,
        password: user.password,
        ...(hasCertificate && {
          certFile: user['client-certificate'],
          certData: user['client-certificate-data'],
          keyFile: user['client-key'],
          keyData: user['client-key-data'],
        }),
      },
    ],
  });
  return config;
}

/** The exec plugin, unless the user has another credential: kubectl then does not run it. */
function pluginOf({ cluster, user }: KubeContext): ExecPlugin | undefined {
  const hasOther =
    user.token || user.username || user['client-certificate'] || user['client-certificate-data'];
  if (!user.exec || hasOther) return undefined;
  const file = cluster['certificate-authority'];
  return new ExecPlugin(user.exec, {
    server: cluster.server,
    'tls-server-name': cluster['tls-server-name'] || undefined,
    'insecure-skip-tls-verify': cluster['insecure-skip-tls-verify'] || undefined,
    'certificate-authority-data':
      (file ? readFileSync(file, 'base64') : cluster['certificate-authority-data']) || undefined,
    'proxy-url': cluster['proxy-url'] || undefined,
    'disable-compression': cluster['disable-compression'] || undefined,
    config: cluster.extensions.find(({ name }) => name === 'client.authentication.k8s.io/exec')?.extension,
  });
}

/**
 * Credentials of a request. Those in the URL of the server take precedence, as in Go; client-node leaves basic
 * authentication to the HTTP client.
 */
function authorization({ headers, auth }: RequestOptions, server: string): Record<string, string> {
  const set = Object.fromEntries(Object.entries(headers ?? {}).map(([name, value]) => [name, String(value)]));
  const { username, password } = new URL(server);
  const ofUrl = username && `${decodeURIComponent(username)}:${decodeURIComponent(password)}`;
  const user = ofUrl || ('Authorization' in set ? undefined : auth);
  return user ? { ...set, Authorization: `Basic ${Buffer.from(user).toString('base64')}` } : set;
}

/** The headers of "User impersonation" (Kubernetes, "Authenticating"). client-node sets that of the name only. */
function impersonation(user: User): Record<string, string | string[]> {
  const { as, 'as-uid': uid, 'as-groups': groups, 'as-user-extra': extra } = user;
  if (!as) return {};
  // Characters that the name of a header cannot have are percent-encoded.
  const escaped = (key: string) =>
    key.replaceAll(/[^\w!#$&'*+.^`|~-]/gu, (character) =>
      [...Buffer.from(character)]
        .map((byte) => `%${byte.toString(16).padStart(2, '0').toUpperCase()}`)
        .join(''),
    );
  return {
    'Impersonate-User': as,
    ...(uid && { 'Impersonate-Uid': uid }),
    ...(groups.length > 0 && { 'Impersonate-Group': groups }),
    ...Object.fromEntries(
      Object.entries(extra ?? {}).map(([key, values]) => [`Impersonate-Extra-${escaped(key)}`, values]),
    ),
  };
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

/** For a kubeconfig without a CA, kubectl trusts the authorities of the operating system; Node.js alone has its own list. */
function systemAuthorities(): string {
  return [...getCACertificates('default'), ...getCACertificates('system')].join('\n');
}

/** Registers the credentials of a kubeconfig, so that no message shows them. */
function redactCredentials({ cluster, user }: KubeContext, proxyUrl = ''): void {
  for (const secret of [user.token, user.password, user['client-key-data']]) addSecret(secret);
  for (const url of [cluster.server, proxyUrl])
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
