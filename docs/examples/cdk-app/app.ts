// A CDK app with ECR Anywhere in a stack of its own: docs/cdk.md describes it.
import { App, CfnOutput, Stack } from 'aws-cdk-lib';
import { ClusterIdentity, Refresher } from 'ecr-anywhere/cdk';

const stack = new Stack(new App(), 'Platform');
const refresher = new Refresher(stack, 'Refresher', { alarmEmail: 'you@example.com', rateMinutes: 30 });
const webhook = new ClusterIdentity(stack, 'Prod', {
  issuer: 'https://oidc.example.com/prod',
  repositories: ['team-a/*'],
});
new CfnOutput(stack, 'FunctionName', { value: refresher.function.functionName });
new CfnOutput(stack, 'WebhookRoleArn', { value: webhook.role.roleArn });
