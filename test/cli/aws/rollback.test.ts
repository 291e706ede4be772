// Rolling back a failed command: the order, which changes are reverted, and what the operator is left to do.
import { afterEach, beforeEach, describe, expect, type MockInstance, test, vi } from 'vitest';
import { Change, Rollback } from '../../../cli/aws/rollback.ts';
import { CliError, InterruptedError } from '../../../cli/output/errors.ts';

const awsFailure = (httpStatusCode: number | undefined, attempts: number) =>
  Object.assign(new Error('no'), { $metadata: { httpStatusCode, attempts } });

async function changeAfter(...failures: (Error | undefined)[]): Promise<Change> {
  const change = new Change();
  for (const failure of failures)
    await change
      .send(async () => {
        if (failure) throw failure;
      })
      .catch(() => {});
  return change;
}

describe('Change', () => {
  test.each<{ title: string; failures: (Error | undefined)[]; expected: boolean }>([
    { title: 'was never requested', failures: [], expected: false },
    { title: 'succeeded', failures: [undefined], expected: true },
    { title: 'was rejected at the first attempt', failures: [awsFailure(403, 1)], expected: false },
    { title: 'got no response', failures: [awsFailure(undefined, 1)], expected: true },
    { title: 'failed with a server error', failures: [awsFailure(500, 1)], expected: true },
    {
      title: 'was throttled after an attempt without a response',
      failures: [awsFailure(400, 3)],
      expected: true,
    },
    {
      title: 'was rejected after a request without a response',
      failures: [new Error('reset'), awsFailure(400, 1)],
      expected: true,
    },
    { title: 'succeeded after it was rejected', failures: [awsFailure(400, 1), undefined], expected: true },
  ])('may have succeeded: $expected if it $title', async ({ failures, expected }) => {
    expect((await changeAfter(...failures)).mayHaveSucceeded).toBe(expected);
  });

  test('takes the word of the caller on what a rejection is', async () => {
    const change = new Change();
    const send = change.send(
      () => Promise.reject(new Error('no')),
      () => true,
    );
    await expect(send).rejects.toThrow('no');
    expect(change.mayHaveSucceeded).toBe(false);
  });
});

describe('Rollback', () => {
  let stderr: MockInstance;
  beforeEach(() => {
    stderr = vi.spyOn(process.stderr, 'write').mockReturnValue(true);
  });
  afterEach(() => {
    stderr.mockRestore();
  });
  const printed = () => stderr.mock.calls.map(([text]) => text).join('');
  const failure = new CliError('network', 'no answer', 'Check the network.');

  test('reverts what may have succeeded, newest first, and returns the failure', async () => {
    const rollback = new Rollback();
    const reverted: string[] = [];
    for (const name of ['first', 'rejected', 'last']) {
      const change = rollback.add({
        revert: async () => void reverted.push(name),
        manualCommand: () => name,
      });
      await change
        .send(async () => {
          if (name === 'rejected') throw awsFailure(403, 1);
        })
        .catch(() => {});
    }
    expect(await rollback.run({}, failure)).toBe(failure);
    expect(reverted).toEqual(['last', 'first']);
    expect(printed()).toBe('');
  });

  test('prints the command for a change that it cannot revert, and reverts the others', async () => {
    const rollback = new Rollback();
    const reverted: string[] = [];
    await rollback
      .add({ revert: async () => void reverted.push('first'), manualCommand: () => 'undo first' })
      .send(async () => {});
    await rollback
      .add({ revert: () => Promise.reject(new Error('denied')), manualCommand: () => 'undo last' })
      .send(async () => {});
    expect(await rollback.run({}, failure)).toBe(failure);
    expect(printed()).toBe('ecr-anywhere: A change could not be rolled back: denied\n  → undo last\n');
    expect(reverted).toEqual(['first']);
  });

  test('adds the manual steps to the hint, and keeps the code', async () => {
    const rollback = new Rollback();
    rollback.addManualStep('revoke the token');
    expect(await rollback.run({}, failure)).toMatchObject({
      code: 'network',
      message: 'no answer',
      hint: 'Check the network; revoke the token',
    });
    const interrupted = await rollback.run({}, new InterruptedError());
    expect(interrupted).toBeInstanceOf(InterruptedError);
    expect(interrupted).toMatchObject({ exitCode: 130, hint: 'revoke the token' });
  });

  test('returns an unexpected failure as it is', async () => {
    const rollback = new Rollback();
    rollback.addManualStep('revoke the token');
    const bug = new TypeError('bug');
    expect(await rollback.run({}, bug)).toBe(bug);
  });
});
