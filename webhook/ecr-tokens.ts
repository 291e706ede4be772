// Tokens from ECR, as few calls as possible: one flight at a time for a registry, a young token is reused,
// an older one that has not expired serves while ECR fails.
import { ECRClient, GetAuthorizationTokenCommand } from '@aws-sdk/client-ecr';
import { formatTime, freshness } from '../contract/freshness.ts';
import type { Token, TokenOutcome } from './decision.ts';
import type { Registry } from './registries.ts';

/** A token is reused while it is younger than this, so that a wave of Secrets costs ECR one call. */
const REUSE_MS = 15 * 60_000;

/** The one thing that is asked of ECR. Rejects with a sentence that names the cause. */
export type FetchToken = (registry: Registry, signal: AbortSignal) => Promise<Token>;

interface Flight {
  readonly token: Promise<Token>;
  readonly force: string | undefined;
}

interface Cached {
  readonly token: Token;
  readonly obtainedAt: number;
  /** The forced request that it was fetched for: the Secrets of one forced run share one token. */
  readonly force: string | undefined;
}

export class EcrTokens {
  readonly #fetch: FetchToken;
  readonly #withinMs: number;
  readonly #now: () => number;
  readonly #cached = new Map<string, Cached>();
  readonly #flights = new Map<string, Flight>();

  /**
   * @param withinMs how long a caller waits for ECR at most, retries included
   * @param now milliseconds since the epoch
   */
  constructor(fetch: FetchToken, withinMs: number, now: () => number = Date.now) {
    this.#fetch = fetch;
    this.#withinMs = withinMs;
    this.#now = now;
  }

  /** The registry with its host, where a token has told it. */
  known(registry: Registry): Registry {
    return { ...registry, host: registry.host ?? this.#cached.get(registry.region)?.token.host };
  }

  /** A token for the registry, from the cache or from ECR; never rejects. `force`: not from before this request. */
  async obtain(registry: Registry, force?: string): Promise<TokenOutcome> {
    const cached = this.#cached.get(registry.region);
    const reusable =
      force === undefined
        ? this.#isYoung(cached)
        : cached?.force === force && cached.token.expiresAt > this.#now();
    if (cached && reusable) return { registry, token: cached.token };
    try {
      return { registry, token: await this.#within(this.#flight(registry, force)) };
    } catch (error) {
      const cause = error instanceof Error ? error.message : String(error);
      const older = this.#cached.get(registry.region)?.token;
      if (force === undefined && older && older.expiresAt > this.#now())
        return { registry, token: older, stale: cause };
      return { registry, error: cause };
    }
  }

  #isYoung(cached: Cached | undefined): boolean {
    if (!cached) return false;
    const age = this.#now() - cached.obtainedAt;
    return age >= 0 && age < REUSE_MS && !freshness(formatTime(cached.token.expiresAt), this.#now()).due;
  }

  /** Joins the flight that is under way, unless the request is forced and the flight is not its own. */
  #flight(registry: Registry, force: string | undefined): Promise<Token> {
    const key = registry.region;
    const current = this.#flights.get(key);
    if (current && (force === undefined || current.force === force)) return current.token;
    const flight = { token: this.#call(registry, force), force };
    this.#flights.set(key, flight);
    const landed = () => {
      if (this.#flights.get(key) === flight) this.#flights.delete(key);
    };
    flight.token.then(landed, landed);
    return flight.token;
  }

  async #call(registry: Registry, force: string | undefined): Promise<Token> {
    // A little less than its callers wait: they are to hear why.
    const token = await this.#fetch(registry, AbortSignal.timeout(this.#withinMs * 0.95));
    if (token.expiresAt <= this.#now()) {
      throw new Error(
        `ECR's token expired at ${formatTime(token.expiresAt)}: is this machine's clock right?`,
      );
    }
    this.#cached.set(registry.region, { token, obtainedAt: this.#now(), force });
    return token;
  }

  /** A caller that joins a flight late still waits no longer than its own time. */
  async #within(flight: Promise<Token>): Promise<Token> {
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(noAnswer(this.#withinMs)), this.#withinMs);
    });
    try {
      return await Promise.race([flight, timeout]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function noAnswer(withinMs: number, lastFailure = ''): Error {
  return new Error(`ECR gave no token within ${withinMs / 1000} s${lastFailure}`);
}

function describe(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/**
 * Asks ECR with the SDK's default credentials.
 *
 * @param withinMs all attempts together
 */
export function fetchFromEcr(withinMs: number): FetchToken {
  const clients = new Map<string, ECRClient>();
  return async ({ region }, signal) => {
    const client =
      clients.get(region) ??
      new ECRClient({
        region,
        maxAttempts: 3,
        // Without the last one the SDK would only warn of a request that takes too long, and not try again.
        requestHandler: {
          connectionTimeout: 1_500,
          requestTimeout: withinMs / 2,
          throwOnRequestTimeout: true,
        },
      });
    clients.set(region, client);
    const command = new GetAuthorizationTokenCommand({});
    let lastFailure = '';
    command.middlewareStack.add(
      (next) => async (args) => {
        try {
          return await next(args);
        } catch (error) {
          // The SDK tries again, and would tell of this only if it gave up before its time is over.
          if (!signal.aborted) lastFailure = `, last ${describe(error)}`;
          throw error;
        }
      },
      { step: 'finalizeRequest', priority: 'low' },
    );
    const { authorizationData } = await client
      .send(command, { abortSignal: signal })
      .catch((error: unknown) => {
        if (signal.aborted) throw noAnswer(withinMs, lastFailure);
        throw new Error(`ECR refused: ${describe(error)}`, { cause: error });
      });
    // Only the first one is ever filled: the token opens every registry its principal may read.
    const { authorizationToken, expiresAt, proxyEndpoint } = authorizationData?.[0] ?? {};
    const [username, ...rest] = Buffer.from(authorizationToken ?? '', 'base64')
      .toString()
      .split(':');
    const password = rest.join(':');
    const host = URL.parse(proxyEndpoint ?? '')?.host;
    if (!username || !password || !expiresAt || !host) throw new Error('ECR answered without a usable token');
    return { host, username, password, expiresAt: expiresAt.getTime() };
  };
}
