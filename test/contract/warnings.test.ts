// The data at the beginning of a warning: what the webhook writes, the refresher reads.
import { describe, expect, test } from 'vitest';
import { formatWarning, parseWarning, type RegistryWarning, WARNING_KINDS } from '../../contract/warnings.ts';

const host = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';

describe('a warning', () => {
  test.each(WARNING_KINDS.flatMap((kind) => [{ kind }, { kind, reason: 'aws-role-denied' as const }]))(
    'is read as it was written: %j',
    (data) => {
      const warning: RegistryWarning = { ...data, host, message: 'the role: cannot be (assumed): no' };
      expect(parseWarning(formatWarning(warning))).toEqual(warning);
    },
  );

  test('begins with the host, the kind and the reason', () => {
    expect(formatWarning({ host, kind: 'kept', reason: 'ecr-throttled', message: 'why' })).toBe(
      `${host}: kept (ecr-throttled): why`,
    );
    expect(formatWarning({ host, kind: 'removed', message: 'why' })).toBe(`${host}: removed: why`);
  });

  test.each([
    'spec.template: deprecated since v1.9',
    `${host}: lost: why`,
    `${host}: kept (another-reason): why`,
    `a text before ${host}: kept: why`,
    '',
  ])('of another kind is not read: %j', (text) => {
    expect(parseWarning(text)).toBeUndefined();
  });
});
