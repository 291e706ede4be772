// The decision tables where the policy has several registries: each is looked at for itself, and their order is nobody's business.

import { describe, expect, test } from 'vitest';
import { ANNOTATION } from '../../../contract/names.ts';
import type { Entitlement } from '../../../webhook/admission/decision.ts';
import type { TokenOutcome } from '../../../webhook/aws/ecr-tokens.ts';
import {
  admit,
  allFresh,
  annotated,
  authsOf,
  causeFor,
  encode,
  entryOf,
  HOST,
  HOUR,
  holding,
  manifest,
  NOW,
  notesOf,
  ONE,
  OTHER_HOST,
  stored,
  THROTTLED,
  TWO,
  tokenFor,
  warning,
} from '../support.ts';

const THIRD_HOST = HOST.replace('eu-central-1', 'eu-west-1');
const REVERSED: Entitlement = { ...TWO, registries: TWO.registries.toReversed() };
const both = stored({ policy: TWO });
const old = (host: string) => entryOf(tokenFor(host, 0, 'old'));

describe('the order of the registries in the policy', () => {
  test('changes nothing of what is written', () => {
    const object = manifest();
    const inOrder = admit({ object }, { policy: TWO }).secret;
    expect(inOrder).toBeDefined();
    expect(admit({ object }, { policy: REVERSED }).secret).toEqual(inOrder);
    expect(
      notesOf(inOrder)
        .registries?.split(',')
        .map((item) => item.split('=')[0]),
    ).toEqual([HOST, OTHER_HOST]);
  });

  test('is no reason to inject again', () => {
    expect(admit({ object: both, oldObject: both }, { policy: REVERSED }).first).toMatchObject({
      action: 'keep',
      patch: [],
    });
  });
});

describe('the stored entries against the policy', () => {
  test('one of two is another one: inject, and the one that is no longer entitled goes', () => {
    const policy: Entitlement = {
      registries: [
        { source: { service: 'ecr', region: 'eu-central-1' }, host: HOST },
        { source: { service: 'ecr', region: 'eu-west-1' }, host: THIRD_HOST },
      ],
    };
    const { verdict, secret } = admit({ object: both, oldObject: both }, { policy });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(Object.keys(authsOf(secret))).toEqual([HOST, THIRD_HOST]);
  });

  test.each([HOST, OTHER_HOST])('keep restores the one that was dropped: %s', (dropped) => {
    const { [dropped]: _, ...auths } = authsOf(both);
    const object = holding(both, JSON.stringify({ auths }));
    const { verdict, secret } = admit({ object, oldObject: both }, { policy: TWO });
    expect(verdict).toMatchObject({ action: 'keep', reason: 'fresh' });
    expect(authsOf(secret)).toEqual({ [HOST]: old(HOST), [OTHER_HOST]: old(OTHER_HOST) });
  });

  test('an entry of either registry as the original wrote it is nothing to lose', () => {
    for (const host of [HOST, OTHER_HOST]) {
      const original = manifest(
        JSON.stringify({ auths: { [`https://${host}`]: { auth: encode('AWS:old') } } }),
      );
      const { verdict } = admit({ object: holding(original, 'FAKE'), oldObject: original }, { policy: TWO });
      expect(verdict).toMatchObject({ action: 'inject', reason: 'not-ours' });
    }
  });
});

describe('one registry, and no token', () => {
  const [registry] = ONE.registries;
  if (!registry) throw new Error('a registry is needed');
  const none: TokenOutcome[] = [{ registry, error: THROTTLED }];
  const due = stored({ at: NOW - 7 * HOUR });
  const touched = (secret: typeof due) => annotated(secret, { 'example.com/owner': 'alice' });

  test('a request: deny, 503', () => {
    const object = annotated(due, { [ANNOTATION.requestedAt]: '2026-03-01T11:59:58Z' });
    expect(admit({ object, oldObject: due }, { outcomes: none }).verdict).toMatchObject({
      action: 'deny',
      code: 503,
      causes: [{ reason: 'no-token' }, causeFor(HOST)],
    });
  });

  test('another update: keep ours, with a warning', () => {
    const { verdict, secret } = admit({ object: touched(due), oldObject: due }, { outcomes: none });
    expect(verdict).toMatchObject({
      action: 'keep',
      reason: 'no-token',
      warnings: [warning(HOST, 'kept', THROTTLED)],
    });
    expect(secret).toEqual(touched(due));
  });

  test('another update, nothing of ours: deny, 503', () => {
    const empty = manifest();
    expect(admit({ object: touched(empty), oldObject: empty }, { outcomes: none }).verdict).toMatchObject({
      action: 'deny',
      code: 503,
    });
  });

  test('a stored Secret without data has nothing to lose', () => {
    const empty = manifest();
    const { verdict } = admit(
      { object: holding(empty, 'FAKE'), oldObject: empty },
      { outcomes: allFresh(ONE) },
    );
    expect(verdict).toMatchObject({ action: 'inject', reason: 'not-ours' });
  });
});
