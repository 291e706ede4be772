// Bundles the programs of the image into one file each that needs only Node: the webhook, the program of `helm test`, and the
// refresher in the cluster. Beside them it writes their NOTICE.
import { writeFile } from 'node:fs/promises';
import { build, type Metafile } from 'esbuild';
import { noticeOf, packagesIn } from '../release/notice.ts';

/** The entry point of the refresher in the cluster. */
export const IN_CLUSTER_REFRESHER = '../functions/refresher/in-cluster/main.ts';

/**
 * Writes a bundle and its source map.
 *
 * @param outfile such as dist/webhook.mjs
 * @param entry the entry point: main.ts, verify.ts or `IN_CLUSTER_REFRESHER`
 * @returns what is in the bundle
 */
export async function buildWebhook(outfile: string, entry = './main.ts'): Promise<Metafile> {
  const { metafile } = await build({
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
    metafile: true,
  });
  return metafile;
}

if (import.meta.main) {
  const metafiles = [
    await buildWebhook('dist/webhook.mjs'),
    await buildWebhook('dist/verify.mjs', './verify.ts'),
    await buildWebhook('dist/refresher.mjs', IN_CLUSTER_REFRESHER),
  ];
  await writeFile('dist/NOTICE', noticeOf(packagesIn(metafiles)));
}
