// Shares a limited amount, such as of bytes or of large responses, between those that ask for parts of it.

interface Waiter {
  readonly amount: number;
  readonly admit: () => void;
}

/** An amount that holders share, such as of bytes. Those that wait take turns. */
export class Budget {
  #free: number;
  /** By holder. The holder whose turn it is comes first. */
  readonly #waiting = new Map<string, Set<Waiter>>();

  constructor(amount: number) {
    this.#free = amount;
  }

  /**
   * Waits until so much is free, and takes it.
   *
   * @param signal ends the wait
   * @returns a function that gives it back; undefined if the wait ended before
   */
  async take(amount: number, holder: string, signal: AbortSignal): Promise<(() => void) | undefined> {
    if (signal.aborted) return undefined;
    if (this.#waiting.size > 0 || amount > this.#free) {
      if (!(await this.#turn(amount, holder, signal))) return undefined;
    } else {
      this.#free -= amount;
    }
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      this.#free += amount;
      this.#admit();
    };
  }

  #turn(amount: number, holder: string, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const waiter: Waiter = {
        amount,
        admit: () => {
          signal.removeEventListener('abort', giveUp);
          resolve(true);
        },
      };
      const giveUp = () => {
        this.#forget(holder, waiter);
        resolve(false);
        this.#admit();
      };
      signal.addEventListener('abort', giveUp, { once: true });
      const waiters = this.#waiting.get(holder) ?? new Set();
      this.#waiting.set(holder, waiters.add(waiter));
    });
  }

  #forget(holder: string, waiter: Waiter): void {
    const waiters = this.#waiting.get(holder);
    waiters?.delete(waiter);
    if (waiters?.size === 0) this.#waiting.delete(holder);
  }

  /** Admits waiters in turn until the next one does not fit. */
  #admit(): void {
    for (;;) {
      const [next] = this.#waiting;
      if (!next) return;
      const [holder, waiters] = next;
      const [waiter] = waiters;
      if (!waiter || waiter.amount > this.#free) return;
      this.#free -= waiter.amount;
      waiters.delete(waiter);
      // The next turn is that of another holder.
      this.#waiting.delete(holder);
      if (waiters.size > 0) this.#waiting.set(holder, waiters);
      waiter.admit();
    }
  }
}
