// The parts of CloudWatch that the project's alarms use, as pure functions: metrics from embedded metric format, and an
// alarm's state from samples, by the rules of the Amazon CloudWatch User Guide ("Configuring how CloudWatch alarms treat
// missing data"). The local AWS extracts no embedded metrics and ignores `treatMissingData`.

export type AlarmState = 'OK' | 'ALARM' | 'INSUFFICIENT_DATA';

/** One measured value. */
export interface Sample {
  /** Milliseconds since the epoch. */
  readonly time: number;
  readonly value: number;
}

export interface Metric extends Sample {
  readonly namespace: string;
  readonly name: string;
  readonly dimensions: Readonly<Record<string, string>>;
}

/** The properties of an `AWS::CloudWatch::Alarm` that decide its state, as they are in a template. */
export interface AlarmProperties {
  readonly Period: number;
  readonly EvaluationPeriods: number;
  readonly DatapointsToAlarm?: number;
  readonly Statistic: 'Sum' | 'Maximum' | 'Minimum' | 'Average' | 'SampleCount';
  readonly Threshold: number;
  readonly ComparisonOperator: keyof typeof COMPARISONS;
  readonly TreatMissingData?: 'missing' | 'ignore' | 'breaching' | 'notBreaching';
}

const COMPARISONS = {
  GreaterThanOrEqualToThreshold: (value: number, threshold: number) => value >= threshold,
  GreaterThanThreshold: (value: number, threshold: number) => value > threshold,
  LessThanThreshold: (value: number, threshold: number) => value < threshold,
  LessThanOrEqualToThreshold: (value: number, threshold: number) => value <= threshold,
} as const;

const STATISTICS: Record<AlarmProperties['Statistic'], (values: readonly number[]) => number> = {
  Sum: (values) => values.reduce((sum, value) => sum + value, 0),
  Maximum: (values) => Math.max(...values),
  Minimum: (values) => Math.min(...values),
  Average: (values) => values.reduce((sum, value) => sum + value, 0) / values.length,
  SampleCount: (values) => values.length,
};

/** Length of the evaluation range. AWS does not document it; its examples use five periods for three. */
const FURTHER_BACK = 2;

/**
 * Evaluates an alarm.
 *
 * @param samples the alarm's metric, in any order
 * @param now the end of the last period, in milliseconds since the epoch
 * @param current the state until now, which `ignore` retains
 */
export function alarmState(
  alarm: AlarmProperties,
  samples: readonly Sample[],
  now: number,
  current: AlarmState,
): AlarmState {
  const periodMs = alarm.Period * 1000;
  const statistic = STATISTICS[alarm.Statistic];
  const datapoints = Array.from({ length: alarm.EvaluationPeriods + FURTHER_BACK }, (_, age) => {
    const end = now - age * periodMs;
    const values = samples
      .filter(({ time }) => time >= end - periodMs && time < end)
      .map(({ value }) => value);
    return values.length > 0 ? statistic(values) : undefined;
  });
  return stateOf(alarm, datapoints.reverse(), current);
}

/**
 * Derives an alarm's state from datapoints.
 *
 * @param datapoints the evaluation range, oldest first; undefined where there is none
 */
export function stateOf(
  alarm: AlarmProperties,
  datapoints: readonly (number | undefined)[],
  current: AlarmState,
): AlarmState {
  const { EvaluationPeriods: n, DatapointsToAlarm: m = n, TreatMissingData: missing = 'missing' } = alarm;
  const breaches = (value: number) => COMPARISONS[alarm.ComparisonOperator](value, alarm.Threshold);
  const latest = datapoints.filter((value) => value !== undefined).slice(-n);
  const breaching = latest.filter(breaches).length;
  if (breaching >= m) return 'ALARM';
  if (latest.length === n) return 'OK';
  if (missing === 'breaching') return breaching + n - latest.length >= m ? 'ALARM' : 'OK';
  if (missing === 'notBreaching' || breaching < latest.length) return 'OK';
  if (missing === 'ignore') return current;
  // Every datapoint breaches, but too few exist: the alarm fires once the oldest is as old as `DatapointsToAlarm` periods.
  const oldest = datapoints.slice(-n).findIndex((value) => value !== undefined);
  return oldest >= 0 && Math.min(n, datapoints.length) - oldest >= m ? 'ALARM' : 'INSUFFICIENT_DATA';
}

export interface Transition {
  readonly time: number;
  readonly state: AlarmState;
}

/**
 * Returns an alarm's state changes over a period; CloudWatch evaluates it every minute.
 *
 * @param from milliseconds since the epoch, when the alarm is new
 */
export function alarmHistory(
  alarm: AlarmProperties,
  samples: readonly Sample[],
  from: number,
  to: number,
): Transition[] {
  const transitions: Transition[] = [];
  let current: AlarmState = 'INSUFFICIENT_DATA';
  for (let time = from; time <= to; time += 60_000) {
    // A sample is visible only after it was written.
    const state = alarmState(
      alarm,
      samples.filter((sample) => sample.time < time),
      time,
      current,
    );
    if (state !== current) transitions.push({ time, state });
    current = state;
  }
  return transitions;
}

interface Embedded {
  readonly _aws?: {
    readonly Timestamp: number;
    readonly CloudWatchMetrics: readonly {
      readonly Namespace: string;
      readonly Dimensions: readonly (readonly string[])[];
      readonly Metrics: readonly { readonly Name: string }[];
    }[];
  };
  readonly [key: string]: unknown;
}

/** Extracts metrics from log lines in embedded metric format; skips other lines. */
export function embeddedMetrics(lines: readonly string[]): Metric[] {
  return lines.flatMap((line) => {
    const document = parse(line);
    const directives = document?._aws?.CloudWatchMetrics ?? [];
    const time = document?._aws?.Timestamp ?? Number.NaN;
    return directives.flatMap(({ Namespace, Dimensions, Metrics }) =>
      Metrics.flatMap(({ Name }) =>
        [document?.[Name]].flat().flatMap((value) =>
          Dimensions.map((keys) => ({
            namespace: Namespace,
            name: Name,
            dimensions: Object.fromEntries(keys.map((key) => [key, String(document?.[key])])),
            time,
            value: Number(value),
          })),
        ),
      ),
    );
  });
}

function parse(line: string): Embedded | undefined {
  if (!line.startsWith('{')) return undefined;
  try {
    return JSON.parse(line) as Embedded;
  } catch {
    return undefined;
  }
}
