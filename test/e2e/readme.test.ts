// The README's own words about the command line, as somebody who has only them: its manifest and its commands, line by
// line, on the bed.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { keepEvidence } from '../bed/evidence.ts';
import { Bed } from '../bed/up.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
/** What the README calls the cluster, and the context. */
const CLUSTER = 'prod';

let bed: Bed;
let home: string;
let readme: string;

beforeAll(async () => {
  readme = await readFile(join(ROOT, 'README.md'), 'utf8');
  bed = await Bed.create({
    clusters: [CLUSTER],
    context: { scheduleEnabled: false },
    registersClusters: false,
  });
  await bed.start();
  home = await mkdtemp(join(tmpdir(), 'ecr-anywhere-home-'));
  const kubeconfig = await readFile(bed.cluster(CLUSTER).controlPlane.adminKubeconfigPath, 'utf8');
  await mkdir(join(home, '.kube'));
  await writeFile(join(home, '.kube', 'config'), kubeconfig.replaceAll(/: bed$/gm, `: ${CLUSTER}`), {
    mode: 0o600,
  });
});

afterAll(async () => {
  await bed?.[Symbol.asyncDispose]();
  if (home) await rm(home, { recursive: true, force: true });
});

/** The lines of the README's shell blocks. */
function shellLines(): string[] {
  return [...readme.matchAll(/^ *```sh\n([\s\S]*?)^ *```/gm)].flatMap(([, block = '']) =>
    block.split('\n').map((line) => line.trim()),
  );
}

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Types a line into a shell in the checkout. */
function type(line: string): Promise<Ended> {
  return new Promise((resolve) => {
    const env = {
      ...bed.operatorEnv,
      HOME: home,
      // npm's cache is the machine's: a home is new here, the machine is not.
      npm_config_cache: process.env.npm_config_cache ?? join(process.env.HOME ?? '', '.npm'),
      PATH: process.env.PATH ?? '',
    };
    execFile('bash', ['-c', line], { cwd: ROOT, env }, (error, stdout, stderr) => {
      keepEvidence('cli', 'readme', stdout + stderr);
      resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
    });
  });
}

/** The README's line that begins so. */
function lineOf(begin: string, from = 0): string {
  const line = shellLines()
    .slice(from)
    .find((one) => one.startsWith(begin));
  if (line === undefined) throw new Error(`the README has no line "${begin} …"`);
  return line;
}

async function apply(manifest: string): Promise<void> {
  await bed.cluster(CLUSTER).controlPlane.kubectl(['apply', '-f', '-'], { input: manifest });
}

test('the command line is built', { timeout: 120_000 }, async () => {
  expect(shellLines()).toContain('npm run build');
  expect(await type('npm run build')).toMatchObject({ code: 0 });
});

test('every command of the README is one that this file types', () => {
  const commands = shellLines().flatMap((line) => /^npx ecr-anywhere (\S+)/.exec(line)?.[1] ?? []);
  expect([...new Set(commands)].toSorted()).toEqual(
    ['register', 'status', 'doctor', 'refresh', 'pause', 'resume', 'unregister'].toSorted(),
  );
});

test('register', async () => {
  await apply(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: 'team-a', labels: { 'ecr-anywhere.centml.ai/namespace': 'enabled' } },
    }),
  );
  const [, manifest = ''] = /```yaml\n([\s\S]*?)```/.exec(readme) ?? [];
  await apply(manifest);
  const { code, stdout } = await type(lineOf('npx ecr-anywhere register'));
  expect(stdout).toContain(`${CLUSTER} is registered`);
  expect(stdout).toContain('It can read every Secret of every namespace');
  expect(stdout).toContain('1 managed Secret, none due.');
  expect(code).toBe(0);
});

test('status', async () => {
  const { code, stdout } = await type(lineOf('npx ecr-anywhere status'));
  expect(stdout).toMatch(/^prod {3}.*well .*\b1 {9}0 {5}11h 59m/m);
  expect(stdout).toContain('1 cluster, none needs attention.');
  expect(code).toBe(0);
});

test('doctor', async () => {
  const { code, stdout } = await type(lineOf('npx ecr-anywhere doctor'));
  expect(stdout.trimEnd()).toMatch(/All well\.$/);
  expect(code).toBe(0);
});

test('refresh, as it stands there and with the option that is named beside it', async () => {
  const line = lineOf('npx ecr-anywhere refresh');
  expect(await type(line)).toMatchObject({ code: 0, stdout: 'prod: 1 managed Secret, none due.\n' });
  expect(line).toContain('--force');
  const calls = bed.ecr.calls.length;
  const { code, stdout } = await type(line.replace(/ +#.*/, ' --force'));
  expect(stdout).toMatch(/^team-a\/ecr {3}forced {3}refreshed {3}\d{4}-\d\d-\d\dT/m);
  expect(code).toBe(0);
  expect(bed.ecr.calls.length).toBe(calls + 1);
});

test('pause, resume', async () => {
  const run = async () => (await bed.deployment.invoke()).payload;
  expect(await type(lineOf('npx ecr-anywhere pause'))).toMatchObject({ code: 0 });
  expect(await run()).toMatchObject({ clusters: [{ cluster: CLUSTER, isPaused: true }] });
  expect(await type('npx ecr-anywhere status')).toMatchObject({
    stdout: expect.stringMatching(/^prod +paused/m),
  });
  expect(await type(lineOf('npx ecr-anywhere resume'))).toMatchObject({ code: 0 });
  expect(await run()).toMatchObject({ clusters: [{ cluster: CLUSTER, served: true }] });
});

test('unregister: the token is dead, and nobody knows the cluster', { timeout: 120_000 }, async () => {
  const { controlPlane } = bed.cluster(CLUSTER);
  const token = ['get', 'secret', 'ecr-anywhere-refresher-token', '-n', 'ecr-anywhere'];
  expect(await controlPlane.kubectl(token, { mayFail: true })).toMatchObject({ code: 0 });
  const { code, stdout } = await type(lineOf('npx ecr-anywhere unregister'));
  expect(stdout).toContain('Its token, and all that it was renewed to, is refused from now on.');
  expect(code).toBe(0);
  expect(await controlPlane.kubectl(token, { mayFail: true })).toMatchObject({
    stderr: expect.stringContaining('NotFound'),
  });
  expect(await type('npx ecr-anywhere status')).toMatchObject({
    stdout: expect.stringContaining('No cluster is registered.'),
  });
});

test('and it can be registered again, at once', { timeout: 120_000 }, async () => {
  expect(await type(lineOf('npx ecr-anywhere register'))).toMatchObject({ code: 0 });
});
