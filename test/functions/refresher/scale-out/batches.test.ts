// Tests how the clusters of a run are cut into batches.
import { expect, test } from 'vitest';
import { batchesOf } from '../../../../functions/refresher/scale-out/batches.ts';

const clustersOf = (...names: string[]) => names.map((name) => ({ name, isPaused: false }));
const numbered = (count: number) => Array.from({ length: count }, (_, index) => `c${index}`);
const endedBatch = (cluster: string, failures: number) => ({
  cluster,
  failures,
  codes: ['batch-ended' as const],
});
const namesOf = (batches: ReturnType<typeof batchesOf>) => batches.map((one) => one.map(({ name }) => name));

test('batches have the clusters in their order', () => {
  expect(namesOf(batchesOf(clustersOf('a', 'b', 'c', 'd', 'e'), [], 2))).toEqual([
    ['a', 'b'],
    ['c', 'd'],
    ['e'],
  ]);
});

test('a run without clusters has no batch', () => {
  expect(batchesOf([], [], 2)).toEqual([]);
});

test('clusters whose batch ended once are in batches of 20, apart from the others', () => {
  const suspects = numbered(30).map((name) => endedBatch(name, 1));
  const batches = namesOf(batchesOf(clustersOf('first', ...numbered(30), 'last'), suspects, 500));
  expect(batches).toEqual([['first', 'last'], numbered(30).slice(0, 20), numbered(30).slice(20)]);
});

test('a cluster whose batch ended twice is a batch of its own', () => {
  const states = [endedBatch('a', 2), endedBatch('b', 3), endedBatch('c', 1)];
  expect(namesOf(batchesOf(clustersOf('a', 'b', 'c', 'd'), states, 500))).toEqual([
    ['a'],
    ['b'],
    ['c'],
    ['d'],
  ]);
});

test('a cluster that failed for another reason stays with the others', () => {
  const states = [{ cluster: 'a', failures: 9, codes: ['unreachable' as const] }];
  expect(namesOf(batchesOf(clustersOf('a', 'b'), states, 500))).toEqual([['a', 'b']]);
});
