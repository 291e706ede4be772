// The limits of what callers can make the webhook hold: which connection gives way, and whose turn it is.
import { describe, expect, test } from 'vitest';
import { ByteBudget, type Connection, Connections } from '../../webhook/limits.ts';

const never = new AbortController().signal;

describe('connections beyond the limit', () => {
  const make = () => {
    const connections = new Connections(4);
    const closed: string[] = [];
    const open = (name: string, address: string, isAnswering = false): Connection => {
      const connection = { address, isAnswering, close: () => closed.push(name) };
      connections.add(connection);
      return connection;
    };
    return { connections, closed, open };
  };

  test('replace the oldest waiting one of the address that has most', () => {
    const { connections, closed, open } = make();
    open('api', '10.0.0.1');
    for (const name of ['a', 'b', 'c', 'd', 'e']) open(name, '10.0.0.66');
    expect(closed).toEqual(['a', 'b']);
    expect(connections.size).toBe(4);
    open('kubelet', '10.0.0.2');
    expect(closed).toEqual(['a', 'b', 'c']);
  });

  test('do not replace one that is being answered', () => {
    const { closed, open } = make();
    for (const name of ['a', 'b', 'c']) open(name, '10.0.0.66', true);
    open('idle', '10.0.0.66');
    open('new', '10.0.0.1', true);
    expect(closed).toEqual(['idle']);
    open('newer', '10.0.0.1', true);
    expect(closed).toEqual(['idle', 'newer']);
  });

  test('are counted without those that have ended', () => {
    const { connections, closed, open } = make();
    const ended = ['a', 'b', 'c', 'd'].map((name) => open(name, '10.0.0.66'));
    for (const connection of ended) connections.delete(connection);
    open('e', '10.0.0.66');
    expect([closed, connections.size]).toEqual([[], 1]);
  });
});

describe('bytes', () => {
  test('are given in turn to the addresses that wait', async () => {
    const budget = new ByteBudget(10);
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
    const budget = new ByteBudget(10);
    const giveBack = await budget.take(10, 'x', never);
    giveBack?.();
    giveBack?.();
    await budget.take(10, 'x', never);
    expect(await budget.take(1, 'x', AbortSignal.timeout(1))).toBeUndefined();
  });

  test('are not taken by one that has given up, which lets the next one through', async () => {
    const budget = new ByteBudget(10);
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
