// Tests how announcements are sent: in requests of ten events, ten at the same time, each event with its own result.
import { setImmediate } from 'node:timers/promises';
import type { EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import type { SNSClient } from '@aws-sdk/client-sns';
import { expect, test } from 'vitest';
import { publisher } from '../../../../functions/refresher/run/publisher.ts';

test('a thousand events are sent in at most ten requests at the same time, and each has its own result', async () => {
  let [running, most] = [0, 0];
  const send = async ({ input: { Entries = [] } }: PutEventsCommand) => {
    running += 1;
    most = Math.max(most, running);
    await setImmediate();
    running -= 1;
    const clusters = Entries.map(({ Detail = '' }) => JSON.parse(Detail).cluster as string);
    expect(clusters.length).toBeLessThanOrEqual(10);
    if (clusters.includes('c500')) throw new Error('no answer');
    return {
      Entries: clusters.map((name) =>
        name === 'c7' ? { ErrorCode: 'InternalFailure', ErrorMessage: 'later' } : { EventId: name },
      ),
    };
  };
  const { events } = publisher(
    { events: { send } as unknown as EventBridgeClient, sns: {} as SNSClient },
    'arn:aws:sns:eu-central-1:123456789012:alarms',
  );
  const entries = Array.from({ length: 1_000 }, (_, index) => ({
    source: 'ecr-anywhere',
    type: 'transition',
    detail: {
      id: `c${index}`,
      cluster: `c${index}`,
      transition: 'failing' as const,
      conditions: [],
      command: '',
    },
  }));
  const refusals = await events(entries);
  expect(most).toBe(10);
  expect(refusals).toHaveLength(1_000);
  expect(refusals[7]).toBe('EventBridge: InternalFailure: later');
  expect(refusals.slice(500, 510)).toEqual(Array.from({ length: 10 }, () => 'EventBridge: Error: no answer'));
  expect(refusals.filter((refusal) => refusal === undefined)).toHaveLength(989);
});
