// The refresher as a construct that any stack can embed: function, schedule, dead letters, alarms, and who may do what.
import { fileURLToPath } from 'node:url';
import { Duration } from 'aws-cdk-lib';
import type { Table } from 'aws-cdk-lib/aws-dynamodb';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import { AlarmTopic } from './alarm-topic.ts';
import { RefresherAlarms } from './alarms.ts';
import { RefresherFunction } from './function.ts';
import { CLUSTER_CONCURRENCY, CLUSTER_DEADLINE, FUNCTION_TIMEOUT_SECONDS, INTERVAL } from './limits.ts';
import { RefresherSchedule } from './schedule.ts';

export interface RefresherProps {
  /** Time between two runs, in whole minutes. Default: one hour. */
  readonly interval?: Duration;
  /** Each run starts at a random moment within it, so that accounts do not all ask ECR at once. Default: a sixth of the interval. */
  readonly flexibleWindow?: Duration;
  /** Whether the schedule runs. Default: true. */
  readonly scheduleEnabled?: boolean;
  /** What one cluster may take. Default: two minutes. */
  readonly clusterDeadline?: Duration;
  /** Clusters that run at the same time. Default: 25. */
  readonly clusterConcurrency?: number;
  /** Regions whose EKS clusters may be registered with "aws eks get-token" in place of a token. Default: none. */
  readonly eksRegions?: readonly string[];
  /** ARNs of the roles that such a kubeconfig may name. Default: none. */
  readonly assumableRoles?: readonly string[];
  /** Where tagged EKS clusters are refreshed: regions, or `region=ARN of a role` in another account. Default: none. */
  readonly eksDiscovery?: readonly string[];
  /**
   * Keyless clusters, whose audiences begin with this name: letters, digits and hyphens, another for each deployment of
   * the account. Default: none may be.
   */
  readonly keylessStage?: string;
  /** Whether clusters may be on loopback and link-local addresses: for tests only. Default: false. */
  readonly allowLocalServers?: boolean;
  /** Megabytes; the share of a CPU grows with them. Default: 512. */
  readonly memory?: number;
  /** What a run may take. Default: 15 minutes, the most that Lambda grants. */
  readonly timeout?: Duration;
  /** Default: one month. */
  readonly logRetention?: RetentionDays;
  /**
   * Reserves the function one execution, so that two runs never overlap. Overlapping runs do no harm (a Secret that was
   * just refreshed is not due), and an account whose limit is still 10 executions cannot reserve any. Default: false.
   */
  readonly exclusive?: boolean;
  /** Where the alarms go; CloudWatch must be allowed to publish there. Default: a topic of its own. */
  readonly alarmTopic?: ITopic;
  /** Subscribed to the topic of its own. */
  readonly alarmEmail?: string;
  /** Source of the function's handler. Default: this project's. */
  readonly entry?: string;
}

/** Keeps the pull Secrets of every registered cluster fresh, and says so in time where it cannot. */
export class Refresher extends Construct {
  readonly function: IFunction;
  readonly logGroup: ILogGroup;
  readonly alarmTopic: ITopic;
  /** What is known of each cluster. */
  readonly memoryTable: Table;

  constructor(scope: Construct, id: string, props: RefresherProps = {}) {
    super(scope, id);
    const interval = props.interval ?? Duration.minutes(INTERVAL.default);
    const minutes = interval.toMinutes(); // throws where they are not whole
    if (minutes < INTERVAL.min || minutes > INTERVAL.max) {
      throw new Error(`The interval must be ${INTERVAL.min} to ${INTERVAL.max} minutes, not ${minutes}.`);
    }
    const flexibleWindow = props.flexibleWindow ?? Duration.minutes(Math.floor(minutes / 6));

    const refresher = new RefresherFunction(this, 'Function', {
      entry: props.entry ?? fileURLToPath(new URL('../functions/refresher/handler.ts', import.meta.url)),
      interval,
      clusterDeadline: props.clusterDeadline ?? Duration.seconds(CLUSTER_DEADLINE.default),
      clusterConcurrency: props.clusterConcurrency ?? CLUSTER_CONCURRENCY.default,
      eksRegions: props.eksRegions ?? [],
      assumableRoles: props.assumableRoles ?? [],
      eksDiscovery: props.eksDiscovery ?? [],
      keylessStage: props.keylessStage,
      allowLocalServers: props.allowLocalServers ?? false,
      memory: props.memory ?? 512,
      timeout: props.timeout ?? Duration.seconds(FUNCTION_TIMEOUT_SECONDS),
      logRetention: props.logRetention,
      exclusive: props.exclusive ?? false,
    });
    this.function = refresher.function;
    this.logGroup = refresher.logGroup;
    this.memoryTable = refresher.memoryTable;

    const schedule = new RefresherSchedule(this, 'Schedule', {
      function: this.function,
      interval,
      flexibleWindow,
      enabled: props.scheduleEnabled ?? true,
    });

    this.alarmTopic =
      props.alarmTopic ?? new AlarmTopic(this, 'AlarmTopic', { email: props.alarmEmail }).topic;
    new RefresherAlarms(this, 'Alarms', {
      function: this.function,
      scheduleDeadLetters: schedule.deadLetters,
      interval,
      flexibleWindow,
      topic: this.alarmTopic,
    });
  }
}
