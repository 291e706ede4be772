// values.yaml and docs/chart-values.md match the schema, and the schema knows every value that a template reads.
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { chartValues, FILES } from '../../webhook/chart-values.ts';
import { CHART } from '../bed/helm.ts';

const ROOT = join(CHART, '../..');

test.each(Object.values(FILES))('%s is up to date (if not, run "npm run chart")', async (path) => {
  expect(await readFile(join(ROOT, path), 'utf8')).toBe((await chartValues())[path]);
});

interface Property {
  description?: string;
  default?: unknown;
  properties?: Record<string, Property>;
}

describe('the schema', () => {
  const values = async () =>
    parse(await readFile(join(ROOT, FILES.values), 'utf8')) as Record<string, unknown>;
  const schema = async () =>
    JSON.parse(await readFile(join(CHART, 'values.schema.json'), 'utf8')) as Property;
  const leaves = (property: Property, path: string[] = []): [string[], Property][] =>
    property.properties
      ? Object.entries(property.properties).flatMap(([name, inner]) => leaves(inner, [...path, name]))
      : [[path, property]];

  test('describes every value, with the default of values.yaml', async () => {
    const all = leaves(await schema()).filter(([[first]]) => first !== 'global');
    expect(all.length).toBeGreaterThan(50);
    const given = await values();
    for (const [path, { description = '', default: value }] of all) {
      expect(description, path.join('.')).toMatch(/\.(\*\*)?$/);
      const found = path.reduce<unknown>((at, key) => (at as Record<string, unknown>)?.[key], given);
      expect(found, path.join('.')).toEqual(value);
    }
  });

  test('knows every value that a template reads', async () => {
    const known = leaves(await schema()).map(([path]) => path.join('.'));
    const files = (await readdir(join(CHART, 'templates'), { recursive: true })).filter((file) =>
      /\.(yaml|tpl|txt)$/.test(file),
    );
    const read = new Set<string>();
    for (const file of files) {
      const text = await readFile(join(CHART, 'templates', file), 'utf8');
      for (const [, path = ''] of text.matchAll(/\.Values\.([\w.]+)/g)) read.add(path);
    }
    expect(read.size).toBeGreaterThan(30);
    for (const path of read)
      expect(
        known.some((value) => value === path || value.startsWith(`${path}.`)),
        path,
      ).toBe(true);
  });
});
