// The second table of docs/design.md, row by row: what the tokens that could be had make of the Secret.
import { expect, test } from 'vitest';
import { formatTime } from '../../contract/freshness.ts';
import { ANNOTATION } from '../../contract/names.ts';
import { decide, settle, type TokenOutcome } from '../../webhook/decision.ts';
import {
  allowedSecret,
  annotated,
  HOST,
  HOUR,
  marked,
  NOW,
  OTHER_HOST,
  passwordsOf,
  request,
  type SecretObject,
  secret,
  token,
} from './secrets.ts';

const A = { region: 'eu-central-1', host: HOST };
const B = { region: 'us-east-1', host: OTHER_HOST };
const policy = { registries: [A, B] };
const fails = (registry: typeof A): TokenOutcome => ({
  registry,
  error: 'ECR refused: ThrottlingException: Rate exceeded',
});

function answer(outcomes: TokenOutcome[], object: SecretObject, old?: SecretObject, now = NOW) {
  const verdict = decide(request(object, old), policy, now);
  if (verdict.action !== 'obtain') throw new Error(`${verdict.action}: ${verdict.reason}`);
  return settle(request(object, old), verdict, outcomes, now);
}

/** Stored with an entry for each host, of which each expires so many hours after NOW. */
function stored(hoursA: number, hoursB: number): SecretObject {
  const tokens = [token(HOST, 'old-a', NOW + hoursA * HOUR), token(OTHER_HOST, 'old-b', NOW + hoursB * HOUR)];
  return allowedSecret(secret(), answer(tokens, secret(), undefined, NOW - 12 * HOUR));
}

test('every registry is fresh: allowed; expires_at is the soonest', () => {
  const tokens = [token(HOST, 'a', NOW + 12 * HOUR), token(OTHER_HOST, 'b', NOW + 11 * HOUR)];
  const verdict = answer(tokens, secret());
  expect(verdict).toMatchObject({ action: 'inject', warnings: [] });
  const after = allowedSecret(secret(), verdict);
  expect(passwordsOf(after)).toEqual({ [HOST]: 'a', [OTHER_HOST]: 'b' });
  expect(after.metadata.annotations?.[ANNOTATION.expiresAt]).toBe(formatTime(NOW + 11 * HOUR));
});

test('one fresh, one kept because it has not expired: allowed, and the warning names it', () => {
  const old = stored(3, 3);
  const object = marked(old);
  const verdict = answer([token(HOST, 'a'), fails(B)], object, old);
  expect(verdict).toMatchObject({
    action: 'inject',
    warnings: [expect.stringMatching(`^${OTHER_HOST}: kept .*Rate exceeded`)],
  });
  const after = allowedSecret(object, verdict);
  expect(passwordsOf(after)).toEqual({ [HOST]: 'a', [OTHER_HOST]: 'old-b' });
  expect(after.metadata.annotations?.[ANNOTATION.expiresAt]).toBe(formatTime(NOW + 3 * HOUR));
});

test('CREATE, and one registry has none: denied, naming host and cause', () => {
  expect(answer([token(HOST, 'a'), fails(B)], secret())).toMatchObject({
    action: 'deny',
    code: 503,
    message: expect.stringMatching(`${OTHER_HOST}: ECR refused: ThrottlingException`),
  });
});

test('a request, and nothing fresh: denied, although what is stored is valid', () => {
  const old = stored(3, 3);
  expect(answer([fails(A), fails(B)], marked(old), old)).toMatchObject({
    action: 'deny',
    code: 503,
    message: expect.stringContaining('the stored ones stay as they are'),
  });
});

test.each([3, -1])(
  'another update, and nothing fresh: ours are kept (they expire in %i hours), with a warning',
  (hours) => {
    const old = stored(hours, hours);
    const object = annotated(old, { a: 'b' });
    const verdict = answer([fails(A), fails(B)], object, old);
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
    expect(verdict).toHaveProperty('warnings.length', 2);
  },
);

test('another update, nothing fresh and nothing of ours: denied', () => {
  const old = secret('{}');
  expect(answer([fails(A), fails(B)], annotated(old, { a: 'b' }), old)).toMatchObject({
    action: 'deny',
    code: 503,
  });
});

test('an update, one fresh, one expired and without a token: allowed without the expired one, with a warning', () => {
  const old = stored(3, -1);
  const object = marked(old);
  const verdict = answer([token(HOST, 'a'), fails(B)], object, old);
  expect(verdict).toMatchObject({
    action: 'inject',
    warnings: [expect.stringContaining(`${OTHER_HOST}: no valid credentials`)],
  });
  expect(passwordsOf(allowedSecret(object, verdict))).toEqual({ [HOST]: 'a' });
});

test('an entry is not replaced by one that expires sooner, unless that is forced', () => {
  const old = stored(9, 9);
  const sooner = [token(HOST, 'sooner', NOW + 8 * HOUR), token(OTHER_HOST, 'b')];
  expect(passwordsOf(allowedSecret(old, answer(sooner, marked(old), old)))).toEqual({
    [HOST]: 'old-a',
    [OTHER_HOST]: 'b',
  });
  expect(passwordsOf(allowedSecret(old, answer(sooner, marked(old, 'now', true), old)))).toMatchObject({
    [HOST]: 'sooner',
  });
});

test('an earlier token that does for a failing ECR is fresh where it is newer than the stored one, else it is nothing', () => {
  const old = stored(3, 3);
  const earlier = (host: string, hours: number) => ({
    ...token(host, 'earlier', NOW + hours * HOUR),
    stale: 'ECR is down',
  });
  const verdict = answer([earlier(HOST, 5), earlier(OTHER_HOST, 5)], marked(old), old);
  expect(verdict).toMatchObject({ action: 'inject' });
  expect(passwordsOf(allowedSecret(old, verdict))).toEqual({ [HOST]: 'earlier', [OTHER_HOST]: 'earlier' });
  expect(answer([earlier(HOST, 3), earlier(OTHER_HOST, 3)], marked(old), old)).toMatchObject({
    action: 'deny',
    message: expect.stringContaining('ECR is down'),
  });
});

test('an entry of ours whose registry is no longer given goes; a foreign one for that host does not', () => {
  const old = stored(9, 9);
  const onlyA = { registries: [A] };
  const go = (object: SecretObject) => {
    const verdict = decide(request(object, old), onlyA, NOW);
    if (verdict.action !== 'obtain') throw new Error(verdict.action);
    return passwordsOf(allowedSecret(object, settle(request(object, old), verdict, [token(HOST, 'a')], NOW)));
  };
  expect(go(annotated(old, { a: 'b' }))).toEqual({ [HOST]: 'a' });
  expect(go(secret(`{"auths":{"${OTHER_HOST}":{"password":"mine"}}}`))).toEqual({
    [OTHER_HOST]: 'mine',
    [HOST]: 'a',
  });
});
