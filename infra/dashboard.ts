// The refresher's CloudWatch dashboard: the alarms on top, then the clusters, their credentials, and the refresher itself.
import { Duration, Stack } from 'aws-cdk-lib';
import {
  AlarmStatusWidget,
  Color,
  Dashboard,
  GraphWidget,
  type IAlarm,
  type IMetric,
  type IWidget,
  LogQueryVisualizationType,
  LogQueryWidget,
  MathExpression,
  Metric,
  SingleValueWidget,
  Stats,
  TextWidget,
} from 'aws-cdk-lib/aws-cloudwatch';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import type { ILogGroup } from 'aws-cdk-lib/aws-logs';
import type { IQueue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { REFRESH_WINDOW_MS } from '../contract/freshness.ts';
import { METRIC, METRICS_NAMESPACE } from '../functions/refresher/settings.ts';
import type { ScaleOut } from './scale-out.ts';

export interface RefresherDashboardProps {
  readonly alarms: readonly IAlarm[];
  readonly function: IFunction;
  readonly timeout: Duration;
  /** Runs the function in batches; absent without `scaleOut`. */
  readonly scaleOut: ScaleOut | undefined;
  readonly logGroup: ILogGroup;
  readonly scheduleDeadLetters: IQueue;
  readonly failures: IQueue;
  /** The longest time between two runs. */
  readonly period: Duration;
}

const WIDTH = 24;
const HALF = WIDTH / 2;
const HEIGHT = 6;
/** Rows of a table: what fits without scrolling. */
const ROWS = 10;

/** The dashboard. Its tables name the clusters; its graphs have the fleet's figures. */
export class RefresherDashboard extends Construct {
  readonly dashboard: Dashboard;

  constructor(scope: Construct, id: string, props: RefresherDashboardProps) {
    super(scope, id);
    const { stackName, region } = Stack.of(this);
    const { scaleOut } = props;
    const of = (metricName: string, label: string, color?: string) =>
      new Metric({
        namespace: METRICS_NAMESPACE,
        metricName,
        dimensionsMap: { service: props.function.functionName },
        statistic: metricName === METRIC.soonestExpiry ? Stats.MINIMUM : Stats.MAXIMUM,
        period: props.period,
        label,
        ...(color !== undefined && { color }),
      });
    const table = (title: string, width: number, ...queryLines: string[]) =>
      new LogQueryWidget({
        title,
        logGroupNames: [props.logGroup.logGroupName],
        view: LogQueryVisualizationType.TABLE,
        queryLines,
        width,
        height: HEIGHT,
      });
    const graph = (title: string, width: number, more: ConstructorParameters<typeof GraphWidget>[0]) =>
      new GraphWidget({ title, width, height: HEIGHT, leftYAxis: { min: 0, showUnits: false }, ...more });

    const clusters = of(METRIC.clustersRegistered, 'clusters');
    const failed = of(METRIC.clustersFailed, 'failed');
    const failing = of(METRIC.clustersFailing, 'failing', Color.RED);
    const failingForDays = of(METRIC.clustersFailingForDays, 'failing for days', Color.BROWN);
    const paused = of(METRIC.clustersPaused, 'paused', Color.GREY);

    const rows: IWidget[][] = [
      [
        new TextWidget({
          markdown:
            `# ECR Anywhere: ${stackName}\n` +
            '`ecr-anywhere status` lists the clusters, `ecr-anywhere doctor NAME` finds the cause of a failure, ' +
            '`ecr-anywhere pause NAME` silences a cluster. What an alarm means is in its description.',
          width: WIDTH,
          height: 2,
        }),
      ],
      [new AlarmStatusWidget({ title: 'Alarms', alarms: [...props.alarms], width: WIDTH, height: 3 })],
      [
        new SingleValueWidget({
          title: 'Last run',
          metrics: [
            clusters,
            failing,
            failingForDays,
            paused,
            of(METRIC.secretsManaged, 'Secrets'),
            hoursOf(of(METRIC.soonestExpiry, ''), 'hours to the first expiry'),
          ],
          sparkline: true,
          width: WIDTH,
          height: 4,
        }),
      ],
      [
        // The few that fail are at the bottom, where they can be seen.
        graph('Clusters by state', HALF, {
          stacked: true,
          left: [
            failing,
            failingForDays,
            paused,
            new MathExpression({
              label: 'failed once',
              color: Color.ORANGE,
              expression: 'failed - failing - days',
              usingMetrics: { failed, failing, days: failingForDays },
              period: props.period,
            }),
            new MathExpression({
              label: 'working',
              color: Color.GREEN,
              expression: 'clusters - failed - paused',
              usingMetrics: { clusters, failed, paused },
              period: props.period,
            }),
          ],
        }),
        graph('Hours until the first credentials expire', HALF, {
          left: [hoursOf(of(METRIC.soonestExpiry, ''), 'hours')],
          leftYAxis: { showUnits: false },
          leftAnnotations: [
            { value: REFRESH_WINDOW_MS / 3_600_000, label: 'due', color: Color.GREEN },
            { value: REFRESH_WINDOW_MS / 2 / 3_600_000, label: 'alarm SoonestExpiry', color: Color.ORANGE },
            { value: 0, label: 'expired', color: Color.RED },
          ],
        }),
      ],
      [
        // The last line of each cluster decides, so that a cluster that works again is not listed. Logs Insights shows
        // true as 1. The level would also list clusters of which only the state was not saved.
        table(
          'Clusters that failed in their last run, the most failures first',
          WIDTH,
          'filter message = "cluster"',
          'stats latest(failed) as hasFailed, latest(failures) as failedRuns, latest(failingSince) as since, latest(soonestExpiry) as credentialsExpire, latest(reason) as why by cluster',
          'filter hasFailed = 1',
          'sort failedRuns desc',
          `limit ${ROWS}`,
        ),
      ],
      [
        table(
          'Announcements',
          HALF,
          'filter message = "announced"',
          'display @timestamp, cluster, transition',
          'sort @timestamp desc',
          `limit ${ROWS}`,
        ),
        table(
          'Secrets that were not refreshed',
          HALF,
          'filter message = "secret" and level = "ERROR"',
          'stats count(*) as requests, latest(reason) as why by cluster, outcome',
          'sort requests desc',
          `limit ${ROWS}`,
        ),
      ],
      [
        graph('Refresh requests', WIDTH / 3, {
          stacked: true,
          left: [
            of(METRIC.secretsRefreshed, 'refreshed', Color.GREEN),
            of(METRIC.secretsRefused, 'refused', Color.RED),
            of(METRIC.secretsNotAttempted, 'not attempted', Color.ORANGE),
          ],
        }),
        graph('Run time, seconds', WIDTH / 3, {
          left: [
            new MathExpression({
              label: 'longest run',
              expression: 'duration / 1000',
              usingMetrics: {
                duration: scaleOut
                  ? scaleOut.stateMachine.metricTime({ statistic: Stats.MAXIMUM })
                  : props.function.metricDuration({ statistic: Stats.MAXIMUM }),
              },
              period: props.period,
            }),
          ],
          leftAnnotations: [
            scaleOut
              ? { value: scaleOut.timeLimit.toSeconds(), label: 'time limit of a run', color: Color.RED }
              : { value: props.timeout.toSeconds(), label: "the function's time limit", color: Color.RED },
          ],
        }),
        graph('The refresher itself', WIDTH / 3, {
          left: [
            ...(scaleOut ? failures(scaleOut, props.period) : []),
            props.function.metricErrors({
              period: props.period,
              label: scaleOut ? 'failed steps' : 'failed runs',
              color: scaleOut ? Color.PINK : Color.RED,
            }),
            ...(scaleOut ? [of(METRIC.batchesEnded, 'ended batches', Color.GREY)] : []),
            props.function.metricThrottles({ period: props.period, label: 'throttled', color: Color.ORANGE }),
            of(METRIC.statesNotSaved, 'not saved', Color.PURPLE),
            of(METRIC.transitionsNotAnnounced, 'not announced', Color.BROWN),
            messages(props.failures, 'failed events'),
            messages(props.scheduleDeadLetters, 'not delivered'),
          ],
        }),
      ],
      [
        // All callers of this account and region count against one quota: webhooks, nodes, pipelines.
        graph(`ECR GetAuthorizationToken calls a second in ${region}`, HALF, {
          left: [
            new MathExpression({
              label: 'calls',
              expression: 'calls / PERIOD(calls)',
              usingMetrics: { calls: ecrCalls() },
              period: Duration.minutes(5),
            }),
            new MathExpression({
              label: 'quota',
              color: Color.RED,
              expression: 'SERVICE_QUOTA(calls)',
              usingMetrics: { calls: ecrCalls() },
              period: Duration.minutes(5),
            }),
          ],
        }),
        table(
          'Refresh requests that failed because ECR was throttling',
          HALF,
          'filter message = "secret" and @message like /"ecr-throttled"/',
          'stats count(*) as requests, max(@timestamp) as last by cluster',
          'sort requests desc',
          `limit ${ROWS}`,
        ),
      ],
    ];
    this.dashboard = new Dashboard(this, 'Dashboard', {
      defaultInterval: Duration.days(1),
      widgets: rows,
    });
  }
}

function hoursOf(seconds: Metric, label: string): IMetric {
  return new MathExpression({
    label,
    expression: 'soonest / 3600',
    usingMetrics: { soonest: seconds },
    period: seconds.period,
  });
}

/** The runs in batches that did not succeed. */
function failures({ stateMachine }: ScaleOut, period: Duration): IMetric[] {
  const common = { statistic: Stats.SUM, period };
  return [
    stateMachine.metricFailed({ ...common, label: 'failed runs', color: Color.RED }),
    stateMachine.metricTimedOut({ ...common, label: 'runs that took too long' }),
    stateMachine.metricAborted({ ...common, label: 'stopped runs' }),
  ];
}

function messages(queue: IQueue, label: string): IMetric {
  return queue.metricApproximateNumberOfMessagesVisible({ statistic: Stats.MAXIMUM, label });
}

/** Amazon ECR User Guide, "Amazon ECR usage metrics". */
function ecrCalls(): Metric {
  return new Metric({
    namespace: 'AWS/Usage',
    metricName: 'CallCount',
    dimensionsMap: { Service: 'ECR', Type: 'API', Resource: 'GetAuthorizationToken', Class: 'None' },
    statistic: Stats.SUM,
    period: Duration.minutes(5),
  });
}
