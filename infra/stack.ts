// The stack of the CDK app: one refresher, the webhooks' roles, and outputs with the next commands.
import { CfnOutput, PermissionsBoundary, Stack, type StackProps } from 'aws-cdk-lib';
import type { Construct } from 'constructs';
import { DEFAULT_STACK_NAME } from '../contract/keyless.ts';
import { CLUSTERS_PREFIX, clustersPrefix } from '../contract/names.ts';
import { ClusterIdentity } from './cluster-identity.ts';
import { Refresher } from './refresher.ts';
import type { Settings } from './settings.ts';

export interface EcrAnywhereStackProps extends StackProps {
  readonly settings: Settings;
}

/** One refresher, for the clusters under its own prefix. */
export class EcrAnywhereStack extends Stack {
  constructor(scope: Construct, id: string, { settings, ...props }: EcrAnywhereStackProps) {
    const { stackName, keyless, webhooks, tags, permissionsBoundary, ...refresherSettings } = settings;
    super(scope, id, {
      description: 'ECR Anywhere: keeps the ECR pull Secrets of Kubernetes clusters fresh.',
      tags,
      ...(permissionsBoundary !== undefined && {
        permissionsBoundary: PermissionsBoundary.fromArn(permissionsBoundary),
      }),
      ...props,
    });
    const { secretPrefix = clustersPrefix(stackName) } = refresherSettings;
    const refresher = new Refresher(this, 'Refresher', {
      ...refresherSettings,
      secretPrefix,
      ...(keyless && { keylessStackName: stackName }),
    });
    const { functionName } = refresher.function;
    const stackOption = stackName === DEFAULT_STACK_NAME ? '' : ` --stack-name ${stackName}`;
    const outputs = {
      FunctionName: functionName,
      // The principal for EKS access entries and for trust policies of roles in other accounts.
      RoleArn: refresher.function.role?.roleArn ?? '',
      // Where the command line registers clusters.
      ...(secretPrefix !== CLUSTERS_PREFIX && { SecretPrefix: secretPrefix }),
      // The command line then accepts EKS clusters whose endpoints are private.
      ...(settings.subnetIds.length > 0 && { SubnetIds: settings.subnetIds.join(',') }),
      ...(settings.kmsKeyArn !== undefined && { KmsKeyArn: settings.kmsKeyArn }),
      AlarmTopicArn: refresher.alarmTopic.topicArn,
      ...(refresher.dashboard && { DashboardName: refresher.dashboard.dashboardName }),
      ...(refresher.scaleOut && {
        StartRun: `aws stepfunctions start-execution --region ${this.region} --state-machine-arn ${refresher.scaleOut.stateMachine.stateMachineArn}`,
      }),
      // The stack retains it, because CloudFormation cannot delete a bucket with objects.
      ...(refresher.runs && { RunsBucket: refresher.runs.bucketName }),
      RegisterCluster: `ecr-anywhere register NAME --context CONTEXT --region ${this.region}${stackOption}`,
      DryRun: `aws lambda invoke --region ${this.region} --function-name ${functionName} --cli-binary-format raw-in-base64-out --cli-read-timeout 900 --payload '{"dryRun":true}' /dev/stdout`,
      Status: `aws dynamodb scan --region ${this.region} --table-name ${refresher.clusterStateTable.tableName} --output table --query 'Items[].{cluster:cluster.S,lookedAt:lookedAt.S,reachedAt:reachedAt.S,managed:managed.N,due:due.N,soonestExpiry:soonestExpiry.S,failures:failures.N,failingSince:failingSince.S,reason:reason.S}'`,
      // At least one run is in it: two runs are at most 105 minutes apart. Without --since, it shows ten minutes.
      ReadLog: `aws logs tail ${refresher.logGroup.logGroupName} --region ${this.region} --since 3h`,
    };
    for (const { name, ...props } of webhooks) {
      const { role } = new ClusterIdentity(this, `Webhook-${name}`, props);
      // The value of the chart's aws.webIdentity.roleArn.
      new CfnOutput(this, `WebhookRoleArn-${name}`, { value: role.roleArn });
    }
    for (const [name, value] of Object.entries(outputs)) new CfnOutput(this, name, { value });
  }
}
