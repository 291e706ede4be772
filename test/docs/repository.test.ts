// The repository's configuration for updates of dependencies names the folders and packages that exist.
import { existsSync, globSync, readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { expect, test } from 'vitest';
import { parse } from 'yaml';

const ROOT = join(import.meta.dirname, '../..');
const textOf = (path: string) => readFileSync(join(ROOT, path), 'utf8');

interface Update {
  'package-ecosystem': string;
  directory?: string;
  directories?: string[];
  groups?: Record<string, { patterns: string[] }>;
}
const { updates } = parse(textOf('.github/dependabot.yml')) as { updates: Update[] };
const directoriesOf = (ecosystem: string) =>
  updates
    .filter((update) => update['package-ecosystem'] === ecosystem)
    .flatMap(({ directory, directories = [] }) => [...(directory ? [directory] : []), ...directories])
    .sort();

test.each([
  { ecosystem: 'npm', manifest: 'package-lock.json' },
  { ecosystem: 'docker', manifest: 'Dockerfile' },
  { ecosystem: 'gomod', manifest: 'go.mod' },
  { ecosystem: 'pip', manifest: 'requirements.txt' },
])('each folder with a $manifest gets updates of $ecosystem', ({ ecosystem, manifest }) => {
  const files = globSync(`{*,{webhook,test}/**/*}`, { cwd: ROOT, exclude: ['**/node_modules/**'] });
  const folders = files.filter((file) => file.split('/').at(-1) === manifest).map((file) => dirname(file));
  expect(directoriesOf(ecosystem)).toEqual(
    folders.map((folder) => (folder === '.' ? '/' : `/${folder}`)).sort(),
  );
});

test('each group of npm packages has at least two that the project uses', () => {
  const { dependencies, devDependencies } = JSON.parse(textOf('package.json')) as Record<string, object>;
  const packages = Object.keys({ ...dependencies, ...devDependencies });
  const groups = updates.find((update) => update['package-ecosystem'] === 'npm')?.groups ?? {};
  for (const [group, { patterns }] of Object.entries(groups)) {
    const members = new RegExp(`^(${patterns.map((pattern) => pattern.replace('*', '.*')).join('|')})$`);
    expect(packages.filter((name) => members.test(name)).length, group).toBeGreaterThanOrEqual(2);
  }
});

test('each path of the code owners exists', () => {
  const rows = textOf('.github/CODEOWNERS').matchAll(/^(\/\S+)\s+@\S+\/\S+$/gm);
  const paths = Array.from(rows, ([, path = '']) => path);
  expect(paths).toEqual(expect.arrayContaining(['/contract/', '/webhook/chart/templates/', '/infra/']));
  expect(paths.filter((path) => !existsSync(join(ROOT, path)))).toEqual([]);
});
