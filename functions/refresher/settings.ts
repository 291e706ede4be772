// Names that the CDK app and the refresher share: environment variables, attributes of the state table, metrics.
import { SECRET_PREFIX_VARIABLE } from '../../contract/names.ts';

/** Seconds of the function's timeout that are reserved for reporting the clusters that were not started. */
export const REPORTING_SECONDS = 10;

/** Environment variables of the Lambda function. */
export const ENVIRONMENT = {
  /** Time limit of a cluster run, in seconds. */
  clusterDeadline: 'CLUSTER_DEADLINE_SECONDS',
  /** The most clusters that run concurrently. */
  clusterConcurrency: 'CLUSTER_CONCURRENCY',
  /** ARNs of the roles that kubeconfigs may name, comma-separated. */
  assumableRoles: 'ASSUMABLE_ROLES',
  /** Discovery targets of tagged EKS clusters: comma-separated, each `REGION` or `REGION=ROLE_ARN`. */
  eksDiscovery: 'EKS_DISCOVERY',
  /** The stack name in keyless clusters' audiences; absent if the refresher may not request their tokens. */
  keylessStage: 'KEYLESS_STAGE',
  /** Prefix of the registered clusters' secrets; absent if it is that of the default stack. */
  secretPrefix: SECRET_PREFIX_VARIABLE,
  /** Name of the DynamoDB table with the state of each cluster. */
  stateTable: 'MEMORY_TABLE',
  /** ARN of the SNS topic for announcements. */
  topic: 'TOPIC_ARN',
  /** Name of the CloudFormation stack, for the commands in announcements. */
  stackName: 'STACK_NAME',
  /** Whether to publish a metric for each cluster. */
  clusterMetrics: 'CLUSTER_METRICS',
  /** Name of the bucket for the lists and reports of runs in batches; absent without `scaleOut`. */
  runsBucket: 'RUNS_BUCKET',
  /** The most clusters in one batch of such a run. The CDK app leaves it at its default; tests need small batches. */
  batchClusters: 'BATCH_CLUSTERS',
  /** Whether the function is in a VPC, from which it may reach private endpoints. */
  isInVpc: 'IS_IN_VPC',
  /** Whether API servers may have loopback and link-local addresses; only for tests, where they are local processes. */
  allowLocalServers: 'ALLOW_LOCAL_SERVERS',
} as const;

/** The function's alias that accepts the events of a run in batches; only the state machine may invoke it. */
export const SCALE_OUT_ALIAS = 'scale-out';
/** Prefix of the objects in the bucket for runs in batches. */
export const RUNS_PREFIX = 'runs/';

/** Attributes of the state table. Times are RFC 3339, unless stated otherwise. */
export const STATE_ATTRIBUTE = {
  /** The key: a cluster's name, or a discovery target's. */
  cluster: 'cluster',
  /** When the last cluster run began; the other attributes are its results. */
  lookedAt: 'lookedAt',
  /** When the cluster's Secrets were last listed. */
  reachedAt: 'reachedAt',
  /** Managed Secrets as of then, and how many of them were due. */
  managed: 'managed',
  due: 'due',
  /** Of the credentials that were last observed. */
  soonestExpiry: 'soonestExpiry',
  /** Consecutive failures. */
  failures: 'failures',
  failingSince: 'failingSince',
  /** Consecutive runs that did not fail; absent before the first after an upgrade. */
  successes: 'successes',
  /** The conditions that were announced (`Condition`), and when something was last announced. Absent if there are none. */
  announced: 'announced',
  announcedAt: 'announcedAt',
  /** When its recovery was last announced, or when it failed again within a day of that. */
  recoveredAt: 'recoveredAt',
  /** When a run began to announce; until it has ended, no other run announces. */
  announcing: 'announcing',
  /** Why the last run failed: a sentence, and a list of codes (`FailureCode`). Absent if it did not fail. */
  reason: 'reason',
  codes: 'codes',
  pausedSince: 'pausedSince',
  /** Of the registered token; absent if the token does not state it or could not be read. */
  tokenExpiresAt: 'tokenExpiresAt',
  /** When DynamoDB deletes the item (time to live): seconds since the epoch. */
  forgetAt: 'forgetAt',
} as const;

/** CloudWatch namespace of the metrics. They have the dimension `service`, the function's name. */
export const METRICS_NAMESPACE = 'EcrAnywhere';
/** The second dimension of the metric of a single cluster: its name. */
export const CLUSTER_DIMENSION = 'cluster';

/** Written once per scheduled run, in embedded metric format. */
export const METRIC = {
  clustersRegistered: 'ClustersRegistered',
  clustersServed: 'ClustersServed',
  clustersFailed: 'ClustersFailed',
  /** Clusters that failed in at least two runs in a row: for less than a day, and for longer. */
  clustersFailing: 'ClustersFailing',
  clustersFailingForDays: 'ClustersFailingForDays',
  clustersPaused: 'ClustersPaused',
  secretsManaged: 'SecretsManaged',
  secretsDue: 'SecretsDue',
  secretsRefreshed: 'SecretsRefreshed',
  secretsRefused: 'SecretsRefused',
  secretsNotAttempted: 'SecretsNotAttempted',
  /** Clusters whose state could not be stored. */
  statesNotSaved: 'StatesNotSaved',
  /** Clusters whose transition could not be announced. */
  transitionsNotAnnounced: 'TransitionsNotAnnounced',
  /** Batches that ended without a report. Only with `scaleOut`. */
  batchesEnded: 'BatchesEnded',
  /**
   * Seconds until the first of all managed credentials expires; negative after that. Without those of clusters that have
   * been failing for days, which would hide all others.
   */
  soonestExpiry: 'SoonestExpiry',
  /** Of one cluster: runs that failed in a row, 0 while it is paused. Only with `clusterMetrics`. */
  consecutiveFailures: 'ConsecutiveFailures',
} as const;
