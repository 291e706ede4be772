// The interface of the webhook's certificates, which every tls.mode implements.

export interface KeyPair {
  /** PEM; intermediate certificates may follow. */
  readonly cert: string;
  /** PEM. */
  readonly key: string;
}

export interface Tls {
  /** The certificate to serve. */
  pair(): KeyPair;
  /** The authorities that the API servers trust, PEM, possibly empty; undefined if the webhook cannot know them. */
  trusted(): string | undefined;
  /** Whether the last attempt to read or renew the certificates failed. */
  isFailing(): boolean;
  stop(): Promise<void>;
}
