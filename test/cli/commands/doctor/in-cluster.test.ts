// doctor, as far as the operator sees a cluster from inside: each link broken for real, named, and mended by the command
// that doctor names.
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { DynamoDBClient, ScanCommand } from '@aws-sdk/client-dynamodb';
import { build } from 'esbuild';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { buildWebhook } from '../../../../webhook/build.ts';
import { createAuthority } from '../../../bed/certificates.ts';
import { type Pod, startPod } from '../../../bed/kubelet.ts';
import { NAMESPACE, RELEASE, SERVICE_PORT, serviceAddress } from '../../../bed/webhook.ts';
import type { RunOptions } from '../../command-line.ts';
import { startChangingProxy } from '../register/changing-proxy.ts';
import { DoctorBed } from './doctor-bed.ts';
import { startOriginalWebhook } from './original-webhook.ts';

const KUBECTL = 'kubectl --context bed';
const IN_RELEASE = `${KUBECTL} --namespace ecr-anywhere`;
const upgrade = (more = '') =>
  `helm upgrade ecr-anywhere webhook/chart --namespace ecr-anywhere --reset-then-reuse-values${more} --kube-context bed`;
/** The webhook looks after its certificates every five or six seconds. */
const HEALS_WITHIN_MS = 20_000;

let on: DoctorBed;
beforeAll(async () => {
  on = await DoctorBed.start();
});
afterAll(() => on?.[Symbol.asyncDispose]());

const CONFIGURATION = ['mutatingwebhookconfiguration', 'ecr-anywhere'];
const patchConfiguration = (...operations: object[]) =>
  on.kubectl('patch', ...CONFIGURATION, '--type=json', '--patch', JSON.stringify(operations));

test('a healthy cluster: all well, and nothing is changed by looking', async () => {
  const kinds = (await on.kubectl('api-resources', '--verbs=list', '--output=name')).stdout
    .split('\n')
    // The API server's own heartbeat, and what is no object that is stored.
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
    return { objects: stdout.split('\n').sort(), remembered: Items };
  };
  const before = await everything();
  expect(before.objects.length).toBeGreaterThan(100);
  await on.expectWell();
  expect(await everything()).toEqual(before);
});

test('kubernetes: too old', async () => {
  await using proxy = await startChangingProxy(on.controlPlane);
  proxy.bodies.set('/version', { major: '1', minor: '29+', gitVersion: 'v1.29.4' });
  const file = join(on.cli.home, 'old');
  await writeFile(file, proxy.through(await readFile(on.controlPlane.adminKubeconfigPath, 'utf8')));
  const options = { env: { KUBECONFIG: file } };
  const repair = await on.expectBroken('kubernetes', { says: /^it is v1\.29\.4$/, options });
  expect(repair).toBe('kubeadm upgrade apply v1.30.0');
});

describe('the chart', () => {
  test('chart: its configuration is gone', async () => {
    await on.kubectl('delete', ...CONFIGURATION);
    const repair = await on.expectBroken('chart', {
      says: /^the MutatingWebhookConfiguration of the release ecr-anywhere in ecr-anywhere is gone$/,
    });
    expect(repair).toBe(upgrade());
    await on.repair(repair);
    await on.expectWell(HEALS_WITHIN_MS);
  });

  const POLICY = 'ecr-anywhere-refresher-update';
  const patch = (kind: string, change: object) =>
    on.kubectl('patch', kind, POLICY, '--type=merge', '--patch', JSON.stringify({ spec: change }));

  test.each<{ what: string; says: RegExp; breaks: () => Promise<unknown>; repair?: string }>([
    {
      what: 'a policy is gone',
      says: /^ValidatingAdmissionPolicy ecr-anywhere-refresher-update is not there$/,
      breaks: () => on.kubectl('delete', 'validatingadmissionpolicy', POLICY),
    },
    {
      what: 'a binding is gone',
      says: /^ValidatingAdmissionPolicyBinding ecr-anywhere-refresher-update is not there$/,
      breaks: () => on.kubectl('delete', 'validatingadmissionpolicybinding', POLICY),
    },
    {
      what: 'a binding audits only',
      says: /^ValidatingAdmissionPolicyBinding ecr-anywhere-refresher-update does not deny$/,
      breaks: () => patch('validatingadmissionpolicybinding', { validationActions: ['Audit'] }),
    },
    {
      what: 'a binding is narrowed',
      says: /^ValidatingAdmissionPolicyBinding ecr-anywhere-refresher-update is narrowed \(matchResources\)$/,
      breaks: () =>
        patch('validatingadmissionpolicybinding', {
          matchResources: { namespaceSelector: { matchLabels: { team: 'a' } } },
        }),
      repair: `${KUBECTL} patch validatingadmissionpolicybinding ${POLICY} --type=json --patch '[{"op":"remove","path":"/spec/matchResources"}]'`,
    },
    {
      what: 'a policy fails open',
      says: /^ValidatingAdmissionPolicy ecr-anywhere-refresher-update has failurePolicy Ignore$/,
      breaks: () => patch('validatingadmissionpolicy', { failurePolicy: 'Ignore' }),
    },
    {
      what: 'a policy is narrowed',
      says: /^ValidatingAdmissionPolicy ecr-anywhere-refresher-update is narrowed \(matchConditions\)$/,
      breaks: async () => {
        const condition = { name: 'not-now', expression: 'false' };
        const operation = { op: 'add', path: '/spec/matchConditions/-', value: condition };
        await on.kubectl(
          ...['patch', 'validatingadmissionpolicy', POLICY, '--type=json'],
          ...['--patch', JSON.stringify([operation])],
        );
      },
      repair: `${KUBECTL} patch validatingadmissionpolicy ${POLICY} --type=json --patch '[{"op":"remove","path":"/spec/matchConditions/1"}]'`,
    },
  ])('policies: $what', async ({ breaks, says, repair = upgrade() }) => {
    await breaks();
    expect(await on.expectBroken('policies', { says })).toBe(repair);
    await on.repair(repair);
    await on.expectWell();
  });
});

describe('the webhook’s configuration', () => {
  test.each<{ what: string; says: RegExp; operation: object }>([
    {
      what: 'it fails open',
      says: /^its failurePolicy is Ignore, not Fail$/,
      operation: { op: 'replace', path: '/webhooks/0/failurePolicy', value: 'Ignore' },
    },
    {
      what: 'it is not asked on updates',
      says: /^it is not asked on UPDATE of Secrets$/,
      operation: { op: 'replace', path: '/webhooks/0/rules/0/operations', value: ['CREATE'] },
    },
    {
      what: 'it selects other Secrets',
      says: /^its objectSelector does not select managed Secrets$/,
      operation: {
        ...{ op: 'replace', path: '/webhooks/0/objectSelector' },
        value: { matchLabels: { 'ecr-anywhere.centml.ai/managed': 'yes' } },
      },
    },
    {
      what: 'it selects other namespaces',
      says: /^its namespaceSelector does not select enabled namespaces$/,
      operation: {
        ...{ op: 'replace', path: '/webhooks/0/namespaceSelector/matchExpressions/0/values' },
        value: ['on'],
      },
    },
  ])('configuration: $what', async ({ says, operation }) => {
    await patchConfiguration(operation);
    const repair = await on.expectBroken('configuration', { says });
    expect(repair).toBe(upgrade());
    await on.repair(repair);
    await on.expectWell();
  });

  test('configuration: it fails open, and the webhook is down', async () => {
    await on.killWebhook();
    await patchConfiguration({ op: 'replace', path: '/webhooks/0/failurePolicy', value: 'Ignore' });
    const repair = await on.expectBroken('configuration', { says: /Ignore/ });
    await on.repair(repair);
    await on.webhook.start();
    await on.expectWell();
  });

  test.each([
    {
      what: 'a condition of somebody else’s',
      operation: {
        ...{ op: 'add', path: '/webhooks/0/matchConditions/-' },
        value: { name: 'not-now', expression: 'false' },
      },
      path: '/webhooks/0/matchConditions/1',
    },
    {
      what: 'namespaces with another label, too',
      operation: {
        ...{ op: 'add', path: '/webhooks/0/namespaceSelector/matchLabels' },
        value: { 'example.com/team': 'b' },
      },
      path: '/webhooks/0/namespaceSelector/matchLabels/example.com~1team',
    },
  ])('injection: $what', async ({ operation, path }) => {
    await patchConfiguration(operation);
    const repair = await on.expectBroken('injection', {
      says: new RegExp(`^the API server does not ask the webhook about Secrets in team-a: ${path} of`),
    });
    const patch = JSON.stringify([{ op: 'remove', path }]);
    expect(repair).toBe(`${KUBECTL} patch ${CONFIGURATION.join(' ')} --type=json --patch '${patch}'`);
    await on.repair(repair);
    await on.expectWell(5_000);
  });

  test('injection: an expression of somebody else’s excludes the namespace', async () => {
    await patchConfiguration({
      ...{ op: 'add', path: '/webhooks/0/namespaceSelector/matchExpressions/-' },
      value: { key: 'kubernetes.io/metadata.name', operator: 'NotIn', values: ['team-a'] },
    });
    const repair = await on.expectBroken('injection', { says: /about Secrets in team-a$/ });
    expect(repair).toBe(upgrade());
    await on.repair(repair);
    await on.expectWell(5_000);
  });

  test('ca-bundle: it is empty', async () => {
    await on.killWebhook();
    await patchConfiguration({ op: 'remove', path: '/webhooks/0/clientConfig/caBundle' });
    const repair = await on.expectBroken('ca-bundle', { says: /^it is empty$/ });
    expect(repair).toBe(upgrade());
    await on.repair(repair);
    await on.webhook.start();
    await on.expectWell(HEALS_WITHIN_MS);
  });

  test('ca-bundle: it is empty, and cert-manager is to write it', async () => {
    await on.killWebhook();
    const mode = 'ecr-anywhere.centml.ai/tls-mode=cert-manager';
    await on.kubectl('annotate', ...CONFIGURATION, mode, '--overwrite');
    await patchConfiguration({ op: 'remove', path: '/webhooks/0/clientConfig/caBundle' });
    const repair = await on.expectBroken('ca-bundle', { says: /^it is empty$/ });
    expect(repair).toBe(
      `${KUBECTL} --namespace cert-manager rollout restart deployment cert-manager-cainjector`,
    );
    await on.repair(upgrade());
    await on.webhook.start();
    await on.expectWell(HEALS_WITHIN_MS);
  });

  test('ca-bundle: another authority’s, and the webhook may not write it', async () => {
    await on.kubectl('delete', 'clusterrolebinding', 'ecr-anywhere');
    const { caPem } = await createAuthority('somebody else');
    await patchConfiguration({
      ...{ op: 'replace', path: '/webhooks/0/clientConfig/caBundle' },
      value: Buffer.from(caPem).toString('base64'),
    });
    const repair = await on.expectBroken('ca-bundle', {
      says: /x509: certificate signed by unknown authority/,
    });
    expect(repair).toBe(upgrade());
    await on.repair(repair);
    await on.expectWell(HEALS_WITHIN_MS);
  });

  test('ca-bundle: it is no certificate', async () => {
    await on.killWebhook();
    await patchConfiguration({
      ...{ op: 'replace', path: '/webhooks/0/clientConfig/caBundle' },
      value: Buffer.from('nonsense').toString('base64'),
    });
    const repair = await on.expectBroken('ca-bundle', { says: /^it holds no certificate$/ });
    await on.repair(repair);
    await on.webhook.start();
    await on.expectWell(HEALS_WITHIN_MS);
  });
});

describe('labels and types', () => {
  const label = (name: string) =>
    `${KUBECTL} label namespace ${name} ecr-anywhere.centml.ai/namespace=enabled --overwrite`;

  test('namespaces: another value', async () => {
    await on.createNamespace('team-b', 'true');
    const repair = await on.expectBroken('namespaces', {
      says: /^the label's value is not "enabled": team-b has "true"$/,
    });
    expect(repair).toBe(label('team-b'));
    await on.repair(repair);
    await on.expectWell();
  });

  test('namespaces: one that is switched off is meant to be', async () => {
    await on.createNamespace('team-off', 'disabled');
    await on.expectWell();
  });

  test('namespaces: a managed Secret in one without the label', async () => {
    await on.createNamespace('team-c', null);
    await on.createSecret('team-c', 'pull', { data: { '.dockerconfigjson': '{"auths":{}}' } });
    const repair = await on.expectBroken('namespaces', {
      says: /^managed Secrets lie in team-c, without the label$/,
    });
    expect(repair).toBe(label('team-c'));
    await on.repair(repair);
    await on.expectWell();
  });

  test('namespaces: a managed Secret where none is served', async () => {
    await on.createSecret('ecr-anywhere', 'pull', { data: { '.dockerconfigjson': '{"auths":{}}' } });
    const repair = await on.expectBroken('namespaces', {
      says: /^the Secret ecr-anywhere\/pull is managed, and that namespace is never served$/,
    });
    expect(repair).toBe(`${IN_RELEASE} label secret pull ecr-anywhere.centml.ai/managed-`);
    await on.repair(repair);
    await on.expectWell();
  });

  test('secrets: another value', async () => {
    await on.createSecret('team-a', 'yes', { label: 'yes', data: { '.dockerconfigjson': '{"auths":{}}' } });
    const repair = await on.expectBroken('secrets', {
      says: /^the label's value is not "true": team-a\/yes$/,
    });
    expect(repair).toBe(
      `${KUBECTL} --namespace team-a label secret yes ecr-anywhere.centml.ai/managed=true --overwrite`,
    );
    await on.repair(repair);
    await on.expectWell();
  });

  test('secrets: another type', async () => {
    await on.createNamespace('team-d', null);
    await on.createSecret('team-d', 'opaque', { type: 'Opaque' });
    await on.createNamespace('team-d');
    const repair = await on.expectBroken('secrets', {
      says: /^not of type kubernetes\.io\/dockerconfigjson: team-d\/opaque$/,
    });
    expect(repair).toBe(`${KUBECTL} --namespace team-d label secret opaque ecr-anywhere.centml.ai/managed-`);
    await on.repair(repair);
    await on.expectWell();
  });

  test('secrets: none at all', async () => {
    const managed = ['--namespace', 'team-a', 'label', 'secret', 'pull', 'ecr-anywhere.centml.ai/managed'];
    for (const namespace of ['team-b', 'team-c', 'team-d'])
      await on.kubectl('delete', 'namespace', namespace, '--wait=false');
    await on.kubectl('delete', 'secret', 'yes', '--namespace', 'team-a');
    await on.kubectl('delete', 'secret', '--all', '--namespace', 'team-c');
    await on.kubectl(...managed.with(-1, 'ecr-anywhere.centml.ai/managed-'));
    const repair = await on.expectBroken('secrets', { says: /^none is managed$/ });
    expect(repair).toBe(
      `${KUBECTL} --namespace NAMESPACE label secret NAME ecr-anywhere.centml.ai/managed=true`,
    );
    await on.repair(repair.replace('NAMESPACE', 'team-a').replace('NAME', 'pull'));
    await on.expectWell();
  });
});

describe('the webhook', () => {
  test('webhook: its process has ended', async () => {
    await on.killWebhook();
    const repair = await on.expectBroken('webhook', {
      says: /^team-a: .*failed calling webhook.*connection refused; 0 of its pods are ready$/,
    });
    expect(repair).toBe(`${IN_RELEASE} rollout restart deployment ecr-anywhere`);
    await on.repair(repair);
    await on.restartWebhook();
    await on.expectWell();
  });

  test('webhook: it has been scaled to nothing', async () => {
    await on.kubectl('scale', 'deployment/ecr-anywhere', '--replicas=0', '--namespace', 'ecr-anywhere');
    await on.killWebhook();
    const repair = await on.expectBroken('webhook', { says: /its Deployment has 0 replicas$/ });
    expect(repair).toBe(`${IN_RELEASE} scale deployment/ecr-anywhere --replicas=2`);
    await on.repair(repair);
    await on.webhook.start();
    await on.expectWell();
  });

  test('webhook: it has been deleted', async () => {
    await on.kubectl('delete', 'deployment', 'ecr-anywhere', '--namespace', 'ecr-anywhere');
    await on.killWebhook();
    const repair = await on.expectBroken('webhook', {
      says: /there is no Deployment ecr-anywhere\/ecr-anywhere$/,
    });
    expect(repair).toBe(upgrade());
    await on.repair(repair);
    await on.webhook.start();
    await on.expectWell();
  });

  test('certificate: it is for another name', async () => {
    const bundle = join(on.bed.dir, 'webhook.mjs');
    await buildWebhook(bundle);
    const authority = await createAuthority('your own');
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
    await on.expectWell(HEALS_WITHIN_MS);

    // As a new pod has it: the API server goes on using connections that it has.
    await on.killWebhook();
    await on.apply(secret(await install('other.ecr-anywhere.svc')));
    await using pod = await runPod(bundle, false);
    await expect
      .poll(async () => (await on.doctor()).report.firstBroken?.link, { timeout: HEALS_WITHIN_MS })
      .toBe('certificate');
    const repair = await on.expectBroken('certificate', {
      says: /certificate is valid for other\.ecr-anywhere\.svc, not ecr-anywhere\.ecr-anywhere\.svc/,
    });
    expect(repair).toBe(
      `${IN_RELEASE} create secret tls ecr-anywhere-tls --cert=tls.crt --key=tls.key --dry-run=client --output=yaml | ${KUBECTL} apply --filename=-`,
    );
    await on.repair(repair, right);
    await pod.container.syncVolumes();
    await on.expectWell(HEALS_WITHIN_MS);

    // Another authority than the one that signed it.
    const { caPem } = await createAuthority('somebody else');
    await on.webhook.upgrade({ tls: { mode: 'provided', caBundle: Buffer.from(caPem).toString('base64') } });
    const trust = await on.expectBroken('ca-bundle', { says: /signed by unknown authority/ });
    expect(trust).toBe(upgrade(' --set-file tls.caBundle=ca.base64'));
    await on.repair(trust, { 'ca.base64': caBundle });
    await on.expectWell();

    await on.kubectl('delete', 'secret', 'ecr-anywhere-tls', '--namespace', 'ecr-anywhere');
    await on.webhook.upgrade({ tls: { mode: 'self', caBundle: '' } });
    await pod.stop();
    await on.webhook.start();
    await on.expectWell(HEALS_WITHIN_MS);
  });

  /** Runs a pod of the Deployment in place of the bed's. */
  const runPod = (bundle: string, waitsForReady = true): Promise<Pod> =>
    startPod(on.controlPlane, NAMESPACE, RELEASE, {
      ...{ bundle, waitsForReady, ip: on.webhook.address.host, ecrUrl: on.bed.ecr.url },
    });

  /** Runs a webhook of another contract in place of this tree's, while it works. */
  const withContract = async (contract: number, work: () => Promise<void>) => {
    const bundle = join(on.bed.dir, `webhook-${contract}.mjs`);
    await buildOfContract(contract, bundle);
    await on.killWebhook();
    await using _ = await runPod(bundle);
    await work();
  };

  test('contract: of before there were numbers', async () => {
    await withContract(1, async () => {
      const repair = await on.expectBroken('contract', {
        says: /^it speaks contract 1, this command line 2: it is older$/,
      });
      expect(repair).toBe(upgrade());
      await on.repair(repair);
    });
    // What the upgrade's image is.
    await on.webhook.start();
    await on.expectWell();
  });

  test('contract: of a later one', async () => {
    await withContract(3, async () => {
      const repair = await on.expectBroken('contract', {
        says: /^it speaks contract 3, this command line 2: it is newer$/,
      });
      expect(repair).toBe('npx cdk deploy # with the settings that the stack has: -c … or cdk.json');
    });
    await on.webhook.start();
    await on.expectWell();
  });
});

/** The webhook's bundle, but for its contract. */
async function buildOfContract(contract: number, outfile: string): Promise<void> {
  const version = fileURLToPath(new URL('../../../../contract/version.ts', import.meta.url));
  await build({
    entryPoints: [fileURLToPath(new URL('../../../../webhook/main.ts', import.meta.url))],
    ...{ outfile, bundle: true, platform: 'node', target: 'node24', format: 'esm' },
    mainFields: ['module', 'main'],
    banner: {
      js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
    },
    logLevel: 'warning',
    plugins: [
      {
        name: 'contract',
        setup({ onLoad }) {
          onLoad({ filter: /contract\/version\.ts$/ }, async () => {
            const source = await readFile(version, 'utf8');
            // Contract 1 wrote the hash alone.
            const written = contract === 1 ? /`\$\{CONTRACT_VERSION\}\.(\$\{hash\})`/ : /(?!)/;
            const contents = source
              .replace(/CONTRACT_VERSION = \d+/, `CONTRACT_VERSION = ${contract}`)
              .replace(written, '`$1`');
            return { contents, loader: 'ts' };
          });
        },
      },
    ],
  });
}

describe('AWS, as the webhook sees it', () => {
  /** The webhook remembers a failure for five seconds. */
  const FORGETS_WITHIN_MS = 10_000;

  test('entitlement: the policy knows the namespace not', async () => {
    const host = on.bed.ecr.host;
    await on.webhook.upgrade({ registries: [{ host, namespaces: ['team-z'] }] });
    await on.restartWebhook();
    const repair = await on.expectBroken('entitlement', {
      says: /^team-a: .*The namespace team-a is entitled to no registry/,
    });
    expect(repair).toBe(upgrade(' --values registries.yaml'));
    await on.repair(repair, {
      'registries.yaml': `registries: [{host: ${host}, namespaces: [team-z, team-a]}]`,
    });
    await on.webhook.syncVolumes();
    await on.expectWell(HEALS_WITHIN_MS);
  });

  test('aws-identity: a role that cannot be assumed', async () => {
    const host = on.bed.ecr.host;
    const roleArn = 'arn:aws:iam::123456789012:role/teams/pull-team-a';
    on.bed.ecr.settings.roles[roleArn] = { denied: true };
    await on.webhook.upgrade({ registries: [{ host, namespaces: ['team-a'], roleArn }] });
    await on.restartWebhook();
    const repair = await on.expectBroken('aws-identity', {
      says: /^team-a: .*the role arn:aws:iam::123456789012:role\/teams\/pull-team-a cannot be assumed: /,
    });
    expect(repair).toBe('aws iam get-role --role-name pull-team-a --query Role.AssumeRolePolicyDocument');
    on.bed.ecr.settings.roles[roleArn] = {};
    await on.expectWell(FORGETS_WITHIN_MS);
    await on.webhook.upgrade({});
    await on.restartWebhook();
  });

  test('aws-identity: none', async () => {
    await on.restartWebhook({
      AWS_ACCESS_KEY_ID: '',
      AWS_SECRET_ACCESS_KEY: '',
      AWS_EC2_METADATA_DISABLED: 'true',
    });
    const repair = await on.expectBroken('aws-identity', {
      says: /^team-a: .*the webhook has no AWS identity: /,
    });
    expect(repair).toBe(upgrade(' --set aws.webIdentity.roleArn=ROLE'));
    await on.repair(repair.replace('ROLE', 'arn:aws:iam::123456789012:role/webhook'));
    await on.restartWebhook();
    await on.expectWell();
    await on.webhook.upgrade({ aws: { webIdentity: { roleArn: '' } } });
    await on.restartWebhook();
    await on.expectWell();
  });

  test.each([
    {
      mode: 'down',
      says: /^team-a: .*ECR/,
      repair: `${IN_RELEASE} logs deployment/ecr-anywhere --tail=50`,
    },
    {
      mode: 'denied',
      says: /^team-a: .*User is not authorized to perform: ecr:GetAuthorizationToken/,
      repair:
        'aws iam put-role-policy --role-name ROLE --policy-name ecr-anywhere-token --policy-document \'{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"ecr:GetAuthorizationToken","Resource":"*"}]}\'',
    },
    {
      mode: 'hang',
      says: /^team-a: .*ECR gave no token within/,
      repair: `${IN_RELEASE} logs deployment/ecr-anywhere --tail=50`,
    },
  ] as const)(
    'ecr: $mode, however young the token is that the webhook has',
    async ({ mode, says, repair }) => {
      await on.expectWell();
      on.bed.ecr.settings.mode = mode;
      expect(await on.expectBroken('ecr', { says })).toBe(repair);
      on.bed.ecr.settings.mode = 'ok';
      await on.expectWell(FORGETS_WITHIN_MS);
    },
  );
});

/** A policy of somebody else's. @param expression that a Secret has to be for */
const applyPolicy = (operation: 'CREATE' | 'UPDATE', expression: string) => {
  const object = { apiVersion: 'admissionregistration.k8s.io/v1', metadata: { name: 'frozen' } };
  const rule = { apiGroups: [''], apiVersions: ['v1'], operations: [operation], resources: ['secrets'] };
  return on.apply(
    {
      ...{ ...object, kind: 'ValidatingAdmissionPolicy' },
      spec: {
        matchConstraints: { resourceRules: [rule] },
        validations: [{ expression, message: 'nothing moves today' }],
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

/** What an attempt to create a Secret would tell. */
const ATTEMPTED = ['webhook', 'certificate', 'injection', 'contract', 'entitlement', 'aws-identity', 'ecr'];

describe('what cannot be looked at is not broken, and not well', () => {
  const unknown = async (options?: RunOptions) => {
    const { code, report } = await on.doctor(['alpha'], options);
    expect({ code, allWell: report.allWell, first: report.firstBroken }).toEqual({
      ...{ code: 1, allWell: false, first: undefined },
    });
    return report.findings.filter(({ verdict }) => verdict === 'unknown');
  };

  test('another policy refuses the Secret that is tried', async () => {
    await on.createNamespace('team-e');
    await applyPolicy('CREATE', "object.metadata.name != 'ecr-anywhere-doctor'");
    await expect.poll(async () => (await on.doctor()).report.allWell, { timeout: 10_000 }).toBe(false);
    const findings = await unknown();
    expect(findings.map(({ link }) => link)).toEqual(ATTEMPTED);
    for (const { says } of findings)
      expect(says).toMatch(/could not be tried in team-a: .*nothing moves today/);
    const { stdout } = await on.run(['doctor', 'alpha']);
    expect(stdout.trimEnd().split('\n').at(-1)).toMatch(
      /^No broken link, but not all well either: 7 of 29 could not be looked at, which counts \(exit code 1\): “the webhook answers”, .*, 2 more\. Because: a Secret could not be tried in team-a: .*nothing moves today/,
    );

    // Where it does so in one namespace, the others tell.
    await applyPolicy('CREATE', "object.metadata.namespace != 'team-e'");
    await on.expectWell(10_000);
    await deletePolicy();
    await on.kubectl('delete', 'namespace', 'team-e', '--wait=false');
  });

  test('the operator may see namespaces, and nothing else', async () => {
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
    const findings = await unknown({ env: { KUBECONFIG: file } });
    expect(findings.map(({ link }) => link)).toEqual([
      ...['chart', 'policies', 'configuration', 'ca-bundle', 'namespaces', 'secrets'],
      ...ATTEMPTED,
    ]);
    expect(findings[0]?.says).toMatch(/HTTP 403: .*User "visitor" cannot list/);
  });
});

test('refresh: another policy refuses the update of a Secret that is due', async () => {
  await on.restartWebhook();
  on.bed.ecr.settings.nextLifetimesSeconds = [300];
  await on.createSecret('team-a', 'due');
  await applyPolicy('UPDATE', "object.metadata.name != 'due'");
  await expect.poll(async () => (await on.doctor()).report.allWell, { timeout: 20_000 }).toBe(false);
  const repair = await on.expectBroken('refresh', { says: /^team-a\/due: refused: .*nothing moves today/ });
  expect(repair).toBe('ecr-anywhere refresh alpha --dry-run');
  await expect(on.repair(repair)).rejects.toThrow(/nothing moves today/);

  // What follows from an earlier link is not broken for itself.
  await on.killWebhook();
  await on.expectBroken('webhook', { says: /connection refused/ });
  await on.webhook.start();
  await deletePolicy();
  await on.expectWell(20_000);
  await on.kubectl('delete', 'secret', 'due', '--namespace', 'team-a');
});

describe('CentML/ecr-anywhere', () => {
  test('chart: beside this one', async () => {
    await on.restartWebhook();
    on.bed.ecr.settings.nextLifetimesSeconds = [300];
    await on.createSecret('team-a', 'due-again');
    await using original = await startOriginalWebhook();
    // Asked before this one, which takes the refresher for who has changed what the other has.
    await on.apply(original.configuration('centml'));
    const repair = await on.expectBroken('chart', {
      says: /^CentML\/ecr-anywhere is installed beside it \(MutatingWebhookConfiguration centml\), and writes the same/,
    });
    const { findings } = (await on.doctor()).report;
    expect(findings.find(({ link }) => link === 'refresh')).toMatchObject({
      verdict: 'unknown',
      says: expect.stringMatching(
        /“the chart is installed” is broken: .*The refresher may change nothing of/,
      ),
    });
    expect(repair).toBe(`${KUBECTL} delete mutatingwebhookconfiguration centml`);
    await on.repair(repair);
    await on.expectWell(5_000);
    await on.kubectl('delete', 'secret', 'due-again', '--namespace', 'team-a');
  });

  test('contract: it answers under a name that is not its own', async () => {
    await using original = await startOriginalWebhook();
    await on.apply(original.configuration('ours', 'pull-secrets.example.com'));
    // Where this one is not asked.
    await patchConfiguration({
      ...{ op: 'add', path: '/webhooks/0/matchConditions/-' },
      value: { name: 'not-now', expression: 'false' },
    });
    const repair = await on.expectBroken('contract', {
      says: /^the webhook of CentML\/ecr-anywhere answers in team-a$/,
    });
    expect(repair).toBe(`${KUBECTL} get mutatingwebhookconfigurations`);
    await on.repair(repair);
    await on.kubectl('delete', 'mutatingwebhookconfiguration', 'ours');
    await patchConfiguration({ op: 'remove', path: '/webhooks/0/matchConditions/1' });
    await on.expectWell(5_000);
  });

  test('chart: in place of this one, and the way from there to here', async () => {
    await on.killWebhook();
    await on.repair('helm uninstall ecr-anywhere --namespace ecr-anywhere');
    // With the chart goes whom the refresher is registered as, which API servers notice within seconds.
    await expect
      .poll(async () => (await on.doctor()).report.firstBroken?.link, { timeout: 20_000 })
      .toBe('credential');
    const install = (release: string) =>
      `helm install ${release} webhook/chart --namespace ecr-anywhere --create-namespace --set image.repository=IMAGE --set aws.region=REGION --kube-context bed`;
    const unserved = { says: /HTTP 401/, also: ['chart'] as const };
    expect(await on.expectBroken('credential', unserved)).toBe(install('ecr-anywhere'));
    const chart = async () => (await on.doctor()).report.findings.find(({ link }) => link === 'chart')?.says;
    expect(await chart()).toBe('there is no MutatingWebhookConfiguration of it');

    await using original = await startOriginalWebhook();
    await on.apply(original.configuration('ecr-anywhere'));
    const repair = await on.expectBroken('credential', unserved);
    expect(await chart()).toBe(
      'CentML/ecr-anywhere is installed here (MutatingWebhookConfiguration ecr-anywhere), and not this chart',
    );
    expect(repair).toBe(install('ecr-anywhere-keeper'));
    const values = repair.replace('IMAGE', 'registry.example.com/x').replace('REGION', 'eu-central-1');
    await on.repair(`${values} --set service.port=${SERVICE_PORT}`);

    const ip = await serviceAddress(on.controlPlane, 'ecr-anywhere-keeper');
    const bundle = join(on.bed.dir, 'webhook.mjs');
    await buildWebhook(bundle);
    await using _ = await startPod(on.controlPlane, NAMESPACE, 'ecr-anywhere-keeper', {
      ...{ ip, bundle, ecrUrl: on.bed.ecr.url },
    });
    const register = await on.expectBroken('credential', unserved);
    expect(register).toBe('ecr-anywhere register alpha --replace --context bed');
    await on.repair(register);
    const last = await on.expectBroken('chart', { says: /^CentML\/ecr-anywhere is installed beside it/ });
    expect(last).toBe(`${KUBECTL} delete mutatingwebhookconfiguration ecr-anywhere`);
    await on.repair(last);
    await on.expectWell(20_000);
  });
});

test('nothing that was printed is a credential', () => on.expectNoCredential());
