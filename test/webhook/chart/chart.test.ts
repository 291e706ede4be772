// The rendered chart agrees with the code and the contract, and explains missing or wrong values. Helm renders it.
import { readdirSync } from 'node:fs';
import { readdir, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { beforeAll, describe, expect, test } from 'vitest';
import { parse, parseAllDocuments } from 'yaml';
import {
  EVENT_ACTION,
  EVENT_REPORTER,
  EXCLUDED_NAMESPACES,
  NAMESPACE_LABEL,
  PROOF_ANNOTATION,
  REFRESHER_FIELD_MANAGER,
  REFRESHER_GROUP,
  REQUEST_ANNOTATIONS,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_ANNOTATIONS,
  WEBHOOK_PATH,
  WEBHOOK_PORT,
} from '../../../contract/names.ts';
import { readSettings } from '../../../functions/refresher/in-cluster/settings.ts';
import { readPolicy } from '../../../webhook/admission/policy.ts';
import { ENVIRONMENT, readConfig } from '../../../webhook/config.ts';
import { CHART, helm } from '../../bed/helm.ts';

const ROOT = join(CHART, '../..');
const NAMESPACE = 'pull';
const NAME = 'ecr-anywhere';
const ROLE = 'arn:aws:iam::123456789012:role/pull';
const OTHER_ROLE = 'arn:aws:iam::123456789012:role/webhook';
const CA = Buffer.from('-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n').toString('base64');
const REQUIRED = {
  'image.repository': 'registry.example.com/ecr-anywhere',
  'aws.region': 'eu-central-1',
  'ownRegistry.namespaces': '{*}',
  'refresher.namespaces': '{*}',
};
const PROVIDED = { 'tls.mode': 'provided', 'tls.caBundle': CA };

interface Manifest {
  kind: string;
  metadata: { name: string; namespace?: string; labels?: Record<string, string> };
}
interface Container {
  image: string;
  env: { name: string; value: string }[];
  envFrom?: { secretRef: { name: string } }[];
  ports: { name: string; containerPort: number }[];
  volumeMounts: { mountPath: string; readOnly: boolean; subPath?: string }[];
}
interface Deployment extends Manifest {
  spec: {
    template: {
      spec: { terminationGracePeriodSeconds: number; containers: [Container]; volumes: { name: string }[] };
    };
  };
}
interface ConfigMap extends Manifest {
  data: Readonly<Record<string, string>>;
}
interface CronJob extends Manifest {
  spec: {
    schedule: string;
    jobTemplate: {
      spec: {
        activeDeadlineSeconds: number;
        template: { metadata: Manifest['metadata']; spec: { containers: [Container] } };
      };
    };
  };
}
interface Policy extends Manifest {
  spec: {
    failurePolicy: string;
    matchConstraints: { resourceRules: { operations: string[] }[] };
    matchConditions: { expression: string }[];
    variables?: { expression: string }[];
    validations: { expression: string; message: string; reason: string }[];
  };
}
interface Role extends Manifest {
  rules: { apiGroups: string[]; resources: string[]; verbs: string[] }[];
}

/** The API with which Helm sees that the cluster has MutatingAdmissionPolicies. */
const FROM_1_36 = [
  'template',
  NAME,
  '--api-versions',
  'admissionregistration.k8s.io/v1/MutatingAdmissionPolicy',
];

function render(values: Readonly<Record<string, string>>, command = ['template', NAME]) {
  const set = Object.entries(values).flatMap(([key, value]) => ['--set', `${key}=${value}`]);
  const args = [...command, CHART, '--namespace', NAMESPACE, '--kube-version', '1.30.0', ...set];
  return helm(args, { mayFail: true });
}

async function manifests(
  values: Readonly<Record<string, string>> = {},
  command?: string[],
): Promise<Manifest[]> {
  const { 'ownRegistry.namespaces': own, ...required } = REQUIRED;
  const definesPolicy = Object.keys(values).some((key) => key.startsWith('registries'));
  const policy = definesPolicy ? {} : { 'ownRegistry.namespaces': own };
  const { code, stdout, stderr } = await render({ ...required, ...policy, ...values }, command);
  expect(code, stderr).toBe(0);
  return parseAllDocuments(stdout).flatMap((document) => (document.toJS() as Manifest | null) ?? []);
}

function find<T extends Manifest>(all: readonly Manifest[], kind: string, name = NAME): T {
  const found = all.find((manifest) => manifest.kind === kind && manifest.metadata.name === name);
  if (!found) throw new Error(`The chart renders no ${kind} ${name}.`);
  return found as T;
}

let chart: Manifest[];
beforeAll(async () => {
  chart = await manifests();
});

test('has the version of the package as chart version, application version and image tag', async () => {
  const { version } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'));
  expect(parse(await readFile(join(CHART, 'Chart.yaml'), 'utf8'))).toMatchObject({
    name: NAME,
    version,
    appVersion: version,
  });
  const { containers } = find<Deployment>(chart, 'Deployment').spec.template.spec;
  expect(containers[0].image).toBe(`${REQUIRED['image.repository']}:${version}`);
});

test('uses image.digest rather than image.tag', async () => {
  const digest = `sha256:${'0'.repeat(64)}`;
  const all = await manifests({ 'image.digest': digest, 'image.tag': 'other' });
  const { containers } = find<Deployment>(all, 'Deployment').spec.template.spec;
  expect(containers[0].image).toBe(`${REQUIRED['image.repository']}@${digest}`);
});

test('makes the API server send only managed Secrets of enabled namespaces', () => {
  expect(find(chart, 'MutatingWebhookConfiguration')).toMatchObject({
    webhooks: [
      {
        rules: [
          {
            apiGroups: [''],
            apiVersions: ['v1'],
            resources: ['secrets'],
            operations: ['CREATE', 'UPDATE'],
            scope: 'Namespaced',
          },
        ],
        namespaceSelector: {
          matchExpressions: [
            { key: NAMESPACE_LABEL.key, operator: 'In', values: [NAMESPACE_LABEL.value] },
            {
              key: 'kubernetes.io/metadata.name',
              operator: 'NotIn',
              values: [...EXCLUDED_NAMESPACES, NAMESPACE],
            },
          ],
        },
        objectSelector: { matchLabels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
        admissionReviewVersions: ['v1'],
        failurePolicy: 'Fail',
        matchPolicy: 'Equivalent',
        sideEffects: 'None',
        reinvocationPolicy: 'Never',
      },
    ],
  });
});

test('gives the API server the path, the ports and the caBundle of the webhook', async () => {
  const all = await manifests({ ...PROVIDED, 'service.port': '8080' });
  expect(find(all, 'MutatingWebhookConfiguration')).toMatchObject({
    webhooks: [
      {
        clientConfig: {
          service: { name: NAME, namespace: NAMESPACE, path: WEBHOOK_PATH, port: 8080 },
          caBundle: CA,
        },
      },
    ],
  });
  const [container] = find<Deployment>(all, 'Deployment').spec.template.spec.containers;
  expect(find(all, 'Service')).toMatchObject({
    spec: { ports: [{ port: 8080, targetPort: container.ports[0]?.name }] },
  });
  expect(container.ports[0]).toMatchObject({ containerPort: WEBHOOK_PORT });
});

const FILES: readonly string[] = [ENVIRONMENT.certFile, ENVIRONMENT.keyFile];
const OWN_TLS: readonly string[] = [
  ENVIRONMENT.tlsSecret,
  ENVIRONMENT.configuration,
  ENVIRONMENT.serviceAccountDir,
];
/** `the caller proof` and `client certificates` have tests for them. */
const PROOF: readonly string[] = [ENVIRONMENT.proofSecret, ENVIRONMENT.proofDir];
const CLIENTS: readonly string[] = [ENVIRONMENT.clientCaFile, ENVIRONMENT.clientNames];
test.each([
  { mode: 'self', values: {}, without: FILES },
  { mode: 'cert-manager', values: { 'tls.mode': 'cert-manager' }, without: OWN_TLS },
  { mode: 'provided', values: PROVIDED, without: OWN_TLS },
])(
  'gives the container the environment that the webhook reads, with tls.mode $mode',
  async ({ values, without }) => {
    const all = await manifests({
      ...(values as Record<string, string>),
      'webhook.timeoutSeconds': '7',
      drainSeconds: '11',
      'metrics.port': '9999',
      'aws.assumeRole.roleArn': ROLE,
      'aws.assumeRole.externalId': 'cluster-1',
      'aws.webIdentity.roleArn': OTHER_ROLE,
      'provision.secretName': 'ecr',
    });
    const [{ env, volumeMounts, ports }] = find<Deployment>(all, 'Deployment').spec.template.spec.containers;
    const given = Object.fromEntries(env.map(({ name, value }) => [name, value]));
    // The policy file has the log level.
    const absent = [
      ...[ENVIRONMENT.host, ENVIRONMENT.logLevel, ENVIRONMENT.kubernetesHost, ENVIRONMENT.kubernetesPort],
      // Of aws.credentialsSecret and extraEnv.
      ...[ENVIRONMENT.accessKeyId, ENVIRONMENT.profile],
      ...without,
      ...PROOF,
      ...CLIENTS,
    ] as readonly string[];
    const expected = Object.values(ENVIRONMENT).filter((name) => !absent.includes(name));
    expect(Object.keys(given).sort()).toEqual([...expected, 'NODE_OPTIONS'].sort());
    const config = readConfig({
      ...given,
      KUBERNETES_SERVICE_HOST: '10.0.0.1',
      KUBERNETES_SERVICE_PORT: '443',
    });
    expect(config).toMatchObject({
      serverName: `${NAME}.${NAMESPACE}.svc`,
      port: WEBHOOK_PORT,
      drainMs: 11_000,
      metricsPort: 9999,
      assumeRole: { arn: ROLE, externalId: 'cluster-1' },
      identity: { roleArn: ROLE },
      refresherUsername: `system:serviceaccount:${NAMESPACE}:${NAME}-refresher`,
      provisionSecret: 'ecr',
      region: REQUIRED['aws.region'],
    });
    expect(given[ENVIRONMENT.timeout]).toBe('7');
    expect(ports[1]).toMatchObject({ name: 'metrics', containerPort: 9999 });
    for (const mount of volumeMounts) {
      expect(mount).toMatchObject({ readOnly: true });
      expect(mount).not.toHaveProperty('subPath');
    }
    const { policyFile = '', certFile, keyFile, ownTls } = config;
    const own = ownTls && [join(ownTls.objects.serviceAccountDir, 'token')];
    expect(ownTls === undefined).toBe(without === OWN_TLS);
    for (const file of [...(own ?? [certFile, keyFile]), policyFile, given.AWS_WEB_IDENTITY_TOKEN_FILE ?? ''])
      expect(volumeMounts.some(({ mountPath }) => file.startsWith(`${mountPath}/`))).toBe(true);
  },
);

test('has no AWS identity and no metrics port without values for them', async () => {
  const all = await manifests({ 'metrics.port': '0' });
  const { containers, volumes } = find<Deployment>(all, 'Deployment').spec.template.spec;
  const [{ env, ports, envFrom }] = containers;
  expect(env.map(({ name }) => name).filter((name) => /ROLE|TOKEN|METRICS/.test(name))).toEqual([]);
  expect([ports.length, envFrom]).toEqual([1, undefined]);
  expect(volumes.map(({ name }) => name)).toEqual(['service-account', 'policy']);
});

describe('AWS identity', () => {
  const pod = async (values: Readonly<Record<string, string>>) =>
    find<Deployment>(await manifests(values), 'Deployment').spec.template.spec;

  test('aws.webIdentity projects a token with the configured audience and lifetime', async () => {
    const { volumes } = await pod({
      'aws.webIdentity.roleArn': ROLE,
      'aws.webIdentity.audience': 'sts.example.com',
      'aws.webIdentity.expirationSeconds': '900',
    });
    expect(volumes.find(({ name }) => name === 'aws-token')).toMatchObject({
      projected: {
        sources: [
          {
            serviceAccountToken: { audience: 'sts.example.com', expirationSeconds: 900, path: 'token' },
          },
        ],
      },
    });
  });

  test('aws.webIdentity.tokenFile uses the file of an extra volume', async () => {
    const { volumes, containers } = await pod({
      'aws.webIdentity.roleArn': ROLE,
      'aws.webIdentity.tokenFile': '/spiffe/token',
      'extraVolumes[0].name': 'spiffe',
      'extraVolumes[0].csi.driver': 'csi.spiffe.io',
      'extraVolumeMounts[0].name': 'spiffe',
      'extraVolumeMounts[0].mountPath': '/spiffe',
    });
    expect(volumes.map(({ name }) => name)).toEqual(['service-account', 'policy', 'spiffe']);
    const [{ env, volumeMounts }] = containers;
    expect(env).toContainEqual({ name: 'AWS_WEB_IDENTITY_TOKEN_FILE', value: '/spiffe/token' });
    expect(volumeMounts.at(-1)).toEqual({ name: 'spiffe', mountPath: '/spiffe' });
  });

  test('aws.credentialsSecret and aws.assumeRole give the container keys and a role', async () => {
    const [{ env, envFrom }] = (
      await pod({ 'aws.credentialsSecret': 'keys', 'aws.assumeRole.roleArn': ROLE })
    ).containers;
    expect(envFrom).toEqual([{ secretRef: { name: 'keys' } }]);
    expect(env).toContainEqual({ name: ENVIRONMENT.assumeRole, value: ROLE });
  });

  test('serviceAccount.annotations are on the ServiceAccount of the pod, for IRSA', async () => {
    const key = 'serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn';
    const all = await manifests({ [key]: ROLE });
    const annotations = { 'eks.amazonaws.com/role-arn': ROLE };
    expect(find(all, 'ServiceAccount')).toMatchObject({ metadata: { annotations } });
    expect(find(all, 'Deployment')).toMatchObject({
      spec: { template: { spec: { serviceAccountName: NAME } } },
    });
  });

  test.each([
    {
      what: 'two identities',
      values: { 'aws.credentialsSecret': 'keys', 'aws.webIdentity.roleArn': ROLE },
      message: /aws\.credentialsSecret and aws\.webIdentity\.roleArn are both set/,
    },
    {
      what: 'a token file without a role',
      values: { 'aws.webIdentity.tokenFile': '/token' },
      message: /--set aws\.webIdentity\.roleArn=/,
    },
    {
      what: 'an external ID without a role',
      values: { 'aws.assumeRole.externalId': 'cluster-1' },
      message: /--set aws\.assumeRole\.roleArn=/,
    },
    { what: 'a role that is not an ARN', values: { 'aws.webIdentity.roleArn': 'pull' }, message: /roleArn/ },
  ])('refuses $what', async ({ values, message }) => {
    const { code, stderr } = await render({ ...REQUIRED, ...values } as Record<string, string>);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });
});

describe('the caller proof', () => {
  const PROOF_NAME = `${NAME}-caller-proof`;
  const POLICIES = [
    'MutatingAdmissionPolicy',
    'MutatingAdmissionPolicyBinding',
    'ValidatingAdmissionPolicy',
    'ValidatingAdmissionPolicyBinding',
  ];
  const kindsOf = (all: readonly Manifest[]) =>
    all.filter(({ metadata }) => metadata.name === PROOF_NAME).map(({ kind }) => kind);
  const podOf = (all: readonly Manifest[]) => find<Deployment>(all, 'Deployment').spec.template.spec;

  test.each([
    { title: 'auto, from Kubernetes 1.36', mode: 'auto', command: FROM_1_36, isOn: true },
    { title: 'auto, before', mode: 'auto', command: undefined, isOn: false },
    { title: 'enabled', mode: 'enabled', command: undefined, isOn: true },
    { title: 'disabled', mode: 'disabled', command: FROM_1_36, isOn: false },
  ])('with mode $title, is required: $isOn', async ({ mode, command, isOn }) => {
    const all = await manifests({ 'callerProof.mode': mode }, command);
    expect(kindsOf(all).sort()).toEqual(isOn ? [...POLICIES, 'Secret'].sort() : []);
    const [{ env }] = podOf(all).containers;
    const names = env.map(({ name }) => name).filter((name) => PROOF.includes(name));
    expect(names).toEqual(isOn ? [ENVIRONMENT.proofSecret] : []);
  });

  test('has no value in the manifests, which are the same at each rendering', async () => {
    const [one, other] = await Promise.all([render(REQUIRED, FROM_1_36), render(REQUIRED, FROM_1_36)]);
    expect(one.stdout).toBe(other.stdout);
    const all = await manifests({}, FROM_1_36);
    expect(find(all, 'Secret', PROOF_NAME)).not.toHaveProperty('data');
  });

  test('is added to exactly the Secrets that the API server sends to the webhook, and stored in none', async () => {
    const all = await manifests({}, FROM_1_36);
    const [webhook] = (
      find(all, 'MutatingWebhookConfiguration') as unknown as {
        webhooks: [
          { rules: object; namespaceSelector: object; objectSelector: object; matchConditions: object },
        ];
      }
    ).webhooks;
    const { rules, namespaceSelector, objectSelector, matchConditions } = webhook;
    expect(find(all, 'MutatingAdmissionPolicy', PROOF_NAME)).toMatchObject({
      spec: {
        matchConstraints: { resourceRules: rules, namespaceSelector, objectSelector },
        matchConditions,
        failurePolicy: 'Fail',
        reinvocationPolicy: 'Never',
        mutations: [{ applyConfiguration: { expression: expect.stringContaining(`'${PROOF_ANNOTATION}'`) } }],
      },
    });
    const validating = find<Policy>(all, 'ValidatingAdmissionPolicy', PROOF_NAME).spec;
    expect(validating.matchConstraints).toEqual({ resourceRules: rules });
    expect(validating.validations[0]?.expression).toContain(`'${PROOF_ANNOTATION}'`);
  });

  test('with existingSecret, is mounted, and the webhook may write no Secret for it', async () => {
    const all = await manifests({ ...PROVIDED, 'callerProof.existingSecret': 'mine' }, FROM_1_36);
    expect(kindsOf(all).sort()).toEqual([...POLICIES].sort());
    expect(find(all, 'MutatingAdmissionPolicyBinding', PROOF_NAME)).toMatchObject({
      spec: { paramRef: { name: 'mine', namespace: NAMESPACE } },
    });
    const { containers, volumes } = podOf(all);
    expect(volumes.map(({ name }) => name)).toEqual(['caller-proof', 'certs', 'policy']);
    expect(volumes[0]).toMatchObject({ secret: { secretName: 'mine' } });
    const dir = containers[0].env.find(({ name }) => name === ENVIRONMENT.proofDir)?.value;
    expect(containers[0].volumeMounts[0]).toMatchObject({ mountPath: dir, readOnly: true });
    expect(all.filter(({ kind, metadata }) => kind === 'Role' && metadata.name === NAME)).toEqual([]);
  });

  test('of its own needs a role for one more Secret, in every tls.mode', async () => {
    const secretsOf = async (values: Record<string, string>) => {
      const all = await manifests(values, FROM_1_36);
      const { env } = podOf(all).containers[0];
      expect(env.map(({ name }) => name)).toContain(ENVIRONMENT.serviceAccountDir);
      const policy = find<Policy>(all, 'ValidatingAdmissionPolicy', `${NAME}-own-secrets`).spec;
      const role = find<Role>(all, 'Role').rules as unknown as [{ resourceNames: string[] }];
      for (const name of role[0].resourceNames)
        expect(policy.validations[0]?.expression).toContain(`'${name}'`);
      return role[0].resourceNames;
    };
    expect(await secretsOf({})).toEqual([`${NAME}-self-tls`, PROOF_NAME]);
    expect(await secretsOf(PROVIDED)).toEqual([PROOF_NAME]);
  });
});

describe('client certificates', () => {
  const PEM = '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----';

  test('give the container the authorities and the names', async () => {
    const all = await manifests({ clientCA: PEM, clientNames: '{kube-apiserver,spiffe://example.com/api}' });
    const [{ env, volumeMounts }] = find<Deployment>(all, 'Deployment').spec.template.spec.containers;
    const given = Object.fromEntries(env.map(({ name, value }) => [name, value]));
    const { clients } = readConfig({
      ...given,
      KUBERNETES_SERVICE_HOST: '10.0.0.1',
      KUBERNETES_SERVICE_PORT: '443',
    });
    expect(clients?.names).toEqual(['kube-apiserver', 'spiffe://example.com/api']);
    expect(volumeMounts.some(({ mountPath }) => clients?.caFile === `${mountPath}/ca.crt`)).toBe(true);
    expect(find<ConfigMap>(all, 'ConfigMap', `${NAME}-client-ca`).data['ca.crt']?.trim()).toBe(PEM);
  });

  test.each<{ title: string; values: Record<string, string>; message: RegExp }>([
    {
      title: 'without a name',
      values: { clientCA: PEM },
      message: /--set clientNames=/,
    },
    {
      title: 'without an authority',
      values: { clientNames: '{kube-apiserver}' },
      message: /--set-file clientCA=/,
    },
    {
      title: 'with an authority that is not PEM',
      values: { clientCA: 'ca.crt', clientNames: '{kube-apiserver}' },
      message: /clientCA/,
    },
  ])('are refused $title', async ({ values, message }) => {
    const { code, stderr } = await render({ ...REQUIRED, ...values });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });
});

describe('the registry policy', () => {
  const policyOf = (all: readonly Manifest[]) =>
    readPolicy(find<ConfigMap>(all, 'ConfigMap', `${NAME}-policy`).data['policy.yaml'] ?? '', {
      region: REQUIRED['aws.region'],
    });

  test('is the document that the webhook reads', async () => {
    const { logLevel, registries } = policyOf(
      await manifests({
        logLevel: 'debug',
        acceptAnyCaller: 'true',
        'registries[0].host': '123456789012.dkr.ecr.us-east-1.amazonaws.com',
        'registries[0].namespaces': '{team-*}',
        'registries[0].roleArn': ROLE,
        'registries[0].externalId': 'cluster-1',
        'registries[0].sharedRole': 'true',
        'registries[1].host': 'public.ecr.aws',
        'registries[1].namespaces': '{*}',
      }),
    );
    expect(logLevel).toBe('debug');
    expect(registries).toMatchObject([
      {
        host: '123456789012.dkr.ecr.us-east-1.amazonaws.com',
        source: { service: 'ecr', region: 'us-east-1', role: { arn: ROLE, externalId: 'cluster-1' } },
      },
      { host: 'public.ecr.aws', source: { service: 'ecr-public' } },
    ]);
  });

  test('with ownRegistry is the registry of the webhook’s own account, mounted in the container', () => {
    expect(policyOf(chart)).toMatchObject({ logLevel: 'info', registries: [{ source: { service: 'ecr' } }] });
    expect(policyOf(chart).entitlements('any')).toHaveLength(1);
    const { volumes } = find<Deployment>(chart, 'Deployment').spec.template.spec;
    expect(volumes).toContainEqual({ name: 'policy', configMap: { name: `${NAME}-policy` } });
  });
});

test('passes the time-out to the API server, and gives a stopping pod time for its open requests', async () => {
  const all = await manifests({ 'webhook.timeoutSeconds': '30', drainSeconds: '60' });
  expect(find(all, 'MutatingWebhookConfiguration')).toMatchObject({ webhooks: [{ timeoutSeconds: 30 }] });
  const { terminationGracePeriodSeconds } = find<Deployment>(all, 'Deployment').spec.template.spec;
  expect(terminationGracePeriodSeconds).toBeGreaterThan(90);
});

test('runs the pod without root, capabilities and a writable file system', () => {
  expect(find(chart, 'Deployment')).toMatchObject({
    spec: {
      template: {
        spec: {
          automountServiceAccountToken: false,
          securityContext: {
            runAsNonRoot: true,
            runAsUser: 65532,
            seccompProfile: { type: 'RuntimeDefault' },
          },
          containers: [
            {
              securityContext: {
                allowPrivilegeEscalation: false,
                readOnlyRootFilesystem: true,
                capabilities: { drop: ['ALL'] },
              },
            },
          ],
        },
      },
    },
  });
});

describe('tls.mode', () => {
  const bound = (all: readonly Manifest[]) =>
    all.filter(({ kind, metadata }) => kind.endsWith('RoleBinding') && metadata.name === NAME);
  const configurationOf = (all: readonly Manifest[]) => find(all, 'MutatingWebhookConfiguration');

  test('self lets the webhook write two objects by name, within the limits of its policy', () => {
    const secret = `${NAME}-self-tls`;
    expect(find<Role>(chart, 'Role').rules).toEqual([
      {
        apiGroups: [''],
        resources: ['secrets'],
        resourceNames: [secret],
        verbs: ['get', 'watch', 'create', 'patch'],
      },
    ]);
    expect(find<Role>(chart, 'ClusterRole').rules).toEqual([
      {
        apiGroups: ['admissionregistration.k8s.io'],
        resources: ['mutatingwebhookconfigurations'],
        resourceNames: [configurationOf(chart).metadata.name],
        verbs: ['get', 'watch', 'patch'],
      },
    ]);
    expect(bound(chart)).toHaveLength(2);
    // The manifests omit what the webhook sets at run time, so that applying them again does not reset it.
    expect(find(chart, 'Secret', secret)).not.toHaveProperty('data');
    expect(JSON.stringify(configurationOf(chart))).not.toContain('caBundle');
    const { spec } = find<Policy>(chart, 'ValidatingAdmissionPolicy', `${NAME}-ca-bundle`);
    expect(spec.matchConditions[0]?.expression).toContain(`'system:serviceaccount:${NAMESPACE}:${NAME}'`);
    expect(spec.failurePolicy).toBe('Fail');
    expect(find(chart, 'ValidatingAdmissionPolicyBinding', `${NAME}-ca-bundle`)).toMatchObject({
      spec: { policyName: `${NAME}-ca-bundle`, validationActions: ['Deny'] },
    });
  });

  test('cert-manager provides certificate and caBundle, and the webhook has no roles', async () => {
    const all = await manifests({ 'tls.mode': 'cert-manager' });
    expect(bound(all)).toEqual([]);
    expect(configurationOf(all)).toMatchObject({
      metadata: { annotations: { 'cert-manager.io/inject-ca-from': `${NAMESPACE}/${NAME}` } },
    });
    expect(JSON.stringify(configurationOf(all))).not.toContain('caBundle');
    expect(find(all, 'Certificate')).toMatchObject({
      spec: {
        secretName: `${NAME}-tls`,
        dnsNames: [`${NAME}.${NAMESPACE}.svc`],
        issuerRef: { kind: 'Issuer', name: NAME },
      },
    });
    expect(find(all, 'Issuer')).toMatchObject({ spec: { ca: { secretName: `${NAME}-ca` } } });
  });

  test('cert-manager accepts an issuer of another API group', async () => {
    const issuerRef = { name: 'pca', kind: 'AWSPCAClusterIssuer', group: 'awspca.cert-manager.io' };
    const set = Object.entries(issuerRef).map(([key, value]) => [`tls.certManager.issuerRef.${key}`, value]);
    const all = await manifests({ 'tls.mode': 'cert-manager', ...Object.fromEntries(set) });
    expect(find(all, 'Certificate')).toMatchObject({ spec: { issuerRef } });
  });

  test('cert-manager with an issuer of the operator renders no issuer of the chart', async () => {
    const issuer = 'tls.certManager.issuerRef';
    const all = await manifests({
      'tls.mode': 'cert-manager',
      [`${issuer}.name`]: 'company',
      [`${issuer}.kind`]: 'ClusterIssuer',
    });
    expect(all.filter(({ kind }) => kind === 'Issuer')).toEqual([]);
    expect(find(all, 'Certificate')).toMatchObject({
      spec: { issuerRef: { group: 'cert-manager.io', kind: 'ClusterIssuer', name: 'company' } },
    });
  });

  test('provided mounts the given Secret, and the webhook has no roles', async () => {
    const all = await manifests({ ...PROVIDED, 'tls.secretName': 'own' });
    expect(bound(all)).toEqual([]);
    const { volumes } = find<Deployment>(all, 'Deployment').spec.template.spec;
    expect(volumes).toContainEqual({
      name: 'certs',
      secret: expect.objectContaining({ secretName: 'own' }),
    });
  });
});

describe('network values', () => {
  const podOf = (all: readonly Manifest[]) =>
    find<Deployment>(all, 'Deployment').spec as unknown as {
      strategy: { rollingUpdate: object };
      template: { spec: { dnsPolicy: string; hostNetwork?: boolean; containers: [Container] } };
    };

  test('webhook.port is the port of container and webhook', async () => {
    const [container] = podOf(await manifests({ 'webhook.port': '10250' })).template.spec.containers;
    expect(container.ports[0]).toMatchObject({ name: 'webhook', containerPort: 10250 });
    expect(container.env).toContainEqual({ name: 'PORT', value: '10250' });
  });

  test.each([
    { values: {}, isPrivileged: false },
    { values: { 'webhook.port': '1024', 'metrics.port': '0' }, isPrivileged: false },
    { values: { 'webhook.port': '443' }, isPrivileged: true },
    { values: { 'metrics.port': '1023' }, isPrivileged: true },
  ])(
    'a port below 1024 adds a sysctl, because the pod is not root: $values',
    async ({ values, isPrivileged }) => {
      const { spec } = podOf(await manifests(values as Record<string, string>)).template as unknown as {
        spec: { securityContext: { runAsUser: number; sysctls?: object[] } };
      };
      const sysctls = [{ name: 'net.ipv4.ip_unprivileged_port_start', value: '0' }];
      expect(spec.securityContext.sysctls).toEqual(isPrivileged ? sysctls : undefined);
      expect(spec.securityContext.runAsUser).toBe(65532);
    },
  );

  test('hostNetwork changes the DNS policy, and a rollout starts no extra pod', async () => {
    expect(podOf(chart)).toMatchObject({
      strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } },
      template: { spec: { dnsPolicy: 'ClusterFirst' } },
    });
    expect(podOf(await manifests({ hostNetwork: 'true' }))).toMatchObject({
      strategy: { rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } },
      template: { spec: { hostNetwork: true, dnsPolicy: 'ClusterFirstWithHostNet' } },
    });
    expect(podOf(await manifests({ hostNetwork: 'true', dnsPolicy: 'Default' }))).toMatchObject({
      template: { spec: { dnsPolicy: 'Default' } },
    });
  });

  test('proxy and extraCA set the environment of the container and mount the authority', async () => {
    const values = {
      'proxy.httpsProxy': 'http://proxy:3128',
      'proxy.noProxy': 'a.example',
      'extraCA.configMap': 'ca',
    };
    const [{ env, volumeMounts }] = podOf(await manifests(values)).template.spec.containers;
    expect(env).toContainEqual({ name: 'HTTPS_PROXY', value: 'http://proxy:3128' });
    const noProxy = env.find(({ name }) => name === 'NO_PROXY')?.value.split(',');
    expect(noProxy).toEqual(expect.arrayContaining(['localhost', '169.254.170.23', '.svc', 'a.example']));
    const file = env.find(({ name }) => name === 'NODE_EXTRA_CA_CERTS')?.value ?? '';
    expect(volumeMounts.some(({ mountPath }) => file.startsWith(`${mountPath}/`))).toBe(true);
    expect(
      podOf(chart)
        .template.spec.containers[0].env.map(({ name }) => name)
        .join(),
    ).not.toMatch(/PROXY|EXTRA/);
  });

  test('networkPolicy allows the API servers, metrics and the egress that the webhook needs', async () => {
    const values = {
      'networkPolicy.enabled': 'true',
      'networkPolicy.apiServers': '{10.0.0.0/28}',
      'networkPolicy.peers[0].podSelector.matchLabels.k8s-app': 'konnectivity-agent',
    };
    expect(find(await manifests(values), 'NetworkPolicy')).toMatchObject({
      spec: {
        policyTypes: ['Ingress', 'Egress'],
        ingress: [
          {
            from: [
              { ipBlock: { cidr: '10.0.0.0/28' } },
              { podSelector: { matchLabels: { 'k8s-app': 'konnectivity-agent' } } },
            ],
            ports: [{ port: 'webhook' }],
          },
          { ports: [{ port: 'metrics' }] },
        ],
        egress: expect.arrayContaining([
          {
            to: expect.arrayContaining([{ ipBlock: { cidr: '169.254.170.23/32' } }]),
            ports: [{ port: 80, protocol: 'TCP' }],
          },
        ]),
      },
    });
  });
});

test('networkPolicy of type cilium lets in the API servers and the nodes, and lets out to the Pod Identity agent', async () => {
  const all = await manifests({
    'networkPolicy.enabled': 'true',
    'networkPolicy.type': 'cilium',
    'networkPolicy.peers[0].matchLabels.k8s-app': 'konnectivity-agent',
  });
  expect(all.filter(({ kind }) => kind === 'NetworkPolicy')).toEqual([]);
  const port = { port: String(WEBHOOK_PORT), protocol: 'TCP' };
  expect(find(all, 'CiliumNetworkPolicy')).toMatchObject({
    spec: {
      ingress: [
        { fromEntities: ['kube-apiserver', 'host', 'remote-node'], toPorts: [{ ports: [port] }] },
        {
          fromEndpoints: [{ matchLabels: { 'k8s-app': 'konnectivity-agent' } }],
          toPorts: [{ ports: [port] }],
        },
        { fromEntities: ['all'], toPorts: [{ ports: [{ port: '9090' }] }] },
      ],
      egress: expect.arrayContaining([
        { toEntities: ['host'], toPorts: [{ ports: [{ port: '80', protocol: 'TCP' }] }] },
      ]),
    },
  });
});

describe('a policy that gives registries only to some namespaces', () => {
  const SOME = { 'registries[0].host': 'public.ecr.aws', 'registries[0].namespaces': '{team-a}' };
  const EVERY = { 'registries[0].host': 'public.ecr.aws', 'registries[0].namespaces': '{*}' };
  const POLICY = { 'networkPolicy.enabled': 'true' };
  const CIDR = { ...POLICY, 'networkPolicy.apiServers': '{10.0.0.0/28}' };

  test.each<{ title: string; values: Record<string, string>; command?: string[] }>([
    { title: 'the caller proof by default, from Kubernetes 1.36', values: SOME, command: FROM_1_36 },
    { title: 'callerProof.mode enabled', values: { ...SOME, 'callerProof.mode': 'enabled' } },
    {
      title: 'client certificates',
      values: {
        ...SOME,
        clientCA: '-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----',
        clientNames: '{kube-apiserver}',
      },
    },
    { title: 'CIDRs', values: { ...SOME, ...CIDR } },
    {
      title: 'peers',
      values: {
        ...SOME,
        ...POLICY,
        'networkPolicy.peers[0].podSelector.matchLabels.k8s-app': 'konnectivity-agent',
      },
    },
    { title: 'a CiliumNetworkPolicy', values: { ...SOME, ...POLICY, 'networkPolicy.type': 'cilium' } },
    { title: 'acceptAnyCaller', values: { ...SOME, acceptAnyCaller: 'true' } },
    { title: 'nothing, where every namespace gets the registry', values: EVERY },
  ])('is accepted with $title', async ({ values, command }) => {
    const { code, stderr } = await render({ ...REQUIRED, ...values }, command);
    expect(code, stderr).toBe(0);
  });

  test.each<{ title: string; values: Record<string, string>; command?: string[] }>([
    { title: 'without any of them', values: SOME },
    {
      title: 'with the caller proof off',
      values: { ...SOME, 'callerProof.mode': 'disabled' },
      command: FROM_1_36,
    },
    {
      title: 'with a network policy that is not enabled',
      values: { ...SOME, 'networkPolicy.apiServers': '{10.0.0.0/28}' },
    },
    {
      title: 'with a network policy for every address',
      values: { ...SOME, ...POLICY, 'networkPolicy.apiServers': '{10.0.0.0/28,0.0.0.0/0}' },
    },
    {
      title: 'with a peer in every namespace',
      values: { ...SOME, ...POLICY },
      command: [
        ...['template', NAME, '--set-json'],
        'networkPolicy.peers=[{"namespaceSelector": {}, "podSelector": {"matchLabels": {"k8s-app": "agent"}}}]',
      ],
    },
    {
      title: 'with a network policy on the node’s network',
      values: { ...SOME, ...CIDR, hostNetwork: 'true' },
    },
  ])('is refused $title', async ({ values, command }) => {
    const { code, stderr } = await render({ ...REQUIRED, ...values }, command);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/public\.ecr\.aws only to some namespaces \(team-a\).*--set acceptAnyCaller=true/);
  });

  test('is refused as well if it is ownRegistry', async () => {
    const own = { ...REQUIRED, 'ownRegistry.namespaces': '{team-a}' };
    const { code, stderr } = await render(own);
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/own registry only to some namespaces \(team-a\).*--set acceptAnyCaller=true/);
    expect((await render({ ...own, acceptAnyCaller: 'true' })).code).toBe(0);
  });

  test('a network policy without API servers and peers is refused, because it would be open to all', async () => {
    const { code, stderr } = await render({ ...REQUIRED, ...POLICY });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(/--set networkPolicy\.apiServers=/);
  });

  test.each([
    { title: 'authenticated', values: SOME, command: FROM_1_36, authenticated: 'true', keptOut: 'false' },
    { title: 'kept out', values: { ...SOME, ...CIDR }, authenticated: 'false', keptOut: 'true' },
    { title: 'any', values: {}, authenticated: 'false', keptOut: 'false' },
  ])('helm test knows whether callers are $title', async ({ values, command, authenticated, keptOut }) => {
    const all = await manifests(values as Record<string, string>, command);
    const pod = find<Manifest & { spec: { containers: [Container] } }>(all, 'Pod', `${NAME}-test`);
    const [{ env }] = pod.spec.containers;
    expect(env).toContainEqual({ name: 'CALLERS_AUTHENTICATED', value: authenticated });
    expect(env).toContainEqual({ name: 'CALLERS_KEPT_OUT', value: keptOut });
  });
});

test('alerts use only metrics that the documentation lists', async () => {
  const values = { 'metrics.prometheusRule.enabled': 'true', 'metrics.serviceMonitor.enabled': 'true' };
  const all = await manifests(values);
  const names = JSON.stringify(find(all, 'PrometheusRule')).match(/ecr_anywhere_[a-z_]+/g) ?? [];
  expect(names.length).toBeGreaterThan(5);
  const pages = (await readdir(join(ROOT, 'docs'))).filter((file) => file.endsWith('.md'));
  const texts = await Promise.all(pages.map((page) => readFile(join(ROOT, 'docs', page), 'utf8')));
  for (const name of names) expect(texts.join()).toContain(`\`${name}\``);
  expect(find(all, 'ServiceMonitor')).toMatchObject({ spec: { endpoints: [{ port: 'metrics' }] } });
  expect(find(all, 'Service')).toMatchObject({
    spec: { ports: [{}, { name: 'metrics', targetPort: 'metrics' }] },
  });
});

test('alerts for the refresher in the cluster only if it is there', async () => {
  const values = { 'metrics.prometheusRule.enabled': 'true' };
  const expressionsOf = async (more: object) => {
    type Rule = Manifest & { spec: { groups: [{ rules: { alert: string; expr: string }[] }] } };
    const { groups } = find<Rule>(await manifests({ ...values, ...more }), 'PrometheusRule').spec;
    const own = groups[0].rules.filter(({ alert }) => alert.startsWith('EcrAnywhereRefresher'));
    return own.map(({ expr }) => expr);
  };
  expect(await expressionsOf({})).toEqual([]);
  const cronJob = `{namespace="${NAMESPACE}", cronjob="${NAME}-refresher"}`;
  expect(await expressionsOf({ 'refresher.inCluster.enabled': 'true' })).toEqual([
    `time() - max(kube_cronjob_status_last_successful_time${cronJob} or kube_cronjob_created${cronJob}) > 3 * 3600`,
    `absent(kube_cronjob_created${cronJob})`,
  ]);
});

test('renders no alerts without metrics, because they would always fire', async () => {
  const all = await manifests({ 'metrics.prometheusRule.enabled': 'true', 'metrics.port': '0' });
  expect(all.filter(({ kind }) => kind === 'PrometheusRule')).toEqual([]);
});

test.each([
  { values: {}, namespace: 'default' },
  { values: { 'ownRegistry.namespaces': '{billing,shop}', acceptAnyCaller: 'true' }, namespace: 'billing' },
  {
    values: {
      'registries[0].host': 'public.ecr.aws',
      'registries[0].namespaces': '{team-*,shop}',
      acceptAnyCaller: 'true',
    },
    namespace: 'team-x',
  },
  {
    values: {
      'registries[0].host': 'public.ecr.aws',
      'registries[0].namespaces': '{shop}',
      'test.namespace': 'billing',
      acceptAnyCaller: 'true',
    },
    namespace: 'billing',
  },
])(
  'helm test tries a Secret of a namespace that has a registry: $namespace',
  async ({ values, namespace }) => {
    const { containers } = find<Manifest & { spec: { containers: [Container] } }>(
      await manifests(values as Record<string, string>),
      'Pod',
      `${NAME}-test`,
    ).spec;
    expect(containers[0].env).toContainEqual({ name: 'TEST_NAMESPACE', value: namespace });
  },
);

test('sends unmanaged Secrets and those being deleted to the webhook only for the refresher', () => {
  const [webhook] = (
    find(chart, 'MutatingWebhookConfiguration') as unknown as {
      webhooks: [{ matchConditions: { expression: string }[] }];
    }
  ).webhooks;
  const [{ expression } = { expression: '' }] = webhook.matchConditions;
  for (const word of [
    `[?'${SECRET_LABEL.key}'].orValue('') == '${SECRET_LABEL.value}'`,
    'deletionTimestamp',
    `'system:serviceaccount:${NAMESPACE}:${NAME}-refresher'`,
    `'${REFRESHER_GROUP}'`,
  ])
    expect(expression).toContain(word);
});

describe("the refresher's RBAC", () => {
  const SECRETS = { apiGroups: [''], resources: ['secrets'], verbs: ['list', 'patch'] };
  const NAMESPACES = { apiGroups: [''], resources: ['namespaces'], verbs: ['list'] };
  const REFRESHER = `${NAME}-refresher`;
  const subjects = [
    { kind: 'ServiceAccount', name: REFRESHER, namespace: NAMESPACE },
    { kind: 'Group', apiGroup: 'rbac.authorization.k8s.io', name: REFRESHER_GROUP },
  ];

  test('covers all namespaces with *', () => {
    expect(find<Role>(chart, 'ClusterRole', REFRESHER).rules).toEqual([NAMESPACES, SECRETS]);
    expect(find(chart, 'ClusterRoleBinding', REFRESHER)).toMatchObject({
      roleRef: { kind: 'ClusterRole', name: REFRESHER },
      subjects,
    });
    const roles = chart.filter(({ kind, metadata }) => kind === 'Role' && metadata.name === REFRESHER);
    expect(roles).toEqual([]);
    expect(find(chart, 'ServiceAccount', REFRESHER)).toMatchObject({ automountServiceAccountToken: false });
  });

  test('allows one Secret to be created by name with provision.secretName', async () => {
    const create = { ...SECRETS, verbs: ['create'], resourceNames: ['ecr'] };
    const review = {
      apiGroups: ['authorization.k8s.io'],
      resources: ['selfsubjectrulesreviews'],
      verbs: ['create'],
    };
    const everywhere = await manifests({ 'provision.secretName': 'ecr' });
    expect(find<Role>(everywhere, 'ClusterRole', REFRESHER).rules).toEqual([
      NAMESPACES,
      review,
      SECRETS,
      create,
    ]);
    const some = await manifests({ 'provision.secretName': 'ecr', 'refresher.namespaces': '{shop}' });
    expect(find<Role>(some, 'ClusterRole', REFRESHER).rules).toEqual([NAMESPACES, review]);
    expect(find<Role>(some, 'Role', REFRESHER).rules).toEqual([SECRETS, create]);
  });

  test('covers only the namespaces of refresher.namespaces', async () => {
    const all = await manifests({ 'refresher.namespaces': '{shop,billing}' });
    expect(find<Role>(all, 'ClusterRole', REFRESHER).rules).toEqual([NAMESPACES]);
    const roles = all.filter(
      ({ kind, metadata }) => kind === 'Role' && metadata.name === REFRESHER,
    ) as Role[];
    expect(roles.map(({ metadata }) => metadata.namespace)).toEqual(['shop', 'billing']);
    for (const { rules } of roles) expect(rules).toEqual([SECRETS]);
    const bindings = all.filter(
      ({ kind, metadata }) => kind === 'RoleBinding' && metadata.name === REFRESHER,
    );
    expect(bindings.map(({ metadata }) => metadata.namespace)).toEqual(['shop', 'billing']);
    for (const binding of bindings)
      expect(binding).toMatchObject({ roleRef: { kind: 'Role', name: REFRESHER }, subjects });
  });

  test('covers the creation of Events with events.enabled, in the same namespaces, and has their policy', async () => {
    const policy = `${REFRESHER}-events`;
    const EVENTS = { apiGroups: ['events.k8s.io'], resources: ['events'], verbs: ['create'] };
    expect(chart.some(({ metadata }) => metadata.name === policy)).toBe(false);
    const everywhere = await manifests({ 'events.enabled': 'true' });
    expect(find<Role>(everywhere, 'ClusterRole', REFRESHER).rules).toEqual([NAMESPACES, SECRETS, EVENTS]);
    const named = await manifests({ 'events.enabled': 'true', 'refresher.namespaces': '{shop}' });
    expect(find<Role>(named, 'ClusterRole', REFRESHER).rules).toEqual([NAMESPACES]);
    expect(find<Role>(named, 'Role', REFRESHER).rules).toEqual([SECRETS, EVENTS]);
    const { spec } = find<Policy>(everywhere, 'ValidatingAdmissionPolicy', policy);
    expect(spec.failurePolicy).toBe('Fail');
    expect(spec.matchConditions[0]?.expression).toContain(`'${REFRESHER_GROUP}'`);
    const expressions = spec.validations.map(({ expression }) => expression).join('\n');
    for (const name of [EVENT_REPORTER, EVENT_ACTION, REFRESHER_FIELD_MANAGER])
      expect(expressions).toContain(`'${name}'`);
    expect(find(everywhere, 'ValidatingAdmissionPolicyBinding', policy)).toMatchObject({
      spec: { policyName: policy, validationActions: ['Deny'] },
    });
  });
});

describe('refresher.inCluster', () => {
  const REFRESHER = `${NAME}-refresher`;
  const ENABLED = { 'refresher.inCluster.enabled': 'true' };
  const cronJobOf = async (values: Readonly<Record<string, string>> = {}, command?: string[]) =>
    (await manifests({ ...ENABLED, ...values }, command)).find(({ kind }) => kind === 'CronJob') as CronJob;
  const specOf = ({ spec }: CronJob) => spec.jobTemplate.spec.template.spec;

  test('is off by default', () => {
    expect(chart.filter(({ kind }) => kind === 'CronJob')).toEqual([]);
  });

  test('runs hourly, one Job at a time, without a second attempt', async () => {
    expect(await cronJobOf()).toMatchObject({
      metadata: { name: REFRESHER, namespace: NAMESPACE },
      spec: {
        schedule: expect.stringMatching(/^[1-5]?[0-9] \* \* \* \*$/),
        concurrencyPolicy: 'Forbid',
        startingDeadlineSeconds: 1800,
        jobTemplate: { spec: { backoffLimit: 0, template: { spec: { restartPolicy: 'Never' } } } },
      },
    });
  });

  test('gives releases different minutes, and a release always the same one', async () => {
    const scheduleOf = async (release: string) =>
      (await cronJobOf({ fullnameOverride: NAME }, ['template', release])).spec.schedule;
    const [one, again, other] = await Promise.all(['one', 'one', 'other'].map(scheduleOf));
    expect(again).toBe(one);
    expect(other).not.toBe(one);
  });

  test('takes the operator’s schedule, resources, annotations and labels', async () => {
    const cronJob = await cronJobOf({
      'refresher.inCluster.schedule': '*/20 * * * *',
      'refresher.inCluster.resources.limits.memory': '1Gi',
      'refresher.inCluster.podAnnotations.a': 'b',
      'refresher.inCluster.podLabels.team': 'platform',
      priorityClassName: 'high',
      'tolerations[0].operator': 'Exists',
      'imagePullSecrets[0].name': 'pull',
    });
    expect(cronJob.spec.schedule).toBe('*/20 * * * *');
    expect(cronJob.spec.jobTemplate.spec.template).toMatchObject({
      metadata: { annotations: { a: 'b' }, labels: { team: 'platform' } },
      spec: {
        priorityClassName: 'high',
        tolerations: [{ operator: 'Exists' }],
        imagePullSecrets: [{ name: 'pull' }],
        containers: [{ resources: { limits: { memory: '1Gi' } } }],
      },
    });
  });

  test('runs the refresher’s bundle as its ServiceAccount, with a token as short as the Job', async () => {
    const cronJob = await cronJobOf();
    const { activeDeadlineSeconds } = cronJob.spec.jobTemplate.spec;
    expect(specOf(cronJob)).toMatchObject({
      serviceAccountName: REFRESHER,
      automountServiceAccountToken: false,
      enableServiceLinks: false,
      containers: [{ args: ['/app/refresher.mjs'], securityContext: { readOnlyRootFilesystem: true } }],
      volumes: [
        {
          projected: {
            sources: [
              { serviceAccountToken: { expirationSeconds: activeDeadlineSeconds, path: 'token' } },
              { configMap: { name: 'kube-root-ca.crt' } },
            ],
          },
        },
      ],
    });
  });

  test('lets a run that is too slow report before the Job ends it', async () => {
    const cronJob = await cronJobOf();
    const env = Object.fromEntries(specOf(cronJob).containers[0].env.map(({ name, value }) => [name, value]));
    const { deadlineMs } = readSettings({
      ...{ KUBERNETES_SERVICE_HOST: 'x', KUBERNETES_SERVICE_PORT: '443' },
      ...env,
    });
    expect(deadlineMs / 1000).toBeLessThan(cronJob.spec.jobTemplate.spec.activeDeadlineSeconds);
  });

  test('has pods that neither the Service nor the webhook’s other objects select', async () => {
    const all = await manifests({
      ...{ ...ENABLED, 'networkPolicy.enabled': 'true', 'networkPolicy.apiServers': '{10.0.0.0/28}' },
      'refresher.inCluster.podLabels.app\\.kubernetes\\.io/name': NAME,
    });
    const cronJob = find<CronJob>(all, 'CronJob', REFRESHER);
    const { labels = {} } = cronJob.spec.jobTemplate.spec.template.metadata;
    const selectedBy = (selector: Readonly<Record<string, string>>) =>
      Object.entries(selector).every(([key, value]) => labels[key] === value);
    type Selecting = Manifest & { spec: { selector: Record<string, string> } };
    type Limiting = Manifest & { spec: { podSelector: { matchLabels: Record<string, string> } } };
    expect(selectedBy(find<Selecting>(all, 'Service').spec.selector)).toBe(false);
    expect(selectedBy(find<Limiting>(all, 'NetworkPolicy').spec.podSelector.matchLabels)).toBe(false);
    const own = find<Limiting>(all, 'NetworkPolicy', REFRESHER);
    expect(selectedBy(own.spec.podSelector.matchLabels)).toBe(true);
  });

  test.each([
    ['kubernetes', 'NetworkPolicy', undefined],
    ['cilium', 'CiliumNetworkPolicy', [{}]],
  ])(
    'may call only the API server and DNS, and is not called, with networkPolicy.type=%s',
    async (type, kind, ingress) => {
      const all = await manifests({
        ...{ ...ENABLED, 'networkPolicy.enabled': 'true', 'networkPolicy.type': type },
        'networkPolicy.apiServers': '{10.0.0.0/28}',
      });
      const { spec } = find<Manifest & { spec: { ingress?: object[]; egress: object[] } }>(
        all,
        kind,
        REFRESHER,
      );
      expect(spec.ingress).toEqual(ingress);
      const ports = [...JSON.stringify(spec.egress).matchAll(/"port":"?(\d+)/g)].map(([, port]) => port);
      expect([...new Set(ports)]).toEqual(['443', '6443', '53']);
    },
  );

  test('keeps its name within the 52 characters of a CronJob', async () => {
    const all = await manifests({ ...ENABLED, fullnameOverride: 'a'.repeat(50) });
    const names = all.flatMap(({ kind, metadata }) => (kind === 'CronJob' ? metadata.name : []));
    expect(names).toEqual([`${'a'.repeat(50)}-r`]);
  });
});

describe('the write policies', () => {
  const names = ['update', 'create-delete', 'token'].map((what) => `${NAME}-refresher-${what}`);

  test.each(names)(
    '%s matches the refresher by name and by group, and denies with reason Forbidden',
    (name) => {
      const { spec } = find<Policy>(chart, 'ValidatingAdmissionPolicy', name);
      const [condition] = spec.matchConditions;
      expect(condition?.expression).toContain(`'system:serviceaccount:${NAMESPACE}:${NAME}-refresher'`);
      expect(condition?.expression).toContain(`'${REFRESHER_GROUP}'`);
      expect(spec.failurePolicy).toBe('Fail');
      for (const { message, reason } of spec.validations) {
        expect(message).not.toBe('');
        expect(reason).toBe('Forbidden');
      }
      expect(find(chart, 'ValidatingAdmissionPolicyBinding', name)).toMatchObject({
        spec: { policyName: name, validationActions: ['Deny'] },
      });
    },
  );

  test('cover every write of a Secret', () => {
    const secretPolicies = names.filter((name) => !name.endsWith('-token'));
    const operations = secretPolicies.flatMap((name) =>
      find<Policy>(chart, 'ValidatingAdmissionPolicy', name).spec.matchConstraints.resourceRules.flatMap(
        (rule) => rule.operations,
      ),
    );
    expect(operations.sort()).toEqual(['CREATE', 'DELETE', 'UPDATE']);
  });

  test('use the names of the contract in their expressions', () => {
    const { variables = [], validations } = find<Policy>(
      chart,
      'ValidatingAdmissionPolicy',
      `${NAME}-refresher-update`,
    ).spec;
    const ours = variables.find(({ expression }) => expression.startsWith('['));
    expect(ours?.expression.match(/[^'[\], ]+/g)?.sort()).toEqual(
      [...REQUEST_ANNOTATIONS, ...WEBHOOK_ANNOTATIONS].sort(),
    );
    const text = validations.map(({ expression }) => expression).join('\n');
    for (const word of [
      `[?'${NAMESPACE_LABEL.key}'].orValue('') == '${NAMESPACE_LABEL.value}'`,
      `[?'${SECRET_LABEL.key}'].orValue('') == '${SECRET_LABEL.value}'`,
      `'${SECRET_TYPE}'`,
      `'${SECRET_KEY}'`,
      ...[...EXCLUDED_NAMESPACES, NAMESPACE].map((namespace) => `'${namespace}'`),
    ])
      expect(text).toContain(word);
  });
});

describe('the values', () => {
  test.each([
    { key: 'image.repository', message: /image\.repository is missing.* --set image\.repository=/ },
    { key: 'aws.region', message: /aws\.region is missing.* --set aws\.region=/ },
    { key: 'tls.caBundle', message: /tls\.caBundle is missing.* --set tls\.caBundle=/ },
  ])('are refused without $key, with the option that sets it', async ({ key, message }) => {
    const { code, stderr } = await render({ ...REQUIRED, ...PROVIDED, [key]: '' });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });

  test.each([
    {
      key: 'tls.mode=provided,tls.caBundle',
      value: 'bm90IGEgY2VydGlmaWNhdGU=',
      message: /tls\.caBundle is not a base64-encoded PEM certificate/,
    },
    { key: 'tls.caBundle', value: CA, message: /tls\.mode is self/ },
    { key: 'tls.mode', value: 'auto', message: /mode/ },
    { key: 'tls.certManager.issuerRef.kind', value: 'issuer', message: /kind/ },
    { key: 'networkPolicy.apiServers', value: '{api}', message: /apiServers/ },
    { key: 'proxy.httpsProxy', value: 'proxy', message: /httpsProxy/ },
    { key: 'dnsPolicy', value: 'Cluster', message: /dnsPolicy/ },
    // The API server requires a dnsConfig with None, and the chart has no value for it.
    { key: 'dnsPolicy', value: 'None', message: /dnsPolicy/ },
    { key: 'webhook.port', value: '9090', message: /both 9090/ },
    { key: 'hostNetwork=true,webhook.port', value: '443', message: /Only root may listen/ },
    { key: 'hostNetwork=true,metrics.port', value: '80', message: /Only root may listen/ },
    { key: 'webhook.port', value: '0', message: /port/ },
    { key: 'metrics.serviceMonitor.interval', value: 'often', message: /interval/ },
    { key: 'replica', value: '3', message: /replica/ },
    { key: 'refresher.namespace', value: 'shop', message: /namespace/ },
    { key: 'webhook.timeoutSeconds', value: '31', message: /timeoutSeconds/ },
    { key: 'webhook.timeoutSeconds', value: '2', message: /timeoutSeconds/ },
    { key: 'service.port', value: '0', message: /port/ },
    { key: 'logLevel', value: 'loud', message: /logLevel/ },
    { key: 'aws.region', value: 'Frankfurt', message: /region/ },
    { key: 'refresher.namespaces', value: 'null', message: /--set 'refresher\.namespaces=\{\*\}'/ },
    { key: 'refresher.inCluster.schedule', value: 'hourly', message: /schedule/ },
    { key: 'provision.secretName', value: 'a..b', message: /secretName/ },
    { key: 'refresher.namespaces', value: '{team-*}', message: /namespaces/ },
    { key: 'refresher.namespaces', value: '{*,shop}', message: /names \* and others/ },
    { key: 'registries[0].host', value: 'public.ecr.aws', message: /namespaces/ },
    { key: 'registries[0].hosts', value: 'public.ecr.aws', message: /hosts/ },
    { key: 'metrics.port', value: '-1', message: /port/ },
  ])('are refused with $key=$value', async ({ key, value, message }) => {
    const { code, stderr } = await render({ ...REQUIRED, [key]: value });
    expect(code).not.toBe(0);
    expect(stderr).toMatch(message);
  });

  test.each(readdirSync(join(CHART, 'examples')))('of the example %s are accepted', async (file) => {
    const args = [...FROM_1_36, CHART, '--namespace', NAMESPACE, '--kube-version', '1.36.0'];
    const { code, stdout, stderr } = await helm([...args, '--values', join(CHART, 'examples', file)], {
      mayFail: true,
    });
    expect(code, stderr).toBe(0);
    expect(stdout).toContain('kind: Deployment');
  });

  // So they are in a release that an older chart installed, with helm upgrade --reuse-values.
  test('may lack the groups of what is off by default', async () => {
    const groups = ['provision', 'attach', 'events', 'refresher.inCluster'];
    const absent = Object.fromEntries(groups.map((group) => [group, 'null']));
    expect(await render({ ...REQUIRED, ...absent })).toEqual(await render(REQUIRED));
  });

  test('pass helm lint without warnings', async () => {
    const { code, stdout } = await render(REQUIRED, ['lint', '--strict']);
    expect(code, stdout).toBe(0);
    expect(stdout).not.toMatch(/\[(WARNING|ERROR)\]/);
  });
});
