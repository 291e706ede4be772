// The SNS topic of the alarms and announcements. Its policy admits this stack's alarms; the refresher publishes by its role.
import { ArnFormat, Stack } from 'aws-cdk-lib';
import { PolicyStatement, ServicePrincipal } from 'aws-cdk-lib/aws-iam';
import type { IKey } from 'aws-cdk-lib/aws-kms';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { EmailSubscription } from 'aws-cdk-lib/aws-sns-subscriptions';
import { Construct } from 'constructs';

/** Creates the topic, with an e-mail subscription if an address is given. */
export class AlarmTopic extends Construct {
  readonly topic: Topic;

  constructor(
    scope: Construct,
    id: string,
    { email, key }: { email: string | undefined; key: IKey | undefined },
  ) {
    super(scope, id);
    const { stackName, account } = Stack.of(this);
    this.topic = new Topic(this, 'Topic', {
      displayName: 'ECR Anywhere',
      enforceSSL: true,
      // No key by default: CloudWatch cannot use the AWS managed key for SNS, and the text of an alarm is not secret.
      ...(key && { masterKey: key }),
    });
    // A topic policy replaces the default one, which lets the account's alarms publish. So allow that again.
    this.topic.addToResourcePolicy(
      new PolicyStatement({
        sid: 'AlarmsPublish',
        principals: [new ServicePrincipal('cloudwatch.amazonaws.com')],
        actions: ['sns:Publish'],
        resources: [this.topic.topicArn],
        conditions: {
          StringEquals: { 'aws:SourceAccount': account },
          // CloudFormation starts the name of an alarm with the name of the stack.
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
