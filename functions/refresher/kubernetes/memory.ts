// Limits what API servers can make a run hold in memory, so that a malicious or broken one fails alone. Pure.
import { Budget } from '../../../lib/budget.ts';

/** Response bodies above 128 KiB that a run, and each of its clusters, read at the same time. */
const LARGE_BODIES = 16;
const LARGE_BODIES_OF_CLUSTER = 2;

/** What a run keeps of a cluster: of its lists, and in all. The rest is for the answers to the requests. */
const LISTED_BYTES = 24 * 1024 * 1024;
const KEPT_BYTES = 48 * 1024 * 1024;
/** A cluster may always keep this much, whatever the others keep. */
const OWN_BYTES = 1024 * 1024;
/** What the clusters that run at the same time keep together beyond that. */
const SHARED_BYTES = 64 * 1024 * 1024;

/** The memory of one run. */
export class RunMemory {
  readonly largeBodies = new Budget(LARGE_BODIES);
  /** Bytes that clusters keep beyond their own share. */
  shared = 0;
}

/** What one cluster makes a run keep. Dispose of it at the end of the cluster run. */
export class ClusterMemory implements Disposable {
  readonly #run: RunMemory;
  readonly #largeBodies = new Budget(LARGE_BODIES_OF_CLUSTER);
  #kept = 0;

  constructor(run: RunMemory) {
    this.#run = run;
  }

  /** Counts bytes that the run keeps of the cluster. */
  keep(bytes: number): void {
    const before = this.#beyondOwn();
    this.#kept += bytes;
    this.#run.shared += this.#beyondOwn() - before;
  }

  /** Whether to read no more lists of the cluster. */
  isFullOfLists(): boolean {
    return this.#kept > LISTED_BYTES || this.#isSharedUsedUp();
  }

  /** Whether to send no more requests to the cluster. */
  isFull(): boolean {
    return this.#kept > KEPT_BYTES || this.#isSharedUsedUp();
  }

  /** Waits until one more large body may be read. @returns a function to call when it has been read. @throws the signal's reason */
  async admitLargeBody(signal: AbortSignal): Promise<() => void> {
    const releaseOwn = await this.#largeBodies.take(1, '', signal);
    const releaseShared = releaseOwn && (await this.#run.largeBodies.take(1, '', signal));
    if (releaseShared)
      return () => {
        releaseShared();
        releaseOwn();
      };
    releaseOwn?.();
    throw signal.reason;
  }

  [Symbol.dispose](): void {
    this.#run.shared -= this.#beyondOwn();
    this.#kept = 0;
  }

  #beyondOwn(): number {
    return Math.max(this.#kept - OWN_BYTES, 0);
  }

  #isSharedUsedUp(): boolean {
    return this.#kept > OWN_BYTES && this.#run.shared > SHARED_BYTES;
  }
}
