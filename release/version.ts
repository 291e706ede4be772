// Sets the project's one version in every file that names it, and dates the section of the changelog.
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { compareVersions } from '../lib/version.ts';
import { orRefuse, ReleaseError } from './release-error.ts';

/** Why a version was not set. No file was changed. */
export class VersionError extends ReleaseError<
  'usage' | 'malformed-version' | 'lower-version' | 'tree-not-clean' | 'changelog-empty' | 'version-not-found'
> {}

const CHANGELOG = 'CHANGELOG.md';
const UNRELEASED = '## Unreleased';
/** Pre-releases are not published, so that every version compares by its three numbers. */
const VERSION = /^(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)\.(?:0|[1-9]\d*)$/;
/** One place: what is before the version, and the version. */
const MANIFESTS: Readonly<Record<string, { readonly place: RegExp; readonly count: number }>> = {
  'package.json': { place: /^( {2}"version": ")([^"]+)/gm, count: 1 },
  'package-lock.json': {
    place: /^((?:\{| {4}"": \{)\n {2,6}"name": "ecr-anywhere",\n {2,6}"version": ")([^"]+)/gm,
    count: 2,
  },
  'webhook/chart/Chart.yaml': { place: /^((?:version|appVersion): )(\S+)/gm, count: 2 },
};
/** Where pages, comments and examples name it: an image, an npm package, the chart as a dependency or from a registry. */
const MENTION =
  /(\becr-anywhere[:@]|\bname: ecr-anywhere\n\s+version: |\/ecr-anywhere(?:[^\n]|\\\n)*? --version[ =])(\d+\.\d+\.\d+)\b/g;

/** A version that a file names. */
export interface NamedVersion {
  readonly path: string;
  readonly version: string;
}

/**
 * Lists every place of the working tree that names the project's version, but for the changelog.
 *
 * @param root the checkout's directory
 * @throws VersionError if a manifest does not have its places
 */
export function namedVersions(root: string): NamedVersion[] {
  return [...places(root)].flatMap(([path, place]) =>
    Array.from(textOf(root, path).matchAll(place), ([, , version = '']) => ({ path, version })),
  );
}

/** The newest version of a changelog that has a date; undefined before the first release. */
export function newestRelease(changelog: string): string | undefined {
  return /^## (\d+\.\d+\.\d+) - \d{4}-\d\d-\d\d$/m.exec(changelog)?.[1];
}

/**
 * Sets the version, and makes the changelog's section "Unreleased" that of the version.
 *
 * @param root the checkout's directory, whose tree must be clean
 * @param version such as 0.2.0; the present one only for the first release
 * @param date YYYY-MM-DD
 * @returns the paths of the changed files
 * @throws VersionError
 */
export function setVersion(root: string, version: string, date: string): string[] {
  if (!VERSION.test(version))
    throw new VersionError(
      'malformed-version',
      `"${version}" is not a version. Give three numbers, such as 0.2.0.`,
    );
  const changed = execFileSync('git', ['status', '--porcelain'], { cwd: root, encoding: 'utf8' });
  if (changed !== '')
    throw new VersionError(
      'tree-not-clean',
      `The working tree has changes, which would become part of the release. Commit or remove them:\n${changed.trimEnd()}`,
    );
  const changelog = textOf(root, CHANGELOG);
  const present = (JSON.parse(textOf(root, 'package.json')) as { version: string }).version;
  const released = newestRelease(changelog);
  const order = compareVersions(version, present);
  if (order < 0 || (order === 0 && released !== undefined))
    throw new VersionError(
      'lower-version',
      `${version} is not higher than the present version ${present}. Choose a higher one (docs/versions.md says which).`,
    );
  const contents = new Map<string, string>([[CHANGELOG, dated(changelog, version, date)]]);
  for (const [path, place] of places(root)) {
    const text = textOf(root, path);
    const next = text.replace(place, (all, before: string, named: string) =>
      named === present ? `${before}${version}` : all,
    );
    if (next !== text) contents.set(path, next);
  }
  for (const [path, text] of contents) writeFileSync(join(root, path), text);
  return [...contents.keys()].sort();
}

/** The pattern of each file that names the version. */
function places(root: string): Map<string, RegExp> {
  for (const [path, { place, count }] of Object.entries(MANIFESTS)) {
    const found = textOf(root, path).match(place)?.length ?? 0;
    if (found !== count)
      throw new VersionError(
        'version-not-found',
        `${path} names the version ${found} times, not ${count}. Correct the file, or its pattern in release/version.ts.`,
      );
  }
  const listed = execFileSync(
    'git',
    ['ls-files', '-z', '--', '*.md', '.github', 'release', 'webhook', `:!${CHANGELOG}`],
    { cwd: root, encoding: 'utf8' },
  );
  const pages = listed.split('\0').filter((path) => path !== '' && !(path in MANIFESTS));
  const mentioning = pages.filter((path) => textOf(root, path).search(MENTION) >= 0);
  return new Map([
    ...Object.entries(MANIFESTS).map(([path, { place }]) => [path, place] as const),
    ...mentioning.map((path) => [path, MENTION] as const),
  ]);
}

function dated(changelog: string, version: string, date: string): string {
  const [before = '', after] = changelog.split(`${UNRELEASED}\n`);
  const section = after?.split(/^## /m)[0] ?? '';
  if (!/^\s*[-*] \S/m.test(section))
    throw new VersionError(
      'changelog-empty',
      `${CHANGELOG} has no line below "${UNRELEASED}". Write what changes for users, or do not release.`,
    );
  return `${before}${UNRELEASED}\n\n## ${version} - ${date}\n${after}`;
}

function textOf(root: string, path: string): string {
  return readFileSync(join(root, path), 'utf8');
}

if (import.meta.main)
  orRefuse(() => {
    const [version, ...more] = process.argv.slice(2);
    if (version === undefined || more.length > 0)
      throw new VersionError('usage', 'Give one version: npm run release:version -- 0.2.0');
    const date = new Date().toISOString().slice(0, 10);
    for (const path of setVersion(join(import.meta.dirname, '..'), version, date)) console.log(path);
  });
