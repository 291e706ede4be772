// Bundles the command line into one file that needs only Node.
import { chmod } from 'node:fs/promises';
import type { Metafile } from 'esbuild';
import { bundle } from '../release/bundle.ts';

/** Writes an executable bundle. @param outfile such as dist/ecr-anywhere.mjs @returns what is in the bundle */
export async function buildCli(outfile: string): Promise<Metafile> {
  const metafile = await bundle({ outfile, entry: 'cli/main.ts', shebang: '#!/usr/bin/env node' });
  await chmod(outfile, 0o755);
  return metafile;
}

if (import.meta.main) await buildCli('dist/ecr-anywhere.mjs');
