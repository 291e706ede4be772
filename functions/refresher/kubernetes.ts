// What is asked of a Kubernetes API server: names of namespaces, metadata of Secrets, one annotation's PATCH, and the
// next token.
// Never a Secret's data: lists and answers come as PartialObjectMetadata (Kubernetes API concepts,
// "Metadata-only fetches"), and of the annotations only ours are kept.
import { setTimeout as sleep } from 'node:timers/promises';
import pRetry from 'p-retry';
import { Agent, type Dispatcher, ProxyAgent } from 'undici';
import { z } from 'zod';
import {
  ANNOTATION,
  EXCLUDED_NAMESPACES,
  NAMESPACE_LABEL,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../contract/names.ts';
import type { UsableAccess } from './access.ts';
import { lookupElsewhere } from './local-addresses.ts';
import type { BoundToken } from './service-account-token.ts';

/** Small, because several pages are in memory at the same time, and a server that lies fills each to its limit. */
const PAGE_SIZE = 50;
/** A page of Secrets whose annotations are as large as Kubernetes allows (256 KiB each). */
const MAX_RESPONSE_BYTES = PAGE_SIZE * 256 * 1024;
/** More would be a server that never ends its list. */
const MAX_PAGES = 2_000;
const REQUEST_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 10_000;
const MAX_RETRY_AFTER_MS = 10_000;
const MAX_MESSAGE_LENGTH = 400;
/** Kubernetes makes none that live shorter (TokenRequestSpec.expirationSeconds). */
const MIN_TOKEN_SECONDS = 600;
const CONTENT_TYPE = { PATCH: 'application/merge-patch+json', POST: 'application/json', GET: '' } as const;
/** Kubernetes keeps all warnings of an answer below 4 KiB; a server that lies need not. */
const MAX_WARNINGS_LENGTH = 16_384;

/** A managed Secret as far as the refresher knows it. */
export interface ManagedSecret {
  readonly namespace: string;
  readonly name: string;
  /** Our annotations by their full keys; nobody else's. */
  readonly annotations: Readonly<Partial<Record<string, string>>>;
}

/** What a Secret is after a PATCH. */
export interface AnnotatedSecret extends ManagedSecret {
  /** What admission said about it. */
  readonly warnings: readonly string[];
}

/**
 * A request that failed. `status` is HTTP's, absent where no answer came.
 * `scope` says whether the next Secret would fare better: not where the cluster is at fault.
 */
export class KubernetesError extends Error {
  override readonly name = 'KubernetesError';
  /** The message without what was asked for: the same for every Secret that fails for the same cause. */
  readonly said: string;
  readonly status: number | undefined;
  readonly scope: 'cluster' | 'object';
  readonly retryAfterMs: number | undefined;

  constructor(
    what: string,
    said: string,
    details: {
      status?: number;
      scope: 'cluster' | 'object';
      retryAfterMs?: number | undefined;
      cause?: unknown;
    },
  ) {
    super(`${what}: ${said}`, { cause: details.cause });
    this.said = said;
    this.status = details.status;
    this.scope = details.scope;
    this.retryAfterMs = details.retryAfterMs;
  }
}

const Item = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    annotations: z.record(z.string(), z.string()).nullish(),
  }),
});

const Metadata = Item.extend({ kind: z.literal('PartialObjectMetadata') });

const List = z.object({
  kind: z.literal('PartialObjectMetadataList'),
  metadata: z.object({ continue: z.string().optional() }),
  // The API server says null for none.
  items: z
    .array(Item)
    .nullable()
    .transform((items) => items ?? []),
});

const TokenRequest = z.object({
  kind: z.literal('TokenRequest'),
  status: z.object({ token: z.string(), expirationTimestamp: z.iso.datetime({ offset: true }) }),
});

const Status = z.object({ kind: z.literal('Status'), message: z.string() });

const OURS: ReadonlySet<string> = new Set(Object.values(ANNOTATION));

/** A connection to one API server, as one identity. Close it when the cluster's turn is over. */
export class KubernetesApi implements AsyncDisposable {
  readonly #access: UsableAccess;
  readonly #agent: Agent | ProxyAgent;
  readonly #signal: AbortSignal;
  readonly #end = () => void this.#agent.destroy(this.#signal.reason as Error).catch(() => {});

  /**
   * @param connections how many requests run at the same time at most
   * @param signal ends all requests
   */
  constructor(access: UsableAccess, connections: number, signal: AbortSignal) {
    this.#access = access;
    this.#signal = signal;
    const { ca, serverName, identity, proxyUrl } = access;
    const limits = {
      connections,
      headersTimeout: REQUEST_TIMEOUT_MS,
      bodyTimeout: REQUEST_TIMEOUT_MS,
      maxResponseSize: MAX_RESPONSE_BYTES,
    };
    // To a server, or a proxy, elsewhere.
    const away = { timeout: CONNECT_TIMEOUT_MS, ...(!access.allowLocal && { lookup: lookupElsewhere }) };
    const tls = {
      ...(ca !== undefined && { ca }),
      ...(serverName !== undefined && { servername: serverName }),
      ...('cert' in identity && identity),
    };
    this.#agent =
      proxyUrl === undefined
        ? new Agent({ ...limits, connect: { ...away, ...tls } })
        : new ProxyAgent({ ...limits, uri: proxyUrl, proxyTls: away, requestTls: tls });
    // A request's own signal does not end it while the connection is still being made.
    signal.addEventListener('abort', this.#end, { once: true });
  }

  /** The namespaces that are enabled. @throws KubernetesError */
  async enabledNamespaces(): Promise<string[]> {
    const query = { labelSelector: `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}` };
    const namespaces = await this.#list('/api/v1/namespaces', query);
    return namespaces
      .map(({ metadata }) => metadata.name)
      .filter((name) => !EXCLUDED_NAMESPACES.includes(name));
  }

  /** The managed Secrets of a namespace. @throws KubernetesError */
  async managedSecrets(namespace: string): Promise<ManagedSecret[]> {
    const secrets = await this.#list(`/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`, {
      labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
      fieldSelector: `type=${SECRET_TYPE}`,
    });
    return secrets.map((secret) => managedSecret(namespace, secret));
  }

  /**
   * Sets annotations of a Secret with a merge patch (RFC 7396) and returns what it then is.
   *
   * @param dryRun the whole chain answers, admission webhooks too, and nothing is stored
   * @throws KubernetesError
   */
  async annotate(
    { namespace, name }: ManagedSecret,
    annotations: Readonly<Record<string, string>>,
    dryRun: boolean,
  ): Promise<AnnotatedSecret> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`;
    const query = { fieldManager: 'ecr-anywhere-refresher', ...(dryRun && { dryRun: 'All' }) };
    const body = JSON.stringify({ metadata: { annotations } });
    let warnings: string[] = [];
    const hear = (header: string | string[] | undefined) => {
      warnings = warningsOf(header).map((warning) => this.#withoutToken(warning));
    };
    const answer = await this.#request('PATCH', path, query, 'PartialObjectMetadata', Metadata, body, hear);
    return { ...managedSecret(namespace, answer), warnings };
  }

  /** Whether the identity may still do the first thing that a turn does. @throws KubernetesError */
  async check(): Promise<void> {
    const query = { labelSelector: `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`, limit: '1' };
    await this.#request('GET', '/api/v1/namespaces', query, 'PartialObjectMetadataList', List);
  }

  /**
   * Another token like this one, which lives as long from now on; or less, as the server likes.
   *
   * @returns the token, and when it expires by the server's word (milliseconds since the epoch)
   * @throws KubernetesError
   */
  async nextToken(present: BoundToken): Promise<{ token: string; expiresAt: number }> {
    const { namespace, serviceAccount, secret, audiences, issuedAt, expiresAt } = present;
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/serviceaccounts/${encodeURIComponent(serviceAccount)}/token`;
    const spec = {
      audiences,
      expirationSeconds: Math.max(Math.round((expiresAt - issuedAt) / 1000), MIN_TOKEN_SECONDS),
      boundObjectRef: { kind: 'Secret', apiVersion: 'v1', ...secret },
    };
    const body = JSON.stringify({ kind: 'TokenRequest', apiVersion: 'authentication.k8s.io/v1', spec });
    const { status } = await this.#request('POST', path, {}, 'TokenRequest', TokenRequest, body);
    return { token: status.token, expiresAt: Date.parse(status.expirationTimestamp) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // A signal with listeners is kept until its time is up, and would keep this.
    this.#signal.removeEventListener('abort', this.#end);
    await this.#agent.destroy().catch(() => {});
  }

  async #list(path: string, query: Readonly<Record<string, string>>): Promise<z.infer<typeof Item>[]> {
    const items: z.infer<typeof Item>[] = [];
    let next: string | undefined;
    for (let page = 0; page < MAX_PAGES; page++) {
      const pageQuery = { ...query, limit: String(PAGE_SIZE), ...(next && { continue: next }) };
      const list = await this.#request('GET', path, pageQuery, 'PartialObjectMetadataList', List);
      for (const { metadata } of list.items) {
        // Dropped here, at once: kubectl's last-applied annotation can hold a whole docker config.
        const ours = Object.entries(metadata.annotations ?? {}).filter(([key]) => OURS.has(key));
        items.push({ metadata: { ...metadata, annotations: Object.fromEntries(ours) } });
      }
      next = list.metadata.continue;
      if (!next) return items;
    }
    throw new KubernetesError(`GET ${path}`, 'the list does not end', { scope: 'cluster' });
  }

  #request<Schema extends z.ZodType>(
    method: 'GET' | 'PATCH' | 'POST',
    path: string,
    query: Readonly<Record<string, string>>,
    as: string,
    schema: Schema,
    body?: string,
    hearWarnings?: (header: string | string[] | undefined) => void,
  ): Promise<z.infer<Schema>> {
    const what = `${method} ${path}`;
    const attempt = async () => {
      const response = await this.#send(
        what,
        {
          method,
          origin: new URL(this.#access.server).origin,
          path: `${new URL(this.#access.server).pathname.replace(/\/$/, '')}${path}?${new URLSearchParams(query)}`,
          headers: {
            // Everything is asked for as metadata only, but for the token that is made by the request.
            accept: `application/json${method === 'POST' ? '' : `;as=${as};g=meta.k8s.io;v=v1`}`,
            'user-agent': 'ecr-anywhere-refresher',
            ...(body !== undefined && { 'content-type': CONTENT_TYPE[method] }),
            ...('token' in this.#access.identity && {
              authorization: `Bearer ${this.#access.identity.token}`,
            }),
          },
          ...(body !== undefined && { body }),
          signal: this.#signal,
        },
        hearWarnings,
      );
      const parsed = schema.safeParse(response);
      if (parsed.success) return parsed.data;
      throw new KubernetesError(what, `the answer is not a ${as}`, { scope: 'cluster' });
    };
    return pRetry(attempt, {
      retries: 3,
      minTimeout: 200,
      randomize: true,
      signal: this.#signal,
      shouldRetry: ({ error }) => isTransient(error),
      onFailedAttempt: async ({ error, retriesLeft }) => {
        const waitMs = error instanceof KubernetesError ? error.retryAfterMs : undefined;
        if (waitMs && retriesLeft > 0 && isTransient(error))
          await sleep(waitMs, undefined, { signal: this.#signal });
      },
    }).catch((error: unknown) => {
      throw error instanceof KubernetesError ? error : unanswered(what, error, this.#signal);
    });
  }

  async #send(
    what: string,
    options: Dispatcher.RequestOptions,
    hearWarnings?: (header: string | string[] | undefined) => void,
  ): Promise<unknown> {
    try {
      const response = await this.#agent.request(options);
      const text = await response.body.text();
      if (response.statusCode < 300) {
        hearWarnings?.(response.headers.warning);
        return parseJson(text);
      }
      throw refusal(what, response.statusCode, this.#withoutToken(text), response.headers['retry-after']);
    } catch (error) {
      throw error instanceof KubernetesError ? error : unanswered(what, error, this.#signal);
    }
  }

  /** What a server says reaches the log, and some proxies repeat the request's headers. */
  #withoutToken(text: string): string {
    const { identity } = this.#access;
    return 'token' in identity ? text.replaceAll(identity.token, '…') : text;
  }
}

function managedSecret(namespace: string, { metadata }: z.infer<typeof Item>): ManagedSecret {
  const ours = Object.entries(metadata.annotations ?? {}).filter(([key]) => OURS.has(key));
  return { namespace, name: metadata.name, annotations: Object.fromEntries(ours) };
}

/** The texts of Warning headers (RFC 7234, section 5.5), as Kubernetes sends them: 299 - "text". */
function warningsOf(header: string | string[] | undefined): string[] {
  const values = [header ?? []].flat().join(', ').slice(0, MAX_WARNINGS_LENGTH);
  return [...values.matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) =>
    text.replaceAll(/\\(.)/g, '$1').slice(0, MAX_MESSAGE_LENGTH),
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** A failure of the server's own words, as a KubernetesError. */
function refusal(
  what: string,
  status: number,
  body: string,
  retryAfter: string | string[] | undefined,
): KubernetesError {
  const parsed = Status.safeParse(parseJson(body));
  const said = parsed.success ? parsed.data.message.slice(0, MAX_MESSAGE_LENGTH) : 'no reason given';
  const hint = status === 401 ? ' (is the registered credential expired or revoked?)' : '';
  const seconds = Number(retryAfter);
  return new KubernetesError(what, `HTTP ${status}: ${said}${hint}`, {
    status,
    // What the server says of one object with 4xx need not be true of the next one.
    scope: status >= 500 || status === 401 || status === 429 ? 'cluster' : 'object',
    retryAfterMs: seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : undefined,
  });
}

function unanswered(what: string, error: unknown, signal: AbortSignal): KubernetesError {
  // A host with several addresses fails with one error for each of them, and no message of its own.
  const failure = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  const { code, message } = failure as NodeJS.ErrnoException;
  // By the signal, not by the error's name: undici's word for a proxy that refuses is AbortError, too.
  const said = signal.aborted
    ? "no answer before the cluster's deadline"
    : `${message.slice(0, MAX_MESSAGE_LENGTH)}${code ? ` (${code})` : ''}`;
  return new KubernetesError(what, said, { scope: 'cluster', cause: failure });
}

const TRANSIENT_STATUS: ReadonlySet<number> = new Set([429, 502, 503, 504]);
const TRANSIENT_CODE: ReadonlySet<string> = new Set([
  'ECONNRESET',
  'ECONNREFUSED',
  'EPIPE',
  'UND_ERR_SOCKET',
]);

/** Whether to try again. Not where an admission webhook refused: it has tried for as long as makes sense. */
function isTransient(error: unknown): boolean {
  if (!(error instanceof KubernetesError)) return false;
  if (error.status !== undefined)
    return TRANSIENT_STATUS.has(error.status) && !error.message.includes('admission webhook');
  const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
  return code !== undefined && TRANSIENT_CODE.has(code);
}
