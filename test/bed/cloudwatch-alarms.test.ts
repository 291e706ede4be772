// The alarm evaluator, compared with the examples of the Amazon CloudWatch User Guide.
import { describe, expect, test } from 'vitest';
import {
  type AlarmProperties,
  type AlarmState,
  alarmState,
  embeddedMetrics,
  stateOf,
} from './cloudwatch-alarms.ts';

const alarm = (properties: Partial<AlarmProperties>): AlarmProperties => ({
  Period: 300,
  EvaluationPeriods: 3,
  Statistic: 'Maximum',
  Threshold: 1,
  ComparisonOperator: 'GreaterThanOrEqualToThreshold',
  ...properties,
});

const OK = 'OK';
const ALARM = 'ALARM';
const UNKNOWN = 'INSUFFICIENT_DATA';
/** The previous state: a value that no rule sets. */
const RETAINED = 'retained' as AlarmState;

// Columns: missing, ignore, breaching, notBreaching. 0 does not breach, X breaches, - is missing; oldest first.
const TABLES: [string, number, [string, AlarmState, AlarmState, AlarmState, AlarmState][]][] = [
  [
    'three of three',
    3,
    [
      ['0 - X - X', OK, OK, OK, OK],
      ['0 - - - -', OK, OK, OK, OK],
      ['- - - - -', UNKNOWN, RETAINED, ALARM, OK],
      ['0 X X - X', ALARM, ALARM, ALARM, ALARM],
      ['- - - - X', UNKNOWN, RETAINED, ALARM, OK],
      ['- - X - -', ALARM, RETAINED, ALARM, OK],
    ],
  ],
  [
    'two of three',
    2,
    [
      ['0 - X - X', ALARM, ALARM, ALARM, ALARM],
      ['0 0 X 0 X', ALARM, ALARM, ALARM, ALARM],
      ['0 - X - -', OK, OK, ALARM, OK],
      ['- - - - 0', OK, OK, ALARM, OK],
      ['- - - - X', UNKNOWN, RETAINED, ALARM, OK],
    ],
  ],
];

describe.each(TABLES)('%s', (_, DatapointsToAlarm, rows) => {
  test.each(rows)('%s', (range, missing, ignore, breaching, notBreaching) => {
    const values = range.split(' ').map((datapoint) => ({ 0: 0, X: 1 })[datapoint]);
    const state = (TreatMissingData: NonNullable<AlarmProperties['TreatMissingData']>) =>
      stateOf(alarm({ DatapointsToAlarm, TreatMissingData }), values, RETAINED);
    expect([state('missing'), state('ignore'), state('breaching'), state('notBreaching')]).toEqual([
      missing,
      ignore,
      breaching,
      notBreaching,
    ]);
  });
});

describe('aggregating samples into datapoints', () => {
  const now = 3_600_000;
  const samples = [1, 2, 6].map((value, index) => ({ time: now - 1000 * (index + 1), value }));
  test.each<[AlarmProperties['Statistic'], number]>([
    ['Sum', 9],
    ['Maximum', 6],
    ['Minimum', 1],
    ['Average', 3],
    ['SampleCount', 3],
  ])('%s is %i', (Statistic, value) => {
    const at = (Threshold: number) =>
      alarmState(alarm({ EvaluationPeriods: 1, Statistic, Threshold }), samples, now, 'OK');
    expect([at(value), at(value + 1)]).toEqual(['ALARM', 'OK']);
  });

  test('includes the start of a period and excludes its end', () => {
    const one = (time: number) =>
      alarmState(
        alarm({ EvaluationPeriods: 1, TreatMissingData: 'ignore' }),
        [{ time, value: 1 }],
        now,
        'OK',
      );
    expect([one(now - 900_001), one(now - 900_000), one(now - 1), one(now)]).toEqual([
      'OK',
      'ALARM',
      'ALARM',
      'OK',
    ]);
  });
});

test('finds embedded metrics among other log lines', () => {
  const line = JSON.stringify({
    _aws: {
      Timestamp: 1_000,
      CloudWatchMetrics: [
        { Namespace: 'N', Dimensions: [['service']], Metrics: [{ Name: 'A', Unit: 'Count' }, { Name: 'B' }] },
      ],
    },
    service: 's',
    A: 2,
    B: [3, 4],
  });
  const common = { namespace: 'N', dimensions: { service: 's' }, time: 1_000 };
  expect(embeddedMetrics(['START', '{"level":"INFO"}', '{broken', line])).toEqual([
    { ...common, name: 'A', value: 2 },
    { ...common, name: 'B', value: 3 },
    { ...common, name: 'B', value: 4 },
  ]);
});
