// Limits what callers can make the webhook hold: connections and bytes. An address that uses much has no advantage over
// one that uses little. Any pod may reach the port, and the API servers must still be answered.

/** A connection, as its limit sees it. */
export interface Connection {
  readonly address: string;
  /** Whether a request of it is complete and is being answered. */
  isAnswering: boolean;
  close(): void;
}

/** The connections of a server. Beyond the limit, each new one replaces an older one that waits for its client. */
export class Connections {
  readonly #limit: number;
  /** Oldest first. */
  readonly #open = new Set<Connection>();

  constructor(limit: number) {
    this.#limit = limit;
  }

  get size(): number {
    return this.#open.size;
  }

  /** @returns the connection that was closed in its place, or that is refused; undefined if there was room */
  add(connection: Connection): Connection | undefined {
    this.#open.add(connection);
    if (this.#open.size <= this.#limit) return undefined;
    const closed = this.#leastDeserving() ?? connection;
    this.#open.delete(closed);
    closed.close();
    return closed;
  }

  delete(connection: Connection): void {
    this.#open.delete(connection);
  }

  closeAll(): void {
    for (const connection of this.#open) connection.close();
  }

  /** Of the address with the most connections, the oldest one without a complete request. */
  #leastDeserving(): Connection | undefined {
    const waiting = Map.groupBy(
      this.#open.values().filter(({ isAnswering }) => !isAnswering),
      ({ address }) => address,
    );
    let most: readonly Connection[] = [];
    for (const connections of waiting.values()) if (connections.length > most.length) most = connections;
    return most[0];
  }
}

interface Waiter {
  readonly bytes: number;
  readonly admit: () => void;
}

/** A number of bytes that requests share. Addresses that wait take turns. */
export class ByteBudget {
  #free: number;
  /** By address. The address whose turn it is comes first. */
  readonly #waiting = new Map<string, Set<Waiter>>();

  constructor(bytes: number) {
    this.#free = bytes;
  }

  /**
   * Waits until so many bytes are free, and takes them.
   *
   * @param signal ends the wait
   * @returns a function that gives the bytes back; undefined if the wait ended before
   */
  async take(bytes: number, address: string, signal: AbortSignal): Promise<(() => void) | undefined> {
    if (signal.aborted) return undefined;
    if (this.#waiting.size > 0 || bytes > this.#free) {
      if (!(await this.#turn(bytes, address, signal))) return undefined;
    } else {
      this.#free -= bytes;
    }
    let isTaken = true;
    return () => {
      if (!isTaken) return;
      isTaken = false;
      this.#free += bytes;
      this.#admit();
    };
  }

  #turn(bytes: number, address: string, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const waiter: Waiter = {
        bytes,
        admit: () => {
          signal.removeEventListener('abort', giveUp);
          resolve(true);
        },
      };
      const giveUp = () => {
        this.#forget(address, waiter);
        resolve(false);
        this.#admit();
      };
      signal.addEventListener('abort', giveUp, { once: true });
      const waiters = this.#waiting.get(address) ?? new Set();
      this.#waiting.set(address, waiters.add(waiter));
    });
  }

  #forget(address: string, waiter: Waiter): void {
    const waiters = this.#waiting.get(address);
    waiters?.delete(waiter);
    if (waiters?.size === 0) this.#waiting.delete(address);
  }

  /** Admits waiters in turn until the next one does not fit. */
  #admit(): void {
    for (;;) {
      const [next] = this.#waiting;
      if (!next) return;
      const [address, waiters] = next;
      const [waiter] = waiters;
      if (!waiter || waiter.bytes > this.#free) return;
      this.#free -= waiter.bytes;
      waiters.delete(waiter);
      // The next turn is that of another address.
      this.#waiting.delete(address);
      if (waiters.size > 0) this.#waiting.set(address, waiters);
      waiter.admit();
    }
  }
}
