// Counts the subscribers of the topic to which alarms and announcements go.
import { GetTopicAttributesCommand, type SNSClient } from '@aws-sdk/client-sns';
import type { Subscribers } from '../../../contract/refresher-api.ts';

/** A status must not wait longer for it. */
const WITHIN_MS = 3_000;

/** @throws Error if SNS does not answer in time, or refuses: a topic of another account may */
export async function subscribersOf(sns: SNSClient, topicArn: string): Promise<Subscribers> {
  const { Attributes = {} } = await sns.send(new GetTopicAttributesCommand({ TopicArn: topicArn }), {
    abortSignal: AbortSignal.timeout(WITHIN_MS),
  });
  const { SubscriptionsConfirmed, SubscriptionsPending } = Attributes;
  return { topicArn, confirmed: Number(SubscriptionsConfirmed), pending: Number(SubscriptionsPending) };
}
