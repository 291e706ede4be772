// Which Secrets are asked for, in which order, and what an answer amounts to.
import { expect, test } from 'vitest';
import { formatTime, REFRESH_WINDOW_MS } from '../../../../contract/freshness.ts';
import { ANNOTATION } from '../../../../contract/names.ts';
import type { ManagedSecret } from '../../../../functions/refresher/kubernetes/client.ts';
import {
  dueRegistries,
  jitterOf,
  outcomeOf,
  plan,
  type Refresh,
} from '../../../../functions/refresher/run/plan.ts';

const NOW = Date.parse('2026-11-23T12:00:00Z');
const HOUR = 3_600_000;

/** A Secret by its path, which expires so many hours from now; no number: the annotation as it is. */
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

test('due Secrets are asked for, each with its reason; fresh ones are not', () => {
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

test('namespaces take turns, and in each the soonest expiry is first', () => {
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
    ...['a/never', 'b/4', 'd/expired'],
    ...['a/1', 'b/5'],
    ...['a/2'],
    ...['a/3'],
  ]);
});

test('forced, all are asked for; what is due anyway keeps its reason', () => {
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
  'a jitter of $jitterMs ms, expiry $aheadMs ms after the window: due is $due',
  ({ jitterMs, aheadMs, due }) => {
    const expiry = secret('a/s', formatTime(NOW + REFRESH_WINDOW_MS + aheadMs));
    expect(planned([expiry], jitterMs)).toHaveLength(due ? 1 : 0);
  },
);

test("a cluster's jitter is always the same, below an hour, and spreads clusters", () => {
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
    title: 'the first credentials',
    reason: 'expiry-missing',
    before: secret('a/s'),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'none written, none before',
    reason: 'expiry-missing',
    before: secret('a/s'),
    after: secret('a/s'),
    outcome: 'not-mutated',
  },
  {
    title: 'an expiry that moved ahead',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'an expiry that stayed',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s', 2),
    outcome: 'not-mutated',
  },
  {
    title: 'an expiry that stayed, though updated_at did not',
    reason: 'expiring',
    before: secret('a/s', 2, updated('2026-11-23T02:00:00Z')),
    after: secret('a/s', 2, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
  {
    title: 'an expiry that stayed, though other credentials were written',
    reason: 'expiring',
    before: secret('a/s', 2, sealed('one')),
    after: secret('a/s', 2, sealed('two')),
    outcome: 'partial',
  },
  {
    title: 'an expiry that stayed and is due by the jitter alone, though other credentials were written',
    reason: 'expiring',
    before: secret('a/s', 6.5, updated('2026-11-23T06:30:00Z')),
    after: secret('a/s', 6.5, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
  {
    title: 'nothing left to be entitled to',
    reason: 'expiring',
    before: secret('a/s', 2, updated('2026-11-23T02:00:00Z')),
    after: secret('a/s', undefined, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
  {
    title: 'an expiry that moved back',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s', 1),
    outcome: 'not-mutated',
  },
  {
    title: 'an expiry that went away',
    reason: 'expiring',
    before: secret('a/s', 2),
    after: secret('a/s'),
    outcome: 'not-mutated',
  },
  {
    title: 'an expiry ahead, but due again',
    reason: 'expired',
    before: secret('a/s', -2),
    after: secret('a/s', 5),
    outcome: 'partial',
  },
  {
    title: 'an expired one for an expired one',
    reason: 'expired',
    before: secret('a/s', -2),
    after: secret('a/s', -1),
    outcome: 'partial',
  },
  {
    title: 'a believable expiry for an implausible one, though it is sooner',
    reason: 'expiry-implausible',
    before: secret('a/s', 1000),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'an implausible one that stayed',
    reason: 'expiry-implausible',
    before: secret('a/s', 1000),
    after: secret('a/s', 1000),
    outcome: 'not-mutated',
  },
  {
    title: 'an implausible one for an implausible one',
    reason: 'expiry-implausible',
    before: secret('a/s', 1000),
    after: secret('a/s', 1001),
    outcome: 'not-mutated',
  },
  {
    title: 'a believable expiry for junk',
    reason: 'expiry-unreadable',
    before: secret('a/s', 'junk'),
    after: secret('a/s', 12),
    outcome: 'refreshed',
  },
  {
    title: 'junk for junk',
    reason: 'expiry-unreadable',
    before: secret('a/s', 'junk'),
    after: secret('a/s', 'junk'),
    outcome: 'not-mutated',
  },
  {
    title: 'forced: written now, the expiry the same',
    reason: 'forced',
    before: secret('a/s', 12, updated('2026-11-23T11:00:00Z')),
    after: secret('a/s', 12, updated('2026-11-23T12:00:00Z')),
    outcome: 'refreshed',
  },
  {
    title: 'forced: other entries within the same second',
    reason: 'forced',
    before: secret('a/s', 12, { ...updated('2026-11-23T12:00:00Z'), ...sealed('one') }),
    after: secret('a/s', 12, { ...updated('2026-11-23T12:00:00Z'), ...sealed('two') }),
    outcome: 'refreshed',
  },
  {
    title: 'forced: nothing written',
    reason: 'forced',
    before: secret('a/s', 12, { ...updated('2026-11-23T11:00:00Z'), ...sealed('one') }),
    after: secret('a/s', 12, { ...updated('2026-11-23T11:00:00Z'), ...sealed('one') }),
    outcome: 'not-mutated',
  },
  {
    title: 'forced: our annotations gone',
    reason: 'forced',
    before: secret('a/s', 12, updated('2026-11-23T11:00:00Z')),
    after: secret('a/s', 12),
    outcome: 'not-mutated',
  },
  {
    title: 'forced: written, and due all the same',
    reason: 'forced',
    before: secret('a/s', 12, updated('2026-11-23T11:00:00Z')),
    after: secret('a/s', 5, updated('2026-11-23T12:00:00Z')),
    outcome: 'partial',
  },
])('$title: $outcome', ({ reason, before, after, outcome }) => {
  expect(outcomeOf({ secret: before, reason }, after, NOW)).toBe(outcome);
});

test('the registries that keep a Secret due are told with their expiry', () => {
  const registries = (value?: string) =>
    dueRegistries(secret('a/s', 12, value === undefined ? {} : { [ANNOTATION.registries]: value }), NOW);
  const at = (hours: number) => formatTime(NOW + hours * HOUR);
  expect([
    ...registries(`one=${at(12)},two=${at(6)},three=${at(-1)}=role,four=junk,five=${at(7)}=role`),
  ]).toEqual([
    ['two', at(6)],
    ['three', at(-1)],
    ['four', 'junk'],
  ]);
  for (const none of [undefined, '', 'junk', `one=${at(7)}`]) expect(registries(none).size).toBe(0);
});
