// The Lambda function: its bundle, its log group, and a role that can do what a run needs and nothing else.

import { ArnFormat, Duration, RemovalPolicy, Stack } from 'aws-cdk-lib';
import { AttributeType, BillingMode, Table } from 'aws-cdk-lib/aws-dynamodb';
import { PolicyDocument, PolicyStatement, Role, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { ApplicationLogLevel, Architecture, LoggingFormat, Runtime } from 'aws-cdk-lib/aws-lambda';
import { LogLevel, NodejsFunction, OutputFormat } from 'aws-cdk-lib/aws-lambda-nodejs';
import { LogGroup, RetentionDays } from 'aws-cdk-lib/aws-logs';
import { Construct } from 'constructs';
import { audiencePattern, SIGNING_ALGORITHM, TOKEN_SECONDS } from '../contract/keyless.ts';
import { CLUSTERS_PREFIX } from '../contract/names.ts';
import { ENVIRONMENT, MEMORY } from '../functions/refresher/settings.ts';
import { deadLetters } from './dead-letters.ts';

export interface RefresherFunctionProps {
  readonly entry: string;
  readonly interval: Duration;
  readonly clusterDeadline: Duration;
  readonly clusterConcurrency: number;
  readonly eksRegions: readonly string[];
  readonly assumableRoles: readonly string[];
  readonly eksDiscovery: readonly string[];
  readonly keylessStage: string | undefined;
  readonly allowLocalServers: boolean;
  readonly memory: number;
  readonly timeout: Duration;
  readonly logRetention: RetentionDays | undefined;
  readonly exclusive: boolean;
}

/** The function, ready to be invoked by a schedule or by people. */
export class RefresherFunction extends Construct {
  readonly function: NodejsFunction;
  readonly logGroup: LogGroup;
  /** What is known of each cluster. */
  readonly memoryTable: Table;

  constructor(scope: Construct, id: string, props: RefresherFunctionProps) {
    super(scope, id);
    const failures = deadLetters(this, 'Failures');
    this.logGroup = new LogGroup(this, 'Logs', {
      retention: props.logRetention ?? RetentionDays.ONE_MONTH,
      // Reports of runs, worth nothing without the deployment.
      removalPolicy: RemovalPolicy.DESTROY,
    });

    this.memoryTable = new Table(this, 'Memory', {
      partitionKey: { name: MEMORY.cluster, type: AttributeType.STRING },
      timeToLiveAttribute: MEMORY.forgetAt,
      billingMode: BillingMode.PAY_PER_REQUEST,
      // The next run knows most of it again.
      removalPolicy: RemovalPolicy.DESTROY,
    });

    const role = new Role(this, 'Role', {
      assumedBy: new ServicePrincipal('lambda.amazonaws.com'),
      description:
        'The refresher of ECR Anywhere: reads registered kubeconfigs and renews their tokens, writes its own log.',
      inlinePolicies: {
        Refresh: new PolicyDocument({
          statements: [
            // A log group's ARN ends in `:*`, its streams: Lambda names them as it goes.
            new PolicyStatement({
              actions: ['logs:CreateLogStream', 'logs:PutLogEvents'],
              resources: [this.logGroup.logGroupArn],
            }),
            // Neither knows resources (Service Authorization Reference). The first lists names in the whole account,
            // the second gives nothing that GetSecretValue does not.
            new PolicyStatement({
              actions: ['secretsmanager:ListSecrets', 'secretsmanager:BatchGetSecretValue'],
              resources: ['*'],
            }),
            // The last two store the next token of a cluster.
            new PolicyStatement({
              actions: [
                'secretsmanager:GetSecretValue',
                'secretsmanager:PutSecretValue',
                'secretsmanager:UpdateSecretVersionStage',
              ],
              resources: [
                Stack.of(this).formatArn({
                  service: 'secretsmanager',
                  resource: 'secret',
                  resourceName: `${CLUSTERS_PREFIX}*`,
                  arnFormat: ArnFormat.COLON_RESOURCE_NAME,
                }),
              ],
            }),
            // The first writes and tells what it wrote, the second is for people who ask what is known.
            new PolicyStatement({
              actions: ['dynamodb:UpdateItem', 'dynamodb:Scan'],
              resources: [this.memoryTable.tableArn],
            }),
            new PolicyStatement({ actions: ['sqs:SendMessage'], resources: [failures.queueArn] }),
            ...this.eksStatements(props),
            ...this.keylessStatements(props),
          ],
        }),
      },
    });

    this.function = new NodejsFunction(this, 'Refresher', {
      description: 'Asks every registered cluster to refresh its ECR pull Secrets that are due.',
      entry: props.entry,
      runtime: Runtime.NODEJS_24_X,
      architecture: Architecture.ARM_64,
      memorySize: props.memory,
      timeout: props.timeout,
      role,
      logGroup: this.logGroup,
      // Loggers that write JSON to standard output pass unchanged, embedded metrics too. These carry no level and
      // so count as INFO: a higher threshold here would discard them, and the alarms would see no runs.
      loggingFormat: LoggingFormat.JSON,
      applicationLogLevelV2: ApplicationLogLevel.INFO,
      environment: {
        [ENVIRONMENT.clusterDeadline]: String(props.clusterDeadline.toSeconds()),
        [ENVIRONMENT.memoryTable]: this.memoryTable.tableName,
        [ENVIRONMENT.clusterConcurrency]: String(props.clusterConcurrency),
        ...(props.assumableRoles.length > 0 && {
          [ENVIRONMENT.assumableRoles]: props.assumableRoles.join(','),
        }),
        ...(props.eksDiscovery.length > 0 && { [ENVIRONMENT.eksDiscovery]: props.eksDiscovery.join(',') }),
        ...(props.keylessStage !== undefined && { [ENVIRONMENT.keylessStage]: props.keylessStage }),
        ...(props.allowLocalServers && { [ENVIRONMENT.allowLocalServers]: 'true' }),
        NODE_OPTIONS: '--enable-source-maps',
      },
      // The next tick is the retry. An event that waits for a free execution is given up before the next one comes.
      retryAttempts: 0,
      maxEventAge: Duration.minutes(Math.max(1, Math.floor(props.interval.toMinutes() / 2))),
      // Not SqsDestination, which grants more than sending.
      onFailure: { bind: () => ({ destination: failures.queueArn }) },
      ...(props.exclusive && { reservedConcurrentExecutions: 1 }),
      bundling: {
        format: OutputFormat.ESM,
        target: 'node24',
        mainFields: ['module', 'main'],
        minify: true,
        sourceMap: true,
        sourcesContent: false,
        logLevel: LogLevel.WARNING,
        // The AWS SDK of our lock file, not the one that Lambda happens to have.
        externalModules: [],
        // Some dependencies are CommonJS and ask for Node's own modules with `require`.
        banner:
          "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
      },
    });
  }

  /** Tokens for the clusters of its stage and for nobody else, of one lifetime. */
  private keylessStatements({ keylessStage: stage }: RefresherFunctionProps): PolicyStatement[] {
    if (stage === undefined) return [];
    return [
      new PolicyStatement({
        actions: ['sts:GetWebIdentityToken'],
        resources: ['*'],
        conditions: {
          // Every audience that is asked for; and as "every" is true of none, one there must be.
          'ForAllValues:StringLike': { 'sts:IdentityTokenAudience': audiencePattern(stage) },
          Null: { 'sts:IdentityTokenAudience': 'false' },
          NumericEquals: { 'sts:DurationSeconds': TOKEN_SECONDS },
          StringEquals: { 'sts:SigningAlgorithm': SIGNING_ALGORITHM },
        },
      }),
    ];
  }

  /** What EKS clusters need: endpoints and authorities, the roles that are named, and where tags are looked for, lists. */
  private eksStatements(props: RefresherFunctionProps): PolicyStatement[] {
    const scopes = props.eksDiscovery.map((scope) => scope.split(/=(.*)/));
    const ownRegions = scopes.flatMap(([region = '', roleArn]) => (roleArn === undefined ? region : []));
    const described = [...new Set([...props.eksRegions, ...ownRegions])];
    const roles = new Set([...props.assumableRoles, ...scopes.flatMap(([, roleArn]) => roleArn ?? [])]);
    return [
      ...(ownRegions.length > 0
        ? [
            new PolicyStatement({
              actions: ['eks:ListClusters'],
              // It knows no resources (Service Authorization Reference, EKS).
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
