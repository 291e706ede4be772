// The list of messages that `npm run messages` prints: which literals count as a sentence.
import { expect, test } from 'vitest';
import { messagesOf } from './messages.ts';

const texts = (source: string) => messagesOf('x.ts', source).map(({ line, text }) => `${line} ${text}`);

test('lists sentences with their line, and shows expressions as a placeholder', () => {
  const source = `import { a } from 'some module with words';
const code: string = 'not-registered';
throw new Error(\`The cluster \${code satisfies string} is not registered.\`);
const hint = 'Run this command again.';`;
  expect(texts(source)).toEqual(['3 The cluster {…} is not registered.', '4 Run this command again.']);
});

test('finds sentences inside expressions of a template', () => {
  const source = `const text = \`Result of it: \${ok ? 'all checks have passed' : 'some checks have failed'}\`;`;
  expect(texts(source)).toEqual([
    '1 Result of it: {…}',
    '1 all checks have passed',
    '1 some checks have failed',
  ]);
});

test('leaves out codes, names, parts of commands, and expressions', () => {
  const source = `const banner = 'const own = require(name)';
const update = 'SET first = if_not_exists(first, now)';
const type = 'text/plain; version=one; charset=utf-8';`;
  expect(texts(source)).toEqual([]);
  expect(texts("call('kube-system', 'get secrets', '--output=json', 'a-b_c');")).toEqual([]);
});
