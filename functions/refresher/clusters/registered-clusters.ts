// Reads the registered clusters from AWS Secrets Manager: each is a secret under one prefix, with a kubeconfig as its value
// and the cluster's other settings as its tags.

import {
  BatchGetSecretValueCommand,
  type BatchGetSecretValueCommandOutput,
  DescribeSecretCommand,
  GetSecretValueCommand,
  type GetSecretValueCommandInput,
  paginateListSecrets,
  type SecretsManagerClient,
  type Tag,
} from '@aws-sdk/client-secrets-manager';
import pMap from 'p-map';
import { TAG } from '../../../contract/names.ts';
import { abortable } from '../../../lib/abort.ts';
import { describeAwsError } from '../../../lib/aws/errors.ts';
import { awsRequestMs } from '../../../lib/aws/request-limits.ts';
import { prefixOf } from '../tokens/cluster-secrets.ts';

/** The most secrets that one BatchGetSecretValue returns (Secrets Manager API reference). */
const BATCH = 20;
/** Requests for single secrets at the same time, because Secrets Manager throttles them. */
const DESCRIBED_AT_ONCE = 8;

export interface RegisteredCluster {
  readonly name: string;
  /** The refresher sends it no requests until the tag is removed. */
  readonly isPaused: boolean;
  /** `register` has not completed: runs must not use it. */
  readonly isRegistering?: true;
  /** The kubeconfig's context to use instead of the current one. */
  readonly context?: string;
  /** By its tag, for the command line; the refresher does not use it. */
  readonly clusterUid?: string;
  /** Why Secrets Manager did not describe it. */
  readonly failure?: string;
}

/** A registered secret's value. */
export interface Registration {
  readonly kubeconfig: string;
  /** The version of the secret. */
  readonly versionId: string;
}

/** A list may lack the changes of the last five minutes (Secrets Manager API reference, ListSecrets). */
export const LIST_LAG_MS = 5 * 60_000;

/** The registered clusters as Secrets Manager lists them, sorted by name. */
export async function listClusters(
  client: SecretsManagerClient,
  signal: AbortSignal,
): Promise<RegisteredCluster[]> {
  const prefix = prefixOf(client);
  const clusters: RegisteredCluster[] = [];
  const pages = paginateListSecrets(
    { client, pageSize: 100 },
    { Filters: [{ Key: 'name', Values: [prefix] }] },
    { abortSignal: signal },
  );
  for await (const { SecretList } of pages) {
    for (const { Name, Tags } of SecretList ?? []) {
      // The prefix itself is no cluster. All other matches begin with it in AWS, but not in every emulator of AWS.
      if (!Name?.startsWith(prefix) || Name === prefix) continue;
      clusters.push(clusterOf(Name.slice(prefix.length), Tags));
    }
  }
  return clusters.sort((a, b) => (a.name < b.name ? -1 : 1));
}

/**
 * The registered clusters among the names, sorted by name. Each is read by its name, because lists do not show a recent
 * registration, tag or deletion. One that Secrets Manager does not describe has its `failure`, so that the others are served.
 */
export async function findClusters(
  client: SecretsManagerClient,
  names: readonly string[],
  signal: AbortSignal,
): Promise<RegisteredCluster[]> {
  // Other names, such as ARNs, cannot be names of secrets: AWS rejects the request.
  const possible = [...new Set(names)].filter((name) => /^[\w/+=.@-]+$/.test(name)).sort();
  const found = await pMap(
    possible,
    async (name) => {
      const command = new DescribeSecretCommand({ SecretId: `${prefixOf(client)}${name}` });
      const secret = await client.send(command, { abortSignal: signal }).catch((error: Error) => error);
      if (!(secret instanceof Error)) return secret.DeletedDate ? [] : [clusterOf(name, secret.Tags)];
      if (secret.name === 'ResourceNotFoundException') return [];
      return [{ name, isPaused: false, failure: describeAwsError(secret) }];
    },
    { concurrency: DESCRIBED_AT_ONCE },
  );
  return found.flat();
}

function clusterOf(name: string, list: readonly Tag[] = []): RegisteredCluster {
  const tags = Object.fromEntries(list.map(({ Key, Value }) => [Key, Value]));
  const { [TAG.context]: context, [TAG.clusterUid]: clusterUid } = tags;
  return {
    name,
    isPaused: tags[TAG.paused] === 'true',
    ...(tags[TAG.registering] === 'true' && { isRegistering: true }),
    // Tags may have empty values.
    ...(context && { context }),
    ...(clusterUid && { clusterUid }),
  };
}

/**
 * The value of one version of a registered secret.
 *
 * @param version default: the current one
 * @throws Error whose message contains nothing of the value; its cause is the error of AWS
 */
export async function readVersion(
  client: SecretsManagerClient,
  name: string,
  version: Pick<GetSecretValueCommandInput, 'VersionId' | 'VersionStage'>,
  signal: AbortSignal,
): Promise<Registration> {
  const command = new GetSecretValueCommand({ SecretId: `${prefixOf(client)}${name}`, ...version });
  const value = await client.send(command, { abortSignal: signal }).catch((cause: Error) => {
    throw new Error(describeAwsError(cause), { cause });
  });
  const read = registration(value);
  if (read instanceof Error) throw read;
  return read;
}

/**
 * The values of registered secrets. They are read in batches as the cluster runs start, so that a run over thousands of
 * clusters has only a few batches in memory.
 */
export class Registrations {
  readonly #client: SecretsManagerClient;
  readonly #names: readonly string[];
  readonly #batchMs: number;
  readonly #signal: AbortSignal;
  readonly #batches = new Map<number, { values: Promise<Batch>; left: number }>();

  /**
   * @param names of the clusters, in the order in which their runs start
   * @param clusterDeadlineMs the time limit of a cluster run
   * @param signal ends all requests
   */
  constructor(
    client: SecretsManagerClient,
    names: readonly string[],
    clusterDeadlineMs: number,
    signal: AbortSignal,
  ) {
    this.#client = client;
    this.#names = names;
    this.#batchMs = awsRequestMs(clusterDeadlineMs);
    this.#signal = signal;
  }

  /**
   * Returns one cluster's value. Call it once for each cluster.
   *
   * @param index the cluster's, among the names
   * @param signal ends the wait of this cluster
   * @throws Error whose message contains nothing of the value
   */
  async take(index: number, signal: AbortSignal): Promise<Registration> {
    const name = this.#names[index] ?? '';
    const batch = await abortable(this.#batchOf(index), signal);
    // A secret that is neither among the batch's values nor among its errors is read alone.
    const value =
      batch.get(`${prefixOf(this.#client)}${name}`) ?? (await readVersion(this.#client, name, {}, signal));
    if (value instanceof Error) throw value;
    return value;
  }

  #batchOf(index: number): Promise<Batch> {
    const start = index - (index % BATCH);
    const names = this.#names.slice(start, start + BATCH);
    const batch = this.#batches.get(start) ?? { values: this.#readBatch(names), left: names.length };
    batch.left -= 1;
    if (batch.left > 0) this.#batches.set(start, batch);
    else this.#batches.delete(start);
    return batch.values;
  }

  async #readBatch(names: readonly string[]): Promise<Batch> {
    const abortSignal = AbortSignal.any([this.#signal, AbortSignal.timeout(this.#batchMs)]);
    const command = new BatchGetSecretValueCommand({
      SecretIdList: names.map((name) => `${prefixOf(this.#client)}${name}`),
    });
    // If the batch fails as a whole, each of its values is read alone.
    const { SecretValues = [], Errors = [] } = await abortable(
      this.#client.send(command, { abortSignal }),
      abortSignal,
    ).catch((): BatchGetSecretValueCommandOutput => ({ $metadata: {} }));
    return new Map([
      ...SecretValues.map((value) => [value.Name, registration(value)] as const),
      ...Errors.map(
        ({ SecretId, ErrorCode, Message }) => [SecretId, new Error(`${ErrorCode}: ${Message}`)] as const,
      ),
    ]);
  }
}

/** By the secrets' full names. */
type Batch = ReadonlyMap<string | undefined, Registration | Error>;

function registration(value: {
  SecretString?: string | undefined;
  VersionId?: string | undefined;
}): Registration | Error {
  if (value.SecretString) return { kubeconfig: value.SecretString, versionId: value.VersionId ?? '' };
  return new Error('the registered secret has no text: store the kubeconfig as its SecretString');
}
