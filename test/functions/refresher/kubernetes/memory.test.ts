// Tests what one cluster can make a run hold in memory, beside others.
import { expect, test } from 'vitest';
import { ClusterMemory, RunMemory } from '../../../../functions/refresher/kubernetes/memory.ts';

const MIB = 1024 * 1024;
const never = new AbortController().signal;

test('a cluster is full of lists at 24 MiB, and full at 48 MiB', () => {
  const memory = new ClusterMemory(new RunMemory());
  memory.keep(24 * MIB);
  expect([memory.isFullOfLists(), memory.isFull()]).toEqual([false, false]);
  memory.keep(1);
  expect([memory.isFullOfLists(), memory.isFull()]).toEqual([true, false]);
  memory.keep(24 * MIB);
  expect(memory.isFull()).toBe(true);
});

test('large clusters fail for each other, and not the small ones, until they end', () => {
  const run = new RunMemory();
  const large = Array.from({ length: 3 }, () => new ClusterMemory(run));
  for (const memory of large) memory.keep(23 * MIB);
  const small = new ClusterMemory(run);
  small.keep(MIB);
  expect(large.map((memory) => memory.isFull())).toEqual([true, true, true]);
  expect(small.isFull()).toBe(false);
  large[0]?.[Symbol.dispose]();
  expect(large[1]?.isFull()).toBe(false);
});

test('a cluster reads two large bodies at a time, and a run sixteen', async () => {
  const run = new RunMemory();
  const clusters = Array.from({ length: 10 }, () => new ClusterMemory(run));
  const admitted: (() => void)[] = [];
  for (const memory of clusters)
    for (let body = 0; body < 3; body++)
      memory.admitLargeBody(never).then(
        (release) => admitted.push(release),
        () => {},
      );
  await expect.poll(() => admitted.length).toBe(16);
  admitted.shift()?.();
  // The first cluster's third body is behind those of the clusters that have none yet.
  await expect.poll(() => admitted.length).toBe(16);
  while (admitted.length > 0) {
    for (const release of admitted.splice(0)) release();
    await new Promise(setImmediate);
  }
  await expect(clusters[0]?.admitLargeBody(never)).resolves.toBeTypeOf('function');
});

test('a body that waits gives up its place when its request ends', async () => {
  const memory = new ClusterMemory(new RunMemory());
  const [release] = await Promise.all([memory.admitLargeBody(never), memory.admitLargeBody(never)]);
  const ended = new AbortController();
  const waiting = memory.admitLargeBody(ended.signal);
  ended.abort(new Error('deadline'));
  await expect(waiting).rejects.toThrow('deadline');
  release();
  await expect(memory.admitLargeBody(never)).resolves.toBeTypeOf('function');
});
