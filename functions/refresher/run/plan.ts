// Which Secrets to ask a refresh for, in which order, and what came of it. Pure.
import { createHash } from 'node:crypto';
import { type DueReason, freshness } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import type { ManagedSecret } from '../kubernetes/client.ts';

/** How much earlier than its due time a cluster's Secrets may be refreshed, at most. */
const JITTER_MS = 3_600_000;

/** Spreads clusters that were set up together over an hour's runs; always the same for a name. */
export function jitterOf(cluster: string): number {
  return createHash('sha256').update(cluster).digest().readUInt32BE() % JITTER_MS;
}

/** A refresh to be requested, and why. */
export interface Refresh {
  readonly secret: ManagedSecret;
  readonly reason: DueReason | 'forced';
}

/**
 * The refreshes to request: the Secrets that are due, or all of them when forced. The namespaces take turns, so
 * that one whose Secrets all fail does not keep the others waiting; within a namespace the soonest expiry is first.
 */
export function plan(
  secrets: readonly ManagedSecret[],
  now: number,
  jitterMs: number,
  force: boolean,
): Refresh[] {
  const queues = new Map<string, { refresh: Refresh; expiresAt: number }[]>();
  for (const secret of secrets) {
    const judged = freshness(secret.annotations[ANNOTATION.expiresAt], now, jitterMs);
    const reason = judged.due ? judged.reason : force ? 'forced' : undefined;
    if (!reason) continue;
    const queue = queues.get(secret.namespace) ?? [];
    queue.push({ refresh: { secret, reason }, expiresAt: judged.expiresAt ?? 0 });
    queues.set(secret.namespace, queue);
  }
  const rounds: Refresh[][] = [];
  for (const queue of queues.values()) {
    queue.sort((a, b) => a.expiresAt - b.expiresAt);
    queue.forEach(({ refresh }, round) => {
      const turn = rounds[round] ?? [];
      turn.push(refresh);
      rounds[round] = turn;
    });
  }
  return rounds.flat();
}

/**
 * What a PATCH that the API server accepted has brought: `not-mutated` where no credentials were written (the
 * webhook was not asked), `partial` where some were and the Secret still has, or soon will have, expired ones.
 */
export function outcomeOf(
  refresh: Refresh,
  after: ManagedSecret,
  now: number,
): 'refreshed' | 'partial' | 'not-mutated' {
  const before = refresh.secret.annotations;
  const ahead = movedAhead(before[ANNOTATION.expiresAt], after.annotations[ANNOTATION.expiresAt], now);
  const written =
    ahead ||
    differs(before, after.annotations, ANNOTATION.updatedAt) ||
    differs(before, after.annotations, ANNOTATION.fingerprint);
  if (!written) return 'not-mutated';
  const { due } = freshness(after.annotations[ANNOTATION.expiresAt], now);
  return !due && (ahead || refresh.reason === 'forced') ? 'refreshed' : 'partial';
}

/** The registries that keep a Secret due after all, with their expiry (RFC 3339), by its `registries` annotation. */
export function dueRegistries({ annotations }: ManagedSecret, now: number): Map<string, string> {
  const items = annotations[ANNOTATION.registries]?.split(',') ?? [];
  const all = items.flatMap((item): [string, string][] => {
    const [host = '', expiresAt] = item.split('=');
    return expiresAt === undefined ? [] : [[host, expiresAt]];
  });
  return new Map(all.filter(([, expiresAt]) => freshness(expiresAt, now).due));
}

function differs(
  before: ManagedSecret['annotations'],
  after: ManagedSecret['annotations'],
  key: string,
): boolean {
  return after[key] !== undefined && before[key] !== after[key];
}

/** An expiry that was not believable is replaced by any that is. */
function movedAhead(before: string | undefined, after: string | undefined, now: number): boolean {
  const newExpiry = freshness(after, now).expiresAt;
  return (
    newExpiry !== undefined && newExpiry > (freshness(before, now).expiresAt ?? Number.NEGATIVE_INFINITY)
  );
}
