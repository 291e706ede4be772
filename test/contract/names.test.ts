// The names that stages derive from their stack.
import { expect, test } from 'vitest';
import { CLUSTERS_PREFIX, managedTagValue } from '../../contract/names.ts';

test.each([
  ['EcrAnywhere', CLUSTERS_PREFIX, 'true'],
  ['EcrAnywhere', 'team/', 'true'],
  ['Live', CLUSTERS_PREFIX, 'true'],
  ['Live', 'ecr-anywhere-Live/clusters/', 'Live'],
])('the stack %s with the prefix %s serves EKS clusters with the tag value %s', (stack, prefix, value) => {
  expect(managedTagValue(stack, prefix)).toBe(value);
});
