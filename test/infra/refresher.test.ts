// The construct in another stack: what its properties change.
import { Duration, Stack } from 'aws-cdk-lib';
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

test('exclusive reserves one concurrent execution', () => {
  withProps({ exclusive: true }).hasResourceProperties('AWS::Lambda::Function', {
    ReservedConcurrentExecutions: 1,
  });
});

test('alarmTopic receives the alarms, and no other topic is created', () => {
  const template = templateOf((app) => {
    const stack = new Stack(app, 'Embedding');
    new Refresher(stack, 'Refresher', { alarmTopic: new Topic(stack, 'Pager') });
    return stack;
  });
  expect(Object.keys(resources(template, 'AWS::SNS::Topic'))).toEqual(['Pager']);
  expect(Object.values(resources(template, 'AWS::SNS::TopicPolicy'))).toEqual([]);
});

test('refuses an interval at which the alarms would come too late', () => {
  expect(() => withProps({ interval: Duration.minutes(121) })).toThrow(
    'The interval must be 1 to 120 minutes, not 121',
  );
});
