// What the settings of the refresher mean, for the CDK app and for other apps that use the construct. infra/settings.ts checks
// them, and has their defaults.

/** Settings of a refresher. docs/settings.md has their defaults and limits. */
export interface RefresherSettings {
  /** Minutes between two runs. */
  readonly rateMinutes: number;
  /** Whether the schedule is enabled. If not, the function still answers, and the alarm NotRunning goes off without runs. */
  readonly scheduleEnabled: boolean;
  /** ARN of an existing topic for alarms and announcements; CloudWatch must be allowed to publish to it. Without it, the stack creates one. */
  readonly alarmTopicArn?: string | undefined;
  /** E-mail address for the alarms; AWS sends a confirmation request first. Without it, subscribe to the topic by hand. */
  readonly alarmEmail?: string | undefined;
  /** Time limit of one cluster run, in seconds. */
  readonly clusterDeadlineSeconds: number;
  /** Number of clusters served at the same time. */
  readonly clusterConcurrency: number;
  /** Whether a run serves the clusters in batches, by a Step Functions state machine: for more clusters than one function serves. */
  readonly scaleOut: boolean;
  /** Clusters that may fail at least twice in a row before the alarm ClustersFailed goes off. */
  readonly toleratedFailingClusters: number;
  /** Whether to create a CloudWatch dashboard. */
  readonly dashboard: boolean;
  /** ARN of a topic for a pager: a composite alarm publishes to it when the first alarm goes off, and when all are OK again. */
  readonly pagerTopicArn?: string | undefined;
  /** Whether to publish a metric for each cluster, and to create the alarm ClusterFailing on them. AWS charges for each. */
  readonly clusterMetrics: boolean;
  /** The function's memory in MB; its share of a processor grows with it. */
  readonly memorySize: number;
  /** Whether AWS X-Ray traces the function. */
  readonly tracing: boolean;
  /** Days for which the function's log is kept. */
  readonly logRetentionDays: number;
  /** ARN of a KMS key, in the region of the stack, for everything that the stack stores. Without it, AWS' own keys. */
  readonly kmsKeyArn?: string | undefined;
  /**
   * Prefix of the registered clusters' secrets. Default: `ecr-anywhere/clusters/` for the default stack, and
   * `ecr-anywhere-STACK/clusters/` for others.
   */
  readonly secretPrefix?: string | undefined;
  /** Subnets of a VPC from which the function connects. It then reaches private endpoints there, and nothing without a route. */
  readonly subnetIds: readonly string[];
  /** Security groups of the function in these subnets. They must allow HTTPS to AWS and to the API servers. */
  readonly securityGroupIds: readonly string[];
  /** URL of an HTTP proxy for requests to AWS. Requests to an API server use the proxy-url of its kubeconfig. */
  readonly httpsProxy?: string | undefined;
  /** Hosts of AWS to which the function connects without the proxy, such as those of VPC endpoints. */
  readonly noProxy: readonly string[];
  /** Regions whose EKS clusters may be registered with "aws eks get-token" instead of a token. */
  readonly eksRegions: readonly string[];
  /** ARNs of the roles that such a kubeconfig may use, in this account or others. */
  readonly assumableRoles: readonly string[];
  /**
   * Discovery targets, in which EKS clusters with the tag ecr-anywhere.centml.ai/managed are served: regions, and for
   * another account `region=ARN of a role in it`.
   */
  readonly eksDiscovery: readonly string[];
  /** Whether API servers may have loopback and link-local addresses. Only for tests on one machine. */
  readonly allowLocalServers: boolean;
}
