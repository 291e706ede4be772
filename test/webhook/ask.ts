// Reviews sent to a running webhook, and its answers.
import { setTimeout as sleep } from 'node:timers/promises';
import { WEBHOOK_PATH } from '../../contract/names.ts';
import type { ReviewAnswer } from '../../webhook/admission/review.ts';
import type { RunningWebhook } from './running-webhook.ts';
import { applied, type Change, type Manifest, reviewOf } from './support.ts';

export type Response = ReviewAnswer['response'];

export interface Asked {
  readonly response: Response;
  /** What would be stored; as it was sent, where it was denied. */
  readonly secret: Manifest;
  readonly ms: number;
}

/** Sends a review about a change. @throws Error where the answer is none */
export async function ask(webhook: RunningWebhook, change: Change): Promise<Asked> {
  const startedAt = performance.now();
  const { status, text } = await webhook.send(WEBHOOK_PATH, JSON.stringify(reviewOf(change)));
  if (status !== 200) throw new Error(`HTTP ${status}: ${text}`);
  const { response } = JSON.parse(text) as ReviewAnswer;
  const patch = JSON.parse(Buffer.from(response.patch ?? 'W10=', 'base64').toString());
  return { response, secret: applied(change.object, patch), ms: performance.now() - startedAt };
}

/** The value of a metric's sample, by its name and some of its labels; 0 where there is none. */
export function sample(metrics: string, name: string, labels: Readonly<Record<string, string>> = {}): number {
  const lines = metrics
    .split('\n')
    .filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
  return lines
    .filter((line) => Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`)))
    .reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0);
}

/** Waits until something is so. */
export async function eventually(
  condition: () => boolean | Promise<boolean>,
  withinMs = 10_000,
): Promise<void> {
  const deadline = performance.now() + withinMs;
  while (!(await condition())) {
    if (performance.now() > deadline) throw new Error(`it did not come true within ${withinMs / 1000} s`);
    await sleep(50);
  }
}
