// Reading the webhook's causes from the Status of a denial.
import { describe, expect, test } from 'vitest';
import { denialCauses, registryField, registryOf } from '../../contract/denials.ts';

const HOST = 'public.ecr.aws';
const statusWith = (causes: unknown) => ({ kind: 'Status', details: { causes } });

describe('the causes of a Status', () => {
  test('are read with reason, field and message', () => {
    const causes = [
      { reason: 'no-token', message: 'why' },
      {
        reason: 'aws-role-denied',
        field: registryField(HOST),
        message: 'arn:aws:iam::123456789012:role/pull',
      },
    ] as const;
    expect(denialCauses(statusWith(causes))).toEqual(causes);
  });

  test.each([
    ['null', null],
    ['without details', {}],
    ['with causes that are not a list', statusWith('x')],
    ['with causes of another plugin', statusWith([{ reason: 'FieldManagerConflict', message: 'x' }])],
    ['with malformed causes', statusWith([null, 1, { reason: 1 }])],
  ])('are empty for a Status %s', (_, status) => {
    expect(denialCauses(status)).toEqual([]);
  });
});

test('a field names its registry, if the host is known', () => {
  const cause = { reason: 'ecr-denied', message: '' } as const;
  expect(registryOf({ ...cause, field: registryField(HOST) })).toBe(HOST);
  expect(registryOf({ ...cause, field: registryField() })).toBeUndefined();
  expect(registryOf({ ...cause, field: 'type' })).toBeUndefined();
});
