// The plain template: the CDK app's resources for each choice of parameters, deployed by CloudFormation alone, and moved to the CDK app.
import { createHash } from 'node:crypto';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CloudFormationClient,
  CreateStackCommand,
  DescribeStacksCommand,
  UpdateStackCommand,
  waitUntilStackCreateComplete,
  waitUntilStackUpdateComplete,
} from '@aws-sdk/client-cloudformation';
import { CreateBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3';
import { ListSubscriptionsByTopicCommand, SNSClient } from '@aws-sdk/client-sns';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeTemplate } from '../../release/template.ts';
import { runCommand } from '../bed/control-plane.ts';
import { deployStack, exists } from '../bed/deploy.ts';
import { Deployment, UNREACHABLE_KUBECONFIG } from '../bed/deployment.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';
import { deployed } from '../infra/synth.ts';

type Parameters = Readonly<Record<string, string | number>>;

const KMS_KEY = 'arn:aws:kms:eu-central-1:111122223333:key/01234567-89ab-cdef-0123-456789abcdef';
const BOUNDARY = 'arn:aws:iam::111122223333:policy/boundary';
const BUCKET = 'functions-of-the-test';

let dir: string;
let text: string;
let zip: Uint8Array;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  await writeTemplate(join(dir, 'template'));
  text = await readFile(join(dir, 'template/ecr-anywhere.template.json'), 'utf8');
  zip = await readFile(join(dir, 'template/function.zip'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

/** What CloudFormation makes of the template: it chooses, replaces references to parameters, and drops what has no value. */
function evaluate(stackName: string, given: Parameters): Record<string, unknown> {
  const template = JSON.parse(text);
  const values: Record<string, unknown> = { 'AWS::StackName': stackName };
  for (const [name, { Default }] of Object.entries<{ Default?: unknown }>(template.Parameters))
    values[name] = given[name] ?? Default;
  // biome-ignore lint/suspicious/noExplicitAny: a template is any JSON
  const resolve = (value: any): any => {
    if (Array.isArray(value)) return value.map(resolve).filter((item) => item !== undefined);
    if (typeof value !== 'object' || value === null) return value;
    if (value.Ref === 'AWS::NoValue') return undefined;
    if (value.Ref in values && !['FunctionBucket', 'FunctionKey'].includes(value.Ref))
      return values[value.Ref];
    const { 'Fn::If': choice, 'Fn::Sub': pattern, 'Fn::Equals': equals, 'Fn::Not': not } = value;
    if (choice) return resolve(resolve(template.Conditions[choice[0]]) ? choice[1] : choice[2]);
    if (equals) return resolve(equals[0]) === equals[1];
    if (not) return !resolve(not[0]);
    if (pattern)
      return pattern.replace(/\$\{([\w:]+)\}/g, (whole: string, name: string) => values[name] ?? whole);
    return Object.fromEntries(
      Object.entries(value)
        .map(([key, item]) => [key, resolve(item)])
        .filter(([, item]) => item !== undefined),
    );
  };
  const applies = ([, { Condition }]: [string, { Condition?: string }]) =>
    Condition === undefined || resolve(template.Conditions[Condition]);
  const section = (entries: Record<string, { Condition?: string }>) =>
    Object.fromEntries(
      Object.entries(entries)
        .filter(applies)
        .map(([name, { Condition: _, ...entry }]) => [name, resolve(entry)]),
    );
  return { Resources: section(template.Resources), Outputs: section(template.Outputs) };
}

interface Resource {
  readonly Type: string;
  Properties: Record<string, unknown>;
}

/** The CDK app's template in the same form. */
function ofTheApp(settings: Readonly<Record<string, unknown>>) {
  const { Resources, Outputs } = deployed(settings).toJSON();
  const all = Object.entries<Resource>(Resources);
  const group = all.find(([, { Type }]) => Type === 'AWS::Scheduler::ScheduleGroup');
  const resources = all.map(([id, { ...resource }]) => {
    const { Type } = resource;
    if (Type === 'AWS::Lambda::Function')
      resource.Properties.Code = { S3Bucket: { Ref: 'FunctionBucket' }, S3Key: { Ref: 'FunctionKey' } };
    // docs/cloudformation.md names these two differences.
    if (settings.stackName !== undefined && Type === 'AWS::Scheduler::ScheduleGroup')
      resource.Properties = {};
    if (settings.stackName !== undefined && Type === 'AWS::Scheduler::Schedule')
      resource.Properties.GroupName = { Ref: group?.[0] };
    return [Type === 'AWS::SNS::Subscription' ? 'RefresherAlarmTopicEmail' : id, resource];
  });
  return { Resources: Object.fromEntries(resources), Outputs };
}

const EVERYTHING = {
  parameters: {
    ...{ AlarmEmail: 'a@example.com', EksRegion: 'eu-west-1', Keyless: 'true', KmsKeyArn: KMS_KEY },
    ...{ PermissionsBoundary: BOUNDARY, LogRetentionDays: 90, MemorySize: 1024 },
  },
  settings: {
    ...{ alarmEmail: 'a@example.com', eksRegions: 'eu-west-1', keyless: true, kmsKeyArn: KMS_KEY },
    ...{ permissionsBoundary: BOUNDARY, logRetentionDays: 90, memorySize: 1024 },
  },
};

describe.each([undefined, 'Other'])(
  'under the stack name %s, the template is that of the CDK app',
  (stackName) => {
    const name = stackName === undefined ? {} : { stackName };

    test.each([
      { title: 'with the defaults', parameters: {}, settings: {} },
      ...Object.keys(EVERYTHING.parameters).map((parameter, index) => ({
        title: `with ${parameter}`,
        parameters: Object.fromEntries([Object.entries(EVERYTHING.parameters)[index] ?? []]),
        settings: Object.fromEntries([Object.entries(EVERYTHING.settings)[index] ?? []]),
      })),
      { title: 'with every parameter', ...EVERYTHING },
    ])('$title', ({ parameters, settings }) => {
      expect(evaluate(stackName ?? 'EcrAnywhere', parameters as Parameters)).toEqual(
        ofTheApp({ ...settings, ...name }),
      );
    });
  },
);

test('the template needs no bootstrap, no bucket for itself, and names no account, partition or placeholder', () => {
  expect(text).not.toMatch(/BootstrapVersion|cdk-hnb659fds|CDKMetadata|[Pp]laceholder|0{12}|"arn:aws:/);
  expect(Buffer.byteLength(text)).toBeLessThan(51_200);
});

test('the same sources give the same bytes', async () => {
  await writeTemplate(join(dir, 'again'));
  const hash = (data: Uint8Array | string) => createHash('sha256').update(data).digest('hex');
  expect(hash(await readFile(join(dir, 'again/function.zip')))).toBe(hash(zip));
  expect(await readFile(join(dir, 'again/ecr-anywhere.template.json'), 'utf8')).toBe(text);
});

test('cfn-lint finds nothing but dependencies that a reference implies', async () => {
  const { stdout } = await runCommand(
    tools().cfnLint,
    [
      '--format',
      'parseable',
      '--regions',
      'eu-central-1',
      'us-gov-west-1',
      'cn-north-1',
      '--ignore-checks',
      'W3005',
    ].concat('--', join(dir, 'template/ecr-anywhere.template.json')),
    { PATH: process.env.PATH ?? '' },
  );
  expect(stdout).toBe('');
});

describe('on the local AWS', () => {
  let emulator: Emulator;
  let cloudFormation: CloudFormationClient;

  beforeAll(async () => {
    emulator = await startEmulator({ dir: join(dir, 'aws'), python: tools().python });
    cloudFormation = new CloudFormationClient(emulator.clientConfig);
    const s3 = new S3Client({ ...emulator.clientConfig, forcePathStyle: true });
    await s3.send(new CreateBucketCommand({ Bucket: BUCKET }));
    for (const Key of ['0.1.0.zip', '0.2.0.zip'])
      await s3.send(new PutObjectCommand({ Bucket: BUCKET, Key, Body: zip }));
  });
  afterAll(() => emulator?.stop());

  /** Creates or updates the stack as `aws cloudformation deploy` does. */
  async function deploy(StackName: string, parameters: Parameters): Promise<Deployment> {
    const template = JSON.parse(text);
    // The local AWS does not know the name of the stack in conditions.
    template.Conditions.HasOtherStackName['Fn::Not'][0]['Fn::Equals'][0] = StackName;
    const input = {
      StackName,
      TemplateBody: JSON.stringify(template),
      Capabilities: ['CAPABILITY_IAM' as const],
      Parameters: Object.entries({ FunctionBucket: BUCKET, ...parameters }).map(([ParameterKey, value]) => ({
        ParameterKey,
        ParameterValue: String(value),
      })),
    };
    const waiting = { client: cloudFormation, maxWaitTime: 120, minDelay: 1, maxDelay: 1 };
    if (await exists(emulator, StackName)) {
      await cloudFormation.send(new UpdateStackCommand(input));
      await waitUntilStackUpdateComplete(waiting, { StackName });
    } else {
      await cloudFormation.send(new CreateStackCommand(input));
      await waitUntilStackCreateComplete(waiting, { StackName });
    }
    const { Stacks: [stack] = [] } = await cloudFormation.send(new DescribeStacksCommand({ StackName }));
    const outputs = (stack?.Outputs ?? []).map(({ OutputKey = '', OutputValue = '' }) => [
      OutputKey,
      OutputValue,
    ]);
    return Deployment.of(emulator, StackName, Object.fromEntries(outputs));
  }

  const subscriptions = async (stack: Deployment) => {
    const sns = new SNSClient(emulator.clientConfig);
    const TopicArn = stack.outputs.AlarmTopicArn;
    const { Subscriptions = [] } = await sns.send(new ListSubscriptionsByTopicCommand({ TopicArn }));
    return Subscriptions.map(({ Endpoint }) => Endpoint);
  };

  test('a stack serves clusters, takes another version of the function, and moves to the CDK app and back', async () => {
    const stack = await deploy('EcrAnywhere', { FunctionKey: '0.1.0.zip' });
    expect(await subscriptions(stack)).toEqual([]);
    await stack.registerCluster('nowhere', UNREACHABLE_KUBECONFIG);
    expect((await stack.invoke({ clusters: ['nowhere'] })).payload).toMatchObject({
      clusters: [{ cluster: 'nowhere', failures: 1 }],
    });

    const upgraded = await deploy('EcrAnywhere', { FunctionKey: '0.2.0.zip' });
    expect(upgraded.resources).toEqual(stack.resources);
    expect((await upgraded.invoke({ clusters: ['nowhere'] })).payload).toMatchObject({
      clusters: [{ cluster: 'nowhere', failures: 2 }],
    });

    const moved = await deployStack(emulator);
    expect(moved.resources).toEqual(stack.resources);
    const back = await deploy('EcrAnywhere', { FunctionKey: '0.2.0.zip' });
    expect(back.resources).toEqual(stack.resources);
    expect((await back.invoke({ clusters: ['nowhere'] })).payload).toMatchObject({
      clusters: [{ cluster: 'nowhere', failures: 3 }],
    });
  });

  test('a stack of another name has its own prefix, and alarms go to AlarmEmail', async () => {
    const stack = await deploy('Other', { FunctionKey: '0.1.0.zip', AlarmEmail: 'platform@example.com' });
    expect(await subscriptions(stack)).toEqual(['platform@example.com']);
    expect(stack.outputs).toMatchObject({
      SecretPrefix: 'ecr-anywhere-Other/clusters/',
      RegisterCluster: expect.stringMatching(/ --stack-name Other$/),
    });
    await stack.registerCluster('other', UNREACHABLE_KUBECONFIG);
    expect((await stack.invoke({ clusters: ['other'] })).payload).toMatchObject({
      clusters: [{ cluster: 'other', failures: 1 }],
    });
  });
});
