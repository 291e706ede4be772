// Builds the webhook's image with the first of docker, podman and buildah that works on this machine: `npm run image`. All
// arguments go to its `build` command, such as `--platform linux/amd64,linux/arm64 -t registry.example.com/ecr-anywhere:0.1.0`.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

const BUILDERS = ['docker', 'podman', 'buildah'];
const ROOT = fileURLToPath(new URL('..', import.meta.url));

// docker's command line is often installed where no engine runs.
const builder = BUILDERS.find((name) => spawnSync(name, ['info'], { stdio: 'ignore' }).status === 0);
const args = process.argv.slice(2);
if (builder === undefined) {
  console.error(
    `✖ No program can build images here. Install and start one of ${BUILDERS.join(', ')}; then run "npm run image" again.`,
  );
  process.exitCode = 1;
} else if (!args.some((arg) => /^(-t|--tag)/.test(arg))) {
  console.error(
    '✖ The image needs a name. Run "npm run image -- -t registry.example.com/ecr-anywhere:0.1.0".',
  );
  process.exitCode = 2;
} else {
  // podman and buildah give a tag to one image only, and for several platforms want the name of a manifest list.
  const isList = builder !== 'docker' && args.some((arg) => /^(--platform=)?\w+\/\w+,/.test(arg));
  const named = isList ? args.map((arg) => arg.replace(/^(-t|--tag)(?==|$)/, '--manifest')) : args;
  const build = ['build', '-f', 'webhook/Dockerfile', ...named, '.'];
  console.log(`${builder} ${build.join(' ')}`);
  process.exitCode = spawnSync(builder, build, { cwd: ROOT, stdio: 'inherit' }).status ?? 1;
}
