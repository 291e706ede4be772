// Checks that every link, anchor and file name in README.md, CONTRIBUTING.md, CHANGELOG.md, SECURITY.md and docs exists, and every reference to a
// page in the source.
import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  '.github/SECURITY.md',
  ...readdirSync(join(ROOT, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.md'))
    .map((name) => join('docs', name)),
].filter((page) => existsSync(join(ROOT, page)));

const textOf = (page: string) => readFileSync(join(ROOT, page), 'utf8');
/** Links in code are not links. */
const proseOf = (page: string) => textOf(page).replaceAll(/^ *```[\s\S]*?^ *```/gm, '');

/** The anchors of a page, as GitHub makes them of its headings. */
function anchorsOf(page: string): Set<string> {
  const anchors = new Set<string>();
  for (const [, heading = ''] of proseOf(page).matchAll(/^#{1,6} (.+)$/gm)) {
    const slug = heading
      .replaceAll(/\[([^\]]*)\]\([^)]*\)/g, '$1')
      .toLowerCase()
      .replaceAll(/[^\p{L}\p{N}\- _]/gu, '')
      .replaceAll(' ', '-');
    let anchor = slug;
    for (let number = 1; anchors.has(anchor); number++) anchor = `${slug}-${number}`;
    anchors.add(anchor);
  }
  return anchors;
}

/** The page's links to files of this project, as `path` or `path#anchor` from the project's root. */
function linksOf(page: string): string[] {
  return [
    ...proseOf(page)
      .replaceAll(/`[^`\n]*`/g, '')
      .matchAll(/\]\(([^)\s]+)\)/g),
  ]
    .map(([, target = '']) => target)
    .filter((target) => !/^(https?|mailto):/.test(target))
    .map((target) => {
      const [path = '', anchor] = target.split('#');
      const file = path === '' ? page : relative(ROOT, resolve(ROOT, dirname(page), path));
      return anchor === undefined ? file : `${file}#${anchor}`;
    });
}

/** Whether a file exists and, if it is a page, has the anchor. */
function exists(target: string): boolean {
  const [path = '', anchor] = target.split('#');
  if (!existsSync(join(ROOT, path))) return false;
  return anchor === undefined || (path.endsWith('.md') && anchorsOf(path).has(anchor));
}

test('every page of docs is linked from another page', () => {
  const linked = new Set(
    pages.flatMap((page) =>
      linksOf(page).flatMap((link) => (link.startsWith(page) ? [] : link.split('#')[0])),
    ),
  );
  expect(pages.filter((page) => page.startsWith('docs') && !linked.has(page))).toEqual([]);
});

describe.each(pages)('%s', (page) => {
  test('has only links to files and anchors that exist', () => {
    expect(linksOf(page).filter((link) => !exists(link))).toEqual([]);
  });

  test('names only files of the project that exist', () => {
    // Paths in backticks whose first folder is the project's, or a file of one of the programs.
    const bases = ['', 'functions/refresher', 'webhook', 'cli'].map((base) => join(ROOT, base));
    const named = [...proseOf(page).matchAll(/`([\w.@-]+(?:\/[\w.@-]+)*\/?)`/g)]
      .map(([, path = '']) => path)
      .filter(
        (path) =>
          /\.(ts|mjs|json|yaml|tpl|svg|md)$/.test(path) ||
          /^(contract|lib|functions|webhook|cli|infra|test|docs)\//.test(path),
      )
      .filter((path) => !IN_OTHER_PLACES.has(path) && !path.startsWith('dist/'));
    expect(named.filter((path) => !bases.some((base) => existsSync(join(base, path))))).toEqual([]);
  });
});

/** Files that the text lets the reader write, or that are on another machine. */
const IN_OTHER_PLACES: ReadonlySet<string> = new Set([
  'trust.json',
  'policy.json',
  'admission.yaml',
  'authentication.yaml',
  'values.yaml',
  'secret.yaml',
  'pod.yaml',
  // Stands for any file.
  'x.ts',
]);

test('every page that the source names exists, with its anchor or section', () => {
  const files = execFileSync('git', ['ls-files', '-z', '--', ':!docs', ':!*.md'], {
    cwd: ROOT,
    encoding: 'utf8',
  })
    .split('\0')
    .filter((file) => /\.(ts|mjs|json|yaml|tpl|txt|py)$/.test(file) && existsSync(join(ROOT, file)));
  const unknown = files.flatMap((file) =>
    [...textOf(file).matchAll(/\bdocs\/[\w/-]+\.md(?:#([\w-]+)|, \\?"([^"\\\n]+)\\?")?/g)]
      .map(([name, anchor, section]) => {
        const [page = ''] = name.split(/[#,]/);
        if (anchor !== undefined) return `${page}#${anchor}`;
        return section === undefined ? page : `${page}#${section.toLowerCase().replaceAll(' ', '-')}`;
      })
      .filter((target) => !exists(target))
      .map((target) => `${file}: ${target}`),
  );
  expect(unknown).toEqual([]);
});
