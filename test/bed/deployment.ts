// A client for a deployed stack: invokes the function, registers clusters, reads log, queues and alarms, starts and stops
// the schedule. It uses AWS's own APIs, as the account's root.

import { CloudFormationClient, DescribeStackResourcesCommand } from '@aws-sdk/client-cloudformation';
import { CloudWatchClient, DescribeAlarmsCommand } from '@aws-sdk/client-cloudwatch';
import { CloudWatchLogsClient, paginateFilterLogEvents } from '@aws-sdk/client-cloudwatch-logs';
import { GetRolePolicyCommand, IAMClient, PutRolePolicyCommand } from '@aws-sdk/client-iam';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import {
  GetScheduleCommand,
  ListSchedulesCommand,
  SchedulerClient,
  UpdateScheduleCommand,
} from '@aws-sdk/client-scheduler';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  PutSecretValueCommand,
  ResourceExistsException,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import { ReceiveMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { CLUSTERS_PREFIX } from '../../contract/names.ts';
import { needsOperatorAlias, OPERATOR_ALIAS } from '../../contract/refresher-api.ts';
import type { AlarmState } from './cloudwatch-alarms.ts';
import type { Emulator } from './emulator.ts';
import { keepEvidence } from './evidence.ts';

/** The result of a synchronous invocation. */
export interface Invocation {
  readonly payload: unknown;
  /** Set if the function failed; `payload` is then Lambda's error object. */
  readonly functionError?: string;
  /** The end of the invocation's log, up to 4 kB. */
  readonly logTail: string;
}

export interface LogLine {
  readonly time: number;
  readonly message: string;
}

/** A kubeconfig with a closed port. Connections to an unused address would time out on one machine and fail at once on another. */
export const UNREACHABLE_KUBECONFIG = `apiVersion: v1
kind: Config
current-context: c
contexts: [{name: c, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
users: [{name: u, user: {token: not-a-token}}]
`;

export class Deployment {
  readonly emulator: Emulator;
  readonly stackName: string;
  readonly outputs: Readonly<Record<string, string>>;
  readonly functionName: string;
  readonly logGroupName: string;
  /** CloudFormation's physical ids by logical id. */
  readonly resources: ReadonlyMap<string, string>;
  readonly #clients;

  private constructor(
    emulator: Emulator,
    stackName: string,
    outputs: Readonly<Record<string, string>>,
    resources: ReadonlyMap<string, string>,
  ) {
    const config = emulator.clientConfig;
    this.emulator = emulator;
    this.stackName = stackName;
    this.outputs = outputs;
    this.resources = resources;
    this.functionName = this.resource('RefresherFunctionRefresher');
    this.logGroupName = this.resource('RefresherFunctionLogs');
    this.#clients = {
      lambda: new LambdaClient({ ...config, maxAttempts: 1 }),
      logs: new CloudWatchLogsClient(config),
      cloudWatch: new CloudWatchClient(config),
      scheduler: new SchedulerClient(config),
      secrets: new SecretsManagerClient(config),
      queues: new SQSClient(config),
      iam: new IAMClient(config),
    };
  }

  /** Reads a deployed stack. */
  static async of(
    emulator: Emulator,
    stackName: string,
    outputs: Readonly<Record<string, string>>,
  ): Promise<Deployment> {
    const client = new CloudFormationClient(emulator.clientConfig);
    const { StackResources = [] } = await client.send(
      new DescribeStackResourcesCommand({ StackName: stackName }),
    );
    const resources = new Map(
      StackResources.map(({ LogicalResourceId = '', PhysicalResourceId = '' }) => [
        LogicalResourceId,
        PhysicalResourceId,
      ]),
    );
    return new Deployment(emulator, stackName, outputs, resources);
  }

  /** Returns the physical id of the resource with this construct path; CloudFormation appends a hash to it. */
  resource(path: string): string {
    const pattern = new RegExp(`^${path}[0-9A-F]{8}$`);
    const found = this.resources.entries().find(([logicalId]) => pattern.test(logicalId));
    if (!found) throw new Error(`The stack ${this.stackName} has no ${path}: ${[...this.resources.keys()]}`);
    return found[1];
  }

  /** Invokes the function, or its alias if the event needs it, and waits for the answer. */
  async invoke(event: object = {}): Promise<Invocation> {
    const FunctionName = `${this.functionName}${needsOperatorAlias(event) ? `:${OPERATOR_ALIAS}` : ''}`;
    const { Payload, FunctionError, LogResult } = await this.#clients.lambda.send(
      new InvokeCommand({ FunctionName, Payload: JSON.stringify(event), LogType: 'Tail' }),
    );
    const payload = new TextDecoder().decode(Payload);
    const logTail = Buffer.from(LogResult ?? '', 'base64').toString();
    keepEvidence('report', this.functionName, payload);
    keepEvidence('log', this.functionName, logTail);
    return {
      payload: JSON.parse(payload || 'null'),
      ...(FunctionError !== undefined && { functionError: FunctionError }),
      logTail,
    };
  }

  /** Invokes the function as the schedule does, without waiting. */
  async invokeAsync(event: unknown = {}): Promise<void> {
    await this.#clients.lambda.send(
      new InvokeCommand({
        FunctionName: this.functionName,
        Payload: JSON.stringify(event),
        InvocationType: 'Event',
      }),
    );
  }

  /** The function's log, oldest first. @param since milliseconds since the epoch */
  async logs(since = 0): Promise<LogLine[]> {
    const lines: LogLine[] = [];
    const pages = paginateFilterLogEvents(
      { client: this.#clients.logs },
      { logGroupName: this.logGroupName, startTime: since },
    );
    for await (const { events = [] } of pages) {
      for (const { timestamp = 0, message = '' } of events) lines.push({ time: timestamp, message });
    }
    keepEvidence('log', this.functionName, lines.map(({ message }) => message).join('\n'));
    return lines.sort((a, b) => a.time - b.time);
  }

  /** Registers a cluster, or replaces its kubeconfig. */
  async registerCluster(name: string, kubeconfig: string): Promise<void> {
    const id = this.#secretId(name);
    try {
      await this.#clients.secrets.send(new CreateSecretCommand({ Name: id, SecretString: kubeconfig }));
    } catch (error) {
      if (!(error instanceof ResourceExistsException)) throw error;
      await this.#clients.secrets.send(new PutSecretValueCommand({ SecretId: id, SecretString: kubeconfig }));
    }
  }

  #secretId(name: string): string {
    return `${this.outputs.SecretPrefix ?? CLUSTERS_PREFIX}${name}`;
  }

  /** Deletes a cluster's registration. */
  async unregisterCluster(name: string): Promise<void> {
    await this.#clients.secrets.send(
      new DeleteSecretCommand({ SecretId: this.#secretId(name), ForceDeleteWithoutRecovery: true }),
    );
  }

  /** Takes actions from the function's role. @returns a function that gives them back */
  async forbid(...actions: readonly string[]): Promise<() => Promise<void>> {
    const policy = await this.#policy();
    const Statement = policy.Statement.map((statement) => ({
      ...statement,
      Action: [statement.Action].flat().filter((name) => !actions.includes(name)),
    })).filter(({ Action }) => Action.length > 0);
    await this.#setPolicy({ ...policy, Statement });
    return () => this.#setPolicy(policy);
  }

  async #policy(): Promise<{ readonly Statement: readonly { readonly Action: string | string[] }[] }> {
    const { PolicyDocument = '' } = await this.#clients.iam.send(
      new GetRolePolicyCommand({ RoleName: this.resource('RefresherFunctionRole'), PolicyName: 'Refresh' }),
    );
    return JSON.parse(decodeURIComponent(PolicyDocument));
  }

  async #setPolicy(policy: object): Promise<void> {
    await this.#clients.iam.send(
      new PutRolePolicyCommand({
        RoleName: this.resource('RefresherFunctionRole'),
        PolicyName: 'Refresh',
        PolicyDocument: JSON.stringify(policy),
      }),
    );
  }

  /** Gives the topic of the alarms a subscriber, which the local AWS confirms at once; its messages are dropped. */
  async subscribe(): Promise<void> {
    const { region, account } = this.emulator;
    const Endpoint = `arn:aws:sqs:${region}:${account}:no-queue`;
    const TopicArn = this.outputs.AlarmTopicArn;
    const sns = new SNSClient(this.emulator.clientConfig);
    await sns.send(new SubscribeCommand({ TopicArn, Protocol: 'sqs', Endpoint }));
    sns.destroy();
  }

  /** Returns the failed asynchronous invocations; the messages stay in the queue. */
  failures(): Promise<string[]> {
    return this.#peek(this.resource('RefresherFunctionFailures'));
  }

  /** Returns the schedule events that were not delivered; the messages stay in the queue. */
  deadLetters(): Promise<string[]> {
    return this.#peek(this.resource('RefresherScheduleDeadLetters'));
  }

  async #peek(QueueUrl: string): Promise<string[]> {
    const { Messages = [] } = await this.#clients.queues.send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, VisibilityTimeout: 0 }),
    );
    return Messages.map(({ Body = '' }) => Body);
  }

  /** Returns alarm states by the names in infra/alarms.ts. The local AWS evaluates alarms only when metrics arrive: see metrics.ts. */
  async alarms(): Promise<Record<string, AlarmState>> {
    const names = new Map(
      [...this.resources].flatMap(([logicalId, name]) => {
        const match = /^RefresherAlarms(\w+)[0-9A-F]{8}$/.exec(logicalId);
        return match?.[1] ? [[name, match[1]]] : [];
      }),
    );
    const { MetricAlarms = [] } = await this.#clients.cloudWatch.send(
      new DescribeAlarmsCommand({ AlarmNames: [...names.keys()] }),
    );
    return Object.fromEntries(
      MetricAlarms.map(({ AlarmName = '', StateValue = 'INSUFFICIENT_DATA' }) => [
        names.get(AlarmName) ?? AlarmName,
        StateValue,
      ]),
    ) as Record<string, AlarmState>;
  }

  /** Starts the schedule, optionally at another rate. */
  startSchedule(options: { readonly rateMinutes?: number } = {}): Promise<void> {
    const { rateMinutes } = options;
    return this.#setSchedule({
      State: 'ENABLED',
      ...(rateMinutes !== undefined && {
        ScheduleExpression: `rate(${rateMinutes} minute${rateMinutes === 1 ? '' : 's'})`,
        FlexibleTimeWindow: { Mode: 'OFF' },
      }),
    });
  }

  /** Stops the schedule; the function can still be invoked. */
  stopSchedule(): Promise<void> {
    return this.#setSchedule({ State: 'DISABLED' });
  }

  async #setSchedule(change: {
    readonly State: 'ENABLED' | 'DISABLED';
    readonly ScheduleExpression?: string;
    readonly FlexibleTimeWindow?: { readonly Mode: 'OFF' };
  }): Promise<void> {
    const GroupName = this.resource('RefresherScheduleGroup');
    const { Schedules = [] } = await this.#clients.scheduler.send(new ListSchedulesCommand({ GroupName }));
    for (const { Name } of Schedules) {
      const schedule = await this.#clients.scheduler.send(new GetScheduleCommand({ Name, GroupName }));
      await this.#clients.scheduler.send(
        new UpdateScheduleCommand({
          Name,
          GroupName,
          Target: schedule.Target,
          ScheduleExpression: schedule.ScheduleExpression,
          FlexibleTimeWindow: schedule.FlexibleTimeWindow,
          ...change,
        }),
      );
    }
  }
}
