// The NOTICE has every package that is in a bundle, with its licence; a package without an allowed licence fails the build.
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { build } from 'esbuild';
import { afterAll, describe, expect, test } from 'vitest';
import { noticeOf, packagesIn } from '../../release/notice.ts';

const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
afterAll(() => rmSync(dir, { recursive: true, force: true }));

const ENTRIES = [
  'webhook/main.ts',
  'webhook/verify.ts',
  'functions/refresher/in-cluster/main.ts',
  'functions/refresher/handler.ts',
  'cli/main.ts',
];

/** Creates a package. @returns its folder */
function packageWith(
  manifest: Readonly<Record<string, unknown>>,
  files: Readonly<Record<string, string>> = {},
) {
  const folder = mkdtempSync(join(dir, 'package-'));
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ version: '1.2.3', ...manifest }));
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text);
  return folder;
}

async function bundle(entry: string) {
  const { metafile, outputFiles } = await build({
    entryPoints: [entry],
    outfile: join(dir, 'bundle.mjs'),
    bundle: true,
    platform: 'node',
    format: 'esm',
    mainFields: ['module', 'main'],
    write: false,
    metafile: true,
  });
  return { metafile, text: outputFiles.map((file) => file.text).join('') };
}

describe.each(ENTRIES)('the NOTICE of %s', (entry) => {
  test('has each package whose code is in the bundle, with the text of its licence', async () => {
    const { metafile, text } = await bundle(fileURLToPath(new URL(`../../${entry}`, import.meta.url)));
    // esbuild writes the path of each file into a comment of a bundle that is not minified.
    const folders = new Set(
      [...text.matchAll(/^\/\/ (\S*node_modules\/(?:@[^/\s]+\/)?[^/\s]+)\/\S*$/gm)].map(
        ([, folder = '']) => folder,
      ),
    );
    expect(folders.size).toBeGreaterThan(1);
    const parts = noticeOf(packagesIn([metafile])).split(`\n${'-'.repeat(80)}\n\n`);
    for (const folder of folders) {
      const { name, version } = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8'));
      const part = parts.find((text) => text.split('\n\n')[0]?.includes(`${name} ${version} (`));
      expect(part, name).toMatch(/without fee|free of charge|License|Redistribution|public domain/);
    }
  });
});

test('has the texts of all licence files of a package, and names packages with the same text once', () => {
  const files = { 'LICENSE.md': 'the text', NOTICE: 'the notice', 'license.js': 'code' };
  const notice = noticeOf([
    packageWith({ name: 'b', license: 'ISC' }, { LICENSE: 'shared' }),
    packageWith({ name: 'a', license: 'ISC' }, { LICENSE: 'shared' }),
    packageWith({ name: 'c', license: 'MIT' }, files),
  ]);
  expect(notice).toContain('a 1.2.3 (ISC)\nb 1.2.3 (ISC)\n\nshared\n');
  expect(notice).toContain('c 1.2.3 (MIT)\n\nthe text\n\nthe notice\n');
  expect(notice).not.toContain('code');
});

test('has the standard text and the author for a package without a licence file', () => {
  const notice = noticeOf([
    packageWith({ name: 'a', license: 'MIT', author: { name: 'The Author' } }),
    packageWith({ name: 'b', license: 'Apache-2.0' }),
  ]);
  expect(notice).toMatch(/a 1\.2\.3 \(MIT\)\n\nCopyright \(c\) The Author\n\nPermission is hereby granted/);
  expect(notice).toMatch(/b 1\.2\.3 \(Apache-2\.0\)\n\nApache License\n/);
});

test('fails for every package without an allowed licence, and for one whose licence has no text', () => {
  const folders = [
    packageWith({ name: 'copyleft', license: 'GPL-3.0-only' }, { LICENSE: 'text' }),
    packageWith({ name: 'unlicensed' }, { LICENSE: 'text' }),
    packageWith({ name: 'textless', license: 'ISC' }),
    packageWith({ name: 'good', license: 'ISC' }, { LICENSE: 'text' }),
  ];
  expect(() => noticeOf(folders)).toThrow(/copyleft 1\.2\.3.*\n.*unlicensed 1\.2\.3.*\n.*textless 1\.2\.3/);
  expect(() => noticeOf(folders)).not.toThrow(/good/);
});

test('finds a package that is installed inside another one', () => {
  const inner = join(dir, 'node_modules/outer/node_modules/@scope/inner');
  mkdirSync(inner, { recursive: true });
  const input = { bytesInOutput: 1 };
  const output = {
    inputs: { [`${inner}/lib/index.js`]: input, 'node_modules/unused/index.js': { bytesInOutput: 0 } },
  };
  expect(
    packagesIn([{ inputs: {}, outputs: { x: { bytes: 1, imports: [], exports: [], ...output } } }]),
  ).toEqual([inner]);
});
