// Sends announcements to EventBridge and SNS.
import { type EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import { PublishCommand, type SNSClient } from '@aws-sdk/client-sns';
import type { Publisher } from './announcements.ts';

/** The most entries of one request (EventBridge API reference, PutEvents). */
const ENTRIES = 10;

/** Publishes to the default event bus and to the topic. */
export function publisher(
  { events, sns }: { readonly events: EventBridgeClient; readonly sns: SNSClient },
  topicArn: string,
): Publisher {
  return {
    async events(entries) {
      const refusals: (string | undefined)[] = [];
      for (let start = 0; start < entries.length; start += ENTRIES) {
        const part = entries.slice(start, start + ENTRIES);
        const command = new PutEventsCommand({
          Entries: part.map(({ source, type, detail }) => ({
            Source: source,
            DetailType: type,
            Detail: JSON.stringify(detail),
          })),
        });
        try {
          const { Entries = [] } = await events.send(command);
          refusals.push(
            ...part.map((_, index) => {
              const { EventId, ErrorCode, ErrorMessage } = Entries[index] ?? {};
              return EventId ? undefined : `EventBridge: ${ErrorCode}: ${ErrorMessage}`;
            }),
          );
        } catch (error) {
          refusals.push(...part.map(() => `EventBridge: ${error}`));
        }
      }
      return refusals;
    },

    async message(subject, text) {
      await sns.send(new PublishCommand({ TopicArn: topicArn, Subject: subject, Message: text }));
    },
  };
}
