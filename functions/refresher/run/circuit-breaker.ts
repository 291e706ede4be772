// Stops requests that would fail for the same reason: counts consecutive failures of a cluster and of each namespace.
// Pure.
import type { Failure } from './cluster-report.ts';

/** So many consecutive failures with the same cause stop the cluster, or the namespace. */
export const MAX_CONSECUTIVE_FAILURES = 5;

/** A failure that is likely to repeat for the next Secret of the cluster or of the namespace. */
export interface SharedFailure extends Failure {
  readonly affects: 'cluster' | 'namespace';
  /** Equal for failures with the same cause, independent of the Secret. */
  readonly cause: string;
}

interface Count {
  readonly cause: string;
  readonly failures: number;
}

const NONE: Count = { cause: '', failures: 0 };

/** The circuit breaker of one cluster run. */
export class CircuitBreaker {
  #cluster = NONE;
  readonly #namespaces = new Map<string, Count>();
  #clusterStoppedBy: Failure | undefined;
  readonly #namespacesStoppedBy = new Map<string, Failure>();

  /** Stops the cluster, unless it has stopped already. */
  stop(failure: Failure): void {
    this.#clusterStoppedBy ??= failure;
  }

  /** Why a namespace's requests have stopped; undefined if they have not. */
  stoppedBy(namespace: string): Failure | undefined {
    return this.#clusterStoppedBy ?? this.#namespacesStoppedBy.get(namespace);
  }

  /** Why the cluster or its namespaces have stopped, one failure each. */
  failures(): Failure[] {
    const namespaces = [...this.#namespacesStoppedBy].map(([namespace, { code, reason }]) => ({
      code,
      reason: `namespace ${namespace}: ${reason}`,
    }));
    return this.#clusterStoppedBy === undefined ? namespaces : [this.#clusterStoppedBy, ...namespaces];
  }

  /** Counts the result of one request. @param failure undefined if it succeeded, or failed only for its own Secret */
  record(namespace: string, failure: SharedFailure | undefined): void {
    const count = next(this.#namespaces.get(namespace), failure, 'namespace');
    this.#namespaces.set(namespace, count);
    this.#cluster = next(this.#cluster, failure, 'cluster');
    if (!failure) return;
    const stoppedBy = {
      code: failure.code,
      reason: `stopped after ${MAX_CONSECUTIVE_FAILURES} failures in a row: ${failure.reason}`,
    };
    if (this.#cluster.failures === MAX_CONSECUTIVE_FAILURES) this.stop(stoppedBy);
    if (count.failures === MAX_CONSECUTIVE_FAILURES) this.#namespacesStoppedBy.set(namespace, stoppedBy);
  }
}

function next(count = NONE, failure: SharedFailure | undefined, affects: SharedFailure['affects']): Count {
  if (failure?.affects !== affects) return NONE;
  return { cause: failure.cause, failures: failure.cause === count.cause ? count.failures + 1 : 1 };
}
