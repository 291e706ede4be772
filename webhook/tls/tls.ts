// What the rest of the webhook knows of its certificates, wherever they come from.

export interface KeyPair {
  /** PEM; the certificates between it and the authority may follow. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
}

export interface Tls {
  /** What is to be served. */
  pair(): KeyPair;
  /** What the API servers trust, PEM, empty where that is nothing; undefined where it is not for the webhook to know. */
  trusted(): string | undefined;
  /** Whether the last look at the certificates has failed. */
  isFailing(): boolean;
  stop(): Promise<void>;
}
