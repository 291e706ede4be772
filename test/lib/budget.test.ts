// Tests whose turn it is when an amount that is shared is used up.
import { describe, expect, test } from 'vitest';
import { Budget } from '../../lib/budget.ts';

const never = new AbortController().signal;

describe('bytes', () => {
  test('are given in turn to the addresses that wait', async () => {
    const budget = new Budget(10);
    const order: string[] = [];
    const first = await budget.take(10, 'x', never);
    const waiting = [
      ['attack 1', 'x'],
      ['attack 2', 'x'],
      ['api', 'y'],
      ['attack 3', 'x'],
    ].map(async ([name = '', address = '']) => {
      const giveBack = await budget.take(10, address, never);
      order.push(name);
      giveBack?.();
    });
    first?.();
    await Promise.all(waiting);
    expect(order).toEqual(['attack 1', 'api', 'attack 2', 'attack 3']);
  });

  test('given back twice count once', async () => {
    const budget = new Budget(10);
    const giveBack = await budget.take(10, 'x', never);
    giveBack?.();
    giveBack?.();
    await budget.take(10, 'x', never);
    expect(await budget.take(1, 'x', AbortSignal.timeout(1))).toBeUndefined();
  });

  test('are not taken by one that has given up, which lets the next one through', async () => {
    const budget = new Budget(10);
    await budget.take(5, 'x', never);
    const ending = new AbortController();
    const large = budget.take(10, 'x', ending.signal);
    const small = budget.take(5, 'y', never);
    ending.abort();
    expect(await large).toBeUndefined();
    expect(await small).toBeDefined();
    expect(await budget.take(1, 'x', ending.signal)).toBeUndefined();
  });
});
