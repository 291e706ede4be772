// The refresher's Lambda function: its bundle, log group, cluster state table, and a role with only what a run needs.
import { existsSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { ArnFormat, Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { AttributeType, BillingMode, Table, TableEncryption } from 'aws-cdk-lib/aws-dynamodb';
import { PolicyDocument, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import {
  Alias,
  ApplicationLogLevel,
  Architecture,
  type CfnFunction,
  Code,
  Function as LambdaFunction,
  type FunctionProps as LambdaFunctionProps,
  LoggingFormat,
  Runtime,
  Tracing,
} from 'aws-cdk-lib/aws-lambda';
import { LogGroup } from 'aws-cdk-lib/aws-logs';
import type { Bucket } from 'aws-cdk-lib/aws-s3';
import type { ITopic } from 'aws-cdk-lib/aws-sns';
import type { Queue } from 'aws-cdk-lib/aws-sqs';
import { Construct } from 'constructs';
import { EVENT_SOURCE, EVENT_TYPE } from '../contract/cluster-events.ts';
import { audiencePattern, SIGNING_ALGORITHM, TOKEN_SECONDS } from '../contract/keyless.ts';
import { CLUSTERS_PREFIX, clustersPrefix } from '../contract/names.ts';
import { OPERATOR_ALIAS } from '../contract/refresher-api.ts';
import { ENVIRONMENT, RUNS_PREFIX, STATE_ATTRIBUTE } from '../functions/refresher/settings.ts';
import { deadLetters } from './dead-letters.ts';
import { keyStatements } from './encryption.ts';
import type { RefresherSettings } from './refresher-settings.ts';

/** Properties of the function that a CDK app may choose. The alarms, the role and the code rely on the others. */
export type FunctionProps = Readonly<
  Partial<
    Omit<
      LambdaFunctionProps,
      | 'handler'
      | 'runtime'
      | 'logGroup'
      | 'loggingFormat'
      | 'applicationLogLevelV2'
      | 'onFailure'
      | 'retryAttempts'
      | 'maxEventAge'
    >
  >
>;

export interface RefresherFunctionProps {
  readonly settings: RefresherSettings;
  /** For announcements. */
  readonly topic: ITopic;
  /** The customer's key. */
  readonly key: IKey | undefined;
  readonly keylessStackName: string | undefined;
  /** For the lists and reports of runs in batches. */
  readonly runs: Bucket | undefined;
  readonly functionProps: FunctionProps;
}

/**
 * The folder with the bundle, from this file in the checkout as from the bundle of the construct in the npm package.
 *
 * @throws Error if it was not built
 */
function bundleFolder(): string {
  const folder = fileURLToPath(new URL('../dist/function', import.meta.url));
  if (!existsSync(`${folder}/index.mjs`))
    throw new Error(
      `The bundle of the function is missing in ${folder}: run "npm run build" in the checkout.`,
    );
  return folder;
}

/** The function, which the schedule and operators invoke. */
export class RefresherFunction extends Construct {
  readonly function: LambdaFunction;
  readonly logGroup: LogGroup;
  /** The events whose invocation failed. */
  readonly failures: Queue;
  /** The most recent observation of each cluster. */
  readonly clusterStateTable: Table;

  constructor(scope: Construct, id: string, props: RefresherFunctionProps) {
    super(scope, id);
    const { settings, functionProps, key } = props;
    const { subnetIds, securityGroupIds } = settings;
    const { secretPrefix = clustersPrefix(Stack.of(this).stackName) } = settings;
    const isInVpc = subnetIds.length > 0 || functionProps.vpc !== undefined;
    this.failures = deadLetters(this, 'Failures', key);
    this.logGroup = new LogGroup(this, 'Logs', {
      retention: settings.logRetentionDays,
      ...(key && { encryptionKey: key }),
      // The log has no use after the stack is deleted.
      removalPolicy: RemovalPolicy.DESTROY,
    });

    // The logical id is part of deployed stacks: another one would replace the table.
    this.clusterStateTable = new Table(this, 'Memory', {
      partitionKey: { name: STATE_ATTRIBUTE.cluster, type: AttributeType.STRING },
      timeToLiveAttribute: STATE_ATTRIBUTE.forgetAt,
      billingMode: BillingMode.PAY_PER_REQUEST,
      ...(key && { encryption: TableEncryption.CUSTOMER_MANAGED, encryptionKey: key }),
      // The next run restores most of the content.
      removalPolicy: RemovalPolicy.DESTROY,
    });

    const role = new Role(this, 'Role', {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description:
        'The refresher of ECR Anywhere: reads registered kubeconfigs, renews their tokens, announces what changed, writes its own log.',
      inlinePolicies: {
        Refresh: new PolicyDocument({
          statements: [
            // The ARN of a log group ends in `:*`, which covers its streams.
            new PolicyStatement({
              actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
              resources: [this.logGroup.logGroupArn],
            }),
            // Neither action supports resources (Service Authorization Reference). ListSecrets lists the names of the
            // whole account; BatchGetSecretValue returns only secrets for which GetSecretValue is allowed.
            new PolicyStatement({
              actions: ['secretsmanager:ListSecrets', 'secretsmanager:BatchGetSecretValue'],
              resources: ['*'],
            }),
            // The last two actions store a renewed token of a cluster.
            new PolicyStatement({
              actions: [
                'secretsmanager:DescribeSecret',
                'secretsmanager:GetSecretValue',
                'secretsmanager:PutSecretValue',
                'secretsmanager:UpdateSecretVersionStage',
              ],
              resources: [
                Stack.of(this).formatArn({
                  service: 'secretsmanager',
                  resource: 'secret',
                  resourceName: `${secretPrefix}*`,
                  arnFormat: ArnFormat.COLON_RESOURCE_NAME,
                }),
              ],
            }),
            // UpdateItem saves and returns the state of a cluster, and what was announced of it; Scan answers `ecr-anywhere status`.
            new PolicyStatement({
              actions: ['dynamodb:UpdateItem', 'dynamodb:Scan'],
              resources: [this.clusterStateTable.tableArn],
            }),
            new PolicyStatement({ actions: ['sqs:SendMessage'], resources: [this.failures.queueArn] }),
            // Announcements: a message for people, an event of one kind for machines.
            new PolicyStatement({ actions: ['sns:Publish'], resources: [props.topic.topicArn] }),
            // Whether announcements have a subscriber.
            new PolicyStatement({ actions: ['sns:GetTopicAttributes'], resources: [props.topic.topicArn] }),
            new PolicyStatement({
              actions: ['events:PutEvents'],
              resources: [
                Stack.of(this).formatArn({
                  service: 'events',
                  resource: 'event-bus',
                  resourceName: 'default',
                }),
              ],
              // The source is a list of values in the context of a request (Service Authorization Reference, EventBridge).
              conditions: {
                'ForAllValues:StringEquals': {
                  'events:source': EVENT_SOURCE,
                  'events:detail-type': EVENT_TYPE,
                },
              },
            }),
            // Neither action supports resources (Service Authorization Reference, X-Ray).
            ...(settings.tracing
              ? [
                  new PolicyStatement({
                    actions: ['xray:PutTraceSegments', 'xray:PutTelemetryRecords'],
                    resources: ['*'],
                  }),
                ]
              : []),
            ...this.runsStatements(props.runs),
            ...keyStatements(this, key, [
              ...['lambda', 'secretsmanager', 'sns', 'sqs'],
              ...(props.runs ? ['s3'] : []),
            ]),
            // DynamoDB Developer Guide, "Authorizing use of your KMS key".
            ...keyStatements(
              this,
              key,
              ['dynamodb'],
              ...['kms:DescribeKey', 'kms:Encrypt', 'kms:GenerateDataKeyWithoutPlaintext'],
              ...['kms:ReEncryptFrom', 'kms:ReEncryptTo'],
            ),
            ...(isInVpc ? this.networkStatements(subnetIds, securityGroupIds) : []),
            ...this.eksStatements(settings),
            ...this.keylessStatements(props),
          ],
        }),
      },
    });

    const asynchronous = {
      // The next scheduled run is the retry. An event that waits for a free execution expires before that run.
      retryAttempts: 0,
      maxEventAge: Duration.minutes(Math.max(1, Math.floor(settings.rateMinutes / 2))),
      // SqsDestination would grant the role more than sqs:SendMessage.
      onFailure: { bind: () => ({ destination: this.failures.queueArn }) },
    };
    this.function = new LambdaFunction(this, 'Refresher', {
      description: 'Requests a refresh of the due ECR pull Secrets in every registered cluster.',
      code: Code.fromAsset(bundleFolder()),
      handler: 'index.handler',
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      memorySize: settings.memorySize,
      // The CDK would otherwise add permissions.
      role: role.withoutPolicyUpdates(),
      ...(key && { environmentEncryption: key }),
      ...(settings.tracing && { tracing: Tracing.ACTIVE }),
      ...functionProps,
      logGroup: this.logGroup,
      // Lambda passes JSON lines on unchanged. Embedded metrics have no level and count as INFO: a higher level here
      // would discard them, and the alarms would see no runs.
      loggingFormat: LoggingFormat.JSON,
      applicationLogLevelV2: ApplicationLogLevel.INFO,
      environment: {
        [ENVIRONMENT.clusterDeadline]: String(settings.clusterDeadlineSeconds),
        [ENVIRONMENT.stateTable]: this.clusterStateTable.tableName,
        ...(secretPrefix !== CLUSTERS_PREFIX && { [ENVIRONMENT.secretPrefix]: secretPrefix }),
        [ENVIRONMENT.topic]: props.topic.topicArn,
        [ENVIRONMENT.stackName]: Stack.of(this).stackName,
        [ENVIRONMENT.clusterConcurrency]: String(settings.clusterConcurrency),
        ...(props.runs && { [ENVIRONMENT.runsBucket]: props.runs.bucketName }),
        ...(settings.assumableRoles.length > 0 && {
          [ENVIRONMENT.assumableRoles]: settings.assumableRoles.join(','),
        }),
        ...(settings.eksDiscovery.length > 0 && {
          [ENVIRONMENT.eksDiscovery]: settings.eksDiscovery.join(','),
        }),
        ...(props.keylessStackName !== undefined && { [ENVIRONMENT.keylessStage]: props.keylessStackName }),
        ...(settings.clusterMetrics && { [ENVIRONMENT.clusterMetrics]: 'true' }),
        ...(isInVpc && { [ENVIRONMENT.isInVpc]: 'true' }),
        ...(settings.httpsProxy !== undefined && {
          HTTPS_PROXY: settings.httpsProxy,
          ...(settings.noProxy.length > 0 && { NO_PROXY: settings.noProxy.join(',') }),
        }),
        ...(settings.allowLocalServers && { [ENVIRONMENT.allowLocalServers]: 'true' }),
        NODE_OPTIONS: '--enable-source-maps',
        ...functionProps.environment,
      },
      ...asynchronous,
    });
    new Alias(this, 'Operator', {
      aliasName: OPERATOR_ALIAS,
      description:
        'Accepts every event, also those that end tokens. Give few people lambda:InvokeFunction on it.',
      version: this.function.latestVersion,
      ...asynchronous,
    });
    if (subnetIds.length > 0)
      // CDK's own property needs the whole VPC, which it would have to look up.
      (this.function.node.defaultChild as CfnFunction).vpcConfig = {
        subnetIds: [...subnetIds],
        securityGroupIds: [...securityGroupIds],
      };
  }

  /**
   * Lets Lambda connect the function to the VPC (Lambda Developer Guide, "Giving Lambda functions access to resources in an
   * Amazon VPC"). Requests of the function's own code carry `lambda:SourceFunctionArn`, so it may do none of this.
   */
  private networkStatements(
    subnetIds: readonly string[],
    securityGroupIds: readonly string[],
  ): PolicyStatement[] {
    const conditions = { Null: { 'lambda:SourceFunctionArn': 'true' } };
    const arnOf = (resource: string, resourceName: string, account?: string) =>
      Stack.of(this).formatArn({ service: 'ec2', resource, resourceName, ...(account && { account }) });
    return [
      new PolicyStatement({
        actions: ['ec2:CreateNetworkInterface'],
        resources: [
          arnOf('network-interface', '*'),
          // A subnet may be shared by another account. Without ids, the app that gives the VPC knows them, not the construct.
          ...(subnetIds.length > 0 ? subnetIds : ['*']).map((id) => arnOf('subnet', id, '*')),
          ...(securityGroupIds.length > 0 ? securityGroupIds : ['*']).map((id) =>
            arnOf('security-group', id, '*'),
          ),
        ],
        conditions,
      }),
      new PolicyStatement({
        actions: [
          'ec2:DeleteNetworkInterface',
          'ec2:AssignPrivateIpAddresses',
          'ec2:UnassignPrivateIpAddresses',
        ],
        // The guide requires all resources, because Lambda does not know the interface's id beforehand.
        resources: [arnOf('*', '*')],
        conditions,
      }),
      new PolicyStatement({
        // These actions support no resources (Service Authorization Reference, EC2).
        actions: ['ec2:DescribeNetworkInterfaces', 'ec2:DescribeSubnets'],
        resources: ['*'],
        conditions,
      }),
    ];
  }

  /** Lets the refresher store the list and the reports of a run in batches, and read them. */
  private runsStatements(runs: Bucket | undefined): PolicyStatement[] {
    if (!runs) return [];
    return [
      new PolicyStatement({
        actions: ['s3:GetObject', 's3:PutObject'],
        resources: [runs.arnForObjects(`${RUNS_PREFIX}*`)],
      }),
      // Without it, S3 answers 403 for a report that is missing, as for one that may not be read (GetObject). A condition on
      // the prefix would not match, because GetObject has none. The bucket holds nothing else.
      new PolicyStatement({ actions: ['s3:ListBucket'], resources: [runs.bucketArn] }),
    ];
  }

  /** Lets the refresher request tokens with the audiences of this stack's clusters and the fixed lifetime. */
  private keylessStatements({ keylessStackName }: RefresherFunctionProps): PolicyStatement[] {
    if (keylessStackName === undefined) return [];
    return [
      new PolicyStatement({
        actions: ['sts:GetWebIdentityToken'],
        resources: ['*'],
        conditions: {
          // ForAllValues also matches a request without any audience, so Null requires at least one.
          'ForAllValues:StringLike': { 'sts:IdentityTokenAudience': audiencePattern(keylessStackName) },
          Null: { 'sts:IdentityTokenAudience': 'false' },
          NumericEquals: { 'sts:DurationSeconds': TOKEN_SECONDS },
          StringEquals: { 'sts:SigningAlgorithm': SIGNING_ALGORITHM },
        },
      }),
    ];
  }

  /** Lets the refresher describe EKS clusters, list them in discovery targets, and assume the configured roles. */
  private eksStatements(settings: RefresherSettings): PolicyStatement[] {
    const targets = settings.eksDiscovery.map((target) => target.split(/=(.*)/));
    const ownRegions = targets.flatMap(([region = '', roleArn]) => (roleArn === undefined ? region : []));
    const described = [...new Set([...settings.eksRegions, ...ownRegions])];
    const roles = new Set([...settings.assumableRoles, ...targets.flatMap(([, roleArn]) => roleArn ?? [])]);
    return [
      ...(ownRegions.length > 0
        ? [
            new PolicyStatement({
              actions: ['eks:ListClusters'],
              // This action supports no resources (Service Authorization Reference, EKS).
              resources: ['*'],
              conditions: { StringEquals: { 'aws:RequestedRegion': ownRegions } },
            }),
          ]
        : []),
      ...(described.length > 0
        ? [
            new PolicyStatement({
              actions: ['eks:DescribeCluster'],
              resources: described.map((region) =>
                Stack.of(this).formatArn({ service: 'eks', region, resource: 'cluster', resourceName: '*' }),
              ),
            }),
          ]
        : []),
      ...(roles.size > 0
        ? [new PolicyStatement({ actions: ['sts:AssumeRole'], resources: [...roles] })]
        : []),
    ];
  }
}
