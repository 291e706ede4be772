// The second decision table of docs/design.md, row by row, with two registries: what is stored when tokens could be had
// for both, for one, or for none.

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

/** What came of asking for both: a new token, one that expires then, an older one, or none. */
type Had = 'new' | 'none' | { expiresAt: number; stale?: TokenError };
function had(here: Had, there: Had): TokenOutcome[] {
  return TWO.registries.map((registry, index) => {
    const what = index === 0 ? here : there;
    const host = registry.host ?? '';
    if (what === 'none') return { registry, error: THROTTLED };
    if (what === 'new') return { registry, token: tokenFor(host) };
    const { expiresAt, stale } = what;
    return { registry, token: tokenFor(host, expiresAt), ...(stale !== undefined && { stale }) };
  });
}

/** Both registries' entries, expiring so far ahead, beside one that is not ours. */
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
const settled = (change: Change, outcomes: TokenOutcome[]) => admit(change, { policy: TWO, outcomes });

/** Stored: these entries of ours, and the foreign one. */
function expectEntries(secret: Manifest | undefined, entries: Record<string, object>): void {
  expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, ...entries });
}
const registriesOf = (expiries: Record<string, number>) =>
  Object.entries(expiries)
    .map(([host, expiresAt]) => `${host}=${formatTime(expiresAt)}`)
    .join(',');

/** Denied for want of tokens, with a cause for each of these registries. */
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

/** The Secret is one the webhook recognises: a touch an instant later finds it its own. */
function expectOurs(secret: Manifest | undefined, policy = TWO): void {
  if (!secret) throw new Error('denied');
  expect(admit(touched(secret), { policy }).first.reason).not.toBe('not-ours');
}

describe('every registry has a valid entry, and something is fresh: allow with the patch', () => {
  test.each([
    { what: 'CREATE', change: { object: manifest(FOREIGN_CONFIG) } },
    { what: 'a request, stored ones valid', change: requested(valid) },
    { what: 'a request, one stored one expired', change: requested(halfExpired) },
    { what: 'a request, both expired', change: requested(expired) },
    { what: 'another update, due', change: touched(valid) },
    { what: 'another update, nothing of ours', change: touched(manifest(FOREIGN_CONFIG)) },
  ])('all fresh: $what', ({ change }) => {
    const { verdict, secret } = settled(change, had('new', 'new'));
    expect(verdict).toMatchObject({ action: 'inject', warnings: [] });
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(secret)).toMatchObject({
      updatedAt: formatTime(NOW),
      expiresAt: formatTime(NOW + 12 * HOUR),
      registries: registriesOf({ [HOST]: NOW + 12 * HOUR, [OTHER_HOST]: NOW + 12 * HOUR }),
    });
    expectOurs(secret);
  });

  test.each([
    { what: 'a request', change: requested(valid) },
    { what: 'a forced request', change: forced(valid) },
    { what: 'another update', change: touched(valid) },
  ])('one of two kept, and named in a warning: $what', ({ change }) => {
    const first = settled(change, had('new', 'none'));
    expect(first.verdict).toMatchObject({
      action: 'inject',
      warnings: [warning(OTHER_HOST, 'kept', THROTTLED, formatTime(NOW + 4 * HOUR))],
    });
    expectEntries(first.secret, { [HOST]: fresh(HOST), [OTHER_HOST]: old(OTHER_HOST) });
    // The soonest of both, so that the Secret stays due.
    expect(notesOf(first.secret)).toMatchObject({
      expiresAt: formatTime(NOW + 4 * HOUR),
      registries: registriesOf({ [HOST]: NOW + 12 * HOUR, [OTHER_HOST]: NOW + 4 * HOUR }),
    });
    expectOurs(first.secret);

    const second = settled(change, had('none', 'new'));
    expectEntries(second.secret, { [HOST]: old(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(second.secret).expiresAt).toBe(formatTime(NOW + 3 * HOUR));
  });

  test('kept until the second before its expiry', () => {
    const before = expiring(3 * HOUR, SECOND);
    expectEntries(settled(requested(before), had('new', 'none')).secret, {
      [HOST]: fresh(HOST),
      [OTHER_HOST]: old(OTHER_HOST),
    });
    const at = expiring(3 * HOUR, 0);
    expectEntries(settled(requested(at), had('new', 'none')).secret, { [HOST]: fresh(HOST) });
  });

  test('what is kept is the stored entry, whatever the request carried for it', () => {
    const object = holding(
      requested(valid).object,
      JSON.stringify({
        auths: { [`https://${OTHER_HOST}`]: FOREIGN, [OTHER_HOST]: FOREIGN, 'ghcr.io': FOREIGN },
      }),
    );
    const { secret } = settled({ object, oldObject: valid }, had('new', 'none'));
    expect(authsOf(secret)).toEqual({
      'ghcr.io': FOREIGN,
      [HOST]: fresh(HOST),
      [OTHER_HOST]: old(OTHER_HOST),
    });
  });

  test('an older token counts as something fresh, and is named', () => {
    const { verdict, secret } = settled(
      requested(valid),
      had({ expiresAt: NOW + 8 * HOUR, stale: THROTTLED }, 'new'),
    );
    expect(verdict).toMatchObject({
      action: 'inject',
      warnings: [warning(HOST, 'cached token', THROTTLED)],
    });
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(secret).expiresAt).toBe(formatTime(NOW + 8 * HOUR));
  });
});

describe('CREATE, and a registry has none: deny, 503', () => {
  test.each([
    { what: 'the first', outcomes: had('none', 'new'), missing: [HOST] },
    { what: 'the second', outcomes: had('new', 'none'), missing: [OTHER_HOST] },
    { what: 'both', outcomes: had('none', 'none'), missing: [HOST, OTHER_HOST] },
  ])('$what', ({ outcomes, missing }) => {
    for (const object of [manifest(), manifest(FOREIGN_CONFIG), annotated(valid, {})]) {
      const { verdict, secret } = settled({ object }, outcomes);
      expectNoToken(verdict, missing);
      expect(secret).toBeUndefined();
    }
  });

  test('one registry whose host is not known yet is named by its region', () => {
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

describe('a request, and nothing fresh: deny, 503; what is stored stays', () => {
  test.each([
    { what: 'the stored ones are valid', oldObject: valid },
    { what: 'one of them has expired', oldObject: halfExpired },
    { what: 'both have expired', oldObject: expired },
    { what: 'nothing of ours', oldObject: manifest(FOREIGN_CONFIG) },
  ])('$what', ({ oldObject }) => {
    for (const change of [requested(oldObject), forced(oldObject)]) {
      const { verdict } = settled(change, had('none', 'none'));
      expectNoToken(verdict, [HOST, OTHER_HOST]);
    }
  });

  test('older tokens that bring nothing new are nothing fresh', () => {
    const { verdict } = settled(
      requested(valid),
      had({ expiresAt: NOW + 3 * HOUR, stale: THROTTLED }, { expiresAt: NOW + 4 * HOUR, stale: THROTTLED }),
    );
    expectNoToken(verdict, [HOST, OTHER_HOST]);
  });
});

describe('another UPDATE, and nothing fresh', () => {
  test.each([
    { what: 'valid and due', oldObject: valid, kinds: ['kept', 'kept'] },
    { what: 'one expired', oldObject: halfExpired, kinds: ['kept', 'no credentials'] },
    { what: 'both expired', oldObject: expired, kinds: ['no credentials', 'no credentials'] },
  ] as const)('keep ours, with a warning: $what', ({ oldObject, kinds }) => {
    const { verdict, secret } = settled(touched(oldObject), had('none', 'none'));
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
    expect(verdict).toMatchObject({
      warnings: [warning(HOST, kinds[0], THROTTLED), warning(OTHER_HOST, kinds[1], THROTTLED)],
    });
    expect(secret).toEqual(touched(oldObject).object);
  });

  test.each([undefined, '1', '3'])('keep ours of contract %s, and write nothing for its sake', (number) => {
    for (const oldObject of [valid, halfExpired, expired].map((secret) => ofContract(number, secret))) {
      const { verdict, secret } = settled(touched(oldObject), had('none', 'none'));
      expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
      expect(secret).toEqual(touched(oldObject).object);
    }
  });

  test('keep restores what the request dropped or invented', () => {
    const object = edited(holding(valid, '{"auths":{}}'), ({ metadata }) => {
      metadata.annotations = { 'example.com/owner': 'alice' };
    });
    const { verdict, secret } = settled({ object, oldObject: valid }, had('none', 'none'));
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token' });
    expect(authsOf(secret)).toEqual({ [HOST]: old(HOST), [OTHER_HOST]: old(OTHER_HOST) });
    expect(notesOf(secret)).toEqual(notesOf(valid));
    expect(secret?.metadata.annotations).toHaveProperty(['example.com/owner'], 'alice');
  });

  test('keep where the policy’s registries changed', () => {
    const one = stored({ from: manifest(FOREIGN_CONFIG) });
    const { verdict, secret } = settled(touched(one), had('none', 'none'));
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token' });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, [HOST]: old(HOST) });
    // What is missing is noted, so that the Secret is due; and once noted, it stays as it is.
    expect(notesOf(secret)).toMatchObject({
      expiresAt: formatTime(NOW),
      registries: registriesOf({ [HOST]: NOW + 11 * HOUR, [OTHER_HOST]: NOW }),
      updatedAt: notesOf(one).updatedAt,
    });
    if (!secret) throw new Error('denied');
    const later = admit(touched(secret), { policy: TWO, now: NOW + HOUR, outcomes: had('none', 'none') });
    expect(later.first).toMatchObject({ action: 'obtain', reason: 'expired' });
    expect(later.verdict).toMatchObject({ action: 'keep', reason: 'no-token', patch: [] });
  });

  test('what is no longer wanted goes, although nothing could be had in its place', () => {
    const elsewhere = stored({ policy: { registries: TWO.registries.slice(1) } });
    const { verdict, secret } = admit(touched(elsewhere), { policy: ONE, outcomes: had('none', 'none') });
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
      what: 'the original webhook’s',
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
  ])('deny, 503, if there is nothing of ours: $what', ({ oldObject }) => {
    const { verdict } = settled(touched(oldObject), had('none', 'none'));
    expectNoToken(verdict, [HOST, OTHER_HOST]);
  });
});

describe('UPDATE, some fresh, one expired and without a token: allow without the expired one, with a warning', () => {
  test.each([
    { what: 'a request', change: requested(halfExpired) },
    { what: 'a forced request', change: forced(halfExpired) },
    { what: 'another update', change: touched(halfExpired) },
  ])('$what', ({ change }) => {
    const { verdict, secret } = settled(change, had('new', 'none'));
    expect(verdict).toMatchObject({
      action: 'inject',
      warnings: [warning(OTHER_HOST, 'no credentials', THROTTLED)],
    });
    expect(authsOf(secret)).toEqual({ 'registry.example.com': FOREIGN, [HOST]: fresh(HOST) });
    expect(notesOf(secret)).toMatchObject({
      expiresAt: formatTime(NOW - SECOND),
      registries: registriesOf({ [HOST]: NOW + 12 * HOUR, [OTHER_HOST]: NOW - SECOND }),
    });
    // The next look at it asks again, for what is missing alone.
    if (!secret) throw new Error('denied');
    expect(settled(touched(secret), had('new', 'new')).verdict).toMatchObject({
      action: 'inject',
      reason: 'expired',
      warnings: [],
    });
    const next = settled(touched(secret), had('none', 'new'));
    expect(authsOf(next.secret)).toEqual({
      'registry.example.com': FOREIGN,
      [HOST]: fresh(HOST),
      [OTHER_HOST]: fresh(OTHER_HOST),
    });
  });

  test('what is asked for on another update is what is due, and nothing else', () => {
    const half = expiring(11 * HOUR, HOUR);
    const hostsAsked = (change: Change) => {
      const { first } = settled(change, had('new', 'new'));
      return first.action === 'obtain' ? first.registries.map(({ host }) => host) : [];
    };
    expect(hostsAsked(touched(half))).toEqual([OTHER_HOST]);
    expect(hostsAsked(requested(half))).toEqual([HOST, OTHER_HOST]);
  });

  test('one whose expiry cannot be believed is noted as expired now', () => {
    const before = expiring(3 * HOUR, 1000 * HOUR);
    const { secret } = settled(requested(before), had('new', 'none'));
    expectEntries(secret, { [HOST]: fresh(HOST) });
    expect(notesOf(secret).expiresAt).toBe(formatTime(NOW));
  });

  test('what has no credentials is not kept for some, though the clock goes back', () => {
    const { secret } = settled(requested(halfExpired), had('new', 'none'));
    if (!secret) throw new Error('denied');
    const { verdict } = admit(requested(annotated(secret, { [ANNOTATION.requestedAt]: undefined })), {
      policy: TWO,
      now: NOW - HOUR,
      outcomes: had('new', 'none'),
    });
    expect(verdict).toMatchObject({ warnings: [warning(OTHER_HOST, 'no credentials', THROTTLED)] });
  });

  test('the first registry, not the second', () => {
    const before = expiring(-SECOND, 3 * HOUR);
    const { secret } = settled(requested(before), had('none', 'new'));
    expectEntries(secret, { [OTHER_HOST]: fresh(OTHER_HOST) });
  });
});

describe('no entry is replaced by one that expires sooner, unless forced', () => {
  const long = expiring(11 * HOUR, 11 * HOUR);

  test.each([
    { what: 'a second sooner', ahead: 11 * HOUR - SECOND, taken: false },
    { what: 'at the same time', ahead: 11 * HOUR, taken: true },
    { what: 'a second later', ahead: 11 * HOUR + SECOND, taken: true },
  ])('a token that expires $what', ({ ahead, taken }) => {
    const { verdict, secret } = settled(requested(long), had({ expiresAt: NOW + ahead }, 'new'));
    expectEntries(secret, { [HOST]: taken ? fresh(HOST) : old(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(verdict).toMatchObject({
      action: 'inject',
      warnings: taken ? [] : [warning(HOST, 'kept', EXPIRES_SOONER, formatTime(NOW + 11 * HOUR))],
    });
  });

  test('an older token has to expire later', () => {
    const stale = (ahead: number) =>
      settled(requested(long), had({ expiresAt: NOW + ahead, stale: THROTTLED }, 'new')).secret;
    expectEntries(stale(11 * HOUR), { [HOST]: old(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expectEntries(stale(11 * HOUR + SECOND), { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
  });

  // ECR tells milliseconds, the annotation seconds: the token that is stored already must not pass for a later one.
  test('the same token is no newer one for its milliseconds', () => {
    const ahead = 11 * HOUR;
    const same: Had = { expiresAt: NOW + ahead + 789, stale: THROTTLED };
    expect(settled(requested(long), had(same, same)).verdict).toMatchObject({
      code: 503,
      reason: 'no-token',
    });
    const sooner = had({ expiresAt: NOW + ahead - 1 }, 'new');
    expectEntries(settled(requested(long), sooner).secret, {
      [HOST]: old(HOST),
      [OTHER_HOST]: fresh(OTHER_HOST),
    });
  });

  test('all sooner: a request is denied, another update keeps', () => {
    const soon = had({ expiresAt: NOW + HOUR }, { expiresAt: NOW + HOUR });
    expectNoToken(settled(requested(long), soon).verdict, [HOST, OTHER_HOST], EXPIRES_SOONER);
    const due = expiring(3 * HOUR, 4 * HOUR);
    const { verdict, secret } = settled(touched(due), soon);
    expect(verdict).toMatchObject({ action: 'keep', reason: 'no-token' });
    expectEntries(secret, { [HOST]: old(HOST), [OTHER_HOST]: old(OTHER_HOST) });
  });

  test('an expired entry is replaced by whatever is valid', () => {
    const { secret } = settled(
      requested(expired),
      had({ expiresAt: NOW + SECOND }, { expiresAt: NOW + SECOND, stale: THROTTLED }),
    );
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
  });

  test('forced: it is', () => {
    const { verdict, secret } = settled(forced(long), had({ expiresAt: NOW + HOUR }, 'new'));
    expect(verdict).toMatchObject({ action: 'inject', warnings: [] });
    expectEntries(secret, { [HOST]: fresh(HOST), [OTHER_HOST]: fresh(OTHER_HOST) });
    expect(notesOf(secret).expiresAt).toBe(formatTime(NOW + HOUR));
  });
});

describe('once more: what was settled is kept when the same manifest is sent again', () => {
  test.each([
    { what: 'all fresh', outcomes: had('new', 'new') },
    {
      what: 'tokens of different age',
      outcomes: had('new', { expiresAt: NOW + 9 * HOUR, stale: THROTTLED }),
    },
  ])('$what', ({ outcomes }) => {
    const sent = manifest(FOREIGN_CONFIG);
    const { secret } = settled({ object: sent }, outcomes);
    if (!secret) throw new Error('denied');
    const applied = edited(secret, (copy) => {
      copy.data = { ...copy.data, ...sent.data };
    });
    for (const object of [secret, applied]) {
      const again = settled({ object, oldObject: secret }, []);
      expect(again.first).toMatchObject({ action: 'keep', reason: 'fresh' });
      expect(again.secret).toEqual(secret);
    }
    const replaced = settled({ object: sent, oldObject: secret }, []);
    expect(authsOf(replaced.secret)).toEqual(authsOf(secret));
    expect(notesOf(replaced.secret)).toEqual(notesOf(secret));
    expect(settled({ object: secret, oldObject: secret }, []).verdict).toMatchObject({ patch: [] });
  });

  test('credentials are written for the policy’s registries only', () => {
    const { secret } = admit({ object: manifest() }, { policy: ONE, outcomes: allFresh(ONE) });
    expect(Object.keys(authsOf(secret))).toEqual([HOST]);
    expectOurs(secret, ONE);
  });
});
