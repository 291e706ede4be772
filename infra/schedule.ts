// The refresher's schedule: an EventBridge schedule that may start only this refresher's runs, and a queue for invocations that it
// could not deliver.
import { Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { PolicyDocument, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import type { IFunction } from 'aws-cdk-lib/aws-lambda';
import {
  Schedule,
  ScheduleExpression,
  ScheduleGroup,
  ScheduleTargetInput,
  TimeWindow,
} from 'aws-cdk-lib/aws-scheduler';
import { LambdaInvoke, StepFunctionsStartExecution } from 'aws-cdk-lib/aws-scheduler-targets';
import type { Queue } from 'aws-cdk-lib/aws-sqs';
import type { IStateMachine } from 'aws-cdk-lib/aws-stepfunctions';
import { Construct } from 'constructs';
import { deadLetters } from './dead-letters.ts';
import { keyStatements } from './encryption.ts';

export interface RefresherScheduleProps {
  readonly function: IFunction;
  /** Runs the function in batches, in place of an invocation of the function. */
  readonly stateMachine: IStateMachine | undefined;
  readonly interval: Duration;
  readonly flexibleWindow: Duration;
  readonly enabled: boolean;
  readonly key: IKey | undefined;
}

/** The schedule, with its own group, role and dead-letter queue. */
export class RefresherSchedule extends Construct {
  readonly deadLetters: Queue;
  /** Absent if the schedule is disabled. */
  readonly firstRun: Schedule | undefined;

  constructor(scope: Construct, id: string, props: RefresherScheduleProps) {
    super(scope, id);
    this.deadLetters = deadLetters(this, 'DeadLetters', props.key);
    // EventBridge Scheduler passes the group as the source when it assumes the role. With a separate group, other schedules
    // of the account cannot use the role.
    const group = new ScheduleGroup(this, 'Group', { removalPolicy: RemovalPolicy.DESTROY });
    const role = new Role(this, 'Role', {
      assumedBy: new ServicePrincipal('scheduler.amazonaws.com', {
        conditions: {
          StringEquals: {
            'aws:SourceAccount': Stack.of(this).account,
            'aws:SourceArn': group.scheduleGroupArn,
          },
        },
      }),
      description: 'The schedule of ECR Anywhere: invokes the refresher.',
      inlinePolicies: {
        Invoke: new PolicyDocument({
          statements: [
            props.stateMachine
              ? new PolicyStatement({
                  actions: ['states:StartExecution'],
                  resources: [props.stateMachine.stateMachineArn],
                })
              : new PolicyStatement({
                  actions: ['lambda:InvokeFunction'],
                  resources: [props.function.functionArn],
                }),
            new PolicyStatement({ actions: ['sqs:SendMessage'], resources: [this.deadLetters.queueArn] }),
            ...keyStatements(this, props.key, ['sqs']),
          ],
        }),
      },
    });
    const windowMinutes = props.flexibleWindow.toMinutes();
    const delivery = {
      // Otherwise the target adds permissions for every version and alias of the function.
      role: role.withoutPolicyUpdates(),
      input: ScheduleTargetInput.fromObject({}),
      deadLetterQueue: this.deadLetters,
      // An invocation that cannot be delivered soon goes to the dead-letter queue, which raises an alarm; the next one
      // does its work.
      retryAttempts: 5,
      maxEventAge: Duration.minutes(Math.max(1, Math.floor(props.interval.toMinutes() / 4))),
    };
    const common = {
      scheduleGroup: group,
      target: props.stateMachine
        ? new StepFunctionsStartExecution(props.stateMachine, delivery)
        : new LambdaInvoke(props.function, delivery),
    };
    new Schedule(this, 'Schedule', {
      description: 'Runs the refresher of ECR Anywhere.',
      schedule: ScheduleExpression.rate(props.interval),
      timeWindow: windowMinutes > 0 ? TimeWindow.flexible(props.flexibleWindow) : TimeWindow.off(),
      enabled: props.enabled,
      ...common,
    });
    // Without a start date, a rate-based schedule begins at once (EventBridge Scheduler User Guide, "Schedule types"), but the
    // one above at any time of its window. Until then the alarm NotRunning would be on. The deployment does not wait for this
    // run, so a failing cluster does not fail it. One more run a year does no harm.
    if (props.enabled)
      this.firstRun = new Schedule(this, 'FirstRun', {
        description: 'Runs the refresher of ECR Anywhere once at its deployment.',
        schedule: ScheduleExpression.rate(Duration.days(365)),
        timeWindow: TimeWindow.off(),
        ...common,
      });
  }
}
