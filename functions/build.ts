// Bundles the refresher's Lambda function, with the NOTICE of the packages inside: `npm run build`, and the CDK before the app.
import { fileURLToPath } from 'node:url';
import { bundle, replace } from '../release/bundle.ts';
import { noticeOf, packagesIn } from '../release/notice.ts';

/** The folder from which the CDK app takes the code of the function. */
export const FUNCTION_FOLDER = fileURLToPath(new URL('../dist/function', import.meta.url));

/** Writes the code of the function: `index.mjs`, its source map and NOTICE. The AWS SDK is inside, in the version of the lockfile. */
export async function buildFunction(folder = FUNCTION_FOLDER): Promise<void> {
  const metafile = await bundle({
    outfile: `${folder}/index.mjs`,
    entry: 'functions/refresher/handler.ts',
    sourcemap: true,
  });
  await replace(`${folder}/NOTICE`, noticeOf(packagesIn([metafile])));
}

if (import.meta.main) await buildFunction();
