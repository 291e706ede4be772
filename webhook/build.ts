// Bundles the programs of the image into one file each that needs only Node: the webhook, the program of `helm test`, and the
// refresher in the cluster. Beside them it writes their NOTICE.
import type { Metafile } from 'esbuild';
import { bundle, replace } from '../release/bundle.ts';
import { noticeOf, packagesIn } from '../release/notice.ts';

/** The entry point of the refresher in the cluster. */
export const IN_CLUSTER_REFRESHER = 'functions/refresher/in-cluster/main.ts';

/**
 * Writes a bundle and its source map.
 *
 * @param outfile such as dist/webhook.mjs
 * @param entry the entry point
 * @returns what is in the bundle
 */
export async function buildWebhook(outfile: string, entry = 'webhook/main.ts'): Promise<Metafile> {
  return bundle({ outfile, entry, sourcemap: true });
}

if (import.meta.main) {
  const metafiles = [
    await buildWebhook('dist/webhook.mjs'),
    await buildWebhook('dist/verify.mjs', 'webhook/verify.ts'),
    await buildWebhook('dist/refresher.mjs', IN_CLUSTER_REFRESHER),
  ];
  await replace('dist/NOTICE', noticeOf(packagesIn(metafiles)));
}
