// The order of versions, and which are supported beside each other.
import { expect, test } from 'vitest';
import { compareVersions, VERSION, workTogether } from '../../lib/version.ts';

test('compares numbers, not characters', () => {
  const versions = ['0.10.0', '0.9.1', '1.0.0', '0.9.0'];
  expect(versions.sort(compareVersions)).toEqual(['0.9.0', '0.9.1', '0.10.0', '1.0.0']);
  expect(compareVersions(VERSION, VERSION)).toBe(0);
});

test.each([
  ['0.2.0', '0.2.9', true],
  ['0.3.1', '0.2.0', true],
  ['0.9.0', '0.10.0', true],
  ['0.4.0', '0.2.0', false],
  ['1.0.0', '0.1.0', false],
])('%s and %s are supported together: %s', (one, other, expected) => {
  expect([workTogether(one, other), workTogether(other, one)]).toEqual([expected, expected]);
});
