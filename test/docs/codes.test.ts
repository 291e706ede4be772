// Checks that the documentation lists every code that programs may branch on, and no other.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DENIAL_REASONS, TOKEN_FAILURES } from '../../contract/denials.ts';
import { ERROR_TYPE, FAILURE_CODES } from '../../contract/refresher-api.ts';

/** The names in backticks in the first cells of a section's table. */
function listed(page: string, heading: string, until = '\n## '): string[] {
  const text = readFileSync(new URL(`../../docs/${page}`, import.meta.url), 'utf8');
  const [section = ''] = text.split(`${heading}\n`)[1]?.split(until) ?? [];
  return [...section.matchAll(/^\| ([^|]+) \|/gm)].flatMap(([, cell = '']) =>
    [...cell.matchAll(/`([\w-]+)`/g)].map(([, name = '']) => name),
  );
}

test.each([
  { page: 'function-api.md', heading: '## Codes', codes: FAILURE_CODES },
  {
    page: 'metrics-and-logs.md',
    heading: '### Denial reasons',
    until: '\n### ',
    codes: [...DENIAL_REASONS, ...TOKEN_FAILURES],
  },
])('$page, "$heading", lists every code and no other', ({ page, heading, until, codes }) => {
  expect(
    listed(page, heading, until)
      .filter((name) => name !== 'reason')
      .toSorted(),
  ).toEqual(codes.toSorted());
});

test('function-api.md lists every error type of a failed invocation', () => {
  expect(listed('function-api.md', '## Events')).toEqual(expect.arrayContaining(Object.values(ERROR_TYPE)));
});
