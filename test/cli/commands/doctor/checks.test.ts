// How doctor judges findings: what fails, what is skipped as a consequence, and which failure comes first. Pure.
import { describe, expect, test } from 'vitest';
import {
  CHECK_NAMES,
  CHECKS,
  type CheckName,
  type Finding,
  FUNCTION_CHECKS,
  failed,
  firstProblem,
  IN_CLUSTER_CHECKS,
  judge,
  passed,
  skipped,
  toJson,
} from '../../../../cli/commands/doctor/checks.ts';

const fix = { repair: 'x' };
const unreachable = failed('webhook-unreachable', 'no response', fix);
const of = (check: CheckName, ...findings: Finding[]) => judge(findings).find((one) => one.check === check);

test('a check depends only on earlier checks', () => {
  for (const [index, check] of CHECK_NAMES.entries())
    for (const need of CHECKS[check].needs) expect(CHECK_NAMES.slice(0, index)).toContain(need);
});

test('the checks of a cluster with its own refresher depend on no other check', () => {
  for (const check of IN_CLUSTER_CHECKS)
    for (const need of CHECKS[check].needs) expect(IN_CLUSTER_CHECKS).toContain(need);
});

test('a code belongs to one check', () => {
  const codes = Object.values(CHECKS).flatMap((check) => [...check.codes]);
  expect(new Set<string>(codes).size).toBe(codes.length);
});

describe('judge', () => {
  test('returns one finding for each check, in order', () => {
    expect(judge([unreachable]).map(({ check }) => check)).toEqual(FUNCTION_CHECKS);
  });

  test('skips a failure that may follow from an earlier one, however far away, and keeps what was observed', () => {
    const refused = failed('not-refreshed', 'ten were refused', fix);
    expect(of('refresh', refused, passed('injection', 'called'), unreachable)).toEqual({
      ...{ check: 'refresh', verdict: 'skipped' },
      ...{ message: '“webhook” failed', observed: 'ten were refused' },
    });
  });

  test('keeps a check that passed although an earlier one failed', () => {
    expect(of('injection', passed('injection', 'called'), unreachable)?.verdict).toBe('passed');
  });

  test('keeps failures that do not depend on each other', () => {
    const judged = judge([
      failed('no-managed-secret', 'a', fix),
      failed('clock-skew', 'b', { investigate: 'date' }),
    ]);
    expect(judged.flatMap(({ verdict, check }) => (verdict === 'failed' ? [check] : []))).toEqual([
      ...['clock', 'labels'],
    ]);
  });

  test.each<{ name: string; findings: Finding[]; message: string }>([
    { name: 'an earlier check failed', findings: [unreachable], message: '“webhook” failed' },
    {
      name: 'an earlier check was skipped, with its reason',
      findings: [skipped('context', 'not verified')],
      message: 'not verified',
    },
    { name: 'nothing is known', findings: [], message: 'not checked' },
  ])('skips a check without a finding: $name', ({ findings, message }) => {
    expect(of('ecr', ...findings)).toEqual({ check: 'ecr', verdict: 'skipped', message });
  });

  test.each<{ name: string; findings: Finding[]; message: string }>([
    {
      name: 'a failure over a pass',
      findings: [passed('ecr', 'a'), failed('ecr-denied', 'b', fix)],
      message: 'b',
    },
    { name: 'a pass over a skip', findings: [skipped('ecr', 'a'), passed('ecr', 'b')], message: 'b' },
    {
      name: 'the first of two failures',
      findings: [failed('ecr-error', 'a', fix), failed('ecr-denied', 'b', fix)],
      message: 'a',
    },
  ])('prefers $name', ({ findings, message }) => {
    expect(of('ecr', ...findings)?.message).toBe(message);
  });
});

describe('firstProblem', () => {
  test('returns the first failure in the order of the checks', () => {
    expect(firstProblem([unreachable, failed('paused', 'since today', fix)])?.code).toBe('paused');
  });

  test('returns a skipped check only if its finding was given', () => {
    expect(firstProblem([passed('session', 'me')])).toBeUndefined();
    expect(firstProblem([passed('session', 'me'), skipped('clock', 'no Date')])?.check).toBe('clock');
  });
});

test('JSON has the title, the meaning, and either a repair or an investigation', () => {
  expect(toJson(failed('paused', 'since today', { repair: 'resume', hint: 'Soon.' }))).toEqual({
    ...{ check: 'schedule', title: 'refresh schedule', verdict: 'failed', code: 'paused' },
    ...{ message: 'since today', means: CHECKS.schedule.means, repair: 'resume', hint: 'Soon.' },
  });
  const json = toJson(failed('clock-skew', '600 s', { investigate: 'date' }));
  expect(json).toMatchObject({ investigate: 'date' });
  expect(json).not.toHaveProperty('repair');
});
