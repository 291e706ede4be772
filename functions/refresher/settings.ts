// What the CDK app sets and the refresher reads: environment variables, metric names, the registry's prefix.
// Declared once, so that neither side can misspell the other's.

/** Seconds of the function's time that are kept back, to report what there was no time for. */
export const REPORTING_SECONDS = 10;

/** Environment variables of the Lambda function. */
export const ENVIRONMENT = {
  /** Seconds a cluster's turn may take. */
  clusterDeadline: 'CLUSTER_DEADLINE_SECONDS',
  /** How many clusters run at the same time. */
  clusterConcurrency: 'CLUSTER_CONCURRENCY',
  /** ARNs of the roles that kubeconfigs may name, comma-separated. */
  assumableRoles: 'ASSUMABLE_ROLES',
  /** Where EKS clusters are looked for that are tagged: regions, each alone or as `region=ARN of a role`. */
  eksDiscovery: 'EKS_DISCOVERY',
  /** The stage of keyless clusters' audiences; absent where the refresher may not ask for their tokens. */
  keylessStage: 'KEYLESS_STAGE',
  /** Name of the table of what is known of each cluster. */
  memoryTable: 'MEMORY_TABLE',
  /** Whether clusters may be on loopback and link-local addresses: where they are processes, in tests. */
  allowLocalServers: 'ALLOW_LOCAL_SERVERS',
} as const;

/** Attributes of the table of what is known of each cluster. Times are RFC 3339, unless it is said otherwise. */
export const MEMORY = {
  /** The key. */
  cluster: 'cluster',
  /** When the last turn began; the rest is what was seen in it. */
  lookedAt: 'lookedAt',
  /** When its Secrets could be listed last. */
  reachedAt: 'reachedAt',
  /** Managed Secrets that were seen then, and how many of them were due. */
  managed: 'managed',
  due: 'due',
  /** Of the credentials that were seen last. */
  soonestExpiry: 'soonestExpiry',
  /** In a row. */
  failures: 'failures',
  failingSince: 'failingSince',
  /** Of the last failure. */
  reason: 'reason',
  pausedSince: 'pausedSince',
  /** Of the registered token; absent where it does not say, or could not be read. */
  tokenExpiresAt: 'tokenExpiresAt',
  /** Seconds since the epoch, as DynamoDB's time to live wants it. */
  forgetAt: 'forgetAt',
} as const;

/** CloudWatch namespace of the metrics; their one dimension is `service`, the function's name. */
export const METRICS_NAMESPACE = 'EcrAnywhere';

/** Written once per scheduled run, in embedded metric format. */
export const METRIC = {
  clustersRegistered: 'ClustersRegistered',
  clustersServed: 'ClustersServed',
  clustersFailed: 'ClustersFailed',
  clustersPaused: 'ClustersPaused',
  secretsManaged: 'SecretsManaged',
  secretsDue: 'SecretsDue',
  secretsRefreshed: 'SecretsRefreshed',
  secretsRefused: 'SecretsRefused',
  secretsNotAttempted: 'SecretsNotAttempted',
  /** Seconds until the first of all managed credentials expires; negative once it has. */
  soonestExpiry: 'SoonestExpiry',
} as const;
