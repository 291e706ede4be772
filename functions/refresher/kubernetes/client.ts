// What is asked of a Kubernetes API server: names of namespaces, metadata of Secrets, one annotation's PATCH, the next
// token, and the end of all; by people, also who one is, what one may, and the server's version and clock.
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
} from '../../../contract/names.ts';
import type { FailedAt } from '../../../contract/refresher-api.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import type { ClusterAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { lookupNonLocal } from '../../../lib/kubernetes/local-addresses.ts';
import type { BoundToken } from '../../../lib/kubernetes/service-account-token.ts';
import { singleLine } from '../../../lib/text.ts';

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
const CONTENT_TYPE = {
  PATCH: 'application/merge-patch+json',
  POST: 'application/json',
  DELETE: 'application/json',
  GET: '',
} as const;
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
export class KubernetesError extends ClusterError {
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
      failedAt?: FailedAt;
      retryAfterMs?: number | undefined;
      cause?: unknown;
    },
  ) {
    super(details.failedAt ?? 'reach', `${what}: ${said}`, { cause: details.cause });
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

/** Of what stays the same for a cluster's life. */
const UidList = z.object({ items: z.array(z.object({ metadata: z.object({ uid: z.string() }) })) });

const SelfSubjectReview = z.object({
  kind: z.literal('SelfSubjectReview'),
  status: z.object({
    userInfo: z.object({ username: z.string(), groups: z.array(z.string()).nullish() }),
  }),
});

const SelfSubjectAccessReview = z.object({
  kind: z.literal('SelfSubjectAccessReview'),
  status: z.object({ allowed: z.boolean() }),
});

const Version = z.object({ gitVersion: z.string() });

/** A DELETE is answered with a Status, or with what is still there for its finalizers. */
const Deleted = z.object({ kind: z.string() });

const Status = z.object({ kind: z.literal('Status'), message: z.string() });

/** What an identity may be allowed, or not. */
export interface Permission {
  readonly verb: string;
  readonly resource: string;
  readonly subresource?: string;
  /** Absent: in all of them, or where there are none. */
  readonly namespace?: string;
  readonly name?: string;
}

/** What of an answer is not in its body. */
interface Heard {
  readonly headers: Dispatcher.ResponseData['headers'];
  /** From when the request was given to the connection until the headers came. */
  readonly tookMs: number;
}

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
    const away = { timeout: CONNECT_TIMEOUT_MS, ...(!access.allowLocal && { lookup: lookupNonLocal }) };
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
      .map(({ metadata }) => this.#heard(metadata.name))
      .filter((name) => !EXCLUDED_NAMESPACES.includes(name));
  }

  /** The managed Secrets of a namespace. @throws KubernetesError */
  async managedSecrets(namespace: string): Promise<ManagedSecret[]> {
    const secrets = await this.#list(`/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`, {
      labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
      fieldSelector: `type=${SECRET_TYPE}`,
    });
    return secrets.map((secret) => this.#managedSecret(namespace, secret));
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
    const hear = ({ headers }: Heard) => {
      warnings = warningsOf(headers.warning).map((warning) => this.#heard(warning));
    };
    const answer = await this.#request('PATCH', path, query, 'PartialObjectMetadata', Metadata, body, hear);
    return { ...this.#managedSecret(namespace, answer), warnings };
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

  /**
   * Deletes the Secret that tokens are bound to, and no other in its place: all of them end.
   *
   * @throws KubernetesError
   */
  async deleteSecretOf({ namespace, secret }: BoundToken): Promise<void> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(secret.name)}`;
    const options = { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: secret.uid } };
    await this.#request('DELETE', path, {}, 'PartialObjectMetadata', Deleted, JSON.stringify(options));
  }

  /** Who the API server takes this for. @throws KubernetesError */
  async whoAmI(): Promise<{ username: string; groups: string[] }> {
    const as = 'SelfSubjectReview';
    const body = JSON.stringify({ kind: as, apiVersion: 'authentication.k8s.io/v1' });
    const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
    const { userInfo } = (await this.#request('POST', path, {}, as, SelfSubjectReview, body)).status;
    return {
      username: this.#heard(userInfo.username),
      groups: (userInfo.groups ?? []).map((group) => this.#heard(group)),
    };
  }

  /** Whether RBAC, or whatever else authorizes, allows something. @throws KubernetesError */
  async isAllowed(permission: Permission): Promise<boolean> {
    const as = 'SelfSubjectAccessReview';
    const spec = { resourceAttributes: permission };
    const body = JSON.stringify({ kind: as, apiVersion: 'authorization.k8s.io/v1', spec });
    const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
    return (await this.#request('POST', path, {}, as, SelfSubjectAccessReview, body)).status.allowed;
  }

  /** The UID of a namespace, without the right to get it. @throws KubernetesError */
  async uidOfNamespace(name: string): Promise<string | undefined> {
    const query = { fieldSelector: `metadata.name=${name}`, limit: '1' };
    const as = 'PartialObjectMetadataList';
    const [namespace] = (await this.#request('GET', '/api/v1/namespaces', query, as, UidList)).items;
    return namespace && this.#heard(namespace.metadata.uid);
  }

  /**
   * The server's version; and how far its clock is ahead of ours, in seconds, where it tells the time.
   *
   * @param now our clock, in milliseconds since the epoch
   * @throws KubernetesError
   */
  async version(now: () => number): Promise<{ gitVersion: string; aheadSeconds?: number }> {
    let aheadSeconds = Number.NaN;
    const hear = ({ headers, tookMs }: Heard) => {
      // The header has whole seconds, cut off: on average it is half of one later (RFC 9110, section 5.6.7).
      const theirs = Date.parse(String(headers.date)) + 500;
      aheadSeconds = Math.round((theirs - (now() - tookMs / 2)) / 1000);
    };
    const { gitVersion } = await this.#request('GET', '/version', {}, 'Version', Version, undefined, hear);
    // Not -0, which a whole second's rounding makes.
    return {
      gitVersion: this.#heard(gitVersion),
      ...(Number.isFinite(aheadSeconds) && { aheadSeconds: aheadSeconds || 0 }),
    };
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
    method: 'GET' | 'PATCH' | 'POST' | 'DELETE',
    path: string,
    query: Readonly<Record<string, string>>,
    as: string,
    schema: Schema,
    body?: string,
    hear?: (heard: Heard) => void,
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
            // Every stored object is asked for as metadata only; the rest are answers and no objects.
            accept: `application/json${as.startsWith('Partial') ? `;as=${as};g=meta.k8s.io;v=v1` : ''}`,
            'user-agent': 'ecr-anywhere-refresher',
            ...(body !== undefined && { 'content-type': CONTENT_TYPE[method] }),
            ...('token' in this.#access.identity && {
              authorization: `Bearer ${this.#access.identity.token}`,
            }),
          },
          ...(body !== undefined && { body }),
          signal: this.#signal,
        },
        hear,
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
    hear?: (heard: Heard) => void,
  ): Promise<unknown> {
    try {
      const began = performance.now();
      const response = await this.#agent.request(options);
      if (response.statusCode < 300) hear?.({ headers: response.headers, tookMs: performance.now() - began });
      const text = await response.body.text();
      if (response.statusCode < 300) return parseJson(text);
      throw this.#refusal(what, response.statusCode, text, response.headers['retry-after']);
    } catch (error) {
      throw error instanceof KubernetesError ? error : unanswered(what, error, this.#signal);
    }
  }

  /**
   * What a server says reaches logs and terminals: without the token, as some proxies repeat the request's headers, and
   * without what a terminal would obey.
   */
  #heard(text: string, length = MAX_MESSAGE_LENGTH): string {
    const { identity } = this.#access;
    const told = 'token' in identity ? text.replaceAll(identity.token, '…') : text;
    return singleLine(told.slice(0, length));
  }

  #managedSecret(namespace: string, { metadata }: z.infer<typeof Item>): ManagedSecret {
    const ours = Object.entries(metadata.annotations ?? {})
      .filter(([key]) => OURS.has(key))
      .map(([key, value]) => [key, this.#heard(value, value.length)]);
    return { namespace, name: this.#heard(metadata.name), annotations: Object.fromEntries(ours) };
  }

  /** A failure in the server's own words. */
  #refusal(
    what: string,
    status: number,
    body: string,
    retryAfter: string | string[] | undefined,
  ): KubernetesError {
    const parsed = Status.safeParse(parseJson(body));
    const said = parsed.success ? this.#heard(parsed.data.message) : 'no reason given';
    const hint = status === 401 ? ' (is the registered credential expired or revoked?)' : '';
    const seconds = Number(retryAfter);
    return new KubernetesError(what, `HTTP ${status}: ${said}${hint}`, {
      status,
      // What the server says of one object with 4xx need not be true of the next one.
      scope: status >= 500 || status === 401 || status === 429 ? 'cluster' : 'object',
      failedAt: failedAtOf(status, parsed.success),
      retryAfterMs: seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER_MS) : undefined,
    });
  }
}

/** @param isStatus the answer is in the API server's own form: a proxy's 403 is none */
function failedAtOf(status: number, isStatus: boolean): FailedAt {
  if (status === 401) return 'credential';
  return status === 403 && isStatus ? 'permissions' : 'reach';
}

/** The texts of Warning headers (RFC 7234, section 5.5), as Kubernetes sends them: 299 - "text". */
function warningsOf(header: string | string[] | undefined): string[] {
  const values = [header ?? []].flat().join(', ').slice(0, MAX_WARNINGS_LENGTH);
  return [...values.matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) =>
    text.replaceAll(/\\(.)/g, '$1'),
  );
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function unanswered(what: string, error: unknown, signal: AbortSignal): KubernetesError {
  // A host with several addresses fails with one error for each of them, and no message of its own.
  const failure = error instanceof AggregateError ? (error.errors[0] ?? error) : error;
  const { code, message } = failure as NodeJS.ErrnoException;
  // By the signal, not by the error's name: undici's word for a proxy that refuses is AbortError, too.
  const said = signal.aborted
    ? "no answer before the cluster's deadline"
    : `${singleLine(message.slice(0, MAX_MESSAGE_LENGTH))}${code ? ` (${code})` : ''}`;
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

/** An access of which nothing is missing. */
export interface UsableAccess extends ClusterAccess {
  /** Its name may be one of this machine or its link. */
  readonly allowLocal?: boolean;
  /** Its token was made for this turn, and this is what is registered in its place. */
  readonly madeFor?: 'eks' | 'keyless';
}
