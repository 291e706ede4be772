// The synthesized template: permissions, schedule, queues for failures, topic and outputs.
import { App } from 'aws-cdk-lib';
import { Match, type Template } from 'aws-cdk-lib/assertions';
import { describe, expect, test } from 'vitest';
import { readSettings } from '../../infra/settings.ts';
import { EcrAnywhereStack } from '../../infra/stack.ts';
import { deployed, EVERYTHING, type Resource, resources, synth } from './synth.ts';

const template = synth();
const stackOf = (context: Record<string, unknown>) =>
  new EcrAnywhereStack(new App({ context: { 'aws:cdk:disable-asset-staging': true } }), 'Test', {
    settings: readSettings(context),
  });
const arn = (path: string) => ({ 'Fn::GetAtt': [expect.stringMatching(`^${path}[0-9A-F]{8}$`), 'Arn'] });
const arnOf = (rest: string) => ({
  'Fn::Join': ['', ['arn:', { Ref: 'AWS::Partition' }, ...join(rest)]],
});
const join = (rest: string) =>
  rest.split(/(\{\w+\})/).map((part) => (part.startsWith('{') ? { Ref: `AWS::${part.slice(1, -1)}` } : part));

/** The statements of the function's role. */
const functionStatements = (from: Template) => {
  const role = resources(from, 'AWS::IAM::Role').RefresherFunctionRole as unknown as {
    Properties: { Policies: { PolicyDocument: { Statement: { Action: unknown }[] } }[] };
  };
  return role.Properties.Policies.flatMap(({ PolicyDocument }) => PolicyDocument.Statement);
};

describe('roles', () => {
  const roles = resources(template, 'AWS::IAM::Role');

  test('are two, with inline policies only', () => {
    expect(Object.keys(roles)).toEqual(['RefresherFunctionRole', 'RefresherScheduleRole']);
    expect(resources(template, 'AWS::IAM::Policy')).toEqual({});
    for (const { Properties } of Object.values(roles)) {
      expect(Properties).not.toHaveProperty('ManagedPolicyArns');
    }
  });

  test('the role of the function allows its log, registered kubeconfigs, its table and its queue', () => {
    expect(roles.RefresherFunctionRole?.Properties.Policies).toEqual([
      {
        PolicyName: 'Refresh',
        PolicyDocument: {
          Version: '2012-10-17',
          Statement: [
            {
              Effect: 'Allow',
              Action: ['logs:CreateLogStream', 'logs:PutLogEvents'],
              Resource: arn('RefresherFunctionLogs'),
            },
            {
              Effect: 'Allow',
              Action: ['secretsmanager:BatchGetSecretValue', 'secretsmanager:ListSecrets'],
              Resource: '*',
            },
            {
              Effect: 'Allow',
              Action: [
                'secretsmanager:DescribeSecret',
                'secretsmanager:GetSecretValue',
                'secretsmanager:PutSecretValue',
                'secretsmanager:UpdateSecretVersionStage',
              ],
              Resource: arnOf(':secretsmanager:{Region}:{AccountId}:secret:ecr-anywhere/clusters/*'),
            },
            {
              Effect: 'Allow',
              // The CDK sorts actions.
              Action: ['dynamodb:Scan', 'dynamodb:UpdateItem'],
              Resource: arn('RefresherFunctionMemory'),
            },
            { Effect: 'Allow', Action: 'sqs:SendMessage', Resource: arn('RefresherFunctionFailures') },
            {
              Effect: 'Allow',
              Action: ['sns:GetTopicAttributes', 'sns:Publish'],
              Resource: { Ref: expect.stringMatching(/^RefresherAlarmTopic/) },
            },
            {
              Effect: 'Allow',
              Action: 'events:PutEvents',
              Resource: arnOf(':events:{Region}:{AccountId}:event-bus/default'),
              Condition: {
                'ForAllValues:StringEquals': {
                  'events:source': 'ecr-anywhere',
                  'events:detail-type': 'ECR Anywhere Cluster Transition',
                },
              },
            },
          ],
        },
      },
    ]);
  });

  test('the role of the function allows EKS clusters of the regions and the roles of the settings', () => {
    const roleArns = ['arn:aws:iam::123456789012:role/a', 'arn:aws:iam::210987654321:role/path/b'];
    const discovered = 'arn:aws:iam::321098765432:role/c';
    const targets = ['us-east-1', 'us-west-2', `eu-west-1=${discovered}`, `eu-west-2=${roleArns[0]}`];
    const withEks = synth({
      eksRegions: 'eu-central-1,us-east-1',
      assumableRoles: roleArns.join(),
      eksDiscovery: targets.join(),
    });
    const without = functionStatements(template).map((statement) => JSON.stringify(statement));
    expect(
      functionStatements(withEks).filter((statement) => !without.includes(JSON.stringify(statement))),
    ).toEqual([
      {
        Effect: 'Allow',
        Action: 'eks:ListClusters',
        Resource: '*',
        Condition: { StringEquals: { 'aws:RequestedRegion': ['us-east-1', 'us-west-2'] } },
      },
      {
        Effect: 'Allow',
        Action: 'eks:DescribeCluster',
        Resource: ['eu-central-1', 'us-east-1', 'us-west-2'].map((region) =>
          arnOf(`:eks:${region}:{AccountId}:cluster/*`),
        ),
      },
      { Effect: 'Allow', Action: 'sts:AssumeRole', Resource: [...roleArns, discovered] },
    ]);
    withEks.hasResourceProperties('AWS::Lambda::Function', {
      Environment: {
        Variables: Match.objectLike({ ASSUMABLE_ROLES: roleArns.join(), EKS_DISCOVERY: targets.join() }),
      },
    });
  });

  test('the role of the function allows tokens for keyless clusters of its own stack, with one lifetime', () => {
    const statements = (from: Template) =>
      Object.values(resources(from, 'AWS::IAM::Role'))
        .flatMap(
          ({ Properties }) =>
            Properties.Policies as { PolicyDocument: { Statement: { Action: unknown }[] } }[],
        )
        .flatMap(({ PolicyDocument }) => PolicyDocument.Statement)
        .filter(({ Action }) => JSON.stringify(Action).includes('WebIdentity'));
    expect(statements(template)).toEqual([]);
    expect(statements(synth({ keyless: true, stackName: 'Stack-1' }))).toEqual([
      {
        Effect: 'Allow',
        Action: 'sts:GetWebIdentityToken',
        Resource: '*',
        Condition: {
          'ForAllValues:StringLike': { 'sts:IdentityTokenAudience': 'ecr-anywhere:Stack-1:*' },
          Null: { 'sts:IdentityTokenAudience': 'false' },
          NumericEquals: { 'sts:DurationSeconds': 900 },
          StringEquals: { 'sts:SigningAlgorithm': 'ES384' },
        },
      },
    ]);
  });

  test('the role of the schedule allows this function and its queue, and only its group may assume it', () => {
    expect(roles.RefresherScheduleRole?.Properties).toMatchObject({
      AssumeRolePolicyDocument: {
        Statement: [
          {
            Action: 'sts:AssumeRole',
            Principal: { Service: 'scheduler.amazonaws.com' },
            Condition: {
              StringEquals: {
                'aws:SourceAccount': { Ref: 'AWS::AccountId' },
                'aws:SourceArn': arn('RefresherScheduleGroup'),
              },
            },
          },
        ],
      },
      Policies: [
        {
          PolicyDocument: {
            Statement: [
              {
                Effect: 'Allow',
                Action: 'lambda:InvokeFunction',
                Resource: arn('RefresherFunctionRefresher'),
              },
              { Effect: 'Allow', Action: 'sqs:SendMessage', Resource: arn('RefresherScheduleDeadLetters') },
            ],
          },
        },
      ],
    });
  });

  test('no resource policy or URL lets other principals invoke the function', () => {
    template.resourceCountIs('AWS::Lambda::Permission', 0);
    template.resourceCountIs('AWS::Lambda::Url', 0);
  });
});

describe('the function', () => {
  test('runs on Node 24 with the settings that its code reads', () => {
    template.hasResourceProperties('AWS::Lambda::Function', {
      Runtime: 'nodejs24.x',
      Architectures: ['arm64'],
      Handler: 'index.handler',
      MemorySize: 512,
      Timeout: 900,
      Environment: {
        Variables: {
          CLUSTER_DEADLINE_SECONDS: '120',
          CLUSTER_CONCURRENCY: '25',
          NODE_OPTIONS: '--enable-source-maps',
        },
      },
      // INFO at most: embedded metrics carry no level and count as INFO.
      LoggingConfig: { LogFormat: 'JSON', ApplicationLogLevel: 'INFO', LogGroup: Match.anyValue() },
      ReservedConcurrentExecutions: Match.absent(),
    });
    synth({ clusterDeadlineSeconds: '30', clusterConcurrency: '7' }).hasResourceProperties(
      'AWS::Lambda::Function',
      {
        Environment: {
          Variables: Match.objectLike({ CLUSTER_DEADLINE_SECONDS: '30', CLUSTER_CONCURRENCY: '7' }),
        },
      },
    );
  });

  test('keeps its log for a month', () => {
    template.hasResourceProperties('AWS::Logs::LogGroup', { RetentionInDays: 30 });
  });

  test('is not retried, sends failures to a queue, and drops events older than half an interval', () => {
    template.resourceCountIs('AWS::Lambda::EventInvokeConfig', 2);
    // Of the function, and of its alias.
    template.allResourcesProperties('AWS::Lambda::EventInvokeConfig', {
      MaximumRetryAttempts: 0,
      MaximumEventAgeInSeconds: 1800,
      DestinationConfig: {
        OnFailure: {
          Destination: { 'Fn::GetAtt': [Match.stringLikeRegexp('^RefresherFunctionFailures'), 'Arn'] },
        },
      },
    });
  });

  test('has an alias for events that end tokens, which follows each deployment', () => {
    template.hasResourceProperties('AWS::Lambda::Alias', { Name: 'operator', FunctionVersion: '$LATEST' });
  });
});

describe('the schedule', () => {
  const schedule = (context: Record<string, unknown>) =>
    resources(synth(context), 'AWS::Scheduler::Schedule').RefresherSchedule?.Properties;

  test('invokes the function every hour within ten minutes, with an empty event', () => {
    expect(schedule({})).toMatchObject({
      ScheduleExpression: 'rate(1 hour)',
      FlexibleTimeWindow: { Mode: 'FLEXIBLE', MaximumWindowInMinutes: 10 },
      State: 'ENABLED',
      Target: {
        Arn: arn('RefresherFunctionRefresher'),
        Input: '{}',
        RoleArn: arn('RefresherScheduleRole'),
        DeadLetterConfig: { Arn: arn('RefresherScheduleDeadLetters') },
        RetryPolicy: { MaximumRetryAttempts: 5, MaximumEventAgeInSeconds: 900 },
      },
    });
  });

  test('has no flexible window at one minute, and may be disabled', () => {
    expect(schedule({ rateMinutes: '1', scheduleEnabled: 'false' })).toMatchObject({
      ScheduleExpression: 'rate(1 minute)',
      FlexibleTimeWindow: { Mode: 'OFF' },
      State: 'DISABLED',
      Target: { RetryPolicy: { MaximumEventAgeInSeconds: 60 } },
    });
  });

  test('has a second one that runs at once after the deployment, before the alarm NotRunning exists', () => {
    const { RefresherScheduleFirstRun: first, RefresherSchedule: hourly } = resources(
      template,
      'AWS::Scheduler::Schedule',
    );
    expect(first?.Properties).toMatchObject({
      ScheduleExpression: 'rate(365 days)',
      FlexibleTimeWindow: { Mode: 'OFF' },
      State: 'ENABLED',
      Target: hourly?.Properties.Target,
    });
    // Only without it does such a schedule begin at once.
    expect(first?.Properties).not.toHaveProperty('StartDate');
    const { RefresherAlarmsNotRunning: alarm } = resources(template, 'AWS::CloudWatch::Alarm');
    expect(alarm).toMatchObject({ DependsOn: [expect.stringMatching(/^RefresherScheduleFirstRun/)] });
    expect(Object.keys(resources(synth({ scheduleEnabled: false }), 'AWS::Scheduler::Schedule'))).toEqual([
      'RefresherSchedule',
    ]);
  });

  test('deletes its group with the stack, so that a stack of the same name can be created again', () => {
    template.hasResource('AWS::Scheduler::ScheduleGroup', { DeletionPolicy: 'Delete' });
  });
});

test('queues are encrypted, require TLS, and keep messages for 14 days', () => {
  const queues = resources(template, 'AWS::SQS::Queue');
  expect(Object.keys(queues)).toEqual(['RefresherFunctionFailures', 'RefresherScheduleDeadLetters']);
  for (const { Properties } of Object.values(queues)) {
    expect(Properties).toEqual({ MessageRetentionPeriod: 1_209_600, SqsManagedSseEnabled: true });
  }
  const policies = Object.values(resources(template, 'AWS::SQS::QueuePolicy'));
  expect(policies).toHaveLength(2);
  for (const { Properties } of policies) {
    expect(Properties).toMatchObject({
      PolicyDocument: {
        Statement: [
          { Effect: 'Deny', Action: 'sqs:*', Condition: { Bool: { 'aws:SecureTransport': 'false' } } },
        ],
      },
    });
  }
});

describe('the topic', () => {
  test('accepts messages only from the alarms of this stack, over TLS', () => {
    const [policy] = Object.values(resources(template, 'AWS::SNS::TopicPolicy'));
    expect(policy?.Properties.PolicyDocument).toMatchObject({
      Statement: [
        { Effect: 'Deny', Action: 'sns:Publish', Condition: { Bool: { 'aws:SecureTransport': 'false' } } },
        {
          Effect: 'Allow',
          Action: 'sns:Publish',
          Principal: { Service: 'cloudwatch.amazonaws.com' },
          Condition: {
            StringEquals: { 'aws:SourceAccount': { Ref: 'AWS::AccountId' } },
            ArnLike: { 'aws:SourceArn': arnOf(':cloudwatch:{Region}:{AccountId}:alarm:Test-*') },
          },
        },
      ],
    });
  });

  test('has an e-mail subscription if alarmEmail is set', () => {
    template.resourceCountIs('AWS::SNS::Subscription', 0);
    synth({ alarmEmail: 'someone@example.com' }).hasResourceProperties('AWS::SNS::Subscription', {
      Protocol: 'email',
      Endpoint: 'someone@example.com',
    });
  });
});

describe('settings of a platform', () => {
  test('memorySize and logRetentionDays set the memory of the function and the retention of its log', () => {
    const large = synth({ memorySize: '1024', logRetentionDays: '365' });
    large.hasResourceProperties('AWS::Lambda::Function', { MemorySize: 1024 });
    large.hasResourceProperties('AWS::Logs::LogGroup', { RetentionInDays: 365 });
    template.hasResourceProperties('AWS::Logs::LogGroup', { RetentionInDays: 30 });
  });

  test('tracing turns on X-Ray, with an inline permission', () => {
    template.hasResourceProperties('AWS::Lambda::Function', { TracingConfig: Match.absent() });
    const traced = synth({ tracing: true });
    traced.hasResourceProperties('AWS::Lambda::Function', { TracingConfig: { Mode: 'Active' } });
    traced.resourceCountIs('AWS::IAM::Policy', 0);
    expect(JSON.stringify(resources(traced, 'AWS::IAM::Role'))).toContain('xray:PutTraceSegments');
    expect(JSON.stringify(resources(template, 'AWS::IAM::Role'))).not.toContain('xray:');
  });

  test.each([
    {
      title: 'the default stack keeps its prefix',
      context: {},
      prefix: 'ecr-anywhere/clusters/',
      told: undefined,
    },
    {
      title: 'another stack has a prefix of its own',
      context: { stackName: 'Live' },
      prefix: 'ecr-anywhere-Live/clusters/',
      told: 'ecr-anywhere-Live/clusters/',
    },
    {
      title: 'an older stack may keep the prefix of the default one',
      context: { stackName: 'Live', secretPrefix: 'ecr-anywhere/clusters/' },
      prefix: 'ecr-anywhere/clusters/',
      told: undefined,
    },
    {
      title: 'secretPrefix is any other',
      context: { secretPrefix: 'team/ecr/' },
      prefix: 'team/ecr/',
      told: 'team/ecr/',
    },
  ])('$title, which its role, its code and the command line know', ({ context, prefix, told }) => {
    const stage = deployed(context);
    const { Resource: secrets } = functionStatements(stage).find(({ Action }) =>
      JSON.stringify(Action).includes('PutSecretValue'),
    ) as unknown as { Resource: unknown };
    expect(secrets).toEqual(arnOf(`:secretsmanager:{Region}:{AccountId}:secret:${prefix}*`));
    stage.hasResourceProperties('AWS::Lambda::Function', {
      Environment: { Variables: Match.objectLike({ SECRET_PREFIX: told ?? Match.absent() }) },
    });
    expect(stage.toJSON().Outputs.SecretPrefix?.Value).toBe(told);
  });

  test('kmsKeyArn encrypts all that the stack stores, and each role may use it through services only', () => {
    const kmsKeyArn = 'arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef';
    const encrypted = synth({ kmsKeyArn });
    for (const [type, property] of Object.entries({
      'AWS::DynamoDB::Table': {
        SSESpecification: { KMSMasterKeyId: kmsKeyArn, SSEType: 'KMS', SSEEnabled: true },
      },
      'AWS::Logs::LogGroup': { KmsKeyId: kmsKeyArn },
      'AWS::SNS::Topic': { KmsMasterKeyId: kmsKeyArn },
      'AWS::SQS::Queue': { KmsMasterKeyId: kmsKeyArn },
      'AWS::Lambda::Function': { KmsKeyArn: kmsKeyArn },
    }))
      encrypted.allResourcesProperties(type, property);
    const keyStatements = Object.entries(resources(encrypted, 'AWS::IAM::Role')).map(
      ([role, { Properties }]) => [
        role,
        (Properties.Policies as { PolicyDocument: { Statement: { Action: unknown; Resource: unknown }[] } }[])
          .flatMap(({ PolicyDocument }) => PolicyDocument.Statement)
          .filter(({ Action }) => JSON.stringify(Action).includes('kms:')),
      ],
    );
    const via = (...services: string[]) => {
      const hosts = services.map((service) => ({
        'Fn::Join': ['', [`${service}.`, { Ref: 'AWS::Region' }, '.', { Ref: 'AWS::URLSuffix' }]],
      }));
      return { StringEquals: { 'kms:ViaService': hosts } };
    };
    const statement = (Action: string[], Condition: object) => ({
      Effect: 'Allow',
      Action,
      Resource: kmsKeyArn,
      Condition,
    });
    expect(Object.fromEntries(keyStatements)).toEqual({
      RefresherFunctionRole: [
        statement(['kms:Decrypt', 'kms:GenerateDataKey'], via('lambda', 'secretsmanager', 'sns', 'sqs')),
        statement(
          [
            ...['kms:Decrypt', 'kms:DescribeKey', 'kms:Encrypt', 'kms:GenerateDataKey'],
            ...['kms:GenerateDataKeyWithoutPlaintext', 'kms:ReEncryptFrom', 'kms:ReEncryptTo'],
          ],
          via('dynamodb'),
        ),
      ],
      RefresherScheduleRole: [statement(['kms:Decrypt', 'kms:GenerateDataKey'], via('sqs'))],
    });
    encrypted.hasOutput('KmsKeyArn', { Value: kmsKeyArn });
    expect(JSON.stringify(template)).not.toMatch(/kms:|KmsKey|KMSMaster/);
  });

  describe('subnetIds and securityGroupIds', () => {
    const [subnet, group] = ['subnet-0123456789abcdef0', 'sg-0123456789abcdef0'];
    const inVpc = synth({ subnetIds: subnet, securityGroupIds: group });

    test('put the function into a VPC without a lookup, and tell its code and the command line', () => {
      inVpc.hasResourceProperties('AWS::Lambda::Function', {
        VpcConfig: { SubnetIds: [subnet], SecurityGroupIds: [group] },
        Environment: { Variables: Match.objectLike({ IS_IN_VPC: 'true' }) },
      });
      inVpc.hasOutput('SubnetIds', { Value: subnet });
      template.hasResourceProperties('AWS::Lambda::Function', {
        VpcConfig: Match.absent(),
        Environment: { Variables: Match.not(Match.objectLike({ IS_IN_VPC: Match.anyValue() })) },
      });
    });

    test('let Lambda manage network interfaces there, and not the code of the function', () => {
      const statements = functionStatements(inVpc).filter(({ Action }) =>
        JSON.stringify(Action).includes('ec2:'),
      );
      const conditions = { Null: { 'lambda:SourceFunctionArn': 'true' } };
      expect(statements).toEqual([
        {
          Effect: 'Allow',
          Action: 'ec2:CreateNetworkInterface',
          Resource: [
            arnOf(':ec2:{Region}:{AccountId}:network-interface/*'),
            // The CDK sorts resources.
            arnOf(`:ec2:{Region}:*:security-group/${group}`),
            arnOf(`:ec2:{Region}:*:subnet/${subnet}`),
          ],
          Condition: conditions,
        },
        {
          Effect: 'Allow',
          Action: [
            'ec2:AssignPrivateIpAddresses',
            'ec2:DeleteNetworkInterface',
            'ec2:UnassignPrivateIpAddresses',
          ],
          Resource: arnOf(':ec2:{Region}:{AccountId}:*/*'),
          Condition: conditions,
        },
        {
          Effect: 'Allow',
          Action: ['ec2:DescribeNetworkInterfaces', 'ec2:DescribeSubnets'],
          Resource: '*',
          Condition: conditions,
        },
      ]);
      expect(JSON.stringify(functionStatements(template))).not.toContain('ec2:');
    });
  });

  test('httpsProxy and noProxy are variables of the function', () => {
    synth({ httpsProxy: 'http://proxy:3128', noProxy: 'a.example.com, .internal' }).hasResourceProperties(
      'AWS::Lambda::Function',
      {
        Environment: {
          Variables: Match.objectLike({
            HTTPS_PROXY: 'http://proxy:3128',
            NO_PROXY: 'a.example.com,.internal',
          }),
        },
      },
    );
  });

  test('permissionsBoundary is that of every role', () => {
    const { permissionsBoundary } = EVERYTHING;
    const roles = Object.values(resources(synth(EVERYTHING), 'AWS::IAM::Role'));
    expect(roles).toHaveLength(4);
    for (const { Properties } of roles)
      expect(Properties).toMatchObject({ PermissionsBoundary: permissionsBoundary });
  });

  test('tags are those of the stack, which CloudFormation copies to its resources', () => {
    const stack = stackOf({ tags: 'team=platform' });
    expect(stack.tags.tagValues()).toEqual({ team: 'platform' });
    expect(stackOf({}).tags.tagValues()).toEqual({});
  });

  test('alarmTopicArn receives alarms and announcements, and the stack creates no topic', () => {
    const alarmTopicArn = 'arn:aws:sns:eu-central-1:123456789012:alarms';
    const own = synth({ alarmTopicArn });
    own.resourceCountIs('AWS::SNS::Topic', 0);
    own.resourceCountIs('AWS::SNS::TopicPolicy', 0);
    for (const { Properties } of Object.values(resources(own, 'AWS::CloudWatch::Alarm')))
      expect(Properties).toMatchObject({ AlarmActions: [alarmTopicArn], OKActions: [alarmTopicArn] });
    own.hasResourceProperties('AWS::Lambda::Function', {
      Environment: { Variables: Match.objectLike({ TOPIC_ARN: alarmTopicArn }) },
    });
    expect(JSON.stringify(resources(own, 'AWS::IAM::Role').RefresherFunctionRole)).toContain(
      `"Action":["sns:GetTopicAttributes","sns:Publish"],"Effect":"Allow","Resource":"${alarmTopicArn}"`,
    );
    own.hasOutput('AlarmTopicArn', { Value: alarmTopicArn });
  });
});

test('no resource has a physical name that a second stack in the account would also need', () => {
  for (const { Type, Properties } of Object.values(template.toJSON().Resources as Record<string, Resource>)) {
    const names = Object.keys(Properties).filter((key) => /^(\w*Name|Name)$/.test(key));
    const allowed: Record<string, readonly string[]> = {
      'AWS::CloudWatch::Alarm': ['MetricName'],
      'AWS::Lambda::Alias': ['FunctionName', 'Name'],
      'AWS::Lambda::EventInvokeConfig': ['FunctionName'],
      'AWS::SNS::Topic': ['DisplayName'],
      'AWS::Scheduler::Schedule': ['GroupName'],
      // The CDK derives it from the name of the stack.
      'AWS::Scheduler::ScheduleGroup': ['Name'],
    };
    expect({ Type, names }).toEqual({ Type, names: allowed[Type] ?? [] });
  }
});

test('the outputs have the next commands, with the name of another stack', () => {
  const outputs = template.toJSON().Outputs as Record<string, { Value: unknown }>;
  expect(Object.keys(outputs)).toEqual([
    'FunctionName',
    'RoleArn',
    'AlarmTopicArn',
    'DashboardName',
    'RegisterCluster',
    'DryRun',
    'Status',
    'ReadLog',
  ]);
  const text = (name: string) => JSON.stringify(outputs[name]?.Value);
  expect(text('RegisterCluster')).toContain('ecr-anywhere register NAME --context CONTEXT --region ');
  expect(text('RegisterCluster')).not.toContain('--stack-name');
  const { RegisterCluster } = synth({ stackName: 'Live' }).toJSON().Outputs;
  expect(JSON.stringify(RegisterCluster.Value)).toContain(' --stack-name Live');
  expect(text('DryRun')).toContain('aws lambda invoke');
  expect(text('ReadLog')).toMatch(/aws logs tail .* --since 3h/);
});
