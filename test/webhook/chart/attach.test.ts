// The policy that adds the managed Secret to new Pods (chart value `attach`), on a real API server.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test, vi } from 'vitest';
import { NAMESPACE_LABEL } from '../../../contract/names.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { CHART, helm } from '../../bed/helm.ts';
import { prepareNamespace, RELEASE, runHelm } from '../../bed/webhook.ts';

const OWN = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';
const OTHER = '210987654321.dkr.ecr.us-east-1.amazonaws.com';
const MANAGED = `${OWN}/team/shop:1`;
const PUBLIC = 'nginx:1';
const ADDED = { name: 'ecr' };
const VALUES = {
  attach: { enabled: true, secretName: ADDED.name },
  ownRegistry: { account: '123456789012', namespaces: ['*'] },
  registries: [{ host: OTHER, namespaces: ['*'] }],
};

let cluster: ControlPlane;
let admin: Admin;
let stack: AsyncDisposableStack;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-attach-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  cluster = stack.use(await startControlPlane({ name: 'attach', dir, podsNeedServiceAccount: true }));
  ({ admin } = stack.use(await connectAdmin(cluster)));
  await prepareNamespace(cluster);
  await runHelm(cluster, ['install', RELEASE], { document: VALUES });
  // Shipped as Ignore, an error in an expression would look like a Pod that needs no Secret.
  const policy = `/apis/admissionregistration.k8s.io/v1/mutatingadmissionpolicies/${RELEASE}-attach`;
  expect(await admin('GET', policy)).toMatchObject({ spec: { failurePolicy: 'Ignore' } });
  await admin('PATCH', policy, { spec: { failurePolicy: 'Fail' } });
  for (const [name, labels] of Object.entries({
    enabled: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value },
    other: {},
  })) {
    await admin('POST', '/api/v1/namespaces', { metadata: { name, labels } });
    for (const account of ['default', 'with-secret'])
      await admin('POST', `/api/v1/namespaces/${name}/serviceaccounts`, {
        metadata: { name: account },
        ...(account === 'with-secret' && { imagePullSecrets: [{ name: 'docker-hub' }] }),
      });
  }
  await vi.waitUntil(() => secretsOf({}), { timeout: 30_000, interval: 100 });
});
afterAll(() => stack.disposeAsync());

const container = (image: string, name = 'main') => ({ name, image });

/** The imagePullSecrets with which the API server would store the Pod. @param spec replaces parts of a Pod that needs the Secret */
async function secretsOf(spec: object, namespace = 'enabled'): Promise<unknown> {
  const pod = await admin<{ spec: { imagePullSecrets?: unknown } }>(
    'POST',
    `/api/v1/namespaces/${namespace}/pods?dryRun=All`,
    { metadata: { name: 'pod' }, spec: { containers: [container(MANAGED)], ...spec } },
  );
  return pod.spec.imagePullSecrets;
}

test.each([
  { what: 'of the own registry', spec: {} },
  { what: 'of another registry of the policy', spec: { containers: [container(`${OTHER}/a`)] } },
  { what: 'of the second container', spec: { containers: [container(PUBLIC), container(MANAGED, 'side')] } },
  {
    what: 'of an init container',
    spec: { containers: [container(PUBLIC)], initContainers: [container(MANAGED, 'init')] },
  },
  {
    what: 'of a volume',
    spec: {
      containers: [container(PUBLIC)],
      volumes: [{ name: 'model', image: { reference: `${MANAGED}@sha256:${'0'.repeat(64)}` } }],
    },
  },
])('a Pod gets the Secret for an image $what', async ({ spec }) => {
  expect(await secretsOf(spec)).toEqual([ADDED]);
});

test.each([
  { what: 'of another registry', image: PUBLIC },
  { what: 'of another account', image: MANAGED.replace('123456789012', '111111111111') },
  { what: 'whose host only begins like a managed one', image: `${OWN}.example.com/a` },
  { what: 'whose path has a managed host', image: `example.com/${MANAGED}` },
])('a Pod gets nothing for an image $what', async ({ image }) => {
  expect(await secretsOf({ containers: [container(image)] })).toBeUndefined();
});

test('a Pod in a namespace that is not enabled gets nothing', async () => {
  expect(await secretsOf({}, 'other')).toBeUndefined();
});

test('a Pod that names the Secret gets it once', async () => {
  expect(await secretsOf({ imagePullSecrets: [ADDED] })).toEqual([ADDED]);
});

test('other Secrets stay: those of the Pod, and those of its ServiceAccount', async () => {
  const hub = { name: 'docker-hub' };
  expect(await secretsOf({ imagePullSecrets: [hub] })).toEqual([hub, ADDED]);
  expect(await secretsOf({ serviceAccountName: 'with-secret' })).toEqual([hub, ADDED]);
});

const API = 'admissionregistration.k8s.io/v1/MutatingAdmissionPolicy';
const template = (values: readonly string[], apis: readonly string[] = [API]) =>
  helm(
    [
      ...['template', RELEASE, CHART, '--kube-version', '1.36.0', '--set', 'attach.enabled=true'],
      ...[
        '--set',
        'refresher.namespaces={*},aws.region=eu-central-1,image.repository=registry.example.com/a',
      ],
      ...apis.flatMap((api) => ['--api-versions', api]),
      ...values.flatMap((value) => ['--set-string', value]),
    ],
    { mayFail: true },
  );

test('the name is that of the Secret that the refresher creates, unless there is another', async () => {
  const policy = [
    'ownRegistry.namespaces={*}',
    'ownRegistry.account=123456789012',
    'provision.secretName=own',
  ];
  const added = 'value: Object.spec.imagePullSecrets{name: ';
  expect((await template(policy)).stdout).toContain(`${added}'own'`);
  expect((await template([...policy, 'attach.secretName=ecr'])).stdout).toContain(`${added}'ecr'`);
});

test.each([
  {
    what: 'without MutatingAdmissionPolicies, and names the alternative',
    values: ['ownRegistry.namespaces={*}'],
    apis: [],
    message: /attach\.enabled: this cluster has no MutatingAdmissionPolicies.*docs\/managed-secrets\.md/,
  },
  {
    what: 'without the name of the Secret',
    values: ['ownRegistry.namespaces={*}', 'ownRegistry.account=123456789012'],
    message: /attach\.secretName: .*is missing/,
  },
  {
    what: 'if the account of ownRegistry is not known',
    values: ['attach.secretName=ecr', 'ownRegistry.namespaces={*}'],
    message: /ownRegistry\.account=123456789012/,
  },
])('helm refuses it $what', async ({ values, apis, message }) => {
  const { code, stderr } = await template(values, apis);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});
