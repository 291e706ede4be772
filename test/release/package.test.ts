// Installs the npm package in a folder outside the checkout, and uses it there: the command line, the constructs, the CDK app.
import { execFile, execFileSync } from 'node:child_process';
import { access, cp, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { buildPackage, pack } from '../../release/package.ts';
import { Bed, pullSecretManifest } from '../bed/up.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const APP = 'npx --no ecr-anywhere-app';
/** What a user's project has beside the package. It is linked, because the tests must also pass offline. */
const PEERS = ['aws-cdk-lib', 'constructs'];

/** The complete app of docs/cdk.md. */
const EXAMPLE = join(ROOT, 'docs/examples/cdk-app');

/** An app that uses the types. */
const TYPED = `import { App, Stack } from 'aws-cdk-lib';
import { ClusterIdentity, Refresher, type RefresherProps } from 'ecr-anywhere/cdk';

const props: RefresherProps = { alarmEmail: 'you@example.com', rateMinutes: 30 };
const stack = new Stack(new App(), 'Platform');
const refresher = new Refresher(stack, 'Refresher', props);
new ClusterIdentity(stack, 'Prod', { issuer: 'https://oidc.example.com/prod', repositories: ['team-a/*'] });
const topic: string = refresher.alarmTopic.topicArn;
console.log(stack.resolve(topic));
`;

let dir: string;
let tarball: string;
/** A project with the package and its peers. */
let project: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  await buildPackage(join(dir, 'package'));
  tarball = pack(join(dir, 'package'), dir);
  project = await install('project', EXAMPLE);
  for (const name of [...PEERS, '@types/node'])
    await link(join(ROOT, 'node_modules', name), join(project, 'node_modules', name));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

async function link(target: string, path: string): Promise<void> {
  await mkdir(dirname(path), { recursive: true });
  await symlink(target, path);
}

/** Installs the package in a new project. @param from the files of the project @returns the folder */
async function install(name: string, from?: string): Promise<string> {
  const folder = join(dir, name);
  if (from) await cp(from, folder, { recursive: true });
  else {
    await mkdir(folder);
    await writeFile(join(folder, 'package.json'), '{"private": true}');
  }
  execFileSync('npm', ['install', '--offline', '--omit=optional', '--no-audit', '--no-fund', tarball], {
    cwd: folder,
    stdio: 'pipe',
  });
  return folder;
}

/** Runs a program in the project. @returns what it prints, and its exit code */
async function run(command: string, args: readonly string[], env = {}, cwd = project) {
  try {
    const { stdout, stderr } = await promisify(execFile)(command, args, {
      cwd,
      env: { PATH: `${join(ROOT, 'node_modules/.bin')}:${process.env.PATH}`, HOME: dir, ...env },
      maxBuffer: 64 * 1024 * 1024,
    });
    return { code: 0, stdout, stderr };
  } catch (error) {
    const { code, stdout = '', stderr = '' } = error as { code?: number; stdout?: string; stderr?: string };
    return { code, stdout, stderr };
  }
}

test('the package contains these files and no others', async () => {
  const installed = join(project, 'node_modules/ecr-anywhere');
  const files = (await readdir(installed, { recursive: true, withFileTypes: true }))
    .filter((entry) => entry.isFile())
    .map(({ parentPath, name }) => join(parentPath, name).slice(installed.length + 1));
  const types = ['cluster-identity', 'function', 'index', 'refresher', 'refresher-settings', 'scale-out'];
  expect(files.sort()).toEqual(
    [
      ...['LICENSE', 'NOTICE', 'README.md', 'package.json'],
      ...['cdk/app.mjs', 'cdk/index.mjs', 'cdk/stack.mjs', 'dist/cli.mjs', 'dist/ecr-anywhere.mjs'],
      ...['NOTICE', 'index.mjs', 'index.mjs.map'].map((name) => `dist/function/${name}`),
      ...types.map((name) => `cdk/types/infra/${name}.d.ts`),
    ].sort(),
  );
  for (const file of files) {
    const text = await readFile(join(installed, file), 'utf8');
    expect
      .soft(text.includes(ROOT) || text.includes(dir), `${file} names a folder of this machine`)
      .toBe(false);
    expect.soft(text.includes("from 'vitest'"), `${file} contains a test`).toBe(false);
  }
});

test('it installs no other package', async () => {
  const folder = await install('alone');
  const installed = await readdir(join(folder, 'node_modules'));
  expect(installed.filter((name) => !name.startsWith('.'))).toEqual(['ecr-anywhere']);
});

test('the CDK app says what to install where aws-cdk-lib is missing', async () => {
  const { code, stderr } = await run('npx', ['--no', 'ecr-anywhere-app'], {}, join(dir, 'alone'));
  expect({ code, stderr }).toMatchObject({
    code: 1,
    stderr: expect.stringContaining('npm install aws-cdk-lib'),
  });
  expect(stderr).not.toContain('at ');
});

test('the command line runs, and has the version of the package', async () => {
  expect(await run('npx', ['--no', '--', 'ecr-anywhere', '--version'])).toMatchObject({
    code: 0,
    stdout: `${manifest.version}\n`,
  });
});

test('the command line says which Node.js it needs where that is older', async () => {
  const older = join(dir, 'older.mjs');
  const cli = join(project, 'node_modules/ecr-anywhere/dist/cli.mjs');
  await writeFile(
    older,
    `Object.defineProperty(process.versions, 'node', { value: '22.1.0' });\nawait import(${JSON.stringify(cli)});`,
  );
  const { code, stderr } = await run(process.execPath, [older]);
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: 'ecr-anywhere needs Node.js 24 or later, and this is 22.1.0.\n',
  });
});

test.each([
  { module: 'nodenext', resolution: 'nodenext' },
  { module: 'esnext', resolution: 'bundler' },
])('the types are complete with module resolution $resolution', async ({ module, resolution }) => {
  await writeFile(join(project, 'typed.ts'), TYPED);
  // exactOptionalPropertyTypes is left out: the types of aws-cdk-lib itself do not pass with it.
  const strict = ['--strict', '--noEmit', '--skipLibCheck', 'false'];
  const options = [
    '--target',
    'es2023',
    '--module',
    module,
    '--moduleResolution',
    resolution,
    '--types',
    'node',
  ];
  const { code, stdout } = await run('tsc', ['--ignoreConfig', ...strict, ...options, 'typed.ts']);
  expect({ code, stdout }).toEqual({ code: 0, stdout: '' });
});

test('the types refuse a property that does not exist', async () => {
  await writeFile(join(project, 'wrong.ts'), TYPED.replace('rateMinutes', 'rateMinute'));
  const options = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2023', '--types', 'node'];
  const { code, stdout } = await run('tsc', ['--ignoreConfig', ...options, 'wrong.ts']);
  await rm(join(project, 'wrong.ts'));
  expect(code).not.toBe(0);
  expect(stdout).toContain('rateMinute');
});

test('docs/cdk.md shows the code of the example', async () => {
  const [, shown] = /```ts\n([\s\S]*?)```/.exec(await readFile(join(ROOT, 'docs/cdk.md'), 'utf8')) ?? [];
  const app = await readFile(join(EXAMPLE, 'app.ts'), 'utf8');
  expect(shown).toBe(app.slice(app.indexOf('const stack')));
});

test('the example type-checks with its own tsconfig.json', async () => {
  expect(await run('tsc', [])).toMatchObject({ code: 0, stdout: '' });
});

test('the example gives the refresher, with its code, without esbuild and Docker', async () => {
  const { app } = JSON.parse(await readFile(join(EXAMPLE, 'cdk.json'), 'utf8')) as { app: string };
  const outdir = join(project, 'cdk.out');
  // Beside node, this folder has no program.
  const env = { CDK_OUTDIR: outdir, PATH: dirname(process.execPath) };
  const { code, stderr } = await run('/bin/sh', ['-c', app], env);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  const { Resources, Outputs } = JSON.parse(await readFile(join(outdir, 'Platform.template.json'), 'utf8'));
  const types = Object.values<{ Type: string }>(Resources).map(({ Type }) => Type);
  for (const type of ['Lambda::Function', 'Scheduler::Schedule', 'IAM::OIDCProvider'])
    expect(types).toContain(`AWS::${type}`);
  expect(Object.keys(Outputs)).toEqual(['FunctionName', 'WebhookRoleArn']);
  const asset = (await readdir(outdir)).find((name) => name.startsWith('asset.'));
  await access(join(outdir, String(asset), 'index.mjs'));
});

test('the CDK app gives the template of the checkout, whatever flags the cdk.json of the user has', async () => {
  const context = { '@aws-cdk/aws-iam:minimizePolicies': false, alarmEmail: 'you@example.com' };
  await writeFile(join(project, 'cdk.json'), JSON.stringify({ app: APP, context }));
  const synth = async (name: string, cwd: string, ...args: string[]) => {
    const output = join(dir, name);
    const all = ['synth', '--quiet', '--no-notices', '--output', output, ...args];
    const { code, stderr } = await run('cdk', all, {}, cwd);
    expect(code, stderr).toBe(0);
    return JSON.parse(await readFile(join(output, 'EcrAnywhere.template.json'), 'utf8')) as unknown;
  };
  const ofThePackage = await synth('package.out', project);
  expect(ofThePackage).toEqual(await synth('checkout.out', ROOT, '--context', 'alarmEmail=you@example.com'));
  await cp(join(EXAMPLE, 'cdk.json'), join(project, 'cdk.json'));
});

test('deployed from the package, it refreshes a cluster that the installed command line registers', async () => {
  await using bed = await Bed.create({
    clusters: ['prod'],
    context: { scheduleEnabled: false },
    registersClusters: false,
    app: { command: APP, stackName: 'EcrAnywhere', cwd: project },
  });
  await bed.start();
  const { controlPlane } = bed.cluster('prod');
  await controlPlane.kubectl(['apply', '-f', '-'], { input: pullSecretManifest('team-a') });
  const env = { ...bed.operatorEnv, KUBECONFIG: controlPlane.adminKubeconfigPath };
  const cli = (...args: string[]) => run('npx', ['--no', '--', 'ecr-anywhere', ...args], env);
  expect(await cli('register', 'prod')).toMatchObject({ code: 0 });
  const { stdout } = await cli('refresh', 'prod', '--force', '--output', 'json');
  expect(JSON.parse(stdout)).toMatchObject({
    clusters: [{ cluster: 'prod', secrets: [{ secret: 'team-a/pull', outcome: 'refreshed' }] }],
  });
});
