// Queues that receive what the refresher announces: the messages of the topic, and the events of the default bus.
import { EventBridgeClient, PutRuleCommand, PutTargetsCommand } from '@aws-sdk/client-eventbridge';
import { SNSClient, SubscribeCommand } from '@aws-sdk/client-sns';
import {
  CreateQueueCommand,
  DeleteMessageCommand,
  GetQueueAttributesCommand,
  ReceiveMessageCommand,
  SetQueueAttributesCommand,
  SQSClient,
} from '@aws-sdk/client-sqs';
import { type ClusterTransition, EVENT_SOURCE, EVENT_TYPE } from '../../contract/cluster-events.ts';
import type { Emulator } from './emulator.ts';

/** What SNS delivers. */
export interface TopicMessage {
  readonly Subject: string;
  readonly Message: string;
}

export interface Subscribers extends Disposable {
  /** Takes the messages that have arrived since the last call. */
  messages(): Promise<TopicMessage[]>;
  /** Takes the events that have arrived since the last call. */
  events(): Promise<ClusterTransition[]>;
}

/** Subscribes a queue to the topic, and another to the events of all clusters. */
export async function subscribe(
  { clientConfig }: Pick<Emulator, 'clientConfig'>,
  TopicArn: string,
): Promise<Subscribers> {
  const events = new EventBridgeClient(clientConfig);
  const sns = new SNSClient(clientConfig);
  const sqs = new SQSClient(clientConfig);
  const messageQueue = await queueFor(sqs, 'messages', 'sns.amazonaws.com');
  const eventQueue = await queueFor(sqs, 'events', 'events.amazonaws.com');
  await sns.send(new SubscribeCommand({ TopicArn, Protocol: 'sqs', Endpoint: messageQueue.arn }));
  const EventPattern = JSON.stringify({ source: [EVENT_SOURCE], 'detail-type': [EVENT_TYPE] });
  await events.send(new PutRuleCommand({ Name: 'transitions', EventPattern }));
  await events.send(
    new PutTargetsCommand({ Rule: 'transitions', Targets: [{ Id: 'queue', Arn: eventQueue.arn }] }),
  );
  return {
    messages: async () => (await taken(sqs, messageQueue.url)) as TopicMessage[],
    events: async () =>
      (await taken(sqs, eventQueue.url)).map((event) => (event as { detail: ClusterTransition }).detail),
    [Symbol.dispose]() {
      for (const client of [events, sns, sqs]) client.destroy();
    },
  };
}

async function queueFor(sqs: SQSClient, QueueName: string, Service: string) {
  const { QueueUrl = '' } = await sqs.send(new CreateQueueCommand({ QueueName }));
  const { Attributes } = await sqs.send(
    new GetQueueAttributesCommand({ QueueUrl, AttributeNames: ['QueueArn'] }),
  );
  const arn = Attributes?.QueueArn ?? '';
  const statement = { Effect: 'Allow', Principal: { Service }, Action: 'sqs:SendMessage', Resource: arn };
  const Policy = JSON.stringify({ Version: '2012-10-17', Statement: [statement] });
  await sqs.send(new SetQueueAttributesCommand({ QueueUrl, Attributes: { Policy } }));
  return { url: QueueUrl, arn };
}

/** Takes all messages out of a queue. */
async function taken(sqs: SQSClient, QueueUrl: string): Promise<unknown[]> {
  const bodies: unknown[] = [];
  for (;;) {
    const { Messages = [] } = await sqs.send(
      new ReceiveMessageCommand({ QueueUrl, MaxNumberOfMessages: 10, WaitTimeSeconds: 0 }),
    );
    if (Messages.length === 0) return bodies;
    for (const { Body = '', ReceiptHandle } of Messages) {
      bodies.push(JSON.parse(Body));
      await sqs.send(new DeleteMessageCommand({ QueueUrl, ReceiptHandle }));
    }
  }
}
