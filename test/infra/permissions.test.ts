// Every action of every policy is needed. The test reads them from the template, and finds each in one of three tables:
// without it something fails on a local AWS that enforces IAM; the function makes the call, as recorded at the wire; or AWS
// itself uses it for a property of the template, and its documentation says so.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  BatchCheckLayerAvailabilityCommand,
  BatchGetImageCommand,
  ECRClient,
  GetAuthorizationTokenCommand,
  GetDownloadUrlForLayerCommand,
} from '@aws-sdk/client-ecr';
import {
  CreateRoleCommand,
  IAMClient,
  PutRolePolicyCommand,
  UpdateAssumeRolePolicyCommand,
} from '@aws-sdk/client-iam';
import { PublishCommand, SetTopicAttributesCommand, SNSClient } from '@aws-sdk/client-sns';
import { SendMessageCommand, SetQueueAttributesCommand, SQSClient } from '@aws-sdk/client-sqs';
import { AssumeRoleWithWebIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import type { ClusterSummary, StatusAnswer } from '../../contract/refresher-api.ts';
import { deployStack } from '../bed/deploy.ts';
import type { Deployment } from '../bed/deployment.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';
import { readRequest } from '../bed/web-identity.ts';
import { startWire, type Wire } from '../bed/wire.ts';
import { jwt, startTokenIssuer, type TokenIssuer } from '../functions/token-issuer.ts';
import { type Grant, grants, idsIn, type Statement } from './policy-statements.ts';
import { EVERYTHING, synth } from './synth.ts';

/** What the deployed function does in two runs and a status, as far as it depends on permissions. */
interface Seen {
  /** Whether a run over all clusters finds them. */
  readonly lists: boolean;
  /** Whether a run over one cluster finds it. */
  readonly describes: boolean;
  readonly reads: 'in batches' | 'one by one';
  readonly renewal: string | undefined;
  readonly savesState: boolean;
  /** The call that was denied to the announcement of a failing cluster. */
  readonly notAnnounced: string | undefined;
  /** Whether status answers with the saved states, and with the number of subscribers. */
  readonly shows: { readonly states: boolean; readonly subscribers: boolean };
  /** The call that was denied to the run of an EKS cluster, of one in a role's account, and to the search for tagged ones. */
  readonly eks: string | undefined;
  readonly eksByRole: string | undefined;
  readonly discovery: string | undefined;
}

// Where a new action's row belongs: a call of the function in TAKEN_FROM_FUNCTION, with what the call does in Seen, or in
// AT_THE_WIRE; an action of a role or policy that AWS itself uses, such as a schedule's, in USED_BY_AWS.

/** What becomes worse without an action of the function's role. */
const TAKEN_FROM_FUNCTION: Readonly<Record<string, Partial<Seen>>> = {
  'secretsmanager:ListSecrets': { lists: false },
  'secretsmanager:DescribeSecret': { describes: false },
  'secretsmanager:BatchGetSecretValue': { reads: 'one by one' },
  // The permission for each secret of a batch (Secrets Manager API reference, BatchGetSecretValue).
  'secretsmanager:GetSecretValue': { renewal: undefined },
  'secretsmanager:PutSecretValue': { renewal: 'failed' },
  'secretsmanager:UpdateSecretVersionStage': { renewal: 'failed' },
  'dynamodb:UpdateItem': { savesState: false },
  'dynamodb:Scan': { shows: { states: false, subscribers: false } },
  'sns:GetTopicAttributes': { shows: { states: true, subscribers: false } },
  'sns:Publish': { notAnnounced: 'sns:Publish' },
  'events:PutEvents': { notAnnounced: 'events:PutEvents' },
  'eks:DescribeCluster': { eks: 'eks:DescribeCluster' },
  'sts:AssumeRole': { eksByRole: 'sts:AssumeRole' },
  'eks:ListClusters': { discovery: 'eks:ListClusters' },
};

const LAYER = `sha256:${'0'.repeat(64)}`;
const repository = { repositoryName: 'team/shop' };

/** What a webhook's role may do, as a registry does it when a node pulls an image (Amazon ECR User Guide, ECR on EKS). */
const TAKEN_FROM_WEBHOOK: Readonly<Record<string, (ecr: ECRClient) => Promise<unknown>>> = {
  'ecr:GetAuthorizationToken': (ecr) => ecr.send(new GetAuthorizationTokenCommand({})),
  'ecr:BatchGetImage': (ecr) => ecr.send(new BatchGetImageCommand({ ...repository, imageIds: [] })),
  'ecr:GetDownloadUrlForLayer': (ecr) =>
    ecr.send(new GetDownloadUrlForLayerCommand({ ...repository, layerDigest: LAYER })),
  'ecr:BatchCheckLayerAvailability': (ecr) =>
    ecr.send(new BatchCheckLayerAvailabilityCommand({ ...repository, layerDigests: [LAYER] })),
};

/** Policies that deny requests over plain HTTP, and the request that they deny. */
const TAKEN_FROM_RESOURCES = {
  'RefresherAlarmTopicPolicy denies sns:Publish': 'topic',
  'RefresherFunctionFailuresPolicy denies sqs:*': 'RefresherFunctionFailures',
  'RefresherScheduleDeadLettersPolicy denies sqs:*': 'RefresherScheduleDeadLetters',
} as const;

/** The local AWS does not know the condition keys of these, so it denies the call that the function makes. */
const AT_THE_WIRE = ['sts:GetWebIdentityToken'];

/** Calls of a run in batches: without them, its execution fails. */
const TAKEN_IN_BATCHES = ['s3:PutObject', 's3:GetObject'];

const DOCS = 'https://docs.aws.amazon.com';
const LAMBDA = `${DOCS}/lambda/latest/dg`;
const SCHEDULER = `${DOCS}/scheduler/latest/UserGuide`;
const KEYS_OF_FUNCTION = {
  property: [
    ['AWS::Lambda::Function', 'KmsKeyArn'],
    ['AWS::SNS::Topic', 'KmsMasterKeyId'],
    ['AWS::SQS::Queue', 'KmsMasterKeyId'],
  ],
  pages: [
    `${LAMBDA}/configuration-envvars-encryption.html`,
    `${DOCS}/secretsmanager/latest/userguide/security-encryption.html`,
    `${DOCS}/sns/latest/dg/sns-key-management.html`,
    `${DOCS}/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html`,
  ],
} as const;
const KEYS_OF_QUEUE = {
  property: [['AWS::SQS::Queue', 'KmsMasterKeyId']],
  pages: [`${DOCS}/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-key-management.html`],
} as const;
const KEYS_OF_TABLE = {
  property: [['AWS::DynamoDB::Table', 'SSESpecification.KMSMasterKeyId']],
  pages: [`${DOCS}/amazondynamodb/latest/developerguide/encryption.usagenotes.html#dynamodb-kms-authz`],
} as const;
const LOG = {
  property: [['AWS::Lambda::Function', 'LoggingConfig.LogGroup']],
  pages: [`${LAMBDA}/lambda-intro-execution-role.html`],
} as const;
const TRACE = {
  property: [['AWS::Lambda::Function', 'TracingConfig.Mode']],
  pages: [`${LAMBDA}/services-xray.html`],
} as const;
const STEP_FUNCTIONS = `${DOCS}/step-functions/latest/dg`;
const STATES = {
  property: [['AWS::StepFunctions::StateMachine', 'DefinitionString']],
  pages: [`${STEP_FUNCTIONS}/iam-policies-eg-dist-map.html`],
} as const;
const STATES_TRACE = {
  property: [['AWS::StepFunctions::StateMachine', 'TracingConfiguration.Enabled']],
  pages: [`${STEP_FUNCTIONS}/concepts-xray-tracing.html`],
} as const;
const NETWORK = {
  property: [['AWS::Lambda::Function', 'VpcConfig.SubnetIds']],
  pages: [`${LAMBDA}/configuration-vpc.html`],
} as const;

/**
 * Actions that AWS itself uses, and the local AWS without asking: the property of the template that makes AWS use them, and
 * the page that requires them. What the statement is about must be in the property.
 */
const USED_BY_AWS: Readonly<
  Record<
    string,
    { readonly property: readonly (readonly [string, string])[]; readonly pages: readonly string[] }
  >
> = {
  'RefresherFunctionRole trusts sts:AssumeRole': {
    property: [['AWS::Lambda::Function', 'Role']],
    pages: [`${LAMBDA}/lambda-intro-execution-role.html`],
  },
  'RefresherFunctionRole logs:CreateLogStream': LOG,
  'RefresherFunctionRole logs:PutLogEvents': LOG,
  'RefresherFunctionRole sqs:SendMessage': {
    property: [['AWS::Lambda::EventInvokeConfig', 'DestinationConfig.OnFailure.Destination']],
    pages: [`${LAMBDA}/invocation-async-retain-records.html`],
  },
  'RefresherFunctionRole xray:PutTraceSegments': TRACE,
  'RefresherFunctionRole xray:PutTelemetryRecords': TRACE,
  'RefresherFunctionRole ec2:CreateNetworkInterface': NETWORK,
  'RefresherFunctionRole ec2:DeleteNetworkInterface': NETWORK,
  'RefresherFunctionRole ec2:AssignPrivateIpAddresses': NETWORK,
  'RefresherFunctionRole ec2:UnassignPrivateIpAddresses': NETWORK,
  'RefresherFunctionRole ec2:DescribeNetworkInterfaces': NETWORK,
  'RefresherFunctionRole ec2:DescribeSubnets': NETWORK,
  'RefresherFunctionRole kms:Decrypt through lambda, secretsmanager, sns, sqs, s3': KEYS_OF_FUNCTION,
  'RefresherFunctionRole kms:GenerateDataKey through lambda, secretsmanager, sns, sqs, s3': KEYS_OF_FUNCTION,
  ...Object.fromEntries(
    ['Decrypt', 'DescribeKey', 'Encrypt', 'GenerateDataKey', 'GenerateDataKeyWithoutPlaintext']
      .concat('ReEncryptFrom', 'ReEncryptTo')
      .map((action) => [`RefresherFunctionRole kms:${action} through dynamodb`, KEYS_OF_TABLE]),
  ),
  'RefresherScheduleRole trusts sts:AssumeRole': {
    property: [['AWS::Scheduler::Schedule', 'Target.RoleArn']],
    pages: [`${SCHEDULER}/cross-service-confused-deputy-prevention.html`],
  },
  'RefresherScheduleRole lambda:InvokeFunction': {
    property: [['AWS::Scheduler::Schedule', 'Target.Arn']],
    pages: [`${SCHEDULER}/setting-up.html`],
  },
  'RefresherScheduleRole states:StartExecution': {
    property: [['AWS::Scheduler::Schedule', 'Target.Arn']],
    pages: [`${SCHEDULER}/setting-up.html`],
  },
  // Without it, S3 answers 403 for an object that does not exist, as for one that the function may not read.
  'RefresherFunctionRole s3:ListBucket': {
    property: [['AWS::Lambda::Function', 'Environment.Variables.RUNS_BUCKET']],
    pages: [`${DOCS}/AmazonS3/latest/API/API_GetObject.html`],
  },
  // S3 refuses plain HTTP by it.
  'RefresherRunsPolicy denies s3:*': {
    property: [['AWS::S3::BucketPolicy', 'Bucket']],
    pages: [`${DOCS}/AmazonS3/latest/userguide/security-best-practices.html`],
  },
  'RefresherScaleOutRole trusts sts:AssumeRole': {
    property: [['AWS::StepFunctions::StateMachine', 'RoleArn']],
    pages: [`${STEP_FUNCTIONS}/procedure-create-iam-role.html`],
  },
  'RefresherScaleOutRole lambda:InvokeFunction': STATES,
  'RefresherScaleOutRole states:StartExecution': STATES,
  'RefresherScaleOutRole states:DescribeExecution': STATES,
  'RefresherScaleOutRole states:StopExecution': STATES,
  'RefresherScaleOutRole xray:PutTraceSegments': STATES_TRACE,
  'RefresherScaleOutRole xray:PutTelemetryRecords': STATES_TRACE,
  'RefresherScaleOutRole xray:GetSamplingRules': STATES_TRACE,
  'RefresherScaleOutRole xray:GetSamplingTargets': STATES_TRACE,
  'RefresherScheduleRole sqs:SendMessage': {
    property: [['AWS::Scheduler::Schedule', 'Target.DeadLetterConfig.Arn']],
    pages: [`${SCHEDULER}/configuring-schedule-dlq.html`],
  },
  'RefresherScheduleRole kms:Decrypt through sqs': KEYS_OF_QUEUE,
  'RefresherScheduleRole kms:GenerateDataKey through sqs': KEYS_OF_QUEUE,
  'RefresherAlarmTopicPolicy sns:Publish': {
    property: [['AWS::CloudWatch::Alarm', 'AlarmActions']],
    pages: [`${DOCS}/AmazonCloudWatch/latest/monitoring/Notify_Users_Alarm_Changes.html`],
  },
};

// With `scaleOut`, the schedule starts a state machine in place of the function.
const templates = [synth(EVERYTHING), synth()];
const all = templates.map(grants);
const byName = new Map(all.flat().map((grant) => [grant.name, grant]));

test('every action of every policy has one row, and every row has an action', () => {
  const rows = [
    ...Object.keys(TAKEN_FROM_FUNCTION).map((action) => `RefresherFunctionRole ${action}`),
    ...[...AT_THE_WIRE, ...TAKEN_IN_BATCHES].map((action) => `RefresherFunctionRole ${action}`),
    'WebhookoneRole trusts sts:AssumeRoleWithWebIdentity',
    ...Object.keys(TAKEN_FROM_WEBHOOK).map((action) => `WebhookoneRole ${action}`),
    ...Object.keys(TAKEN_FROM_RESOURCES),
    ...Object.keys(USED_BY_AWS),
  ];
  expect(rows.toSorted()).toEqual([...byName.keys()].toSorted());
});

test('no template has an action twice', () => {
  for (const found of all) expect(found).toHaveLength(new Set(found.map(({ name }) => name)).size);
});

test.each(Object.entries(USED_BY_AWS))(
  '%s: AWS needs it for a property of the template',
  (name, { property, pages }) => {
    expect(pages).not.toHaveLength(0);
    for (const [type, path] of property) {
      const values = templates
        .flatMap((template) => Object.values(template.findResources(type)))
        .map(({ Properties }) =>
          path
            .split('.')
            .reduce(
              (value: unknown, key) => (value as Record<string, unknown> | undefined)?.[key],
              Properties,
            ),
        );
      expect(values.filter((value) => value !== undefined)).not.toHaveLength(0);
      expect(values.flatMap(idsIn)).toEqual(expect.arrayContaining([...(byName.get(name)?.about ?? [])]));
    }
  },
);

describe('on a local AWS', () => {
  const DAY = 86_400;
  let dir: string;
  let emulator: Emulator;
  let stack: Deployment;
  let iam: IAMClient;
  let wire: Wire;
  let issuer: TokenIssuer;
  let now = Date.now();
  let withAll: Seen;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
    wire = await startWire();
    issuer = await startTokenIssuer(() => now);
    emulator = await startEmulator({ dir, python: tools().python, env: { AWS_ENDPOINT_URL: wire.url } });
    wire.to(emulator);
    iam = new IAMClient(emulator.clientConfig);
    await createRole(
      'clusters',
      { Effect: 'Allow', Principal: { AWS: emulator.account }, Action: 'sts:AssumeRole' },
      [{ Effect: 'Allow', Action: 'eks:DescribeCluster', Resource: '*' }],
    );
    stack = await deployStack(emulator, {
      context: {
        ...{ scheduleEnabled: false, clusterDeadlineSeconds: 5, allowLocalServers: true, keyless: true },
        ...{ eksRegions: 'eu-central-1', eksDiscovery: 'us-east-1', assumableRoles: roleArn('clusters') },
      },
    });
    withAll = await observe();
  });
  afterAll(async () => {
    await emulator?.stop();
    await Promise.all([wire, issuer].map((server) => server?.[Symbol.asyncDispose]()));
    await rm(dir, { recursive: true, force: true });
  });

  const roleArn = (name: string) => `arn:aws:iam::${emulator.account}:role/${name}`;

  async function createRole(RoleName: string, trust: object, statements: readonly object[]): Promise<void> {
    await iam.send(new CreateRoleCommand({ RoleName, AssumeRolePolicyDocument: documentOf([trust]) }));
    await setPolicy(RoleName, statements);
  }

  async function setPolicy(RoleName: string, statements: readonly object[]): Promise<void> {
    const PolicyDocument = documentOf(statements);
    await iam.send(new PutRolePolicyCommand({ RoleName, PolicyName: 'Own', PolicyDocument }));
  }

  let rounds = 0;
  /** Registers clusters of all kinds, under names that the function has not seen, and runs the function. */
  async function observe(): Promise<Seen> {
    rounds += 1;
    const of = (kind: string) => `${kind}-${rounds}`;
    // Past the half of its lifetime.
    now = Date.now() - 4 * DAY * 1000;
    const token = issuer.issue({ lifeSeconds: 7 * DAY });
    now = Date.now();
    const eks = ['eks', 'get-token', '--cluster-name', 'prod'];
    // Another external id is another session, which the function has not in its cache.
    const byRole = ['token', '-i', 'prod', '-r', roleArn('clusters'), '-e', of('id')];
    const keyless = ['get-token', '--cluster', of('keyless'), '--stack-name', stack.stackName];
    const clusters = {
      [of('refused')]: issuer.kubeconfigOf('unknown'),
      [of('renewed')]: issuer.kubeconfigOf(token),
      [of('eks')]: execKubeconfig('aws', eks),
      [of('by-role')]: execKubeconfig('aws-iam-authenticator', byRole),
      [of('keyless')]: execKubeconfig('ecr-anywhere', keyless),
    };
    for (const [name, kubeconfig] of Object.entries(clusters)) await stack.registerCluster(name, kubeconfig);
    const callsBefore = wire.calls.length;
    const since = Date.now();
    const named = await stack.invoke({ clusters: [of('refused')] });
    const whole = await stack.invoke();
    const status = (await stack.invoke({ action: 'status' })).payload as Partial<StatusAnswer>;
    const log = (await stack.logs(since)).map(({ message }) => message);
    for (const name of Object.keys(clusters)) await stack.unregisterCluster(name);

    const summaries = ({ payload }: { payload: unknown }) =>
      (payload as { clusters?: readonly ClusterSummary[] }).clusters ?? [];
    const summary = (name: string) => summaries(whole).find(({ cluster }) => cluster === name);
    const actions = wire.calls.slice(callsBefore).map(({ action }) => action);
    return {
      lists: summary(of('refused')) !== undefined,
      describes: summaries(named)[0]?.codes?.includes('unauthorized') === true,
      reads: actions.includes('secretsmanager:GetSecretValue') ? 'one by one' : 'in batches',
      renewal: summary(of('renewed'))?.renewal?.outcome,
      savesState: summaries(named)[0]?.stateNotSaved === undefined,
      notAnnounced: denied(log.find((line) => line.includes('"not announced"'))),
      shows: {
        states: status.clusters?.some(({ failures = 0 }) => failures > 0) === true,
        subscribers: status.subscribers !== undefined,
      },
      eks: denied(summary(of('eks'))?.reason),
      eksByRole: denied(summary(of('by-role'))?.reason),
      discovery: denied(summary('EKS in us-east-1')?.reason),
    };
  }

  test('with all actions, every part of a run works', () => {
    expect(withAll).toEqual({
      ...{ lists: true, describes: true, reads: 'in batches', renewal: 'renewed', savesState: true },
      ...{ notAnnounced: undefined, shows: { states: true, subscribers: true } },
      ...{ eks: undefined, eksByRole: undefined, discovery: undefined },
    });
  });

  test('the function makes no call without a row', () => {
    const known = [...Object.keys(TAKEN_FROM_FUNCTION), ...AT_THE_WIRE];
    expect(
      [...new Set(wire.calls.map(({ action }) => action))].filter((action) => !known.includes(action)),
    ).toEqual([]);
  });

  test('the function requests web identity tokens as its role allows', () => {
    const asked = wire.calls.filter(({ action }) => action === 'sts:GetWebIdentityToken');
    const { Condition } = statementOf('RefresherFunctionRole sts:GetWebIdentityToken');
    // The statement is of the template with every setting, whose stack has another name.
    const own = JSON.parse(JSON.stringify(Condition).replace(String(EVERYTHING.stackName), stack.stackName));
    expect(asked).not.toHaveLength(0);
    for (const { form } of asked) expect(() => readRequest(form, own)).not.toThrow();
  });

  test.each(Object.entries(TAKEN_FROM_FUNCTION))(
    'without %s, the function does less',
    async (action, change) => {
      const restore = await stack.forbid(action);
      try {
        expect(withAll).not.toMatchObject(change);
        expect(await observe()).toMatchObject(change);
      } finally {
        await restore();
      }
    },
  );

  test('with all of them again, everything works', async () => {
    expect(await observe()).toEqual(withAll);
  });

  describe('the role of a webhook', () => {
    const issuerHost = 'oidc.example.com/one';
    const statements = [...byName.values()].flatMap(({ name, statement }) =>
      name.startsWith('WebhookoneRole ecr:') ? [{ ...statement, Action: name.split(' ')[1] ?? '' }] : [],
    );
    const claims = {
      iss: `https://${issuerHost}`,
      aud: 'sts.amazonaws.com',
      sub: 'system:serviceaccount:pull:ecr-anywhere',
    };
    const resolved = (statement: object) =>
      JSON.parse(JSON.stringify(statement, (_, value) => resolve(value, emulator)));

    beforeAll(async () => {
      const trust = statementOf('WebhookoneRole trusts sts:AssumeRoleWithWebIdentity');
      await createRole('webhook', resolved(trust), statements.map(resolved));
    });

    async function pull(): Promise<string[]> {
      const { requestHandler, endpoint, region } = emulator.clientConfig;
      const sts = new STSClient({ requestHandler, endpoint, region });
      const WebIdentityToken = jwt({ ...claims, exp: Math.floor(Date.now() / 1000) + 3600 });
      const RoleArn = roleArn('webhook');
      const { Credentials: c } = await sts.send(
        new AssumeRoleWithWebIdentityCommand({ RoleArn, RoleSessionName: 'webhook', WebIdentityToken }),
      );
      const credentials = {
        ...{ accessKeyId: c?.AccessKeyId ?? '', secretAccessKey: c?.SecretAccessKey ?? '' },
        sessionToken: c?.SessionToken ?? '',
      };
      const ecr = new ECRClient({ ...emulator.clientConfig, credentials });
      const refused: string[] = [];
      for (const [action, call] of Object.entries(TAKEN_FROM_WEBHOOK))
        await call(ecr).catch((error: Error) => {
          if (error.name === 'AccessDeniedException') refused.push(action);
        });
      return refused;
    }

    test.each(Object.keys(TAKEN_FROM_WEBHOOK))('without %s, ECR refuses the call', async (action) => {
      expect(await pull()).toEqual([]);
      await setPolicy('webhook', statements.filter(({ Action }) => Action !== action).map(resolved));
      expect(await pull()).toEqual([action]);
      await setPolicy('webhook', statements.map(resolved));
    });

    test('without its trust policy, no session starts', async () => {
      await iam.send(
        new UpdateAssumeRolePolicyCommand({ RoleName: 'webhook', PolicyDocument: documentOf([]) }),
      );
      await expect(pull()).rejects.toThrow('sts:AssumeRoleWithWebIdentity');
    });
  });

  test.each(Object.entries(TAKEN_FROM_RESOURCES))(
    '%s: without it, plain HTTP is accepted',
    async (name, target) => {
      // The local AWS takes the scheme from this header, as behind a load balancer.
      const plain = async (client: SNSClient | SQSClient) => {
        (client as SNSClient).middlewareStack.add(
          (next) => (args) => {
            (args.request as { headers: Record<string, string> }).headers['x-forwarded-proto'] = 'http';
            return next(args);
          },
          { step: 'finalizeRequest', priority: 'low' },
        );
      };
      const [sns, sqs] = [new SNSClient(emulator.clientConfig), new SQSClient(emulator.clientConfig)];
      const [plainSns, plainSqs] = [
        new SNSClient(emulator.clientConfig),
        new SQSClient(emulator.clientConfig),
      ];
      await Promise.all([plain(plainSns), plain(plainSqs)]);
      const TopicArn = stack.outputs.AlarmTopicArn ?? '';
      const QueueUrl = target === 'topic' ? '' : stack.resource(target);
      const send = () =>
        target === 'topic'
          ? plainSns.send(new PublishCommand({ TopicArn, Message: 'x' }))
          : plainSqs.send(new SendMessageCommand({ QueueUrl, MessageBody: 'x' }));
      expect(statementOf(name).Effect).toBe('Deny');
      await expect(send()).rejects.toThrow(/not authorized|denied/);
      const Policy = documentOf([]);
      await (target === 'topic'
        ? sns.send(
            new SetTopicAttributesCommand({ TopicArn, AttributeName: 'Policy', AttributeValue: Policy }),
          )
        : sqs.send(new SetQueueAttributesCommand({ QueueUrl, Attributes: { Policy } })));
      await send();
    },
  );
});

function statementOf(name: string): Statement {
  const { statement } = byName.get(name) as Grant;
  return statement;
}

function documentOf(Statement: readonly object[]): string {
  return JSON.stringify({ Version: '2012-10-17', Statement });
}

/** A kubeconfig whose tokens the function makes itself. */
function execKubeconfig(command: string, args: readonly string[]): string {
  return JSON.stringify({
    'current-context': 'c',
    contexts: [{ name: 'c', context: { cluster: 'c', user: 'c' } }],
    clusters: [{ name: 'c', cluster: { server: 'https://127.0.0.1:1' } }],
    users: [{ name: 'c', user: { exec: { command, args } } }],
  });
}

/** The action that a message of the local AWS says was denied. */
function denied(text: string | undefined): string | undefined {
  return /not authorized to perform: ([\w:]+)/.exec(text ?? '')?.[1];
}

/** Resolves the intrinsic functions of a webhook's role. */
function resolve(value: unknown, { account, region }: Emulator): unknown {
  const pseudo: Record<string, string> = {
    ...{ 'AWS::Partition': 'aws', 'AWS::Region': region, 'AWS::AccountId': account },
  };
  if (typeof value !== 'object' || value === null) return value;
  if ('Fn::GetAtt' in value) return `arn:aws:iam::${account}:oidc-provider/oidc.example.com/one`;
  if ('Fn::Join' in value)
    return (value['Fn::Join'] as [string, (string | { Ref: string })[]])[1]
      .map((part) => (typeof part === 'string' ? part : pseudo[part.Ref]))
      .join('');
  return value;
}
