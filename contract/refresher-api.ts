// The refresher's function API: the events that callers send, and the answers and errors that the function returns.
// Programs branch on codes; the sentence beside a code is for people and may change at any time.
import type { DenialCause } from './denials.ts';
import type { DueReason } from './freshness.ts';

// ---- Events

/** Refreshes the Secrets that are due. The empty event, which the schedule sends, refreshes all clusters. */
export interface RefreshEvent {
  readonly action?: 'refresh';
  /** Only these clusters: registered names, ARNs of tagged EKS clusters. */
  readonly clusters?: readonly string[];
  /** Only these namespaces of the clusters. */
  readonly namespaces?: readonly string[];
  /** The API servers and the webhook process each request, and nothing is stored. */
  readonly dryRun?: boolean;
  /** Refreshes every managed Secret, due or not, with credentials that are not from the webhook's cache. */
  readonly force?: boolean;
}

/** Dry run that also reports, for each cluster, how the API server identifies the refresher and what it may do. */
export interface InspectEvent {
  readonly action: 'inspect';
  readonly clusters?: readonly string[];
  /** Inspects this version of the registered secret in place of the current one. Requires exactly one of `clusters`. */
  readonly version?: string;
}

/** Reads the stored state of all clusters, without a request to any API server. */
export interface StatusEvent {
  readonly action: 'status';
}

/** Ends the registered tokens of these clusters, paused ones included. */
export interface RevokeEvent {
  readonly action: 'revoke';
  readonly clusters: readonly string[];
}

export type RefresherEvent = RefreshEvent | InspectEvent | StatusEvent | RevokeEvent;
export type Action = NonNullable<RefresherEvent['action']>;

/**
 * The function's alias that accepts every event. IAM cannot tell events apart, but it can tell the alias from the function:
 * who may invoke only the function cannot end tokens.
 */
export const OPERATOR_ALIAS = 'operator';

/** Whether only the alias accepts an event: one that ends tokens, or replaces credentials that are still valid. */
export function needsOperatorAlias({
  action,
  force,
  dryRun,
}: {
  readonly action?: Action;
  readonly force?: boolean;
  readonly dryRun?: boolean;
}): boolean {
  return action === 'revoke' || (force === true && dryRun !== true);
}

// ---- Errors of the invocation

/**
 * The `errorType` of a failed invocation (Lambda, `FunctionError`). Errors of AWS that the function does not handle have
 * the AWS SDK's error name there, a function that ran out of time has Lambda's `Sandbox.Timedout`.
 */
export const ERROR_TYPE = {
  /** Of functions of earlier versions; others answer with an `InvalidEventAnswer`. */
  invalidEvent: 'InvalidEventError',
  /** A run over all clusters could not list the Secrets of any cluster that is not paused. */
  noClusterServed: 'NoClusterServedError',
  /** A run over all clusters could not store the states of most clusters. */
  stateNotSaved: 'StateNotSavedError',
} as const;

// ---- Codes

/**
 * Where a cluster failed whose Secrets could not be listed. The place suggests who can repair it; the code says why.
 *
 * - `kubeconfig`: the registered secret cannot be read or used, or EKS or STS refuse a request made for it
 * - `setting`: a setting of the CDK app, or of the AWS account, is missing
 * - `reach`: no response, or none from the API server; also that the time ran out
 * - `credential`: the API server does not accept the credential (401)
 * - `permissions`: the API server forbids a request that a run needs (403)
 */
export type FailedAt = 'kubeconfig' | 'setting' | 'reach' | 'credential' | 'permissions';

/** Why something failed: a cluster, a request for one Secret, a renewal, a revocation. */
export const FAILURE_CODES = [
  // The registration
  /** Secrets Manager did not describe or return the registered secret, or it has no text. */
  'registration-unreadable',
  /** `register` has not completed, so no run uses the registration. */
  'registration-incomplete',
  /** The kubeconfig cannot be parsed, or uses something that the refresher does not support. */
  'kubeconfig-unusable',
  /** A setting of the CDK app, or of the AWS account, is missing. */
  'setting-missing',
  /** EKS or STS refused a request (HTTP 4xx, but throttling). */
  'aws-refused',
  /** EKS or STS did not respond, throttled the request or failed. */
  'aws-unavailable',
  /** The API server of the tagged EKS cluster has a private endpoint only. */
  'endpoint-private',
  /** EKS names no endpoint for the cluster, because it is being created or deleted. */
  'endpoint-missing',

  // Time
  /** The run's time ran out before the cluster's run began. */
  'run-time-up',
  /** The cluster's batch was ended, or failed, before it had reported: a run in batches (setting `scaleOut`). */
  'batch-ended',
  /** The cluster's deadline passed. */
  'cluster-time-up',
  /** SIGTERM ended the run. Only of the refresher in the cluster. */
  'run-ended',

  // The API server
  /** No HTTP response: name resolution, connection, TLS, proxy, or a response that broke off. */
  'unreachable',
  /** The response is not the API server's: a proxy, a captive portal or another server sent it. */
  'unexpected-response',
  /** The list of namespaces or Secrets has more pages than any cluster's. */
  'list-endless',
  /** A response, or all responses together, are larger than those of any cluster. */
  'too-much-data',
  /** HTTP 401. */
  'unauthorized',
  /** HTTP 403 by the API server itself: RBAC, or an admission plugin other than the webhook. */
  'forbidden',
  /** HTTP 404. */
  'not-found',
  /** HTTP 409. */
  'conflict',
  /** HTTP 422, and any other 4xx that has no code of its own. */
  'invalid',
  /** HTTP 429. */
  'throttled',
  /** HTTP 5xx without a more specific code. */
  'server-error',

  // The webhook
  /** The API server could not call an admission webhook. */
  'webhook-unreachable',
  /** The webhook denied the request: `causes` say why. */
  'webhook-denied',
  /** The API server accepted the request without calling the webhook: no credentials were written. */
  'not-mutated',
  /** A Secret of the name that the refresher creates exists, and is not managed. */
  'secret-name-taken',
  /** At least one Secret was not refreshed; `problems` have each Secret's own outcome. Only of clusters. */
  'secrets-not-refreshed',

  // Tokens
  /** The registered token has passed three quarters of its life and is not renewed; `renewal` says why. Only of clusters. */
  'token-late',
  /** The registered token is not a ServiceAccount token that is bound to a Secret. */
  'token-not-bound',
  /** The API server answered with a token of another ServiceAccount, or bound to another Secret. */
  'token-mismatch',
  /** The next token would not expire later than the present one. */
  'token-not-longer',
  /** Secrets Manager did not store the next token. */
  'token-not-stored',
  /** The operator, or another run, changed the registration during the renewal. */
  'registration-changed',
  /** The Secret that the token is bound to is deleted, and the API server still accepts the token. */
  'token-still-accepted',
  /** The registered identity is a client certificate, which is valid until it expires. */
  'client-certificate',
  /** The cluster's tokens are made for each run and expire within minutes. */
  'short-lived-token',

  // Discovery
  /** Tagged EKS clusters could not all be found. */
  'discovery-failed',
  /** The search for tagged EKS clusters did not end before the deadline. */
  'discovery-time-up',

  /** None of the above; the sentence beside it is all that is known. */
  'unknown',
] as const;

export type FailureCode = (typeof FAILURE_CODES)[number];

/**
 * What became of one Secret.
 *
 * - `refreshed`: the webhook wrote new credentials
 * - `partial`: the webhook wrote credentials, and at least one registry's are still due or were removed
 * - `not-mutated`: the API server accepted the request, and no credentials were written
 * - `refused`: the API server or an admission webhook refused the request, or did not respond
 * - `provisioned`: the refresher created the Secret, which the namespace lacked, and the webhook wrote credentials
 * - `not-provisioned`: the namespace lacks the Secret and cannot have it: another Secret has the name, the namespace is entitled
 *   to no registry, or its quota of Secrets is used up
 * - `gone`: the Secret, or its namespace, was deleted after the refresher listed it
 * - `not-attempted`: the cluster's time ran out, or the circuit breaker stopped the cluster or the namespace
 */
export type Outcome =
  | 'refreshed'
  | 'partial'
  | 'not-mutated'
  | 'refused'
  | 'provisioned'
  | 'not-provisioned'
  | 'gone'
  | 'not-attempted';

/** The outcomes that do not make a cluster fail. */
export const OUTCOMES_WITHOUT_FAILURE: ReadonlySet<Outcome> = new Set([
  'refreshed',
  'provisioned',
  'not-provisioned',
  'gone',
]);

// ---- Answers. Times are RFC 3339. A field is absent where its value is unknown or does not apply.

export interface SecretResult {
  /** NAMESPACE/NAME */
  readonly secret: string;
  /** Why the refresher requested a refresh; `missing` if it was to create the Secret. */
  readonly due: DueReason | 'forced' | 'missing';
  readonly outcome: Outcome;
  /** Why it was not refreshed, as a sentence. */
  readonly reason?: string;
  /** Why the request was refused; only with the outcomes `refused`, `not-mutated` and `not-provisioned`. */
  readonly code?: FailureCode;
  /** The webhook's own causes, if the webhook denied the request. */
  readonly causes?: readonly DenialCause[];
  /** With the outcome `partial`: the hosts of the registries that are still due or were removed. */
  readonly registries?: readonly string[];
  readonly expiresAt?: string | undefined;
}

export interface Renewal {
  /** `superseded`: the registration changed during the renewal, and the changed one stays. */
  readonly outcome: 'not-due' | 'renewed' | 'superseded' | 'not-renewable' | 'failed';
  readonly reason?: string;
  /** With the outcomes `superseded`, `not-renewable` and `failed`. */
  readonly code?: FailureCode;
  /** When the registered token expires, if the token states it. */
  readonly expiresAt?: string;
  /** The token should have been renewed long ago: the cluster has failed. */
  readonly isLate?: boolean;
}

export interface Inspection {
  /** The API server's origin: scheme, host and port. */
  readonly server: string;
  /** The kind of identity that is registered; `eks` for a tagged EKS cluster. */
  readonly identity: 'token' | 'certificate' | 'eks' | 'keyless';
  /** The user that the API server authenticates the refresher as. */
  readonly username?: string;
  readonly groups?: readonly string[];
  /** UID of the Namespace kube-system, which is unique to a cluster and stays for its life. */
  readonly clusterUid?: string;
  /** Such as v1.36.3. */
  readonly kubernetesVersion?: string;
  /** How far the API server's clock is ahead of the refresher's. */
  readonly clockSkewSeconds?: number;
  /** Permissions that a run needs and lacks, such as "list namespaces", "patch secrets in team-a"; empty if none. */
  readonly forbidden?: readonly string[];
  /** Whether it may list the Secrets of every namespace, and thereby read them; else only of some. */
  readonly readsEverySecret?: boolean;
  /** Claims of the registered token; absent if it is not a JWT. */
  readonly token?: InspectedToken;
}

export interface InspectedToken {
  /** Absent if the token states no expiry. */
  readonly expiresAt?: string;
  /** Whether the refresher can request the next token. */
  readonly renewable: boolean;
  readonly reason?: string;
  /** Why it is not renewable. */
  readonly code?: FailureCode;
}

export interface ClusterSummary {
  readonly cluster: string;
  /** The refresher could list the cluster's Secrets. */
  readonly served: boolean;
  /** It was not served, something due was not refreshed, or its token is late. */
  readonly failed: boolean;
  readonly isPaused?: boolean;
  /** Why it failed as a whole, or that it is paused. A single Secret's reason is in `problems`. */
  readonly reason?: string;
  /** Where it failed, if it was not served. */
  readonly failedAt?: FailedAt;
  /** Why it failed, each code once, in the order of `reason`. Present if and only if `failed`. */
  readonly codes?: readonly FailureCode[];
  readonly renewal?: Renewal;
  /** Managed Secrets, and those for which a refresh, or the creation, was requested. */
  readonly managed: number;
  readonly due: number;
  readonly outcomes: Readonly<Partial<Record<Outcome, number>>>;
  /** Why the refresher could not find out whether to create Secrets. */
  readonly provisioningUnknown?: string;
  readonly soonestExpiry?: string;
  /** Consecutive failures including this one, and the time of the first; absent if it has not failed. */
  readonly failures?: number;
  readonly failingSince?: string;
  /** When the refresher last listed its Secrets, if not in this run. */
  readonly reachedAt?: string;
  /** Why the cluster's state could not be stored. */
  readonly stateNotSaved?: string;
  /** The AWS SDK's name of that error, such as `AccessDeniedException` or `TimeoutError`. */
  readonly stateNotSavedError?: string;
  /** Only in the answer to `inspect`. */
  readonly inspection?: Inspection;
  /** The answer was too large for the inspection; an event that names fewer clusters returns it. */
  readonly inspectionNotListed?: true;
  /** The first Secrets that were not refreshed; the function's log has all. */
  readonly problems: readonly SecretResult[];
  /** How many of these were left out because the answer was too large. */
  readonly problemsNotListed?: number;
  /** If the event names clusters: the result of every request, as far as the answer can hold them. */
  readonly secrets?: readonly SecretResult[];
  /** How many results were left out because the answer was too large. */
  readonly secretsNotListed?: number;
}

/** Where the refresher knows a cluster from: a registered secret, an EKS tag; `eks-discovery` is a discovery target. */
export const SOURCES = ['registered', 'eks', 'eks-discovery'] as const;

/** The stored state of a cluster, or of a discovery target, and its registration as it is now. */
export interface ClusterStatus {
  /** The registered name; the ARN of a tagged EKS cluster; the name of a discovery target. */
  readonly name: string;
  readonly source: (typeof SOURCES)[number];
  /** Of a registered cluster by its tag now, of others as of the last run. */
  readonly isPaused: boolean;
  /** `register` has not completed, so no run uses the registration. */
  readonly isRegistering?: true;
  /** By the registered secret's tags. */
  readonly context?: string;
  readonly clusterUid?: string;
  /** When its last run began; absent before the first. */
  readonly lookedAt?: string;
  /** When the refresher last listed its Secrets. */
  readonly reachedAt?: string;
  /** Managed Secrets as of then, and how many of them were due. */
  readonly managed?: number;
  readonly due?: number;
  /** The soonest expiry of the credentials that were last observed. */
  readonly soonestExpiry?: string;
  /** Consecutive failures; 0 if the last run did not fail. */
  readonly failures?: number;
  readonly failingSince?: string;
  /** Why the last run failed; absent if it did not. */
  readonly reason?: string;
  /** The codes of that failure, each once. */
  readonly codes?: readonly FailureCode[];
  readonly pausedSince?: string;
  /** Of the registered token, as of the last run. */
  readonly tokenExpiresAt?: string;
}

export interface RevokeResult {
  readonly cluster: string;
  /**
   * - `revoked`: the API server refuses the registered token, and every token that is bound to the same Secret
   * - `refused-already`: the API server refused the registered token from the start; other tokens may be bound to the Secret
   */
  readonly outcome: 'revoked' | 'refused-already' | 'nothing-to-revoke' | 'failed';
  /** The Secret that the registered token is bound to, by the token's own claims. */
  readonly secret?: { readonly namespace: string; readonly name: string };
  /** Why it was not revoked. */
  readonly reason?: string;
  /** Present with every outcome but `revoked`. */
  readonly code?: FailureCode;
}

/** To `refresh` and `inspect`. */
export interface RefreshAnswer {
  readonly clusters: readonly ClusterSummary[];
  /** Namespaces that the event names and that are enabled in none of the clusters. */
  readonly namespacesNotEnabled?: readonly string[];
}

/** To `status`. */
export interface StatusAnswer {
  /** The function's version; absent in answers of functions of earlier versions. */
  readonly version?: string;
  readonly clusters: readonly ClusterStatus[];
  /** Absent if they could not be read, and in answers of functions of earlier versions. */
  readonly subscribers?: Subscribers;
}

/** The subscriptions of the topic to which alarms and announcements go. SNS counts them with a delay. */
export interface Subscribers {
  readonly topicArn: string;
  readonly confirmed: number;
  /** Those that wait for their confirmation. */
  readonly pending: number;
}

/** To `revoke`. */
export interface RevokeAnswer {
  readonly revoked: readonly RevokeResult[];
}

/** A discovery target where tagged EKS clusters could not all be found. */
export interface DiscoveryFailure {
  /** The target's name: its region, with the role if it has one. */
  readonly target: string;
  readonly code: FailureCode;
  readonly reason: string;
}

/** To an event that names an unknown cluster. The function did nothing, for any cluster. */
export interface NotRegisteredAnswer {
  readonly clusters: readonly [];
  readonly notRegistered: {
    readonly names: readonly string[];
    /** The names of all clusters. */
    readonly registered: readonly string[];
    /** Discovery failures as sentences; among the clusters that were not found may be one that the event names. */
    readonly failures?: readonly string[];
    /** The same failures as data. */
    readonly discoveryFailures?: readonly DiscoveryFailure[];
  };
}

/**
 * To an event that has an unknown field or action, or a wrong value, or that only the alias accepts. The function did
 * nothing.
 */
export interface InvalidEventAnswer {
  /** The function's version; absent in answers of functions of earlier versions. */
  readonly version?: string;
  readonly invalidEvent: {
    /** What is wrong, and which events the function accepts. */
    readonly message: string;
    /** The names of the invalid fields; empty if the event is not an object. */
    readonly fields: readonly string[];
  };
}

export type Answer = RefreshAnswer | StatusAnswer | RevokeAnswer | NotRegisteredAnswer | InvalidEventAnswer;
