// The alarms: their properties in the template, and when they go off by CloudWatch's rules over days of runs.
import { describe, expect, test } from 'vitest';
import { REFRESH_WINDOW_MS } from '../../contract/freshness.ts';
import { CLUSTER_DIMENSION, METRIC, METRICS_NAMESPACE } from '../../functions/refresher/settings.ts';
import { type AlarmProperties, alarmHistory, type Sample } from '../bed/cloudwatch-alarms.ts';
import { resources, synth } from './synth.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

type Name =
  | 'AnnouncementsFailed'
  | 'Errors'
  | 'ClustersFailed'
  | 'NotRunning'
  | 'SoonestExpiry'
  | 'ScheduleDeadLetters';
type Text = string | { readonly 'Fn::Join': readonly [string, readonly unknown[]] };
type Alarm = AlarmProperties & { readonly AlarmDescription: Text };

function alarms(context: Record<string, unknown> = {}): Record<Name, Alarm> {
  const found = Object.entries(resources(synth(context), 'AWS::CloudWatch::Alarm')).map(
    ([id, { Properties }]) => [id.replace('RefresherAlarms', ''), Properties],
  );
  return Object.fromEntries(found) as Record<Name, Alarm>;
}

/** The text of a description; a value that CloudFormation inserts becomes `{}`. */
function textOf(text: Text): string {
  if (typeof text === 'string') return text;
  return text['Fn::Join'][1].map((part) => (typeof part === 'string' ? part : '{}')).join('');
}

const hourly = alarms();
const service = { Name: 'service', Value: { Ref: expect.stringMatching(/^RefresherFunctionRefresher/) } };

test('each publishes to the topic when it goes off and when it is OK again, with the first command to run', () => {
  expect(Object.keys(hourly).sort()).toEqual([
    'AnnouncementsFailed',
    'ClustersFailed',
    'Errors',
    'NotRunning',
    'ScheduleDeadLetters',
    'SoonestExpiry',
  ]);
  const topic = [{ Ref: expect.stringMatching(/^RefresherAlarmTopic/) }];
  for (const alarm of Object.values(hourly)) {
    expect(alarm).toMatchObject({ AlarmActions: topic, OKActions: topic });
    const text = textOf(alarm.AlarmDescription);
    expect(text).toMatch(/[Rr]un ("ecr-anywhere|"aws|the command)/);
    expect(text).toMatch(/[Pp]ods .*can(not)? pull/);
    // CloudWatch's limit. The URL of a queue has up to 150 characters.
    expect(text.replaceAll('{}', '-'.repeat(150)).length).toBeLessThanOrEqual(1024);
  }
});

test.each<{ name: Name; queues: string[] }>([
  { name: 'NotRunning', queues: ['RefresherFunctionFailures', 'RefresherScheduleDeadLetters'] },
  { name: 'ScheduleDeadLetters', queues: ['RefresherScheduleDeadLetters'] },
])('the description of $name has the URL of each queue to read', ({ name, queues }) => {
  const { AlarmDescription: text } = hourly[name];
  const inserted =
    typeof text === 'string' ? [] : text['Fn::Join'][1].filter((part) => typeof part !== 'string');
  expect(inserted).toEqual(queues.map((id) => ({ Ref: expect.stringMatching(`^${id}`) })));
});

test.each<[Name, object]>([
  [
    'Errors',
    {
      Namespace: 'AWS/Lambda',
      MetricName: 'Errors',
      Statistic: 'Sum',
      Period: 4200,
      EvaluationPeriods: 1,
      Threshold: 1,
      ComparisonOperator: 'GreaterThanOrEqualToThreshold',
      TreatMissingData: 'ignore',
    },
  ],
  [
    'ClustersFailed',
    {
      Namespace: METRICS_NAMESPACE,
      MetricName: METRIC.clustersFailing,
      Dimensions: [service],
      Statistic: 'Maximum',
      Period: 4200,
      EvaluationPeriods: 1,
      Threshold: 0,
      ComparisonOperator: 'GreaterThanThreshold',
      TreatMissingData: 'ignore',
    },
  ],
  [
    'AnnouncementsFailed',
    {
      Namespace: METRICS_NAMESPACE,
      MetricName: METRIC.transitionsNotAnnounced,
      Dimensions: [service],
      Statistic: 'Maximum',
      Period: 4200,
      EvaluationPeriods: 1,
      Threshold: 1,
      ComparisonOperator: 'GreaterThanOrEqualToThreshold',
      TreatMissingData: 'ignore',
    },
  ],
  [
    'NotRunning',
    {
      Namespace: METRICS_NAMESPACE,
      MetricName: METRIC.clustersRegistered,
      Dimensions: [service],
      Statistic: 'SampleCount',
      Period: 900,
      EvaluationPeriods: 9,
      DatapointsToAlarm: 9,
      Threshold: 1,
      ComparisonOperator: 'LessThanThreshold',
      TreatMissingData: 'breaching',
    },
  ],
  [
    'SoonestExpiry',
    {
      Namespace: METRICS_NAMESPACE,
      MetricName: METRIC.soonestExpiry,
      Dimensions: [service],
      Statistic: 'Minimum',
      Period: 4200,
      EvaluationPeriods: 1,
      Threshold: 10_800,
      ComparisonOperator: 'LessThanThreshold',
      TreatMissingData: 'missing',
    },
  ],
  [
    'ScheduleDeadLetters',
    {
      Namespace: 'AWS/SQS',
      MetricName: 'ApproximateNumberOfMessagesVisible',
      Statistic: 'Maximum',
      Period: 300,
      EvaluationPeriods: 1,
      Threshold: 1,
      ComparisonOperator: 'GreaterThanOrEqualToThreshold',
      TreatMissingData: 'notBreaching',
    },
  ],
])('%s has its metric, threshold and periods', (name, properties) => {
  expect(hourly[name]).toMatchObject(properties);
});

test.each([1, 7, 30, 60, 90])(
  'with a run every %i minutes, uses valid periods and goes off as early as its description promises',
  (rateMinutes) => {
    const all = alarms({ rateMinutes });
    for (const { Period, EvaluationPeriods } of Object.values(all)) {
      expect(Period % 60).toBe(0);
      expect(Period * EvaluationPeriods).toBeLessThanOrEqual(DAY / 1000);
    }
    for (const { AlarmDescription } of Object.values(all))
      expect(textOf(AlarmDescription)).not.toMatch(/at least (-|0 h)/);
    expect(all.ClustersFailed.Period).toBe((rateMinutes + Math.floor(rateMinutes / 6)) * 60);
    expect(all.NotRunning.Period * all.NotRunning.EvaluationPeriods).toBeGreaterThanOrEqual(
      2 * rateMinutes * 60,
    );

    const silent = alarmHistory(
      all.NotRunning,
      runs(rateMinutes, DAY, () => 3),
      0,
      DAY + 8 * HOUR,
    );
    const wentOff =
      silent.filter(({ time, state }) => state === 'ALARM' && time > DAY / 2)[0]?.time ?? Number.NaN;
    expect(wentOff - DAY).toBeGreaterThan(rateMinutes * MINUTE);
    expect(wentOff - DAY).toBeLessThan(REFRESH_WINDOW_MS);
    const promised =
      Number(/pull for at least ([\d.]+) h/.exec(textOf(all.NotRunning.AlarmDescription))?.[1]) * HOUR;
    // The description rounds to a tenth of an hour.
    expect(DAY + REFRESH_WINDOW_MS - wentOff).toBeGreaterThanOrEqual(promised - 6 * MINUTE);
  },
);

describe('over days of hourly runs, each at a random time of its window', () => {
  /** The states that the alarm goes through, without the first, which is INSUFFICIENT_DATA. */
  const states = (name: Name, samples: readonly Sample[], until = 3 * DAY) =>
    alarmHistory(hourly[name], samples, 0, until).map(({ state }) => state);

  test.each<{ name: Name; value: number; expected: string[] }>([
    { name: 'ClustersFailed', value: 0, expected: ['OK'] },
    { name: 'AnnouncementsFailed', value: 0, expected: ['OK'] },
    // The alarm is on until the figures of the first run arrive.
    { name: 'NotRunning', value: 3, expected: ['ALARM', 'OK'] },
    { name: 'SoonestExpiry', value: 6 * 3600, expected: ['OK'] },
    { name: 'Errors', value: 0, expected: ['OK'] },
  ])('$name is OK for a healthy refresher', ({ name, value, expected }) => {
    const samples = runs(60, 3 * DAY, () => value);
    expect(states(name, samples)).toEqual(expected);
  });

  test('ScheduleDeadLetters is OK without data', () => {
    expect(states('ScheduleDeadLetters', [])).toEqual(['OK']);
  });

  test('NotRunning goes off after several missed runs, not after one', () => {
    const all = runs(60, 3 * DAY, () => 3);
    expect(states('NotRunning', all.toSpliced(20, 1))).toEqual(['ALARM', 'OK']);
    expect(states('NotRunning', all.toSpliced(20, 4))).toEqual(['ALARM', 'OK', 'ALARM', 'OK']);
  });

  const between = (from: number, to: number, value: number) =>
    runs(60, 3 * DAY, (run) => (run >= from && run < to ? value : 0));

  test.each(['ClustersFailed', 'AnnouncementsFailed'] as const)(
    '%s goes off with one cluster, is OK again without one, and stays in ALARM when runs stop',
    (name) => {
      expect(states(name, between(20, 21, 1))).toEqual(['OK', 'ALARM', 'OK']);
      expect(states(name, between(20, 200, 1))).toEqual(['OK', 'ALARM']);
      const stopped = runs(60, 22 * HOUR, (run) => (run >= 20 ? 2 : 0));
      expect(states(name, stopped).at(-1)).toBe('ALARM');
    },
  );

  test('ClustersFailed tolerates as many clusters as are configured', () => {
    const { ClustersFailed } = alarms({ toleratedFailingClusters: 3 });
    const history = (value: number) =>
      alarmHistory(ClustersFailed, between(20, 22, value), 0, 3 * DAY).map(({ state }) => state);
    expect(history(3)).toEqual(['OK']);
    expect(history(4)).toEqual(['OK', 'ALARM', 'OK']);
    expect(textOf(ClustersFailed.AlarmDescription)).toContain('More than 3 clusters have failed');
    expect(textOf(hourly.ClustersFailed.AlarmDescription)).toContain('At least one cluster has failed');
  });

  test('Errors goes off within a minute of a failed run, and is OK after the next good one', () => {
    const samples = runs(60, DAY, (run) => (run === 10 ? 1 : 0));
    const [, alarm] = alarmHistory(hourly.Errors, samples, 0, DAY);
    expect(alarm?.state).toBe('ALARM');
    expect((alarm?.time ?? 0) - (samples[10]?.time ?? 0)).toBeLessThanOrEqual(MINUTE);
    expect(states('Errors', samples)).toEqual(['OK', 'ALARM', 'OK']);
  });

  test('SoonestExpiry goes off below half of the refresh window', () => {
    const soonest = (seconds: number) => runs(60, DAY, (run) => (run < 10 ? 7 * 3600 : seconds));
    expect(states('SoonestExpiry', soonest(10_800), DAY)).toEqual(['OK']);
    expect(states('SoonestExpiry', soonest(10_799), DAY)).toEqual(['OK', 'ALARM']);
    expect(states('SoonestExpiry', soonest(-60), DAY)).toEqual(['OK', 'ALARM']);
  });

  test('SoonestExpiry has no state without data', () => {
    expect(
      states(
        'SoonestExpiry',
        runs(60, DAY, () => 3600),
      ),
    ).toEqual(['ALARM', 'INSUFFICIENT_DATA']);
  });

  test('ScheduleDeadLetters goes off with one message, and is OK when the queue is empty', () => {
    const samples = Array.from({ length: 10 }, (_, minute) => ({ time: HOUR + minute * MINUTE, value: 1 }));
    expect(states('ScheduleDeadLetters', samples, DAY)).toEqual(['OK', 'ALARM', 'OK']);
  });
});

describe('with clusterMetrics, the alarm ClusterFailing', () => {
  const { ClusterFailing } = alarms({ clusterMetrics: true }) as unknown as Record<string, Alarm & Query>;
  interface Query {
    readonly Metrics: readonly { readonly Expression: Text; readonly Period: number }[];
  }
  const [query] = ClusterFailing?.Metrics ?? [];

  test('is one series for each cluster of this function', () => {
    expect(textOf(query?.Expression ?? '')).toBe(
      `SELECT MAX(${METRIC.consecutiveFailures}) FROM SCHEMA("${METRICS_NAMESPACE}", ${CLUSTER_DIMENSION}, service) ` +
        "WHERE service = '{}' GROUP BY cluster ORDER BY MAX() DESC",
    );
    expect(ClusterFailing).toMatchObject({ Threshold: 2, EvaluationPeriods: 1, TreatMissingData: 'ignore' });
    // CloudWatch evaluates Metrics Insights over three hours at most.
    expect(query?.Period).toBeLessThanOrEqual(3 * 3600);
    const text = textOf(ClusterFailing?.AlarmDescription ?? '');
    expect(text).toContain('Pods in them can pull for at least 3.7 h more');
  });

  test('goes off for a cluster that fails twice in a row, and is OK after its next good run', () => {
    const alarm = { ...hourly.ClustersFailed, ...ClusterFailing, Period: query?.Period ?? 0 };
    const statesOf = (failures: (run: number) => number) =>
      alarmHistory(alarm, runs(60, 2 * DAY, failures), 0, 2 * DAY).map(({ state }) => state);
    expect(statesOf((run) => (run === 20 ? 1 : 0))).toEqual(['OK']);
    expect(statesOf((run) => (run >= 20 && run < 30 ? run - 19 : 0))).toEqual(['OK', 'ALARM', 'OK']);
    expect(statesOf((run) => run + 100)).toEqual(['ALARM']);
  });

  test.each([1, 90])('can be evaluated with a run every %i minutes', (rateMinutes) => {
    expect(() => synth({ clusterMetrics: true, rateMinutes })).not.toThrow();
  });
});

describe('with pagerTopicArn, the composite alarm Pager', () => {
  const pagerTopicArn = 'arn:aws:sns:eu-central-1:111122223333:pager';
  const template = synth({ pagerTopicArn, clusterMetrics: true });
  const [pager] = Object.values(resources(template, 'AWS::CloudWatch::CompositeAlarm'));

  test('is on while any alarm is, and publishes to that topic only', () => {
    const rule = pager?.Properties.AlarmRule as { 'Fn::Join': [string, (string | object)[]] };
    const inRule = rule['Fn::Join'][1].flatMap((part) => (typeof part === 'string' ? [] : [part]));
    const ids = Object.keys(template.findResources('AWS::CloudWatch::Alarm'));
    expect(inRule).toEqual(expect.arrayContaining(ids.map((id) => ({ 'Fn::GetAtt': [id, 'Arn'] }))));
    expect(inRule).toHaveLength(ids.length);
    expect(textOf(rule as Text)).toMatch(/^\(ALARM\("\{\}"\)( OR ALARM\("\{\}"\))*\)$/);
    expect(pager?.Properties).toMatchObject({ AlarmActions: [pagerTopicArn], OKActions: [pagerTopicArn] });
  });

  test('has a name that the policy of the topic allows', () => {
    expect(pager?.Properties.AlarmName).toMatch(/^Test-/);
  });

  test('does not exist by default', () => {
    expect(resources(synth(), 'AWS::CloudWatch::CompositeAlarm')).toEqual({});
  });
});

/** The samples that runs publish: one in each interval, at a fixed pseudo-random time of the flexible window. */
function runs(rateMinutes: number, until: number, value: (run: number) => number): Sample[] {
  const samples: Sample[] = [];
  for (let run = 0; run * rateMinutes * MINUTE < until; run++) {
    const jitter = (((run + 1) * 7919) % 1000) / 1000;
    const late = Math.floor(rateMinutes / 6) * MINUTE * jitter;
    samples.push({ time: run * rateMinutes * MINUTE + 30_000 + late, value: value(run) });
  }
  return samples;
}
