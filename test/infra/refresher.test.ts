// The construct in somebody else's stack: what its props change.
import { Duration, Stack } from 'aws-cdk-lib';
import { Topic } from 'aws-cdk-lib/aws-sns';
import { expect, test } from 'vitest';
import { Refresher, type RefresherProps } from '../../infra/refresher.ts';
import { resources, templateOf } from './synth.ts';

const withProps = (props: RefresherProps) =>
  templateOf((app) => {
    const stack = new Stack(app, 'Theirs');
    new Refresher(stack, 'Refresher', props);
    return stack;
  });

test('two of them in one stack', () => {
  const template = templateOf((app) => {
    const stack = new Stack(app, 'Theirs');
    new Refresher(stack, 'One');
    new Refresher(stack, 'Two');
    return stack;
  });
  template.resourceCountIs('AWS::Lambda::Function', 2);
});

test('on request it never overlaps with itself', () => {
  withProps({ exclusive: true }).hasResourceProperties('AWS::Lambda::Function', {
    ReservedConcurrentExecutions: 1,
  });
});

test('alarms go to the topic that is given, and no other is made', () => {
  const template = templateOf((app) => {
    const stack = new Stack(app, 'Theirs');
    new Refresher(stack, 'Refresher', { alarmTopic: new Topic(stack, 'Pager') });
    return stack;
  });
  expect(Object.keys(resources(template, 'AWS::SNS::Topic'))).toEqual(['Pager']);
  expect(Object.values(resources(template, 'AWS::SNS::TopicPolicy'))).toEqual([]);
});

test('an interval at which alarms would come too late is refused', () => {
  expect(() => withProps({ interval: Duration.minutes(121) })).toThrow(
    'The interval must be 1 to 120 minutes, not 121.',
  );
});
