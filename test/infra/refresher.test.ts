// The construct in another stack: what its properties change.
import { Duration, Stack } from 'aws-cdk-lib';
import { Match } from 'aws-cdk-lib/assertions';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { expect, test } from 'vitest';
import { Refresher, type RefresherProps } from '../../infra/refresher.ts';
import { resources, templateOf } from './synth.ts';

const withProps = (props: RefresherProps) =>
  templateOf((app) => {
    const stack = new Stack(app, 'Embedding');
    new Refresher(stack, 'Refresher', props);
    return stack;
  });

test('two refreshers fit into one stack', () => {
  const template = templateOf((app) => {
    const stack = new Stack(app, 'Embedding');
    new Refresher(stack, 'One');
    new Refresher(stack, 'Two');
    return stack;
  });
  template.resourceCountIs('AWS::Lambda::Function', 2);
});

test('function replaces properties of the function, and adds environment variables', () => {
  withProps({
    function: {
      reservedConcurrentExecutions: 1,
      timeout: Duration.minutes(5),
      environment: { NODE_EXTRA_CA_CERTS: '/opt/ca.pem' },
    },
  }).hasResourceProperties('AWS::Lambda::Function', {
    ReservedConcurrentExecutions: 1,
    Timeout: 300,
    MemorySize: 512,
    Environment: {
      Variables: Match.objectLike({ NODE_EXTRA_CA_CERTS: '/opt/ca.pem', CLUSTER_CONCURRENCY: '25' }),
    },
  });
});

test('refuses a timeout of the function that is shorter than a cluster run', () => {
  expect(() => withProps({ function: { timeout: Duration.minutes(2) } })).toThrow(
    'clusterDeadlineSeconds: must be at most 110, because the timeout of the function is 120 seconds',
  );
});

test('alarmTopicArn receives the alarms, and no other topic is created', () => {
  const template = templateOf((app) => {
    const stack = new Stack(app, 'Embedding');
    new Refresher(stack, 'Refresher', { alarmTopicArn: new Topic(stack, 'Pager').topicArn });
    return stack;
  });
  expect(Object.keys(resources(template, 'AWS::SNS::Topic'))).toEqual(['Pager']);
  expect(Object.values(resources(template, 'AWS::SNS::TopicPolicy'))).toEqual([]);
});

test('checks its properties like the settings', () => {
  expect(() => withProps({ rateMinutes: 91, clusterConcurrency: 0 })).toThrow(
    /properties of the construct Refresher.*- rateMinutes: .*- clusterConcurrency: /s,
  );
});

test('refuses a flexible window with which two runs may be further apart than the alarms allow', () => {
  expect(() => withProps({ flexibleWindow: Duration.minutes(45) })).not.toThrow();
  expect(() => withProps({ flexibleWindow: Duration.minutes(46) })).toThrow(
    'flexibleWindow: must be at most 45 minutes with rateMinutes 60',
  );
});
