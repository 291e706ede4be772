// The life of a release on a real API server, with Helm 3 and Helm 4: installed, applied again by GitOps tools, upgraded,
// rolled back and uninstalled during admissions; and what a failed installation leaves.
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseAllDocuments } from 'yaml';
import { SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import { buildWebhook } from '../../../webhook/build.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { CHART, helm } from '../../bed/helm.ts';
import { runPodToItsEnd } from '../../bed/kubelet.ts';
import { type Replicas, startReplicas } from '../../bed/replicas.ts';
import { KUBERNETES_VERSION, tools } from '../../bed/toolchain.ts';
import { NAMESPACE, prepareNamespace, RELEASE, runHelm, serviceAddress } from '../../bed/webhook.ts';
import { type Admissions, startAdmissions, tryToCreate, UNSERVED } from '../admissions.ts';

/** The API with which Helm sees that the cluster can add the caller proof. */
const PROOF_API = 'admissionregistration.k8s.io/v1/MutatingAdmissionPolicy';
/**
 * The denials while only one is gone of the webhook configuration and the policy that adds the caller proof; and those while
 * only the Service is gone, which Helm 3 deletes first. An API server before 1.37 goes on with the connections that it has.
 */
const HALF_UNINSTALLED =
  /ValidatingAdmissionPolicy 'ecr-anywhere-caller-proof'|caller-not-authenticated|service \\?"ecr-anywhere\\?" not found/;

const CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${RELEASE}`;
const SECRET = `/api/v1/namespaces/${NAMESPACE}/secrets/${RELEASE}-self-tls`;
const VERSIONS = [3, 4] as const;
const POLL = { timeout: 30_000, interval: 50 };
/** The API server's message when no webhook answers: the webhook, its Service, and the cause. */
const UNANSWERED =
  /failed calling webhook .*sync\.ecr-anywhere\.centml\.ai.*ecr-anywhere\.ecr-anywhere\.svc.*(connection refused|no endpoints|x509)/;
/** The option with which Helm rolls back a failed installation. */
const atomic = (version: 3 | 4) => (version === 3 ? ['--atomic'] : ['--rollback-on-failure']);

let stack: AsyncDisposableStack;
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let admin: Admin;
let verify: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-install-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  ecr = stack.use(await startAwsEndpoint());
  cluster = stack.use(await startControlPlane({ name: 'install', dir }));
  ({ admin } = stack.use(await connectAdmin(cluster)));
  await prepareNamespace(cluster);
  verify = join(dir, 'verify.mjs');
  await buildWebhook(verify, 'webhook/verify.ts');
  for (const file of await readdir(tools().crds))
    await cluster.kubectl(['apply', '--server-side', '-f', join(tools().crds, file)]);
});
afterAll(() => stack.disposeAsync());

/** The objects of the release in the cluster, as kind/name. */
async function remainingObjects(): Promise<string[]> {
  const { stdout } = await cluster.kubectl([
    ...['get', '--all-namespaces', '-l', `app.kubernetes.io/instance=${RELEASE}`, '-o', 'json'],
    'mutatingwebhookconfigurations,mutatingadmissionpolicies,mutatingadmissionpolicybindings,validatingadmissionpolicies,validatingadmissionpolicybindings,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,deployments,configmaps,secrets,poddisruptionbudgets,pods',
  ]);
  return (JSON.parse(stdout) as { items: { kind: string; metadata: { name: string } }[] }).items.map(
    ({ kind, metadata }) => `${kind}/${metadata.name}`,
  );
}

const caBundle = async () =>
  (await admin<{ webhooks: { clientConfig: { caBundle?: string } }[] }>('GET', CONFIGURATION)).webhooks[0]
    ?.clientConfig.caBundle;
const certificates = async () => ({
  secret: (await admin<{ data: object }>('GET', SECRET)).data,
  caBundle: await caBundle(),
});

/** The manifests, as GitOps tools render them. */
async function render(version: 3 | 4, values: readonly string[] = []): Promise<string> {
  const { stdout } = await runHelm(
    cluster,
    ['template', RELEASE, '--kube-version', KUBERNETES_VERSION, '--api-versions', PROOF_API, '--skip-tests'],
    { values, version },
  );
  return stdout;
}

describe.each(VERSIONS)('Helm %i', (version) => {
  let replicas: Replicas;
  let admissions: Admissions;
  let before: Awaited<ReturnType<typeof certificates>>;

  test('installs with default values, and the webhook serves Secrets', async () => {
    const { stdout } = await runHelm(cluster, ['install', RELEASE], { version });
    expect(stdout).toContain('kubectl -n ecr-anywhere rollout status deployment/ecr-anywhere');
    expect(stdout).toContain('can read every Secret in every namespace of the cluster');
    replicas = await startReplicas(cluster, { count: 2, ecrUrl: ecr.url });
    admissions = await startAdmissions(cluster);
    await admissions.more(20);
    expect(admissions.failures).toEqual([]);
    before = await certificates();
  });

  test('lets other writes pass while no webhook answers', async () => {
    const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
    const stream = '/api/v1/namespaces/stream/secrets';
    const make = (name: string, metadata: object) =>
      admin('POST', stream, { type: SECRET_TYPE, metadata: { name, ...metadata } });
    await make(`leaves-${version}`, { labels });
    await make(`goes-${version}`, { labels, finalizers: ['example.com/wait'] });
    for (const { program } of replicas.pods) program.signal('SIGSTOP');
    try {
      await expect(make('waits', { labels })).rejects.toThrow(/failed calling webhook/);
      await admin('PATCH', `${stream}/leaves-${version}`, { metadata: { labels: null } });
      await admin('DELETE', `${stream}/goes-${version}`);
      await admin('PATCH', `${stream}/goes-${version}`, { metadata: { finalizers: null } });
      for (const path of [`/api/v1/namespaces/${NAMESPACE}/secrets`, '/api/v1/namespaces/default/secrets'])
        await admin('POST', `${path}?dryRun=All`, { metadata: { name: 'x', labels } });
      await admin('POST', `${stream}?dryRun=All`, { metadata: { name: 'x' } });
      await admin('POST', '/api/v1/namespaces/stream/configmaps?dryRun=All', {
        metadata: { name: 'x', labels },
      });
    } finally {
      for (const { program } of replicas.pods) program.signal('SIGCONT');
      await admissions.untilEach(undefined);
      admissions.forgetFailures();
    }
  });

  test('passes helm test, which prints what works', async () => {
    const services = { [`${RELEASE}.${NAMESPACE}.svc`]: await serviceAddress(cluster) };
    const [{ stdout }, result] = await Promise.all([
      // The log of a pod that is on no node is empty.
      helm(['test', RELEASE, '--namespace', NAMESPACE, '--logs', '--timeout', '60s'], { cluster, version }),
      runPodToItsEnd(cluster, NAMESPACE, `${RELEASE}-test`, verify, services),
    ]);
    expect(stdout).toMatch(/Phase:\s+Succeeded/);
    expect(result.stdout).toMatch(/ready.*\n.*ordinary pod gets no answer/);
    // Its roles are gone. The pod stays, so that Helm 3 can read its log.
    const ofTest = (await remainingObjects()).filter((name) => name.endsWith('-test'));
    expect(ofTest).toEqual([`Pod/${RELEASE}-test`]);
  });

  test('keeps its certificates when GitOps tools apply the manifests again by server-side apply', async () => {
    const input = await render(version);
    for (const _ of [1, 2]) {
      // Helm owns its fields, so another manager must force conflicts, as Argo CD and Flux do.
      await cluster.kubectl(
        [
          'apply',
          '--server-side',
          '--force-conflicts',
          '--field-manager=gitops',
          '--validate=strict',
          '-f',
          '-',
        ],
        { input },
      );
      expect(await certificates()).toEqual(before);
    }
    await admissions.more(20);
    expect(admissions.failures).toEqual([]);
    expect(await certificates()).toEqual(before);
  });

  test('serves every admission during upgrade and rollback, and keeps its certificates', async () => {
    await runHelm(cluster, ['upgrade', RELEASE, ...(version === 4 ? ['--force-conflicts'] : [])], {
      version,
      values: ['webhook.timeoutSeconds=7', 'podAnnotations.rolled=out'],
    });
    await replicas.rollOut();
    await admissions.more(20);
    await helm(
      ['rollback', RELEASE, '1', '--namespace', NAMESPACE, ...(version === 4 ? ['--force-conflicts'] : [])],
      {
        cluster,
        version,
      },
    );
    await replicas.rollOut();
    await admissions.more(20);
    expect(admissions.failures).toEqual([]);
    expect(await certificates()).toEqual(before);
    // Four pods start and drain one after the other.
  }, 180_000);

  test('has the caBundle of the mode after changing tls.mode and back', async () => {
    const force = version === 4 ? ['--force-conflicts'] : [];
    const pem = Buffer.from('-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n').toString('base64');
    const values = ['tls.mode=provided', `tls.caBundle=${pem}`];
    await runHelm(cluster, ['upgrade', RELEASE, ...force], { version, values });
    await expect.poll(caBundle, POLL).toBe(pem);
    await runHelm(cluster, ['upgrade', RELEASE, ...force], { version });
    await expect.poll(caBundle, POLL).not.toBeOneOf([undefined, pem]);
    // The stored caBundle is not enough: the API server must use it before the next test counts failures.
    await admissions.untilEach(undefined);
    admissions.forgetFailures();
  });

  test('uninstalls without denying a Secret for longer than Helm takes, and leaves no object', async () => {
    admissions.forgetFailures();
    await helm(['uninstall', RELEASE, '--namespace', NAMESPACE], { cluster, version });
    // The pods serve until the API server has noticed that the webhook configuration is gone. In a cluster, drainSeconds
    // is the time for that; here the Service stops at once, so wait for the API server.
    await admissions.untilEach(UNSERVED);
    await replicas[Symbol.asyncDispose]();
    await admissions.more(20);
    const failures = admissions.failures.filter((failure) => !HALF_UNINSTALLED.test(failure));
    expect([...new Set(failures)]).toEqual([UNSERVED]);
    admissions.forgetFailures();
    await admissions.more(20);
    expect([...new Set(admissions.failures)]).toEqual([UNSERVED]);
    await admissions[Symbol.asyncDispose]();
    // Helm does not delete what belongs to a hook.
    expect(await remainingObjects()).toEqual([`Pod/${RELEASE}-test`]);
    await cluster.kubectl(['delete', 'pod', `${RELEASE}-test`, '--namespace', NAMESPACE]);
  });
});

describe.each(VERSIONS)('a failed installation with Helm %i', (version) => {
  /** The message with which a managed Secret is denied; empty if it is created. */
  const denial = () =>
    tryToCreate(admin).then(
      () => '',
      ({ message }: Error) => (message === UNSERVED ? '' : message),
    );

  test.each([
    { what: 'a value that the schema refuses', values: ['replicas=none'], message: /replicas/ },
    { what: 'a missing value', values: ['aws.region='], message: /aws\.region is missing/ },
    {
      what: 'a policy that gives nothing',
      values: ['ownRegistry.namespaces=null'],
      message: /ownRegistry\.namespaces and registries are both empty/,
    },
    {
      what: 'no choice of what the refresher may read',
      values: ['refresher.namespaces=null'],
      message: /refresher\.namespaces is empty/,
    },
    {
      what: 'a namespace of refresher.namespaces that does not exist',
      values: ['refresher.namespaces={nowhere}'],
      message: /refresher\.namespaces.*kubectl create namespace nowhere/,
    },
  ])('creates nothing, and names $what', async ({ values, message }) => {
    const { code, stderr } = await runHelm(cluster, ['install', RELEASE], { version, values, mayFail: true });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
    expect(await remainingObjects()).toEqual([]);
  });

  test('names a release namespace that does not exist', async () => {
    const set = [
      'image.repository=registry.example.com/ecr-anywhere',
      'aws.region=eu-central-1',
      'ownRegistry.namespaces={*}',
      'refresher.namespaces={*}',
    ];
    const args = ['install', RELEASE, CHART, '--namespace', 'nowhere'];
    const { code, stderr } = await helm([...args, ...set.flatMap((value) => ['--set', value])], {
      cluster,
      version,
      mayFail: true,
    });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/namespaces? "nowhere" not found/);
    expect(await remainingObjects()).toEqual([]);
  });

  test.each([
    { what: 'a Deployment that the API server refuses', values: ['resources.limits.memory=lots'] },
    { what: 'a ServiceAccount that the API server refuses', values: ['serviceAccount.annotations.x/y/z=w'] },
    {
      what: 'a PrometheusRule that the API server refuses',
      values: ['metrics.prometheusRule.enabled=true', 'metrics.prometheusRule.labels.x/y/z=w'],
    },
  ])(
    'denies Secrets with the name of the webhook until it is uninstalled, after $what',
    async ({ values }) => {
      const { code, stderr } = await runHelm(cluster, ['install', RELEASE], {
        version,
        values,
        mayFail: true,
      });
      expect(code, stderr).not.toBe(0);
      // Helm goes on with the other kinds, so it creates the webhook configuration nevertheless.
      await expect.poll(denial, POLL).toMatch(UNANSWERED);
      await helm(['uninstall', RELEASE, '--namespace', NAMESPACE], { cluster, version });
      expect(await remainingObjects()).toEqual([]);
      await expect.poll(denial, POLL).toBe('');
    },
  );

  test('is rolled back with the options of the README, and denies nothing afterwards', async () => {
    const values = ['resources.limits.memory=lots'];
    const args = ['install', RELEASE, ...atomic(version)];
    const { code, stderr } = await runHelm(cluster, args, { version, values, mayFail: true });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/quantit/);
    expect(await remainingObjects()).toEqual([]);
    await expect.poll(denial, POLL).toBe('');
  });

  test('is rolled back when the pods do not become ready; until then Secrets are denied', async () => {
    // The bed has no Deployment controller, so the Deployment never becomes ready.
    const installing = runHelm(cluster, ['install', RELEASE, ...atomic(version), '--timeout', '15s'], {
      version,
      mayFail: true,
    });
    await expect.poll(denial, { ...POLL, timeout: 14_000 }).toMatch(UNANSWERED);
    const { code, stderr } = await installing;
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/timed? ?out|deadline|not ready/i);
    await expect.poll(denial, POLL).toBe('');
    expect(await remainingObjects()).toEqual([]);
  });

  test('leaves pods that may not read their Secret unready, with the cause in the log, until it is uninstalled', async () => {
    await runHelm(cluster, ['install', RELEASE], { version });
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}/roles/${RELEASE}`;
    await admin('DELETE', role);
    await expect(startReplicas(cluster, { count: 1, ecrUrl: ecr.url, readyWithinMs: 5_000 })).rejects.toThrow(
      /403: secrets .*is forbidden/,
    );
    await expect(tryToCreate(admin)).rejects.toThrow(/failed calling webhook/);
    await helm(['uninstall', RELEASE, '--namespace', NAMESPACE], { cluster, version });
    await expect.poll(denial, POLL).toBe('');
    expect(await remainingObjects()).toEqual([]);
  });
});

test('an existing object of another owner stops the installation, which creates nothing', async () => {
  const name = `${RELEASE}-refresher`;
  await cluster.kubectl(['create', 'clusterrole', name, '--verb=get', '--resource=pods']);
  const { code, stderr } = await runHelm(cluster, ['install', RELEASE], { mayFail: true });
  expect(code).not.toBe(0);
  expect(stderr).toMatch(new RegExp(`ClusterRole "${name}".* exists and cannot be imported`));
  expect(await remainingObjects()).toEqual([]);
  await cluster.kubectl(['delete', 'clusterrole', name]);
});

describe('every documented combination of values', () => {
  const CA = Buffer.from('-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n').toString('base64');
  const ROLE = 'arn:aws:iam::123456789012:role/pull';
  const TLS = [
    [],
    ['tls.mode=cert-manager'],
    [
      'tls.mode=cert-manager',
      'tls.certManager.issuerRef.name=ca',
      'tls.certManager.issuerRef.kind=ClusterIssuer',
    ],
    ['tls.mode=provided', `tls.caBundle=${CA}`],
  ];
  const IDENTITY = [
    [],
    [`aws.webIdentity.roleArn=${ROLE}`],
    [`serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=${ROLE}`],
    ['aws.credentialsSecret=keys', `aws.assumeRole.roleArn=${ROLE}`, 'aws.assumeRole.externalId=cluster-1'],
    [
      ...[`aws.webIdentity.roleArn=${ROLE}`, 'aws.webIdentity.tokenFile=/spiffe/token'],
      ...[
        'extraVolumes[0].name=spiffe',
        'extraVolumes[0].csi.driver=csi.spiffe.io',
        'extraVolumes[0].csi.readOnly=true',
      ],
      ...['extraVolumeMounts[0].name=spiffe', 'extraVolumeMounts[0].mountPath=/spiffe'],
    ],
  ];
  const REST = [
    [],
    [
      ...[
        'hostNetwork=true',
        'webhook.port=10250',
        'metrics.port=0',
        'replicas=1',
        'priorityClassName=system-cluster-critical',
      ],
      ...['proxy.httpsProxy=http://proxy:3128', 'proxy.noProxy=a.example', 'extraCA.configMap=ca'],
    ],
    [
      ...['networkPolicy.enabled=true', 'networkPolicy.apiServers={10.0.0.0/28,fd00::/64}'],
      ...['networkPolicy.metricsFrom[0].namespaceSelector.matchLabels.name=monitoring'],
      ...['networkPolicy.egress[0].ports[0].port=3128'],
      ...['metrics.serviceMonitor.enabled=true', 'metrics.serviceMonitor.labels.release=prometheus'],
      ...['metrics.prometheusRule.enabled=true', 'metrics.prometheusRule.labels.release=prometheus'],
      ...['refresher.namespaces={default,kube-system}', 'test.namespace=default', 'logLevel=debug'],
      ...['nodeSelector.pool=system', 'tolerations[0].operator=Exists', 'podAnnotations.a=b'],
      ...['registries[0].host=public.ecr.aws', 'registries[0].namespaces={*}'],
    ],
    [
      ...[
        'networkPolicy.enabled=true',
        'networkPolicy.type=cilium',
        'networkPolicy.apiServers={10.0.0.0/28}',
      ],
      ...['networkPolicy.peers[0].matchLabels.k8s-app=konnectivity-agent'],
      ...['networkPolicy.metricsFrom[0].matchLabels.app=prometheus'],
      ...['networkPolicy.egress[0].toEntities[0]=world'],
      ...['registries[0].host=public.ecr.aws', 'registries[0].namespaces={team-*}'],
      ...['callerProof.mode=enabled'],
    ],
    [
      ...['networkPolicy.enabled=true', 'networkPolicy.peers[0].podSelector.matchLabels.app=agent'],
      ...['callerProof.mode=enabled', 'callerProof.existingSecret=mine'],
    ],
  ];
  const combinations = TLS.flatMap((tls) =>
    IDENTITY.flatMap((identity) => REST.map((rest) => ({ values: [...tls, ...identity, ...rest] }))),
  );

  test('renders alike with Helm 3 and Helm 4, and passes strict validation', async () => {
    const [rendered, by4] = await Promise.all(
      VERSIONS.map(async (version) => {
        const objects = new Map<string, unknown>();
        for (const { values } of combinations) {
          const command = ['template', RELEASE, '--kube-version', KUBERNETES_VERSION];
          const { stdout } = await runHelm(cluster, command, { values, version });
          for (const document of parseAllDocuments(stdout, { version: '1.1' })) {
            const object: unknown = document.toJS();
            if (object !== null) objects.set(JSON.stringify(object), object);
          }
        }
        return objects;
      }),
    );
    expect([...(by4?.keys() ?? [])].sort()).toEqual([...(rendered?.keys() ?? [])].sort());
    // Each distinct object once.
    const { stdout } = await cluster.kubectl(
      ['apply', '--dry-run=server', '--validate=strict', '--filename=-'],
      {
        input: JSON.stringify({ apiVersion: 'v1', kind: 'List', items: [...(rendered?.values() ?? [])] }),
      },
    );
    expect(stdout.match(/created \(server dry run\)$/gm)).toHaveLength(rendered?.size ?? 0);
  }, 120_000);

  test.each(VERSIONS)(
    'passes lint with Helm %i',
    async (version) => {
      for (const { values } of combinations) {
        const { stdout } = await runHelm(
          cluster,
          ['lint', '--strict', '--kube-version', KUBERNETES_VERSION],
          {
            values,
            version,
          },
        );
        expect(stdout).not.toMatch(/\[(WARNING|ERROR)\]/);
      }
    },
    120_000,
  );
});
