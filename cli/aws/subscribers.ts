// What to say when alarms and announcements have no subscriber.
import type { Subscribers } from '../../contract/refresher-api.ts';

/** The sentence for a topic without a confirmed subscription. */
export function notDelivered({ pending }: Subscribers): string {
  const waiting = pending === 0 ? '' : ` (${pending} waiting for confirmation)`;
  return `Alarms and announcements are not delivered: their topic has no confirmed subscription${waiting}.`;
}

/** The arguments of `aws` that list the subscriptions. */
export function listSubscriptions({ topicArn }: Subscribers): string[] {
  return ['sns', 'list-subscriptions-by-topic', '--topic-arn', topicArn];
}
