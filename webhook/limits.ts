// Limits the connections that callers can make the webhook hold. An address that uses many has no advantage over one that
// uses few. Any pod may reach the port, and the API servers must still be answered.

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
