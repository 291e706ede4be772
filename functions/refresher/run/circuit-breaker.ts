// When to stop asking: failures in a row for the same cause, of the whole cluster or of one namespace. Pure.

/** So many end the turn of what is at fault. */
export const FAILURES_TO_END_TURN = 5;

/** A failure that the next Secret would meet too. */
export interface Fault {
  readonly of: 'cluster' | 'namespace';
  /** The same for failures that are alike, whichever Secret met them. */
  readonly cause: string;
  /** In full, for people. */
  readonly reason: string;
}

interface Streak {
  readonly cause: string;
  readonly length: number;
}

const NONE: Streak = { cause: '', length: 0 };

export class Streaks {
  #ofCluster = NONE;
  readonly #ofNamespaces = new Map<string, Streak>();
  #clusterEndedBy: string | undefined;
  readonly #namespacesEndedBy = new Map<string, string>();

  /** Ends the cluster's turn, if it has not ended yet. */
  end(reason: string): void {
    this.#clusterEndedBy ??= reason;
  }

  hasEnded(namespace: string): boolean {
    return this.#clusterEndedBy !== undefined || this.#namespacesEndedBy.has(namespace);
  }

  /** Why turns have ended, each once. */
  reasons(): string[] {
    return [
      ...(this.#clusterEndedBy === undefined ? [] : [this.#clusterEndedBy]),
      ...[...this.#namespacesEndedBy].map(([namespace, reason]) => `namespace ${namespace}: ${reason}`),
    ];
  }

  /** Takes note of what came of a Secret: a fault, or anything else. */
  note(namespace: string, fault: Fault | undefined): void {
    const ofNamespace = lengthened(this.#ofNamespaces.get(namespace), fault, 'namespace');
    this.#ofNamespaces.set(namespace, ofNamespace);
    this.#ofCluster = lengthened(this.#ofCluster, fault, 'cluster');
    if (!fault) return;
    const reason = `ended after ${FAILURES_TO_END_TURN} failures in a row: ${fault.reason}`;
    if (this.#ofCluster.length === FAILURES_TO_END_TURN) this.end(reason);
    if (ofNamespace.length === FAILURES_TO_END_TURN) this.#namespacesEndedBy.set(namespace, reason);
  }
}

function lengthened(streak = NONE, fault: Fault | undefined, of: Fault['of']): Streak {
  if (fault?.of !== of) return NONE;
  return { cause: fault.cause, length: fault.cause === streak.cause ? streak.length + 1 : 1 };
}
