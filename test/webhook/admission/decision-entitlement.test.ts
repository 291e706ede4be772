// Nobody gets more than their own: namespace × registries × roles × the annotation `only` × what is stored, against set
// arithmetic; and every way that we could think of to be given more.

import { describe, expect, test } from 'vitest';
import { ANNOTATION } from '../../../contract/names.ts';
import type { Entitlement } from '../../../webhook/admission/decision.ts';
import { readPolicy } from '../../../webhook/admission/policy.ts';
import type { TokenOutcome } from '../../../webhook/aws/ecr-tokens.ts';
import type { Registry } from '../../../webhook/aws/registries.ts';
import {
  admit,
  annotated,
  authsOf,
  type Change,
  configText,
  encode,
  entryOf,
  HOUR,
  holding,
  type Manifest,
  manifest,
  NOW,
  notesOf,
  stored,
  THROTTLED,
  tokenFor,
  warning,
} from '../support.ts';

const EVERYBODY = '111111111111.dkr.ecr.eu-central-1.amazonaws.com';
const A = '222222222222.dkr.ecr.eu-central-1.amazonaws.com';
const A_US = '222222222222.dkr.ecr.us-east-1.amazonaws.com';
const B = '333333333333.dkr-ecr.eu-central-1.on.aws';
const SHOPS = '444444444444.dkr.ecr-fips.us-east-1.amazonaws.com';
const PUBLIC = 'public.ecr.aws';
const ALL = [EVERYBODY, A, A_US, B, SHOPS, PUBLIC];
const role = (name: string) => `arn:aws:iam::123456789012:role/${name}`;

const POLICY = readPolicy(
  JSON.stringify({
    registries: [
      { host: EVERYBODY, namespaces: ['*'] },
      { host: A, namespaces: ['team-a'], roleArn: role('a') },
      { host: A_US, namespaces: ['team-a'], roleArn: role('a') },
      { host: B, namespaces: ['team-b', 'team-b-*'], roleArn: role('b'), externalId: 'cluster-b' },
      { host: SHOPS, namespaces: ['shop-*'], roleArn: role('shops') },
      { host: PUBLIC, namespaces: ['team-a', 'shop-*'] },
    ],
  }),
  { region: 'eu-central-1' },
);
/** The same in the words of this test. */
const ENTITLED: Record<string, string[]> = {
  'team-a': [EVERYBODY, A, A_US, PUBLIC],
  'team-b': [EVERYBODY, B],
  'team-b-dev': [EVERYBODY, B],
  'team-bx': [EVERYBODY],
  'shop-1': [EVERYBODY, SHOPS, PUBLIC],
  team: [EVERYBODY],
};
const NAMESPACES = Object.keys(ENTITLED);

/** The annotation, and the hosts that it names. */
const ONLY: { what: string; value: string | undefined; names: string[] }[] = [
  { what: 'absent', value: undefined, names: ALL },
  { what: 'one of all', value: EVERYBODY, names: [EVERYBODY] },
  { what: 'one of some', value: A, names: [A] },
  { what: 'several, with spaces', value: ` ${A} ,\t${B},${EVERYBODY} `, names: [A, B, EVERYBODY] },
  { what: 'as people write them', value: `https://${A.toUpperCase()}/,${PUBLIC}/v2/`, names: [A, PUBLIC] },
  { what: 'all of them', value: ALL.join(','), names: ALL },
  { what: 'a stranger too', value: `${EVERYBODY},ghcr.io`, names: [EVERYBODY] },
  { what: 'a stranger', value: 'ghcr.io', names: [] },
  { what: 'empty', value: '', names: [] },
  { what: 'junk', value: '*,.*,{},,', names: [] },
  { what: 'a repository', value: `${EVERYBODY}/team`, names: [] },
];

const FOREIGN = { 'registry.example.com': { auth: encode('bot:hunter2') } };
const FOREIGN_TEXT = `{ "auths" : {"registry.example.com":  {"auth":"${encode('bot:hunter2')}"} }, "x": 1 }`;

/** The denial where the annotation selects none of the namespace's registries: it names those. */
const DENIED_ONLY = {
  action: 'deny',
  code: 403,
  reason: 'not-entitled',
  message: expect.stringContaining(EVERYBODY),
  causes: [{ reason: 'not-entitled', field: `metadata.annotations[${ANNOTATION.only}]` }],
};

const entitlementOf = (namespace: string): Entitlement => ({ registries: POLICY.entitlements(namespace) });
const allowedHosts = (namespace: string, names: readonly string[]) =>
  (ENTITLED[namespace] ?? []).filter((host) => names.includes(host)).sort();

const inNamespace = (secret: Manifest, namespace: string): Manifest => ({
  ...secret,
  metadata: { ...secret.metadata, namespace },
});
const tokensOf = (registries: readonly Registry[], password = 'new'): TokenOutcome[] =>
  registries.map((registry) => ({
    registry,
    token: tokenFor(registry.host ?? '', NOW + 12 * HOUR, password),
  }));

/** A Secret that the webhook filled with these hosts an hour ago. */
const filled = (hosts: readonly string[], namespace: string): Manifest => {
  const registries = POLICY.registries.filter(({ host = '' }) => hosts.includes(host));
  const at = NOW - HOUR;
  const outcomes = registries.map((registry) => ({
    registry,
    token: tokenFor(registry.host ?? '', at + 12 * HOUR, 'old'),
  }));
  return stored({
    at,
    policy: { registries },
    from: inNamespace(manifest(FOREIGN_TEXT), namespace),
    outcomes,
  });
};

/** Admits with a token for everything that is asked for; notes what was. */
function admitted(change: Change, namespace: string) {
  const result = admit(change, {
    policy: entitlementOf(namespace),
    outcomes: tokensOf(POLICY.registries),
  });
  const asked = result.first.action === 'obtain' ? result.first.registries.map(({ host }) => host) : [];
  return { ...result, asked };
}
const ecrHosts = (secret: Manifest | undefined) =>
  Object.keys(authsOf(secret))
    .filter((host) => ALL.includes(host))
    .sort();

describe.each(NAMESPACES)('in %s', (namespace) => {
  test.each(ONLY)('created, only: $what', ({ value, names }) => {
    const expected = allowedHosts(namespace, names);
    const object = annotated(inNamespace(manifest(FOREIGN_TEXT), namespace), { [ANNOTATION.only]: value });
    const { verdict, secret, asked } = admitted({ object }, namespace);
    expect(asked.toSorted()).toEqual(expected);
    if (expected.length === 0) {
      expect(verdict).toMatchObject(DENIED_ONLY);
      return;
    }
    expect(ecrHosts(secret)).toEqual(expected);
    expect(authsOf(secret)).toMatchObject(FOREIGN);
    expect(configText(secret)).toContain(`"registry.example.com":{"auth":"${encode('bot:hunter2')}"}`);
  });

  const STORED: { what: string; hosts: string[] }[] = [
    { what: 'all that there are', hosts: ALL },
    { what: 'its own', hosts: ENTITLED[namespace] ?? [] },
    { what: 'one of its own', hosts: [EVERYBODY] },
    {
      what: 'one that is not its own',
      hosts: ALL.filter((host) => !ENTITLED[namespace]?.includes(host)).slice(0, 1),
    },
  ];
  describe.each(STORED)('stored: $what', ({ hosts }) => {
    test.each(ONLY)('touched and requested, only: $what', ({ value, names }) => {
      const expected = allowedHosts(namespace, names);
      const before = annotated(filled(hosts, namespace), { [ANNOTATION.only]: value });
      const mark = { [ANNOTATION.requestedAt]: '2026-03-01T11:59:58Z' };
      const changes: Change[] = [
        { object: annotated(before, { 'example.com/owner': 'alice' }), oldObject: before },
        { object: annotated(before, mark), oldObject: before },
        {
          object: annotated(before, { ...mark, [ANNOTATION.force]: '2026-03-01T11:59:58Z' }),
          oldObject: before,
        },
      ];
      for (const change of changes) {
        const { verdict, secret, asked } = admitted(change, namespace);
        for (const host of asked) expect(expected).toContain(host);
        // What is lost leaves now, whatever else is the case.
        expect(verdict.action).not.toBe('deny');
        expect(ecrHosts(secret)).toEqual(expected);
        expect(authsOf(secret)).toMatchObject(FOREIGN);
        const removed = hosts.filter((host) => !expected.includes(host));
        for (const host of removed)
          expect(verdict).toMatchObject({
            warnings: expect.arrayContaining([warning(host, 'removed')]),
          });
        expect(
          notesOf(secret)
            .registries?.split(',')
            .map((item) => item.split('=')[0]),
        ).toEqual(expected.length > 0 ? expected : ['']);
      }
    });
  });
});

describe('attempts to be given more', () => {
  const teamB = filled([EVERYBODY, B], 'team-b');
  const theirs = entryOf(tokenFor(B, 0, 'old'));

  test('a copy of another namespace’s Secret, annotations and all: no token of theirs is asked for or renewed', () => {
    const copy = inNamespace(teamB, 'team');
    const { secret, asked } = admitted({ object: copy }, 'team');
    expect(asked).toEqual([EVERYBODY]);
    // What somebody could read anyway is theirs to keep, as any entry that is not ours; it is never renewed.
    expect(authsOf(secret)[B]).toEqual(theirs);
    expect(notesOf(secret).registries).not.toContain(B);
  });

  test('annotations and data that claim another host, sent with a request', () => {
    const before = filled([EVERYBODY], 'team');
    const mark = '2026-03-01T11:59:58Z';
    for (const forced of [{}, { [ANNOTATION.force]: mark }]) {
      const object = annotated(holding(before, configText(teamB)), {
        ...forced,
        [ANNOTATION.requestedAt]: mark,
        [ANNOTATION.registries]: notesOf(teamB).registries,
        [ANNOTATION.fingerprint]: notesOf(teamB).fingerprint,
        [ANNOTATION.only]: B,
      });
      const { verdict, asked } = admitted({ object, oldObject: before }, 'team');
      expect(asked).toEqual([]);
      expect(verdict).toMatchObject(DENIED_ONLY);
    }
  });

  test('an annotation that names others beside its own: said, and not given', () => {
    const object = annotated(inNamespace(manifest(), 'team'), { [ANNOTATION.only]: `${B},${EVERYBODY}` });
    const { verdict, asked } = admitted({ object }, 'team');
    expect(asked).toEqual([EVERYBODY]);
    expect(verdict).toMatchObject({
      warnings: [warning(B, 'not given')],
    });
  });

  test('thousands of others: some are named', () => {
    const others = Array.from({ length: 2_000 }, (_, index) => `host-${index}.example.com`);
    const only = [EVERYBODY, ...others].join(',');
    const object = annotated(inNamespace(manifest(), 'team'), { [ANNOTATION.only]: only });
    const { verdict } = admitted({ object }, 'team');
    expect(verdict).toMatchObject({ action: 'inject' });
    if (verdict.action !== 'deny') expect(verdict.warnings).toHaveLength(6);
    expect(JSON.stringify(verdict.action !== 'deny' && verdict.warnings)).toContain('1995 more');
  });

  test('an entry for another host of one’s own making stays one’s own', () => {
    const mine = { auth: encode('me:mine') };
    const before = filled([EVERYBODY], 'team');
    const object = holding(before, JSON.stringify({ auths: { ...authsOf(before), [B]: mine } }));
    const { secret, asked } = admitted({ object, oldObject: before }, 'team');
    expect(asked).toEqual([]);
    expect(authsOf(secret)[B]).toEqual(mine);
  });
});

describe('another role for the same host', () => {
  const registryOf = (arn: string | undefined): Registry => ({
    host: A,
    source: { service: 'ecr', region: 'eu-central-1', role: arn === undefined ? undefined : { arn } },
  });
  const givenAs = (arn: string | undefined) => {
    const registries = [registryOf(arn)];
    const token = tokenFor(A, NOW + 11 * HOUR, 'old');
    const outcomes = registries.map((registry) => ({ registry, token }));
    return stored({ policy: { registries }, from: manifest(FOREIGN_TEXT), outcomes });
  };
  const touch = (oldObject: Manifest): Change => ({
    object: annotated(oldObject, { 'example.com/owner': 'alice' }),
    oldObject,
  });

  test.each([
    { what: 'another one', was: role('wide'), is: role('narrow') },
    { what: 'one in place of the webhook’s own', was: undefined, is: role('narrow') },
    { what: 'the webhook’s own in place of one', was: role('wide'), is: undefined },
  ])(
    '$what: its token takes the place of the old one at the next admission, though it expires sooner',
    ({ was, is }) => {
      const policy = { registries: [registryOf(is)] };
      const outcomes = policy.registries.map((registry) => ({
        registry,
        token: tokenFor(A, NOW + 7 * HOUR, 'new'),
      }));
      const { verdict, secret } = admit(touch(givenAs(was)), { policy, outcomes });
      expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed', warnings: [] });
      expect(authsOf(secret)).toEqual({ ...FOREIGN, [A]: entryOf(tokenFor(A, 0, 'new')) });
      if (!secret) throw new Error('denied');
      expect(admit(touch(secret), { policy, outcomes: [] }).first).toMatchObject({
        action: 'keep',
        patch: [],
      });
    },
  );

  test('the same: nothing is asked for', () => {
    const policy = { registries: [registryOf(role('wide'))] };
    expect(admit(touch(givenAs(role('wide'))), { policy, outcomes: [] }).first).toMatchObject({
      action: 'keep',
    });
  });

  test('as long as it gives none, the old token stays until it expires, and that is said', () => {
    const policy = { registries: [registryOf(role('narrow'))] };
    const outcomes = policy.registries.map((registry) => ({ registry, error: THROTTLED }));
    const secret = givenAs(role('wide'));
    const { verdict } = admit(touch(secret), { policy, outcomes });
    expect(verdict).toMatchObject({
      action: 'keep',
      patch: [],
      warnings: [warning(A, 'kept', THROTTLED)],
    });
    const later = admit(touch(secret), { policy, outcomes, now: NOW + 12 * HOUR });
    expect(later.verdict).toMatchObject({ warnings: [warning(A, 'no credentials', THROTTLED)] });
  });
});

describe('a choice that leaves nothing', () => {
  const before = filled([EVERYBODY], 'team');

  test('made now, it is refused, and nothing is lost', () => {
    const object = annotated(before, { [ANNOTATION.only]: 'ghcr.io' });
    const { verdict } = admitted({ object, oldObject: before }, 'team');
    expect(verdict).toMatchObject(DENIED_ONLY);
  });

  test('the policy has changed under it: what is ours goes, the rest stays, and it is due no more', () => {
    const none: Entitlement = { registries: [] };
    const touched = annotated(before, { 'example.com/owner': 'alice' });
    const { verdict, secret } = admit({ object: touched, oldObject: before }, { policy: none, outcomes: [] });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    if (!secret) throw new Error('denied');
    expect(authsOf(secret)).toEqual(FOREIGN);
    expect(notesOf(secret)).toMatchObject({ registries: '', expiresAt: undefined });

    // From then on: a request is refused with the reason, another update passes, a CREATE is refused.
    const admitWith = (change: Change) => admit(change, { policy: none, outcomes: [] }).verdict;
    const again = annotated(secret, { 'example.com/owner': 'bob' });
    expect(admitWith({ object: again, oldObject: secret })).toMatchObject({
      action: 'keep',
      reason: 'not-entitled',
      patch: [],
    });
    const marked = annotated(secret, { [ANNOTATION.requestedAt]: '2026-03-01T11:59:58Z' });
    const refused = {
      action: 'deny',
      code: 403,
      reason: 'not-entitled',
      causes: [{ reason: 'not-entitled', field: 'metadata.namespace' }],
    };
    expect(admitWith({ object: marked, oldObject: secret })).toMatchObject(refused);
    expect(admitWith({ object: inNamespace(manifest(), 'team') })).toMatchObject(refused);

    // And once it is given something again, it has it at the next admission.
    const given = admitted({ object: again, oldObject: secret }, 'team');
    expect(given.verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(ecrHosts(given.secret)).toEqual([EVERYBODY]);
  });

  test('lost in the same breath as a choice is made: it leaves all the same', () => {
    const object = annotated(before, { [ANNOTATION.only]: EVERYBODY });
    const { verdict, secret } = admit(
      { object, oldObject: before },
      { policy: { registries: [] }, outcomes: [] },
    );
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual(FOREIGN);
  });

  test('lost while no token can be had: it leaves all the same', () => {
    const both = filled([EVERYBODY, B], 'team');
    const errors = POLICY.registries.map((registry) => ({ registry, error: THROTTLED }));
    for (const note of [
      { 'example.com/owner': 'alice' },
      { [ANNOTATION.requestedAt]: '2026-03-01T11:59:58Z' },
    ]) {
      const { verdict, secret } = admit(
        { object: annotated(both, note), oldObject: both },
        { policy: entitlementOf('team'), outcomes: errors },
      );
      expect(verdict.action).toBe('inject');
      expect(authsOf(secret)).toEqual({ ...FOREIGN, [EVERYBODY]: entryOf(tokenFor(EVERYBODY, 0, 'old')) });
    }
  });
});

test('more than a Secret can hold is refused with the way out', () => {
  const registries = Array.from({ length: 400 }, (_, index) => ({
    source: { service: 'ecr', region: 'eu-central-1' } as const,
    host: `${100_000_000_000 + index}.dkr.ecr.eu-central-1.amazonaws.com`,
  }));
  const outcomes = registries.map((registry) => ({
    registry,
    token: tokenFor(registry.host, NOW + 12 * HOUR, 'x'.repeat(1_700)),
  }));
  const { verdict } = admit({ object: manifest() }, { policy: { registries }, outcomes });
  expect(verdict).toMatchObject({
    action: 'deny',
    code: 422,
    reason: 'too-large',
    causes: [{ reason: 'too-large', field: 'data' }],
  });
  expect(verdict).toMatchObject({ message: expect.stringContaining(ANNOTATION.only) });
  const some = annotated(manifest(), {
    [ANNOTATION.only]: registries
      .slice(0, 100)
      .map(({ host }) => host)
      .join(),
  });
  expect(admit({ object: some }, { policy: { registries }, outcomes }).verdict.action).toBe('inject');
});
