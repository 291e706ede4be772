// ECR in a simulation: counts the calls of each second, and fails during an outage or above its quota.
import { formatTime, TOKEN_LIFETIME_MS } from '../../contract/freshness.ts';
import { ANNOTATION } from '../../contract/names.ts';
import type { Token } from '../../webhook/aws/ecr-tokens.ts';
import { TokenError } from '../../webhook/aws/token-error.ts';

/** A token with the annotations of a Secret that has it: all Secrets with the token share them. */
export interface SimulatedToken extends Token {
  readonly annotations: Readonly<Record<string, string>>;
}

export interface EcrSettings {
  /** The calls that ECR accepts in a second, without the burst that it allows after a pause. Without a quota all are accepted. */
  readonly quota?: number | undefined;
  /** @param at milliseconds since the epoch */
  readonly isDown: (at: number) => boolean;
}

export class Ecr {
  /** By second since the epoch. */
  readonly calls = new Map<number, number>();
  throttled = 0;
  readonly #settings: EcrSettings;

  constructor(settings: EcrSettings) {
    this.#settings = settings;
  }

  /** @param at milliseconds since the epoch @throws TokenError */
  token(at: number): SimulatedToken {
    const second = Math.floor(at / 1000);
    const calls = (this.calls.get(second) ?? 0) + 1;
    this.calls.set(second, calls);
    if (this.#settings.isDown(at)) throw new TokenError('ecr-unavailable', 'ECR is down');
    if (calls > (this.#settings.quota ?? Number.POSITIVE_INFINITY)) {
      this.throttled += 1;
      throw new TokenError('ecr-throttled', 'ECR throttles requests');
    }
    const expiresAt = at + TOKEN_LIFETIME_MS;
    const annotations = { [ANNOTATION.expiresAt]: formatTime(expiresAt) };
    return { username: 'AWS', password: '', expiresAt, annotations };
  }
}
