// Runs in batches: what the setting scaleOut adds to the template, and what it leaves alone.
import { Duration, Stack } from 'aws-cdk-lib';
import { Match, type Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { METRIC } from '../../functions/refresher/settings.ts';
import { Refresher, type RefresherProps } from '../../infra/refresher.ts';
import { alarmHistory, type Sample } from '../bed/cloudwatch-alarms.ts';
import { metricsOf, optionsOf, widgetsOf } from './dashboard-widgets.ts';
import { resources, synth, templateOf } from './synth.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;

const plain = synth();
const template = synth({ scaleOut: true });

/** The texts of a template, with `{Id}` for what CloudFormation inserts. */
const textOf = (value: unknown): string => {
  if (typeof value === 'string') return value;
  const { 'Fn::Join': join, Ref: ref } = value as { 'Fn::Join'?: [string, unknown[]]; Ref?: string };
  return join ? join[1].map(textOf).join(join[0]) : `{${(ref ?? '').replace(/[0-9A-F]{8}$/, '')}}`;
};
const only = (from: Template, type: string) => {
  const found = Object.values(resources(from, type));
  expect(found).toHaveLength(1);
  return found[0] as (typeof found)[number];
};
/** The statements of a role's inline policies. */
const statementsOf = (from: Template, role: string) => {
  const { Policies = [] } = (resources(from, 'AWS::IAM::Role')[role]?.Properties ?? {}) as {
    Policies?: { PolicyDocument: { Statement: { Action: unknown; Resource: unknown }[] } }[];
  };
  return Policies.flatMap(({ PolicyDocument }) => PolicyDocument.Statement);
};
const STATE_MACHINE = 'RefresherScaleOutStateMachine';
const stateMachineArn = { Ref: expect.stringMatching(`^${STATE_MACHINE}`) };

test('without the setting there is no bucket and no state machine, and the function has no permission on S3', () => {
  for (const type of ['AWS::S3::Bucket', 'AWS::StepFunctions::StateMachine']) plain.resourceCountIs(type, 0);
  expect(JSON.stringify(plain)).not.toMatch(/states:|s3:|RUNS_BUCKET|scale-out/);
});

test('with the setting, every other resource stays what it was', () => {
  const [without, all] = [plain, template].map(
    (from) => from.toJSON().Resources as Record<string, { Type: string }>,
  ) as [Record<string, object>, Record<string, object>];
  expect(Object.keys(all)).toEqual(expect.arrayContaining(Object.keys(without)));
  const changed = Object.keys(without).filter(
    (id) => JSON.stringify(without[id]) !== JSON.stringify(all[id]) && !id.startsWith('RefresherAlarms'),
  );
  expect(changed.map((id) => id.replace(/[0-9A-F]{8}$/, '')).sort()).toEqual([
    'RefresherDashboard',
    'RefresherFunctionRefresher',
    'RefresherFunctionRole',
    'RefresherSchedule',
    'RefresherScheduleFirstRun',
    'RefresherScheduleRole',
  ]);
});

describe('the state machine', () => {
  interface State {
    readonly Type: string;
    readonly Next?: string;
    readonly End?: boolean;
    readonly Parameters?: { readonly FunctionName: string; readonly Payload: object };
    readonly Retry?: readonly { readonly ErrorEquals: readonly string[] }[];
    readonly Catch?: readonly object[];
    readonly ItemProcessor?: { readonly ProcessorConfig: object; readonly States: Record<string, State> };
  }
  const { Properties } = only(template, 'AWS::StepFunctions::StateMachine');
  const definition = JSON.parse(textOf(Properties.DefinitionString)) as {
    readonly StartAt: string;
    readonly TimeoutSeconds: number;
    readonly States: Record<string, State>;
  };
  const { list, batches, summary } = definition.States;
  const batch = batches?.ItemProcessor?.States.batch;

  test('lists the clusters, serves each batch in an execution of its own, ten at a time, and summarizes', () => {
    expect(definition.StartAt).toBe('list');
    expect(list).toMatchObject({ Type: 'Task', Next: 'batches', OutputPath: '$.Payload' });
    expect(batches).toMatchObject({
      Type: 'Map',
      ItemsPath: '$.batches',
      MaxConcurrency: 10,
      ItemProcessor: {
        ProcessorConfig: { Mode: 'DISTRIBUTED', ExecutionType: 'STANDARD' },
        StartAt: 'batch',
      },
      Next: 'summary',
    });
    expect(summary).toMatchObject({ Type: 'Task', End: true });
  });

  test('sends each step to the alias, with the name of the run', () => {
    const payloads = [list, batch, summary].map((state) => state?.Parameters);
    const FunctionName = '{RefresherScaleOutAlias}';
    expect(payloads).toEqual([
      {
        FunctionName,
        Payload: {
          ...{ scaleOut: 'list', 'run.$': '$$.Execution.Name', 'started.$': '$$.Execution.StartTime' },
          seconds: expect.any(Number),
        },
      },
      { FunctionName, Payload: { scaleOut: 'batch', 'run.$': '$.run', 'batch.$': '$.batch' } },
      { FunctionName, Payload: { scaleOut: 'summary', 'run.$': '$$.Execution.Name' } },
    ]);
    // In a batch, the name of the execution is the batch's own.
    expect(batches).toMatchObject({
      ItemSelector: { 'run.$': '$$.Execution.Name', 'batch.$': '$$.Map.Item.Value' },
    });
    template.hasResourceProperties('AWS::Lambda::Alias', { Name: 'scale-out', FunctionVersion: '$LATEST' });
  });

  test('goes on to the summary, whatever happens to the batches', () => {
    expect(batches).toMatchObject({
      ToleratedFailurePercentage: 100,
      ResultPath: null,
      Catch: [{ ErrorEquals: ['States.ALL'], Next: 'summary' }],
    });
    for (const state of [list, batch, summary]) expect(state).not.toHaveProperty('Catch');
  });

  test('retries errors of Lambda itself, and never a step that failed or was killed', () => {
    for (const state of [list, batch, summary])
      expect(state?.Retry?.map(({ ErrorEquals }) => ErrorEquals)).toEqual([
        ['Lambda.TooManyRequestsException'],
        ['Lambda.ServiceException', 'Lambda.AWSLambdaException', 'Lambda.SdkClientException'],
      ]);
    expect(batches).not.toHaveProperty('Retry');
  });

  test('ends before the next run starts, however close the two are', () => {
    // At the end of a window of ten minutes, and at the start of the next one.
    expect(definition.TimeoutSeconds).toBe((60 - 10 - 1) * 60);
  });

  test('ends its batches so early that the summary has the whole timeout of the function', () => {
    expect(list?.Parameters?.Payload).toMatchObject({ seconds: definition.TimeoutSeconds - 15 * 60 - 60 });
  });

  test('is a standard one, of which its role may start and stop executions, and invoke the alias', () => {
    expect(Properties).not.toHaveProperty('StateMachineType');
    const { StateMachineName: name } = Properties;
    const arn = (rest: string) => ({
      'Fn::Join': [
        '',
        [
          ...['arn:', { Ref: 'AWS::Partition' }, ':states:', { Ref: 'AWS::Region' }, ':'],
          ...[{ Ref: 'AWS::AccountId' }, `:${rest}`],
        ],
      ],
    });
    expect(statementsOf(template, 'RefresherScaleOutRole')).toEqual([
      {
        Effect: 'Allow',
        Action: 'lambda:InvokeFunction',
        Resource: { Ref: expect.stringMatching(/^RefresherScaleOutAlias/) },
      },
      { Effect: 'Allow', Action: 'states:StartExecution', Resource: arn(`stateMachine:${name}`) },
      {
        Effect: 'Allow',
        Action: ['states:DescribeExecution', 'states:StopExecution'],
        Resource: [arn(`execution:${name}/batches:*`), arn(`execution:${name}:*`)],
      },
    ]);
    expect(resources(template, 'AWS::IAM::Role').RefresherScaleOutRole?.Properties).toMatchObject({
      AssumeRolePolicyDocument: {
        Statement: [
          {
            Action: 'sts:AssumeRole',
            Principal: { Service: 'states.amazonaws.com' },
            Condition: {
              StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
              ArnLike: { 'aws:SourceArn': arn(`stateMachine:${name}*`) },
            },
          },
        ],
      },
    });
    expect(resources(template, 'AWS::IAM::Policy')).toEqual({});
  });

  test('is traced if the function is', () => {
    expect(Properties).not.toMatchObject({ TracingConfiguration: { Enabled: true } });
    const traced = synth({ scaleOut: true, tracing: true });
    expect(only(traced, 'AWS::StepFunctions::StateMachine').Properties).toMatchObject({
      TracingConfiguration: { Enabled: true },
    });
    expect(JSON.stringify(statementsOf(traced, 'RefresherScaleOutRole'))).toContain(
      'xray:PutTelemetryRecords',
    );
  });

  test('has a name that another stack and another refresher do not need', () => {
    const names = [synth({ scaleOut: true }), templateOf(twoRefreshers)].flatMap((from) =>
      Object.values(resources(from, 'AWS::StepFunctions::StateMachine')).map(
        ({ Properties }) => Properties.StateMachineName as string,
      ),
    );
    expect(new Set(names).size).toBe(3);
    for (const name of names) expect(name).toMatch(/^[\w-]{1,80}$/);
  });
});

describe('the schedule', () => {
  test('starts the state machine in place of the function, at the deployment too', () => {
    for (const { Properties } of Object.values(resources(template, 'AWS::Scheduler::Schedule')))
      expect(Properties.Target).toMatchObject({ Arn: stateMachineArn, Input: '{}' });
  });

  test('may start the state machine, and may not invoke the function', () => {
    const actions = statementsOf(template, 'RefresherScheduleRole');
    expect(actions[0]).toEqual({
      Effect: 'Allow',
      Action: 'states:StartExecution',
      Resource: stateMachineArn,
    });
    expect(JSON.stringify(actions)).not.toContain('lambda:');
  });
});

describe('the bucket', () => {
  test('is private, requires TLS, is encrypted, empties itself within a day, and outlives the stack', () => {
    const bucket = only(template, 'AWS::S3::Bucket');
    expect(bucket).toMatchObject({ DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' });
    expect(bucket.Properties).toEqual({
      PublicAccessBlockConfiguration: {
        BlockPublicAcls: true,
        BlockPublicPolicy: true,
        IgnorePublicAcls: true,
        RestrictPublicBuckets: true,
      },
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: 'AES256' } }],
      },
      LifecycleConfiguration: {
        Rules: [
          {
            Status: 'Enabled',
            ExpirationInDays: 1,
            AbortIncompleteMultipartUpload: { DaysAfterInitiation: 1 },
          },
        ],
      },
    });
    expect(only(template, 'AWS::S3::BucketPolicy').Properties.PolicyDocument).toMatchObject({
      Statement: [
        { Effect: 'Deny', Action: 's3:*', Condition: { Bool: { 'aws:SecureTransport': 'false' } } },
      ],
    });
    const Value = { Ref: Match.stringLikeRegexp('^RefresherRuns') };
    template.hasOutput('RunsBucket', { Value });
    template.hasResourceProperties('AWS::Lambda::Function', {
      Environment: { Variables: Match.objectLike({ RUNS_BUCKET: Value }) },
    });
  });

  test('is open to the function below runs/, and to no other role', () => {
    const bucket = { 'Fn::GetAtt': [expect.stringMatching(/^RefresherRuns/), 'Arn'] };
    const ofS3 = (role: string) =>
      statementsOf(template, role).filter(({ Action }) => JSON.stringify(Action).includes('s3:'));
    expect(ofS3('RefresherFunctionRole')).toEqual([
      {
        Effect: 'Allow',
        Action: ['s3:GetObject', 's3:PutObject'],
        Resource: { 'Fn::Join': ['', [bucket, '/runs/*']] },
      },
      { Effect: 'Allow', Action: 's3:ListBucket', Resource: bucket },
    ]);
    for (const role of ['RefresherScheduleRole', 'RefresherScaleOutRole']) expect(ofS3(role)).toEqual([]);
  });

  test('is encrypted with the key of kmsKeyArn, which the function may use through S3', () => {
    const kmsKeyArn = 'arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef';
    const encrypted = synth({ scaleOut: true, kmsKeyArn });
    expect(only(encrypted, 'AWS::S3::Bucket').Properties).toMatchObject({
      BucketEncryption: {
        ServerSideEncryptionConfiguration: [
          {
            BucketKeyEnabled: true,
            ServerSideEncryptionByDefault: { SSEAlgorithm: 'aws:kms', KMSMasterKeyID: kmsKeyArn },
          },
        ],
      },
    });
    const services = (from: Template) =>
      JSON.stringify(statementsOf(from, 'RefresherFunctionRole')).includes('"s3."');
    expect(services(encrypted)).toBe(true);
    expect(services(synth({ kmsKeyArn }))).toBe(false);
  });
});

describe('the alarms', () => {
  const alarmsOf = (from: Template) =>
    Object.fromEntries(
      Object.entries(resources(from, 'AWS::CloudWatch::Alarm')).map(([id, { Properties }]) => [
        id.replace('RefresherAlarms', ''),
        Properties,
      ]),
    );
  const alarms = alarmsOf(template);
  const textFor = (name: string) => textOf(alarms[name]?.AlarmDescription);

  test('are the same ones', () => {
    expect(Object.keys(alarms)).toEqual(Object.keys(alarmsOf(plain)));
  });

  test('Errors watches the runs, so that a batch that was killed does not set it off', () => {
    const { Metrics, ...properties } = alarms.Errors as unknown as {
      readonly Metrics: readonly {
        readonly Expression?: string;
        readonly MetricStat?: { readonly Metric: { readonly MetricName: string } };
      }[];
    };
    expect(properties).toMatchObject({ Threshold: 1, EvaluationPeriods: 1, TreatMissingData: 'ignore' });
    const watched = Metrics.flatMap(({ MetricStat }) => MetricStat ?? []);
    expect(watched.map(({ Metric }) => Metric.MetricName)).toEqual([
      'ExecutionsFailed',
      'ExecutionsTimedOut',
      'ExecutionsAborted',
      'ExecutionsStarted',
    ]);
    for (const metric of watched)
      expect(metric).toMatchObject({
        Metric: {
          Namespace: 'AWS/States',
          Dimensions: [{ Name: 'StateMachineArn', Value: stateMachineArn }],
        },
        Stat: 'Sum',
      });
    // Without any execution there is no data, and the alarm keeps its state.
    expect(Metrics[0]?.Expression).toBe('FILL(SUM([failed, timedOut, aborted]), 0) + 0 * started');
    expect(textFor('Errors')).toContain(
      `aws stepfunctions list-executions --state-machine-arn {${STATE_MACHINE}}`,
    );
    expect(textFor('ScheduleDeadLetters')).toContain(
      `aws stepfunctions start-execution --state-machine-arn {${STATE_MACHINE}}`,
    );
  });

  test('leave for a run in batches what it may take: at worst it reports only at the end of its time', () => {
    // In hours: the refresh window less the runs until then, at most 70 minutes apart, less the 49 minutes of the last one.
    const promised = (name: string) => Number(/pull for at least ([\d.]+) h/.exec(textFor(name))?.[1]);
    expect(promised('Errors')).toBeCloseTo((360 - 70 - 49) / 60, 1);
    expect(promised('ClustersFailed')).toBeCloseTo((360 - 140 - 49) / 60, 1);
    // CloudWatch's limit, with the longest URL of a queue and the longest ARN of a state machine.
    for (const text of Object.keys(alarms).map(textFor))
      expect(text.replaceAll(/\{\w+\}/g, '-'.repeat(150)).length).toBeLessThanOrEqual(1024);
  });

  test('are OK with runs of any length, and NotRunning goes off in time without runs', () => {
    const at = (run: number) => run * 60 * MINUTE + ((run * 7) % 10) * MINUTE + (run % 2 ? 48 : 2) * MINUTE;
    const runs = (until: number, value: number): Sample[] =>
      Array.from({ length: 72 }, (_, run) => ({ time: at(run), value })).filter(({ time }) => time < until);
    type Alarm = Parameters<typeof alarmHistory>[0];
    const states = (name: string, value: number) =>
      alarmHistory(alarms[name] as unknown as Alarm, runs(3 * DAY, value), 0, 3 * DAY).map(
        ({ state }) => state,
      );
    expect(states('ClustersFailed', 0)).toEqual(['OK']);
    expect(states('SoonestExpiry', 6 * 3600)).toEqual(['OK']);
    expect(states('NotRunning', 3)).toEqual(['ALARM', 'OK']);
    const silent = alarmHistory(
      alarms.NotRunning as unknown as Alarm,
      runs(DAY, 3),
      0,
      DAY + 8 * 60 * MINUTE,
    );
    const wentOff = silent.findLast(({ state }) => state === 'ALARM')?.time ?? 0;
    const lastRun = Math.max(...runs(DAY, 3).map(({ time }) => time));
    expect(wentOff).toBeGreaterThan(lastRun + 60 * MINUTE);
    expect(wentOff).toBeLessThan(lastRun + 6 * 60 * MINUTE);
  });
});

describe('the dashboard', () => {
  const shown = widgetsOf(template).flatMap(metricsOf);

  test('has the batches that ended, the runs that failed, and how long a run takes', () => {
    expect(shown.map(({ name }) => name)).toEqual(
      expect.arrayContaining([
        METRIC.batchesEnded,
        ...['ExecutionsFailed', 'ExecutionsTimedOut', 'ExecutionsAborted', 'ExecutionTime'],
      ]),
    );
    const inStack = Object.keys(template.toJSON().Resources);
    for (const { namespace, row } of shown) if (namespace === 'AWS/States') expect(inStack).toContain(row[3]);
    const labels = shown.map(({ row }) => optionsOf(row).label);
    expect(labels).toEqual(expect.arrayContaining(['failed runs', 'ended batches', 'failed steps']));
  });
});

test('the output StartRun starts a run', () => {
  expect(textOf(template.toJSON().Outputs.StartRun.Value)).toBe(
    `aws stepfunctions start-execution --region {AWS::Region} --state-machine-arn {${STATE_MACHINE}}`,
  );
});

describe('an interval that is too short', () => {
  const withProps = (props: RefresherProps) => () =>
    templateOf((app) => {
      const stack = new Stack(app, 'Embedding');
      new Refresher(stack, 'Refresher', { scaleOut: true, ...props });
      return stack;
    });

  test.each<RefresherProps>([
    { rateMinutes: 55 },
    { rateMinutes: 46, flexibleWindow: Duration.minutes(0) },
    { rateMinutes: 20, function: { timeout: Duration.minutes(5) }, flexibleWindow: Duration.minutes(4) },
    { rateMinutes: 90 },
  ])('is not %o', (props) => {
    expect(withProps(props)).not.toThrow();
  });

  test.each<RefresherProps>([
    { rateMinutes: 54 },
    { flexibleWindow: Duration.minutes(15) },
    { rateMinutes: 1 },
  ])('is %o: a run could not end before the next one', (props) => {
    expect(withProps(props)).toThrow(/scaleOut: a run must end before the next one starts.*rateMinutes/);
  });
});

function twoRefreshers(app: ConstructorParameters<typeof Stack>[0] & object): Stack {
  const stack = new Stack(app, 'Embedding');
  new Refresher(stack, 'One', { scaleOut: true });
  new Refresher(stack, 'Two', { scaleOut: true });
  return stack;
}
