// Tests the function's answer: the summaries of clusters, and what is left out of an answer that is too large.

import { describe, expect, test } from 'vitest';
import type { Outcome, SecretResult } from '../../../../contract/refresher-api.ts';
import {
  type ClusterReport,
  type Failure,
  notServed,
} from '../../../../functions/refresher/run/cluster-report.ts';
import { summarize, summarizeAll, summarizeNamed } from '../../../../functions/refresher/run/summaries.ts';

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

/** So many Secrets of each outcome. */
const ALL: Record<Outcome, number> = {
  refreshed: 10,
  partial: 1,
  'not-mutated': 2,
  refused: 3,
  provisioned: 6,
  'not-provisioned': 7,
  gone: 4,
  'not-attempted': 5,
};

const failure = (reason: string): Failure => ({ code: 'unreachable', reason });

test('a summary counts the outcomes and lists the Secrets that were not refreshed', () => {
  const report = served('a', {
    failed: true,
    reason: 'stopped',
    codes: ['server-error', 'secrets-not-refreshed'],
    managed: 40,
    results: results(ALL),
    soonestExpiry: NOW,
  });
  const { problems, ...summary } = summarize(report);
  expect(summary).toEqual({
    cluster: 'a',
    served: true,
    failed: true,
    reason: 'stopped',
    codes: ['server-error', 'secrets-not-refreshed'],
    managed: 40,
    due: 31,
    outcomes: ALL,
    soonestExpiry: '2026-11-23T12:00:00.000Z',
  });
  const listed = new Set(problems.map(({ outcome }) => outcome));
  expect(listed).toEqual(new Set<Outcome>(['partial', 'not-mutated', 'refused', 'not-provisioned', 'gone']));
});

test('a summary lists twenty of hundreds of refused Secrets', () => {
  const { problems, outcomes } = summarize(served('a', { results: results({ refused: 500 }) }));
  expect(problems).toHaveLength(20);
  expect(outcomes).toEqual({ refused: 500 });
});

describe('the answer of all clusters', () => {
  const reason = 'ü"'.repeat(200);
  const failing = (index: number): ClusterReport => ({
    ...notServed(
      `arn:aws:eks:eu-central-1:123456789012:cluster/prod-${index}`,
      [failure(reason)],
      'permissions',
    ),
    state: {
      failures: 12,
      failingSince: NOW,
      reachedAt: NOW,
      successes: 0,
      isPaused: false,
      codes: [],
      announced: [],
    },
    stateNotSaved: reason,
    renewal: { outcome: 'failed', reason },
    inspection: { server: 'https://x', identity: 'token', forbidden: Array(50).fill('list secrets in team') },
    results: results({ refused: 20 }).map((result) => ({ ...result, reason })),
  });
  const bytesOf = (value: unknown) => Buffer.byteLength(JSON.stringify(value));

  test('has the complete summaries, if they fit', () => {
    const reports = [failing(0), served('b', { results: results(ALL) })];
    expect(summarizeAll(reports)).toEqual(reports.map(summarize));
  });

  test.each([
    { title: 'all clusters', answerOf: summarizeAll },
    { title: 'all clusters by their names', answerOf: summarizeNamed },
  ])(
    'fits into a Lambda response if ten thousand clusters fail, and counts what it leaves out: $title',
    ({ answerOf }) => {
      const summaries = answerOf(Array.from({ length: 10_000 }, (_, index) => failing(index)));
      expect(summaries).toHaveLength(10_000);
      // Lambda quotas, "Invocation payload".
      expect(bytesOf({ clusters: summaries })).toBeLessThan(6_000_000);
      for (const summary of summaries) {
        const { failedAt, codes, reason: text = '', problems, problemsNotListed = 0, ...rest } = summary;
        expect(failedAt).toBe('permissions');
        expect(codes).toEqual(['unreachable']);
        expect(text.length).toBeGreaterThanOrEqual(40);
        expect(problems.length + problemsNotListed).toBe(20);
        expect('inspection' in rest || rest.inspectionNotListed).toBe(true);
      }
    },
  );

  test('is shared evenly by the clusters that need it, and complete for one that needs little', () => {
    const reports = [...Array.from({ length: 200 }, (_, index) => failing(index)), served('healthy')];
    const summaries = summarizeAll(reports, 500_000);
    expect(bytesOf(summaries)).toBeLessThanOrEqual(500_000);
    expect(bytesOf(summaries)).toBeGreaterThan(350_000);
    expect(summaries.at(-1)).toEqual(summarize(served('healthy')));
    const listed = summaries.slice(0, 200).map(({ problems }) => problems.length);
    expect(Math.max(...listed) - Math.min(...listed)).toBeLessThanOrEqual(1);
  });
});

describe('the results of named clusters', () => {
  test('are complete and in the order of the requests, if they fit', () => {
    const [summary] = summarizeNamed([served('a', { failed: true, results: results(ALL) })]);
    expect(summary?.secrets).toEqual(results(ALL));
    expect(summary).not.toHaveProperty('secretsNotListed');
    expect(summarizeNamed([notServed('b', [failure('down')])])).toEqual([
      { ...summarize(notServed('b', [failure('down')])), secrets: [] },
    ]);
  });

  test('fill the answer, with the number of those that are left out', () => {
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

  test('share the answer evenly, and leave what they do not need to the next clusters', () => {
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
