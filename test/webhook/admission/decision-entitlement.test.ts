// A Secret never gets an entry that its namespace is not entitled to: namespaces × the annotation `only` × stored entries,
// compared with set arithmetic; then known ways to try to get more.

import { describe, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY } from '../../../contract/names.ts';
import { decide, type Entitlement } from '../../../webhook/admission/decision.ts';
import { MAX_SECRET_BYTES } from '../../../webhook/admission/owned-entries.ts';
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
  requestOf,
  stored,
  THROTTLED,
  tokenFor,
  warning,
} from '../support.ts';

const SHARED = '111111111111.dkr.ecr.eu-central-1.amazonaws.com';
const A = '222222222222.dkr.ecr.eu-central-1.amazonaws.com';
const A_US = '222222222222.dkr.ecr.us-east-1.amazonaws.com';
const B = '333333333333.dkr-ecr.eu-central-1.on.aws';
const SHOPS = '444444444444.dkr.ecr-fips.us-east-1.amazonaws.com';
const PUBLIC = 'public.ecr.aws';
const ALL = [SHARED, A, A_US, B, SHOPS, PUBLIC];
const role = (name: string) => `arn:aws:iam::123456789012:role/${name}`;

const POLICY = readPolicy(
  JSON.stringify({
    registries: [
      { host: SHARED, namespaces: ['*'] },
      { host: A, namespaces: ['team-a'], roleArn: role('a') },
      { host: A_US, namespaces: ['team-a'], roleArn: role('a') },
      { host: B, namespaces: ['team-b', 'team-b-*'], roleArn: role('b'), externalId: 'cluster-b' },
      { host: SHOPS, namespaces: ['shop-*'], roleArn: role('shops') },
      { host: PUBLIC, namespaces: ['team-a', 'shop-*'] },
    ],
  }),
  { region: 'eu-central-1' },
);
/** The registries that POLICY gives each namespace. */
const ENTITLED: Record<string, string[]> = {
  'team-a': [SHARED, A, A_US, PUBLIC],
  'team-b': [SHARED, B],
  'team-b-dev': [SHARED, B],
  'team-bx': [SHARED],
  'shop-1': [SHARED, SHOPS, PUBLIC],
  team: [SHARED],
};
const NAMESPACES = Object.keys(ENTITLED);

/** The annotation, and the hosts that it names. */
const ONLY: { what: string; value: string | undefined; names: string[] }[] = [
  { what: 'absent', value: undefined, names: ALL },
  { what: 'one of all', value: SHARED, names: [SHARED] },
  { what: 'one of some', value: A, names: [A] },
  { what: 'several, with spaces', value: ` ${A} ,\t${B},${SHARED} `, names: [A, B, SHARED] },
  { what: 'as people write them', value: `https://${A.toUpperCase()}/,${PUBLIC}/v2/`, names: [A, PUBLIC] },
  { what: 'all of them', value: ALL.join(','), names: ALL },
  { what: 'a registry that is not ECR too', value: `${SHARED},ghcr.io`, names: [SHARED] },
  { what: 'a registry that is not ECR', value: 'ghcr.io', names: [] },
  { what: 'empty', value: '', names: [] },
  { what: 'junk', value: '*,.*,{},,', names: [] },
  { what: 'a repository', value: `${SHARED}/team`, names: [] },
];

const FOREIGN = { 'registry.example.com': { auth: encode('bot:hunter2') } };
const FOREIGN_TEXT = `{ "auths" : {"registry.example.com":  {"auth":"${encode('bot:hunter2')}"} }, "x": 1 }`;

/** The denial where the annotation selects none of the namespace's registries: it names those. */
const DENIED_ONLY = {
  action: 'deny',
  code: 403,
  reason: 'not-entitled',
  message: expect.stringContaining(SHARED),
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

/** Admits with a token for every registry, and returns the hosts that a token was needed for. */
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
  test.each(ONLY)(
    'a CREATE gets the selected registries it is entitled to; only: $what',
    ({ value, names }) => {
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
    },
  );

  const STORED: { what: string; hosts: string[] }[] = [
    { what: 'all registries', hosts: ALL },
    { what: 'all it is entitled to', hosts: ENTITLED[namespace] ?? [] },
    { what: 'one it is entitled to', hosts: [SHARED] },
    {
      what: 'one it is not entitled to',
      hosts: ALL.filter((host) => !ENTITLED[namespace]?.includes(host)).slice(0, 1),
    },
  ];
  describe.each(STORED)('with these stored entries: $what', ({ hosts }) => {
    test.each(ONLY)(
      'an UPDATE keeps only the selected registries it is entitled to; only: $what',
      ({ value, names }) => {
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
          // Entries that the namespace is no longer entitled to are removed in any case.
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
      },
    );
  });
});

describe('attempts to get more registries', () => {
  const teamB = filled([SHARED, B], 'team-b');
  const theirs = entryOf(tokenFor(B, 0, 'old'));

  test("a copy of a Secret of another namespace gets no token for that namespace's registries", () => {
    const copy = inNamespace(teamB, 'team');
    const { secret, asked } = admitted({ object: copy }, 'team');
    expect(asked).toEqual([SHARED]);
    // The copied entry stays as a foreign entry, and is never renewed.
    expect(authsOf(secret)[B]).toEqual(theirs);
    expect(notesOf(secret).registries).not.toContain(B);
  });

  test('a request with annotations and data that claim another host is denied', () => {
    const before = filled([SHARED], 'team');
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

  test('a host in the annotation that the namespace is not entitled to is named in a warning', () => {
    const object = annotated(inNamespace(manifest(), 'team'), { [ANNOTATION.only]: `${B},${SHARED}` });
    const { verdict, asked } = admitted({ object }, 'team');
    expect(asked).toEqual([SHARED]);
    expect(verdict).toMatchObject({
      warnings: [warning(B, 'not given')],
    });
  });

  test('only five of thousands of such hosts are named, and the rest is counted', () => {
    const others = Array.from({ length: 2_000 }, (_, index) => `host-${index}.example.com`);
    const only = [SHARED, ...others].join(',');
    const object = annotated(inNamespace(manifest(), 'team'), { [ANNOTATION.only]: only });
    const { verdict } = admitted({ object }, 'team');
    expect(verdict).toMatchObject({ action: 'inject' });
    if (verdict.action !== 'deny') expect(verdict.warnings).toHaveLength(6);
    expect(JSON.stringify(verdict.action !== 'deny' && verdict.warnings)).toContain('1995 more');
  });

  test('an entry that a user wrote for another ECR host stays as it is', () => {
    const mine = { auth: encode('me:mine') };
    const before = filled([SHARED], 'team');
    const object = holding(before, JSON.stringify({ auths: { ...authsOf(before), [B]: mine } }));
    const { secret, asked } = admitted({ object, oldObject: before }, 'team');
    expect(asked).toEqual([]);
    expect(authsOf(secret)[B]).toEqual(mine);
  });
});

describe('a registry whose role in the policy changed', () => {
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
    { what: 'another role', was: role('wide'), is: role('narrow') },
    { what: "a role in place of the webhook's own identity", was: undefined, is: role('narrow') },
    { what: "the webhook's own identity in place of a role", was: role('wide'), is: undefined },
  ])(
    '$what: its token replaces the entry at the next admission, even if it expires sooner',
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

  test('the same role: no token is needed', () => {
    const policy = { registries: [registryOf(role('wide'))] };
    expect(admit(touch(givenAs(role('wide'))), { policy, outcomes: [] }).first).toMatchObject({
      action: 'keep',
    });
  });

  test('the stored entry stays until it expires if the new role gets no token, with a warning', () => {
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

describe('a Secret with no registry left', () => {
  const before = filled([SHARED], 'team');

  test('is denied if this request sets the annotation that selects none', () => {
    const object = annotated(before, { [ANNOTATION.only]: 'ghcr.io' });
    const { verdict } = admitted({ object, oldObject: before }, 'team');
    expect(verdict).toMatchObject(DENIED_ONLY);
  });

  test('loses its owned entries if the policy changed, keeps the foreign ones, and is no longer due', () => {
    const none: Entitlement = { registries: [] };
    const touched = annotated(before, { 'example.com/owner': 'alice' });
    const { verdict, secret } = admit({ object: touched, oldObject: before }, { policy: none, outcomes: [] });
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    if (!secret) throw new Error('denied');
    expect(authsOf(secret)).toEqual(FOREIGN);
    expect(notesOf(secret)).toMatchObject({ registries: '', expiresAt: undefined });

    // From then on a request and a CREATE are denied, and another update passes.
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

    // If the namespace is entitled again, the next admission injects.
    const given = admitted({ object: again, oldObject: secret }, 'team');
    expect(given.verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(ecrHosts(given.secret)).toEqual([SHARED]);
  });

  test('loses its owned entries if the policy is empty, although this request sets the annotation', () => {
    const object = annotated(before, { [ANNOTATION.only]: SHARED });
    const { verdict, secret } = admit(
      { object, oldObject: before },
      { policy: { registries: [] }, outcomes: [] },
    );
    expect(verdict).toMatchObject({ action: 'inject', reason: 'registries-changed' });
    expect(authsOf(secret)).toEqual(FOREIGN);
  });

  test('loses the entries it is not entitled to, although no token is available', () => {
    const both = filled([SHARED, B], 'team');
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
      expect(authsOf(secret)).toEqual({ ...FOREIGN, [SHARED]: entryOf(tokenFor(SHARED, 0, 'old')) });
    }
  });
});

test('denies a CREATE whose credentials exceed the limit of a Secret', () => {
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

test('allows a Secret of exactly the limit, and denies one byte more', () => {
  const policy = entitlementOf('team');
  const padded = (bytes: number) => {
    const object = manifest('{}');
    return admit(
      { object: { ...object, data: { ...object.data, padding: encode('x'.repeat(bytes)) } } },
      { policy },
    );
  };
  const { secret } = padded(0);
  const room = MAX_SECRET_BYTES - Buffer.byteLength(secret?.data?.[SECRET_KEY] ?? '', 'base64');
  expect(padded(room).verdict).toMatchObject({ action: 'inject' });
  expect(padded(room + 1).verdict).toMatchObject({ action: 'deny', reason: 'too-large' });
});

test.each([5, 6, 7])('names five of %i hosts without entitlement, and counts the others', (count) => {
  const hosts = Array.from({ length: count }, (_, index) => `${index}.example.com`);
  const object = annotated(manifest(), { [ANNOTATION.only]: [SHARED, ...hosts].join() });
  const { verdict } = admit({ object }, { policy: entitlementOf('team') });
  const named = hosts.slice(0, 5).map((host) => warning(host, 'not given'));
  const counted = count > 5 ? [expect.stringContaining(`: ${count - 5} more hosts`)] : [];
  expect(verdict).toMatchObject({ action: 'inject', warnings: [...named, ...counted] });
});

describe('the annotation `only`', () => {
  const many = Array.from({ length: 2_000 }, (_, index): Registry => {
    const account = String(100_000_000_000 + index);
    return {
      source: { service: 'ecr', region: 'eu-central-1', role: { arn: `arn:aws:iam::${account}:role/pull` } },
      host: `${account}.dkr.ecr.eu-central-1.amazonaws.com`,
    };
  });

  test('selects from thousands of registries by thousands of hosts, without a comparison of each with each', () => {
    let reads = 0;
    const counting = many.map(({ source, host }): Registry => {
      return {
        source,
        get host() {
          reads += 1;
          return host;
        },
      };
    });
    const hosts = many.map(({ host }) => `https://${host}/v2/`);
    const object = annotated(manifest(), { [ANNOTATION.only]: hosts.join() });
    const decision = decide(requestOf({ object }), { registries: counting }, NOW);
    expect(decision).toMatchObject({ action: 'obtain', selected: { length: many.length }, warnings: [] });
    expect(reads).toBeLessThan(10 * many.length);
  });

  test('is refused if it is longer than Kubernetes allows', () => {
    const object = annotated(manifest(), { [ANNOTATION.only]: 'a,'.repeat(140_000) });
    expect(decide(requestOf({ object }), { registries: many }, NOW)).toMatchObject({
      action: 'deny',
      code: 403,
      causes: [{ reason: 'not-entitled', field: `metadata.annotations[${ANNOTATION.only}]` }],
    });
  });
});

test('the cache of entitlements forgets the oldest of the names that callers choose', () => {
  const policy = readPolicy(JSON.stringify({ registries: [{ host: SHARED, namespaces: ['*'] }] }), {
    region: 'eu-central-1',
  });
  const first = policy.entitlements('team-a');
  expect(policy.entitlements('team-a')).toBe(first);
  for (const index of Array.from({ length: 10_000 }).keys()) policy.entitlements(`other-${index}`);
  expect(policy.entitlements('team-a')).toEqual(first);
  expect(policy.entitlements('team-a')).not.toBe(first);
});
