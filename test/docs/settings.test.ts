// Checks that docs/settings.md has every setting of the CDK app, and no other.
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { readSettings, SETTING_NAMES } from '../../infra/settings.ts';

const page = readFileSync(new URL('../../docs/settings.md', import.meta.url), 'utf8');
/** The rows of the table: name and default. */
const rows = [...page.matchAll(/^\| `(\w+)` \|([^|]*)\|/gm)].map(([, name = '', byDefault = '']) => ({
  name,
  byDefault: byDefault.trim(),
}));

test('lists every setting', () => {
  expect(rows.map(({ name }) => name).toSorted()).toEqual(SETTING_NAMES.toSorted());
});

test('has the default of every setting that has one', () => {
  const defaults = Object.fromEntries(
    Object.entries(readSettings({}))
      .filter(([, value]) => typeof value !== 'object')
      .map(([name, value]) => [name, String(value)]),
  );
  const documented = rows.filter(({ byDefault }) => byDefault !== '');
  expect(
    Object.fromEntries(documented.map(({ name, byDefault }) => [name, byDefault.replaceAll('`', '')])),
  ).toEqual(defaults);
});
