// Every file names one version, and a release sets it in all of them, or in none.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { CONTRACT_VERSION } from '../../contract/version.ts';
import manifest from '../../package.json' with { type: 'json' };
import { namedVersions, newestRelease, setVersion } from '../../release/version.ts';

const ROOT = join(import.meta.dirname, '../..');
const DATE = '2030-01-31';
const [major, minor] = manifest.version.split('.').map(Number);
const NEXT = `${major}.${Number(minor) + 1}.0`;
const textOf = (path: string, root = ROOT) => readFileSync(join(root, path), 'utf8');

describe('the checkout', () => {
  test('names one version in its manifests, its chart, its pages and its examples', () => {
    const named = namedVersions(ROOT);
    expect(named.filter(({ version }) => version !== manifest.version)).toEqual([]);
    expect(named.map(({ path }) => path)).toEqual(
      expect.arrayContaining(['package.json', 'webhook/chart/Chart.yaml', 'README.md', 'docs/platforms.md']),
    );
  });

  test('has a changelog whose newest version is that of the manifest, or the one before it is released', () => {
    expect([undefined, manifest.version]).toContain(newestRelease(textOf('CHANGELOG.md')));
  });

  test('states the version of the annotations’ format in the page about versions', () => {
    expect(textOf('docs/versions.md')).toContain(`The format has version ${CONTRACT_VERSION}.`);
  });
});

describe('setVersion', () => {
  let root: string;
  const git = (...args: string[]) =>
    execFileSync('git', ['-c', 'user.name=test', '-c', 'user.email=test@example.com', ...args], {
      cwd: root,
      encoding: 'utf8',
    });
  const commit = () => {
    git('add', '--all');
    git('commit', '--quiet', '--no-verify', '--message', 'release: prepare a copy');
  };
  const write = (path: string, text: string) => writeFileSync(join(root, path), text);
  const codeOf = (version: string) => {
    const before = git('status', '--porcelain');
    try {
      setVersion(root, version, DATE);
    } catch (error) {
      expect(git('status', '--porcelain')).toBe(before);
      return (error as { code?: string }).code;
    }
    return undefined;
  };

  beforeEach(() => {
    root = mkdtempSync(join(tmpdir(), 'version-'));
    const files = ['package-lock.json', 'CHANGELOG.md', ...namedVersions(ROOT).map(({ path }) => path)];
    for (const path of new Set(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      cpSync(join(ROOT, path), join(root, path));
    }
    write('CHANGELOG.md', '# Changelog\n\n## Unreleased\n\n### Added\n\n- A label.\n');
    git('init', '--quiet');
    commit();
  });
  afterEach(() => rmSync(root, { recursive: true, force: true }));

  test('sets the version everywhere, and changes nothing else', () => {
    const changed = setVersion(root, NEXT, DATE);
    expect(new Set(namedVersions(root).map(({ version }) => version))).toEqual(new Set([NEXT]));
    for (const path of changed.filter((one) => one !== 'CHANGELOG.md')) {
      const before = textOf(path).split('\n');
      const after = textOf(path, root).split('\n');
      const expected = before.map((line, index) =>
        line === after[index] ? line : line.replaceAll(manifest.version, NEXT),
      );
      expect(after, path).toEqual(expected);
    }
    const { packages, version } = JSON.parse(textOf('package-lock.json', root));
    expect([version, packages[''].version]).toEqual([NEXT, NEXT]);
  });

  test('dates the section of the changelog, and begins an empty one', () => {
    setVersion(root, NEXT, DATE);
    expect(textOf('CHANGELOG.md', root)).toBe(
      `# Changelog\n\n## Unreleased\n\n## ${NEXT} - ${DATE}\n\n### Added\n\n- A label.\n`,
    );
    expect(newestRelease(textOf('CHANGELOG.md', root))).toBe(NEXT);
  });

  test('refuses a second release without a line in the changelog', () => {
    setVersion(root, NEXT, DATE);
    commit();
    expect(codeOf(`${Number(major) + 1}.0.0`)).toBe('changelog-empty');
  });

  test('accepts the present version for the first release only', () => {
    expect(codeOf(manifest.version)).toBeUndefined();
    commit();
    expect(codeOf(manifest.version)).toBe('lower-version');
  });

  test.each(['0.0.0', '0.0.9'])('refuses the lower version %s', (version) => {
    expect(codeOf(version)).toBe('lower-version');
  });

  test.each(['', 'v0.2.0', '0.2', '0.2.0-rc.1', '00.2.0', '0.2.0\n'])(
    'refuses the malformed version %j',
    (version) => {
      expect(codeOf(version)).toBe('malformed-version');
    },
  );

  test('refuses a tree with changes', () => {
    write('note.txt', 'not committed');
    expect(codeOf(NEXT)).toBe('tree-not-clean');
  });

  test('refuses a manifest without its version', () => {
    write('webhook/chart/Chart.yaml', 'name: ecr-anywhere\n');
    commit();
    expect(codeOf(NEXT)).toBe('version-not-found');
  });
});
