// Bundles the webhook, and what `helm test` runs, into one file each that needs nothing but Node.
import { build } from 'esbuild';

/**
 * Writes a bundle and its source map.
 *
 * @param outfile such as dist/webhook.mjs
 * @param entry main.ts, or verify.ts
 */
export async function buildWebhook(outfile: string, entry = './main.ts'): Promise<void> {
  await build({
    entryPoints: [new URL(entry, import.meta.url).pathname],
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

if (import.meta.main) {
  await buildWebhook('dist/webhook.mjs');
  await buildWebhook('dist/verify.mjs', './verify.ts');
}
