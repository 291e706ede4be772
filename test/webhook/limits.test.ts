// The limit of connections that callers can make the webhook hold: which one gives way.
import { describe, expect, test } from 'vitest';
import { type Connection, Connections } from '../../webhook/limits.ts';

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
