// The refresher's CloudWatch alarms. Each goes off hours before the first Pod cannot pull.
//
// How much time is left: a Secret becomes due when its credentials are still valid for the refresh window (six hours). If
// every refresh fails from then on, at the first failed run at least the window minus one interval is left, at the second
// the window minus two. A run in batches reports at its end, so the time limit of a run is less too.
import { Duration, Names, Stack } from 'aws-cdk-lib';
import {
  Alarm,
  AlarmRule,
  ComparisonOperator,
  CompositeAlarm,
  type IMetric,
  MathExpression,
  Metric,
  Stats,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { FAILURES } from '../contract/cluster-events.ts';
import { REFRESH_WINDOW_MS } from '../contract/freshness.ts';
import { CLUSTER_DIMENSION, METRIC, METRICS_NAMESPACE } from '../functions/refresher/settings.ts';
import type { ScaleOut } from './scale-out.ts';

export interface RefresherAlarmsProps {
  readonly function: IFunction;
  /** Events that the schedule could not deliver. */
  readonly scheduleDeadLetters: IQueue;
  /** Events whose invocation failed. */
  readonly failures: IQueue;
  /** Runs the function in batches; absent without `scaleOut`. */
  readonly scaleOut: ScaleOut | undefined;
  readonly interval: Duration;
  readonly flexibleWindow: Duration;
  readonly toleratedFailingClusters: number;
  readonly topic: ITopic;
  /** Gets a message when the first of the alarms goes off, and when all are OK again. */
  readonly pagerTopic: ITopic | undefined;
  /** Whether the refresher publishes a metric for each cluster. */
  readonly hasClusterMetrics: boolean;
}

interface AlarmDefinition {
  readonly metric: IMetric;
  readonly comparison: ComparisonOperator;
  readonly threshold: number;
  readonly periods: number;
  readonly missing: TreatMissingData;
  /** What happened, what it means for image pulls, and the first command to run. CloudWatch takes 1,024 characters. */
  readonly description: string;
}

/** The refresher's alarms. Each publishes to the topic when it goes off and when it is OK again. */
export class RefresherAlarms extends Construct {
  /** In the order of the dashboard. */
  readonly alarms: Alarm[] = [];
  private readonly action: SnsAction;

  constructor(scope: Construct, id: string, props: RefresherAlarmsProps) {
    super(scope, id);
    this.action = new SnsAction(props.topic);
    const { interval, scaleOut } = props;
    const windowMinutes = REFRESH_WINDOW_MS / 60_000;
    const runMinutes = scaleOut?.timeLimit.toMinutes() ?? 0;
    // Two runs can be this far apart: the first at the start of its flexible window, the next at the end. A shorter period
    // could contain no run, and CloudWatch would then evaluate the figures of an older one.
    const oneRun = interval.toMinutes() + props.flexibleWindow.toMinutes();
    const figuresApart = oneRun + runMinutes;
    const period = Duration.minutes(figuresApart);
    const leftAfter = (runs: number) => hours(windowMinutes - runs * oneRun - runMinutes);
    const metric = (metricName: string, statistic: string, every: Duration) =>
      new Metric({
        namespace: METRICS_NAMESPACE,
        metricName,
        dimensionsMap: { service: props.function.functionName },
        statistic,
        period: every,
      });

    // Time left: the window minus one interval. Missing data does not mean recovery, so it keeps the state of the last run;
    // the alarm NotRunning reports missing runs.
    this.addAlarm('Errors', {
      metric: scaleOut
        ? failedExecutions(scaleOut, period)
        : props.function.metricErrors({ statistic: Stats.SUM, period }),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      missing: TreatMissingData.IGNORE,
      description:
        `A run of the refresher failed: it ended with an error${scaleOut ? ', took too long, was stopped' : ''}, it could serve ` +
        'none of the registered clusters, or it could not save the states of most clusters. ' +
        `Pods can pull for at least ${leftAfter(1)} more. Read the last ERROR in the function's log: ` +
        "run the command in the stack's output ReadLog." +
        (scaleOut
          ? ` To find the run that failed, run "aws stepfunctions list-executions --state-machine-arn ${scaleOut.stateMachine.stateMachineArn} --max-items 3".`
          : ''),
    });

    // Time left: the window minus two intervals. A cluster counts from its second failure in a row, because one that is
    // upgraded or restarted works again at the next run, and for a day: clusters that are down for days would otherwise hide
    // all others. Missing data is ignored for the same reason as above.
    this.addAlarm('ClustersFailed', {
      metric: metric(METRIC.clustersFailing, Stats.MAXIMUM, period),
      comparison: ComparisonOperator.GREATER_THAN_THRESHOLD,
      threshold: props.toleratedFailingClusters,
      periods: 1,
      missing: TreatMissingData.IGNORE,
      description:
        `${moreThan(props.toleratedFailingClusters)} failed at least twice in a row, for less than a day: they could not be ` +
        'reached, a due Secret was not refreshed, or their token was not renewed. ' +
        `Pods in them can pull for at least ${leftAfter(2)} more. A message to this topic names each ` +
        'cluster. Or run "ecr-anywhere status", then "ecr-anywhere doctor" with the name of the cluster.',
    });

    // Time left: as for ClustersFailed. Each cluster is a contributor of this alarm, with notifications of its own, so that
    // it needs no tolerated number. It has the same states of the clusters as the announcements. A Metrics Insights alarm
    // evaluates three hours at most (CloudWatch User Guide), and the figures of two runs are never that far apart.
    if (props.hasClusterMetrics) {
      this.addAlarm('ClusterFailing', {
        metric: new MathExpression({
          expression:
            `SELECT MAX(${METRIC.consecutiveFailures}) FROM SCHEMA("${METRICS_NAMESPACE}", ${CLUSTER_DIMENSION}, service) ` +
            `WHERE service = '${props.function.functionName}' GROUP BY ${CLUSTER_DIMENSION} ORDER BY MAX() DESC`,
          usingMetrics: {},
          period,
        }),
        comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
        threshold: FAILURES,
        periods: 1,
        missing: TreatMissingData.IGNORE,
        description:
          'The clusters that contribute to this alarm have failed at least twice in a row: they could not be reached, a ' +
          `due Secret was not refreshed, or their token was not renewed. Pods in them can pull for at least ${leftAfter(2)} more. ` +
          'Run "ecr-anywhere doctor" with the name of the cluster. To silence a cluster, run "ecr-anywhere pause".',
      });
    }

    // Time left: the window minus three intervals, because the next run announces what this one could not.
    this.addAlarm('AnnouncementsFailed', {
      metric: metric(METRIC.transitionsNotAnnounced, Stats.MAXIMUM, period),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      missing: TreatMissingData.IGNORE,
      description:
        'The refresher could not announce the transition of at least one cluster; each run tries again. ' +
        `Pods in it can pull for at least ${leftAfter(3)} more. Run "ecr-anywhere status" for the ` +
        'cluster. The reason is in the lines "not announced" of the function\'s log: run the command in the stack\'s output ' +
        'ReadLog.',
    });

    // This alarm detects missing runs, so missing data breaches it. It has many short periods rather than two long ones,
    // because CloudWatch looks back a few more periods before it treats data as missing, and short periods keep that delay
    // short. Time left, counted from the last run, which left no Secret due: the window minus two intervals and that delay.
    const slice = Math.max(1, Math.floor(interval.toMinutes() / 4));
    const silence = 2 * interval.toMinutes() + props.flexibleWindow.toMinutes() + runMinutes;
    this.addAlarm('NotRunning', {
      metric: metric(METRIC.clustersRegistered, Stats.SAMPLE_COUNT, Duration.minutes(slice)),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold: 1,
      periods: Math.ceil(silence / slice),
      missing: TreatMissingData.BREACHING,
      description:
        `The refresher has not finished a run for ${hours(silence)}. Pods can pull for at least ` +
        `${hours(windowMinutes - silence - 3 * slice)} more. Run "ecr-anywhere doctor". If it finds no cause, check that the ` +
        `schedule is enabled, and read the messages in the queue for failures, ${props.failures.queueUrl}, and in the ` +
        `dead-letter queue, ${props.scheduleDeadLetters.queueUrl}: run "aws sqs receive-message --queue-url" with each. ` +
        'After the first deployment it may be on for some minutes, until the figures of the first run arrive.',
    });

    // Time left: half the window, or that minus one interval if only the next run finds it. This alarm watches the
    // credentials themselves, whatever the cause. If no cluster is served there is no data, which is neither OK nor ALARM;
    // the alarms above report that.
    const threshold = REFRESH_WINDOW_MS / 2 / 1000;
    this.addAlarm('SoonestExpiry', {
      metric: metric(METRIC.soonestExpiry, Stats.MINIMUM, period),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold,
      periods: 1,
      missing: TreatMissingData.MISSING,
      description:
        `The credentials in at least one managed Secret expire within ${hours(threshold / 60)}, and every refresh has ` +
        'failed since they became due, for less than a day. After the expiry, new Pods that use the Secret cannot pull (ImagePullBackOff). ' +
        'Find the cluster: run "ecr-anywhere status". Find the Secret: run the command in the stack\'s output DryRun.',
    });

    // Time left: the window minus two intervals, because the next invocation does the work of the lost one. SQS publishes no
    // metrics for a queue that has been empty for long, so missing data is OK.
    this.addAlarm('ScheduleDeadLetters', {
      metric: props.scheduleDeadLetters.metricApproximateNumberOfMessagesVisible({
        statistic: Stats.MAXIMUM,
        period: Duration.minutes(5),
      }),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      missing: TreatMissingData.NOT_BREACHING,
      description:
        'The schedule could not invoke the refresher. ' +
        `Pods can pull for at least ${leftAfter(2)} more. The error, often a missing permission, is in ` +
        `the attributes of the messages: run "aws sqs receive-message --queue-url ${props.scheduleDeadLetters.queueUrl} ` +
        '--message-attribute-names All". Correct it, ' +
        (scaleOut
          ? `run "aws stepfunctions start-execution --state-machine-arn ${scaleOut.stateMachine.stateMachineArn}"`
          : 'invoke the function with the event {}') +
        ' for the lost run, and purge the queue.',
    });

    if (props.pagerTopic) {
      const pager = new CompositeAlarm(this, 'Pager', {
        // As CloudFormation names the other alarms: the policy of the topic allows alarms with the name of the stack.
        compositeAlarmName: `${Stack.of(this).stackName}-${Names.uniqueResourceName(this, { maxLength: 100 })}-Pager`,
        alarmRule: AlarmRule.anyOf(...this.alarms),
        alarmDescription:
          'At least one alarm of ECR Anywhere is on: Pods in some cluster may not be able to pull within hours. The first ' +
          'command to run is in the description of that alarm. Or run "ecr-anywhere status".',
      });
      pager.addAlarmAction(new SnsAction(props.pagerTopic));
      pager.addOkAction(new SnsAction(props.pagerTopic));
    }
  }

  private addAlarm(
    id: string,
    { metric, comparison, threshold, periods, missing, description }: AlarmDefinition,
  ): void {
    const alarm = new Alarm(this, id, {
      alarmDescription: description,
      metric,
      comparisonOperator: comparison,
      threshold,
      evaluationPeriods: periods,
      datapointsToAlarm: periods,
      treatMissingData: missing,
    });
    alarm.addAlarmAction(this.action);
    alarm.addOkAction(this.action);
    this.alarms.push(alarm);
  }
}

/**
 * Executions that did not succeed. A metric of AWS without an execution of its kind has no data: SUM leaves it out, and FILL
 * makes it 0 if all three have none. Without any execution the expression has no data either, and the alarm keeps its state.
 */
function failedExecutions({ stateMachine }: ScaleOut, period: Duration): IMetric {
  return new MathExpression({
    expression: 'FILL(SUM([failed, timedOut, aborted]), 0) + 0 * started',
    usingMetrics: {
      failed: stateMachine.metricFailed({ statistic: Stats.SUM }),
      timedOut: stateMachine.metricTimedOut({ statistic: Stats.SUM }),
      aborted: stateMachine.metricAborted({ statistic: Stats.SUM }),
      started: stateMachine.metricStarted({ statistic: Stats.SUM }),
    },
    period,
  });
}

function hours(minutes: number): string {
  return `${Math.round((Math.max(minutes, 0) / 60) * 10) / 10} h`;
}

function moreThan(tolerated: number): string {
  if (tolerated === 0) return 'At least one cluster has';
  return `More than ${tolerated} ${tolerated === 1 ? 'cluster has' : 'clusters have'}`;
}
