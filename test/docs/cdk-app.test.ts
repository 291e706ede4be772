// The example of docs/cdk.md type-checks and synthesizes with the npm package, and the page shows its code.
import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildPackage } from '../../release/package.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const EXAMPLE = join(ROOT, 'docs/examples/cdk-app');

let dir: string;

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
  cpSync(EXAMPLE, dir, { recursive: true });
  const modules = join(dir, 'node_modules');
  await buildPackage(join(modules, 'ecr-anywhere'));
  for (const name of ['aws-cdk-lib', 'constructs', '@types/node']) {
    mkdirSync(dirname(join(modules, name)), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules', name), join(modules, name));
  }
});
afterAll(() => rmSync(dir, { recursive: true, force: true }));

test('the page shows the code of the example', () => {
  const page = readFileSync(join(ROOT, 'docs/cdk.md'), 'utf8');
  const [, shown] = /```ts\n([\s\S]*?)```/.exec(page) ?? [];
  const app = readFileSync(join(EXAMPLE, 'app.ts'), 'utf8');
  expect(shown).toBe(app.slice(app.indexOf('const stack')));
});

test('the example type-checks', () => {
  const tsc = join(ROOT, 'node_modules/typescript/bin/tsc');
  // On a failure, the compiler's messages are in the error.
  expect(execFileSync(process.execPath, [tsc], { cwd: dir, encoding: 'utf8' })).toBe('');
});

test('the command of its cdk.json synthesizes function, schedule and role', () => {
  const { app } = JSON.parse(readFileSync(join(dir, 'cdk.json'), 'utf8')) as { app: string };
  const outdir = join(dir, 'cdk.out');
  const env = {
    ...process.env,
    CDK_OUTDIR: outdir,
    PATH: `${dirname(process.execPath)}:${process.env.PATH}`,
  };
  execFileSync(app, { cwd: dir, env, shell: true });
  const { Resources, Outputs } = JSON.parse(
    readFileSync(join(outdir, 'Platform.template.json'), 'utf8'),
  ) as Record<'Resources' | 'Outputs', Record<string, { Type: string }>>;
  const types = Object.values(Resources).map(({ Type }) => Type);
  for (const type of ['Lambda::Function', 'Scheduler::Schedule', 'IAM::OIDCProvider'])
    expect(types).toContain(`AWS::${type}`);
  expect(Object.keys(Outputs)).toEqual(['FunctionName', 'WebhookRoleArn']);
});
