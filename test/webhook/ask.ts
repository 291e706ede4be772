// Sends reviews to a running webhook, and reads its answers and metrics.
import type { Dispatcher } from 'undici';
import { WEBHOOK_PATH } from '../../contract/names.ts';
import type { ReviewAnswer } from '../../webhook/admission/review.ts';
import type { RunningWebhook } from './running-webhook.ts';
import { applied, type Change, type Manifest, reviewOf } from './support.ts';

export type Response = ReviewAnswer['response'];

export interface Asked {
  readonly response: Response;
  /** The Secret that the API server would store; the sent one if it was denied. */
  readonly secret: Manifest;
  readonly ms: number;
}

/**
 * Sends a review of a change.
 *
 * @param over a connection of the webhook's `client()`; absent: one of its pool
 * @throws Error if the response is not an AdmissionReview
 */
export async function ask(webhook: RunningWebhook, change: Change, over?: Dispatcher): Promise<Asked> {
  const startedAt = performance.now();
  const { status, text } = await webhook.send(WEBHOOK_PATH, JSON.stringify(reviewOf(change)), {
    ...(over && { over }),
  });
  if (status !== 200) throw new Error(`HTTP ${status}: ${text}`);
  const { response } = JSON.parse(text) as ReviewAnswer;
  const patch = JSON.parse(Buffer.from(response.patch ?? 'W10=', 'base64').toString());
  return { response, secret: applied(change.object, patch), ms: performance.now() - startedAt };
}

/** The sum of a metric's samples with these labels; 0 if there is none. */
export function sample(metrics: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const lines = metrics
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines
    .filter((line) => Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}
