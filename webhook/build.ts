// Bundles the webhook, and the program of `helm test`, into one file each that needs only Node.
import { build } from 'esbuild';

/**
 * Writes a bundle and its source map.
 *
 * @param outfile such as dist/webhook.mjs
 * @param entry the entry point: main.ts or verify.ts
 */
export async function buildWebhook(outfile: string, entry = './main.ts'): Promise<void> {
  await build({
    entryPoints: [new URL(entry, import.meta.url).pathname],
    outfile,
    bundle: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    // The field `main` of jsonc-parser is a UMD file, which esbuild cannot bundle.
    mainFields: ['module', 'main'],
    minify: true,
    sourcemap: true,
    legalComments: 'none',
    // Some dependencies are CommonJS and load modules of Node with `require`.
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
