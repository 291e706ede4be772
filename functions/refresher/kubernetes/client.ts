// The refresher's requests to a Kubernetes API server. A run lists namespaces and Secrets, patches annotations, creates
// Events and requests tokens; an inspection also asks for the identity, its permissions, the server's version and clock.
// No request asks for a Secret's data: objects are requested as PartialObjectMetadata (Kubernetes API concepts,
// "Metadata-only fetches"), and only this project's annotations are kept.

import { setTimeout as sleep } from 'node:timers/promises';
import pRetry from 'p-retry';
import { z } from 'zod';
import { CONFIG_FIELD, type DenialCause, denialCauses, isTokenFailure } from '../../../contract/denials.ts';
import {
  ANNOTATION,
  EVENT_ACTION,
  EVENT_REPORTER,
  EXCLUDED_NAMESPACES,
  NAMESPACE_LABEL,
  PROVISION_FIELD_MANAGER,
  REFRESHER_FIELD_MANAGER,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_NAME,
} from '../../../contract/names.ts';
import type { FailedAt, FailureCode } from '../../../contract/refresher-api.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import type { ClusterAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { lookupNonLocal } from '../../../lib/kubernetes/local-addresses.ts';
import type { BoundToken } from '../../../lib/kubernetes/service-account-token.ts';
import {
  type Request,
  type Response,
  Transport,
  type TransportCode,
  TransportError,
} from '../../../lib/kubernetes/transport.ts';
import { parseJson } from '../../../lib/parse-json.ts';
import { sanitize } from '../../../lib/text.ts';
import { ClusterMemory, RunMemory } from './memory.ts';

/**
 * Objects on a page. Small, because several pages are in memory at the same time. If a page is too large, the refresher
 * requests it again with fewer objects.
 */
const PAGE_SIZES = [50, 5, 1];
const LIMITS = {
  connectMs: 10_000,
  idleMs: 30_000,
  /** Five Secrets whose annotations are as large as Kubernetes allows (256 KiB each), or one of any size (1.5 MiB). */
  maxBytes: 2 * 1024 * 1024,
};
/** A server that returns more pages never ends its list. */
const MAX_PAGES = 2_000;
/** How often a list begins again because the API server has compacted the version that its pages come from. */
const MAX_RESTARTS = 2;
/** Kubernetes' limit for the name of an object (RFC 1123 subdomain). */
const MAX_NAME_LENGTH = 253;
const NAME = new RegExp(`^(?!.{${MAX_NAME_LENGTH + 1}})[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`);
/** A namespace in which no tenant can bind a role. If `refresher.namespaces` is `*`, the chart's rules apply there too. */
const OWNED_BY_ADMINS = 'kube-system';
/** An API server's UIDs have 36 characters. */
const MAX_UID_LENGTH = 64;
/** Memory that an object of a list takes beside its text. */
const OBJECT_BYTES = 512;
/** The most causes of a denial that are kept. The webhook sends one for each registry. */
const MAX_CAUSES = 20;
const MAX_RETRY_AFTER_MS = 10_000;
const MAX_MESSAGE_LENGTH = 400;
/** The shortest lifetime that Kubernetes accepts (TokenRequestSpec.expirationSeconds). */
const MIN_TOKEN_SECONDS = 600;
const APPLY = 'application/apply-patch+yaml';
const CONTENT_TYPE = {
  PATCH: 'application/merge-patch+json',
  POST: 'application/json',
  DELETE: 'application/json',
} as const;
/** Kubernetes limits all warnings of a response to 4 KiB; a malicious server need not. */
const MAX_WARNINGS_LENGTH = 16_384;

/** What the refresher reads of a managed Secret. */
export interface ManagedSecret {
  readonly namespace: string;
  readonly name: string;
  readonly uid?: string;
  /** This project's annotations by their full keys; other annotations are dropped. */
  readonly annotations: Readonly<Partial<Record<string, string>>>;
}

/** A Secret after a PATCH. */
export interface AnnotatedSecret extends ManagedSecret {
  /** The warnings of admission, such as the webhook's. */
  readonly warnings: readonly string[];
}

/** In this order: the namespace is being deleted; its quota is used up; the Secret lacks the data that its type requires. */
type RefusalDetail = 'namespace-terminating' | 'quota-exceeded' | 'data-missing';

/** An Event about a Secret, as the refresher writes it (events.k8s.io/v1). */
export interface SecretEvent {
  readonly secret: Pick<ManagedSecret, 'namespace' | 'name' | 'uid'>;
  /** Of the Event: a DNS subdomain. */
  readonly name: string;
  readonly type: 'Normal' | 'Warning';
  readonly reason: string;
  /** At most 1,024 bytes. */
  readonly note: string;
  /** Milliseconds since the epoch. */
  readonly at: number;
}

/** A request that failed. */
export class KubernetesError extends ClusterError {
  override readonly name = 'KubernetesError';
  /** The message without the request: the same for every Secret that fails for the same cause. */
  readonly reason: string;
  /** The HTTP status; undefined if there was no response. */
  readonly status: number | undefined;
  /** Whether the requests for other Secrets would fail too: of the cluster, of the namespace, or none. */
  readonly affects: 'cluster' | 'namespace' | 'object';
  readonly retryAfterMs: number | undefined;
  /** The webhook's causes of a denial; empty for all other failures. */
  readonly causes: readonly DenialCause[];
  /** What the API server itself says beyond the status. */
  readonly detail: RefusalDetail | undefined;

  constructor(
    request: string,
    reason: string,
    details: {
      status?: number;
      affects: 'cluster' | 'namespace' | 'object';
      failedAt?: FailedAt;
      code?: FailureCode;
      retryAfterMs?: number | undefined;
      causes?: readonly DenialCause[];
      detail?: RefusalDetail | undefined;
      cause?: unknown;
    },
  ) {
    super(details.failedAt ?? 'reach', `${request}: ${reason}`, {
      cause: details.cause,
      code: details.code,
    });
    this.reason = reason;
    this.status = details.status;
    this.affects = details.affects;
    this.retryAfterMs = details.retryAfterMs;
    this.causes = details.causes ?? [];
    this.detail = details.detail;
  }
}

const Item = z.object({
  metadata: z.object({
    name: z.string().max(MAX_NAME_LENGTH),
    uid: z.string().max(MAX_UID_LENGTH).optional(),
    annotations: z.record(z.string(), z.string()).nullish(),
  }),
});

const Metadata = Item.extend({ kind: z.literal('PartialObjectMetadata') });

const List = z.object({
  kind: z.literal('PartialObjectMetadataList'),
  metadata: z.object({ continue: z.string().optional() }),
  // The API server writes null for an empty list.
  items: z
    .array(Item)
    .nullable()
    .transform((items) => items ?? []),
});

const TokenRequest = z.object({
  kind: z.literal('TokenRequest'),
  status: z.object({ token: z.string(), expirationTimestamp: z.iso.datetime({ offset: true }) }),
});

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

const SelfSubjectRulesReview = z.object({
  kind: z.literal('SelfSubjectRulesReview'),
  status: z.object({
    resourceRules: z
      .array(
        z.object({
          verbs: z.array(z.string()).nullish(),
          apiGroups: z.array(z.string()).nullish(),
          resources: z.array(z.string()).nullish(),
          resourceNames: z.array(z.string()).nullish(),
        }),
      )
      .nullish(),
  }),
});

const Version = z.object({ gitVersion: z.string() });

/** The response to a DELETE: a Status, or the object if it has finalizers. */
const Deleted = z.object({ kind: z.string() });

const Status = z.object({ kind: z.literal('Status'), message: z.string() });

const StatusCauses = z.object({
  details: z.object({
    causes: z.array(z.object({ reason: z.string().optional(), field: z.string().optional() })),
  }),
});

/** An action that RBAC allows or forbids an identity. */
export interface Permission {
  readonly verb: string;
  /** Absent: the core group. */
  readonly group?: string;
  readonly resource: string;
  readonly subresource?: string;
  /** Absent: all namespaces, or the resource has no namespace. */
  readonly namespace?: string;
  readonly name?: string;
}

const OWN_ANNOTATIONS: ReadonlySet<string> = new Set(Object.values(ANNOTATION));

/** A connection to one API server as one identity. Dispose of it at the end of the cluster run. */
export class KubernetesApi implements AsyncDisposable {
  readonly #identity: UsableAccess['identity'];
  readonly #transport: Transport;
  readonly #signal: AbortSignal;
  readonly #memory: ClusterMemory;

  /**
   * @param connections the number of requests at the same time
   * @param signal ends all requests
   * @param memory of the run, which its clusters share
   * @throws TransportError where the URL of the server or the proxy is invalid
   */
  constructor(
    access: UsableAccess,
    connections: number,
    signal: AbortSignal,
    memory: RunMemory = new RunMemory(),
  ) {
    const { server, ca, serverName, identity, proxyUrl, isLocalAllowed } = access;
    const lookup = isLocalAllowed ? undefined : lookupNonLocal;
    const certificate = 'cert' in identity ? identity : {};
    this.#identity = identity;
    this.#signal = signal;
    this.#memory = new ClusterMemory(memory);
    this.#transport = new Transport(
      { server, ca, serverName, proxyUrl, lookup, ...certificate },
      { ...LIMITS, connections, admitLargeBody: (ending) => this.#memory.admitLargeBody(ending) },
    );
  }

  /** The enabled namespaces. @throws KubernetesError */
  async enabledNamespaces(): Promise<string[]> {
    const query = { labelSelector: `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}` };
    const names = await this.#list('/api/v1/namespaces', query, ({ metadata }) =>
      this.#sanitize(metadata.name),
    );
    return names.filter((name) => !EXCLUDED_NAMESPACES.includes(name));
  }

  /** The managed Secrets of a namespace. @throws KubernetesError */
  async managedSecrets(namespace: string): Promise<ManagedSecret[]> {
    const query = {
      labelSelector: `${SECRET_LABEL.key}=${SECRET_LABEL.value}`,
      fieldSelector: `type=${SECRET_TYPE}`,
    };
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`;
    return this.#list(path, query, (secret) => this.#managedSecret(namespace, secret));
  }

  /**
   * Sets annotations of a Secret with a merge patch (RFC 7396) and returns the Secret that results.
   *
   * @param dryRun the API server runs admission, webhooks included, and stores nothing
   * @throws KubernetesError
   */
  async annotate(
    secret: ManagedSecret,
    annotations: Readonly<Record<string, string>>,
    dryRun: boolean,
  ): Promise<AnnotatedSecret> {
    const query = { fieldManager: REFRESHER_FIELD_MANAGER, ...(dryRun && { dryRun: 'All' }) };
    return this.#patch(secret, query, CONTENT_TYPE.PATCH, { metadata: { annotations } });
  }

  async #patch(
    { namespace, name }: Pick<ManagedSecret, 'namespace' | 'name'>,
    query: Readonly<Record<string, string>>,
    contentType: string,
    change: object,
  ): Promise<AnnotatedSecret> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(name)}`;
    const body = JSON.stringify(change);
    const kind = 'PartialObjectMetadata';
    const { object, response } = await this.#exchange(
      'PATCH',
      path,
      query,
      kind,
      Metadata,
      body,
      contentType,
    );
    const warnings = warningsOf(response.headers.warning).map((warning) => this.#sanitize(warning));
    return { ...this.#managedSecret(namespace, object), warnings };
  }

  /**
   * The name of the Secret that RBAC lets this identity create in a namespace: that of the rules that limit `create` to names.
   * Undefined if these have several names, or if another rule lets it create any Secret, such as one of cluster-admin.
   * Authorizers that cannot list their rules, such as EKS access policies, add none.
   *
   * @throws KubernetesError
   */
  async creatableSecret(namespace: string): Promise<string | undefined> {
    const here = await this.#creatableSecrets(namespace);
    if (here.names.size === 0) return undefined;
    // The owner of a namespace can bind more roles to this identity there, and must not end the creation everywhere.
    const isClear = here.names.size === 1 && !here.isAny;
    const { names, isAny } = isClear ? here : await this.#creatableSecrets(OWNED_BY_ADMINS);
    const [name, ...others] = names;
    const isOnly = name !== undefined && others.length === 0 && !isAny;
    return isOnly && here.names.has(name) && NAME.test(name) ? this.#sanitize(name) : undefined;
  }

  /** The names of Secrets in the rules that let this identity create them, and whether another rule lets it create any. */
  async #creatableSecrets(namespace: string): Promise<{ names: ReadonlySet<string>; isAny: boolean }> {
    const kind = 'SelfSubjectRulesReview';
    const body = JSON.stringify({ kind, apiVersion: 'authorization.k8s.io/v1', spec: { namespace } });
    const path = '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews';
    const { status } = await this.#request('POST', path, {}, kind, SelfSubjectRulesReview, body);
    const has = (values: readonly string[] | null | undefined, value: string) =>
      values?.some((one) => one === value || one === '*') ?? false;
    const rules = (status.resourceRules ?? []).filter(
      ({ verbs, apiGroups, resources }) =>
        has(verbs, 'create') && has(apiGroups, '') && has(resources, 'secrets'),
    );
    return {
      names: new Set(rules.flatMap(({ resourceNames }) => resourceNames ?? [])),
      isAny: rules.some(({ resourceNames }) => !resourceNames?.length),
    };
  }

  /** Whether a Secret of this name exists, of any type and with any label. @throws KubernetesError */
  async hasSecret(namespace: string, name: string): Promise<boolean> {
    const query = { fieldSelector: `metadata.name=${name}`, limit: '1' };
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets`;
    const list = await this.#request('GET', path, query, 'PartialObjectMetadataList', List);
    return list.items.length > 0;
  }

  /**
   * Creates a managed Secret without data by server-side apply, which RBAC can limit to a name, and returns it as the webhook
   * filled it.
   *
   * @param dryRun the API server runs admission, webhooks included, and stores nothing
   * @throws KubernetesError
   */
  async createManagedSecret(namespace: string, name: string, dryRun: boolean): Promise<AnnotatedSecret> {
    const query = { fieldManager: PROVISION_FIELD_MANAGER, ...(dryRun && { dryRun: 'All' }) };
    const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
    const object = {
      apiVersion: 'v1',
      kind: 'Secret',
      type: SECRET_TYPE,
      metadata: { name, namespace, labels },
    };
    return this.#patch({ namespace, name }, query, APPLY, object);
  }

  /** Makes the first request of a cluster run, and fails as it would. @throws KubernetesError */
  async check(): Promise<void> {
    const query = { labelSelector: `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`, limit: '1' };
    await this.#request('GET', '/api/v1/namespaces', query, 'PartialObjectMetadataList', List);
  }

  /**
   * Requests a token with the same service account, Secret, audiences and lifetime. The API server may shorten the
   * lifetime.
   *
   * @returns the token, and the expiry in the API server's response (milliseconds since the epoch)
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
   * Deletes the Secret that a token is bound to, which invalidates all tokens bound to it. A Secret that replaced it
   * under the same name stays.
   *
   * @throws KubernetesError
   */
  async deleteSecretOf({ namespace, secret }: BoundToken): Promise<void> {
    const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(secret.name)}`;
    const options = { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: secret.uid } };
    await this.#request('DELETE', path, {}, 'PartialObjectMetadata', Deleted, JSON.stringify(options));
  }

  /** The username and groups that the API server gives this identity. @throws KubernetesError */
  async whoAmI(): Promise<{ username: string; groups: string[] }> {
    const kind = 'SelfSubjectReview';
    const body = JSON.stringify({ kind, apiVersion: 'authentication.k8s.io/v1' });
    const path = '/apis/authentication.k8s.io/v1/selfsubjectreviews';
    const { userInfo } = (await this.#request('POST', path, {}, kind, SelfSubjectReview, body)).status;
    return {
      username: this.#sanitize(userInfo.username),
      groups: (userInfo.groups ?? []).map((group) => this.#sanitize(group)),
    };
  }

  /** Whether the API server's authorizers, such as RBAC, allow an action. @throws KubernetesError */
  async isAllowed(permission: Permission): Promise<boolean> {
    const kind = 'SelfSubjectAccessReview';
    const spec = { resourceAttributes: permission };
    const body = JSON.stringify({ kind, apiVersion: 'authorization.k8s.io/v1', spec });
    const path = '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews';
    return (await this.#request('POST', path, {}, kind, SelfSubjectAccessReview, body)).status.allowed;
  }

  /** Creates an Event in the Secret's namespace. @throws KubernetesError with the status 409 if it exists already */
  async createEvent({ secret, name, type, reason, note, at }: SecretEvent): Promise<void> {
    const { namespace } = secret;
    const event = {
      apiVersion: 'events.k8s.io/v1',
      kind: 'Event',
      metadata: { name, namespace },
      regarding: { apiVersion: 'v1', kind: 'Secret', ...secret },
      type,
      reason,
      note,
      action: EVENT_ACTION,
      // Kubernetes reads no time that has fewer digits.
      eventTime: new Date(at).toISOString().replace('Z', '000Z'),
      reportingController: EVENT_REPORTER,
      reportingInstance: REFRESHER_FIELD_MANAGER,
    };
    const path = `/apis/events.k8s.io/v1/namespaces/${encodeURIComponent(namespace)}/events`;
    await this.#request('POST', path, {}, 'PartialObjectMetadata', Metadata, JSON.stringify(event));
  }

  /** The UID of a namespace. Needs the permission to list namespaces, not to get one. @throws KubernetesError */
  async uidOfNamespace(name: string): Promise<string | undefined> {
    const query = { fieldSelector: `metadata.name=${name}`, limit: '1' };
    const kind = 'PartialObjectMetadataList';
    const [namespace] = (await this.#request('GET', '/api/v1/namespaces', query, kind, UidList)).items;
    return namespace && this.#sanitize(namespace.metadata.uid);
  }

  /**
   * The server's version, and how many seconds its clock is ahead of this one, if it sends a Date header.
   *
   * @param now this clock, in milliseconds since the epoch
   * @throws KubernetesError
   */
  async version(now: () => number): Promise<{ gitVersion: string; aheadSeconds?: number }> {
    const { object, response } = await this.#exchange('GET', '/version', {}, 'Version', Version);
    // The header has whole seconds, cut off: on average the time is half a second later (RFC 9110, section 5.6.7).
    const serverTime = Date.parse(String(response.headers.date)) + 500;
    const aheadSeconds = Math.round((serverTime - (now() - response.headersAfterMs / 2)) / 1000);
    return {
      gitVersion: this.#sanitize(object.gitVersion),
      // `|| 0` because rounding can make -0.
      ...(Number.isFinite(aheadSeconds) && { aheadSeconds: aheadSeconds || 0 }),
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#transport[Symbol.asyncDispose]();
    this.#memory[Symbol.dispose]();
  }

  /**
   * Lists all objects, page by page. It starts again if the API server has forgotten the version that the next page comes
   * from (410): a list that takes minutes outlives etcd's compaction.
   *
   * @param keep what to keep of an object; the rest is dropped before the next page
   */
  async #list<Kept>(
    path: string,
    query: Readonly<Record<string, string>>,
    keep: (item: z.infer<typeof Item>) => Kept,
  ): Promise<Kept[]> {
    for (let restarts = 0; ; restarts++) {
      try {
        return await this.#listOnce(path, query, keep);
      } catch (error) {
        const isExpired = error instanceof KubernetesError && error.status === 410;
        if (!isExpired || restarts === MAX_RESTARTS) throw error;
      }
    }
  }

  async #listOnce<Kept>(
    path: string,
    query: Readonly<Record<string, string>>,
    keep: (item: z.infer<typeof Item>) => Kept,
  ): Promise<Kept[]> {
    const kept: Kept[] = [];
    let next: string | undefined;
    for (let page = 0; page < MAX_PAGES; page++) {
      const list = await this.#page(path, { ...query, ...(next && { continue: next }) });
      for (const item of list.items) kept.push(keep(item));
      this.#memory.keep(list.items.length * OBJECT_BYTES);
      if (this.#memory.isFullOfLists()) throw tooMuchData(`GET ${path}`);
      next = list.metadata.continue;
      if (!next) return kept;
    }
    throw new KubernetesError(`GET ${path}`, 'the list does not end', {
      affects: 'cluster',
      code: 'list-endless',
    });
  }

  /** One page of a list, with as many objects as fit. */
  async #page(path: string, query: Readonly<Record<string, string>>): Promise<z.infer<typeof List>> {
    let tooLarge: unknown;
    for (const limit of PAGE_SIZES) {
      try {
        const pageQuery = { ...query, limit: String(limit) };
        const list = await this.#request('GET', path, pageQuery, 'PartialObjectMetadataList', List);
        if (list.items.length <= limit) return list;
        throw new KubernetesError(`GET ${path}`, `the page has more than the ${limit} objects requested`, {
          affects: 'cluster',
          code: 'too-much-data',
        });
      } catch (error) {
        if (!isTooLarge(error)) throw error;
        tooLarge = error;
      }
    }
    throw tooLarge;
  }

  /** Like `#exchange`, for callers that need only the object. */
  async #request<Schema extends z.ZodType>(
    method: Request['method'],
    path: string,
    query: Readonly<Record<string, string>>,
    kind: string,
    schema: Schema,
    body?: string,
  ): Promise<z.infer<Schema>> {
    return (await this.#exchange(method, path, query, kind, schema, body)).object;
  }

  /**
   * Sends a request, again if the failure is transient, and validates the response.
   *
   * @param kind what the response must be, for the Accept header and for errors
   * @throws KubernetesError
   */
  #exchange<Schema extends z.ZodType>(
    method: Request['method'],
    path: string,
    query: Readonly<Record<string, string>>,
    kind: string,
    schema: Schema,
    body?: string,
    contentType: string | undefined = method === 'GET' ? undefined : CONTENT_TYPE[method],
  ): Promise<{ object: z.infer<Schema>; response: Response }> {
    const name = `${method} ${path}`;
    const request: Request = {
      method,
      path,
      query,
      headers: {
        // Stored objects are requested as metadata only; the other kinds are not stored.
        accept: `application/json${kind.startsWith('Partial') ? `;as=${kind};g=meta.k8s.io;v=v1` : ''}`,
        'user-agent': 'ecr-anywhere-refresher',
        ...(body !== undefined && contentType !== undefined && { 'content-type': contentType }),
        ...('token' in this.#identity && { authorization: `Bearer ${this.#identity.token}` }),
      },
      body,
      signal: this.#signal,
    };
    if (this.#memory.isFull()) return Promise.reject(tooMuchData(name));
    const attempt = async () => {
      const response = await this.#transport.send(request);
      if (response.status >= 300) throw this.#refusal(name, response);
      const parsed = schema.safeParse(parsedJson(response.text));
      if (parsed.success) return { object: parsed.data, response };
      throw new KubernetesError(name, `the answer is not a ${kind}`, {
        affects: 'cluster',
        code: 'unexpected-response',
      });
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
      throw error instanceof KubernetesError ? error : noResponse(name, error, this.#signal);
    });
  }

  /**
   * Makes a server's text safe for logs and terminals: without the token, because some proxies repeat the headers of a
   * request, and without control characters.
   */
  #sanitize(text: string, length = MAX_MESSAGE_LENGTH): string {
    const withoutToken = 'token' in this.#identity ? text.replaceAll(this.#identity.token, '…') : text;
    // A slice refers to the whole text, which may be a thousand times larger.
    const kept = sanitize(Buffer.from(withoutToken.slice(0, length)).toString());
    // V8 stores a character in one or two bytes.
    this.#memory.keep(kept.length * 2);
    return kept;
  }

  #managedSecret(namespace: string, { metadata }: z.infer<typeof Item>): ManagedSecret {
    const sanitized = Object.entries(ownAnnotations(metadata.annotations)).map(([key, value]) => [
      key,
      this.#sanitize(value, value.length),
    ]);
    const { uid } = metadata;
    return {
      namespace,
      name: this.#sanitize(metadata.name),
      ...(uid !== undefined && { uid: this.#sanitize(uid) }),
      annotations: Object.fromEntries(sanitized),
    };
  }

  /** The error for a response with an error status. */
  #refusal(name: string, { status, text, headers }: Response): KubernetesError {
    const body = parsedJson(text);
    const parsed = Status.safeParse(body);
    const message = parsed.success ? this.#sanitize(parsed.data.message) : 'no reason given';
    const hint = status === 401 ? ' (is the credential expired or revoked?)' : '';
    const causes = parsed.success ? denialCauses(body) : [];
    const retryAfterSeconds = Number(headers['retry-after']);
    return new KubernetesError(name, `HTTP ${status}: ${message}${hint}`, {
      status,
      affects: affectedBy(status, causes),
      failedAt: failedAtOf(status, parsed.success),
      code: causes.length > 0 ? 'webhook-denied' : codeOf(status, parsed.data?.message),
      detail: parsed.success ? detailOf(status, parsed.data.message, body) : undefined,
      retryAfterMs:
        retryAfterSeconds > 0 ? Math.min(retryAfterSeconds * 1000, MAX_RETRY_AFTER_MS) : undefined,
      causes: causes.slice(0, MAX_CAUSES).map(({ reason, field, message }) => ({
        reason,
        ...(field !== undefined && { field: this.#sanitize(field) }),
        message: this.#sanitize(message),
      })),
    });
  }
}

function ownAnnotations(
  annotations: Readonly<Record<string, string>> | null | undefined,
): Record<string, string> {
  return Object.fromEntries(Object.entries(annotations ?? {}).filter(([key]) => OWN_ANNOTATIONS.has(key)));
}

/**
 * What a refusal is likely to repeat for. A 4xx may be true of this object only. The registries and their roles are those of the
 * namespace, so one that fails must not keep the Secrets of other namespaces from being requested. A role that cannot be assumed
 * is that of one registry, and the namespace may have others. Without the webhook's own identity, no registry has a token.
 */
function affectedBy(status: number, causes: readonly DenialCause[]): KubernetesError['affects'] {
  const failures = causes.map(({ reason }) => reason).filter(isTokenFailure);
  if (failures.length > 0 && !failures.includes('aws-no-identity'))
    return failures.every((reason) => reason === 'aws-role-denied') ? 'object' : 'namespace';
  return status >= 500 || status === 401 || status === 429 ? 'cluster' : 'object';
}

/** @param isStatus the body is a Status, which only the API server sends: a proxy's 403 has another body */
function failedAtOf(status: number, isStatus: boolean): FailedAt {
  if (status === 401) return 'credential';
  return status === 403 && isStatus ? 'permissions' : 'reach';
}

/**
 * The code of an HTTP error. The API server has no code for a webhook that denied a request or that it could not call, only
 * fixed phrases (k8s.io/apiserver, admission/plugin/webhook).
 *
 * @param message of the API server's Status; undefined if the response is none
 */
function codeOf(status: number, message: string | undefined): FailureCode {
  // A webhook of an earlier version denies without causes.
  if (message?.includes(`admission webhook "${WEBHOOK_NAME}" denied`)) return 'webhook-denied';
  if (status === 401) return 'unauthorized';
  if (status === 429) return 'throttled';
  if (status >= 500)
    return message?.includes('failed calling webhook') ? 'webhook-unreachable' : 'server-error';
  if (message === undefined) return 'unexpected-response';
  if (status === 403) return 'forbidden';
  if (status === 404) return 'not-found';
  return status === 409 ? 'conflict' : 'invalid';
}

/**
 * Reads the message and the causes of a Status (Kubernetes API reference, StatusCause). For a quota there is no cause, only a fixed phrase
 * (k8s.io/apiserver, admission/plugin/resourcequota).
 */
function detailOf(status: number, message: string, body: unknown): RefusalDetail | undefined {
  if (status === 403 && / is forbidden: exceeded quota: /.test(message)) return 'quota-exceeded';
  const causes = StatusCauses.safeParse(body).data?.details.causes ?? [];
  if (causes.some(({ reason }) => reason === 'NamespaceTerminating')) return 'namespace-terminating';
  const isMissing = causes.some(
    ({ reason, field }) => reason === 'FieldValueRequired' && field === CONFIG_FIELD,
  );
  return isMissing ? 'data-missing' : undefined;
}

/** The texts of Warning headers (RFC 7234, section 5.5) in the form that Kubernetes sends: 299 - "text". */
function warningsOf(header: string | string[] | undefined): string[] {
  const values = [header ?? []].flat().join(', ').slice(0, MAX_WARNINGS_LENGTH);
  return [...values.matchAll(/\b299 \S+ "((?:[^"\\]|\\.)*)"/g)].map(([, text = '']) =>
    text.replaceAll(/\\(.)/g, '$1'),
  );
}

/** @returns undefined if the text is not JSON @throws RangeError if it has too many values */
function parsedJson(text: string): unknown {
  try {
    return parseJson(Buffer.from(text));
  } catch (error) {
    if (error instanceof RangeError) throw error;
    return undefined;
  }
}

/** Whether a response had more bytes or values than the limit. @param error as it was thrown, or its KubernetesError */
function isTooLarge(error: unknown): boolean {
  const cause = error instanceof KubernetesError ? error.cause : error;
  return cause instanceof RangeError || (cause instanceof TransportError && cause.code === 'too-large');
}

function tooMuchData(request: string): KubernetesError {
  return new KubernetesError(
    request,
    'the cluster has more data than the refresher keeps of one (docs/sizing.md): is this the API server of the cluster?',
    { affects: 'cluster', code: 'too-much-data' },
  );
}

function noResponse(name: string, error: unknown, signal: AbortSignal): KubernetesError {
  const message = error instanceof Error ? error.message : String(error);
  const ended = signal.reason instanceof ClusterError ? signal.reason : undefined;
  const reason = signal.aborted ? (ended?.message ?? "no answer before the cluster's deadline") : message;
  return new KubernetesError(name, reason, {
    affects: 'cluster',
    code: signal.aborted
      ? (ended?.code ?? 'cluster-time-up')
      : isTooLarge(error)
        ? 'too-much-data'
        : 'unreachable',
    cause: error,
  });
}

const TRANSIENT_STATUS: ReadonlySet<number> = new Set([429, 502, 503, 504]);
const TRANSIENT_CODE: ReadonlySet<TransportCode> = new Set(['refused', 'disconnected']);

/** Whether to try again. A denial of an admission webhook is final: the webhook itself has retried. */
function isTransient(error: unknown): boolean {
  if (error instanceof TransportError) return TRANSIENT_CODE.has(error.code);
  if (!(error instanceof KubernetesError) || error.status === undefined) return false;
  return TRANSIENT_STATUS.has(error.status) && !error.message.includes('admission webhook');
}

/** A server and a credential with which requests can be sent. */
export interface UsableAccess extends ClusterAccess {
  /** Allows a server or proxy whose host name resolves to a local address: in tests. */
  readonly isLocalAllowed?: boolean;
  /** The kind of the registered identity, if its token was made for this run. */
  readonly registeredAs?: 'eks' | 'keyless';
}
