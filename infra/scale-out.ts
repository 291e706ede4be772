// Runs in batches (setting `scaleOut`): a Step Functions state machine that lists the clusters, serves them in batches, and
// summarizes the reports. All three steps invoke the refresher's function. Why it is so: docs/decisions/scale-out.md.
import { ArnFormat, Duration, Names, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { PolicyDocument, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import { Alias, type Function as LambdaFunction } from 'aws-cdk-lib/aws-lambda';
import { BlockPublicAccess, Bucket, BucketEncryption } from 'aws-cdk-lib/aws-s3';
import { DefinitionBody, StateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { SCALE_OUT_ALIAS } from '../functions/refresher/settings.ts';
import { BATCH_CONCURRENCY } from './limits.ts';

/** Names the executions of the batches: their state machine is `NAME/batches`, also in metrics. */
const LABEL = 'batches';

/** The steps of a run that each may take the whole timeout of the function: the list, at least one batch, the summary. */
const STEPS = 3;

/** Between the end of the batches and the latest start of the summary. */
const SPARE_SECONDS = 60;

/**
 * The time limit of a run in batches: less than the shortest time between the starts of two runs that are delivered in time, so
 * that they do not overlap.
 *
 * @param timeout of the function
 * @throws Error if that is not enough for each step
 */
export function runTimeLimit(interval: Duration, flexibleWindow: Duration, timeout: Duration): Duration {
  const minutes = interval.toMinutes() - flexibleWindow.toMinutes() - 1;
  if (minutes * 60 >= STEPS * timeout.toSeconds()) return Duration.minutes(minutes);
  throw new Error(
    `scaleOut: a run must end before the next one starts, which may be ${minutes + 1} minutes later (rateMinutes less the ` +
      `flexible window), and each of its ${STEPS} steps may take the timeout of the function, ${timeout.toMinutes()} ` +
      'minutes. Set a higher rateMinutes, such as 60, or leave scaleOut off.',
  );
}

/** Creates the bucket for the lists and reports of runs. The caller must grant what its roles need. */
export function runsBucket(scope: Construct, id: string, key: IKey | undefined): Bucket {
  return new Bucket(scope, id, {
    blockPublicAccess: BlockPublicAccess.BLOCK_ALL,
    enforceSSL: true,
    ...(key
      ? { encryption: BucketEncryption.KMS, encryptionKey: key, bucketKeyEnabled: true }
      : { encryption: BucketEncryption.S3_MANAGED }),
    // No run needs the objects of another one.
    lifecycleRules: [{ expiration: Duration.days(1), abortIncompleteMultipartUploadAfter: Duration.days(1) }],
    // CloudFormation cannot delete a bucket with objects. The CDK can, by a function of its own with rights on the bucket.
    removalPolicy: RemovalPolicy.RETAIN,
  });
}

export interface ScaleOutProps {
  readonly function: LambdaFunction;
  /** Of the function. */
  readonly timeout: Duration;
  /** Of a run. */
  readonly timeLimit: Duration;
  readonly tracing: boolean;
}

/** The state machine, with its own role, and the alias of the function that only it may invoke. */
export class ScaleOut extends Construct {
  readonly stateMachine: StateMachine;
  /** Of a run. */
  readonly timeLimit: Duration;

  constructor(scope: Construct, id: string, props: ScaleOutProps) {
    super(scope, id);
    this.timeLimit = props.timeLimit;
    const alias = new Alias(this, 'Alias', {
      aliasName: SCALE_OUT_ALIAS,
      description: 'Accepts the steps of a run in batches. Allow no other role lambda:InvokeFunction on it.',
      version: props.function.latestVersion,
    });
    // The role names the state machine and the state machine the role, so the name is known beforehand. With a policy as a
    // second resource, the first run could start without it.
    const stateMachineName = Names.uniqueResourceName(this, { maxLength: 80, separator: '-' });
    const { account, partition } = Stack.of(this);
    const arnOf = (resource: string, resourceName: string) =>
      Stack.of(this).formatArn({
        service: 'states',
        resource,
        resourceName,
        arnFormat: ArnFormat.COLON_RESOURCE_NAME,
      });
    const stateMachineArn = arnOf('stateMachine', stateMachineName);
    const role = new Role(this, 'Role', {
      assumedBy: new ServicePrincipal('states.amazonaws.com', {
        conditions: {
          StringEquals: { 'aws:SourceAccount': account },
          // The executions of the batches belong to the state machine `NAME/batches`.
          ArnLike: { 'aws:SourceArn': `${stateMachineArn}*` },
        },
      }),
      description:
        'The state machine of ECR Anywhere: invokes the refresher for each step of a run in batches.',
      inlinePolicies: {
        Run: new PolicyDocument({
          statements: [
            new PolicyStatement({ actions: ['lambda:InvokeFunction'], resources: [alias.functionArn] }),
            // A batch is an execution of its own (Step Functions Developer Guide, "IAM policies for using Distributed Map states").
            new PolicyStatement({ actions: ['states:StartExecution'], resources: [stateMachineArn] }),
            new PolicyStatement({
              actions: ['states:DescribeExecution', 'states:StopExecution'],
              resources: [stateMachineName, `${stateMachineName}/${LABEL}`].map((name) =>
                arnOf('execution', `${name}:*`),
              ),
            }),
            // These actions support no resources (Service Authorization Reference, X-Ray).
            ...(props.tracing
              ? [
                  new PolicyStatement({
                    actions: [
                      ...['xray:PutTraceSegments', 'xray:PutTelemetryRecords'],
                      ...['xray:GetSamplingRules', 'xray:GetSamplingTargets'],
                    ],
                    resources: ['*'],
                  }),
                ]
              : []),
          ],
        }),
      },
    });

    const step = (scaleOut: string, input: Readonly<Record<string, unknown>>) => ({
      Type: 'Task',
      Resource: `arn:${partition}:states:::lambda:invoke`,
      Parameters: { FunctionName: alias.functionArn, Payload: { scaleOut, ...input } },
      OutputPath: '$.Payload',
      Retry: [
        // A step that is throttled has not started. The time limit of the run ends this.
        {
          ErrorEquals: ['Lambda.TooManyRequestsException'],
          ...{
            IntervalSeconds: 2,
            BackoffRate: 2,
            MaxDelaySeconds: 60,
            MaxAttempts: 60,
            JitterStrategy: 'FULL',
          },
        },
        {
          // Not a function that failed or was killed: the same cluster would kill it again.
          ErrorEquals: ['Lambda.ServiceException', 'Lambda.AWSLambdaException', 'Lambda.SdkClientException'],
          ...{
            IntervalSeconds: 2,
            BackoffRate: 2,
            MaxDelaySeconds: 60,
            MaxAttempts: 8,
            JitterStrategy: 'FULL',
          },
        },
      ],
    });
    // A batch is an execution with a name of its own, so the map gives it the run's.
    const run = { 'run.$': '$$.Execution.Name' };
    this.stateMachine = new StateMachine(this, 'StateMachine', {
      stateMachineName,
      definitionBody: DefinitionBody.fromString(
        Stack.of(this).toJsonString({
          Comment: 'Refreshes the due ECR pull Secrets in every registered cluster, in batches of clusters.',
          TimeoutSeconds: props.timeLimit.toSeconds(),
          StartAt: 'list',
          States: {
            list: {
              ...step('list', {
                ...{ ...run, 'started.$': '$$.Execution.StartTime' },
                // A run that reaches its time limit ends without a summary, and would announce nothing.
                seconds: props.timeLimit.toSeconds() - props.timeout.toSeconds() - SPARE_SECONDS,
              }),
              Next: 'batches',
            },
            batches: {
              Type: 'Map',
              Label: LABEL,
              ItemsPath: '$.batches',
              ItemSelector: { ...run, 'batch.$': '$$.Map.Item.Value' },
              MaxConcurrency: BATCH_CONCURRENCY,
              ItemProcessor: {
                ProcessorConfig: { Mode: 'DISTRIBUTED', ExecutionType: 'STANDARD' },
                StartAt: 'batch',
                States: {
                  batch: { ...step('batch', { 'run.$': '$.run', 'batch.$': '$.batch' }), End: true },
                },
              },
              ResultPath: null,
              // The summary decides what failed.
              ToleratedFailurePercentage: 100,
              Catch: [{ ErrorEquals: ['States.ALL'], ResultPath: '$.error', Next: 'summary' }],
              Next: 'summary',
            },
            summary: { ...step('summary', run), End: true },
          },
        }),
      ),
      tracingEnabled: props.tracing,
      // The CDK would otherwise add permissions.
      role: role.withoutPolicyUpdates(),
    });
  }
}
