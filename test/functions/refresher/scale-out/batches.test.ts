// Tests how the clusters of a run are cut into batches.
import { expect, test } from 'vitest';
import { batchesOf } from '../../../../functions/refresher/scale-out/batches.ts';

const clustersOf = (...names: string[]) => names.map((name) => ({ name, isPaused: false }));
const numbered = (count: number) => Array.from({ length: count }, (_, index) => `c${index}`);
const endedBatch = (cluster: string) => ({ cluster, codes: ['batch-ended'] as ['batch-ended'] });
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

test.each([
  { suspects: 500, size: 25 },
  { suspects: 25, size: 2 },
  { suspects: 20, size: 1 },
  { suspects: 1, size: 1 },
  { suspects: 100_000, size: 500 },
])('$suspects clusters whose batch ended are in batches of $size', ({ suspects, size }) => {
  const names = numbered(suspects);
  const batches = batchesOf(clustersOf('first', ...names, 'last'), names.map(endedBatch), 500);
  expect(namesOf(batches)[0]).toEqual(['first', 'last']);
  expect(batches[1]).toHaveLength(size);
  expect(batches).toHaveLength(1 + Math.ceil(suspects / size));
  expect(namesOf(batches).slice(1).flat()).toEqual(names);
});

test('a cluster that ends its batch is alone in the fourth run at the latest, however often the others failed before', () => {
  let states: { cluster: string; codes: ['batch-ended'] }[] = [];
  const taken: number[] = [];
  for (let run = 1; run <= 4; run += 1) {
    const batch = batchesOf(clustersOf(...numbered(10_000)), states, 500).find((one) =>
      one.some(({ name }) => name === 'c777'),
    );
    states = (batch ?? []).map(({ name }) => endedBatch(name));
    taken.push(states.length);
  }
  expect(taken).toEqual([500, 25, 2, 1]);
});

test('a cluster that failed for another reason stays with the others', () => {
  const states = [{ cluster: 'a', codes: ['unreachable' as const] }];
  expect(namesOf(batchesOf(clustersOf('a', 'b'), states, 500))).toEqual([['a', 'b']]);
});
