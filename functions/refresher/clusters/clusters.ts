// Which clusters a run has: those that are registered, and the EKS clusters that are tagged.

import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager';
import type { Renewal } from '../../../contract/refresher-api.ts';
import { abortable } from '../../../lib/abort.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import { type RegisteredAccess, readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import { type AccessSettings, type TokenSources, usableAccess, usableEksAccess } from '../access/access.ts';
import type { Eks, EksScope } from '../access/eks.ts';
import { scopeName } from '../access/eks.ts';
import type { UsableAccess } from '../kubernetes/client.ts';
import { renewToken } from '../tokens/renewal.ts';
import { listClusters, Registrations } from './registered-clusters.ts';

export interface ClusterSources extends TokenSources {
  readonly secrets: SecretsManagerClient;
}

export interface ClusterSettings extends AccessSettings {
  /** Where EKS clusters are looked for that are tagged. */
  readonly eksDiscovery: readonly EksScope[];
  /** What a cluster's turn may take, and looking for clusters in one place. */
  readonly clusterDeadlineMs: number;
}

/** A cluster before its turn. */
export interface Cluster {
  /** As it is registered; of a tagged EKS cluster, its ARN. */
  readonly name: string;
  readonly isPaused: boolean;
  /** Once, when its turn has come. @param signal ends it */
  open(signal: AbortSignal): OpenCluster;
}

/** A cluster in its turn. What was read of it goes with it. */
export interface OpenCluster {
  /** Where it is registered: what the kubeconfig says. @throws Error that says why it cannot be used */
  registered?(): Promise<RegisteredAccess>;
  /** @throws Error that says why it cannot be reached */
  access(): Promise<UsableAccess>;
  /** Where it is registered: renews the token if that is due. Rejects never. @param now milliseconds since the epoch */
  renew?(now: number): Promise<Renewal | undefined>;
}

/** Where tagged clusters were looked for. */
export interface Scope {
  readonly name: string;
  /** Why not all could be found; empty where all were. */
  readonly failure: string;
  readonly clusters: readonly Cluster[];
}

export interface Selection {
  readonly clusters: readonly Cluster[];
  /** The scopes that the clusters are from; none where an event names clusters. */
  readonly scopes: readonly Scope[];
}

/** Names that are asked for and that no cluster has. */
export class NotRegisteredError extends Error {
  override readonly name = 'NotRegisteredError';
  readonly names: readonly string[];
  /** All that there are. */
  readonly registered: readonly string[];
  /** Why not all tagged clusters could be found, where it is so. */
  readonly failures: readonly string[];

  constructor(names: readonly string[], registered: readonly string[], failures: readonly string[]) {
    super(
      [
        `Not registered: ${names.join(', ')}. Registered are: ${registered.join(', ') || 'none'}.`,
        ...failures.map((failure) => `${failure}.`),
      ].join(' '),
    );
    this.names = names;
    this.registered = registered;
    this.failures = failures;
  }
}

/**
 * The clusters of a run, in the order of their turns.
 *
 * @param only the names that are asked for, where not all are
 * @throws NotRegisteredError where a name is none; Error where the registered ones cannot be listed
 */
export async function selectClusters(
  { secrets, ...signers }: ClusterSources,
  only: readonly string[] | undefined,
  settings: ClusterSettings,
  signal: AbortSignal,
): Promise<Selection> {
  const listed = await listClusters(secrets, signal);
  const chosen = only ? listed.filter(({ name }) => only.includes(name)) : listed;
  const names = chosen.map(({ name }) => name);
  const values = new Registrations(secrets, names, signal);
  const registered = chosen.map(({ name, isPaused, context }, index): Cluster => {
    const open = (turn: AbortSignal): OpenCluster => {
      const taken = values.take(index, turn).catch((error: Error) => error);
      const read = async () => {
        const value = await taken;
        if (value instanceof Error) throw new ClusterError('kubeconfig', value.message, { cause: value });
        return readKubeconfig(value.kubeconfig, context);
      };
      const access = async () => usableAccess(name, await read(), signers, settings, turn);
      const renew = async (now: number): Promise<Renewal | undefined> => {
        const value = await taken;
        if (value instanceof Error) return { outcome: 'failed', reason: value.message };
        return renewToken(secrets, { name, context, ...value }, access, now, turn);
      };
      return { registered: read, access, renew };
    };
    return { name, isPaused, open };
  });
  const missing = new Set(only).difference(new Set(names));
  if (only && missing.size === 0) return { clusters: registered, scopes: [] };

  const scopes = await Promise.all(
    settings.eksDiscovery.map((scope) => lookFor(scope, signers.eks, settings, signal)),
  );
  const tagged = scopes.flatMap(({ clusters }) => clusters);
  if (!only) return { clusters: [...registered, ...tagged], scopes };
  const asked = tagged.filter(({ name }) => missing.has(name));
  const unknown = missing.difference(new Set(asked.map(({ name }) => name)));
  if (unknown.size === 0) return { clusters: [...registered, ...asked], scopes: [] };
  const all = [...listed, ...tagged].map(({ name }) => name);
  const failures = scopes.flatMap(({ name, failure }) => (failure ? `${name}: ${failure}` : []));
  throw new NotRegisteredError([...unknown], all, failures);
}

async function lookFor(
  scope: EksScope,
  eks: Eks,
  { allowLocalServers, clusterDeadlineMs }: ClusterSettings,
  runSignal: AbortSignal,
): Promise<Scope> {
  const name = scopeName(scope);
  // As long as a cluster's turn: the turns wait for it.
  const signal = AbortSignal.any([runSignal, AbortSignal.timeout(clusterDeadlineMs)]);
  const found = await abortable(eks.tagged(scope, signal), signal).catch(() => undefined);
  if (!found) return { name, failure: 'no answer in time', clusters: [] };
  const { clusters, failures } = found;
  return {
    name,
    failure: failures.join('; '),
    clusters: clusters.map(({ arn, isPaused, access }) => ({
      name: arn,
      isPaused,
      open: () => ({ access: async () => usableEksAccess(await access(), allowLocalServers) }),
    })),
  };
}
