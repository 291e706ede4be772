// Writes the NOTICE of a bundle: the licences of the packages inside, whose headers esbuild drops.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Metafile } from 'esbuild';

/** Licences (SPDX) that allow distribution in a bundle if their text is included. docs/decisions/dependencies.md says why. */
export const ALLOWED: ReadonlySet<string> = new Set([
  ...['0BSD', 'Apache-2.0', 'BlueOak-1.0.0', 'BSD-2-Clause', 'BSD-3-Clause', 'ISC', 'MIT', 'MIT-0'],
  'Unlicense',
]);

const LICENSE_FILE = /^(licen[cs]e|copying|notice)\b(?!.*\.[cm]?[jt]s)/i;
const PACKAGE = /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/;

/**
 * Lists the packages whose code is in the bundles.
 *
 * @returns their folders, as esbuild names them: relative to the working directory
 */
export function packagesIn(metafiles: readonly Metafile[]): string[] {
  const inputs = metafiles
    .flatMap(({ outputs }) => Object.values(outputs))
    .flatMap((output) => Object.entries(output.inputs));
  return [
    ...new Set(
      inputs
        .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
        .flatMap(([path]) => PACKAGE.exec(path)?.[0] ?? []),
    ),
  ];
}

/**
 * Returns the text of a NOTICE: name, version, licence and its text for each package.
 *
 * @param folders of the packages, absolute or relative to the working directory
 * @throws Error that names every package whose licence is not in `ALLOWED`, or has no text
 */
export function noticeOf(folders: readonly string[]): string {
  const problems: string[] = [];
  const packages = folders.map((folder) => {
    const { name, version, license, author } = JSON.parse(
      readFileSync(join(folder, 'package.json'), 'utf8'),
    ) as { name: string; version: string; license?: unknown; author?: string | { name: string } };
    if (typeof license !== 'string' || !ALLOWED.has(license)) {
      problems.push(`${name} ${version} has the licence ${JSON.stringify(license) ?? 'of no name'}`);
      return { title: '', text: '' };
    }
    const texts = readdirSync(folder)
      .filter((file) => LICENSE_FILE.test(file))
      .sort()
      .map((file) => readFileSync(join(folder, file), 'utf8').replaceAll('\r\n', '\n').trim());
    const holder = typeof author === 'object' ? author.name : author;
    if (texts.length === 0) texts.push(standardText(license, holder) ?? '');
    if (texts.join('') === '') problems.push(`${name} ${version} has no file with the text of ${license}`);
    return { title: `${name} ${version} (${license})`, text: texts.join('\n\n') };
  });
  if (problems.length > 0)
    throw new Error(
      `The NOTICE of the bundle cannot be written:\n${problems.map((problem) => `  - ${problem}`).join('\n')}\n` +
        'Replace the package, or see "Licences of bundled packages" in docs/decisions/dependencies.md.',
    );
  // Many packages share one text, such as those of the AWS SDK.
  const byText = Map.groupBy(packages, ({ text }) => text);
  const parts = [...byText].map(([text, sharing]) => {
    const titles = [...new Set(sharing.map(({ title }) => title))].sort();
    return `${titles.join('\n')}\n\n${text}\n`;
  });
  return [
    'ECR Anywhere (Apache-2.0). It contains these packages, under their own licences:\n',
    ...parts.sort(),
  ].join(`\n${'-'.repeat(80)}\n\n`);
}

/** The text of a licence for a package that names it but has no file of it. */
function standardText(license: string, holder: string | undefined): string | undefined {
  if (license === 'Apache-2.0') return readFileSync(new URL('../LICENSE', import.meta.url), 'utf8').trim();
  const file = new URL(`./licenses/${license}.txt`, import.meta.url);
  if (!existsSync(file)) return undefined;
  const text = readFileSync(file, 'utf8').trim();
  return holder === undefined ? text : `Copyright (c) ${holder}\n\n${text}`;
}
