// The five alarms: what the template says of them, and how they behave by CloudWatch's rules over days of runs.
import { describe, expect, test } from 'vitest';
import { REFRESH_WINDOW_MS } from '../../contract/freshness.ts';
import { METRIC, METRICS_NAMESPACE } from '../../functions/refresher/settings.ts';
import { type AlarmProperties, alarmHistory, type Sample } from '../bed/cloudwatch-alarms.ts';
import { resources, synth } from './synth.ts';

const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

type Name = 'Errors' | 'ClustersFailed' | 'NotRunning' | 'SoonestExpiry' | 'ScheduleDeadLetters';
type Alarm = AlarmProperties & { readonly AlarmDescription: string };

function alarms(context: Record<string, unknown> = {}): Record<Name, Alarm> {
  const found = Object.entries(resources(synth(context), 'AWS::CloudWatch::Alarm')).map(
    ([id, { Properties }]) => [id.replace('RefresherAlarms', ''), Properties],
  );
  return Object.fromEntries(found) as Record<Name, Alarm>;
}

const hourly = alarms();
const service = { Name: 'service', Value: { Ref: expect.stringMatching(/^RefresherFunctionRefresher/) } };

test('each goes to the topic when it begins and when it is over, and says what to do', () => {
  expect(Object.keys(hourly).sort()).toEqual([
    'ClustersFailed',
    'Errors',
    'NotRunning',
    'ScheduleDeadLetters',
    'SoonestExpiry',
  ]);
  const topic = [{ Ref: expect.stringMatching(/^RefresherAlarmTopic/) }];
  for (const alarm of Object.values(hourly)) {
    expect(alarm).toMatchObject({ AlarmActions: topic, OKActions: topic });
    expect(alarm.AlarmDescription).toMatch(/Read|Invoke|\?/);
    expect(alarm.AlarmDescription.length).toBeLessThanOrEqual(1024); // CloudWatch's limit
  }
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
      MetricName: METRIC.clustersFailed,
      Dimensions: [service],
      Statistic: 'Maximum',
      Period: 4200,
      EvaluationPeriods: 2,
      DatapointsToAlarm: 2,
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
])('%s watches what it says', (name, properties) => {
  expect(hourly[name]).toMatchObject(properties);
});

test.each([1, 7, 30, 60, 120])(
  'at a run every %i minutes: periods CloudWatch takes, and notice left',
  (rateMinutes) => {
    const all = alarms({ rateMinutes });
    for (const { Period, EvaluationPeriods } of Object.values(all)) {
      expect(Period % 60).toBe(0);
      expect(Period * EvaluationPeriods).toBeLessThanOrEqual(DAY / 1000);
    }
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
    const rang =
      silent.filter(({ time, state }) => state === 'ALARM' && time > DAY / 2)[0]?.time ?? Number.NaN;
    expect(rang - DAY).toBeGreaterThan(rateMinutes * MINUTE);
    expect(rang - DAY).toBeLessThan(REFRESH_WINDOW_MS);
    const promised = Number(/pulling for ([\d.]+) h/.exec(all.NotRunning.AlarmDescription)?.[1]) * HOUR;
    expect(DAY + REFRESH_WINDOW_MS - rang).toBeGreaterThanOrEqual(promised - 6 * MINUTE); // said to a tenth of an hour
  },
);

describe('over days of hourly runs, each at a random moment of its window', () => {
  // Unknown at first; then the one state it should have.
  const states = (name: Name, samples: readonly Sample[], until = 3 * DAY) =>
    alarmHistory(hourly[name], samples, 0, until).map(({ state }) => state);

  test('a healthy refresher wakes nobody, but for the first minutes without a run', () => {
    expect(
      states(
        'ClustersFailed',
        runs(60, 3 * DAY, () => 0),
      ),
    ).toEqual(['OK']);
    expect(
      states(
        'NotRunning',
        runs(60, 3 * DAY, () => 3),
      ),
    ).toEqual(['ALARM', 'OK']);
    expect(
      states(
        'SoonestExpiry',
        runs(60, 3 * DAY, () => 6 * 3600),
      ),
    ).toEqual(['OK']);
    expect(
      states(
        'Errors',
        runs(60, 3 * DAY, () => 0),
      ),
    ).toEqual(['OK']);
    expect(states('ScheduleDeadLetters', [])).toEqual(['OK']);
  });

  test('one missed tick wakes nobody, two do', () => {
    const all = runs(60, 3 * DAY, () => 3);
    expect(states('NotRunning', all.toSpliced(20, 1))).toEqual(['ALARM', 'OK']);
    expect(states('NotRunning', all.toSpliced(20, 4))).toEqual(['ALARM', 'OK', 'ALARM', 'OK']);
  });

  test('a cluster that fails once wakes nobody; twice in a row, or for good, it alarms until it is well', () => {
    const failing = (from: number, to: number) =>
      runs(60, 3 * DAY, (run) => (run >= from && run < to ? 2 : 0));
    expect(states('ClustersFailed', failing(20, 21))).toEqual(['OK']);
    expect(states('ClustersFailed', failing(20, 22))).toEqual(['OK', 'ALARM', 'OK']);
    expect(states('ClustersFailed', failing(20, 200))).toEqual(['OK', 'ALARM']);
  });

  test('two failed runs and then silence: the alarm does not take silence for recovery', () => {
    const samples = runs(60, 22 * HOUR, (run) => (run >= 20 ? 2 : 0));
    expect(states('ClustersFailed', samples).at(-1)).toBe('ALARM');
  });

  test('an invocation that fails alarms at once, until one has succeeded', () => {
    const samples = runs(60, DAY, (run) => (run === 10 ? 1 : 0));
    const [, alarm] = alarmHistory(hourly.Errors, samples, 0, DAY);
    expect(alarm?.state).toBe('ALARM');
    expect((alarm?.time ?? 0) - (samples[10]?.time ?? 0)).toBeLessThanOrEqual(MINUTE);
    expect(states('Errors', samples)).toEqual(['OK', 'ALARM', 'OK']);
  });

  test('half the refresh window is the limit for the soonest expiry, to the second', () => {
    const soonest = (seconds: number) => runs(60, DAY, (run) => (run < 10 ? 7 * 3600 : seconds));
    expect(states('SoonestExpiry', soonest(10_800), DAY)).toEqual(['OK']);
    expect(states('SoonestExpiry', soonest(10_799), DAY)).toEqual(['OK', 'ALARM']);
    expect(states('SoonestExpiry', soonest(-60), DAY)).toEqual(['OK', 'ALARM']);
  });

  test('no cluster left to look at: the soonest expiry is neither well nor an alarm', () => {
    expect(
      states(
        'SoonestExpiry',
        runs(60, DAY, () => 3600),
      ),
    ).toEqual(['ALARM', 'INSUFFICIENT_DATA']);
  });

  test('one dead letter alarms', () => {
    const samples = Array.from({ length: 10 }, (_, minute) => ({ time: HOUR + minute * MINUTE, value: 1 }));
    expect(states('ScheduleDeadLetters', samples, DAY)).toEqual(['OK', 'ALARM', 'OK']);
  });
});

/** What runs report: one sample an interval, somewhere in the flexible window (a sixth of it), the same every time. */
function runs(rateMinutes: number, until: number, value: (run: number) => number): Sample[] {
  const samples: Sample[] = [];
  for (let run = 0; run * rateMinutes * MINUTE < until; run++) {
    const jitter = (((run + 1) * 7919) % 1000) / 1000;
    const late = Math.floor(rateMinutes / 6) * MINUTE * jitter;
    samples.push({ time: run * rateMinutes * MINUTE + 30_000 + late, value: value(run) });
  }
  return samples;
}
