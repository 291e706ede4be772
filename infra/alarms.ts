// What wakes people: five alarms, each hours before the first Pod cannot pull.
//
// The clock they work against: a Secret becomes due while its credentials still live for the refresh window. If every
// refresh fails from then on, the first run to fail finds at least the window less one interval left, the second the
// window less two.
import { Duration } from 'aws-cdk-lib';
import {
  Alarm,
  ComparisonOperator,
  type IMetric,
  Metric,
  Stats,
  TreatMissingData,
} from 'aws-cdk-lib/aws-cloudwatch';
import { SnsAction } from 'aws-cdk-lib/aws-cloudwatch-actions';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { REFRESH_WINDOW_MS } from '../contract/freshness.ts';
import { METRIC, METRICS_NAMESPACE } from '../functions/refresher/settings.ts';

export interface RefresherAlarmsProps {
  readonly function: IFunction;
  readonly scheduleDeadLetters: IQueue;
  readonly interval: Duration;
  readonly flexibleWindow: Duration;
  readonly topic: ITopic;
}

interface Watch {
  readonly metric: IMetric;
  readonly comparison: ComparisonOperator;
  readonly threshold: number;
  readonly periods: number;
  readonly missing: TreatMissingData;
  /** What it means and what to do first. */
  readonly description: string;
}

/** The refresher's alarms. Each tells when it begins and when it is over. */
export class RefresherAlarms extends Construct {
  private readonly action: SnsAction;

  constructor(scope: Construct, id: string, props: RefresherAlarmsProps) {
    super(scope, id);
    this.action = new SnsAction(props.topic);
    const { interval } = props;
    const windowMinutes = REFRESH_WINDOW_MS / 60_000;
    // However late in its window one run comes and however early the last one came, so long a time holds one of them:
    // a shorter period would at times hold none, and CloudWatch would go back to an older run's figures.
    const oneRun = interval.toMinutes() + props.flexibleWindow.toMinutes();
    const period = Duration.minutes(oneRun);
    const metric = (metricName: string, statistic: string, every: Duration) =>
      new Metric({
        namespace: METRICS_NAMESPACE,
        metricName,
        dimensionsMap: { service: props.function.functionName },
        statistic,
        period: every,
      });

    // Notice: the window less one interval. If runs stop, silence is no sign of recovery: the state stays that of the
    // last run, and another alarm tells of the silence.
    this.watch('Errors', {
      metric: props.function.metricErrors({ statistic: Stats.SUM, period }),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      missing: TreatMissingData.IGNORE,
      description:
        'An invocation of the refresher failed: the run itself broke, or clusters are registered and none could be ' +
        `served. Pods go on pulling for ${hours(windowMinutes - oneRun)} at least. Read the last ERROR in the function's log.`,
    });

    // Notice: the window less two intervals. Twice, because a cluster that is upgraded or restarted is back by the
    // next run. Missing data is ignored for the same reason as above.
    this.watch('ClustersFailed', {
      metric: metric(METRIC.clustersFailed, Stats.MAXIMUM, period),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 2,
      missing: TreatMissingData.IGNORE,
      description:
        'In two runs in a row some cluster could not be reached, or a Secret that was due was not refreshed. ' +
        `Pods there go on pulling for ${hours(windowMinutes - 2 * oneRun)} at least. Invoke the function with ` +
        '{"dryRun": true}: its answer names each cluster and the reason.',
    });

    // Silence is what this one is for, so missing data breaches. Many short periods rather than two long ones, because
    // CloudWatch looks a few periods further back for data before it calls any missing: short ones keep that delay
    // short. Counted from the last run, which left nothing due: the window less two intervals and those few periods.
    const slice = Math.max(1, Math.floor(interval.toMinutes() / 4));
    const silence = 2 * interval.toMinutes() + props.flexibleWindow.toMinutes();
    this.watch('NotRunning', {
      metric: metric(METRIC.clustersRegistered, Stats.SAMPLE_COUNT, Duration.minutes(slice)),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold: 1,
      periods: Math.ceil(silence / slice),
      missing: TreatMissingData.BREACHING,
      description:
        `The refresher has not finished a run for ${hours(silence)}. Pods go on pulling for ` +
        `${hours(windowMinutes - silence - 3 * slice)} at least. Is the schedule enabled, does the function answer when ` +
        'invoked by hand, do its queues for failures and dead letters hold anything? (Until the first run after the first ' +
        'deployment this alarm rings: it cannot tell not yet from no more.)',
    });

    // Half the window is left or, found by the next run only, that less one interval. Whatever the reason is, known to
    // us or not: this one looks at the credentials. No cluster served, no data: neither good news nor bad, and the
    // alarms above tell.
    const threshold = REFRESH_WINDOW_MS / 2 / 1000;
    this.watch('SoonestExpiry', {
      metric: metric(METRIC.soonestExpiry, Stats.MINIMUM, period),
      comparison: ComparisonOperator.LESS_THAN_THRESHOLD,
      threshold,
      periods: 1,
      missing: TreatMissingData.MISSING,
      description:
        `Some managed Secret expires within ${hours(threshold / 60)} and refreshing it has failed for as long. ` +
        'Invoke the function with {"dryRun": true}: its answer names the cluster and the Secret. New Pods there will ' +
        'be in ImagePullBackOff once it has expired.',
    });

    // Notice: the window less two intervals, as the lost tick's work falls to the next. SQS reports nothing of a queue
    // that has long been empty, so missing data is well.
    this.watch('ScheduleDeadLetters', {
      metric: props.scheduleDeadLetters.metricApproximateNumberOfMessagesVisible({
        statistic: Stats.MAXIMUM,
        period: Duration.minutes(5),
      }),
      comparison: ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
      threshold: 1,
      periods: 1,
      missing: TreatMissingData.NOT_BREACHING,
      description:
        "The schedule could not invoke the refresher. The message's attributes in the schedule's dead-letter queue say " +
        'why (often a changed permission). Invoke the function by hand, then purge the queue.',
    });
  }

  private watch(id: string, { metric, comparison, threshold, periods, missing, description }: Watch): void {
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
  }
}

function hours(minutes: number): string {
  return `${Math.round((minutes / 60) * 10) / 10} h`;
}
