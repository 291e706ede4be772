// `npm run envtest`: pins the control plane that the set-up downloads to the newest one that the envtest project's index lists.
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parse } from 'yaml';
import { compareVersions } from '../../lib/version.ts';

const INDEX = 'https://raw.githubusercontent.com/kubernetes-sigs/controller-tools/HEAD/envtest-releases.yaml';
const PIN = fileURLToPath(new URL('toolchain/envtest.json', import.meta.url));
/** Names as Node has them (process.platform, process.arch), and as the index has them. */
const PLATFORMS = {
  'linux-x64': 'linux-amd64',
  'linux-arm64': 'linux-arm64',
  'darwin-x64': 'darwin-amd64',
  'darwin-arm64': 'darwin-arm64',
};

interface Index {
  readonly releases: Readonly<Record<string, Readonly<Record<string, { readonly hash: string }>>>>;
}

/**
 * Picks the newest release of an index, by version and not by position.
 *
 * @param index the text of envtest-releases.yaml
 * @returns the content of test/bed/toolchain/envtest.json
 * @throws Error if that release lacks a platform
 */
export function newestRelease(index: string) {
  const { releases } = parse(index) as Index;
  const version = Object.keys(releases)
    .filter((name) => /^v\d+\.\d+\.\d+$/.test(name))
    .sort(compareVersions)
    .at(-1);
  if (version === undefined) throw new Error('The index lists no release.');
  const archives = Object.entries(PLATFORMS).map(([platform, name]) => {
    const archive = `envtest-${version}-${name}.tar.gz`;
    const sha512 = releases[version]?.[archive]?.hash;
    if (!/^[0-9a-f]{128}$/.test(sha512 ?? '')) throw new Error(`The index has no sha512 of ${archive}.`);
    return [platform, { path: `envtest-${version}/${archive}`, sha512 }];
  });
  return { version, archives: Object.fromEntries(archives) };
}

if (import.meta.main) {
  const [file] = process.argv.slice(2);
  const response =
    file === undefined ? await fetch(INDEX, { signal: AbortSignal.timeout(30_000) }) : undefined;
  if (response && !response.ok) throw new Error(`${INDEX} responded ${response.status}.`);
  const pin = newestRelease(await (response?.text() ?? readFile(file ?? '', 'utf8')));
  await writeFile(PIN, `${JSON.stringify(pin, undefined, 2)}\n`);
  console.log(`test/bed/toolchain/envtest.json pins ${pin.version}.`);
}
