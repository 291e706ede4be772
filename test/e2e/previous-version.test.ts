// Command line, function, chart and webhook of an earlier version beside those of this one, each way, in the order of an
// upgrade and back: each pair works or says with a code why not, and none prints a stack trace.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { VERSION } from '../../lib/version.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../bed/control-plane.ts';
import { deployStack } from '../bed/deploy.ts';
import type { Deployment } from '../bed/deployment.ts';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { previousCheckout } from '../bed/previous.ts';
import { tools } from '../bed/toolchain.ts';
import { pullSecretManifest } from '../bed/up.ts';
import { installWebhook, refresherKubeconfig, type WebhookInstallation } from '../bed/webhook.ts';
import { type CommandLine, startCommandLine } from '../cli/command-line.ts';

const CONTEXT = { scheduleEnabled: false, allowLocalServers: true };

const stack = new AsyncDisposableStack();
let earlier: string;
let ecr: AwsEndpoint;
let emulator: Emulator;
let deployment: Deployment;
let cluster: ControlPlane;
let webhook: WebhookInstallation;
let present: CommandLine;
let previous: CommandLine;

beforeAll(async () => {
  earlier = await previousCheckout();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  ecr = stack.use(await startAwsEndpoint());
  emulator = stack.use(await startEmulator({ dir: join(dir, 'aws'), python: tools().python }));
  deployment = await deployStack(emulator, { context: CONTEXT, cwd: earlier });
  await deployment.subscribe();
  cluster = stack.use(await startControlPlane({ name: 'alpha', dir: join(dir, 'alpha') }));
  webhook = await installWebhook(cluster, { ecrUrl: ecr.url, checkout: earlier });
  stack.defer(() => webhook.stop());
  await cluster.kubectl(['create', '-f', '-'], { input: pullSecretManifest('team-a') });
  await deployment.registerCluster('alpha', await refresherKubeconfig(cluster));
  const env = Object.fromEntries(Object.entries(emulator.env).filter(([name]) => /^(AWS|NODE)_/.test(name)));
  const all = { ...env, KUBECONFIG: cluster.adminKubeconfigPath };
  present = stack.use(await startCommandLine(all));
  const { buildCli } = await import(join(earlier, 'cli/build.ts'));
  previous = stack.use(await startCommandLine(all, buildCli));
});
afterAll(() => stack.disposeAsync());

interface Report {
  readonly versions: Readonly<Record<string, string>>;
  readonly versionWarnings: readonly { readonly code: string }[];
  readonly findings: readonly { readonly check: string; readonly verdict: string; readonly code?: string }[];
}

/** Runs commands of every kind as text. Each must end with a sentence. */
async function expectSentences(cli: CommandLine): Promise<void> {
  for (const args of [['status'], ['refresh', 'alpha'], ['doctor', 'alpha'], ['doctor']]) {
    const { code, stdout, stderr } = await cli.run(args);
    const text = `${args.join(' ')} → ${code}\n${stdout}\n${stderr}`;
    expect(text).not.toMatch(/undefined|NaN|\[object |^ +at .*:\d+|\(bug\)/m);
    expect(stdout + stderr, text).toMatch(/alpha|refresher/i);
  }
}

/** The function replaces credentials that are still valid, which the webhook writes. */
async function expectRefreshed(cli: CommandLine): Promise<void> {
  const { clusters } = await cli.json<{ clusters: { outcomes: object }[] }>(['refresh', 'alpha', '--force']);
  expect(clusters).toEqual([expect.objectContaining({ failed: false, outcomes: { refreshed: 1 } })]);
}

/** Functions of one of the versions lack the alias that `--force` needs, or require it. */
async function expectNoForce(cli: CommandLine): Promise<void> {
  const { code, stderr } = await cli.run(['refresh', 'alpha', '--force', '--output', 'json']);
  expect(JSON.parse(stderr)).toMatchObject({
    error: { code: 'function-too-old', hint: expect.stringContaining('cdk deploy') },
  });
  expect(code).toBe(10);
  const { clusters } = await cli.json<{ clusters: { failed: boolean }[] }>(['refresh', 'alpha']);
  expect(clusters).toEqual([expect.objectContaining({ failed: false })]);
}

const doctor = () => present.json<Report>(['doctor', 'alpha']);

describe('the function, the chart and the webhook of the earlier version', () => {
  test('answer the present command line, which says that the function is older', async () => {
    await expectRefreshed(previous);
    await expectSentences(present);
    await expectNoForce(present);
    const { versions, versionWarnings } = await doctor();
    expect(versions).not.toHaveProperty('function');
    expect(versionWarnings).toContainEqual(expect.objectContaining({ code: 'function-older' }));
    expect((await present.run(['doctor'])).stdout).toContain('The function states no version');
  });
});

describe('the present function', () => {
  let alarms: readonly string[];

  beforeAll(async () => {
    alarms = Object.keys(await deployment.alarms());
    // A run over all clusters stores their states.
    await deployment.invoke();
    deployment = await deployStack(emulator, { context: CONTEXT });
  });

  test('keeps the registration, the alarms and the state of the cluster', async () => {
    expect(Object.keys(await deployment.alarms())).toEqual(expect.arrayContaining([...alarms]));
    const { clusters } = await present.json<{ clusters: object[] }>(['status']);
    expect(clusters).toEqual([expect.objectContaining({ name: 'alpha', reachedAt: expect.any(String) })]);
  });

  test('serves the earlier webhook, and the earlier command line except for --force', async () => {
    await expectRefreshed(present);
    await expectSentences(previous);
    await expectNoForce(previous);
  });

  test('has the version of the present command line', async () => {
    const { versions, versionWarnings } = await doctor();
    expect(versions).toMatchObject({ cli: VERSION, function: VERSION });
    expect(versionWarnings.filter(({ code }) => code.startsWith('function'))).toEqual([]);
  });
});

describe('the present chart and webhook', () => {
  beforeAll(async () => {
    await webhook.stop();
  });

  test('serve the function and both command lines after an upgrade of the release', async () => {
    webhook = await installWebhook(cluster, { ecrUrl: ecr.url, upgrades: true });
    await expectRefreshed(present);
    await expectSentences(previous);
    await expectNoForce(previous);
    const { findings } = await doctor();
    expect(findings.filter(({ verdict }) => verdict === 'failed')).toEqual([]);
  });

  test('serve the earlier function after it is deployed again', async () => {
    deployment = await deployStack(emulator, { context: CONTEXT, cwd: earlier });
    await expectRefreshed(previous);
    await expectSentences(present);
  });
});
