// When a turn ends early, and whose.
import { expect, test } from 'vitest';
import { type Fault, Streaks } from '../../../../functions/refresher/run/circuit-breaker.ts';

const of = (whose: Fault['of'], cause: string): Fault => ({ of: whose, cause, reason: `why ${cause}` });
const cluster = (cause: string) => of('cluster', cause);
const namespace = (cause: string) => of('namespace', cause);

interface Case {
  title: string;
  notes: [string, Fault | undefined][];
  clusterEnds: boolean;
  /** Of the namespaces a and b. */
  namespacesEnd: string[];
}
const times = (count: number, note: [string, Fault | undefined]) => Array.from({ length: count }, () => note);

test.each<Case>([
  { title: 'four alike', notes: times(4, ['a', cluster('x')]), clusterEnds: false, namespacesEnd: [] },
  { title: 'five alike', notes: times(5, ['a', cluster('x')]), clusterEnds: true, namespacesEnd: [] },
  {
    title: 'five alike over two namespaces',
    notes: [...times(3, ['a', cluster('x')]), ...times(2, ['b', cluster('x')])],
    clusterEnds: true,
    namespacesEnd: [],
  },
  {
    title: 'a good one in between',
    notes: [...times(4, ['a', cluster('x')]), ['a', undefined], ...times(4, ['a', cluster('x')])],
    clusterEnds: false,
    namespacesEnd: [],
  },
  {
    title: 'another cause in between',
    notes: [...times(4, ['a', cluster('x')]), ['a', cluster('y')], ...times(4, ['a', cluster('x')])],
    clusterEnds: false,
    namespacesEnd: [],
  },
  {
    title: "five of a namespace's, with another namespace doing well",
    notes: times(5, ['a', namespace('x')]).flatMap((note) => [note, ['b', undefined]]),
    clusterEnds: false,
    namespacesEnd: ['a'],
  },
  {
    title: 'four in each of two namespaces',
    notes: times(4, ['a', namespace('x')]).flatMap((note) => [note, ['b', namespace('x')]]),
    clusterEnds: false,
    namespacesEnd: [],
  },
])('$title', ({ notes, clusterEnds, namespacesEnd }) => {
  const streaks = new Streaks();
  for (const [name, fault] of notes) streaks.note(name, fault);
  expect(streaks.hasEnded('never heard of')).toBe(clusterEnds);
  expect(['a', 'b'].filter((name) => streaks.hasEnded(name))).toEqual(
    clusterEnds ? ['a', 'b'] : namespacesEnd,
  );
  expect(streaks.reasons()).toHaveLength(Number(clusterEnds) + namespacesEnd.length);
});

test('the reason names how many, why, and the namespace where it is one', () => {
  const streaks = new Streaks();
  for (const note of times(7, ['a', namespace('x')])) streaks.note(...note);
  for (const note of times(7, ['b', cluster('y')])) streaks.note(...note);
  streaks.end('too late');
  expect(streaks.reasons()).toEqual([
    'ended after 5 failures in a row: why y',
    'namespace a: ended after 5 failures in a row: why x',
  ]);
});
