// The mission with nothing played: the chart's webhook as Pods of its own image, and Pods that pull a private image with the
// Secret that it fills, on a whole node. AWS is emulated; the deployed function refreshes on its schedule.
import { mkdtemp, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import manifest from '../../package.json' with { type: 'json' };
import { type Admin, connectAdmin } from '../bed/admin.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { type ControlPlane, runCommand } from '../bed/control-plane.ts';
import { deployStack } from '../bed/deploy.ts';
import type { Deployment } from '../bed/deployment.ts';
import { startEmulator } from '../bed/emulator.ts';
import { CHART, helm } from '../bed/helm.ts';
import { tools } from '../bed/toolchain.ts';
import { pullSecretManifest } from '../bed/up.ts';
import { NAMESPACE, RELEASE, refresherKubeconfig } from '../bed/webhook.ts';
import { buildImages, PAUSE_IMAGE, PRIVATE_IMAGE, WEBHOOK_IMAGE } from './images.ts';
import { startNode } from './node.ts';
import { type Registries, startRegistries } from './registry.ts';
import { ADDRESS } from './settings.ts';

/** An enabled namespace, and one without the label. */
const ENABLED = 'team-a';
const PLAIN = 'team-b';

const stack = new AsyncDisposableStack();
let dir: string;
let ecr: AwsEndpoint;
let registries: Registries;
let cluster: ControlPlane;
let deployment: Deployment;

/** Prints how long a part of the set-up takes: it is most of this file's time. */
async function step<Result>(title: string, work: () => Promise<Result>): Promise<Result> {
  const startedAt = performance.now();
  const result = await work();
  console.log(`${title}: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  return result;
}

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'node-'));
  ecr = stack.use(await startAwsEndpoint({ address: ADDRESS }));
  // Due from the start.
  ecr.settings.lifetimeSeconds = 3600;
  registries = stack.use(await startRegistries(join(dir, 'registry'), ecr));
  const node = async () => {
    await step('images', () => buildImages(join(dir, 'images'), registries.address, manifest.version));
    cluster = stack.use(
      await step('node', () => startNode({ dir: join(dir, 'node'), pauseImage: PAUSE_IMAGE })),
    );
  };
  const aws = async () => {
    const emulator = stack.use(await startEmulator({ dir: join(dir, 'aws'), python: tools().python }));
    deployment = await deployStack(emulator, { context: { rateMinutes: 1, allowLocalServers: true } });
  };
  await Promise.all([node(), step('local AWS with the stack', aws)]);
});
afterAll(() => stack.disposeAsync());

const values = () => ({
  image: { repository: WEBHOOK_IMAGE },
  aws: { region: 'eu-central-1' },
  ownRegistry: { namespaces: [ENABLED] },
  refresher: { namespaces: [ENABLED] },
  test: { namespace: ENABLED },
  extraEnv: [
    { name: 'AWS_ACCESS_KEY_ID', value: 'bed' },
    { name: 'AWS_SECRET_ACCESS_KEY', value: 'bed' },
    ...Object.entries(ecr.env).map(([name, value]) => ({ name, value })),
  ],
});

async function apply(text: string): Promise<void> {
  await cluster.kubectl(['apply', '-f', '-'], { input: text });
}

async function get<Answer>(...what: readonly string[]): Promise<Answer> {
  return JSON.parse((await cluster.kubectl(['get', ...what, '-o', 'json'])).stdout);
}

/** Creates a Pod of the private image. */
async function runPod(namespace: string, name: string, pullSecret?: string): Promise<void> {
  await apply(
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: { name, namespace },
      spec: {
        terminationGracePeriodSeconds: 0,
        ...(pullSecret !== undefined && { imagePullSecrets: [{ name: pullSecret }] }),
        containers: [{ name: 'app', image: `${ecr.host}/${PRIVATE_IMAGE}`, imagePullPolicy: 'Always' }],
      },
    }),
  );
}

interface Pod {
  readonly status: {
    readonly phase: string;
    readonly containerStatuses?: readonly [
      { readonly state: { readonly waiting?: { readonly reason: string; readonly message?: string } } },
    ];
  };
}

/** The Pod's phase, or why its container waits. */
async function stateOf(namespace: string, name: string): Promise<string> {
  const { status } = await get<Pod>('pod', name, '--namespace', namespace);
  const { reason, message } = status.containerStatuses?.[0].state.waiting ?? {};
  return reason === undefined ? status.phase : `${reason}: ${message}`;
}

const isRunning = (namespace: string, name: string) =>
  expect.poll(() => stateOf(namespace, name), { timeout: 60_000 }).toBe('Running');
const isRefused = (namespace: string, name: string) =>
  expect
    .poll(() => stateOf(namespace, name), { timeout: 60_000 })
    .toMatch(/^ErrImagePull: .*(401|authoriz)/i);

/** The document in the managed Secret. */
async function pullSecret(): Promise<{ text: string; password: string }> {
  const { data } = await get<{ data: Record<string, string> }>('secret', 'pull', '--namespace', ENABLED);
  const text = Buffer.from(data[SECRET_KEY] ?? '', 'base64').toString();
  return { text, password: JSON.parse(text).auths[ecr.host].password };
}

/** Reads the private image's manifest with an authfile. @returns skopeo's exit code */
async function skopeo(authfile: string): Promise<number> {
  const file = join(dir, 'auth.json');
  await writeFile(file, authfile, { mode: 0o600 });
  const { code } = await runCommand(
    'skopeo',
    [
      ...['inspect', '--raw', '--authfile', file, '--cert-dir', registries.certificates],
      `docker://${ecr.host}/${PRIVATE_IMAGE}`,
    ],
    { PATH: process.env.PATH ?? '', HOME: dir },
  );
  return code;
}

test('the image holds the bundles above its base, and nothing else', async () => {
  const url = `http://${registries.address}/v2/ecr-anywhere`;
  const accept = 'application/vnd.oci.image.manifest.v1+json';
  const answer = await fetch(`${url}/manifests/${manifest.version}`, { headers: { accept } });
  const { config, layers } = (await answer.json()) as Record<'config', { digest: string }> & {
    layers: { digest: string }[];
  };
  // The stand-in of the base is one layer.
  const [, ...own] = layers;
  const files = await Promise.all(
    own.map(async ({ digest }, index) => {
      const file = join(dir, `layer-${index}.tar`);
      await writeFile(file, await (await fetch(`${url}/blobs/${digest}`)).bytes());
      return (await runCommand('tar', ['-tf', file], { PATH: process.env.PATH ?? '' })).stdout.split('\n');
    }),
  );
  expect(
    files
      .flat()
      .filter((path) => path && !path.endsWith('/'))
      .sort(),
  ).toEqual([
    'app/refresher.mjs',
    'app/refresher.mjs.map',
    'app/verify.mjs',
    'app/verify.mjs.map',
    'app/webhook.mjs',
    'app/webhook.mjs.map',
  ]);
  expect(await (await fetch(`${url}/blobs/${config.digest}`)).json()).toMatchObject({
    config: { User: '65532:65532', Entrypoint: ['/nodejs/bin/node', '--enable-source-maps'] },
  });
});

test('helm install --wait ends with the webhook ready, under restricted Pod Security', async () => {
  await cluster.kubectl(['create', 'namespace', NAMESPACE]);
  await cluster.kubectl(['label', 'namespace', NAMESPACE, 'pod-security.kubernetes.io/enforce=restricted']);
  await cluster.kubectl(['create', 'namespace', PLAIN]);
  await apply(`apiVersion: v1
kind: Namespace
metadata: {name: ${ENABLED}, labels: {ecr-anywhere.centml.ai/namespace: enabled}}
`);
  const file = join(dir, 'values.json');
  await writeFile(file, JSON.stringify(values()));
  await helm(
    ['install', RELEASE, CHART, '--namespace', NAMESPACE, '--values', file, '--wait', '--timeout=2m'],
    { cluster },
  );
  const { status } = await get<{ status: { readyReplicas: number; replicas: number } }>(
    ...['deployment', RELEASE, '--namespace', NAMESPACE],
  );
  expect(status.readyReplicas).toBe(status.replicas);
});

test('helm test succeeds', async () => {
  const { code, stdout, stderr } = await helm(
    ['test', RELEASE, '--namespace', NAMESPACE, '--logs', '--timeout=2m'],
    { cluster, mayFail: true },
  );
  expect({ code, stdout, stderr }).toMatchObject({ code: 0 });
});

describe('a Pod with a private image', () => {
  test('starts with the managed Secret, fails once the credential has expired, and starts after a scheduled run', async () => {
    await apply(pullSecretManifest(ENABLED));
    const before = await pullSecret();
    await runPod(ENABLED, 'before', 'pull');
    await isRunning(ENABLED, 'before');
    expect(await skopeo(before.text)).toBe(0);

    registries.expireTokens();
    await runPod(ENABLED, 'expired', 'pull');
    await isRefused(ENABLED, 'expired');
    expect(await skopeo(before.text)).not.toBe(0);

    ecr.settings.lifetimeSeconds = 12 * 3600;
    await deployment.registerCluster('node', await refresherKubeconfig(cluster));
    await deployment.startSchedule({ rateMinutes: 1 });
    await expect
      .poll(async () => (await pullSecret()).password, { timeout: 120_000, interval: 1_000 })
      .not.toBe(before.password);
    await runPod(ENABLED, 'after', 'pull');
    await isRunning(ENABLED, 'after');
    const { auths } = JSON.parse((await pullSecret()).text);
    const foreign = { 'registry.example.com': { auth: Buffer.from('user:password').toString('base64') } };
    expect(await skopeo(JSON.stringify({ auths: { ...foreign, ...auths } }))).toBe(0);
  });

  test('does not start with another credential', async () => {
    const { text, password } = await pullSecret();
    const wrong = text.replaceAll(password, `${password.slice(0, -1)}${password.endsWith('x') ? 'y' : 'x'}`);
    const auths = JSON.parse(wrong).auths[ecr.host];
    await apply(
      JSON.stringify({
        apiVersion: 'v1',
        kind: 'Secret',
        type: SECRET_TYPE,
        metadata: { name: 'wrong', namespace: ENABLED },
        stringData: {
          [SECRET_KEY]: JSON.stringify({
            auths: { [ecr.host]: { username: auths.username, password: auths.password } },
          }),
        },
      }),
    );
    await runPod(ENABLED, 'wrong', 'wrong');
    await isRefused(ENABLED, 'wrong');
  });

  test('does not start in a namespace without the label, whose Secret gets no credentials', async () => {
    const [, secret = ''] = pullSecretManifest(PLAIN).split('---\n');
    const { code } = await cluster.kubectl(['apply', '-f', '-'], { input: secret, mayFail: true });
    // The API server refuses a Secret of this type without data.
    expect(code).not.toBe(0);
    await runPod(PLAIN, 'plain', 'pull');
    await isRefused(PLAIN, 'plain');
  });
});

const ROLLOUT = ['--namespace', NAMESPACE, `deployment/${RELEASE}`];

/** Creates managed Secrets, in dry runs, until the work ends. @throws Error if one is refused */
async function admitWhile({ admin }: { readonly admin: Admin }, work: Promise<unknown>): Promise<void> {
  const secret = {
    ...{ apiVersion: 'v1', kind: 'Secret', type: SECRET_TYPE },
    metadata: { generateName: 'during-', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
  };
  let isOver = false;
  const ended = work.finally(() => {
    isOver = true;
  });
  let admissions = 0;
  for (; !isOver; admissions += 1)
    await admin('POST', `/api/v1/namespaces/${ENABLED}/secrets?dryRun=All`, secret);
  await ended;
  expect(admissions).toBeGreaterThan(10);
}

test('a rolling restart of the webhook fails no admission', async () => {
  await using client = await connectAdmin(cluster);
  await cluster.kubectl(['rollout', 'restart', ...ROLLOUT]);
  await admitWhile(client, cluster.kubectl(['rollout', 'status', '--timeout=2m', ...ROLLOUT]));
});

test('the eviction of a replica is refused while the other one is replaced, and no admission fails', async () => {
  await using client = await connectAdmin(cluster);
  const pods = `/api/v1/namespaces/${NAMESPACE}/pods`;
  const selector = encodeURIComponent(
    `app.kubernetes.io/instance=${RELEASE},app.kubernetes.io/name=ecr-anywhere`,
  );
  const { items } = await client.admin<{
    items: { metadata: { name: string; deletionTimestamp?: string } }[];
  }>(...(['GET', `${pods}?labelSelector=${selector}&fieldSelector=status.phase%3DRunning`] as const));
  // The Pods of the restart before may still be ending; their eviction is always allowed.
  const [first = '', second = ''] = items
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined)
    .map(({ metadata }) => metadata.name);
  const evict = (name: string) =>
    client.admin('POST', `${pods}/${name}/eviction`, {
      ...{ apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace: NAMESPACE } },
    });
  // The budget allows it once it has counted the new Pods.
  await expect.poll(() => evict(first).then(() => 'evicted', String)).toBe('evicted');
  await expect(evict(second)).rejects.toThrow(': 429: ');
  await admitWhile(client, cluster.kubectl(['rollout', 'status', '--timeout=2m', ...ROLLOUT]));
});
