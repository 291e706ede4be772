// Obtains tokens with as few calls to ECR as possible: one call at a time for each source; a young token is reused; an
// older token serves while ECR fails, until it expires; a failure is not retried at once.
import { formatTime, freshness } from '../../contract/freshness.ts';
import { keyOf, type Registry, type TokenSource } from './registries.ts';
import { TokenError, timedOut, tokenErrorOf } from './token-error.ts';

/** A token is reused while it is younger, so that many Secrets at the same time cost one call. */
const REUSE_MS = 15 * 60_000;

/** A failure is reused for this long: many Secrets at the same time must not cause many failing calls. */
const FAILURE_MS = 5_000;

/** Asks AWS for a token. Rejects with a TokenError. */
export type FetchToken = (source: TokenSource, signal: AbortSignal) => Promise<Token>;

/** A call to ECR that has not finished. */
interface Flight {
  readonly token: Promise<Token>;
  readonly force: string | undefined;
}

interface Cached {
  readonly token: Token;
  readonly obtainedAt: number;
  /** The forced request that the token was obtained for: all Secrets of one forced run share it. */
  readonly force: string | undefined;
}

interface Failure {
  readonly error: TokenError;
  readonly at: number;
  readonly force: string | undefined;
}

/** The state of a source's token, for the metrics. Times are milliseconds since the epoch. */
export interface TokenStatus {
  readonly obtainedAt?: number | undefined;
  readonly expiresAt?: number | undefined;
  /** The last call failed. */
  readonly failing: boolean;
}

export class EcrTokens {
  readonly #fetch: FetchToken;
  readonly #withinMs: number;
  readonly #now: () => number;
  readonly #cached = new Map<string, Cached>();
  readonly #flights = new Map<string, Flight>();
  readonly #failures = new Map<string, Failure>();

  /**
   * @param withinMs the longest time that a caller waits for ECR, including retries
   * @param now milliseconds since the epoch
   */
  constructor(fetch: FetchToken, withinMs: number, now: () => number = Date.now) {
    this.#fetch = fetch;
    this.#withinMs = withinMs;
    this.#now = now;
  }

  /** The registry with its host, if a token has named it. */
  withHost(registry: Registry): Registry {
    if (registry.host !== undefined) return registry;
    return { ...registry, host: this.#cached.get(keyOf(registry.source))?.token.host };
  }

  status(source: TokenSource): TokenStatus {
    const key = keyOf(source);
    const { token, obtainedAt } = this.#cached.get(key) ?? {};
    return { obtainedAt, expiresAt: token?.expiresAt, failing: this.#failures.has(key) };
  }

  /**
   * Obtains a token for the registry, from the cache or from ECR. Never rejects.
   *
   * @param force identifies a forced request: only a token that was obtained for it is reused
   */
  async obtain(registry: Registry, force?: string): Promise<TokenOutcome> {
    const key = keyOf(registry.source);
    const cached = this.#cached.get(key);
    const reusable =
      force === undefined
        ? this.#isYoung(cached)
        : cached?.force === force && cached.token.expiresAt > this.#now();
    if (cached && reusable) return { registry, token: cached.token };
    try {
      const failure = this.#recentFailure(key, force);
      if (failure !== undefined) throw failure;
      return { registry, token: await this.#within(this.#flight(registry.source, force)) };
    } catch (thrown) {
      const error = tokenErrorOf(thrown);
      const older = this.#cached.get(key)?.token;
      if (force === undefined && older && older.expiresAt > this.#now())
        return { registry, token: older, stale: error };
      return { registry, error };
    }
  }

  #isYoung(cached: Cached | undefined): boolean {
    if (!cached) return false;
    const age = this.#now() - cached.obtainedAt;
    return age >= 0 && age < REUSE_MS && !freshness(formatTime(cached.token.expiresAt), this.#now()).due;
  }

  /** A failure from before a forced request does not count for it. */
  #recentFailure(key: string, force: string | undefined): TokenError | undefined {
    const failure = this.#failures.get(key);
    if (!failure || (force !== undefined && failure.force !== force)) return undefined;
    const age = this.#now() - failure.at;
    return age >= 0 && age < FAILURE_MS ? failure.error : undefined;
  }

  /** Joins the call in flight, unless this request is forced and the call was not made for it. */
  #flight(source: TokenSource, force: string | undefined): Promise<Token> {
    const key = keyOf(source);
    const current = this.#flights.get(key);
    if (current && (force === undefined || current.force === force)) return current.token;
    const flight = { token: this.#call(source, force), force };
    this.#flights.set(key, flight);
    const remove = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.token.then(remove, remove);
    return flight.token;
  }

  async #call(source: TokenSource, force: string | undefined): Promise<Token> {
    const key = keyOf(source);
    try {
      // A little less than the callers wait, so that they get the reason of the failure.
      const token = await this.#fetch(source, AbortSignal.timeout(this.#withinMs * 0.95));
      if (token.expiresAt <= this.#now()) {
        throw new TokenError(
          'ecr-error',
          `the token that ECR returned expired at ${formatTime(token.expiresAt)}: check the clock of the node`,
        );
      }
      this.#cached.set(key, { token, obtainedAt: this.#now(), force });
      this.#failures.delete(key);
      return token;
    } catch (thrown) {
      const error = tokenErrorOf(thrown);
      this.#failures.set(key, { error, at: this.#now(), force });
      throw error;
    }
  }

  /** Limits the wait of one caller: one that joins a call late still waits no longer than `withinMs`. */
  async #within(flight: Promise<Token>): Promise<Token> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(timedOut(this.#withinMs)), this.#withinMs);
    });
    try {
      return await Promise.race([flight, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }
}

export interface Token {
  /** The registry of the account; absent for ECR Public. */
  readonly host?: string;
  readonly username: string;
  readonly password: string;
  /** Milliseconds since the epoch, ECR's clock. */
  readonly expiresAt: number;
}

/** The result of asking for a registry's token. */
export type TokenOutcome =
  | {
      registry: Registry;
      token: Token /** Why the token is an older one, from the cache. */;
      stale?: TokenError;
    }
  | { registry: Registry; error: TokenError };
