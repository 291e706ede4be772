// Bundles a program into one file that needs only Node, as the image, the function and the npm package have it.
import { mkdir, readFile, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { decode, encode, type SourceMapSegment } from '@jridgewell/sourcemap-codec';
import { type BuildOptions, build, type Metafile, type Plugin } from 'esbuild';

const ROOT = fileURLToPath(new URL('..', import.meta.url));

export interface Bundle {
  /** The bundle, by its whole path or from the working directory. */
  readonly outfile: string;
  /** The entry point, from the folder of the project. */
  readonly entry: string;
  /** Whether to write a source map beside it, of the project's own files and without their text. */
  readonly sourcemap?: boolean;
  /** The first line, for an executable file. */
  readonly shebang?: string;
  /** Packages that stay imports. */
  readonly external?: readonly string[];
}

/**
 * Writes a bundle, without a NOTICE: release/notice.ts makes one of what is returned. Files are replaced as a whole, because
 * another process may read them.
 *
 * @returns what is in the bundle
 */
export async function bundle({
  outfile,
  entry,
  sourcemap = false,
  shebang,
  external = [],
}: Bundle): Promise<Metafile> {
  const options = {
    entryPoints: [join(ROOT, entry)],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // The field `main` of jsonc-parser is a UMD file, which esbuild cannot bundle.
    mainFields: ['module', 'main'],
    minify: true,
    sourcemap,
    sourcesContent: false,
    legalComments: 'none',
    external: [...external],
    banner: {
      // Some dependencies are CommonJS and load modules of Node with `require`.
      js: `${shebang === undefined ? '' : `${shebang}\n`}import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`,
    },
    logLevel: 'warning',
    metafile: true,
    write: false,
    plugins: [onlyVersion],
  } satisfies BuildOptions;
  const { metafile, outputFiles } = await build(options);
  const folder = dirname(outfile);
  await mkdir(folder, { recursive: true });
  for (const { path, contents, text } of outputFiles)
    await replace(
      join(folder, basename(path)),
      path.endsWith('.map') ? ownSources(text, resolve(folder)) : contents,
      shebang === undefined ? 0o644 : 0o755,
    );
  return metafile;
}

/** Writes a file at once. @param mode such as 0o755 */
export async function replace(path: string, contents: string | Uint8Array, mode = 0o644): Promise<void> {
  const temporary = `${path}.${process.pid}`;
  try {
    await writeFile(temporary, contents, { mode });
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}

/** Of a package.json, the project's as one of a package, programs read name and version. */
const onlyVersion: Plugin = {
  name: 'only-version',
  setup: ({ onLoad }) => {
    onLoad({ filter: /[\\/]package\.json$/ }, async ({ path }) => {
      const { name, version } = JSON.parse(await readFile(path, 'utf8')) as { name: string; version: string };
      return { contents: JSON.stringify({ name, version }), loader: 'json' };
    });
  },
};

/** The source map without the files of packages, and with the project's own by their path in it. */
function ownSources(text: string, folder: string): string {
  const map = JSON.parse(text) as { sources: string[]; names: string[]; mappings: string };
  const paths = map.sources.map((source) => relative(ROOT, resolve(folder, source)));
  const sources = new Map<string, number>();
  const names = new Map<string, number>();
  const indexIn = (indexes: Map<string, number>, item = '') => {
    const index = indexes.get(item) ?? indexes.size;
    indexes.set(item, index);
    return index;
  };
  const ownSegment = (segment: SourceMapSegment): SourceMapSegment => {
    const path = segment.length === 1 ? undefined : paths[segment[1]];
    if (segment.length === 1 || path === undefined || path.includes('node_modules/')) return [segment[0]];
    const [column, , line, sourceColumn, name] = segment;
    const place = [column, indexIn(sources, path), line, sourceColumn] as const;
    return name === undefined ? [...place] : [...place, indexIn(names, map.names[name])];
  };
  const lines = decode(map.mappings).map((line) =>
    line
      .map(ownSegment)
      // One segment ends the own code; further ones say nothing.
      .filter(
        (segment, index, all) => segment.length > 1 || (index > 0 && (all[index - 1]?.length ?? 1) > 1),
      ),
  );
  return JSON.stringify({
    version: 3,
    sources: [...sources.keys()],
    names: [...names.keys()],
    mappings: encode(lines),
  });
}
