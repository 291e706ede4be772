// Decides which Secrets to refresh and in which order, and judges the API server's response to each request. Pure.
import { createHash } from 'node:crypto';
import { type DueReason, freshness } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import type { AnnotatedSecret, ManagedSecret } from '../kubernetes/client.ts';

/** The longest time by which a cluster's Secrets are refreshed before they are due. */
const JITTER_MS = 3_600_000;

/** Spreads clusters that were installed together over the runs of an hour. Constant for a name. */
export function jitterOf(cluster: string): number {
  return createHash('sha256').update(cluster).digest().readUInt32BE() % JITTER_MS;
}

/** A refresh to request, and why. */
export interface Refresh {
  readonly secret: ManagedSecret;
  readonly reason: DueReason | 'forced';
}

/**
 * The refreshes to request: the Secrets that are due, or all of them if forced. Namespaces alternate, so that one whose
 * Secrets all fail does not delay the others. Within a namespace, the soonest expiry comes first.
 */
export function plan(
  secrets: readonly ManagedSecret[],
  now: number,
  jitterMs: number,
  force: boolean,
): Refresh[] {
  const queues = new Map<string, { refresh: Refresh; expiresAt: number }[]>();
  for (const secret of secrets) {
    const fresh = freshness(secret.annotations[ANNOTATION.expiresAt], now, jitterMs);
    const reason = fresh.due ? fresh.reason : force ? 'forced' : undefined;
    if (!reason) continue;
    const queue = queues.get(secret.namespace) ?? [];
    queue.push({ refresh: { secret, reason }, expiresAt: fresh.expiresAt ?? 0 });
    queues.set(secret.namespace, queue);
  }
  const rounds: Refresh[][] = [];
  for (const queue of queues.values()) {
    queue.sort((a, b) => a.expiresAt - b.expiresAt);
    queue.forEach(({ refresh }, round) => {
      const requests = rounds[round] ?? [];
      requests.push(refresh);
      rounds[round] = requests;
    });
  }
  return rounds.flat();
}

/**
 * The outcome of a PATCH that the API server accepted: `not-mutated` if the webhook wrote no credentials (it was not
 * called), `partial` if it wrote some and the Secret is still due.
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

/** A registry of a Secret with the outcome `partial`, and why its credentials were not refreshed. */
export interface IncompleteRegistry {
  readonly host: string;
  readonly reason: string;
}

/**
 * The registries because of which a Secret's outcome is `partial`: those that are still due by its `registries`
 * annotation; if none is, those for which the webhook refused credentials or removed them. Warnings are plain text, so
 * the webhook begins each with the registry's host; warnings of other admission plugins begin with none of the hosts.
 */
export function incompleteRegistries(
  before: ManagedSecret,
  after: AnnotatedSecret,
  now: number,
): IncompleteRegistry[] {
  const warningOf = (host: string) => after.warnings.find((warning) => warning.startsWith(`${host}: `));
  const expiries = registryExpiries(after);
  const due = [...expiries].filter(([, expiresAt]) => freshness(expiresAt, now).due);
  if (due.length > 0)
    return due.map(([host, expiresAt]) => ({
      host,
      reason: warningOf(host) ?? `${host}: expires at ${expiresAt}`,
    }));
  const selected = before.annotations[ANNOTATION.only]?.split(',').map(hostOf) ?? [];
  const absent = new Set([...registryExpiries(before).keys(), ...selected]).difference(expiries);
  return [...absent].flatMap((host) => {
    const reason = warningOf(host);
    return reason === undefined ? [] : [{ host, reason }];
  });
}

/** The entries that the webhook wrote, by the `registries` annotation: hosts and expiries (RFC 3339). */
function registryExpiries({ annotations }: ManagedSecret): Map<string, string> {
  const items = annotations[ANNOTATION.registries]?.split(',') ?? [];
  return new Map(
    items.flatMap((item): [string, string][] => {
      const [host = '', expiresAt] = item.split('=');
      return expiresAt === undefined ? [] : [[host, expiresAt]];
    }),
  );
}

/** The host of an item of the `only` annotation, which may be written as a URL. */
function hostOf(item: string): string {
  const [host = ''] = item
    .trim()
    .replace(/^https?:\/\//i, '')
    .split('/');
  return host.toLowerCase();
}

function differs(
  before: ManagedSecret['annotations'],
  after: ManagedSecret['annotations'],
  key: string,
): boolean {
  return after[key] !== undefined && before[key] !== after[key];
}

/** Any plausible expiry is ahead of one that is missing, unreadable or implausible. */
function movedAhead(before: string | undefined, after: string | undefined, now: number): boolean {
  const newExpiry = freshness(after, now).expiresAt;
  return (
    newExpiry !== undefined && newExpiry > (freshness(before, now).expiresAt ?? Number.NEGATIVE_INFINITY)
  );
}
