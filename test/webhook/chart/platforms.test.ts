// The chart on different platforms, as docs/platforms.md describes: a real API server accepts what Helm 3 and Helm 4 render,
// Pod Security `restricted` accepts its pods, and the webhook serves Secrets under other names.
import { randomInt } from 'node:crypto';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { findInstallation } from '../../../cli/kubernetes/chart.ts';
import { Kubernetes } from '../../../cli/kubernetes/client.ts';
import { NAMESPACE_LABEL } from '../../../contract/names.ts';
import manifest from '../../../package.json' with { type: 'json' };
import { buildWebhook } from '../../../webhook/build.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { CHART, helm } from '../../bed/helm.ts';
import { startPod } from '../../bed/kubelet.ts';
import { IS_OLDEST_KUBERNETES, KUBERNETES_VERSION, tools } from '../../bed/toolchain.ts';
import { NAMESPACE, prepareNamespace, SERVICE_PORT, serviceAddress } from '../../bed/webhook.ts';
import { tryToCreate } from '../admissions.ts';

const VERSIONS = [3, 4] as const;
const OPENSHIFT = ['--api-versions', 'security.openshift.io/v1'];
// The oldest Kubernetes version has none.
const PROOF = IS_OLDEST_KUBERNETES
  ? []
  : ['--api-versions', 'admissionregistration.k8s.io/v1/MutatingAdmissionPolicy'];
const REQUIRED = {
  image: { repository: 'registry.example.com/ecr-anywhere' },
  aws: { region: 'eu-central-1' },
  ownRegistry: { namespaces: ['*'] },
  refresher: { namespaces: ['*'], inCluster: { enabled: true } },
};
const KUBERNETES_POLICY = { enabled: true, apiServers: ['10.0.0.0/28', 'fd00::/64'] };

interface PodSpec {
  serviceAccountName: string;
  securityContext: Record<string, unknown>;
  nodeSelector?: object;
  imagePullSecrets?: object[];
  topologySpreadConstraints?: object[];
  containers: [{ image: string; securityContext: object }];
}
interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string; labels: Record<string, string>; annotations?: object };
  spec?: PodSpec & { template?: PodTemplate; jobTemplate?: { spec: { template: PodTemplate } } };
}
interface PodTemplate {
  metadata: { labels: Record<string, string> };
  spec: PodSpec;
}
interface Rendering {
  readonly release?: string;
  readonly namespace?: string;
  readonly args?: readonly string[];
  readonly values?: object;
}

let stack: AsyncDisposableStack;
let dir: string;
let cluster: ControlPlane;
let admin: Admin;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-platforms-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  // Dual-stack. Not a range of another control plane of the tests.
  const extraArgs = [`--service-cluster-ip-range=127.${randomInt(2, 15)}.0.0/16,fd00:127::/112`];
  cluster = stack.use(await startControlPlane({ name: 'platforms', dir, extraArgs }));
  ({ admin } = stack.use(await connectAdmin(cluster)));
  for (const name of [NAMESPACE, '123']) {
    await prepareNamespace(cluster, name);
    await cluster.kubectl(['label', 'namespace', name, 'pod-security.kubernetes.io/enforce=restricted']);
  }
  await admin('POST', '/apis/scheduling.k8s.io/v1/priorityclasses', { metadata: { name: '7' }, value: 7 });
  for (const file of await readdir(tools().crds))
    await cluster.kubectl(['apply', '--server-side', '-f', join(tools().crds, file)]);
});
afterAll(() => stack.disposeAsync());

/** Writes values. @returns the options of helm for them */
async function valueOptions(values: object): Promise<string[]> {
  const file = join(await mkdtemp(join(dir, 'values-')), 'values.json');
  await writeFile(file, JSON.stringify(values));
  return ['--values', file];
}

/** The manifests, with those of `helm test`, if Helm 3 and Helm 4 render the same. */
async function render(
  { release = 'ecr-anywhere', namespace = NAMESPACE, args = [], values = {} }: Rendering,
  chart = CHART,
): Promise<Manifest[]> {
  const options = await valueOptions(chart === CHART ? { ...REQUIRED, ...values } : values);
  const command = [
    'template',
    release,
    chart,
    '--namespace',
    namespace,
    '--kube-version',
    KUBERNETES_VERSION,
  ];
  const [by3, by4] = await Promise.all(
    VERSIONS.map(async (version) => {
      const { stdout } = await helm([...command, ...args, ...options], { version });
      // Kubernetes reads YAML 1.1.
      const documents = parseAllDocuments(stdout, { version: '1.1' });
      return documents.flatMap((document) => (document.toJS() as Manifest | null) ?? []);
    }),
  );
  const sorted = (all: readonly Manifest[] = []) => all.map((one) => JSON.stringify(one)).sort();
  expect(sorted(by4)).toEqual(sorted(by3));
  // A name that is quoted twice.
  expect(JSON.stringify(by3)).not.toContain('"\\"');
  return by3 ?? [];
}

/** The templates of the webhook's pods and of the refresher's. */
function podTemplates(all: readonly Manifest[]): PodTemplate[] {
  return all.flatMap(({ kind, spec }) => {
    const template = kind === 'CronJob' ? spec?.jobTemplate?.spec.template : spec?.template;
    return ['Deployment', 'CronJob'].includes(kind) && template ? [template] : [];
  });
}

/** The webhook's pods, that of `helm test`, and the refresher's if it is in the cluster. */
function podSpecs(all: readonly Manifest[]): [PodSpec, PodSpec, ...PodSpec[]] {
  const [deployment, ...others] = podTemplates(all);
  const tester = all.find(({ kind }) => kind === 'Pod')?.spec;
  if (!deployment || !tester) throw new Error('The chart renders no Deployment or no Pod.');
  return [deployment.spec, tester, ...others.map(({ spec }) => spec)];
}

/** Has the API server validate the manifests strictly, and a pod of each template. */
async function expectAccepted(all: readonly Manifest[]): Promise<void> {
  const namespace = all.find(({ kind }) => kind === 'Deployment')?.metadata.namespace;
  const pods = podTemplates(all).map(({ metadata, spec }, index) => ({
    ...{ apiVersion: 'v1', kind: 'Pod' },
    metadata: { name: `of-template-${index}`, namespace, labels: metadata.labels },
    spec,
  }));
  const items = [...all, ...pods];
  const { stdout } = await cluster.kubectl(
    ['apply', '--dry-run=server', '--validate=strict', '--filename=-'],
    { input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items }) },
  );
  expect(stdout.match(/created \(server dry run\)$/gm)).toHaveLength(items.length);
}

function egressOf(all: readonly Manifest[], kind: string): string {
  const policy = all.find((one) => one.kind === kind) as unknown as { spec: { egress: object } };
  return JSON.stringify(policy.spec.egress);
}
const RESTRICTED_V2 = { runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } };

describe.each<Rendering & { title: string; check: (all: Manifest[]) => void }>([
  {
    title: 'Kubernetes with default values',
    check: (all) => {
      for (const { securityContext, nodeSelector, topologySpreadConstraints = [] } of podSpecs(all)) {
        expect(securityContext).toEqual({
          ...RESTRICTED_V2,
          ...{ runAsUser: 65532, runAsGroup: 65532, fsGroup: 65532 },
        });
        expect(nodeSelector).toEqual({ 'kubernetes.io/os': 'linux' });
        for (const constraint of topologySpreadConstraints)
          expect(constraint).toMatchObject({
            labelSelector: { matchLabels: { 'app.kubernetes.io/name': 'ecr-anywhere' } },
          });
      }
      expect(podSpecs(all)[0].topologySpreadConstraints).toHaveLength(2);
      expect(all.find(({ kind }) => kind === 'PodDisruptionBudget')?.spec).toMatchObject({
        maxUnavailable: 1,
      });
    },
  },
  {
    title: 'OpenShift, whose SCC restricted-v2 sets user and groups',
    args: [...OPENSHIFT, ...PROOF],
    values: { networkPolicy: KUBERNETES_POLICY },
    check: (all) => {
      for (const { securityContext } of podSpecs(all)) expect(securityContext).toEqual(RESTRICTED_V2);
      expect(egressOf(all, 'NetworkPolicy')).toContain('{"port":5353,"protocol":"UDP"}');
    },
  },
  {
    title: 'OpenShift, where Helm does not see the cluster, with a port below 1024 and CiliumNetworkPolicy',
    values: {
      ...{ openshift: 'enabled', webhook: { port: 443 }, networkPolicy: { enabled: true, type: 'cilium' } },
      podSecurityContext: { sysctls: [{ name: 'net.ipv4.tcp_syncookies', value: '1' }] },
    },
    check: (all) => {
      expect(podSpecs(all)[0].securityContext).toEqual({
        ...RESTRICTED_V2,
        sysctls: [
          { name: 'net.ipv4.ip_unprivileged_port_start', value: '0' },
          { name: 'net.ipv4.tcp_syncookies', value: '1' },
        ],
      });
      expect(egressOf(all, 'CiliumNetworkPolicy')).toContain('{"port":"5353","protocol":"UDP"}');
    },
  },
  {
    title: 'OpenShift with an SCC of the operator',
    args: OPENSHIFT,
    values: { podSecurityContext: { runAsUser: 1000650001, runAsGroup: null, fsGroup: 1000650001 } },
    check: (all) => {
      const user = { runAsUser: 1000650001, fsGroup: 1000650001 };
      for (const { securityContext } of podSpecs(all))
        expect(securityContext).toEqual({ ...RESTRICTED_V2, ...user });
    },
  },
  {
    title: 'OpenShift with the chart’s own user, in an SCC such as nonroot-v2',
    args: OPENSHIFT,
    values: { openshift: 'disabled' },
    check: (all) => {
      for (const { securityContext } of podSpecs(all))
        expect(securityContext).toMatchObject({ fsGroup: 65532 });
    },
  },
  {
    title: 'a cluster with Windows nodes, and constraints of the operator',
    values: {
      ...{
        podLabels: { team: 'platform', 'app.kubernetes.io/name': 'other' },
        commonLabels: { cost: 'pull' },
      },
      nodeSelector: { pool: 'system' },
      tolerations: [{ key: 'CriticalAddonsOnly', operator: 'Exists' }],
      topologySpreadConstraints: [
        { maxSkew: 1, topologyKey: 'kubernetes.io/hostname', whenUnsatisfiable: 'DoNotSchedule' },
      ],
      podDisruptionBudget: { minAvailable: '50%', unhealthyPodEvictionPolicy: 'IfHealthyBudget' },
      securityContext: { runAsUser: 2000 },
    },
    check: (all) => {
      for (const { nodeSelector, containers } of podSpecs(all)) {
        expect(nodeSelector).toEqual({ 'kubernetes.io/os': 'linux', pool: 'system' });
        expect(containers[0].securityContext).toMatchObject({
          runAsUser: 2000,
          capabilities: { drop: ['ALL'] },
        });
      }
      const { template } = all.find(({ kind }) => kind === 'Deployment')?.spec ?? {};
      const own = { 'app.kubernetes.io/name': 'ecr-anywhere', cost: 'pull' };
      expect(template?.metadata.labels).toMatchObject({ ...own, team: 'platform' });
      expect(template?.spec.topologySpreadConstraints).toMatchObject([
        { whenUnsatisfiable: 'DoNotSchedule', labelSelector: { matchLabels: expect.anything() } },
      ]);
      for (const { metadata } of all) expect(metadata.labels).toMatchObject({ cost: 'pull' });
      const budget = all.find(({ kind }) => kind === 'PodDisruptionBudget')?.spec;
      expect(budget).toMatchObject({ minAvailable: '50%' });
      expect(budget).not.toHaveProperty('maxUnavailable');
    },
  },
  {
    title: 'a dual-stack cluster',
    values: {
      service: {
        ...{ ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6', 'IPv4'] },
        annotations: { 'example.com/a': 'b' },
      },
      podDisruptionBudget: { enabled: false },
      topologySpreadConstraints: [],
    },
    check: (all) => {
      expect(all.find(({ kind }) => kind === 'Service')).toMatchObject({
        metadata: { annotations: { 'example.com/a': 'b' } },
        spec: { ipFamilyPolicy: 'RequireDualStack', ipFamilies: ['IPv6', 'IPv4'] },
      });
      expect(podSpecs(all)[0]).not.toHaveProperty('topologySpreadConstraints');
      expect(all.filter(({ kind }) => kind === 'PodDisruptionBudget')).toEqual([]);
    },
  },
  {
    title: 'fixed names, and a ServiceAccount of the operator',
    release: 'on',
    namespace: '123',
    args: PROOF,
    values: {
      ...{ fullnameOverride: 'yes', nameOverride: 'off', serviceAccount: { create: false, name: 'null' } },
      ...{ refresher: { namespaces: ['123'] }, test: { namespace: '123' } },
    },
    check: (all) => {
      for (const { metadata } of all) expect(metadata.name).toMatch(/^yes/);
      expect(
        all.filter(({ kind }) => kind === 'ServiceAccount').map(({ metadata }) => metadata.name),
      ).toEqual(['yes-refresher', 'yes-test']);
      expect(podSpecs(all)[0].serviceAccountName).toBe('null');
      const subject = { kind: 'ServiceAccount', name: 'null', namespace: '123' };
      for (const kind of ['RoleBinding', 'ClusterRoleBinding'])
        expect(all.find((one) => one.kind === kind && one.metadata.name === 'yes')).toMatchObject({
          subjects: [subject],
        });
      const policies = all.filter(({ kind }) => kind === 'ValidatingAdmissionPolicy');
      for (const name of ['yes-ca-bundle', 'yes-own-secrets'])
        expect(policies.find(({ metadata }) => metadata.name === name)).toMatchObject({
          spec: {
            matchConditions: [{ expression: expect.stringContaining("'system:serviceaccount:123:null'") }],
          },
        });
    },
  },
  {
    title: 'a numeric namespace, with all that the operator can name',
    namespace: '123',
    args: PROOF,
    values: {
      tls: { mode: 'cert-manager', secretName: '1', certManager: { issuerRef: { name: '2' } } },
      callerProof: { existingSecret: '3' },
      extraCA: { configMap: '4', key: '5' },
      aws: { ...REQUIRED.aws, credentialsSecret: '6' },
      commonLabels: { release: 'common' },
      metrics: {
        serviceMonitor: { enabled: true, labels: { release: 'prometheus' } },
        prometheusRule: { enabled: true, labels: { release: 'prometheus' } },
      },
      ...{ networkPolicy: KUBERNETES_POLICY, priorityClassName: '7', imagePullSecrets: [{ name: '8' }] },
    },
    check: (all) => {
      for (const { metadata } of all) expect(metadata.namespace ?? '123').toBe('123');
      for (const kind of ['ServiceMonitor', 'PrometheusRule'])
        expect(all.find((one) => one.kind === kind)?.metadata.labels).toMatchObject({
          release: 'prometheus',
        });
      expect(egressOf(all, 'NetworkPolicy')).not.toContain('169.254');
    },
  },
  {
    title: 'EC2 nodes with a role, and a NetworkPolicy',
    values: { networkPolicy: KUBERNETES_POLICY },
    check: (all) => {
      const egress = egressOf(all, 'NetworkPolicy');
      for (const cidr of ['169.254.169.254/32', 'fd00:ec2::254/128', '169.254.170.23/32', 'fd00:ec2::23/128'])
        expect(egress).toContain(cidr);
      expect(egress).not.toContain('5353');
    },
  },
  {
    title: 'EC2 nodes with a role, and a CiliumNetworkPolicy',
    values: { networkPolicy: { enabled: true, type: 'cilium' } },
    check: (all) => {
      for (const cidr of ['169.254.169.254/32', 'fd00:ec2::254/128'])
        expect(egressOf(all, 'CiliumNetworkPolicy')).toContain(cidr);
      expect(egressOf(all, 'CiliumNetworkPolicy')).not.toContain('5353');
    },
  },
  {
    title: 'another AWS identity, and a CiliumNetworkPolicy, which does not let out to the node',
    values: {
      networkPolicy: { enabled: true, type: 'cilium' },
      aws: { ...REQUIRED.aws, webIdentity: { roleArn: 'arn:aws:iam::123456789012:role/pull' } },
    },
    check: (all) => expect(egressOf(all, 'CiliumNetworkPolicy')).not.toMatch(/169\.254|"host"/),
  },
  {
    title: 'AKS',
    check: (all) =>
      expect(
        all.find(({ kind }) => kind === 'MutatingWebhookConfiguration')?.metadata.annotations,
      ).toMatchObject({
        'admissions.enforcer/disabled': 'true',
        'ecr-anywhere.centml.ai/callers': expect.any(String),
        'ecr-anywhere.centml.ai/tls-mode': 'self',
      }),
  },
  {
    title: 'webhook.annotations of the operator',
    values: {
      webhook: {
        annotations: {
          ...{ 'admissions.enforcer/disabled': null, 'argocd.argoproj.io/sync-wave': '1' },
          'ecr-anywhere.centml.ai/tls-mode': 'provided',
        },
      },
    },
    check: (all) =>
      expect(all.find(({ kind }) => kind === 'MutatingWebhookConfiguration')?.metadata.annotations).toEqual({
        'argocd.argoproj.io/sync-wave': '1',
        'ecr-anywhere.centml.ai/callers': expect.any(String),
        'ecr-anywhere.centml.ai/tls-mode': 'self',
      }),
  },
])('$title', ({ check, ...rendering }) => {
  test('is rendered alike by Helm 3 and 4, and accepted by the API server and Pod Security', async () => {
    const all = await render(rendering);
    check(all);
    await expectAccepted(all);
  });
});

test.each([
  {
    title: 'enabled is false, and no parent chart reads it',
    values: { enabled: false },
    message: /condition: ecr-anywhere\.enabled/,
  },
  {
    title: 'the webhook would run as the ServiceAccount default',
    values: { serviceAccount: { create: false } },
    message: /--set serviceAccount\.name=/,
  },
  {
    title: 'the Service’s name would begin with a digit',
    release: '1',
    values: {},
    message: /--set fullnameOverride=/,
  },
  {
    title: 'fullnameOverride is too long',
    values: { fullnameOverride: 'a'.repeat(51) },
    message: /fullnameOverride/,
  },
])('is refused if $title', async ({ values, message, release = 'ecr-anywhere' }) => {
  const options = await valueOptions({ ...REQUIRED, ...values });
  const { code, stderr } = await helm(
    ['template', release, CHART, '--kube-version', KUBERNETES_VERSION, ...options],
    {
      mayFail: true,
    },
  );
  expect(code).not.toBe(0);
  expect(stderr).toMatch(message);
});

describe('as a subchart', () => {
  const own = {
    ...REQUIRED,
    image: { repository: 'team/ecr-anywhere' },
    imagePullSecrets: [{ name: 'own' }],
  };
  const global = {
    ...{ imageRegistry: 'registry.example.com', imagePullSecrets: ['shared', { name: 'own' }] },
    // Of other charts.
    ...{ commonLabels: {}, logLevel: 2, compatibility: { openshift: { adaptSecurityContext: 'auto' } } },
  };
  let parent: string;

  beforeAll(async () => {
    parent = await mkdtemp(join(dir, 'parent-'));
    await mkdir(join(parent, 'templates'));
    const dependency = {
      ...{ name: 'ecr-anywhere', version: manifest.version, repository: `file://${CHART}` },
      condition: 'ecr-anywhere.enabled',
    };
    const chart = { apiVersion: 'v2', name: 'platform', version: '1.0.0', dependencies: [dependency] };
    await writeFile(join(parent, 'Chart.yaml'), JSON.stringify(chart));
    await helm(['dependency', 'update', parent]);
  });

  test('takes the parent’s values and globals, and the API server accepts it', async () => {
    const all = await render({ release: 'all', values: { global, 'ecr-anywhere': own } }, parent);
    await expectAccepted(all);
    for (const { containers, imagePullSecrets } of podSpecs(all)) {
      expect(containers[0].image).toBe(`registry.example.com/team/ecr-anywhere:${manifest.version}`);
      expect(imagePullSecrets).toEqual([{ name: 'own' }, { name: 'shared' }]);
    }
    expect(all.find(({ kind }) => kind === 'Deployment')?.metadata.name).toBe('all-ecr-anywhere');
  });

  test('keeps the registry host of its image', async () => {
    const values = {
      global,
      'ecr-anywhere': { ...own, image: { repository: 'localhost:5000/ecr-anywhere' } },
    };
    const all = await render({ release: 'all', values }, parent);
    for (const { containers } of podSpecs(all))
      expect(containers[0].image).toBe(`localhost:5000/ecr-anywhere:${manifest.version}`);
  });

  test('renders nothing, and requires no value, if it is not enabled', async () => {
    expect(await render({ release: 'all', values: { 'ecr-anywhere': { enabled: false } } }, parent)).toEqual(
      [],
    );
  });
});

test('the webhook serves Secrets under other names, and the command line finds the release', async () => {
  await using running = new AsyncDisposableStack();
  const ecr = running.use(await startAwsEndpoint());
  await admin('POST', `/api/v1/namespaces/${NAMESPACE}/serviceaccounts`, { metadata: { name: 'mine' } });
  await admin('POST', '/api/v1/namespaces', {
    metadata: { name: 'team', labels: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } },
  });
  const options = await valueOptions({
    ...REQUIRED,
    ...{ fullnameOverride: 'pulls', nameOverride: 'pull-secrets', service: { port: SERVICE_PORT } },
    serviceAccount: { create: false, name: 'mine' },
  });
  await helm(['install', 'platform', CHART, '--namespace', NAMESPACE, ...options], { cluster });
  running.defer(
    async () => void (await helm(['uninstall', 'platform', '--namespace', NAMESPACE], { cluster })),
  );
  const bundle = join(dir, 'webhook.mjs');
  await buildWebhook(bundle);
  const ip = await serviceAddress(cluster, 'pulls');
  running.use(await startPod(cluster, NAMESPACE, 'pulls', { bundle, ip, ecrUrl: ecr.url }));
  const problem = () =>
    tryToCreate(admin, 'team').then(
      () => '',
      ({ message }: Error) => message,
    );
  await expect.poll(problem, { timeout: 30_000, interval: 100 }).toBe('');

  const kubernetes = Kubernetes.load(
    { kubeconfig: cluster.adminKubeconfigPath },
    AbortSignal.timeout(30_000),
  );
  const names = { release: 'platform', namespace: NAMESPACE };
  const { installation, release } = await findInstallation(kubernetes);
  expect(installation).toMatchObject({ ...names, name: 'pulls', refresher: 'pulls-refresher' });
  expect(release).toMatchObject(names);
  // By the policies, if the webhook configuration is gone.
  await cluster.kubectl(['delete', 'mutatingwebhookconfiguration', 'pulls']);
  expect(await findInstallation(kubernetes)).toEqual({ originals: [], release: names });
});

test('Helm 4 upgrades a webhook configuration that AKS has edited with --force-conflicts, and not without', async () => {
  const options = await valueOptions({ ...REQUIRED, fullnameOverride: 'aks' });
  const run = (command: readonly string[], mayFail = false) =>
    helm([...command, 'aks', CHART, '--namespace', NAMESPACE, ...options], { cluster, version: 4, mayFail });
  await run(['install']);
  const condition = { key: 'control-plane', operator: 'NotIn', values: ['true'] };
  const path = '/webhooks/0/namespaceSelector/matchExpressions/-';
  await cluster.kubectl([
    ...['patch', 'mutatingwebhookconfiguration', 'aks', '--field-manager=admissionsenforcer'],
    ...['--type=json', '--patch', JSON.stringify([{ op: 'add', path, value: condition }])],
  ]);
  const { code, stderr } = await run(['upgrade'], true);
  expect(code).not.toBe(0);
  expect(stderr).toMatch(/conflict.*admissionsenforcer[\s\S]*namespaceSelector/);
  await run(['upgrade', '--force-conflicts']);
  const { stdout } = await cluster.kubectl(['get', 'mutatingwebhookconfiguration', 'aks', '-o', 'json']);
  expect(stdout).not.toContain('control-plane');
});
