// `npm run image:base`: pins the base of the webhook's image, in its Dockerfile, to the digest that the base's tag has in its
// registry now. Part of each release. With --check it writes nothing, and fails if the base is not pinned or its tag has moved.
import { createHash } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

/** The platforms of the webhook's image: the base must have them. */
const PLATFORMS = ['linux/amd64', 'linux/arm64'];
const INDEXES = [
  'application/vnd.oci.image.index.v1+json',
  'application/vnd.docker.distribution.manifest.list.v2+json',
];
const BASE = /^ARG BASE=(?<image>[^@\s]+)(?:@(?<digest>\S+))?$/m;
const ANSWER_WITHIN_MS = 30_000;

/**
 * Asks the registry for the digest of an image's index (OCI distribution API), with an anonymous token if it wants one.
 *
 * @param image HOST/NAME:TAG
 * @throws Error if there is no such index, or it lacks a platform
 */
async function currentDigest(image: string): Promise<string> {
  const { host, name, tag } =
    /^(?<host>[^/]+[.:][^/]+)\/(?<name>[^:]+):(?<tag>[^:]+)$/.exec(image)?.groups ?? {};
  if (host === undefined) throw new Error(`${image} is not HOST/NAME:TAG. Correct it in the Dockerfile.`);
  const url = `https://${host}/v2/${name}/manifests/${tag}`;
  const accept = INDEXES.join(', ');
  let answer = await request(url, { accept });
  if (answer.status === 401) {
    const authorization = `Bearer ${await anonymousToken(answer.headers.get('www-authenticate') ?? '', host)}`;
    answer = await request(url, { accept, authorization });
  }
  if (answer.status !== 200)
    throw new Error(
      `${host} answered ${answer.status} for ${image}. Is the name right, and the image public?`,
    );
  const body = await answer.bytes();
  const digest = `sha256:${createHash('sha256').update(body).digest('hex')}`;
  const stated = answer.headers.get('docker-content-digest') ?? digest;
  if (stated !== digest)
    throw new Error(`${host} states the digest ${stated} for ${image}, but sent content of ${digest}.`);
  const found = platformsIn(body);
  const missing = PLATFORMS.filter((platform) => !found.includes(platform));
  if (missing.length > 0)
    throw new Error(
      `${image} has no ${missing.join(' and no ')}. Choose a base that has ${PLATFORMS.join(' and ')}.`,
    );
  return digest;
}

/** The platforms in an index; none if it is something else, such as the manifest of a single image. */
function platformsIn(body: Uint8Array): string[] {
  try {
    const { manifests = [] } = JSON.parse(new TextDecoder().decode(body)) as {
      manifests?: readonly { readonly platform?: { readonly os: string; readonly architecture: string } }[];
    };
    return manifests.map(({ platform }) => `${platform?.os}/${platform?.architecture}`);
  } catch {
    return [];
  }
}

/** Requests the token that a registry's challenge names, without credentials. */
async function anonymousToken(challenge: string, host: string): Promise<string> {
  const { realm, ...query } = Object.fromEntries(
    [...challenge.matchAll(/(\w+)="([^"]*)"/g)].map(([, key = '', value = '']) => [key, value]),
  ) as Record<string, string>;
  if (!/^Bearer /i.test(challenge) || !realm?.startsWith('https://'))
    throw new Error(`${host} wants credentials. The base must be a public image.`);
  const answer = await request(`${realm}?${new URLSearchParams(query)}`, {});
  const { token, access_token: accessToken } = (answer.ok ? await answer.json() : {}) as Record<
    string,
    string
  >;
  if (!token && !accessToken)
    throw new Error(`${host} gives no anonymous token: ${realm} answered ${answer.status}.`);
  return token ?? accessToken ?? '';
}

async function request(url: string, headers: Readonly<Record<string, string>>): Promise<Response> {
  try {
    return await fetch(url, { headers, signal: AbortSignal.timeout(ANSWER_WITHIN_MS) });
  } catch (error) {
    const { message, cause } = error as Error;
    throw new Error(
      `${new URL(url).host} cannot be reached: ${(cause as Error | undefined)?.message ?? message}. Behind a proxy, set HTTPS_PROXY.`,
      { cause: error },
    );
  }
}

/** Pins the base, or checks the pin. @returns what to print @throws Error if there is something to correct */
async function pinBase(dockerfile: string, isCheck: boolean): Promise<string> {
  const text = await readFile(dockerfile, 'utf8');
  const { image, digest: pinned } = BASE.exec(text)?.groups ?? {};
  if (image === undefined) throw new Error(`${dockerfile} has no line "ARG BASE=HOST/NAME:TAG".`);
  const digest = await currentDigest(image);
  if (pinned === digest) return `${image} is pinned to its current digest, ${digest}.`;
  if (isCheck)
    throw new Error(
      `${image} ${pinned === undefined ? 'is not pinned' : `is pinned to ${pinned}`}, and its current digest is ${digest}. Run "npm run image:base".`,
    );
  await writeFile(dockerfile, text.replace(BASE, `ARG BASE=${image}@${digest}`));
  return `${image} is now pinned to ${digest}.`;
}

const { values, positionals } = parseArgs({
  options: { check: { type: 'boolean', default: false } },
  allowPositionals: true,
});
try {
  const dockerfile = positionals[0] ?? fileURLToPath(new URL('./Dockerfile', import.meta.url));
  console.log(await pinBase(dockerfile, values.check));
} catch (error) {
  console.error(`✖ ${(error as Error).message}`);
  process.exitCode = 1;
}
