// The packaged chart is pushed to an OCI registry, and installed from there into a real cluster.
import { execFileSync } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { parse } from 'yaml';
import manifest from '../../package.json' with { type: 'json' };
import { packageChart } from '../../release/chart.ts';
import { type ControlPlane, startControlPlane } from '../bed/control-plane.ts';
import { helm } from '../bed/helm.ts';
import { freePorts, startProgram } from '../bed/process.ts';
import { KUBERNETES_VERSION, tools } from '../bed/toolchain.ts';
import { NAMESPACE, prepareNamespace, RELEASE } from '../bed/webhook.ts';

const REPOSITORY = 'registry.example.com/published/ecr-anywhere';
const DIGEST = `sha256:${'0123456789abcdef'.repeat(4)}`;

const stack = new AsyncDisposableStack();
let dir: string;
let cluster: ControlPlane;
let registry: string;
let archive: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  cluster = stack.use(await startControlPlane({ name: 'chart', dir: join(dir, 'chart') }));
  await prepareNamespace(cluster);
  const [port = 0] = await freePorts(1);
  registry = `127.0.0.1:${port}`;
  stack.use(
    await startProgram('crane', tools().crane, ['registry', 'serve', '--address', registry], {
      env: {},
      logPath: join(dir, 'registry.log'),
      isReady: async () => (await fetch(`http://${registry}/v2/`)).ok,
    }),
  );
  archive = packageChart({ repository: REPOSITORY, digest: DIGEST }, dir, tools().helm);
});
afterAll(() => stack.disposeAsync());

/** The values that an operator must still choose. */
const VALUES = ['aws.region=eu-central-1', 'ownRegistry.namespaces={*}', 'refresher.namespaces={*}'].flatMap(
  (value) => ['--set', value],
);

test('the archive has the version of the project, the licence, and the image for Artifact Hub', () => {
  const chart = parse(
    execFileSync('tar', ['-xzOf', archive, 'ecr-anywhere/Chart.yaml'], { encoding: 'utf8' }),
  );
  expect(chart).toMatchObject({ version: manifest.version, appVersion: manifest.version });
  expect(chart.annotations['artifacthub.io/license']).toBe(manifest.license);
  expect(parse(chart.annotations['artifacthub.io/images'])).toEqual([
    { name: 'ecr-anywhere', image: `${REPOSITORY}@${DIGEST}`, platforms: ['linux/amd64', 'linux/arm64'] },
  ]);
});

test.each([3, 4] as const)(
  'Helm %i pushes it, and installs it from the registry with the published image',
  async (version) => {
    const charts = `oci://${registry}/charts-${version}`;
    await helm(['push', archive, charts, '--plain-http'], { cluster, version });
    const from = [`${charts}/ecr-anywhere`, '--version', manifest.version, '--plain-http'];
    await helm(['install', RELEASE, ...from, '--namespace', NAMESPACE, ...VALUES], { cluster, version });
    const { stdout } = await cluster.kubectl([
      ...['get', 'deployment', RELEASE, '--namespace', NAMESPACE],
      ...['-o', 'jsonpath={.spec.template.spec.containers[0].image}'],
    ]);
    expect(stdout).toBe(`${REPOSITORY}@${DIGEST}`);
    await helm(['uninstall', RELEASE, '--namespace', NAMESPACE], { cluster, version });
  },
);

test('another image can be chosen', async () => {
  const other = ['--set', 'image.repository=registry.example.com/other', '--set', 'image.digest='];
  const { stdout } = await helm(
    ['template', RELEASE, archive, '--kube-version', KUBERNETES_VERSION, ...VALUES, ...other],
    { cluster },
  );
  expect(stdout).toContain(`image: "registry.example.com/other:${manifest.version}"`);
});

test('an image without a valid digest is refused', () => {
  expect(() => packageChart({ repository: REPOSITORY, digest: 'latest' }, dir, tools().helm)).toThrow(
    'sha256:',
  );
});
