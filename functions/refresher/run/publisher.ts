// Sends announcements to EventBridge and SNS.
import { type EventBridgeClient, PutEventsCommand } from '@aws-sdk/client-eventbridge';
import { PublishCommand, type SNSClient } from '@aws-sdk/client-sns';
import pMap from 'p-map';
import type { EventEntry, Publisher } from './announcements.ts';

/** The most entries of one request (EventBridge API reference, PutEvents). */
const ENTRIES = 10;
/** In an outage all clusters change in one run, and the announcements must end before the function's time is up. */
const REQUESTS_AT_ONCE = 10;

/** Publishes to the default event bus and to the topic. */
export function publisher(
  { events, sns }: { readonly events: EventBridgeClient; readonly sns: SNSClient },
  topicArn: string,
): Publisher {
  const send = async (part: readonly EventEntry[]): Promise<(string | undefined)[]> => {
    const command = new PutEventsCommand({
      Entries: part.map(({ source, type, detail }) => ({
        Source: source,
        DetailType: type,
        Detail: JSON.stringify(detail),
      })),
    });
    try {
      const { Entries = [] } = await events.send(command);
      return part.map((_, index) => {
        const { EventId, ErrorCode, ErrorMessage } = Entries[index] ?? {};
        return EventId ? undefined : `EventBridge: ${ErrorCode}: ${ErrorMessage}`;
      });
    } catch (error) {
      return part.map(() => `EventBridge: ${error}`);
    }
  };

  return {
    async events(entries) {
      const parts = Array.from({ length: Math.ceil(entries.length / ENTRIES) }, (_, index) =>
        entries.slice(index * ENTRIES, (index + 1) * ENTRIES),
      );
      const refusals = await pMap(parts, send, { concurrency: REQUESTS_AT_ONCE });
      return refusals.flat();
    },

    async message(subject, text) {
      await sns.send(new PublishCommand({ TopicArn: topicArn, Subject: subject, Message: text }));
    },
  };
}
