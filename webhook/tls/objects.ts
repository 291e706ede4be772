// Reads, writes and watches the webhook's own objects, as its own ServiceAccount: the Secret with its certificates or with
// the caller proof, and the caBundle of its configuration. Every change names the resource version it is based on; only the
// creation of a missing Secret has none.
import { readFile } from 'node:fs/promises';
import { join, posix } from 'node:path';
import { z } from 'zod';
import { type Response, Transport } from '../../lib/kubernetes/transport.ts';

const APPLY = 'application/apply-patch+yaml';
const MERGE_PATCH = 'application/merge-patch+json';
const JSON_PATCH = 'application/json-patch+json';
/** A watch needs resource versions only, so no key crosses the network for it. */
const METADATA_ONLY = 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1';
const REQUEST_TIMEOUT_MS = 5_000;
const LIMITS = {
  connections: 2,
  connectMs: REQUEST_TIMEOUT_MS,
  idleMs: REQUEST_TIMEOUT_MS,
  maxBytes: 4 * 1024 * 1024,
};
/**
 * The mean duration of a watch; each ends at random up to a third earlier or later. The API server checks token and
 * permissions only when a watch begins.
 */
const WATCH_SECONDS = 10 * 60;
/**
 * The longest silence of a watch. API servers send a bookmark about every minute, so a longer silence means that the
 * connection is broken and neither end noticed. If a server sends no bookmarks, the watch begins again this often.
 */
const WATCH_IDLE_MS = 3 * 60_000;
/** The name of the webhook in the `managedFields` of these objects. */
const FIELD_MANAGER = 'ecr-anywhere-webhook';
/** An annotation of the Secret with which an operator requests a new certificate authority. */
export const ROTATE_ANNOTATION = 'ecr-anywhere.centml.ai/rotate-ca';

/** An annotation of the configuration, set by the chart: the tls.mode, which decides who writes the caBundle. */
export const MODE_ANNOTATION = 'ecr-anywhere.centml.ai/tls-mode';

/** The names of the objects, and how the API server is reached. */
export interface ObjectsSettings {
  /** Such as https://10.96.0.1:443. */
  readonly server: string;
  /** Holds `token` and `ca.crt`. Both are read for each request, because the kubelet renews them. */
  readonly serviceAccountDir: string;
  readonly namespace: string;
  readonly secret: string;
  readonly configuration: string;
  /** The name of the webhook in the configuration. */
  readonly webhook: string;
  /** The longest silence of a watch, in milliseconds. Default: three minutes. */
  readonly watchIdleMs?: number;
}

export interface StoredSecret {
  readonly resourceVersion: string;
  /** Decoded. */
  readonly data: Readonly<Record<string, string>>;
  readonly annotations: Readonly<Record<string, string>>;
}

/** The part of `OwnObjects` that is about the Secret. */
export type OwnSecret = Pick<OwnObjects, 'secret' | 'createSecret' | 'writeSecret' | 'watchSecret' | 'close'>;

/**
 * Watches one object until the API server ends the watch.
 *
 * @param onChange called when the watch begins, and with each change that this webhook has not read or written itself: read
 * the object then. No change is missed, because the watch begins before the first of these reads.
 * @throws RequestError
 */
export type Watch = (onChange: () => void, signal: AbortSignal) => Promise<void>;

export interface Configuration {
  readonly resourceVersion: string;
  /** The webhook's position in the list of webhooks. */
  readonly index: number;
  /** PEM; empty if there is none. */
  readonly caBundle: string;
}

/** A request that was refused, or had no usable response. */
export class RequestError extends Error {
  /** The HTTP status; undefined if there was no response. */
  readonly status: number | undefined;

  constructor(message: string, status?: number, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

const Versioned = z.object({ metadata: z.object({ resourceVersion: z.string() }) });
const Status = z.object({ kind: z.literal('Status'), message: z.string(), code: z.number().optional() });
const WatchEvent = z.discriminatedUnion('type', [
  z.object({ type: z.enum(['ADDED', 'MODIFIED', 'DELETED', 'BOOKMARK']), object: Versioned }),
  z.object({ type: z.literal('ERROR'), object: Status }),
]);
const Metadata = z.object({
  resourceVersion: z.string(),
  annotations: z.record(z.string(), z.string()).nullish(),
});
const SecretObject = z.object({ metadata: Metadata, data: z.record(z.string(), z.string()).nullish() });
const ConfigurationObject = z.object({
  metadata: Metadata,
  webhooks: z
    .array(z.object({ name: z.string(), clientConfig: z.object({ caBundle: z.string().nullish() }) }))
    .nullish(),
});

export class OwnObjects {
  readonly #settings: ObjectsSettings;
  #transport: { ca: string; transport: Transport } | undefined;
  /** The resource version of each object, by path, as last read or written. */
  readonly #known = new Map<string, string>();

  constructor(settings: ObjectsSettings) {
    this.#settings = settings;
  }

  /** The Secret; undefined if there is none. @throws RequestError */
  async secret(): Promise<StoredSecret | undefined> {
    const object = await this.#request('GET', this.#secretPath());
    if (object === undefined) return undefined;
    const { metadata, data } = SecretObject.parse(object);
    const decoded = Object.entries(data ?? {}).map(([key, value]) => [
      key,
      Buffer.from(value, 'base64').toString(),
    ]);
    return {
      resourceVersion: metadata.resourceVersion,
      data: Object.fromEntries(decoded),
      annotations: metadata.annotations ?? {},
    };
  }

  /**
   * Creates an empty Secret. An existing Secret does not change. The request is an apply, because RBAC can allow it by
   * the Secret's name, unlike a create.
   *
   * @throws RequestError
   */
  async createSecret(): Promise<void> {
    const { namespace, secret } = this.#settings;
    const object = {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'Opaque',
      metadata: { name: secret, namespace },
    };
    await this.#write(this.#secretPath(), object, APPLY);
  }

  /**
   * Changes the Secret's data; null removes a key.
   *
   * @returns false if the Secret is no longer at this resource version
   * @throws RequestError
   */
  async writeSecret(
    data: Readonly<Record<string, string | null>>,
    resourceVersion: string,
  ): Promise<boolean> {
    const encoded = Object.entries(data).map(([key, value]) => [
      key,
      value === null ? null : Buffer.from(value).toString('base64'),
    ]);
    const patch = { metadata: { resourceVersion }, data: Object.fromEntries(encoded) };
    return this.#write(this.#secretPath(), patch, MERGE_PATCH);
  }

  /**
   * The configuration; undefined if there is none, if it lacks this webhook, or if it is of another tls.mode. In the
   * last case a newer release has taken over the caBundle, and this is a pod of the release before.
   *
   * @throws RequestError
   */
  async configuration(): Promise<Configuration | undefined> {
    const object = await this.#request('GET', this.#configurationPath());
    if (object === undefined) return undefined;
    const { metadata, webhooks } = ConfigurationObject.parse(object);
    if (metadata.annotations?.[MODE_ANNOTATION] !== 'self') return undefined;
    const index = (webhooks ?? []).findIndex(({ name }) => name === this.#settings.webhook);
    if (index < 0) return undefined;
    const caBundle = Buffer.from(webhooks?.[index]?.clientConfig.caBundle ?? '', 'base64').toString();
    return { resourceVersion: metadata.resourceVersion, index, caBundle };
  }

  /** @returns false if the configuration is no longer at this resource version. @throws RequestError */
  async writeCaBundle({ resourceVersion, index }: Configuration, caBundle: string): Promise<boolean> {
    const patch = [
      { op: 'test', path: `/webhooks/${index}/name`, value: this.#settings.webhook },
      // The API server refuses the patch with a conflict if this is not the current version.
      { op: 'replace', path: '/metadata/resourceVersion', value: resourceVersion },
      {
        op: 'add',
        path: `/webhooks/${index}/clientConfig/caBundle`,
        value: Buffer.from(caBundle).toString('base64'),
      },
    ];
    return this.#write(this.#configurationPath(), patch, JSON_PATCH);
  }

  readonly watchSecret: Watch = (onChange, signal) => this.#watch(this.#secretPath(), onChange, signal);

  readonly watchConfiguration: Watch = (onChange, signal) =>
    this.#watch(this.#configurationPath(), onChange, signal);

  async close(): Promise<void> {
    await this.#transport?.transport[Symbol.asyncDispose]();
  }

  #secretPath(): string {
    const { namespace, secret } = this.#settings;
    return `/api/v1/namespaces/${namespace}/secrets/${secret}`;
  }

  #configurationPath(): string {
    const { configuration } = this.#settings;
    return `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${configuration}`;
  }

  /** @returns false if the object has another resource version, or is gone */
  async #write(path: string, body: unknown, contentType: string): Promise<boolean> {
    try {
      return (await this.#request('PATCH', path, { body: JSON.stringify(body), contentType })) !== undefined;
    } catch (error) {
      if (error instanceof RequestError && error.status === 409) return false;
      throw error;
    }
  }

  /** @returns the object; undefined for 404. @throws RequestError */
  async #request(
    method: 'GET' | 'PATCH',
    path: string,
    patch?: { readonly body: string; readonly contentType: string },
  ): Promise<unknown> {
    const name = `${method} ${path}`;
    const { status, text } = await this.#send(method, path, patch).catch((error: Error) => {
      throw new RequestError(`${name}: ${error.message}`, undefined, { cause: error });
    });
    if (status === 404) return undefined;
    const object = parse(text);
    if (status >= 300 || object === undefined) throw refusal(name, object, status);
    const versioned = Versioned.safeParse(object);
    if (versioned.success) this.#known.set(path, versioned.data.metadata.resourceVersion);
    return object;
  }

  async #watch(path: string, onChange: () => void, ending: AbortSignal): Promise<void> {
    const name = `WATCH ${path}`;
    const seconds = Math.round(WATCH_SECONDS * (2 / 3 + (Math.random() * 2) / 3));
    // A server that does not end the watch, although it sends bookmarks, must not keep it for ever.
    const signal = AbortSignal.any([ending, AbortSignal.timeout(seconds * 1000 + WATCH_IDLE_MS)]);
    try {
      const { token, ca } = await this.#account();
      // A connection of its own, which ends with the watch: the next one begins with the current CA.
      const limits = { ...LIMITS, connections: 1 };
      await using transport = new Transport({ server: this.#settings.server, ca }, limits);
      const { status, parts } = await transport.stream(
        {
          method: 'GET',
          path: posix.dirname(path),
          query: {
            watch: 'true',
            // RBAC allows a watch of one object by its name only with this selector.
            fieldSelector: `metadata.name=${posix.basename(path)}`,
            // From the cache of the API server. It begins with the current object, so no version can be too old to begin with.
            resourceVersion: '0',
            allowWatchBookmarks: 'true',
            timeoutSeconds: String(seconds),
          },
          headers: { accept: METADATA_ONLY, authorization: `Bearer ${token}` },
          signal,
        },
        this.#settings.watchIdleMs ?? WATCH_IDLE_MS,
      );
      if (status !== 200) throw refusal(name, parse(await textOf(parts)), status);
      onChange();
      for await (const line of lines(parts)) {
        const { success, data: event } = WatchEvent.safeParse(parse(line));
        if (!success) throw new RequestError(`${name}: a line is not a watch event`);
        if (event.type === 'ERROR') throw refusal(name, event.object, event.object.code);
        if (event.type === 'BOOKMARK') continue;
        const isKnown = event.object.metadata.resourceVersion === this.#known.get(path);
        if (event.type === 'DELETED' || !isKnown) onChange();
      }
    } catch (error) {
      if (error instanceof RequestError) throw error;
      throw new RequestError(`${name}: ${(error as Error).message}`, undefined, { cause: error });
    }
  }

  /** @throws TransportError, or Error where the ServiceAccount's files cannot be read */
  async #send(
    method: 'GET' | 'PATCH',
    path: string,
    patch?: { readonly body: string; readonly contentType: string },
  ): Promise<Response> {
    const { token, ca } = await this.#account();
    return this.#transportFor(ca).send({
      method,
      path,
      query: patch && { fieldManager: FIELD_MANAGER },
      headers: {
        accept: 'application/json',
        authorization: `Bearer ${token}`,
        ...(patch && { 'content-type': patch.contentType }),
      },
      body: patch?.body,
      signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
    });
  }

  /** The current token and CA. @throws Error where the files cannot be read */
  async #account(): Promise<{ token: string; ca: string }> {
    const [token = '', ca = ''] = await Promise.all(
      ['token', 'ca.crt'].map((file) => readFile(join(this.#settings.serviceAccountDir, file), 'utf8')),
    );
    return { token: token.trim(), ca };
  }

  #transportFor(ca: string): Transport {
    if (this.#transport?.ca === ca) return this.#transport.transport;
    // Requests that are under way end on the connections that they began on.
    void this.#transport?.transport.close();
    const transport = new Transport({ server: this.#settings.server, ca }, LIMITS);
    this.#transport = { ca, transport };
    return transport;
  }
}

/** The error of a response that is not the requested one. @param object its body: a Status, or anything else */
function refusal(name: string, object: unknown, status: number | undefined): RequestError {
  const parsed = Status.safeParse(object);
  const message = parsed.success ? parsed.data.message : 'no Status';
  return new RequestError(`${name}: ${status}: ${message}`, status);
}

/** Joins the parts of a text, and splits it into lines. What follows the last line break is dropped. */
async function* lines(parts: AsyncIterable<string>): AsyncGenerator<string> {
  let rest = '';
  for await (const part of parts) {
    const all = (rest + part).split('\n');
    rest = all.pop() ?? '';
    yield* all;
  }
}

async function textOf(parts: AsyncIterable<string>): Promise<string> {
  let text = '';
  for await (const part of parts) text += part;
  return text;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) ?? undefined;
  } catch {
    return undefined;
  }
}
