// Tests the metrics of a run over all clusters, and when its invocation fails.

import { expect, test } from 'vitest';
import { ERROR_TYPE, type Outcome, type SecretResult } from '../../../../contract/refresher-api.ts';
import {
  type ClusterReport,
  type Failure,
  notServed,
  paused,
} from '../../../../functions/refresher/run/cluster-report.ts';
import { clusterMetricsOf, metricsOf, runFailure } from '../../../../functions/refresher/run/whole-run.ts';

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

/** The state of a cluster that never failed. */
const NEW = { failures: 0, successes: 0, isPaused: false, codes: [], announced: [] };

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

test('the metrics are the sums over all clusters', () => {
  const reports = [
    served('a', { failed: true, managed: 40, results: results(ALL), soonestExpiry: NOW + 7_200_000 }),
    served('b', { managed: 2, results: results({ refreshed: 1 }), soonestExpiry: NOW + 3_600_000 }),
    served('empty'),
    notServed('c', [failure('no answer')]),
    notServed('d', [failure('not a kubeconfig')]),
    paused('e'),
  ];
  expect(metricsOf(reports, NOW)).toEqual({
    ClustersRegistered: 6,
    ClustersServed: 3,
    ClustersFailed: 3,
    // Without a stored state, they count at once.
    ClustersFailing: 3,
    ClustersFailingForDays: 0,
    ClustersPaused: 1,
    SecretsManaged: 42,
    SecretsDue: 32,
    SecretsRefreshed: 11,
    SecretsRefused: 6,
    SecretsNotAttempted: 5,
    StatesNotSaved: 0,
    SoonestExpiry: 3_600,
  });
});

test('the metric of a cluster counts its failed runs in a row, and is 0 while it is paused', () => {
  const state = { ...NEW, failures: 7 };
  const reports = [
    served('good', { state: NEW }),
    { ...notServed('bad', [failure('no answer')]), state },
    { ...paused('silent'), state },
    // Without a stored state, it counts at once.
    notServed('not-saved', [failure('no answer')]),
  ];
  expect(clusterMetricsOf(reports)).toEqual([
    { cluster: 'good', failures: 0 },
    { cluster: 'bad', failures: 7 },
    { cluster: 'silent', failures: 0 },
    { cluster: 'not-saved', failures: 2 },
  ]);
});

test('SoonestExpiry is negative for an expiry in the past, and absent without any expiry', () => {
  expect(metricsOf([served('a', { soonestExpiry: NOW - 60_000 })], NOW).SoonestExpiry).toBe(-60);
  expect(metricsOf([served('a')], NOW)).not.toHaveProperty('SoonestExpiry');
});

test('SoonestExpiry includes the stored expiry of clusters that were not completely observed, except paused ones', () => {
  const state = { ...NEW, failures: 1, soonestExpiry: NOW + 1_000 };
  const observed = { soonestExpiry: NOW + 2_000 };
  const soonest = (report: ClusterReport) => metricsOf([report], NOW).SoonestExpiry;
  expect(soonest({ ...notServed('a', [failure('down')]), state })).toBe(1);
  expect(soonest({ ...notServed('a', [failure('down')]), state: { ...NEW, failures: 1 } })).toBeUndefined();
  expect(soonest(served('a', { ...observed, state }))).toBe(2);
  expect(soonest(served('a', { ...observed, state, isPartial: true }))).toBe(1);
  expect(soonest(served('a', { ...observed, isPartial: true }))).toBe(2);
  expect(soonest({ ...paused('a'), state })).toBeUndefined();
});

test('a cluster is failing from its second failure on, and failing for days after a day', () => {
  const HOURS = 3_600_000;
  const failing = (name: string, failures: number, hours: number): ClusterReport => ({
    ...notServed(name, [failure('down')]),
    state: { ...NEW, failures, failingSince: NOW - hours * HOURS, soonestExpiry: NOW - hours * HOURS },
  });
  const first = failing('a', 1, 0);
  const second = failing('b', 2, 1);
  const dead = failing('c', 24, 24);
  const gone = { ...dead, isPaused: true };
  const counts = (reports: ClusterReport[]) => {
    const { ClustersFailed, ClustersFailing, ClustersFailingForDays, SoonestExpiry } = metricsOf(
      reports,
      NOW,
    );
    return [ClustersFailed, ClustersFailing, ClustersFailingForDays, SoonestExpiry];
  };
  expect(counts([first])).toEqual([1, 0, 0, 0]);
  expect(counts([first, second, dead])).toEqual([3, 1, 1, -3_600]);
  expect(counts([dead, gone])).toEqual([2, 0, 1, undefined]);
});

test('the metrics cover three thousand clusters', () => {
  const reports = Array.from({ length: 3_000 }, (_, i) => served(`c${i}`, { soonestExpiry: NOW + i }));
  expect(metricsOf(reports, NOW)).toMatchObject({ ClustersServed: 3_000, SoonestExpiry: 0 });
});

test.each<{ title: string; reports: ClusterReport[]; fails: boolean }>([
  { title: 'no cluster is registered', reports: [], fails: false },
  { title: 'all clusters are served', reports: [served('a'), served('b')], fails: false },
  {
    title: 'one of two clusters is served',
    reports: [notServed('a', [failure('down')]), served('b')],
    fails: false,
  },
  {
    title: 'the only cluster is served and all its Secrets were refused',
    reports: [served('a', { failed: true })],
    fails: false,
  },
  {
    title: 'no cluster is served',
    reports: [notServed('a', [failure('down')]), notServed('b', [failure('gone')])],
    fails: true,
  },
  { title: 'all clusters are paused', reports: [paused('a'), paused('b')], fails: false },
  {
    title: 'the only cluster that is not paused is not served',
    reports: [paused('a'), notServed('b', [failure('gone')])],
    fails: true,
  },
])('whether the invocation fails if $title: $fails', ({ reports, fails }) => {
  expect(runFailure(reports)?.name).toBe(fails ? ERROR_TYPE.noClusterServed : undefined);
});

test.each([
  { title: 'one of a thousand states was not stored', lost: 1, of: 1_000, fails: false },
  { title: 'half of the states were not stored', lost: 500, of: 1_000, fails: false },
  { title: 'most states were not stored', lost: 501, of: 1_000, fails: true },
  { title: 'the only state was not stored', lost: 1, of: 1, fails: true },
])('whether the invocation fails if $title: $fails', ({ lost, of, fails }) => {
  const reports = Array.from({ length: of }, (_, index) =>
    served(`c${index}`, index < lost ? { stateNotSaved: 'denied' } : { state: NEW }),
  );
  expect(runFailure(reports)?.name).toBe(fails ? ERROR_TYPE.stateNotSaved : undefined);
  expect(metricsOf(reports, NOW).StatesNotSaved).toBe(lost);
});

test("the error's message has the number of clusters, and the reasons of the first five", () => {
  const reports = Array.from({ length: 3_000 }, (_, i) => notServed(`c${i}`, [failure(`reason ${i}`)]));
  const { message = '' } = runFailure(reports) ?? {};
  expect(message).toMatch(/3000.*c0: reason 0.*c4: reason 4/);
  expect(message).not.toContain('c5');
});
