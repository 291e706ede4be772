// Checks the IAM policy for operators in the documentation, on a local AWS that enforces IAM: with it every command works,
// and without one of its actions only those commands fail that the page names.
import { readFile } from 'node:fs/promises';
import { CloudFormationClient, ListStackResourcesCommand } from '@aws-sdk/client-cloudformation';
import { CloudWatchLogsClient, FilterLogEventsCommand } from '@aws-sdk/client-cloudwatch-logs';
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import {
  CreateAccessKeyCommand,
  CreateUserCommand,
  DeleteUserPolicyCommand,
  IAMClient,
  PutUserPolicyCommand,
} from '@aws-sdk/client-iam';
import { InvokeCommand, LambdaClient } from '@aws-sdk/client-lambda';
import { ListSchedulesCommand, SchedulerClient } from '@aws-sdk/client-scheduler';
import {
  BatchGetSecretValueCommand,
  GetSecretValueCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import {
  GetTopicAttributesCommand,
  ListSubscriptionsByTopicCommand,
  SNSClient,
  SubscribeCommand,
} from '@aws-sdk/client-sns';
import { PurgeQueueCommand, ReceiveMessageCommand, SQSClient } from '@aws-sdk/client-sqs';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { EXIT } from '../../cli/output/errors.ts';
import { Bed } from '../bed/up.ts';
import { type CommandLine, startCommandLine } from './command-line.ts';
import { createManagedSecret } from './operator.ts';

interface Statement {
  readonly Sid: string;
  readonly Effect: string;
  readonly Action: string | readonly string[];
  readonly Resource: string;
}

const page = await readFile(new URL('../../docs/command-line.md', import.meta.url), 'utf8');
const actionsOf = ({ Action }: Statement) => [Action].flat();
/** The page's policies: for operators, and for those on call. */
const [statements = [], onCall = []] = [...page.matchAll(/```json\n(\{[^`]*"Version"[^`]*\})\n```/g)].map(
  ([, text = '']) => (JSON.parse(text) as { Statement: Statement[] }).Statement,
);
const ACTIONS = [...new Set(statements.flatMap(actionsOf))];

/** Of the page's table: what fails without an action. */
const fails = new Map(
  [...page.matchAll(/^\| `(\w+:\w+)` \| (.*) \|$/gm)].map(([, action = '', text = '']) => [
    action,
    // Before what it says of taking back.
    [...(text.split(/;|, but/)[0] ?? '').matchAll(/`([^`]+)`/g)].map(([, command = '']) => command),
  ]),
);

/** What AWS asks for and the local one does not: tags of a new secret (Secrets Manager User Guide, CreateSecret). */
const NOT_TRIED: Readonly<Record<string, string>> = { 'secretsmanager:TagResource': 'register' };

let bed: Bed;
let operator: CommandLine;
let root: CommandLine;
let keys: { accessKeyId: string; secretAccessKey: string };
let iam: IAMClient;
let kubeconfigs: { alpha: string; beta: string };
const UserName = 'operator';

beforeAll(async () => {
  bed = await Bed.create({
    clusters: ['alpha', 'beta'],
    context: { scheduleEnabled: false },
    registersClusters: false,
  });
  await bed.start();
  iam = new IAMClient({ ...bed.deployment.emulator.clientConfig, region: 'us-east-1' });
  await iam.send(new CreateUserCommand({ UserName }));
  const { AccessKey } = await iam.send(new CreateAccessKeyCommand({ UserName }));
  keys = {
    accessKeyId: AccessKey?.AccessKeyId ?? '',
    secretAccessKey: AccessKey?.SecretAccessKey ?? '',
  };
  const KUBECONFIG = bed.cluster('alpha').controlPlane.adminKubeconfigPath;
  kubeconfigs = { alpha: KUBECONFIG, beta: bed.cluster('beta').controlPlane.adminKubeconfigPath };
  root = await startCommandLine({ ...bed.operatorEnv, KUBECONFIG });
  operator = await startCommandLine({
    ...bed.operatorEnv,
    KUBECONFIG,
    AWS_ACCESS_KEY_ID: keys.accessKeyId,
    AWS_SECRET_ACCESS_KEY: keys.secretAccessKey,
  });
  await createManagedSecret(bed.cluster('alpha').controlPlane);
});
afterAll(async () => {
  await operator?.[Symbol.asyncDispose]();
  await root?.[Symbol.asyncDispose]();
  await bed?.[Symbol.asyncDispose]();
});

/** Gives the operator a policy of the page. @param without this action, or the statement with this Sid */
async function allow(without?: string, policy = statements): Promise<void> {
  const { account, region } = bed.deployment.emulator;
  const left = policy
    .map((statement) => ({
      ...statement,
      Action: actionsOf(statement).filter((action) => action !== without),
      Resource: statement.Resource.replace('REGION', region)
        .replace('ACCOUNT', account)
        .replace('FUNCTION', bed.deployment.functionName)
        // The local CloudFormation names log groups in its own way.
        .replace('log-group:EcrAnywhere-*', `log-group:${bed.deployment.logGroupName}`),
    }))
    .filter(({ Action, Sid }) => Action.length > 0 && Sid !== without);
  const PolicyDocument = JSON.stringify({ Version: '2012-10-17', Statement: left });
  await iam.send(new PutUserPolicyCommand({ UserName, PolicyName: 'documented', PolicyDocument }));
}

const run = (args: string, as = operator) => as.run(args.split(' '));

test('the page has a policy, and names the commands that fail without each of its actions', () => {
  expect(ACTIONS.length).toBeGreaterThan(8);
  expect([...fails.keys()].sort()).toEqual([...ACTIONS].sort());
  expect(ACTIONS.filter((action) => /GetSecretValue|\*/.test(action))).toEqual([]);
  expect(statements.filter(({ Resource }) => Resource === '*')).toEqual([]);
});

test('without a policy, status is denied', async () => {
  await iam.send(new DeleteUserPolicyCommand({ UserName, PolicyName: 'documented' })).catch(() => undefined);
  const { code, stderr } = await run('status');
  expect({ code, stderr }).toEqual({
    code: EXIT.denied,
    stderr: expect.stringMatching(/AWS denied the request: .*cloudformation:DescribeStacks/),
  });
});

test('with the policy, every command works', async () => {
  await allow();
  for (const args of [
    'register alpha',
    'status',
    'doctor alpha',
    'refresh alpha --force',
    'pause alpha',
    'resume alpha',
    'register alpha --replace',
    'unregister alpha',
  ]) {
    const { code, stderr, stdout } = await run(args);
    expect(code, `${args}: ${stderr}${stdout}`).toBe(0);
  }
  // A registration that cannot be verified is completed by a second attempt.
  expect(await run('register alpha --server https://127.0.0.1:1')).toMatchObject({ code: EXIT.unhealthy });
  expect(await run('register alpha')).toMatchObject({ code: 0 });
  expect(await run('unregister alpha')).toMatchObject({ code: 0 });
  expect((await run('status', root)).stdout).toContain('No cluster is registered');
});

test('the policy does not permit reading a registered kubeconfig', async () => {
  await allow();
  expect(await run('register alpha')).toMatchObject({ code: 0 });
  const { emulator } = bed.deployment;
  const secrets = new SecretsManagerClient({ ...emulator.clientConfig, credentials: keys });
  const SecretId = 'ecr-anywhere/clusters/alpha';
  await expect(secrets.send(new GetSecretValueCommand({ SecretId }))).rejects.toThrow(/not authorized/);
  await expect(secrets.send(new BatchGetSecretValueCommand({ SecretIdList: [SecretId] }))).rejects.toThrow(
    /not authorized/,
  );
});

describe('without one action of the policy', () => {
  test.each(ACTIONS)(
    '%s, only the documented commands fail',
    async (action) => {
      await allow(action);
      const failed: string[] = [];
      const attempt = async (command: string, args: string) => {
        const { code, stderr, stdout } = await run(args);
        if (code === 0) return;
        failed.push(command);
        expect(`${stderr}${stdout}`, args).toContain(action);
        expect(code, args).toBe(command === 'doctor' ? EXIT.unhealthy : EXIT.denied);
      };
      await attempt('status', 'status');
      await attempt('doctor', 'doctor alpha');
      await attempt('refresh', 'refresh alpha');
      await attempt('pause', 'pause alpha');
      await run('pause alpha', root);
      await attempt('resume', 'resume alpha');
      await run('resume alpha', root);
      await attempt('register --replace', 'register alpha --replace');
      await attempt('register', `register beta --kubeconfig ${kubeconfigs.beta}`);
      await run(`register beta --kubeconfig ${kubeconfigs.beta}`, root);
      await attempt('unregister', 'unregister beta --keep-token');
      await run('unregister beta --keep-token', root);
      const expected = (fails.get(action) ?? []).filter((command) => command !== NOT_TRIED[action]);
      expect(failed.sort()).toEqual(expected.sort());
      expect((await run('status', root)).stdout).toMatch(/^CLUSTER.*\nalpha [^\n]*\n\n/);
    },
    120_000,
  );

  test('EndTokensAndForce, only what ends tokens or forces new ones fails', async () => {
    await run('register alpha', root);
    await allow('EndTokensAndForce');
    for (const args of ['unregister alpha', 'refresh alpha --force'])
      expect(await run(args), args).toMatchObject({
        code: EXIT.denied,
        stderr: expect.stringMatching(/:operator\) failed: AWS denied .*lambda:InvokeFunction/),
      });
    for (const args of ['status', 'doctor alpha', 'refresh alpha', 'refresh alpha --force --dry-run']) {
      const { code, stderr, stdout } = await run(args);
      expect(code, `${args}: ${stderr}${stdout}`).toBe(0);
    }
    // Nor can an event of one's own.
    const lambda = new LambdaClient({ ...bed.deployment.emulator.clientConfig, credentials: keys });
    const event = { action: 'revoke', clusters: ['alpha'] };
    const FunctionName = bed.deployment.functionName;
    const { Payload } = await lambda.send(
      new InvokeCommand({ FunctionName, Payload: JSON.stringify(event) }),
    );
    expect(JSON.parse(new TextDecoder().decode(Payload))).toMatchObject({
      invalidEvent: { fields: ['action'] },
    });
    expect((await run('refresh alpha', root)).code).toBe(0);
  });

  test('secretsmanager:DeleteSecret, unregister reports the revoked token, and its hint completes the command', async () => {
    expect((await run(`register beta --kubeconfig ${kubeconfigs.beta}`, root)).code).toBe(0);
    await allow('secretsmanager:DeleteSecret');
    const { code, stderr } = await run('unregister beta');
    expect(code).toBe(EXIT.denied);
    expect(stderr).toMatch(
      /The token of beta was revoked, but the cluster is still registered\. .*secretsmanager:DeleteSecret/,
    );
    expect(stderr).toContain(' Then: ecr-anywhere unregister beta completes this;');
    expect((await run('refresh beta', root)).stdout).toContain('HTTP 401');
    await allow();
    const again = await run('unregister beta');
    expect(again, again.stderr).toMatchObject({ code: 0 });
    expect((await run('status', root)).stdout).not.toContain('beta');
  });
});

describe('the policy for those on call', () => {
  /** What the commands of the alarms and of docs/troubleshooting.md request, by action. */
  const requests = (): Record<string, () => Promise<unknown>> => {
    const config = { ...bed.deployment.emulator.clientConfig, credentials: keys };
    const { AlarmTopicArn: TopicArn } = bed.deployment.outputs;
    const sns = new SNSClient(config);
    const sqs = new SQSClient(config);
    const QueueUrl = bed.deployment.resource('RefresherFunctionFailures');
    const { region, account } = bed.deployment.emulator;
    const Endpoint = `arn:aws:sqs:${region}:${account}:no-queue`;
    return {
      'cloudformation:ListStackResources': () =>
        new CloudFormationClient(config).send(new ListStackResourcesCommand({ StackName: 'EcrAnywhere' })),
      'logs:FilterLogEvents': () =>
        new CloudWatchLogsClient(config).send(
          new FilterLogEventsCommand({ logGroupName: bed.deployment.logGroupName }),
        ),
      'dynamodb:Scan': () =>
        new DynamoDBClient(config).send(
          new ScanCommand({ TableName: bed.deployment.resource('RefresherFunctionMemory') }),
        ),
      'sqs:ReceiveMessage': () => sqs.send(new ReceiveMessageCommand({ QueueUrl })),
      'sqs:PurgeQueue': () => sqs.send(new PurgeQueueCommand({ QueueUrl })),
      'sns:GetTopicAttributes': () => sns.send(new GetTopicAttributesCommand({ TopicArn })),
      'sns:ListSubscriptionsByTopic': () => sns.send(new ListSubscriptionsByTopicCommand({ TopicArn })),
      'sns:Subscribe': () => sns.send(new SubscribeCommand({ TopicArn, Protocol: 'sqs', Endpoint })),
      'scheduler:ListSchedules': () => new SchedulerClient(config).send(new ListSchedulesCommand({})),
    };
  };
  /** Needs the token of an e-mail. */
  const NOT_REQUESTED = 'sns:ConfirmSubscription';

  test('has the action of each request, and no other', async () => {
    await allow(undefined, onCall);
    const all = requests();
    const denied: string[] = [];
    for (const [action, send] of Object.entries(all))
      await send().catch((error: Error) => denied.push(`${action}: ${error.message}`));
    expect(denied).toEqual([]);
    expect([...Object.keys(all), NOT_REQUESTED].sort()).toEqual(onCall.flatMap(actionsOf).sort());
  });

  test.each(onCall.flatMap(actionsOf).filter((action) => action !== NOT_REQUESTED))(
    'without %s, its request is denied',
    async (action) => {
      await allow(action, onCall);
      await expect(requests()[action]?.()).rejects.toThrow(/not authorized/);
    },
  );
});
