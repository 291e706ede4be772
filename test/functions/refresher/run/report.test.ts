// A run's figures, and when it counts as failed.

import { describe, expect, test } from 'vitest';
import type { Outcome, SecretResult } from '../../../../contract/refresher-api.ts';
import { type ClusterReport, notServed, paused } from '../../../../functions/refresher/run/cluster.ts';
import {
  failureOf,
  metricsOf,
  summarize,
  summarizeAll,
  summarizeNamed,
} from '../../../../functions/refresher/run/report.ts';

const NOW = Date.parse('2026-11-23T12:00:00Z');

function results(counts: Partial<Record<Outcome, number>>): SecretResult[] {
  return Object.entries(counts).flatMap(([outcome, count]) =>
    Array.from({ length: count }, (_, i) => ({
      secret: `ns/${outcome}-${i}`,
      due: 'expired' as const,
      outcome: outcome as Outcome,
      reason: `why ${outcome}`,
    })),
  );
}

function served(cluster: string, more: Partial<ClusterReport> = {}): ClusterReport {
  return { cluster, served: true, failed: false, namespaces: [], managed: 0, results: [], ...more };
}

const ALL: Record<Outcome, number> = {
  refreshed: 10,
  partial: 1,
  'not-mutated': 2,
  refused: 3,
  gone: 4,
  'not-attempted': 5,
};

test('the metrics add up what the clusters report', () => {
  const reports = [
    served('a', { failed: true, managed: 40, results: results(ALL), soonestExpiry: NOW + 7_200_000 }),
    served('b', { managed: 2, results: results({ refreshed: 1 }), soonestExpiry: NOW + 3_600_000 }),
    served('empty'),
    notServed('c', 'no answer'),
    notServed('d', 'not a kubeconfig'),
    paused('e'),
  ];
  expect(metricsOf(reports, NOW)).toEqual({
    ClustersRegistered: 6,
    ClustersServed: 3,
    ClustersFailed: 3,
    ClustersPaused: 1,
    SecretsManaged: 42,
    SecretsDue: 26,
    SecretsRefreshed: 11,
    SecretsRefused: 6,
    SecretsNotAttempted: 5,
    SoonestExpiry: 3_600,
  });
});

test('an expiry that has passed is negative; without any there is no figure', () => {
  expect(metricsOf([served('a', { soonestExpiry: NOW - 60_000 })], NOW).SoonestExpiry).toBe(-60);
  expect(metricsOf([served('a')], NOW)).not.toHaveProperty('SoonestExpiry');
});

test('what is known counts where not all could be seen, and not where nobody looks', () => {
  const known = { failures: 1, soonestExpiry: NOW + 1_000 };
  const seen = { soonestExpiry: NOW + 2_000 };
  const figure = (report: ClusterReport) => metricsOf([report], NOW).SoonestExpiry;
  expect(figure({ ...notServed('a', 'down'), known })).toBe(1);
  expect(figure({ ...notServed('a', 'down'), known: { failures: 1 } })).toBeUndefined();
  expect(figure(served('a', { ...seen, known }))).toBe(2);
  expect(figure(served('a', { ...seen, known, isPartial: true }))).toBe(1);
  expect(figure(served('a', { ...seen, isPartial: true }))).toBe(2);
  expect(figure({ ...paused('a'), known })).toBeUndefined();
});

test('figures of three thousand clusters', () => {
  const reports = Array.from({ length: 3_000 }, (_, i) => served(`c${i}`, { soonestExpiry: NOW + i }));
  expect(metricsOf(reports, NOW)).toMatchObject({ ClustersServed: 3_000, SoonestExpiry: 0 });
});

test.each([
  { title: 'no cluster is registered', reports: [], fails: false },
  { title: 'all are served', reports: [served('a'), served('b')], fails: false },
  { title: 'one of two is served', reports: [notServed('a', 'down'), served('b')], fails: false },
  {
    title: 'the only one is served, and all its Secrets were refused',
    reports: [served('a', { failed: true })],
    fails: false,
  },
  { title: 'none is served', reports: [notServed('a', 'down'), notServed('b', 'gone')], fails: true },
  { title: 'all are paused', reports: [paused('a'), paused('b')], fails: false },
  {
    title: 'the only one that is not paused is not served',
    reports: [paused('a'), notServed('b', 'gone')],
    fails: true,
  },
])('the invocation, where $title: fails is $fails', ({ reports, fails }) => {
  expect(failureOf(reports) !== undefined).toBe(fails);
});

test("the invocation's failure says how many, and names some with their reasons", () => {
  const reports = Array.from({ length: 3_000 }, (_, i) => notServed(`c${i}`, `reason ${i}`));
  expect(failureOf(reports)).toMatch(/3000.*c0: reason 0.*c4: reason 4/);
  expect(failureOf(reports)).not.toContain('c5');
});

test('a summary counts outcomes and lists what went wrong', () => {
  const report = served('a', {
    failed: true,
    reason: 'ended',
    managed: 40,
    results: results(ALL),
    soonestExpiry: NOW,
  });
  const { problems, ...figures } = summarize(report);
  expect(figures).toEqual({
    cluster: 'a',
    served: true,
    failed: true,
    reason: 'ended',
    managed: 40,
    due: 25,
    outcomes: ALL,
    soonestExpiry: '2026-11-23T12:00:00.000Z',
  });
  const listed = new Set(problems.map(({ outcome }) => outcome));
  expect(listed).toEqual(new Set<Outcome>(['partial', 'not-mutated', 'refused', 'gone']));
});

test('a summary stays small where hundreds were refused', () => {
  const { problems, outcomes } = summarize(served('a', { results: results({ refused: 500 }) }));
  expect(problems).toHaveLength(20);
  expect(outcomes).toEqual({ refused: 500 });
});

describe('an answer of all clusters', () => {
  const reason = 'ü"'.repeat(200);
  const failing = (index: number): ClusterReport => ({
    ...notServed(`arn:aws:eks:eu-central-1:123456789012:cluster/prod-${index}`, reason, 'permissions'),
    known: { failures: 12, failingSince: NOW, reachedAt: NOW },
    stateNotSaved: reason,
    renewal: { outcome: 'failed', reason },
    inspection: { server: 'https://x', identity: 'token', forbidden: Array(50).fill('list secrets in team') },
    results: results({ refused: 20 }).map((result) => ({ ...result, reason })),
  });
  const bytesOf = (value: unknown) => Buffer.byteLength(JSON.stringify(value));

  test('has all there is of it, where it can', () => {
    const reports = [failing(0), served('b', { results: results(ALL) })];
    expect(summarizeAll(reports)).toEqual(reports.map(summarize));
  });

  test.each([
    { title: 'all of them', answerOf: summarizeAll },
    { title: 'all of them by their names', answerOf: summarizeNamed },
  ])(
    'stays below what Lambda answers where ten thousand fail, and says what it leaves out: $title',
    ({ answerOf }) => {
      const summaries = answerOf(Array.from({ length: 10_000 }, (_, index) => failing(index)));
      expect(summaries).toHaveLength(10_000);
      // Lambda quotas, "Invocation payload".
      expect(bytesOf({ clusters: summaries })).toBeLessThan(6_000_000);
      for (const { failedAt, reason: said = '', problems, problemsNotListed = 0, ...rest } of summaries) {
        expect(failedAt).toBe('permissions');
        expect(said.length).toBeGreaterThanOrEqual(40);
        expect(problems.length + problemsNotListed).toBe(20);
        expect('inspection' in rest || rest.inspectionNotListed).toBe(true);
      }
    },
  );

  test('is shared by those that need it: one that has much takes nothing from the others', () => {
    const reports = [...Array.from({ length: 200 }, (_, index) => failing(index)), served('well')];
    const summaries = summarizeAll(reports, 500_000);
    expect(bytesOf(summaries)).toBeLessThanOrEqual(500_000);
    expect(bytesOf(summaries)).toBeGreaterThan(350_000);
    expect(summaries.at(-1)).toEqual(summarize(served('well')));
    const listed = summaries.slice(0, 200).map(({ problems }) => problems.length);
    expect(Math.max(...listed) - Math.min(...listed)).toBeLessThanOrEqual(1);
  });
});

describe('the Secrets of clusters that are named', () => {
  test('are all there, in the order of the requests', () => {
    const [summary] = summarizeNamed([served('a', { failed: true, results: results(ALL) })]);
    expect(summary?.secrets).toEqual(results(ALL));
    expect(summary).not.toHaveProperty('secretsNotListed');
    expect(summarizeNamed([notServed('b', 'down')])).toEqual([
      { ...summarize(notServed('b', 'down')), secrets: [] },
    ]);
  });

  test("as many as Lambda's answer can hold, and the number of the others", () => {
    const reason = 'ü'.repeat(400);
    const many = results({ refused: 20_000 }).map((result) => ({ ...result, reason }));
    const [summary, ...others] = summarizeNamed([served('a', { failed: true, results: many })]);
    expect(others).toEqual([]);
    expect(summary?.secrets?.length).toBeGreaterThan(1_000);
    expect(summary?.secrets).toEqual(many.slice(0, summary?.secrets?.length));
    expect((summary?.secrets?.length ?? 0) + (summary?.secretsNotListed ?? 0)).toBe(20_000);
    const bytes = Buffer.byteLength(JSON.stringify({ clusters: [summary] }));
    expect(bytes).toBeLessThanOrEqual(3_000_100);
    expect(bytes).toBeGreaterThan(2_990_000);
  });

  test('share the answer evenly, and leave to the next ones what they do not need', () => {
    const cluster = (name: string, length: number) =>
      served(name, { results: results({ refreshed: length }) });
    const reports = [cluster('few', 3), cluster('many', 1_000), cluster('more', 1_000)];
    const bytes = 50_000;
    const summaries = summarizeNamed(reports, bytes);
    const [few = 0, many = 0, more = 0] = summaries.map(({ secrets }) => secrets?.length);
    expect(few).toBe(3);
    expect(many).toBeGreaterThan(100);
    expect(Math.abs(many - more)).toBeLessThanOrEqual(2);
    expect(Buffer.byteLength(JSON.stringify(summaries))).toBeLessThan(bytes + 1_000);
    expect(
      summarizeNamed(reports, 10).map(({ secrets, secretsNotListed }) => [secrets, secretsNotListed]),
    ).toEqual([3, 1_000, 1_000].map((length) => [[], length]));
  });
});
