// The refresher as a construct for any stack: function, schedule, dead-letter queues, alarms and permissions.
import { Duration } from 'aws-cdk-lib';
import type { Dashboard } from 'aws-cdk-lib/aws-cloudwatch';
import type { Table } from 'aws-cdk-lib/aws-dynamodb';
import { Key } from 'aws-cdk-lib/aws-kms';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup } from 'aws-cdk-lib/aws-logs';
import type { Bucket } from 'aws-cdk-lib/aws-s3';
import { type ITopic, Topic } from 'aws-cdk-lib/aws-sns';
import { Construct } from 'constructs';
import { MAX_BETWEEN_RUNS_MS } from '../contract/freshness.ts';
import { REPORTING_SECONDS } from '../functions/refresher/settings.ts';
import { AlarmTopic } from './alarm-topic.ts';
import { RefresherAlarms } from './alarms.ts';
import { RefresherDashboard } from './dashboard.ts';
import { type FunctionProps, RefresherFunction } from './function.ts';
import { FUNCTION_TIMEOUT_SECONDS } from './limits.ts';
import type { RefresherSettings } from './refresher-settings.ts';
import { runsBucket, runTimeLimit, ScaleOut } from './scale-out.ts';
import { RefresherSchedule } from './schedule.ts';
import { readRefresherSettings } from './settings.ts';

/** The settings, by the names and with the defaults of docs/settings.md, and what only a CDK app can give. */
export interface RefresherProps extends Partial<RefresherSettings> {
  /** Each run starts at a random time in this window, so that accounts do not all call ECR at once. Default: a sixth of the interval. Interval and window together: at most 105 minutes. */
  readonly flexibleWindow?: Duration;
  /**
   * Allows keyless clusters. Their audiences contain this name (letters, digits, hyphens), usually the stack's, which must
   * differ between the deployments of an account. Default: keyless clusters are not allowed.
   */
  readonly keylessStackName?: string;
  /**
   * Other properties of the function, in place of the construct's own. A role needs all permissions that the construct's
   * has; environment variables are added. An example: `reservedConcurrentExecutions: 1`, so that two runs never overlap.
   * Overlapping runs do no harm, because a Secret that was just refreshed is not due, and an account whose limit is still 10
   * executions cannot reserve any.
   */
  readonly function?: FunctionProps;
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
  /** The state machine of runs in batches, and the bucket for their lists and reports; absent without `scaleOut`. */
  readonly scaleOut: ScaleOut | undefined;
  readonly runs: Bucket | undefined;

  constructor(scope: Construct, id: string, props: RefresherProps = {}) {
    super(scope, id);
    const { flexibleWindow: window, keylessStackName, function: functionProps = {}, ...given } = props;
    const settings = readRefresherSettings(given);
    const interval = Duration.minutes(settings.rateMinutes);
    const flexibleWindow = window ?? Duration.minutes(Math.floor(settings.rateMinutes / 6));
    const longestWindow = MAX_BETWEEN_RUNS_MS / 60_000 - settings.rateMinutes;
    if (flexibleWindow.toMinutes() > longestWindow)
      throw new Error(
        `flexibleWindow: must be at most ${longestWindow} minutes with rateMinutes ${settings.rateMinutes}, because the alarms would come too late otherwise`,
      );
    const timeout = functionProps.timeout ?? Duration.seconds(FUNCTION_TIMEOUT_SECONDS);
    const longestDeadline = timeout.toSeconds() - REPORTING_SECONDS;
    if (settings.clusterDeadlineSeconds > longestDeadline)
      throw new Error(
        `clusterDeadlineSeconds: must be at most ${longestDeadline}, because the timeout of the function is ${timeout.toSeconds()} seconds`,
      );

    const timeLimit = settings.scaleOut ? runTimeLimit(interval, flexibleWindow, timeout) : undefined;

    const key =
      settings.kmsKeyArn === undefined ? undefined : Key.fromKeyArn(this, 'Key', settings.kmsKeyArn);
    this.alarmTopic =
      settings.alarmTopicArn === undefined
        ? new AlarmTopic(this, 'AlarmTopic', { email: settings.alarmEmail, key }).topic
        : Topic.fromTopicArn(this, 'ExistingAlarmTopic', settings.alarmTopicArn);
    if (timeLimit) this.runs = runsBucket(this, 'Runs', key);
    const refresher = new RefresherFunction(this, 'Function', {
      settings,
      topic: this.alarmTopic,
      key,
      keylessStackName,
      runs: this.runs,
      functionProps: { ...functionProps, timeout },
    });
    this.function = refresher.function;
    this.logGroup = refresher.logGroup;
    this.clusterStateTable = refresher.clusterStateTable;

    if (timeLimit)
      this.scaleOut = new ScaleOut(this, 'ScaleOut', {
        function: refresher.function,
        timeout,
        timeLimit,
        tracing: settings.tracing,
      });

    const schedule = new RefresherSchedule(this, 'Schedule', {
      function: this.function,
      stateMachine: this.scaleOut?.stateMachine,
      interval,
      flexibleWindow,
      enabled: settings.scheduleEnabled,
      key,
    });

    const refresherAlarms = new RefresherAlarms(this, 'Alarms', {
      function: this.function,
      scheduleDeadLetters: schedule.deadLetters,
      failures: refresher.failures,
      scaleOut: this.scaleOut,
      interval,
      flexibleWindow,
      toleratedFailingClusters: settings.toleratedFailingClusters,
      topic: this.alarmTopic,
      pagerTopic:
        settings.pagerTopicArn === undefined
          ? undefined
          : Topic.fromTopicArn(this, 'PagerTopic', settings.pagerTopicArn),
      hasClusterMetrics: settings.clusterMetrics,
    });
    // The alarm is on without runs.
    if (schedule.firstRun) refresherAlarms.node.findChild('NotRunning').node.addDependency(schedule.firstRun);
    const { alarms } = refresherAlarms;
    if (settings.dashboard)
      this.dashboard = new RefresherDashboard(this, 'Dashboard', {
        alarms,
        function: this.function,
        timeout,
        scaleOut: this.scaleOut,
        logGroup: this.logGroup,
        failures: refresher.failures,
        scheduleDeadLetters: schedule.deadLetters,
        period: interval.plus(flexibleWindow),
      }).dashboard;
  }
}
