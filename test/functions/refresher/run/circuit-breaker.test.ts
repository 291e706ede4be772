// Tests when the circuit breaker stops a cluster or a namespace, and the failures that it reports then.
import { expect, test } from 'vitest';
import { CircuitBreaker, type SharedFailure } from '../../../../functions/refresher/run/circuit-breaker.ts';

const failure = (affects: SharedFailure['affects'], cause: string): SharedFailure => ({
  affects,
  cause,
  code: affects === 'cluster' ? 'server-error' : 'not-mutated',
  reason: `why ${cause}`,
});
const cluster = (cause: string) => failure('cluster', cause);
const namespace = (cause: string) => failure('namespace', cause);

interface Case {
  title: string;
  /** The results of requests, in their order: the namespace, and the failure if it is a shared one. */
  results: [string, SharedFailure | undefined][];
  clusterStops: boolean;
  /** Of the namespaces a and b. */
  namespacesStop: string[];
}
const times = (count: number, result: [string, SharedFailure | undefined]) =>
  Array.from({ length: count }, () => result);

test.each<Case>([
  {
    title: 'stops nothing after four equal failures',
    results: times(4, ['a', cluster('x')]),
    clusterStops: false,
    namespacesStop: [],
  },
  {
    title: 'stops the cluster after five equal failures',
    results: times(5, ['a', cluster('x')]),
    clusterStops: true,
    namespacesStop: [],
  },
  {
    title: 'stops the cluster after five equal failures in two namespaces',
    results: [...times(3, ['a', cluster('x')]), ...times(2, ['b', cluster('x')])],
    clusterStops: true,
    namespacesStop: [],
  },
  {
    title: 'stops nothing if a request in between succeeds',
    results: [...times(4, ['a', cluster('x')]), ['a', undefined], ...times(4, ['a', cluster('x')])],
    clusterStops: false,
    namespacesStop: [],
  },
  {
    title: 'stops nothing if a failure in between has another cause',
    results: [...times(4, ['a', cluster('x')]), ['a', cluster('y')], ...times(4, ['a', cluster('x')])],
    clusterStops: false,
    namespacesStop: [],
  },
  {
    title: 'stops a namespace after five equal failures while another namespace succeeds',
    results: times(5, ['a', namespace('x')]).flatMap((result) => [result, ['b', undefined]]),
    clusterStops: false,
    namespacesStop: ['a'],
  },
  {
    title: 'stops nothing after four failures in each of two namespaces',
    results: times(4, ['a', namespace('x')]).flatMap((result) => [result, ['b', namespace('x')]]),
    clusterStops: false,
    namespacesStop: [],
  },
])('$title', ({ results, clusterStops, namespacesStop }) => {
  const breaker = new CircuitBreaker();
  for (const [name, shared] of results) breaker.record(name, shared);
  expect(breaker.stoppedBy('a namespace without requests') !== undefined).toBe(clusterStops);
  expect(['a', 'b'].filter((name) => breaker.stoppedBy(name))).toEqual(
    clusterStops ? ['a', 'b'] : namespacesStop,
  );
  expect(breaker.failures()).toHaveLength(Number(clusterStops) + namespacesStop.length);
});

test('reports the first failure that stopped the cluster, then those of the namespaces with their names', () => {
  const breaker = new CircuitBreaker();
  for (const result of times(7, ['a', namespace('x')])) breaker.record(...result);
  for (const result of times(7, ['b', cluster('y')])) breaker.record(...result);
  breaker.stop({ code: 'cluster-time-up', reason: 'too late' });
  expect(breaker.failures()).toEqual([
    { code: 'server-error', reason: 'stopped after 5 failures in a row: why y' },
    { code: 'not-mutated', reason: 'namespace a: stopped after 5 failures in a row: why x' },
  ]);
});
