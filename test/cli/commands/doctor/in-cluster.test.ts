// doctor inside a cluster, at a real API server: each case breaks one thing, and doctor must name it. A repair that doctor
// prints is executed, and every check must pass again.
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ATTEMPTED } from '../../../../cli/commands/doctor/check-injection.ts';
import { buildWebhook } from '../../../../webhook/build.ts';
import { createAuthority } from '../../../bed/certificates.ts';
import { type Pod, startPod } from '../../../bed/kubelet.ts';
import { NAMESPACE, RELEASE, SERVICE_PORT, serviceAddress } from '../../../bed/webhook.ts';
import type { RunOptions } from '../../command-line.ts';
import { type Case, DoctorBed } from './doctor-bed.ts';

const KUBECTL = 'kubectl --context bed';
const IN_RELEASE = `${KUBECTL} --namespace ecr-anywhere`;
const upgrade = (more = '') =>
  `helm upgrade ecr-anywhere webhook/chart --namespace ecr-anywhere --reset-then-reuse-values${more} --kube-context bed`;
const LOGS = `${IN_RELEASE} logs deployment/ecr-anywhere --tail=50`;
/** The webhook checks its certificate and the caBundle every five or six seconds. */
const HEALS_WITHIN_MS = 20_000;

let on: DoctorBed;
beforeAll(async () => {
  on = await DoctorBed.start();
});
afterAll(() => on?.[Symbol.asyncDispose]());

const CONFIGURATION = ['mutatingwebhookconfiguration', 'ecr-anywhere'];
const patchConfiguration = (...operations: object[]) =>
  on.kubectl('patch', ...CONFIGURATION, '--type=json', '--patch', JSON.stringify(operations));
const removeFromConfiguration = (path: string) =>
  `${KUBECTL} patch ${CONFIGURATION.join(' ')} --type=json --patch '${JSON.stringify([{ op: 'remove', path }])}'`;

test('every check of a healthy cluster passes, and doctor changes nothing', async () => {
  const kinds = (await on.kubectl('api-resources', '--verbs=list', '--output=name')).stdout
    .split('\n')
    // The API server renews leases itself; events and componentstatuses are not stored objects.
    .filter((kind) => kind && !/^(leases|events|componentstatuses)/.test(kind));
  const columns = ['kind', 'metadata.namespace', 'metadata.name', 'metadata.resourceVersion', 'metadata.uid'];
  const everything = async () => {
    const { stdout } = await on.kubectl(
      ...['get', kinds.join(), '--all-namespaces'],
      `--output=custom-columns=${columns.map((column, index) => `${index}:.${column}`).join()}`,
    );
    const { Items = [] } = await new DynamoDBClient(on.bed.deployment.emulator.clientConfig).send(
      new ScanCommand({ TableName: on.bed.deployment.resource('RefresherFunctionMemory') }),
    );
    return { objects: stdout.split('\n').sort(), clusterState: Items };
  };
  const before = await everything();
  expect(before.objects.length).toBeGreaterThan(100);
  await on.expectPassed();
  expect(await everything()).toEqual(before);
});

const POLICY = 'ecr-anywhere-refresher-update';
const POLICY_KIND = 'validatingadmissionpolicy';
const BINDING_KIND = 'validatingadmissionpolicybinding';
const patchPolicy = (kind: string, change: object) =>
  on.kubectl('patch', kind, POLICY, '--type=merge', '--patch', JSON.stringify({ spec: change }));
const CONDITION = { name: 'not-now', expression: 'false' };

describe('the chart', () => {
  test.each<Case>([
    {
      name: 'the webhook configuration does not exist',
      code: 'configuration-missing',
      message: ['the release ecr-anywhere in ecr-anywhere'],
      breaks: () => on.kubectl('delete', ...CONFIGURATION),
      repair: upgrade(),
      settlesWithin: HEALS_WITHIN_MS,
    },
    ...(
      [
        ['a policy does not exist', () => on.kubectl('delete', POLICY_KIND, POLICY)],
        ['a binding does not exist', () => on.kubectl('delete', BINDING_KIND, POLICY)],
        ['a binding only audits', () => patchPolicy(BINDING_KIND, { validationActions: ['Audit'] })],
        ['a policy fails open', () => patchPolicy(POLICY_KIND, { failurePolicy: 'Ignore' })],
      ] as const
    ).map(([name, breaks]) => ({
      ...{ name, breaks, code: 'write-policy-not-enforced' as const, message: [POLICY], repair: upgrade() },
    })),
    {
      name: 'a binding has match resources',
      code: 'write-policy-not-enforced',
      message: [POLICY, 'match resources'],
      breaks: () =>
        patchPolicy(BINDING_KIND, {
          matchResources: { namespaceSelector: { matchLabels: { team: 'a' } } },
        }),
      repair: `${KUBECTL} patch ${BINDING_KIND} ${POLICY} --type=json --patch '[{"op":"remove","path":"/spec/matchResources"}]'`,
    },
    {
      name: 'a policy has match conditions that the chart did not set',
      code: 'write-policy-not-enforced',
      message: [POLICY, 'match conditions'],
      breaks: () =>
        on.kubectl(
          ...['patch', POLICY_KIND, POLICY, '--type=json', '--patch'],
          JSON.stringify([{ op: 'add', path: '/spec/matchConditions/-', value: CONDITION }]),
        ),
      repair: `${KUBECTL} patch ${POLICY_KIND} ${POLICY} --type=json --patch '[{"op":"remove","path":"/spec/matchConditions/1"}]'`,
    },
  ])('$code: $name', (one) => on.expectCase(one));
});

describe('the webhook configuration', () => {
  const FAILS_OPEN = { op: 'replace', path: '/webhooks/0/failurePolicy', value: 'Ignore' };
  const changed = (name: string, message: string, operation: object): Case => ({
    ...{ name, code: 'configuration-changed', message: [message], repair: upgrade() },
    breaks: () => patchConfiguration(operation),
  });
  const notCalled = (name: string, path: string, operation: object): Case => ({
    ...{ name, code: 'webhook-not-called', message: ['team-a', path], settlesWithin: 5_000 },
    breaks: () => patchConfiguration(operation),
    repair: removeFromConfiguration(path),
  });
  /** The webhook would write the right caBundle, so its permission to do so is removed. */
  const untrusted = (name: string, bundle: () => string | Promise<string>): Case => ({
    ...{ name, code: 'ca-bundle-mismatch', investigate: LOGS, settlesWithin: HEALS_WITHIN_MS },
    breaks: async () => {
      await on.kubectl('delete', 'clusterrolebinding', 'ecr-anywhere');
      const value = Buffer.from(await bundle()).toString('base64');
      await patchConfiguration({ op: 'replace', path: '/webhooks/0/clientConfig/caBundle', value });
    },
    // The hint names it.
    mends: () => on.repair(upgrade()),
  });
  test.each<Case>([
    changed('it leaves out updates', 'UPDATE', {
      ...{ op: 'replace', path: '/webhooks/0/rules/0/operations', value: ['CREATE'] },
    }),
    {
      ...changed('it fails open, and the webhook is down', 'failurePolicy is Ignore', FAILS_OPEN),
      breaks: async () => {
        await on.killWebhook();
        await patchConfiguration(FAILS_OPEN);
      },
      mends: () => on.webhook.start(),
    },
    notCalled('by a foreign condition', '/webhooks/0/matchConditions/1', {
      ...{ op: 'add', path: '/webhooks/0/matchConditions/-', value: CONDITION },
    }),
    notCalled(
      'because it selects namespaces by another label, too',
      '/webhooks/0/namespaceSelector/matchLabels/example.com~1team',
      {
        ...{
          op: 'add',
          path: '/webhooks/0/namespaceSelector/matchLabels',
          value: { 'example.com/team': 'b' },
        },
      },
    ),
    {
      name: 'because a foreign expression excludes the namespace',
      code: 'webhook-not-called',
      message: ['team-a'],
      breaks: () =>
        patchConfiguration({
          ...{ op: 'add', path: '/webhooks/0/namespaceSelector/matchExpressions/-' },
          value: { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['team-a'] },
        }),
      repair: upgrade(),
      settlesWithin: 5_000,
    },
    // The API server's message about a bundle that is not PEM: check-injection.test.ts.
    untrusted('the caBundle is empty', () => ''),
    untrusted(
      'the caBundle is that of another authority',
      async () => (await createAuthority('another')).caPem,
    ),
  ])('$code: $name', (one) => on.expectCase(one));
});

describe('labels and types', () => {
  const EMPTY = { data: { '.dockerconfigjson': '{"auths":{}}' } };
  const label = (name: string) =>
    `${KUBECTL} label namespace ${name} ecr-anywhere.centml.ai/namespace=enabled --overwrite`;
  const labelSecret = (namespace: string, name: string, value: string) =>
    `${KUBECTL} --namespace ${namespace} label secret ${name} ecr-anywhere.centml.ai/managed${value}`;

  test('a namespace that is switched off is no failure', async () => {
    await on.createNamespace('team-off', 'disabled');
    await on.expectPassed();
  });

  test.each<Case>([
    {
      name: 'a namespace has another value',
      code: 'namespace-label-wrong',
      message: ['team-b'],
      breaks: () => on.createNamespace('team-b', 'true'),
      repair: label('team-b'),
    },
    {
      name: 'a managed Secret is in a namespace without the label',
      code: 'namespace-label-missing',
      message: ['team-c'],
      breaks: async () => {
        await on.createNamespace('team-c', null);
        await on.createSecret('team-c', 'pull', EMPTY);
      },
      investigate: `${KUBECTL} --namespace team-c get secrets --selector ecr-anywhere.centml.ai/managed`,
      mends: () => on.repair(label('team-c')),
    },
    {
      name: 'the API server refused a Secret without data, because the namespace lacks the label',
      code: 'namespace-label-missing',
      message: ['team-new', 'data[.dockerconfigjson]: Required value'],
      args: ['alpha', '--namespace', 'team-new'],
      breaks: async () => {
        await on.createNamespace('team-new', null);
        await expect(on.createSecret('team-new', 'pull')).rejects.toThrow(
          /data\[\.dockerconfigjson\]: Required value/,
        );
      },
      investigate: `${KUBECTL} get namespace team-new --show-labels`,
      mends: async () => {
        await on.repair(label('team-new'));
        await on.createSecret('team-new', 'pull');
        await on.kubectl('delete', 'secret', 'pull', '--namespace', 'team-new');
        await on.createNamespace('team-new', 'disabled');
      },
    },
    {
      name: 'a managed Secret is in a namespace that is never served',
      code: 'namespace-excluded',
      message: ['ecr-anywhere/pull'],
      breaks: () => on.createSecret('ecr-anywhere', 'pull', EMPTY),
      repair: labelSecret('ecr-anywhere', 'pull', '-'),
    },
    {
      name: 'a Secret has another value',
      code: 'secret-label-wrong',
      message: ['team-a/yes'],
      breaks: () => on.createSecret('team-a', 'yes', { label: 'yes', ...EMPTY }),
      repair: labelSecret('team-a', 'yes', '=true --overwrite'),
    },
    {
      name: 'a managed Secret is Opaque',
      code: 'secret-type-wrong',
      message: ['team-d/opaque'],
      breaks: async () => {
        await on.createNamespace('team-d', null);
        await on.createSecret('team-d', 'opaque', { type: 'Opaque' });
        await on.createNamespace('team-d');
      },
      investigate: `${KUBECTL} --namespace team-d describe secret opaque`,
      mends: () => on.repair(labelSecret('team-d', 'opaque', '-')),
    },
    {
      name: 'no Secret is managed',
      code: 'no-managed-secret',
      breaks: async () => {
        await on.kubectl('delete', 'secret', 'yes', '--namespace', 'team-a');
        await on.kubectl('delete', 'secret', '--all', '--namespace', 'team-c');
        for (const namespace of ['team-b', 'team-c', 'team-d'])
          await on.kubectl('delete', 'namespace', namespace, '--wait=false');
        await on.repair(labelSecret('team-a', 'pull', '-'));
      },
      investigate: `${KUBECTL} get secrets --all-namespaces --show-labels --field-selector type=kubernetes.io/dockerconfigjson`,
      mends: () => on.repair(labelSecret('team-a', 'pull', '=true')),
    },
  ])('$code: $name', (one) => on.expectCase(one));
});

/** Runs a pod of the Deployment in place of the bed's. */
const runPod = (bundle: string, waitsForReady = true): Promise<Pod> =>
  startPod(on.controlPlane, NAMESPACE, RELEASE, {
    ...{ bundle, waitsForReady, ip: on.webhook.address.host, ecrUrl: on.bed.ecr.url },
  });

describe('the webhook', () => {
  test.each<Case>([
    {
      name: 'its process has ended',
      code: 'webhook-unreachable',
      message: ['team-a', 'connection refused', '0 of its pods are ready'],
      breaks: () => on.killWebhook(),
      investigate: LOGS,
      mends: () => on.restartWebhook(),
    },
    {
      name: 'its Deployment is scaled to zero',
      code: 'webhook-scaled-down',
      message: ['team-a', '0 replicas'],
      breaks: async () => {
        await on.kubectl('scale', 'deployment/ecr-anywhere', '--replicas=0', '--namespace', 'ecr-anywhere');
        await on.killWebhook();
      },
      repair: `${IN_RELEASE} scale deployment/ecr-anywhere --replicas=2`,
      mends: () => on.webhook.start(),
    },
    {
      name: 'its Deployment is deleted',
      code: 'webhook-not-deployed',
      message: ['team-a', 'ecr-anywhere/ecr-anywhere'],
      breaks: async () => {
        await on.kubectl('delete', 'deployment', 'ecr-anywhere', '--namespace', 'ecr-anywhere');
        await on.killWebhook();
      },
      repair: upgrade(),
      mends: () => on.webhook.start(),
    },
  ])('$code: $name', (one) => on.expectCase(one));

  // The webhook and the API server notice each change of a certificate only after seconds.
  test('certificate-invalid: it is for another name; then ca-bundle-mismatch: it is of another authority', {
    timeout: 180_000,
  }, async () => {
    const bundle = join(on.bed.dir, 'webhook.mjs');
    await buildWebhook(bundle);
    const authority = await createAuthority('provided');
    const install = async (name: string) => {
      const { certPem, keyPem } = await authority.serving([name]);
      return { 'tls.crt': certPem, 'tls.key': keyPem };
    };
    const right = await install('ecr-anywhere.ecr-anywhere.svc');
    const secret = (data: object) => ({
      ...{ apiVersion: 'v1', kind: 'Secret', type: 'kubernetes.io/tls', stringData: data },
      metadata: { name: 'ecr-anywhere-tls', namespace: 'ecr-anywhere' },
    });
    const caBundle = Buffer.from(authority.caPem).toString('base64');
    await on.killWebhook();
    await on.webhook.upgrade({ tls: { mode: 'provided', caBundle } });
    await on.kubectl(
      'delete',
      'secret',
      'ecr-anywhere-tls',
      '--namespace',
      'ecr-anywhere',
      '--ignore-not-found',
    );
    await on.apply(secret(right));
    await on.restartWebhook();
    await on.expectPassed(HEALS_WITHIN_MS);

    // In a new pod, as the API server keeps connections to the old one.
    await on.killWebhook();
    await on.apply(secret(await install('other.ecr-anywhere.svc')));
    await using pod = await runPod(bundle, false);
    await expect
      .poll(async () => (await on.doctor()).report.firstFailed?.code, { timeout: HEALS_WITHIN_MS })
      .toBe('certificate-invalid');
    const certificate = await on.expectFailed('certificate-invalid', {
      message: ['team-a', 'other.ecr-anywhere.svc', 'ecr-anywhere.ecr-anywhere.svc'],
    });
    expect(certificate.investigate).toBe(
      `${IN_RELEASE} get secret ecr-anywhere-tls '--output=jsonpath={.data.tls\\.crt}' | base64 --decode | openssl x509 -noout -issuer -subject -ext subjectAltName -dates`,
    );
    await on.repair(certificate.investigate ?? '');
    await on.apply(secret(right));
    await pod.container.syncVolumes();
    await on.expectPassed(HEALS_WITHIN_MS);

    const { caPem } = await createAuthority('another');
    await on.webhook.upgrade({ tls: { mode: 'provided', caBundle: Buffer.from(caPem).toString('base64') } });
    const trust = await on.expectFailed('ca-bundle-mismatch', { message: ['team-a'] });
    expect(trust.investigate).toBe(certificate.investigate);
    const replace = upgrade(' --set-file tls.caBundle=ca.base64');
    expect(trust.hint).toContain(replace);
    await on.repair(replace, { 'ca.base64': caBundle });
    await on.expectPassed();

    await on.kubectl('delete', 'secret', 'ecr-anywhere-tls', '--namespace', 'ecr-anywhere');
    await on.webhook.upgrade({ tls: { mode: 'self', caBundle: '' } });
    await pod.stop();
    await on.webhook.start();
    await on.expectPassed(HEALS_WITHIN_MS);
  });
});

describe('callers and other mutators', () => {
  const policy = (object: object) => ({ apiVersion: 'admissionregistration.k8s.io/v1', ...object });
  const rule = { apiGroups: [''], apiVersions: ['v1'], operations: ['UPDATE'], resources: ['secrets'] };
  const mutator = (applyConfiguration: string) =>
    on.apply(
      policy({
        kind: 'MutatingAdmissionPolicy',
        metadata: { name: 'stamp' },
        spec: {
          matchConstraints: { resourceRules: [rule] },
          reinvocationPolicy: 'Never',
          mutations: [
            { patchType: 'ApplyConfiguration', applyConfiguration: { expression: applyConfiguration } },
          ],
        },
      }),
      policy({
        kind: 'MutatingAdmissionPolicyBinding',
        metadata: { name: 'stamp' },
        spec: { policyName: 'stamp' },
      }),
    );
  const removeMutator = () =>
    on.kubectl('delete', 'mutatingadmissionpolicybinding,mutatingadmissionpolicy', 'stamp');

  test.each<Case>([
    {
      name: 'the binding of the caller proof does not exist',
      code: 'callers-not-limited',
      message: ['mutatingadmissionpolicybindings/ecr-anywhere-caller-proof'],
      breaks: () => on.kubectl('delete', 'mutatingadmissionpolicybinding', 'ecr-anywhere-caller-proof'),
      repair: upgrade(),
      settlesWithin: HEALS_WITHIN_MS,
    },
  ])('$code: $name', (one) => on.expectCase(one));

  test('changed-by-other-mutator: a policy adds a finalizer to every Secret', async () => {
    await mutator("Object{metadata: Object.metadata{finalizers: ['example.com/hold']}}");
    // The API server applies a new policy after a second or two.
    await expect
      .poll(async () => (await on.doctor()).report.firstFailed?.code, { timeout: 10_000 })
      .toBe('changed-by-other-mutator');
    const failure = await on.expectFailed('changed-by-other-mutator', {
      message: ['mutatingadmissionpolicy/stamp'],
    });
    expect(failure.hint).toContain('system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher');
    await removeMutator();
    await on.expectPassed(10_000);
  });

  test('a policy that adds a label to every Secret is no failure', async () => {
    await mutator("Object{metadata: Object.metadata{labels: {'team': 'stamped'}}}");
    const touch = ['--namespace', 'team-a', 'annotate', 'secret', 'pull', 'touched=yes', '--overwrite'];
    await expect
      .poll(async () => (await on.kubectl(...touch, '--dry-run=server', '--output=json')).stdout, {
        timeout: 10_000,
      })
      .toContain('stamped');
    await on.expectPassed();
    await removeMutator();
  });
});

describe('ECR credentials', () => {
  /** The webhook caches a failure for five seconds. */
  const FORGETS_WITHIN_MS = 10_000;
  test.each<Case>([
    {
      name: 'the policy does not name the namespace',
      code: 'not-entitled',
      message: ['team-a'],
      breaks: async () => {
        await on.webhook.upgrade({ registries: [{ host: on.bed.ecr.host, namespaces: ['team-z'] }] });
        await on.restartWebhook();
      },
      investigate: 'helm get values ecr-anywhere --namespace ecr-anywhere --kube-context bed',
      // The hint names it.
      mends: async () => {
        await on.repair('helm get values ecr-anywhere --namespace ecr-anywhere --kube-context bed');
        await on.repair(upgrade(' --values registries.yaml'), {
          'registries.yaml': `registries: [{host: ${on.bed.ecr.host}, namespaces: [team-z, "team-*"]}]`,
        });
        await on.webhook.syncVolumes();
      },
      settlesWithin: HEALS_WITHIN_MS,
    },
    {
      name: 'ECR denies, though the webhook has a young token in its cache',
      code: 'ecr-denied',
      message: ['team-a'],
      breaks: async () => {
        await on.expectPassed();
        on.bed.ecr.settings.mode = 'denied';
      },
      investigate: /^(aws iam simulate-principal-policy|kubectl .* logs)/,
      mends: async () => {
        on.bed.ecr.settings.mode = 'ok';
      },
      settlesWithin: FORGETS_WITHIN_MS,
    },
  ])('$code: $name', (one) => on.expectCase(one));
});

const DENIED = 'nothing moves today';
/** A foreign admission policy. @param expression what it requires of Secrets */
const applyPolicy = (operation: 'CREATE' | 'UPDATE', expression: string) => {
  const object = { apiVersion: 'admissionregistration.k8s.io/v1', metadata: { name: 'frozen' } };
  const rule = { apiGroups: [''], apiVersions: ['v1'], operations: [operation], resources: ['secrets'] };
  return on.apply(
    {
      ...{ ...object, kind: 'ValidatingAdmissionPolicy' },
      spec: {
        matchConstraints: { resourceRules: [rule] },
        validations: [{ expression, message: DENIED }],
      },
    },
    {
      ...{ ...object, kind: 'ValidatingAdmissionPolicyBinding' },
      spec: { policyName: 'frozen', validationActions: ['Deny'] },
    },
  );
};
const deletePolicy = () =>
  on.kubectl('delete', 'validatingadmissionpolicybinding,validatingadmissionpolicy', 'frozen');

describe('skipped checks', () => {
  const skipped = async (options?: RunOptions) => {
    const { code, report } = await on.doctor(['alpha'], options);
    expect({ code, ok: report.ok, first: report.firstFailed }).toEqual({
      ...{ code: 1, ok: false, first: undefined },
    });
    return report.findings.filter(({ verdict }) => verdict === 'skipped');
  };

  test('another admission policy denies the tried Secret', async () => {
    await on.createNamespace('team-e');
    await applyPolicy('CREATE', "object.metadata.name != 'ecr-anywhere-doctor'");
    await expect.poll(async () => (await on.doctor()).report.ok, { timeout: 10_000 }).toBe(false);
    const findings = await skipped();
    expect(findings.map(({ check }) => check)).toEqual(ATTEMPTED);
    for (const { message } of findings) expect(message).toContain(DENIED);
    // Where it denies the Secret in one namespace only, the other namespaces decide.
    await applyPolicy('CREATE', "object.metadata.namespace != 'team-e'");
    await on.expectPassed(10_000);
    await deletePolicy();
    await on.kubectl('delete', 'namespace', 'team-e', '--wait=false');
  });

  test('the operator may see namespaces and nothing else', async () => {
    await on.apply(
      {
        ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRole', metadata: { name: 'visitor' } },
        rules: [{ apiGroups: [''], resources: ['namespaces'], verbs: ['get', 'list'] }],
      },
      {
        ...{ apiVersion: 'rbac.authorization.k8s.io/v1', kind: 'ClusterRoleBinding' },
        metadata: { name: 'visitor' },
        roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'ClusterRole', name: 'visitor' },
        subjects: [{ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name: 'visitor' }],
      },
    );
    const file = join(on.cli.home, 'visitor');
    await writeFile(file, await on.controlPlane.kubeconfigFor('visitor'), { mode: 0o600 });
    const findings = await skipped({ env: { KUBECONFIG: file } });
    expect(findings.map(({ check }) => check)).toEqual([
      ...['chart', 'write-policy', 'configuration', 'labels', 'webhook', 'callers', 'injection', 'ecr'],
      'mutators',
    ]);
    expect(findings[0]?.message).toMatch(/HTTP 403: .*"visitor"/);
  });

  test('without an AWS session and a name, the cluster of the context is checked', async () => {
    const options = { env: { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined } };
    await on.expectFailed('no-session', { args: [], options });
  });
});

test('not-refreshed: another admission policy denies the update of a due Secret', async () => {
  await on.restartWebhook();
  on.bed.ecr.settings.nextLifetimesSeconds = [300];
  await on.createSecret('team-a', 'due');
  await applyPolicy('UPDATE', "object.metadata.name != 'due'");
  await expect.poll(async () => (await on.doctor()).report.ok, { timeout: 20_000 }).toBe(false);
  const { investigate = '' } = await on.expectFailed('not-refreshed', { message: ['team-a/due', DENIED] });
  expect(investigate).toBe('ecr-anywhere refresh alpha --dry-run');
  await expect(on.repair(investigate)).rejects.toThrow(DENIED);

  // It may follow from an unreachable webhook.
  await on.killWebhook();
  await on.expectFailed('webhook-unreachable');
  await on.webhook.start();
  await deletePolicy();
  await on.expectPassed(20_000);
  await on.kubectl('delete', 'secret', 'due', '--namespace', 'team-a');
});

describe('CentML/ecr-anywhere', () => {
  /** Its MutatingWebhookConfiguration. Without rules, the API server does not call it. */
  const original = {
    ...{ apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration' },
    metadata: { name: 'ecr-anywhere' },
    webhooks: [
      {
        ...{ name: 'ecr-anywhere.centml.ai', admissionReviewVersions: ['v1'], sideEffects: 'None' },
        clientConfig: { url: 'https://127.0.0.1:1/sync' },
      },
    ],
  };

  test('the migration to this chart', async () => {
    await on.killWebhook();
    await on.repair('helm uninstall ecr-anywhere --namespace ecr-anywhere');
    // The API server notices within seconds that the refresher's ServiceAccount is gone.
    await expect
      .poll(async () => (await on.doctor()).report.firstFailed?.code, { timeout: 20_000 })
      .toBe('credential-rejected');
    const install = (release: string) =>
      `helm install ${release} webhook/chart --namespace ecr-anywhere --create-namespace --set image.repository=IMAGE --set aws.region=REGION --set 'ownRegistry.namespaces={NAMESPACES}' --set 'refresher.namespaces={NAMESPACES}' --kube-context bed`;
    const missing = await on.expectFailed('credential-rejected', { also: ['chart-not-installed'] });
    // The token depends on the chart, so the chart comes first.
    expect(missing.investigate).toBe('helm list --all-namespaces --kube-context bed');
    expect(missing.hint).toContain(install('ecr-anywhere'));

    await on.apply(original);
    const inPlace = await on.expectFailed('credential-rejected', { also: ['chart-not-installed'] });
    expect(inPlace.hint).toContain(install('aws-ecr-anywhere'));
    const values = install('aws-ecr-anywhere')
      .replace('IMAGE', 'registry.example.com/x')
      .replace('REGION', 'eu-central-1')
      .replaceAll('NAMESPACES', '*');
    await on.repair(`${values} --set service.port=${SERVICE_PORT}`);

    const ip = await serviceAddress(on.controlPlane, 'aws-ecr-anywhere');
    const bundle = join(on.bed.dir, 'webhook.mjs');
    await buildWebhook(bundle);
    await using _ = await startPod(on.controlPlane, NAMESPACE, 'aws-ecr-anywhere', {
      ...{ ip, bundle, ecrUrl: on.bed.ecr.url },
    });
    const { repair = '' } = await on.expectFailed('credential-rejected', { also: ['original-beside'] });
    expect(repair).toBe('ecr-anywhere register alpha --replace --context bed');
    await on.repair(repair);
    const { investigate = '' } = await on.expectFailed('original-beside', { message: ['ecr-anywhere'] });
    await on.repair(investigate);
    await on.kubectl('delete', 'mutatingwebhookconfiguration', 'ecr-anywhere');
    await on.expectPassed(20_000);
  });
});

test('no output contains a credential', () => on.expectNoCredential());
