// Bundles the webhook into one file that needs nothing but Node.
import { build } from 'esbuild';

/** Writes the bundle and its source map. @param outfile such as dist/webhook.mjs */
export async function buildWebhook(outfile: string): Promise<void> {
  await build({
    entryPoints: [new URL('./main.ts', import.meta.url).pathname],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // jsonc-parser's main is a UMD file that no bundler can follow.
    mainFields: ['module', 'main'],
    minify: true,
    sourcemap: true,
    legalComments: 'none',
    // Some dependencies are CommonJS and ask for Node's own modules with `require`.
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    logLevel: 'warning',
  });
}

if (import.meta.main) await buildWebhook('dist/webhook.mjs');
