// Builds the npm package: the command line, the constructs with their types, the CDK app and the code of the function. `npm run package`.
import { execFileSync } from 'node:child_process';
import { copyFile, mkdir, readFile, rm, writeFile } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildCli } from '../cli/build.ts';
import { buildFunction } from '../functions/build.ts';
import manifest from '../package.json' with { type: 'json' };
import { bundle } from './bundle.ts';
import { noticeOf, packagesIn } from './notice.ts';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
/** The app that synthesizes has these, so they stay imports: constructs of two versions do not fit together. */
const PEERS = ['aws-cdk-lib', 'constructs'] as const;
const TYPES = 'cdk/types';

const caret = (name: (typeof PEERS)[number]) => `^${manifest.dependencies[name]}`;

/** The manifest of the package. Everything but the peers is in its bundles, so it has no dependencies. */
const PUBLISHED = {
  name: manifest.name,
  version: manifest.version,
  description: manifest.description,
  keywords: ['ecr', 'kubernetes', 'imagepullsecrets', 'aws-cdk', 'cdk-construct'],
  license: manifest.license,
  type: 'module',
  engines: { node: '>=24' },
  bin: { 'ecr-anywhere': 'dist/cli.mjs', 'ecr-anywhere-app': 'cdk/app.mjs' },
  exports: {
    './cdk': { types: `./${TYPES}/infra/index.d.ts`, default: './cdk/index.mjs' },
    './package.json': './package.json',
  },
  files: ['cdk', 'dist', 'NOTICE'],
  peerDependencies: Object.fromEntries(PEERS.map((name) => [name, caret(name)])),
  // The command line alone needs none of them.
  peerDependenciesMeta: Object.fromEntries(PEERS.map((name) => [name, { optional: true }])),
};

/** Writes the content of the package. @param folder is emptied first */
export async function buildPackage(folder: string): Promise<void> {
  await rm(folder, { recursive: true, force: true });
  await mkdir(join(folder, 'cdk'), { recursive: true });
  const external = PEERS.flatMap((name) => [name, `${name}/*`]);
  const metafiles = [
    await buildCli(join(folder, 'dist/ecr-anywhere.mjs')),
    await bundle({ outfile: join(folder, 'cdk/index.mjs'), entry: 'infra/index.ts', external }),
    await bundle({ outfile: join(folder, 'cdk/stack.mjs'), entry: 'infra/app.ts', external }),
  ];
  await buildFunction(join(folder, 'dist/function'));
  await writeTypes(folder);
  await writeFile(join(folder, 'NOTICE'), noticeOf(packagesIn(metafiles)));
  await writeFile(join(folder, 'package.json'), `${JSON.stringify(PUBLISHED, null, 2)}\n`);
  for (const [file, place] of [
    ['LICENSE', 'LICENSE'],
    ['release/package/README.md', 'README.md'],
    ['release/package/app.mjs', 'cdk/app.mjs'],
    ['release/package/cli.mjs', 'dist/cli.mjs'],
  ] as const)
    await copyFile(join(ROOT, file), join(folder, place));
}

/** Writes the declarations that the constructs' own reach, and no others: those of the settings need zod. */
async function writeTypes(folder: string): Promise<void> {
  const all = join(folder, 'all-types');
  execFileSync(
    process.execPath,
    [
      join(ROOT, 'node_modules/typescript/bin/tsc'),
      ...['-p', join(ROOT, 'release/tsconfig.types.json'), '--outDir', all],
    ],
    { stdio: 'inherit' },
  );
  const reached = new Set<string>();
  const reach = async (file: string): Promise<void> => {
    if (reached.has(file)) return;
    reached.add(file);
    const text = await readFile(file, 'utf8');
    const target = join(folder, TYPES, relative(all, file));
    await mkdir(dirname(target), { recursive: true });
    await writeFile(target, text.replaceAll(/(from '\.[^']*)\.ts'/g, "$1.js'"));
    for (const [, path = ''] of text.matchAll(/from '(\.[^']*)\.ts'/g))
      await reach(join(dirname(file), `${path}.d.ts`));
  };
  await reach(join(all, 'infra/index.d.ts'));
  await rm(all, { recursive: true, force: true });
}

/** Packs the package. @returns the path of the tarball */
export function pack(folder: string, destination: string): string {
  const output = execFileSync('npm', ['pack', '--json', '--pack-destination', destination], {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const [packed] = Object.values(JSON.parse(output) as Record<string, { filename: string }>);
  if (packed === undefined) throw new Error(`npm pack named no file: ${output}`);
  return join(destination, packed.filename);
}

if (import.meta.main) {
  const folder = join(ROOT, 'dist/package');
  await buildPackage(folder);
  console.log(pack(folder, join(ROOT, 'dist')));
}
