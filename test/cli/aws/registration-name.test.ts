// The name of a registration, before anything is stored.
import { expect, test } from 'vitest';
import { checkName, checkNameLength } from '../../../cli/aws/registration.ts';

test.each(['', 'a b', 'a:b', 'ä'])('refuses the cluster name %j for its characters', (name) => {
  expect(() => checkName(name)).toThrow(expect.objectContaining({ code: 'usage' }));
});

test.each(['ecr-anywhere/clusters/', `ecr-anywhere-${'s'.repeat(128)}/clusters/`, 'k/'])(
  'allows as many characters as Secrets Manager has left beside the prefix %s',
  (prefix) => {
    const longest = 512 - prefix.length;
    expect(() => checkNameLength('n'.repeat(longest), prefix)).not.toThrow();
    expect(() => checkNameLength('n'.repeat(longest + 1), prefix)).toThrow(
      expect.objectContaining({
        code: 'usage',
        hint: expect.stringContaining(`at most ${longest} characters`),
      }),
    );
  },
);
