// Obtains tokens with as few calls to ECR as possible: for each source at most one call starts in an interval, whatever the
// callers send; a young token is reused; an older token serves while ECR fails, until it expires; a failure is not retried
// at once.
import { formatTime, freshness } from '../../contract/freshness.ts';
import { keyOf, type Registry, type TokenSource } from './registries.ts';
import { TokenError, timedOut, tokenErrorOf } from './token-error.ts';

/** A token is reused while it is younger, so that many Secrets at the same time cost one call. */
const REUSE_MS = 15 * 60_000;

/** A failure is reused for this long: many Secrets at the same time must not cause many failing calls. */
const FAILURE_MS = 5_000;

/**
 * The time between the starts of two calls for one source, or half of the time that a caller waits if that is shorter.
 * ECR's quota is 20 calls a second for an account and region, and everyone who may write a managed Secret may force.
 */
const CALL_INTERVAL_MS = 2_000;

/** The Secrets of one forced run share a token for this long, from the run's first Secret on. */
const RUN_MS = 60_000;

/** As many forced runs are remembered. Callers choose their ids, so there is a limit: beyond it the oldest is forgotten. */
const MAX_RUNS = 1_000;
/** A run with a longer id is not remembered: each of its Secrets is a request of its own. */
const MAX_RUN_ID = 512;

/** Asks AWS for a token. Rejects with a TokenError. */
export type FetchToken = (source: TokenSource, signal: AbortSignal) => Promise<Token>;

/** A point in the order of events: a call that has a higher one than a request started after the request arrived. */
type Ordinal = number;

/** A call to ECR that has not finished. */
interface Call {
  readonly token: Promise<Token>;
  /** When it started; infinite while it waits for the interval to pass. */
  startedAs: Ordinal;
}

interface Cached {
  readonly token: Token;
  readonly obtainedAt: number;
  /** When its call started. */
  readonly startedAt: number;
  readonly startedAs: Ordinal;
}

interface Failure {
  readonly error: TokenError;
  readonly at: number;
  readonly startedAs: Ordinal;
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
  readonly #intervalMs: number;
  readonly #now: () => number;
  readonly #cached = new Map<string, Cached>();
  readonly #failures = new Map<string, Failure>();
  /** By source: the call that started last, and has not finished. */
  readonly #running = new Map<string, Call>();
  /** By source: the call that starts when the interval has passed. */
  readonly #waiting = new Map<string, Call>();
  /** By source: when the last call started, in milliseconds since the epoch. */
  readonly #startedAt = new Map<string, number>();
  /** By the id of a forced run: when its first request arrived. The oldest is first. */
  readonly #runs = new Map<string, { readonly arrivedAs: Ordinal; readonly at: number }>();
  #lastOrdinal: Ordinal = 0;
  /** The hosts that tokens named. They stay when their tokens are no longer cached. */
  readonly #hosts = new Map<string, string>();

  /**
   * @param withinMs the longest time that a caller waits for ECR, including retries
   * @param now milliseconds since the epoch
   */
  constructor(fetch: FetchToken, withinMs: number, now: () => number = Date.now) {
    this.#fetch = fetch;
    this.#withinMs = withinMs;
    this.#intervalMs = Math.min(CALL_INTERVAL_MS, withinMs / 2);
    this.#now = now;
  }

  /** The longest time that a caller waits, in milliseconds. */
  get withinMs(): number {
    return this.#withinMs;
  }

  /** The registry with its host, if a token has named it. */
  withHost(registry: Registry): Registry {
    if (registry.host !== undefined) return registry;
    return { ...registry, host: this.#hosts.get(keyOf(registry.source)) };
  }

  status(source: TokenSource): TokenStatus {
    const key = keyOf(source);
    const { token, obtainedAt } = this.#cached.get(key) ?? {};
    return { obtainedAt, expiresAt: token?.expiresAt, failing: this.#failures.has(key) };
  }

  /**
   * Obtains a token for the registry, from the cache or from ECR. Never rejects.
   *
   * @param force identifies a forced run: only a token of a call that started after the run's first request is used
   * @param waitedMs how much of its time the request has already waited
   */
  async obtain(registry: Registry, force?: string, waitedMs = 0): Promise<TokenOutcome> {
    const key = keyOf(registry.source);
    const arrivedAs = force === undefined ? undefined : this.#arrival(force);
    const cached = this.#cached.get(key);
    if (cached && this.#isReusable(cached, arrivedAs)) return { registry, token: cached.token };
    try {
      const failure = this.#recentFailure(key, arrivedAs);
      if (failure !== undefined) throw failure;
      const call = this.#callFor(registry.source, arrivedAs);
      return { registry, token: await this.#within(call.token, Math.max(0, this.#withinMs - waitedMs)) };
    } catch (thrown) {
      const error = tokenErrorOf(thrown);
      const older = this.#cached.get(key)?.token;
      if (force === undefined && older && older.expiresAt > this.#now())
        return { registry, token: older, stale: error };
      return { registry, error };
    }
  }

  /** When a forced run's first request arrived: now, unless the run is known. */
  #arrival(run: string): Ordinal {
    const now = this.#now();
    const known = this.#runs.get(run);
    if (known && isWithin(RUN_MS, known.at, now)) return known.arrivedAs;
    this.#lastOrdinal += 1;
    this.#runs.delete(run);
    if (run.length <= MAX_RUN_ID) this.#runs.set(run, { arrivedAs: this.#lastOrdinal, at: now });
    const [oldest] = this.#runs.keys();
    if (this.#runs.size > MAX_RUNS && oldest !== undefined) this.#runs.delete(oldest);
    return this.#lastOrdinal;
  }

  #isReusable({ token, obtainedAt, startedAt, startedAs }: Cached, arrivedAs: Ordinal | undefined): boolean {
    const now = this.#now();
    if (token.expiresAt <= now) return false;
    if (arrivedAs !== undefined) return startedAs > arrivedAs;
    // A due token as well, while no other call may start.
    const isDue = freshness(formatTime(token.expiresAt), now).due;
    return isDue ? isWithin(this.#intervalMs, startedAt, now) : isWithin(REUSE_MS, obtainedAt, now);
  }

  /** A failure of a call from before a forced request does not count for it. */
  #recentFailure(key: string, arrivedAs: Ordinal = 0): TokenError | undefined {
    const failure = this.#failures.get(key);
    if (!failure || failure.startedAs < arrivedAs) return undefined;
    return isWithin(FAILURE_MS, failure.at, this.#now()) ? failure.error : undefined;
  }

  /** Joins a call, which for a forced request must start after it arrived. All requests that wait share the next call. */
  #callFor(source: TokenSource, arrivedAs: Ordinal = 0): Call {
    const key = keyOf(source);
    const running = this.#running.get(key);
    if (running && running.startedAs > arrivedAs) return running;
    const existing = this.#waiting.get(key);
    if (existing) return existing;
    const [now, lastAt = Number.NEGATIVE_INFINITY] = [this.#now(), this.#startedAt.get(key)];
    if (!isWithin(this.#intervalMs, lastAt, now)) {
      this.#lastOrdinal += 1;
      const call = { token: this.#start(source, this.#lastOrdinal, 0), startedAs: this.#lastOrdinal };
      this.#run(key, call);
      return call;
    }
    const waitMs = lastAt + this.#intervalMs - now;
    const start = Promise.withResolvers<Token>();
    const call: Call = { token: start.promise, startedAs: Number.POSITIVE_INFINITY };
    this.#waiting.set(key, call);
    setTimeout(() => {
      this.#waiting.delete(key);
      this.#lastOrdinal += 1;
      call.startedAs = this.#lastOrdinal;
      start.resolve(this.#start(source, call.startedAs, waitMs));
      this.#run(key, call);
    }, waitMs);
    return call;
  }

  #run(key: string, call: Call): void {
    this.#running.set(key, call);
    const remove = () => {
      if (this.#running.get(key) === call) this.#running.delete(key);
    };
    call.token.then(remove, remove);
  }

  /** Calls ECR. @param waitedMs how long the first caller has waited for the interval to pass */
  async #start(source: TokenSource, startedAs: Ordinal, waitedMs: number): Promise<Token> {
    const key = keyOf(source);
    const startedAt = this.#now();
    this.#startedAt.set(key, startedAt);
    // Calls may overlap if one takes longer than the interval: what a later one found stays.
    const isSuperseded = () => (this.#cached.get(key)?.startedAs ?? 0) > startedAs;
    try {
      // A little less than the callers wait, so that they get the reason of the failure.
      const limitMs = Math.max(this.#withinMs * 0.95 - waitedMs, this.#withinMs / 2);
      const token = await this.#fetch(source, AbortSignal.timeout(Math.round(limitMs)));
      if (token.expiresAt <= this.#now()) {
        throw new TokenError(
          'ecr-error',
          `the token that ECR returned expired at ${formatTime(token.expiresAt)}: check the clock of the node`,
        );
      }
      if (token.host !== undefined) this.#hosts.set(key, token.host);
      if (!isSuperseded()) {
        this.#cached.set(key, { token, obtainedAt: this.#now(), startedAt, startedAs });
        this.#failures.delete(key);
      }
      return token;
    } catch (thrown) {
      const error = tokenErrorOf(thrown);
      if (!isSuperseded()) this.#failures.set(key, { error, at: this.#now(), startedAs });
      throw error;
    }
  }

  /** Limits the wait of one caller: one that joins a call late still waits no longer than `withinMs`. */
  async #within(token: Promise<Token>, withinMs: number): Promise<Token> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(timedOut(this.#withinMs)), withinMs);
    });
    try {
      return await Promise.race([token, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }
}

/** Whether a past time is less than this long ago. A time in the future is not: the clock was set back. */
function isWithin(ms: number, past: number, now: number): boolean {
  return now >= past && now - past < ms;
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
