// Builds the images of a node without a pull: the webhook's by `npm run image`, over a local stand-in of the base that its
// Dockerfile names, and a private image for the Pods of a test.
import { copyFile, mkdir, readFile, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { runCommand } from '../bed/control-plane.ts';
import { nodeTools } from '../bed/toolchain.ts';
import { PUBLIC_HOST } from './registry.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const NODE = join(ROOT, 'node_modules/node/bin/node');

export const WEBHOOK_IMAGE = `${PUBLIC_HOST}/ecr-anywhere`;
export const PAUSE_IMAGE = `${PUBLIC_HOST}/pause:1`;
/** The private image's name within its registry. */
export const PRIVATE_IMAGE = 'team-a/app:1.0';

/**
 * Builds the images, and pushes them.
 *
 * @param dir for temporary files
 * @param registry the address of the public registry
 * @param tag the tag of the webhook's image
 */
export async function buildImages(dir: string, registry: string, tag: string): Promise<void> {
  const storage = { driver: 'overlay', graphroot: join(dir, 'images'), runroot: join(dir, 'images-run') };
  const settings = Object.entries(storage).map(([name, value]) => `${name} = "${value}"\n`);
  await mkdir(dir, { recursive: true });
  await writeFile('/etc/containers/storage.conf', `[storage]\n${settings.join('')}`);

  const base = /^ARG BASE=(\S+)$/m.exec(await readFile(join(ROOT, 'webhook/Dockerfile'), 'utf8'))?.[1] ?? '';
  await buildFrom(join(dir, 'base'), base, await filesOfBase(), ['/nodejs/bin/node']);
  await run('npm', ['run', '--silent', 'image', '--', '-t', `${WEBHOOK_IMAGE}:${tag}`]);

  const { pause } = nodeTools();
  await buildFrom(join(dir, 'pause'), PAUSE_IMAGE, { '/pause': pause }, ['/pause']);
  await Promise.all([
    push(`${WEBHOOK_IMAGE}:${tag}`, `${registry}/ecr-anywhere:${tag}`),
    push(PAUSE_IMAGE, `${registry}/pause:1`),
    push(PAUSE_IMAGE, `${registry}/${PRIVATE_IMAGE}`),
  ]);
}

/** The files of the stand-in by their path in it: Node where the distroless image has it, and its libraries. */
async function filesOfBase(): Promise<Record<string, string>> {
  const { stdout } = await run('ldd', [NODE]);
  const libraries = [...stdout.matchAll(/(?:=> |^\s+)(\/\S+) \(/gm)].map(([, path = '']) => path);
  return { '/nodejs/bin/node': NODE, ...Object.fromEntries(libraries.map((path) => [path, path])) };
}

/** Builds an image of these files and nothing else. @param files their present paths, by their path in the image */
async function buildFrom(
  dir: string,
  name: string,
  files: Readonly<Record<string, string>>,
  entrypoint: readonly string[],
): Promise<void> {
  for (const [path, from] of Object.entries(files)) {
    await mkdir(join(dir, 'root', dirname(path)), { recursive: true });
    await copyFile(from, join(dir, 'root', dirname(path), basename(path)));
  }
  const lines = ['FROM scratch', 'COPY root /', `ENTRYPOINT ${JSON.stringify(entrypoint)}`];
  await writeFile(join(dir, 'Dockerfile'), `${lines.join('\n')}\n`);
  await run('buildah', ['build', '--tag', name, '--file', join(dir, 'Dockerfile'), dir]);
}

async function push(image: string, to: string): Promise<void> {
  await run('buildah', ['push', '--tls-verify=false', '--disable-compression', image, `docker://${to}`]);
}

async function run(command: string, args: readonly string[]): Promise<{ stdout: string }> {
  const env = { PATH: process.env.PATH ?? '', HOME: tmpdir(), BUILDAH_ISOLATION: 'chroot' };
  const { code, stdout, stderr } = await runCommand(command, args, env);
  if (code !== 0) throw new Error(`${command} ${args.join(' ')}: exit code ${code}\n${stdout}${stderr}`);
  return { stdout };
}
