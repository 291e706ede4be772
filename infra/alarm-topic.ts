// Where the alarms go: an SNS topic that this deployment's alarms, and nobody else, may publish to.
import { ArnFormat, Stack } from 'aws-cdk-lib';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';

/** A topic of its own, with a subscription by e-mail where an address is given. */
export class AlarmTopic extends Construct {
  readonly topic: Topic;

  constructor(scope: Construct, id: string, { email }: { email: string | undefined }) {
    super(scope, id);
    const { stackName, account } = Stack.of(this);
    // No KMS key: CloudWatch cannot publish through the AWS managed one, and an alarm's text is no secret.
    this.topic = new Topic(this, 'Topic', { displayName: 'ECR Anywhere', enforceSSL: true });
    // A topic with a policy has lost the default one, by which the account's own alarms could publish.
    this.topic.addToResourcePolicy(
      new PolicyStatement({
        sid: 'AlarmsPublish',
        principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
        actions: ['sns:Publish'],
        resources: [this.topic.topicArn],
        conditions: {
          StringEquals: { 'aws:SourceAccount': account },
          // CloudFormation begins an alarm's name with the stack's.
          ArnLike: {
            'aws:SourceArn': Stack.of(this).formatArn({
              service: 'cloudwatch',
              resource: 'alarm',
              resourceName: `${stackName}-*`,
              arnFormat: ArnFormat.COLON_RESOURCE_NAME,
            }),
          },
        },
      }),
    );
    if (email) this.topic.addSubscription(new EmailSubscription(email));
  }
}
