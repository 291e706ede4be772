// Builds the images of a node without a pull: the webhook's, for both platforms, by `npm run image`, over a local stand-in of the base that its
// Dockerfile names, and a private image for the Pods of a test.
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { arch, tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand } from '../bed/control-plane.ts';
import { nodeTools } from '../bed/toolchain.ts';
import { PUBLIC_HOST } from './registry.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const NODE = join(ROOT, 'node_modules/node/bin/node');
const WEBHOOK_BUILD = join(ROOT, 'webhook/build.ts');

/** The platforms of the webhook's image. */
export const PLATFORMS = ['linux/amd64', 'linux/arm64'];
const OWN_PLATFORM = `linux/${arch() === 'x64' ? 'amd64' : arch()}`;

export const WEBHOOK_IMAGE = `${PUBLIC_HOST}/ecr-anywhere`;
export const PAUSE_IMAGE = `${PUBLIC_HOST}/pause:1`;
/** The private image's name within its registry. */
export const PRIVATE_IMAGE = 'team-a/app:1.0';

/**
 * Builds the webhook's image, and pushes it.
 *
 * @param dir for temporary files
 * @param registry the address of the public registry
 * @param tag the image's tag
 */
export async function buildWebhookImage(dir: string, registry: string, tag: string): Promise<void> {
  const dockerfile = await readFile(join(ROOT, 'webhook/Dockerfile'), 'utf8');
  const [, base = ''] = /^ARG BASE=([^@\s]+)/m.exec(dockerfile) ?? [];
  for (const platform of PLATFORMS) {
    // Node of the other architecture is not at hand. Nothing runs while an image is built, so any file will do.
    const files = platform === OWN_PLATFORM ? await filesOfBase() : { '/nodejs/bin/node': WEBHOOK_BUILD };
    await buildFrom(join(dir, 'base', platform), base, files, ['/nodejs/bin/node'], platform);
  }
  // The base may be pinned by a digest, which the stand-in does not have.
  const options = ['--platform', PLATFORMS.join(), '--build-arg', `BASE=${base}`];
  await run('npm', ['run', '--silent', 'image', '--', ...options, '-t', `${WEBHOOK_IMAGE}:${tag}`]);
  await push(`${WEBHOOK_IMAGE}:${tag}`, `${registry}/ecr-anywhere:${tag}`);
}

/**
 * Builds the image of the container that holds a Pod's network, and pushes it, also as the private image.
 *
 * @param dir for temporary files, and for the images of all builds
 * @param registry the address of the public registry
 */
export async function buildPauseImage(dir: string, registry: string): Promise<void> {
  const storage = { driver: 'overlay', graphroot: join(dir, 'images'), runroot: join(dir, 'images-run') };
  const settings = Object.entries(storage).map(([name, value]) => `${name} = "${value}"\n`);
  await mkdir(dir, { recursive: true });
  await writeFile('/etc/containers/storage.conf', `[storage]\n${settings.join('')}`);
  const { pause } = nodeTools();
  await buildFrom(join(dir, 'pause'), PAUSE_IMAGE, { '/pause': pause }, ['/pause'], OWN_PLATFORM);
  await push(PAUSE_IMAGE, `${registry}/pause:1`);
  await push(PAUSE_IMAGE, `${registry}/${PRIVATE_IMAGE}`);
}

/** The files of the stand-in by their path in it: Node where the distroless image has it, and its libraries. */
async function filesOfBase(): Promise<Record<string, string>> {
  const { stdout } = await run('ldd', [NODE]);
  const libraries = [...stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(/gm)].map(([, path = '']) => path);
  return { '/nodejs/bin/node': NODE, ...Object.fromEntries(libraries.map((path) => [path, path])) };
}

/**
 * Builds an image of these files and nothing else, and adds it to the index of this name.
 *
 * @param files their present paths, by their path in the image
 */
async function buildFrom(
  dir: string,
  name: string,
  files: Readonly<Record<string, string>>,
  entrypoint: readonly string[],
  platform: string,
): Promise<void> {
  for (const [path, from] of Object.entries(files)) {
    await mkdir(join(dir, 'root', dirname(path)), { recursive: true });
    await copyFile(from, join(dir, 'root', dirname(path), basename(path)));
  }
  const lines = ['FROM scratch', 'COPY root /', `ENTRYPOINT ${JSON.stringify(entrypoint)}`];
  await writeFile(join(dir, 'Dockerfile'), `${lines.join('\n')}\n`);
  const options = ['--platform', platform, '--manifest', name, '--file', join(dir, 'Dockerfile')];
  await run('buildah', ['build', ...options, dir]);
}

async function push(image: string, to: string): Promise<void> {
  await run('buildah', ['manifest', 'push', '--all', '--tls-verify=false', image, `docker://${to}`]);
}

async function run(command: string, args: readonly string[]): Promise<{ stdout: string }> {
  const env = { PATH: process.env.PATH ?? '', HOME: tmpdir(), BUILDAH_ISOLATION: 'chroot' };
  const { code, stdout, stderr } = await runCommand(command, args, env);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`);
  return { stdout };
}
