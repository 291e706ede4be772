// The refresher function's API: the answers that the function gives and the command line reads (docs/operations.md).
import type { DueReason } from './freshness.ts';

/**
 * - `kubeconfig`: what is registered cannot be had or used; or EKS or STS, asked for it, say no
 * - `setting`: a setting of the CDK app is missing, or one of the account that it needs
 * - `reach`: no answer, or one that is none of the API server's; also that the time was up
 * - `credential`: the API server takes nobody for it (401)
 * - `permissions`: the API server knows who it is, and forbids what a turn needs (403, in its own words)
 */
export type FailedAt = 'kubeconfig' | 'setting' | 'reach' | 'credential' | 'permissions';

export type Outcome = 'refreshed' | 'partial' | 'not-mutated' | 'refused' | 'gone' | 'not-attempted';

export interface SecretResult {
  readonly secret: string;
  /** Why it was asked for. */
  readonly due: DueReason | 'forced';
  readonly outcome: Outcome;
  /** Why it was not refreshed. */
  readonly reason?: string;
  readonly expiresAt?: string | undefined;
}

export interface Renewal {
  /** `superseded`: somebody has changed the registration meanwhile, and theirs stays. */
  readonly outcome: 'not-due' | 'renewed' | 'superseded' | 'not-renewable' | 'failed';
  readonly reason?: string;
  /** When the registered token expires, where it says so (RFC 3339). */
  readonly expiresAt?: string;
  /** There should be another token by now. */
  readonly isLate?: boolean;
}

export interface Inspection {
  /** The API server's origin: scheme, host and port. */
  readonly server: string;
  /** What is registered; of a tagged EKS cluster, `eks`. */
  readonly identity: 'token' | 'certificate' | 'eks' | 'keyless';
  /** Who the API server takes the refresher for. */
  readonly username?: string;
  readonly groups?: readonly string[];
  /** UID of the Namespace kube-system: the same as long as the cluster lives, and no other cluster's. */
  readonly clusterUid?: string;
  /** Such as v1.36.3. */
  readonly kubernetesVersion?: string;
  /** How far the API server's clock is ahead of the refresher's. */
  readonly clockSkewSeconds?: number;
  /** What a turn needs and may not, such as "list namespaces", "patch secrets in team-a"; empty where it may all. */
  readonly forbidden?: readonly string[];
  /** What the token says of itself that is shown; absent where it says nothing, or there is none. */
  readonly token?: InspectedToken;
}

export interface InspectedToken {
  /** RFC 3339; absent: never, as far as it says. */
  readonly expiresAt?: string;
  /** Whether the refresher can ask for the next one. */
  readonly renewable: boolean;
  readonly reason?: string;
}

export interface ClusterSummary {
  readonly cluster: string;
  readonly served: boolean;
  readonly failed: boolean;
  readonly isPaused?: boolean;
  readonly reason?: string;
  /** Where it failed, if it was not served. */
  readonly failedAt?: FailedAt;
  readonly renewal?: Renewal;
  readonly managed: number;
  readonly due: number;
  readonly outcomes: Readonly<Partial<Record<Outcome, number>>>;
  readonly soonestExpiry?: string;
  /** Failures in a row, with this one, and since when; absent where it has not failed. */
  readonly failures?: number;
  readonly failingSince?: string;
  /** When its Secrets could be listed last, where that was not now. */
  readonly reachedAt?: string;
  /** Why none of this could be stored. */
  readonly stateNotSaved?: string;
  /** What else was found out, where that was asked for. */
  readonly inspection?: Inspection;
  /** There is an inspection, and the answer cannot hold it: it can, where fewer clusters are asked for. */
  readonly inspectionNotListed?: true;
  /** The first Secrets that were not refreshed; the log has all. */
  readonly problems: readonly SecretResult[];
  /** How many more of these there would be if the answer could hold more clusters' problems. */
  readonly problemsNotListed?: number;
  /** Where an event names clusters: what was requested, or would have been; as many as the answer can hold. */
  readonly secrets?: readonly SecretResult[];
  /** How many more there were. */
  readonly secretsNotListed?: number;
}

/** Times are RFC 3339. What is not there is not known, or was not so. */
export interface ClusterStatus {
  /** As it is registered; the ARN of a tagged EKS cluster; what a place is called where such are looked for. */
  readonly name: string;
  readonly source: 'registered' | 'eks' | 'eks-discovery';
  /** Of a registered cluster by its tag now, of others as it was in the last look. */
  readonly isPaused: boolean;
  /** By the secret's tags. */
  readonly context?: string;
  readonly clusterUid?: string;
  /** When its last turn began; absent until there was one. */
  readonly lookedAt?: string;
  /** When its Secrets could be listed last. */
  readonly reachedAt?: string;
  /** Managed Secrets that were seen then, and how many of them were due. */
  readonly managed?: number;
  readonly due?: number;
  /** Of the credentials that were seen last. */
  readonly soonestExpiry?: string;
  /** In a row; 0 where the last look was none. */
  readonly failures?: number;
  readonly failingSince?: string;
  /** Of the last failure. */
  readonly reason?: string;
  readonly pausedSince?: string;
  /** Of the registered token, as it was in the last look. */
  readonly tokenExpiresAt?: string;
}

export interface RevokeResult {
  readonly cluster: string;
  /**
   * `revoked`: the API server refuses the registered token, and every one that is bound to the same Secret.
   * `refused-already`: it refused the registered token before anything was done. Others may be bound to the Secret.
   */
  readonly outcome: 'revoked' | 'refused-already' | 'nothing-to-revoke' | 'failed';
  /** What the registered token is bound to, by its own word. */
  readonly secret?: { readonly namespace: string; readonly name: string };
  /** Why it was not revoked, or what was there already. */
  readonly reason?: string;
}

/** To `refresh` and `inspect`. */
export interface RefreshAnswer {
  readonly clusters: readonly ClusterSummary[];
  /** Namespaces that the event named and that are enabled in none of the clusters. */
  readonly namespacesNotEnabled?: readonly string[];
}

/** To `status`. */
export interface StatusAnswer {
  readonly clusters: readonly ClusterStatus[];
}

/** To `revoke`. */
export interface RevokeAnswer {
  readonly revoked: readonly RevokeResult[];
}

/** To an event that names a cluster which there is not: nothing was done for any. */
export interface NotRegisteredAnswer {
  readonly clusters: readonly [];
  readonly notRegistered: {
    readonly names: readonly string[];
    /** All names that there are. */
    readonly registered: readonly string[];
    /** Where tagged clusters could not all be found, and why. */
    readonly failures?: readonly string[];
  };
}

export type Answer = RefreshAnswer | StatusAnswer | RevokeAnswer | NotRegisteredAnswer;
