// The deployed bundle is one file that Node can load without other modules.
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { synthWithBundle } from './synth.ts';

const outdir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-'));
afterAll(() => rmSync(outdir, { recursive: true, force: true }));
let bundle: string;
beforeAll(() => {
  bundle = synthWithBundle(outdir);
});

const load = (env: Record<string, string>) =>
  execFileSync(
    process.execPath,
    [
      '--enable-source-maps',
      '--input-type=module',
      '-e',
      `console.log(typeof (await import('${bundle}/index.mjs')).handler)`,
    ],
    { cwd: bundle, env, encoding: 'utf8', stdio: 'pipe' },
  );

test('the bundle is a module with a source map of the project alone, without its text', () => {
  expect(readdirSync(bundle).sort()).toEqual(['NOTICE', 'index.mjs', 'index.mjs.map']);
  const map = JSON.parse(readFileSync(join(bundle, 'index.mjs.map'), 'utf8')) as Record<string, unknown>;
  expect(map).not.toHaveProperty('sourcesContent');
  expect(map.sources).toContain('functions/refresher/handler.ts');
  for (const source of map.sources as string[])
    expect(source).toMatch(/^(contract|functions|lib)\/|^package\.json$/);
});

test('the bundle loads under Node 24 outside the checkout, so it contains the AWS SDK', () => {
  expect(process.versions.node).toMatch(/^24\./);
  const env = {
    AWS_REGION: 'eu-central-1',
    AWS_LAMBDA_FUNCTION_NAME: 'refresher',
    CLUSTER_DEADLINE_SECONDS: '120',
    CLUSTER_CONCURRENCY: '25',
    MEMORY_TABLE: 'memory',
    TOPIC_ARN: 'arn:aws:sns:eu-central-1:111122223333:alarms',
    STACK_NAME: 'EcrAnywhere',
  };
  expect(load(env).trim()).toBe('function');
});

test('the bundle names a missing environment variable', () => {
  expect(() => load({ AWS_REGION: 'eu-central-1' })).toThrow('CLUSTER_DEADLINE_SECONDS');
});
