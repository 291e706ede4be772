// The decision for policies with several registries: each is judged on its own, and their order has no effect.

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
  test('does not change what is written', () => {
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

  test('is no reason to inject', () => {
    expect(admit({ object: both, oldObject: both }, { policy: REVERSED }).first).toMatchObject({
      action: 'keep',
      patch: [],
    });
  });
});

describe('stored entries that differ from the policy', () => {
  test('inject if one of two registries is another one, and remove the entry of the old one', () => {
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

  test.each([HOST, OTHER_HOST])('keep restores the entry that the request dropped: %s', (dropped) => {
    const { [dropped]: _, ...auths } = authsOf(both);
    const object = holding(both, JSON.stringify({ auths }));
    const { verdict, secret } = admit({ object, oldObject: both }, { policy: TWO });
    expect(verdict).toMatchObject({ action: 'keep', reason: 'fresh' });
    expect(authsOf(secret)).toEqual({ [HOST]: old(HOST), [OTHER_HOST]: old(OTHER_HOST) });
  });

  test('an entry of CentML/ecr-anywhere for a registry of the policy is not a foreign entry', () => {
    for (const host of [HOST, OTHER_HOST]) {
      const original = manifest(
        JSON.stringify({ auths: { [`https://${host}`]: { auth: encode('AWS:old') } } }),
      );
      const { verdict } = admit({ object: holding(original, 'FAKE'), oldObject: original }, { policy: TWO });
      expect(verdict).toMatchObject({ action: 'inject', reason: 'not-ours' });
    }
  });
});

describe('one registry without a token', () => {
  const [registry] = ONE.registries;
  if (!registry) throw new Error('a registry is needed');
  const none: TokenOutcome[] = [{ registry, error: THROTTLED }];
  const due = stored({ at: NOW - 7 * HOUR });
  const touched = (secret: typeof due) => annotated(secret, { 'example.com/owner': 'alice' });

  test('denies a request with 503', () => {
    const object = annotated(due, { [ANNOTATION.requestedAt]: '2026-03-01T11:59:58Z' });
    expect(admit({ object, oldObject: due }, { outcomes: none }).verdict).toMatchObject({
      action: 'deny',
      code: 503,
      causes: [{ reason: 'no-token' }, causeFor(HOST)],
    });
  });

  test('keeps the owned entry on another update, with a warning', () => {
    const { verdict, secret } = admit({ object: touched(due), oldObject: due }, { outcomes: none });
    expect(verdict).toMatchObject({
      action: 'keep',
      reason: 'no-token',
      warnings: [warning(HOST, 'kept', THROTTLED)],
    });
    expect(secret).toEqual(touched(due));
  });

  test('denies another update with 503 if there are no owned entries', () => {
    const empty = manifest();
    expect(admit({ object: touched(empty), oldObject: empty }, { outcomes: none }).verdict).toMatchObject({
      action: 'deny',
      code: 503,
    });
  });

  test('accepts data that is not a docker config if the stored Secret has no data', () => {
    const empty = manifest();
    const { verdict } = admit(
      { object: holding(empty, 'FAKE'), oldObject: empty },
      { outcomes: allFresh(ONE) },
    );
    expect(verdict).toMatchObject({ action: 'inject', reason: 'not-ours' });
  });
});
