// The findings of cdk-nag and cfn-lint that the project accepts, each with its reason.
export interface Suppression {
  /** The rule, as the test prints it; cdk-nag adds the resource to the rule for wildcards. */
  readonly rule: RegExp;
  /** The path of the construct in the stack (cdk-nag), or of the property in the template (cfn-lint). */
  readonly at: RegExp;
  readonly reason: string;
}

const FUNCTION_ROLE = /^Refresher\/Function\/Role\//;
const SCALE_OUT = /^Refresher\/ScaleOut\//;
const WEBHOOK_ROLE = /^Webhook-[^/]+\/Role\//;

export const CDK_NAG: readonly Suppression[] = [
  {
    rule: /^AwsSolutions-SQS3$/,
    at: /\/(Failures|DeadLetters)\/Resource$/,
    reason: 'It is itself a dead-letter queue: of the function, or of the schedule.',
  },
  {
    rule: /^AwsSolutions-DDB3$/,
    at: /^Refresher\/Function\/Memory\/Resource$/,
    reason: 'The next run observes the clusters again, so the table needs no backup.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\*\]$/,
    at: FUNCTION_ROLE,
    reason:
      'ec2:Describe*, secretsmanager:ListSecrets and BatchGetSecretValue, eks:ListClusters, sts:GetWebIdentityToken and the actions of ' +
      'X-Ray support no resources. Conditions restrict ListClusters and GetWebIdentityToken; GetSecretValue restricts what ' +
      'BatchGetSecretValue returns.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\S+:ec2:\S+:(\*|network-interface)\/\*\]$/,
    at: FUNCTION_ROLE,
    reason:
      'Lambda creates the network interfaces, so their ids are not known; a condition excludes the code of the function.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\S+:ec2:<AWS::Region>:\*:(subnet|security-group)\/\S+\]$/,
    at: FUNCTION_ROLE,
    reason: 'A subnet or security group that another account shares has the ARN of that account.',
  },
  {
    rule: /^AwsSolutions-S1$/,
    at: /^Refresher\/Runs\/Resource$/,
    reason:
      'Only the function uses the bucket, whose objects hold no credentials and expire after a day. Access logs need a second bucket.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::<RefresherRuns\w+\.Arn>\/runs\/\*\]$/,
    at: FUNCTION_ROLE,
    reason: 'The names of the objects contain those of the runs.',
  },
  {
    rule: /^AwsSolutions-SF1$/,
    at: SCALE_OUT,
    reason:
      'Step Functions keeps the history of each execution for 90 days, and the function logs what it does. Log delivery needs ' +
      'eight actions on all resources, logs:PutResourcePolicy among them.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\*\]$/,
    at: SCALE_OUT,
    reason: 'The actions of X-Ray support no resources.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\S+:states:\S+:execution:[\w-]+(\/batches)?:\*\]$/,
    at: SCALE_OUT,
    reason: 'Step Functions chooses the names of the executions.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\S+:secretsmanager:\S+:secret:(ecr-anywhere|team)\/clusters\/\*\]$/,
    at: FUNCTION_ROLE,
    reason: 'Clusters are registered after the deployment, under this prefix.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\S+:eks:[a-z0-9-]+:<AWS::AccountId>:cluster\/\*\]$/,
    at: FUNCTION_ROLE,
    reason: 'eks:DescribeCluster for clusters that are registered or tagged after the deployment.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\*\]$/,
    at: WEBHOOK_ROLE,
    reason: 'ecr:GetAuthorizationToken supports no resources.',
  },
  {
    rule: /^AwsSolutions-IAM5\[Resource::\S+:ecr:\S+:repository\/.*\]$/,
    at: WEBHOOK_ROLE,
    reason: 'The setting webhooks may name repositories with *.',
  },
];

export const CFN_LINT: readonly Suppression[] = [
  {
    rule: /^W3005$/,
    at: /\/DependsOn\/\d+$/,
    reason:
      'The CDK writes every dependency that it knows; one that a reference implies already does no harm.',
  },
];
