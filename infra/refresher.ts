// The refresher as a construct for any stack: function, schedule, dead-letter queues, alarms and permissions.
import { fileURLToPath } from 'node:url';
import { Duration } from 'aws-cdk-lib';
import type { Dashboard } from 'aws-cdk-lib/aws-cloudwatch';
import type { Table } from 'aws-cdk-lib/aws-dynamodb';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import { AlarmTopic } from './alarm-topic.ts';
import { RefresherAlarms } from './alarms.ts';
import { RefresherDashboard } from './dashboard.ts';
import { RefresherFunction } from './function.ts';
import { CLUSTER_CONCURRENCY, CLUSTER_DEADLINE, FUNCTION_TIMEOUT_SECONDS, INTERVAL } from './limits.ts';
import { RefresherSchedule } from './schedule.ts';

export interface RefresherProps {
  /** The time between two runs, in whole minutes. Default: one hour. */
  readonly interval?: Duration;
  /** Each run starts at a random time in this window, so that accounts do not all call ECR at once. Default: a sixth of the interval. */
  readonly flexibleWindow?: Duration;
  /** Whether the schedule is enabled. Default: true. */
  readonly scheduleEnabled?: boolean;
  /** The time limit of one cluster run. Default: two minutes. */
  readonly clusterDeadline?: Duration;
  /** The number of clusters served at the same time. Default: 25. */
  readonly clusterConcurrency?: number;
  /** Regions whose EKS clusters may be registered with "aws eks get-token" instead of a token. Default: none. */
  readonly eksRegions?: readonly string[];
  /** ARNs of the roles that such a kubeconfig may use. Default: none. */
  readonly assumableRoles?: readonly string[];
  /** Discovery targets, in which tagged EKS clusters are served: regions, or `region=role ARN` for another account. Default: none. */
  readonly eksDiscovery?: readonly string[];
  /**
   * Allows keyless clusters. Their audiences contain this name (letters, digits, hyphens), usually the stack's, which must
   * differ between the deployments of an account. Default: keyless clusters are not allowed.
   */
  readonly keylessStackName?: string;
  /** Whether clusters may have loopback and link-local addresses. Only for tests. Default: false. */
  readonly allowLocalServers?: boolean;
  /** The function's memory in MB; its CPU share grows with it. Default: 512. */
  readonly memorySize?: number;
  /** The time limit of a run. Default: 15 minutes, the maximum of Lambda. */
  readonly timeout?: Duration;
  /** How long the log is kept. Default: one month. */
  readonly logRetention?: RetentionDays;
  /**
   * Reserves one concurrent execution, so that two runs never overlap. Overlapping runs do no harm, because a Secret that
   * was just refreshed is not due. An account whose limit is still 10 executions cannot reserve any. Default: false.
   */
  readonly exclusive?: boolean;
  /** The number of clusters that may be failing before the alarm ClustersFailed goes off; each is announced anyway. Default: 0. */
  readonly toleratedFailingClusters?: number;
  /** The topic of the alarms and announcements; CloudWatch must be allowed to publish to it. Default: a new topic. */
  readonly alarmTopic?: ITopic;
  /** An e-mail address to subscribe to the new topic. Default: none. */
  readonly alarmEmail?: string;
  /**
   * A topic for a pager: a composite alarm publishes when the first alarm goes off, and when all are OK again. CloudWatch
   * must be allowed to publish to it. Default: no composite alarm.
   */
  readonly pagerTopic?: ITopic;
  /**
   * Whether to publish a metric for each cluster, and to create an alarm that notifies for each of them, up to 500. Each is
   * a custom metric that AWS charges for. Default: false.
   */
  readonly clusterMetrics?: boolean;
  /** Whether to create a CloudWatch dashboard. Default: true. */
  readonly dashboard?: boolean;
  /** The source file of the function's handler. Default: this project's handler. */
  readonly entry?: string;
}

/** Keeps the pull Secrets of every registered cluster fresh, and raises an alarm in time if it cannot. */
export class Refresher extends Construct {
  readonly function: IFunction;
  readonly logGroup: ILogGroup;
  readonly alarmTopic: ITopic;
  /** Absent if it is switched off. */
  readonly dashboard: Dashboard | undefined;
  /** The most recent observation of each cluster. */
  readonly clusterStateTable: Table;

  constructor(scope: Construct, id: string, props: RefresherProps = {}) {
    super(scope, id);
    const interval = props.interval ?? Duration.minutes(INTERVAL.default);
    const minutes = interval.toMinutes(); // throws if the interval is not in whole minutes
    if (minutes < INTERVAL.min || minutes > INTERVAL.max) {
      throw new Error(
        `The interval must be ${INTERVAL.min} to ${INTERVAL.max} minutes, not ${minutes}: with longer ones the alarms would come too late.`,
      );
    }
    const flexibleWindow = props.flexibleWindow ?? Duration.minutes(Math.floor(minutes / 6));

    this.alarmTopic =
      props.alarmTopic ?? new AlarmTopic(this, 'AlarmTopic', { email: props.alarmEmail }).topic;
    const timeout = props.timeout ?? Duration.seconds(FUNCTION_TIMEOUT_SECONDS);
    const refresher = new RefresherFunction(this, 'Function', {
      entry: props.entry ?? fileURLToPath(new URL('../functions/refresher/handler.ts', import.meta.url)),
      interval,
      topic: this.alarmTopic,
      clusterDeadline: props.clusterDeadline ?? Duration.seconds(CLUSTER_DEADLINE.default),
      clusterConcurrency: props.clusterConcurrency ?? CLUSTER_CONCURRENCY.default,
      eksRegions: props.eksRegions ?? [],
      assumableRoles: props.assumableRoles ?? [],
      eksDiscovery: props.eksDiscovery ?? [],
      keylessStackName: props.keylessStackName,
      hasClusterMetrics: props.clusterMetrics ?? false,
      allowLocalServers: props.allowLocalServers ?? false,
      memorySize: props.memorySize ?? 512,
      timeout,
      logRetention: props.logRetention,
      exclusive: props.exclusive ?? false,
    });
    this.function = refresher.function;
    this.logGroup = refresher.logGroup;
    this.clusterStateTable = refresher.clusterStateTable;

    const schedule = new RefresherSchedule(this, 'Schedule', {
      function: this.function,
      interval,
      flexibleWindow,
      enabled: props.scheduleEnabled ?? true,
    });

    const { alarms } = new RefresherAlarms(this, 'Alarms', {
      function: this.function,
      scheduleDeadLetters: schedule.deadLetters,
      failures: refresher.failures,
      interval,
      flexibleWindow,
      toleratedFailingClusters: props.toleratedFailingClusters ?? 0,
      topic: this.alarmTopic,
      pagerTopic: props.pagerTopic,
      hasClusterMetrics: props.clusterMetrics ?? false,
    });
    if (props.dashboard ?? true)
      this.dashboard = new RefresherDashboard(this, 'Dashboard', {
        alarms,
        function: this.function,
        timeout,
        logGroup: this.logGroup,
        failures: refresher.failures,
        scheduleDeadLetters: schedule.deadLetters,
        period: interval.plus(flexibleWindow),
      }).dashboard;
  }
}
