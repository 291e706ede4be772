// Tests that an operation without a signal of its own ends with one.
import { describe, expect, test } from 'vitest';
import { abortable } from '../../lib/abort.ts';

describe('abortable', () => {
  test('settles as the promise does', async () => {
    const { signal } = new AbortController();
    expect(await abortable(Promise.resolve(1), signal)).toBe(1);
    await expect(abortable(Promise.reject(new Error('failed')), signal)).rejects.toThrow('failed');
  });

  test('rejects with the reason of a signal that is aborted first', async () => {
    const controller = new AbortController();
    const result = abortable(new Promise(() => {}), controller.signal);
    controller.abort(new Error('stopped'));
    await expect(result).rejects.toThrow('stopped');
  });

  test('rejects for a signal that is already aborted, and ignores the later rejection of the promise', async () => {
    const signal = AbortSignal.abort(new Error('stopped'));
    await expect(abortable(Promise.reject(new Error('failed')), signal)).rejects.toThrow('stopped');
  });
});
