// Bundles the command line into one file that needs nothing but Node.
import { chmod } from 'node:fs/promises';
import { build } from 'esbuild';

/** Writes an executable bundle. @param outfile such as dist/ecr-anywhere.mjs */
export async function buildCli(outfile: string): Promise<void> {
  await build({
    entryPoints: [new URL('./main.ts', import.meta.url).pathname],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    minify: true,
    legalComments: 'none',
    banner: {
      js: "#!/usr/bin/env node\nimport { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  });
  await chmod(outfile, 0o755);
}

if (import.meta.main) await buildCli('dist/ecr-anywhere.mjs');
