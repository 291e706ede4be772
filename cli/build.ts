// Bundles the command line into one file that needs only Node.
import type { Metafile } from 'esbuild';
import { bundle } from '../release/bundle.ts';

/** Writes an executable bundle. @param outfile such as dist/ecr-anywhere.mjs @returns what is in the bundle */
export async function buildCli(outfile: string): Promise<Metafile> {
  return bundle({ outfile, entry: 'cli/main.ts', shebang: '#!/usr/bin/env node' });
}

if (import.meta.main) await buildCli('dist/ecr-anywhere.mjs');
