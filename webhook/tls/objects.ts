// The two objects of the API server that the webhook may change in tls.mode self, as its own ServiceAccount: the Secret
// with its certificates, and the caBundle of its configuration. Every write says on which version it builds.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent } from 'undici';
import { z } from 'zod';

const APPLY = 'application/apply-patch+yaml';
const MERGE_PATCH = 'application/merge-patch+json';
const JSON_PATCH = 'application/json-patch+json';
const REQUEST_TIMEOUT_MS = 5_000;
const MAX_RESPONSE_BYTES = 4 * 1024 * 1024;
/** Who the API server says has set what. */
const FIELD_MANAGER = 'ecr-anywhere-webhook';
/** A command to exchange the authority: an annotation of the Secret, set by people. */
export const ROTATE_ANNOTATION = 'ecr-anywhere.centml.ai/rotate-ca';

/** Who looks after the caBundle: an annotation of the configuration, set by the chart. */
export const MODE_ANNOTATION = 'ecr-anywhere.centml.ai/tls-mode';

/** Where they are, and how the API server is reached. */
export interface ObjectsSettings {
  /** Such as https://10.96.0.1:443. */
  readonly server: string;
  /** With `token` and `ca.crt`, both read anew for each request: the kubelet renews them. */
  readonly serviceAccountDir: string;
  readonly namespace: string;
  readonly secret: string;
  readonly configuration: string;
  /** The name of the webhook in the configuration. */
  readonly webhook: string;
}

export interface CertificateSecret {
  readonly resourceVersion: string;
  /** Decoded. */
  readonly data: Readonly<Record<string, string>>;
  readonly command: string | undefined;
}

export interface Configuration {
  readonly resourceVersion: string;
  /** Where the webhook is in the list. */
  readonly index: number;
  /** PEM; empty where there is none. */
  readonly caBundle: string;
}

/** A request that was refused, or not answered. */
export class RequestError extends Error {
  readonly status: number | undefined;
  constructor(message: string, status?: number, options?: ErrorOptions) {
    super(message, options);
    this.status = status;
  }
}

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
const Status = z.object({ kind: z.literal('Status'), message: z.string() });

export class OwnObjects {
  readonly #settings: ObjectsSettings;
  #agent: { ca: string; agent: Agent } | undefined;

  constructor(settings: ObjectsSettings) {
    this.#settings = settings;
  }

  /** The Secret; undefined where there is none. @throws RequestError */
  async secret(): Promise<CertificateSecret | undefined> {
    const answer = await this.#ask('GET', this.#secretPath());
    if (answer === undefined) return undefined;
    const { metadata, data } = SecretObject.parse(answer);
    const decoded = Object.entries(data ?? {}).map(([key, value]) => [
      key,
      Buffer.from(value, 'base64').toString(),
    ]);
    return {
      resourceVersion: metadata.resourceVersion,
      data: Object.fromEntries(decoded),
      command: metadata.annotations?.[ROTATE_ANNOTATION],
    };
  }

  /**
   * Makes the Secret, empty, where it is not there; where it is, nothing changes. As an apply, which RBAC can allow by
   * name, unlike a create.
   */
  async createSecret(): Promise<void> {
    const { namespace, secret } = this.#settings;
    const object = {
      apiVersion: 'v1',
      kind: 'Secret',
      type: 'Opaque',
      metadata: { name: secret, namespace },
    };
    await this.#write(`${this.#secretPath()}?fieldManager=${FIELD_MANAGER}`, object, APPLY);
  }

  /**
   * Changes the Secret's data; null takes a key away.
   *
   * @returns false if somebody else has changed the Secret meanwhile
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
    return this.#write(`${this.#secretPath()}?fieldManager=${FIELD_MANAGER}`, patch, MERGE_PATCH);
  }

  /**
   * The configuration; undefined where there is none, none with our webhook, or one of another tls.mode: then this is
   * a pod of before, and the caBundle is somebody else's.
   *
   * @throws RequestError
   */
  async configuration(): Promise<Configuration | undefined> {
    const answer = await this.#ask('GET', this.#configurationPath());
    if (answer === undefined) return undefined;
    const { metadata, webhooks } = ConfigurationObject.parse(answer);
    if (metadata.annotations?.[MODE_ANNOTATION] !== 'self') return undefined;
    const index = (webhooks ?? []).findIndex(({ name }) => name === this.#settings.webhook);
    if (index < 0) return undefined;
    const caBundle = Buffer.from(webhooks?.[index]?.clientConfig.caBundle ?? '', 'base64').toString();
    return { resourceVersion: metadata.resourceVersion, index, caBundle };
  }

  /** @returns false if somebody else has changed the configuration meanwhile */
  async writeCaBundle({ resourceVersion, index }: Configuration, caBundle: string): Promise<boolean> {
    const patch = [
      { op: 'test', path: `/webhooks/${index}/name`, value: this.#settings.webhook },
      // The API server takes it as the version that the patch builds on.
      { op: 'replace', path: '/metadata/resourceVersion', value: resourceVersion },
      {
        op: 'add',
        path: `/webhooks/${index}/clientConfig/caBundle`,
        value: Buffer.from(caBundle).toString('base64'),
      },
    ];
    return this.#write(`${this.#configurationPath()}?fieldManager=${FIELD_MANAGER}`, patch, JSON_PATCH);
  }

  async close(): Promise<void> {
    await this.#agent?.agent.destroy();
  }

  #secretPath(): string {
    const { namespace, secret } = this.#settings;
    return `/api/v1/namespaces/${namespace}/secrets/${secret}`;
  }

  #configurationPath(): string {
    const { configuration } = this.#settings;
    return `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${configuration}`;
  }

  async #write(path: string, body: unknown, type: string): Promise<boolean> {
    try {
      const answer = await this.#ask('PATCH', path, body, type);
      // Gone since it was read.
      return answer !== undefined;
    } catch (error) {
      if (error instanceof RequestError && error.status === 409) return false;
      throw error;
    }
  }

  /** @returns the answer; undefined for 404 */
  async #ask(method: 'GET' | 'PATCH', path: string, body?: unknown, type?: string): Promise<unknown> {
    const { server, serviceAccountDir } = this.#settings;
    const what = `${method} ${path.replace(/\?.*/, '')}`;
    const [token, ca] = await Promise.all(
      ['token', 'ca.crt'].map((file) => readFile(join(serviceAccountDir, file), 'utf8')),
    ).catch((error: Error) => {
      throw new RequestError(`${what}: ${error.message}`, undefined, { cause: error });
    });
    const { status, text } = await this.#agentFor(ca ?? '')
      .request({
        origin: server,
        path,
        method,
        headers: {
          accept: 'application/json',
          authorization: `Bearer ${token?.trim()}`,
          ...(type !== undefined && { 'content-type': type }),
        },
        body: body === undefined ? null : JSON.stringify(body),
        signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
      })
      .then(async (answer) => ({ status: answer.statusCode, text: await answer.body.text() }))
      .catch((error: Error) => {
        throw new RequestError(`${what}: ${error.message || error.name}`, undefined, { cause: error });
      });
    if (status === 404) return undefined;
    const parsed = parse(text);
    if (status < 300 && parsed !== undefined) return parsed;
    const said = Status.safeParse(parsed);
    throw new RequestError(`${what}: ${status}: ${said.success ? said.data.message : 'no Status'}`, status);
  }

  #agentFor(ca: string): Agent {
    if (this.#agent?.ca === ca) return this.#agent.agent;
    // Requests that are under way end with the agent that they began with.
    void this.#agent?.agent.close();
    const agent = new Agent({
      connections: 2,
      headersTimeout: REQUEST_TIMEOUT_MS,
      bodyTimeout: REQUEST_TIMEOUT_MS,
      maxResponseSize: MAX_RESPONSE_BYTES,
      connect: { timeout: REQUEST_TIMEOUT_MS, ca },
    });
    this.#agent = { ca, agent };
    return agent;
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text) ?? undefined;
  } catch {
    return undefined;
  }
}
