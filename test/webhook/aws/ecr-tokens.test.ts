// When a token is shared, reused, served although it is older, or requested again. Then the real SDK against a local ECR:
// every failure has its reason, within the time limit.

import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { formatTime } from '../../../contract/freshness.ts';
import { fetchFromEcr } from '../../../webhook/aws/ecr.ts';
import type { Token, TokenOutcome } from '../../../webhook/aws/ecr-tokens.ts';
import { EcrTokens, type FetchToken } from '../../../webhook/aws/ecr-tokens.ts';
import type { Registry } from '../../../webhook/aws/registries.ts';
import { type AwsEndpoint, type EcrMode, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { HOST, HOUR, NOW, SECOND, THROTTLED, tokenFor } from '../support.ts';

const REGISTRY: Registry = { source: { service: 'ecr', region: 'eu-central-1' } };
const OTHER: Registry = { source: { service: 'ecr', region: 'us-east-1' } };
const WITHIN = 8_500;
const MINUTE = 60 * SECOND;
const REASON = THROTTLED.reason;
/** A failure is reused for this long. */
const FAILURE_MS = 5 * SECOND;
/** The time between the starts of two calls for one source. */
const INTERVAL_MS = 2 * SECOND;
/** The Secrets of one forced run share a token for this long. */
const RUN_MS = MINUTE;

/** An ECR whose answers each test sets; its tokens are numbered. */
function ecr({ lifetime = 12 * HOUR } = {}) {
  const state = { now: NOW, calls: 0, lifetime, answer: 'ok' as 'ok' | 'fail' | 'hang' | Promise<void> };
  const fetch: FetchToken = async ({ region }) => {
    state.calls += 1;
    const password = String(state.calls);
    const { answer } = state;
    if (answer === 'hang') return new Promise<Token>(() => {});
    if (answer === 'fail') throw THROTTLED;
    if (answer !== 'ok') await answer;
    return {
      ...tokenFor(`123456789012.dkr.ecr.${region}.amazonaws.com`, state.now + state.lifetime),
      password,
    };
  };
  return { state, tokens: new EcrTokens(fetch, WITHIN, () => state.now) };
}

/** In short: the number of the token, with "stale" and the reason where it is an older one; or the reason. */
async function short(outcome: Promise<TokenOutcome>): Promise<string> {
  const known = await outcome;
  if ('error' in known) return known.error.reason;
  return known.stale === undefined
    ? known.token.password
    : `${known.token.password}, stale: ${known.stale.reason}`;
}

describe('calls at the same time', () => {
  test('a hundred requests share one call', async () => {
    const { state, tokens } = ecr();
    const all = await Promise.all(Array.from({ length: 100 }, () => short(tokens.obtain(REGISTRY))));
    expect(new Set(all)).toEqual(new Set(['1']));
    expect(state.calls).toBe(1);
  });

  test('a hundred requests share one failure, and a later one calls again', async () => {
    const { state, tokens } = ecr();
    state.answer = 'fail';
    const all = await Promise.all(Array.from({ length: 100 }, () => short(tokens.obtain(REGISTRY))));
    expect(new Set(all)).toEqual(new Set([REASON]));
    expect(state.calls).toBe(1);
    state.answer = 'ok';
    state.now += FAILURE_MS;
    expect(await short(tokens.obtain(REGISTRY))).toBe('2');
  });

  test('each registry has its own call', async () => {
    const { state, tokens } = ecr();
    const hosts = await Promise.all(
      [REGISTRY, OTHER, REGISTRY, OTHER].map(async (registry) => {
        const outcome = await tokens.obtain(registry);
        return 'token' in outcome ? outcome.token.host : outcome.error;
      }),
    );
    expect(hosts).toEqual([HOST, HOST.replace('eu-central-1', 'us-east-1'), hosts[0], hosts[1]]);
    expect(state.calls).toBe(2);
  });

  test('ECR and ECR Public in one region have their own calls', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain({ source: { service: 'ecr', region: 'us-east-1' } });
    const source = { service: 'ecr-public', region: 'us-east-1' } as const;
    expect(await short(tokens.obtain({ source, host: 'public.ecr.aws' }))).toBe('2');
    expect(state.calls).toBe(2);
  });

  test('the first token makes the host known', async () => {
    const { tokens } = ecr();
    expect(tokens.withHost(REGISTRY)).toEqual({ ...REGISTRY, host: undefined });
    await tokens.obtain(REGISTRY);
    expect(tokens.withHost(REGISTRY)).toEqual({
      source: { service: 'ecr', region: 'eu-central-1' },
      host: HOST,
    });
    expect(tokens.withHost(OTHER).host).toBeUndefined();
    expect(tokens.withHost({ ...REGISTRY, host: 'explicit' }).host).toBe('explicit');
  });
});

describe('a token is reused for 15 minutes unless it is due itself', () => {
  test.each([
    { what: 'at once', age: 0, calls: 1 },
    { what: 'a second before 15 minutes', age: 15 * MINUTE - SECOND, calls: 1 },
    { what: 'at 15 minutes', age: 15 * MINUTE, calls: 2 },
    { what: 'a second after', age: 15 * MINUTE + SECOND, calls: 2 },
    { what: 'from the future: the clock was set back', age: -SECOND, calls: 2 },
  ])('$what', async ({ age, calls }) => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += age;
    expect(await short(tokens.obtain(REGISTRY))).toBe(String(calls));
    expect(state.calls).toBe(calls);
  });

  test('the 15 minutes begin with the call, not with the last use', async () => {
    const { state, tokens } = ecr();
    const had: string[] = [];
    for (let minute = 0; minute <= 40; minute += 5) {
      had.push(await short(tokens.obtain(REGISTRY)));
      state.now += 5 * MINUTE;
    }
    expect(had).toEqual(['1', '1', '1', '2', '2', '2', '3', '3', '3']);
  });

  test.each([
    { what: 'six hours and a minute', lifetime: 6 * HOUR + MINUTE, calls: 1 },
    { what: 'six hours', lifetime: 6 * HOUR, calls: 2 },
    { what: 'a minute', lifetime: MINUTE, calls: 2 },
    { what: 'implausibly long', lifetime: 14 * HOUR, calls: 2 },
  ])('one that lives $what', async ({ lifetime, calls }) => {
    const { state, tokens } = ecr({ lifetime });
    expect(await short(tokens.obtain(REGISTRY))).toBe('1');
    state.now += INTERVAL_MS - 1;
    expect(await short(tokens.obtain(REGISTRY))).toBe('1');
    state.now += 1;
    await tokens.obtain(REGISTRY);
    expect(state.calls).toBe(calls);
  });
});

describe('an older token that has not expired serves while ECR fails', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });

  const ages = [
    { what: 'at 15 minutes', age: 15 * MINUTE, served: true },
    { what: 'a second before its expiry', age: 12 * HOUR - SECOND, served: true },
    { what: 'at its expiry', age: 12 * HOUR, served: false },
    { what: 'a second after', age: 12 * HOUR + SECOND, served: false },
  ];
  test.each(ages)('while it refuses: $what', async ({ age, served }) => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += age;
    state.answer = 'fail';
    expect(await short(tokens.obtain(REGISTRY))).toBe(served ? `1, stale: ${REASON}` : REASON);
    // It does not count as young: ECR is called again, and its next token is used.
    if (!served) return;
    state.now -= HOUR;
    for (const call of ['2', '3']) {
      state.now += FAILURE_MS;
      await tokens.obtain(REGISTRY);
      expect(String(state.calls - 1)).toBe(call);
    }
    state.now += FAILURE_MS;
    state.answer = 'ok';
    expect(await short(tokens.obtain(REGISTRY))).toBe('5');
  });

  test.each(ages)('while it hangs: $what', async ({ age, served }) => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += age;
    state.answer = 'hang';
    const outcome = short(tokens.obtain(REGISTRY));
    await vi.advanceTimersByTimeAsync(WITHIN);
    const silence = 'ecr-unavailable';
    expect(await outcome).toBe(served ? `1, stale: ${silence}` : silence);
  });

  test('a token that expires during the wait is not served', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += 12 * HOUR - SECOND;
    state.answer = 'hang';
    const outcome = short(tokens.obtain(REGISTRY));
    state.now += WITHIN;
    await vi.advanceTimersByTimeAsync(WITHIN);
    expect(await outcome).toBe('ecr-unavailable');
  });

  test('a caller that joins a call late has its full time to wait, and takes the token', async () => {
    const { state, tokens } = ecr();
    const landing = Promise.withResolvers<void>();
    state.answer = landing.promise;
    const settledAt: Record<string, number> = {};
    const startedAt = performance.now();
    let waited = 0;
    const ask = async (who: string) => {
      const answer = await short(tokens.obtain(REGISTRY));
      settledAt[who] = waited;
      return answer;
    };
    const pass = async (ms: number) => {
      waited += ms;
      await vi.advanceTimersByTimeAsync(ms);
    };
    const first = ask('first');
    await pass(WITHIN - SECOND);
    const joiner = ask('joiner');
    const another = ask('another');
    await pass(SECOND);
    expect(settledAt).toEqual({ first: WITHIN });
    expect(await first).toBe('ecr-unavailable');
    landing.resolve();
    await pass(SECOND);
    expect([await joiner, await another, state.calls]).toEqual(['1', '1', 1]);
    expect(settledAt).toEqual({ first: WITHIN, joiner: WITHIN + SECOND, another: WITHIN + SECOND });
    expect(performance.now() - startedAt).toBeLessThan(WITHIN);
  });

  test('a caller that joins a call that never ends gives up after its own time', async () => {
    const { state, tokens } = ecr();
    state.answer = 'hang';
    const settled: string[] = [];
    const ask = (who: string) => tokens.obtain(REGISTRY).then(() => settled.push(who));
    const first = ask('first');
    await vi.advanceTimersByTimeAsync(3 * SECOND);
    const joiner = ask('joiner');
    await vi.advanceTimersByTimeAsync(WITHIN - 3 * SECOND);
    expect(settled).toEqual(['first']);
    await vi.advanceTimersByTimeAsync(3 * SECOND - 1);
    expect(settled).toEqual(['first']);
    await vi.advanceTimersByTimeAsync(1);
    expect(settled).toEqual(['first', 'joiner']);
    await Promise.all([first, joiner]);
    expect(state.calls).toBe(1);
  });
});

describe('a failure is reused for five seconds', () => {
  const failed = async () => {
    const made = ecr();
    made.state.answer = 'fail';
    await made.tokens.obtain(REGISTRY);
    made.state.answer = 'ok';
    return made;
  };

  test.each([
    { what: 'at once', age: 0, says: REASON },
    { what: 'a millisecond before its end', age: FAILURE_MS - 1, says: REASON },
    { what: 'at its end', age: FAILURE_MS, says: '2' },
    { what: 'after the clock was set back', age: -1, says: '2' },
  ])('$what', async ({ age, says }) => {
    const { state, tokens } = await failed();
    state.now += age;
    expect(await short(tokens.obtain(REGISTRY))).toBe(says);
    expect(state.calls).toBe(says === REASON ? 1 : 2);
  });

  test('is not reused for another source', async () => {
    const { tokens } = await failed();
    expect(await short(tokens.obtain(OTHER))).toBe('2');
    const role = { arn: 'arn:aws:iam::123456789012:role/other' };
    expect(await short(tokens.obtain({ source: { ...REGISTRY.source, role } }))).toBe('3');
  });

  test('is not reused for a forced request, whose own failure is reused for its run', async () => {
    const { state, tokens } = await failed();
    state.now += INTERVAL_MS;
    state.answer = 'fail';
    for (const _ of [1, 2]) expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe(REASON);
    expect(state.calls).toBe(2);
    state.now += INTERVAL_MS;
    state.answer = 'ok';
    expect(await short(tokens.obtain(REGISTRY, 'run 2'))).toBe('3');
  });

  test('an older token serves meanwhile', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += HOUR;
    state.answer = 'fail';
    for (const _ of [1, 2, 3]) expect(await short(tokens.obtain(REGISTRY))).toBe(`1, stale: ${REASON}`);
    expect(state.calls).toBe(2);
  });

  test('makes the status of the source failing until the next token', async () => {
    const { state, tokens } = await failed();
    expect(tokens.status(REGISTRY.source)).toEqual({ failing: true });
    expect(tokens.status(OTHER.source)).toEqual({ failing: false });
    state.now += FAILURE_MS;
    await tokens.obtain(REGISTRY);
    expect(tokens.status(REGISTRY.source)).toEqual({
      failing: false,
      obtainedAt: state.now,
      expiresAt: state.now + 12 * HOUR,
    });
  });
});

describe('a forced request takes no token from before it', () => {
  test('takes no cached token; the Secrets of one forced run share one for a minute', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += INTERVAL_MS;
    const run = () => Promise.all(Array.from({ length: 100 }, () => short(tokens.obtain(REGISTRY, 'run 1'))));
    expect(new Set(await run())).toEqual(new Set(['2']));
    state.now += RUN_MS - 1;
    expect(new Set(await run())).toEqual(new Set(['2']));
    expect(await short(tokens.obtain(REGISTRY, 'run 2'))).toBe('3');
    state.now += 1;
    expect(await short(tokens.obtain(REGISTRY, 'run 2'))).toBe('3');
    state.now += INTERVAL_MS;
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe('4');
  });

  test('its token serves requests that are not forced, and runs that were known before its call', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY, 'run 1');
    expect(await short(tokens.obtain(REGISTRY))).toBe('1');
    state.now += INTERVAL_MS;
    expect(await short(tokens.obtain(REGISTRY, 'run 2'))).toBe('2');
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe('2');
    expect(state.calls).toBe(2);
  });

  test('does not get an older token if ECR fails, and the cache stays', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += INTERVAL_MS;
    state.answer = 'fail';
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe(REASON);
    expect(await short(tokens.obtain(REGISTRY))).toBe('1');
    state.now += 15 * MINUTE;
    expect(await short(tokens.obtain(REGISTRY))).toBe(`1, stale: ${REASON}`);
  });

  test('does not take its own token once that has expired', async () => {
    const { state, tokens } = ecr({ lifetime: 30 * SECOND });
    await tokens.obtain(REGISTRY, 'run 1');
    state.now += 30 * SECOND - 1;
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe('1');
    state.now += 1;
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe('2');
    state.now += 30 * SECOND;
    state.answer = 'fail';
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe(REASON);
  });

  test('remembers only so many runs, and none with a long id', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY, 'run 1');
    await tokens.obtain(OTHER, 'x'.repeat(1_000));
    for (const index of Array.from({ length: 1_000 }).keys()) {
      state.now += 1;
      void tokens.obtain({ source: { ...REGISTRY.source, region: 'us-west-2' } }, `other ${index}`);
    }
    state.now += INTERVAL_MS;
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).not.toBe('1');
    expect(await short(tokens.obtain(OTHER, 'x'.repeat(1_000)))).not.toBe('2');
  });
});

describe('at most one call starts for a source in two seconds', () => {
  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  });
  afterEach(() => {
    vi.useRealTimers();
  });
  const pass = async (state: { now: number }, ms: number) => {
    state.now += ms;
    await vi.advanceTimersByTimeAsync(ms);
  };

  test('a forced request waits for a call that starts after it, and shares it with all that wait', async () => {
    const { state, tokens } = ecr();
    const landing = Promise.withResolvers<void>();
    state.answer = landing.promise;
    const before = short(tokens.obtain(REGISTRY));
    const forced = ['run 1', 'run 1', 'run 2'].map((run) => short(tokens.obtain(REGISTRY, run)));
    const after = short(tokens.obtain(REGISTRY));
    await pass(state, INTERVAL_MS - 1);
    expect(state.calls).toBe(1);
    await pass(state, 1);
    expect(state.calls).toBe(2);
    // The second call runs: a request of a run that waited for it joins it, and a new run does not.
    const late = ['run 1', 'run 3'].map((run) => short(tokens.obtain(REGISTRY, run)));
    landing.resolve();
    expect(await Promise.all([before, ...forced, after])).toEqual(['1', '2', '2', '2', '1']);
    await pass(state, INTERVAL_MS);
    expect(await Promise.all(late)).toEqual(['2', '3']);
    expect(state.calls).toBe(3);
  });

  test('500 forced requests with different marks over ten seconds cause six calls', async () => {
    const { state, tokens } = ecr();
    const arrivals: { readonly calls: number; readonly token: Promise<string> }[] = [];
    for (const index of Array.from({ length: 500 }).keys()) {
      arrivals.push({ calls: state.calls, token: short(tokens.obtain(REGISTRY, `mark ${index}`)) });
      await pass(state, 20);
    }
    await pass(state, INTERVAL_MS);
    for (const { calls, token } of arrivals) expect(Number(await token)).toBe(calls + 1);
    expect(state.calls).toBe(6);
  });

  test('another source does not wait', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    expect(await short(tokens.obtain(OTHER, 'run 1'))).toBe('2');
    const waiting = short(tokens.obtain(REGISTRY, 'run 1'));
    await pass(state, INTERVAL_MS);
    expect(await waiting).toBe('3');
  });

  test('a call that takes longer than the interval does not delay the next, and its late token does not replace it', async () => {
    const { state, tokens } = ecr();
    const landing = Promise.withResolvers<void>();
    state.answer = landing.promise;
    const slow = short(tokens.obtain(REGISTRY));
    state.answer = 'ok';
    const forced = short(tokens.obtain(REGISTRY, 'run 1'));
    await pass(state, INTERVAL_MS);
    expect(await forced).toBe('2');
    landing.resolve();
    expect(await slow).toBe('1');
    expect(await short(tokens.obtain(REGISTRY))).toBe('2');
    expect(state.calls).toBe(2);
  });

  test('a request that cannot wait for the next call fails in its own time', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    const forced = short(tokens.obtain(REGISTRY, 'run 1', WITHIN - SECOND));
    await pass(state, SECOND);
    expect(await forced).toBe('ecr-unavailable');
    await pass(state, SECOND);
    expect(await short(tokens.obtain(REGISTRY))).toBe('2');
  });

  test('the clock that is set back does not keep the next call waiting', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now -= HOUR;
    expect(await short(tokens.obtain(REGISTRY, 'run 1'))).toBe('2');
  });
});

describe('a token that has expired on arrival is refused', () => {
  test.each([0, -SECOND, -HOUR])('its life: %i ms', async (lifetime) => {
    const { state, tokens } = ecr({ lifetime });
    const refusal = () => {
      const expiry = formatTime(state.now + lifetime);
      return { error: { reason: 'ecr-error', message: expect.stringContaining(expiry) } };
    };
    expect(await tokens.obtain(REGISTRY)).toMatchObject(refusal());
    state.now += INTERVAL_MS;
    expect(await tokens.obtain(REGISTRY, 'run 1')).toMatchObject(refusal());
    expect(tokens.withHost(REGISTRY).host).toBeUndefined();
    state.lifetime = SECOND;
    state.now += FAILURE_MS;
    expect(await short(tokens.obtain(REGISTRY))).toBe('3');
  });

  test('an older one that has not expired serves instead', async () => {
    const { state, tokens } = ecr();
    await tokens.obtain(REGISTRY);
    state.now += HOUR;
    state.lifetime = -SECOND;
    expect(await short(tokens.obtain(REGISTRY))).toBe('1, stale: ecr-error');
  });

  test.each([
    { what: 'a string', thrown: 'no route' },
    { what: 'an error', thrown: new Error('no route') },
  ])('a call that fails with $what is an outcome, never a rejection', async ({ thrown }) => {
    const failing = () => {
      throw thrown;
    };
    expect(await new EcrTokens(failing, WITHIN).obtain(REGISTRY)).toMatchObject({
      registry: REGISTRY,
      error: { name: 'TokenError', reason: 'ecr-error', message: 'no route' },
    });
  });
});

describe('with the real SDK', () => {
  const ENVIRONMENT = {
    AWS_ENDPOINT_URL_ECR: '',
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
    AWS_SESSION_TOKEN: undefined,
    AWS_PROFILE: undefined,
    AWS_MAX_ATTEMPTS: undefined,
    AWS_RETRY_MODE: undefined,
  };
  // One for each test: a call that was given up on may still reach it, and would be counted with the next test's.
  let endpoint: AwsEndpoint;
  beforeEach(async () => {
    endpoint = await startAwsEndpoint();
    for (const [name, value] of Object.entries(ENVIRONMENT)) vi.stubEnv(name, value);
    vi.stubEnv('AWS_ENDPOINT_URL_ECR', endpoint.url);
  });
  afterEach(async () => {
    vi.unstubAllEnvs();
    await endpoint.stop();
  });

  const set = (mode: EcrMode) =>
    Object.assign(endpoint.settings, { mode, latencyMs: 0, lifetimeSeconds: 43_200 });
  const BUDGET = 3_000;
  const obtain = async (budget = BUDGET) => {
    const startedAt = performance.now();
    const before = endpoint.calls.length;
    const outcome = await new EcrTokens(
      fetchFromEcr({ region: 'eu-central-1', withinMs: budget }),
      budget,
    ).obtain(REGISTRY);
    return { outcome, ms: performance.now() - startedAt, calls: endpoint.calls.slice(before) };
  };

  test('returns the token with its host, user, password and expiry', async () => {
    set('ok');
    const { outcome, calls } = await obtain();
    const [call] = calls;
    expect(calls).toHaveLength(1);
    expect(outcome).toEqual({
      registry: REGISTRY,
      token: { host: endpoint.host, username: 'AWS', password: call?.password, expiresAt: call?.expiresAt },
    });
  });

  test.each([
    { mode: 'throttle', reason: 'ecr-throttled', names: 'ThrottlingException', attempts: 2 },
    { mode: 'down', reason: 'ecr-unavailable', names: 'ServerException', attempts: 3 },
    { mode: 'denied', reason: 'ecr-denied', names: 'AccessDeniedException', attempts: 1 },
  ] as const)(
    '$mode: fails with the reason $reason within the budget',
    async ({ mode, reason, names, attempts }) => {
      set(mode);
      const { outcome, ms, calls } = await obtain();
      expect(outcome).toMatchObject({
        registry: REGISTRY,
        error: { reason, message: expect.stringContaining(names) },
      });
      expect(calls).toHaveLength(attempts);
      expect(ms).toBeLessThan(BUDGET);
    },
  );

  test('hang: all attempts together end with the time limit', async () => {
    set('hang');
    const { outcome, ms, calls } = await obtain();
    expect(outcome).toEqual({
      registry: REGISTRY,
      error: expect.objectContaining({ reason: 'ecr-unavailable' }),
    });
    expect(calls.length).toBeGreaterThan(1);
    expect(ms).toBeGreaterThan(BUDGET * 0.9);
    expect(ms).toBeLessThan(BUDGET + 500);
  });

  test('throttled for longer than the time limit: the reason is the throttling', async () => {
    set('throttle');
    endpoint.settings.latencyMs = 200;
    const { outcome, ms } = await obtain(500);
    expect(outcome).toEqual({
      registry: REGISTRY,
      error: expect.objectContaining({ reason: 'ecr-throttled' }),
    });
    expect(ms).toBeLessThan(1_000);
  });

  test('waits for a slow answer without a second call', async () => {
    set('ok');
    endpoint.settings.latencyMs = BUDGET / 4;
    const { outcome, calls } = await obtain();
    expect(outcome).toMatchObject({ token: { host: endpoint.host } });
    expect(calls).toHaveLength(1);
  });

  test('fails as unavailable if ECR refuses the connection', async () => {
    const gone = await startAwsEndpoint();
    await gone.stop();
    vi.stubEnv('AWS_ENDPOINT_URL_ECR', gone.url);
    const { outcome, ms } = await obtain();
    expect(outcome).toMatchObject({
      error: { reason: 'ecr-unavailable', message: expect.stringContaining('ECONNREFUSED') },
    });
    expect(ms).toBeLessThan(BUDGET);
  });
});
