// Which Secrets are asked for, in which order, and what an answer amounts to.
import { expect, test } from 'vitest';
import { formatTime, REFRESH_WINDOW_MS } from '../../../../contract/freshness.ts';
import { ANNOTATION } from '../../../../contract/names.ts';
import type { ManagedSecret } from '../../../../functions/refresher/kubernetes/client.ts';
import {
  incompleteRegistries,
  jitterOf,
  outcomeOf,
  plan,
  type Refresh,
} from '../../../../functions/refresher/run/plan.ts';

const NOW = Date.parse('2026-11-23T12:00:00Z');
const HOUR = 3_600_000;

/** @param expires hours from now; or the annotation's value, if it is a string */
function secret(path: string, expires?: number | string, more: Record<string, string> = {}): ManagedSecret {
  const [namespace = '', name = ''] = path.split('/');
  const value = typeof expires === 'number' ? formatTime(NOW + expires * HOUR) : expires;
  return {
    namespace,
    name,
    annotations: { ...(value !== undefined && { [ANNOTATION.expiresAt]: value }), ...more },
  };
}

const planned = (secrets: ManagedSecret[], jitterMs = 0, force = false) =>
  plan(secrets, NOW, jitterMs, force).map(
    (refresh) => `${refresh.secret.namespace}/${refresh.secret.name} ${refresh.reason}`,
  );

test('plans a refresh for each due Secret with its reason, and none for fresh ones', () => {
  const secrets = [
    secret('a/never'),
    secret('b/junk', 'tomorrow'),
    secret('c/far', 14),
    secret('d/expired', -1),
    secret('e/expiring', 5),
    secret('f/fresh', 7),
  ];
  expect(planned(secrets)).toEqual([
    'a/never expiry-missing',
    'b/junk expiry-unreadable',
    'c/far expiry-implausible',
    'd/expired expired',
    'e/expiring expiring',
  ]);
});

test('alternates between namespaces, with the soonest expiry of each first', () => {
  const secrets = [
    secret('a/3', 3),
    secret('a/1', 1),
    secret('a/never'),
    secret('a/fresh', 9),
    secret('a/2', 2),
    secret('b/5', 5),
    secret('b/4', 4),
    secret('c/fresh', 9),
    secret('d/expired', -2),
  ];
  expect(planned(secrets).map((line) => line.split(' ')[0])).toEqual([
    'a/never',
    'b/4',
    'd/expired',
    'a/1',
    'b/5',
    'a/2',
    'a/3',
  ]);
});

test('plans all Secrets if forced, and keeps the reason of those that are due', () => {
  const secrets = [secret('a/fresh', 9), secret('a/expiring', 2)];
  expect(planned(secrets, 0, true)).toEqual(['a/expiring expiring', 'a/fresh forced']);
});

test.each([
  { jitterMs: 0, aheadMs: 0, due: true },
  { jitterMs: 0, aheadMs: 1_000, due: false },
  { jitterMs: 60_000, aheadMs: 59_000, due: true },
  { jitterMs: 60_000, aheadMs: 60_000, due: true },
  { jitterMs: 60_000, aheadMs: 61_000, due: false },
])(
  'with a jitter of $jitterMs ms, a Secret that expires $aheadMs ms after the refresh window is due: $due',
  ({ jitterMs, aheadMs, due }) => {
    const expiry = secret('a/s', formatTime(NOW + REFRESH_WINDOW_MS + aheadMs));
    expect(planned([expiry], jitterMs)).toHaveLength(due ? 1 : 0);
  },
);

test('the jitter of a cluster is constant and below an hour, and spreads the clusters evenly', () => {
  const jitters = Array.from({ length: 1000 }, (_, i) => jitterOf(`cluster-${i}`));
  expect(jitters).toEqual(Array.from({ length: 1000 }, (_, i) => jitterOf(`cluster-${i}`)));
  for (const jitter of jitters) {
    expect(jitter).toBeGreaterThanOrEqual(0);
    expect(jitter).toBeLessThan(HOUR);
  }
  const perQuarter = [0, 1, 2, 3].map(
    (quarter) => jitters.filter((jitter) => Math.floor(jitter / (HOUR / 4)) === quarter).length,
  );
  for (const count of perQuarter) expect(count).toBeGreaterThan(150);
});

interface Case {
  title: string;
  reason: Refresh['reason'];
  before: ManagedSecret;
  after: ManagedSecret;
  outcome: ReturnType<typeof outcomeOf>;
}
const updated = (time: string) => ({ [ANNOTATION.updatedAt]: time });
const sealed = (fingerprint: string) => ({ [ANNOTATION.fingerprint]: fingerprint });

test.each<Case>([
  {
    title: 'for the first credentials',
    reason: 'expiry-missing',
    before: secret('a/s'),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'if there were no credentials and none are written',
    reason: 'expiry-missing',
    before: secret('a/s'),
    after: secret('a/s'),
    outcome: 'not-mutated',
  },
  {
    title: 'for an expiry that moved ahead',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'for the same expiry',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s', 2),
    outcome: 'not-mutated',
  },
  {
    title: 'for the same expiry with a new updated_at',
    reason: 'expiring',
    before: secret('a/s', 2, updated('2026-11-23T02:00:00Z')),
    after: secret('a/s', 2, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
  {
    title: 'for the same expiry with a new fingerprint',
    reason: 'expiring',
    before: secret('a/s', 2, sealed('one')),
    after: secret('a/s', 2, sealed('two')),
    outcome: 'partial',
  },
  {
    title: 'for the same expiry, due by the jitter alone, with a new updated_at',
    reason: 'expiring',
    before: secret('a/s', 6.5, updated('2026-11-23T06:30:00Z')),
    after: secret('a/s', 6.5, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
  {
    title: 'if the namespace is no longer entitled to any registry',
    reason: 'expiring',
    before: secret('a/s', 2, updated('2026-11-23T02:00:00Z')),
    after: secret('a/s', undefined, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
  {
    title: 'for an expiry that moved back',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s', 1),
    outcome: 'not-mutated',
  },
  {
    title: 'for an expiry that was removed',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s'),
    outcome: 'not-mutated',
  },
  {
    title: 'for a later expiry that is due again',
    reason: 'expired',
    before: secret('a/s', -2),
    after: secret('a/s', 5),
    outcome: 'partial',
  },
  {
    title: 'for an expired expiry in place of another',
    reason: 'expired',
    before: secret('a/s', -2),
    after: secret('a/s', -1),
    outcome: 'partial',
  },
  {
    title: 'for a plausible expiry in place of an implausible, later one',
    reason: 'expiry-implausible',
    before: secret('a/s', 1000),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'for the same implausible expiry',
    reason: 'expiry-implausible',
    before: secret('a/s', 1000),
    after: secret('a/s', 1000),
    outcome: 'not-mutated',
  },
  {
    title: 'for an implausible expiry in place of another',
    reason: 'expiry-implausible',
    before: secret('a/s', 1000),
    after: secret('a/s', 1001),
    outcome: 'not-mutated',
  },
  {
    title: 'for a plausible expiry in place of an unreadable one',
    reason: 'expiry-unreadable',
    before: secret('a/s', 'junk'),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'for the same unreadable expiry',
    reason: 'expiry-unreadable',
    before: secret('a/s', 'junk'),
    after: secret('a/s', 'junk'),
    outcome: 'not-mutated',
  },
  {
    title: 'for a forced refresh with a new updated_at and the same expiry',
    reason: 'forced',
    before: secret('a/s', 12, updated('2026-11-23T11:00:00Z')),
    after: secret('a/s', 12, updated('2026-11-23T12:00:00Z')),
    outcome: 'refreshed',
  },
  {
    title: 'for a forced refresh with a new fingerprint in the same second',
    reason: 'forced',
    before: secret('a/s', 12, { ...updated('2026-11-23T12:00:00Z'), ...sealed('one') }),
    after: secret('a/s', 12, { ...updated('2026-11-23T12:00:00Z'), ...sealed('two') }),
    outcome: 'refreshed',
  },
  {
    title: 'for a forced refresh that wrote nothing',
    reason: 'forced',
    before: secret('a/s', 12, { ...updated('2026-11-23T11:00:00Z'), ...sealed('one') }),
    after: secret('a/s', 12, { ...updated('2026-11-23T11:00:00Z'), ...sealed('one') }),
    outcome: 'not-mutated',
  },
  {
    title: 'for a forced refresh after which updated_at is absent',
    reason: 'forced',
    before: secret('a/s', 12, updated('2026-11-23T11:00:00Z')),
    after: secret('a/s', 12),
    outcome: 'not-mutated',
  },
  {
    title: 'for a forced refresh that wrote credentials which are due',
    reason: 'forced',
    before: secret('a/s', 12, updated('2026-11-23T11:00:00Z')),
    after: secret('a/s', 5, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
])('the outcome is $outcome $title', ({ reason, before, after, outcome }) => {
  expect(outcomeOf({ secret: before, reason }, after, NOW)).toBe(outcome);
});

const at = (hours: number) => formatTime(NOW + hours * HOUR);
const withRegistries = (registries: string | undefined, more: Record<string, string> = {}) =>
  secret('a/s', 12, { ...(registries !== undefined && { [ANNOTATION.registries]: registries }), ...more });

interface IncompleteCase {
  title: string;
  /** The annotations `registries` before and after, and `only`. */
  before?: string;
  only?: string;
  after?: string;
  warnings?: string[];
  /** Hosts with their reasons. */
  incomplete: Record<string, string>;
}

test.each<IncompleteCase>([
  {
    title: 'the registries that are due, with their expiry',
    after: `one=${at(12)},two=${at(6)},three=${at(-1)}=role,four=junk,five=${at(7)}=role`,
    incomplete: {
      two: `two: expires at ${at(6)}`,
      three: `three: expires at ${at(-1)}`,
      four: 'four: expires at junk',
    },
  },
  {
    title: 'the registries that are due, with the warning that begins with their host',
    after: `one=${at(12)},two=${at(6)}`,
    warnings: ['other: about two', 'two: kept'],
    incomplete: { two: 'two: kept' },
  },
  {
    title: 'removed registries, if none is due',
    before: `one=${at(2)},two=${at(6)}`,
    after: `one=${at(12)}`,
    warnings: ['other: about two', 'two: removed', 'one: kept'],
    incomplete: { two: 'two: removed' },
  },
  {
    title: 'selected registries that the namespace is not entitled to, if none is due',
    only: 'one, https://Two/v2/',
    after: `one=${at(12)}`,
    warnings: ['two: not given'],
    incomplete: { two: 'two: not given' },
  },
  {
    title: 'no removed registry while another one is due',
    before: `one=${at(2)},two=${at(6)}`,
    after: `one=${at(2)}`,
    warnings: ['two: removed'],
    incomplete: { one: `one: expires at ${at(2)}` },
  },
  { title: 'none without an annotation', incomplete: {} },
  { title: 'none with an empty annotation', after: '', incomplete: {} },
  { title: 'none with an unreadable annotation', after: 'junk', incomplete: {} },
  { title: 'none if all are fresh', after: `one=${at(7)}`, incomplete: {} },
])('incomplete registries are $title', ({ before, only, after, warnings = [], incomplete }) => {
  const from = withRegistries(before, only === undefined ? {} : { [ANNOTATION.only]: only });
  const found = incompleteRegistries(from, { ...withRegistries(after), warnings }, NOW);
  expect(Object.fromEntries(found.map(({ host, reason }) => [host, reason]))).toEqual(incomplete);
});
