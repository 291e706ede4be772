// Decides in which order a run serves the clusters, by the state that earlier runs stored. Pure.
import { TOKEN_LIFETIME_MS } from '../../../contract/freshness.ts';
import type { FailureCode } from '../../../contract/refresher-api.ts';
import type { StoredState } from '../clusters/cluster-state.ts';

/**
 * Compares the names of clusters: those whose credentials expire soonest come first. Clusters without a known expiry
 * follow: they are new, and the webhook wrote their credentials when the Secrets were created, or they have none. Last come
 * those that the last run could not serve: each may take its whole deadline, and clusters that are down for days would
 * otherwise be first in every run. A cluster that the last run had no time for, or whose batch ended, keeps its place by its
 * expiry: it may work, and would never be started if it were last in every run. Equal clusters keep their order.
 */
export function bySoonestExpiry(states: readonly StoredState[]): (a: string, b: string) => number {
  const ranks = new Map(states.map((state) => [state.cluster, rankOf(state)]));
  const rank = (cluster: string) => ranks.get(cluster) ?? UNKNOWN;
  return (a, b) => {
    const [left, right] = [rank(a), rank(b)];
    return left.group - right.group || left.expiresAt - right.expiresAt;
  };
}

interface Rank {
  readonly group: number;
  /** Milliseconds since the epoch. */
  readonly expiresAt: number;
}

const UNKNOWN: Rank = { group: 1, expiresAt: 0 };

function rankOf(state: StoredState): Rank {
  const { lookedAt, reachedAt, soonestExpiry } = state;
  const time = soonestExpiry === undefined ? Number.NaN : Date.parse(soonestExpiry);
  const expiresAt = Number.isNaN(time) ? undefined : time;
  if (lookedAt !== reachedAt && !mayWork(state)) return { group: 2, expiresAt: expiresAt ?? 0 };
  return expiresAt === undefined ? UNKNOWN : { group: 0, expiresAt };
}

/** Codes of a failure that is not the cluster's own. */
const FAILURES_OF_RUN: readonly FailureCode[] = ['run-time-up', 'batch-ended'];

/** Whether the last run failed for a cluster that was served within the lifetime of its credentials. */
function mayWork({ codes, lookedAt, reachedAt }: StoredState): boolean {
  if (
    !codes?.some((code) => FAILURES_OF_RUN.includes(code)) ||
    lookedAt === undefined ||
    reachedAt === undefined
  )
    return false;
  return Date.parse(lookedAt) - Date.parse(reachedAt) < TOKEN_LIFETIME_MS;
}
