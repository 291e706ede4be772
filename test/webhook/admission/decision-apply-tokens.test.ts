// The second decision table of docs/design.md, row by row, with two registries: what is stored with tokens for both, for
// one, or for none.

import { describe, expect, test } from 'vitest';
import { formatTime } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import { type Allowance, type Denial, EXPIRES_SOONER } from '../../../webhook/admission/decision.ts';
import type { TokenOutcome } from '../../../webhook/aws/ecr-tokens.ts';
import type { Registry } from '../../../webhook/aws/registries.ts';
import type { TokenError } from '../../../webhook/aws/token-error.ts';
import {
  admit,
  allFresh,
  annotated,
  authsOf,
  type Change,
  causeFor,
  edited,
  encode,
  entryOf,
  HOST,
  HOUR,
  holding,
  type Manifest,
  manifest,
  NOW,
  notesOf,
  ONE,
  OTHER_HOST,
  ofContract,
  SECOND,
  stored,
  THROTTLED,
  TWO,
  tokenFor,
  warning,
} from '../support.ts';

const MARK = '2026-03-01T11:59:58Z';
const FOREIGN = { auth: encode('bot:hunter2') };
const FOREIGN_CONFIG = JSON.stringify({ auths: { 'registry.example.com': FOREIGN } });

const old = (host: string) => entryOf(tokenFor(host, 0, 'old'));
const fresh = (host: string) => entryOf(tokenFor(host));

/** The outcome for a registry: a new token, one with this expiry, a cached one, or none. */
type Outcome = 'new' | 'none' | { expiresAt: number; stale?: TokenError };
function outcomesOf(here: Outcome, there: Outcome): TokenOutcome[] {
  return TWO.registries.map((registry, index) => {
    const what = index === 0 ? here : there;
    const host = registry.host ?? '';
    if (what === 'none') return { registry, error: THROTTLED };
    if (what === 'new') return { registry, token: tokenFor(host) };
    const { expiresAt, stale } = what;
    return { registry, token: tokenFor(host, expiresAt), ...(stale !== undefined && { stale }) };
  });
}

/** A stored Secret with entries for both registries, which expire so much later than NOW, and a foreign entry. */
const expiring = (here: number, there: number): Manifest => {
  const at = NOW - 12 * HOUR;
  const outcomes = TWO.registries.map((registry, index) => ({
    registry,
    token: tokenFor(registry.host ?? '', NOW + (index === 0 ? here : there), 'old'),
  }));
  return stored({ at, policy: TWO, from: manifest(FOREIGN_CONFIG), outcomes });
};
const valid = expiring(3 * HOUR, 4 * HOUR);
const halfExpired = expiring(3 * HOUR, -SECOND);
const expired = expiring(-HOUR, -SECOND);

const requested = (oldObject: Manifest): Change => ({
  object: annotated(oldObject, { [ANNOTATION.requestedAt]: MARK }),
  oldObject,
});
const forced = (oldObject: Manifest): Change => ({
  object: annotated(oldObject, { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.force]: MARK }),
  oldObject,
});
const touched = (oldObject: Manifest): Change => ({
  object: annotated(oldObject, { 'example.com/owner': 'alice' }),
  oldObject,
});
const afterTokens = (change: Change, outcomes: TokenOutcome[]) => admit(change, { policy: TWO, outcomes });

/** Expects these entries and the foreign one. */
function expectEntries(secret: Manifest | undefined, entries: Record<string, object>): void {
  expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, ...entries });
}
const registriesOf = (expiries: Record<string, number>) =>
  Object.entries(expiries)
    .map(([host, expiresAt]) => `${host}=${formatTime(expiresAt)}`)
    .join(',');

/** Expects a denial with one cause for each of these registries. */
function expectNoToken(verdict: Denial | Allowance, hosts: string[], error = THROTTLED): void {
  expect(verdict).toMatchObject({
    action: 'deny',
    code: 503,
    reason: 'no-token',
    causes: [
      { reason: 'no-token', field: 'data[.dockerconfigjson]', message: expect.any(String) },
      ...hosts.map((host) => causeFor(host, error)),
    ],
  });
  for (const host of hosts)
    expect(verdict).toMatchObject({ message: expect.stringContaining(`${host}: ${error.message}`) });
}

/** Expects that the webhook recognises the entries of the Secret as owned. */
function expectOwned(secret: Manifest | undefined, policy = TWO): void {
  if (!secret) throw new Error('denied');
  expect(admit(touched(secret), { policy }).first.reason).not.toBe('not-ours');
}

describe('every registry has a valid entry, and at least one is new: allow with the patch', () => {
  test.each([
    { what: 'CREATE', change: { object: manifest(FOREIGN_CONFIG) } },
    { what: 'a request, stored ones valid', change: requested(valid) },
    { what: 'a request, one stored one expired', change: requested(halfExpired) },
    { what: 'a request, both expired', change: requested(expired) },
    { what: 'another update, due', change: touched(valid) },
    { what: 'another update, no owned entries', change: touched(manifest(FOREIGN_CONFIG)) },
  ])('writes two new entries: $what', ({ change }) => {
    const { verdict, secret } = afterTokens(change, outcomesOf('new', 'new'));
    expect(verdict).toMatchObject({ action: 'inject', warnings: [] });
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(secret)).toMatchObject({
      updatedAt: formatTime(NOW),
      expiresAt: formatTime(NOW + 12 * HOUR),
      registries: registriesOf({ [HOST]: NOW + 12 * HOUR, [OTHER_HOST]: NOW + 12 * HOUR }),
    });
    expectOwned(secret);
  });

  test.each([
    { what: 'a request', change: requested(valid) },
    { what: 'a forced request', change: forced(valid) },
    { what: 'another update', change: touched(valid) },
  ])('keeps the entry of the registry without a token, with a warning: $what', ({ change }) => {
    const first = afterTokens(change, outcomesOf('new', 'none'));
    expect(first.verdict).toMatchObject({
      action: 'inject',
      warnings: [warning(OTHER_HOST, 'kept', THROTTLED, formatTime(NOW + 4 * HOUR))],
    });
    expectEntries(first.secret, { [HOST]: fresh(HOST), [OTHER_HOST]: old(OTHER_HOST) });
    // The soonest expiry of both, so that the Secret stays due.
    expect(notesOf(first.secret)).toMatchObject({
      expiresAt: formatTime(NOW + 4 * HOUR),
      registries: registriesOf({ [HOST]: NOW + 12 * HOUR, [OTHER_HOST]: NOW + 4 * HOUR }),
    });
    expectOwned(first.secret);

    const second = afterTokens(change, outcomesOf('none', 'new'));
    expectEntries(second.secret, { [HOST]: old(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(second.secret).expiresAt).toBe(formatTime(NOW + 3 * HOUR));
  });

  test('keeps an entry until the second before its expiry', () => {
    const before = expiring(3 * HOUR, SECOND);
    expectEntries(afterTokens(requested(before), outcomesOf('new', 'none')).secret, {
      [HOST]: fresh(HOST),
      [OTHER_HOST]: old(OTHER_HOST),
    });
    const at = expiring(3 * HOUR, 0);
    expectEntries(afterTokens(requested(at), outcomesOf('new', 'none')).secret, { [HOST]: fresh(HOST) });
  });

  test('keeps the stored entry, not the one that the request carries', () => {
    const object = holding(
      requested(valid).object,
      JSON.stringify({
        auths: { [`https://${OTHER_HOST}`]: FOREIGN, [OTHER_HOST]: FOREIGN, 'ghcr.io': FOREIGN },
      }),
    );
    const { secret } = afterTokens({ object, oldObject: valid }, outcomesOf('new', 'none'));
    expect(authsOf(secret)).toEqual({
      'ghcr.io': FOREIGN,
      [HOST]: fresh(HOST),
      [OTHER_HOST]: old(OTHER_HOST),
    });
  });

  test('counts a cached token as new, with a warning', () => {
    const { verdict, secret } = afterTokens(
      requested(valid),
      outcomesOf({ expiresAt: NOW + 8 * HOUR, stale: THROTTLED }, 'new'),
    );
    expect(verdict).toMatchObject({
      action: 'inject',
      warnings: [warning(HOST, 'cached token', THROTTLED)],
    });
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(secret).expiresAt).toBe(formatTime(NOW + 8 * HOUR));
  });
});

describe('CREATE, and a registry has no token: deny, 503', () => {
  test.each([
    { what: 'the first', outcomes: outcomesOf('none', 'new'), missing: [HOST] },
    { what: 'the second', outcomes: outcomesOf('new', 'none'), missing: [OTHER_HOST] },
    { what: 'both', outcomes: outcomesOf('none', 'none'), missing: [HOST, OTHER_HOST] },
  ])('names each registry without a token: $what', ({ outcomes, missing }) => {
    for (const object of [manifest(), manifest(FOREIGN_CONFIG), annotated(valid, {})]) {
      const { verdict, secret } = afterTokens({ object }, outcomes);
      expectNoToken(verdict, missing);
      expect(secret).toBeUndefined();
    }
  });

  test('names a registry with an unknown host by its region', () => {
    const registry: Registry = { source: { service: 'ecr', region: 'eu-central-1' } };
    const { verdict } = admit(
      { object: manifest() },
      { policy: { registries: [registry] }, outcomes: [{ registry, error: THROTTLED }] },
    );
    expect(verdict).toMatchObject({
      code: 503,
      message: expect.stringContaining(`ECR in eu-central-1: ${THROTTLED.message}`),
      causes: [
        { reason: 'no-token' },
        { reason: 'ecr-throttled', field: 'data[.dockerconfigjson].auths', message: THROTTLED.message },
      ],
    });
  });
});

describe('a request without a new token: deny, 503', () => {
  test.each([
    { what: 'the stored ones are valid', oldObject: valid },
    { what: 'one of them has expired', oldObject: halfExpired },
    { what: 'both have expired', oldObject: expired },
    { what: 'no owned entries', oldObject: manifest(FOREIGN_CONFIG) },
  ])('names every registry: $what', ({ oldObject }) => {
    for (const change of [requested(oldObject), forced(oldObject)]) {
      const { verdict } = afterTokens(change, outcomesOf('none', 'none'));
      expectNoToken(verdict, [HOST, OTHER_HOST]);
    }
  });

  test('does not count cached tokens that expire with the stored ones as new', () => {
    const { verdict } = afterTokens(
      requested(valid),
      outcomesOf(
        { expiresAt: NOW + 3 * HOUR, stale: THROTTLED },
        { expiresAt: NOW + 4 * HOUR, stale: THROTTLED },
      ),
    );
    expectNoToken(verdict, [HOST, OTHER_HOST]);
  });
});

describe('another UPDATE without a new token', () => {
  test.each([
    { what: 'valid and due', oldObject: valid, kinds: ['kept', 'kept'] },
    { what: 'one expired', oldObject: halfExpired, kinds: ['kept', 'no credentials'] },
    { what: 'both expired', oldObject: expired, kinds: ['no credentials', 'no credentials'] },
  ] as const)('keeps the owned entries, with warnings: $what', ({ oldObject, kinds }) => {
    const { verdict, secret } = afterTokens(touched(oldObject), outcomesOf('none', 'none'));
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
    expect(verdict).toMatchObject({
      warnings: [warning(HOST, kinds[0], THROTTLED), warning(OTHER_HOST, kinds[1], THROTTLED)],
    });
    expect(secret).toEqual(touched(oldObject).object);
  });

  test.each([undefined, '1', '3'])('keeps owned entries of contract %s without a patch', (number) => {
    for (const oldObject of [valid, halfExpired, expired].map((secret) => ofContract(number, secret))) {
      const { verdict, secret } = afterTokens(touched(oldObject), outcomesOf('none', 'none'));
      expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
      expect(secret).toEqual(touched(oldObject).object);
    }
  });

  test('restores what the request dropped or invented', () => {
    const object = edited(holding(valid, '{"auths":{}}'), ({ metadata }) => {
      metadata.annotations = { 'example.com/owner': 'alice' };
    });
    const { verdict, secret } = afterTokens({ object, oldObject: valid }, outcomesOf('none', 'none'));
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token' });
    expect(authsOf(secret)).toEqual({ [HOST]: old(HOST), [OTHER_HOST]: old(OTHER_HOST) });
    expect(notesOf(secret)).toEqual(notesOf(valid));
    expect(secret?.metadata.annotations).toHaveProperty(['example.com/owner'], 'alice');
  });

  test('keeps the owned entries if the policy has another registry', () => {
    const one = stored({ from: manifest(FOREIGN_CONFIG) });
    const { verdict, secret } = afterTokens(touched(one), outcomesOf('none', 'none'));
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token' });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, [HOST]: old(HOST) });
    // The missing registry is recorded as expired, so that the Secret is due. A later update changes nothing.
    expect(notesOf(secret)).toMatchObject({
      expiresAt: formatTime(NOW),
      registries: registriesOf({ [HOST]: NOW + 11 * HOUR, [OTHER_HOST]: NOW }),
      updatedAt: notesOf(one).updatedAt,
    });
    if (!secret) throw new Error('denied');
    const later = admit(touched(secret), {
      policy: TWO,
      now: NOW + HOUR,
      outcomes: outcomesOf('none', 'none'),
    });
    expect(later.first).toMatchObject({ action: 'obtain', reason: 'expired' });
    expect(later.verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
  });

  test('removes the entry of a registry that is no longer selected', () => {
    const elsewhere = stored({ policy: { registries: TWO.registries.slice(1) } });
    const { verdict, secret } = admit(touched(elsewhere), {
      policy: ONE,
      outcomes: outcomesOf('none', 'none'),
    });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual({});
    expect(notesOf(secret)).toMatchObject({
      expiresAt: formatTime(NOW),
      registries: registriesOf({ [HOST]: NOW }),
      updatedAt: formatTime(NOW),
    });
  });

  test.each([
    { what: 'empty', oldObject: manifest() },
    { what: 'foreign entries only', oldObject: manifest(FOREIGN_CONFIG) },
    {
      what: 'written by CentML/ecr-anywhere',
      oldObject: annotated(manifest(JSON.stringify({ auths: { [`https://${HOST}`]: FOREIGN } })), {
        [ANNOTATION.expiresAt]: '2026-03-01T23:00:00+01:00',
      }),
    },
    {
      what: 'a wrong fingerprint',
      oldObject: annotated(valid, { [ANNOTATION.fingerprint]: '2.AAAAAAAAAAAAAAAA' }),
    },
    {
      what: 'a wrong fingerprint of contract 1',
      oldObject: annotated(valid, { [ANNOTATION.fingerprint]: 'AAAAAAAAAAAAAAAA' }),
    },
  ])('denies with 503 if there are no owned entries: $what', ({ oldObject }) => {
    const { verdict } = afterTokens(touched(oldObject), outcomesOf('none', 'none'));
    expectNoToken(verdict, [HOST, OTHER_HOST]);
  });
});

describe('an UPDATE with a new token, and an expired entry without one: allow without the expired entry', () => {
  test.each([
    { what: 'a request', change: requested(halfExpired) },
    { what: 'a forced request', change: forced(halfExpired) },
    { what: 'another update', change: touched(halfExpired) },
  ])('$what', ({ change }) => {
    const { verdict, secret } = afterTokens(change, outcomesOf('new', 'none'));
    expect(verdict).toMatchObject({
      action: 'inject',
      warnings: [warning(OTHER_HOST, 'no credentials', THROTTLED)],
    });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, [HOST]: fresh(HOST) });
    expect(notesOf(secret)).toMatchObject({
      expiresAt: formatTime(NOW - SECOND),
      registries: registriesOf({ [HOST]: NOW + 12 * HOUR, [OTHER_HOST]: NOW - SECOND }),
    });
    // The next admission needs a token for the missing registry only.
    if (!secret) throw new Error('denied');
    expect(afterTokens(touched(secret), outcomesOf('new', 'new')).verdict).toMatchObject({
      action: 'inject',
      reason: 'expired',
      warnings: [],
    });
    const next = afterTokens(touched(secret), outcomesOf('none', 'new'));
    expect(authsOf(next.secret)).toEqual({
      'registry.example.com': FOREIGN,
      [HOST]: fresh(HOST),
      [OTHER_HOST]: fresh(OTHER_HOST),
    });
  });

  test('another update needs tokens only for the entries that are due', () => {
    const half = expiring(11 * HOUR, HOUR);
    const hostsAsked = (change: Change) => {
      const { first } = afterTokens(change, outcomesOf('new', 'new'));
      return first.action === 'obtain' ? first.registries.map(({ host }) => host) : [];
    };
    expect(hostsAsked(touched(half))).toEqual([OTHER_HOST]);
    expect(hostsAsked(requested(half))).toEqual([HOST, OTHER_HOST]);
  });

  test('records an entry with an implausible expiry as expired now', () => {
    const before = expiring(3 * HOUR, 1000 * HOUR);
    const { secret } = afterTokens(requested(before), outcomesOf('new', 'none'));
    expectEntries(secret, { [HOST]: fresh(HOST) });
    expect(notesOf(secret).expiresAt).toBe(formatTime(NOW));
  });

  test('an entry without credentials is not valid, even if the clock goes back', () => {
    const { secret } = afterTokens(requested(halfExpired), outcomesOf('new', 'none'));
    if (!secret) throw new Error('denied');
    const { verdict } = admit(requested(annotated(secret, { [ANNOTATION.requestedAt]: undefined })), {
      policy: TWO,
      now: NOW - HOUR,
      outcomes: outcomesOf('new', 'none'),
    });
    expect(verdict).toMatchObject({ warnings: [warning(OTHER_HOST, 'no credentials', THROTTLED)] });
  });

  test('the same if the first registry has no token', () => {
    const before = expiring(-SECOND, 3 * HOUR);
    const { secret } = afterTokens(requested(before), outcomesOf('none', 'new'));
    expectEntries(secret, { [OTHER_HOST]: fresh(OTHER_HOST) });
  });
});

describe('an entry is not replaced by one that expires sooner, unless forced', () => {
  const long = expiring(11 * HOUR, 11 * HOUR);

  test.each([
    { what: 'a second sooner', ahead: 11 * HOUR - SECOND, taken: false },
    { what: 'at the same time', ahead: 11 * HOUR, taken: true },
    { what: 'a second later', ahead: 11 * HOUR + SECOND, taken: true },
  ])('a token that expires $what', ({ ahead, taken }) => {
    const { verdict, secret } = afterTokens(requested(long), outcomesOf({ expiresAt: NOW + ahead }, 'new'));
    expectEntries(secret, { [HOST]: taken ? fresh(HOST) : old(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(verdict).toMatchObject({
      action: 'inject',
      warnings: taken ? [] : [warning(HOST, 'kept', EXPIRES_SOONER, formatTime(NOW + 11 * HOUR))],
    });
  });

  test('a cached token must expire later', () => {
    const stale = (ahead: number) =>
      afterTokens(requested(long), outcomesOf({ expiresAt: NOW + ahead, stale: THROTTLED }, 'new')).secret;
    expectEntries(stale(11 * HOUR), { [HOST]: old(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expectEntries(stale(11 * HOUR + SECOND), { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
  });

  // ECR has milliseconds, the annotation seconds: the stored token itself must not count as a later one.
  test('the token that is stored is not newer because of its milliseconds', () => {
    const ahead = 11 * HOUR;
    const same: Outcome = { expiresAt: NOW + ahead + 789, stale: THROTTLED };
    expect(afterTokens(requested(long), outcomesOf(same, same)).verdict).toMatchObject({
      code: 503,
      reason: 'no-token',
    });
    const sooner = outcomesOf({ expiresAt: NOW + ahead - 1 }, 'new');
    expectEntries(afterTokens(requested(long), sooner).secret, {
      [HOST]: old(HOST),
      [OTHER_HOST]: fresh(OTHER_HOST),
    });
  });

  test('if all tokens expire sooner, a request is denied and another update keeps', () => {
    const soon = outcomesOf({ expiresAt: NOW + HOUR }, { expiresAt: NOW + HOUR });
    expectNoToken(afterTokens(requested(long), soon).verdict, [HOST, OTHER_HOST], EXPIRES_SOONER);
    const due = expiring(3 * HOUR, 4 * HOUR);
    const { verdict, secret } = afterTokens(touched(due), soon);
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token' });
    expectEntries(secret, { [HOST]: old(HOST), [OTHER_HOST]: old(OTHER_HOST) });
  });

  test('any valid token replaces an expired entry', () => {
    const { secret } = afterTokens(
      requested(expired),
      outcomesOf({ expiresAt: NOW + SECOND }, { expiresAt: NOW + SECOND, stale: THROTTLED }),
    );
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
  });

  test('a forced request replaces it', () => {
    const { verdict, secret } = afterTokens(forced(long), outcomesOf({ expiresAt: NOW + HOUR }, 'new'));
    expect(verdict).toMatchObject({ action: 'inject', warnings: [] });
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(secret).expiresAt).toBe(formatTime(NOW + HOUR));
  });
});

describe('the same manifest sent again changes nothing', () => {
  test.each([
    { what: 'all fresh', outcomes: outcomesOf('new', 'new') },
    {
      what: 'tokens of different age',
      outcomes: outcomesOf('new', { expiresAt: NOW + 9 * HOUR, stale: THROTTLED }),
    },
  ])('$what', ({ outcomes }) => {
    const sent = manifest(FOREIGN_CONFIG);
    const { secret } = afterTokens({ object: sent }, outcomes);
    if (!secret) throw new Error('denied');
    const applied = edited(secret, (copy) => {
      copy.data = { ...copy.data, ...sent.data };
    });
    for (const object of [secret, applied]) {
      const again = afterTokens({ object, oldObject: secret }, []);
      expect(again.first).toMatchObject({ action: 'keep', reason: 'fresh' });
      expect(again.secret).toEqual(secret);
    }
    const replaced = afterTokens({ object: sent, oldObject: secret }, []);
    expect(authsOf(replaced.secret)).toEqual(authsOf(secret));
    expect(notesOf(replaced.secret)).toEqual(notesOf(secret));
    expect(afterTokens({ object: secret, oldObject: secret }, []).verdict).toMatchObject({ patch: [] });
  });

  test('writes entries only for the registries of the policy', () => {
    const { secret } = admit({ object: manifest() }, { policy: ONE, outcomes: allFresh(ONE) });
    expect(Object.keys(authsOf(secret))).toEqual([HOST]);
    expectOwned(secret, ONE);
  });
});
