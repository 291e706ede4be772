// The prechecks of register against a real API server: which releases of the chart are complete, and which identities
// the write policy limits. The commands in the hints are run, to show that they repair the release.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkIdentity, checkInstallation } from '../../../../cli/commands/register/prechecks.ts';
import { planToken } from '../../../../cli/commands/register/service-account-token.ts';
import { findInstallation, type Installation } from '../../../../cli/kubernetes/chart.ts';
import { Kubernetes } from '../../../../cli/kubernetes/client.ts';
import { CliError } from '../../../../cli/output/errors.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { type ControlPlane, runCommand, startControlPlane } from '../../../bed/control-plane.ts';
import { CHART, helm } from '../../../bed/helm.ts';
import { tools } from '../../../bed/toolchain.ts';

const GROUP = 'ecr-anywhere:refreshers';
const NAMESPACE = 'ecr-anywhere';
const REFRESHER = 'ecr-anywhere-refresher';
const MASTERS = 'system:masters';
const ROOT = join(import.meta.dirname, '../../../..');

let stack: AsyncDisposableStack;
let cluster: ControlPlane;
let kubernetes: Kubernetes;
let options: { kubeconfig: string; wait: number };

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-prechecks-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  cluster = stack.use(await startControlPlane({ name: 'prechecks', dir }));
  options = { kubeconfig: cluster.adminKubeconfigPath, wait: 0 };
  kubernetes = Kubernetes.load(options, new AbortController().signal);
});
afterAll(() => stack?.disposeAsync());

/** Runs the checks of register up to the token, and returns the failure. */
async function failureOfChecks(): Promise<CliError | undefined> {
  try {
    const installation = await checkInstallation(kubernetes, options);
    const { context } = kubernetes;
    const commands = new ShellCommands(options, { context, release: installation });
    await planToken(kubernetes, installation, undefined, commands);
    return undefined;
  } catch (error) {
    if (error instanceof CliError) return error;
    throw error;
  }
}

/** Runs a command of a hint as the operator would: in a shell, in the checkout. */
const paste = (command: string) =>
  runCommand('sh', ['-c', `cd ${ROOT} && ${command}`], {
    PATH: `${dirname(tools().helm)}:/usr/bin:/bin`,
    HOME: cluster.dir,
  });

describe('checkInstallation', () => {
  test('rejects a cluster without the chart, and proposes to install it', async () => {
    expect(await failureOfChecks()).toMatchObject({
      code: 'chart-not-installed',
      exitCode: 5,
      hint: expect.stringContaining('helm install ecr-anywhere webhook/chart --namespace ecr-anywhere'),
    });
  });

  test.each([
    { name: 'centml' },
    // Helm would take another release of that name for an upgrade of this one.
    { name: 'ecr-anywhere' },
  ])(
    'names CentML/ecr-anywhere, installed as $name, and proposes a release that the API server calls before it',
    async ({ name }) => {
      const release = 'aws-ecr-anywhere';
      const configuration = {
        apiVersion: 'admissionregistration.k8s.io/v1',
        kind: 'MutatingWebhookConfiguration',
        metadata: { name },
        webhooks: [
          {
            name: 'ecr-anywhere.centml.ai',
            clientConfig: { url: 'https://127.0.0.1:1/sync' },
            admissionReviewVersions: ['v1'],
            sideEffects: 'None',
            failurePolicy: 'Ignore',
            rules: [],
          },
        ],
      };
      await cluster.kubectl(['apply', '-f', '-'], { input: JSON.stringify(configuration) });
      try {
        expect(await failureOfChecks()).toMatchObject({
          code: 'chart-not-installed',
          exitCode: 5,
          message: expect.stringContaining(`CentML/ecr-anywhere is (${name})`),
          hint: expect.stringContaining(`helm install ${release} `),
        });
      } finally {
        await cluster.kubectl(['delete', 'mutatingwebhookconfiguration', name]);
      }
    },
  );

  const install = (release: string, namespace: string) =>
    helm(
      [
        ...['install', release, CHART, '--namespace', namespace, '--create-namespace'],
        ...['--set', 'image.repository=registry.example.com/ecr-anywhere'],
        ...['--set', 'aws.region=eu-central-1', '--set', 'ownRegistry.namespaces={*}'],
        ...['--set', 'refresher.namespaces={*}'],
      ],
      { cluster },
    );

  test('accepts a release of another name in another namespace', async () => {
    await install('pull', 'elsewhere');
    expect(await failureOfChecks()).toBeUndefined();
    expect(await checkInstallation(kubernetes, options)).toMatchObject({
      namespace: 'elsewhere',
      refresher: 'pull-ecr-anywhere-refresher',
    });
    await helm(['uninstall', 'pull', '--namespace', 'elsewhere', '--wait'], { cluster });
  });

  describe('with the chart installed', () => {
    beforeAll(() => install('ecr-anywhere', NAMESPACE));

    test('accepts the release', async () => {
      expect(await failureOfChecks()).toBeUndefined();
    });

    test('rejects a write policy with missing parts, names each, and leads to doctor', async () => {
      await cluster.kubectl(['delete', 'validatingadmissionpolicybinding', `${REFRESHER}-update`]);
      await cluster.kubectl(['delete', 'validatingadmissionpolicy', `${REFRESHER}-token`]);
      const failure = await failureOfChecks();
      expect(failure).toMatchObject({
        code: 'write-policy-not-enforced',
        exitCode: 6,
        hint: expect.stringMatching(/ecr-anywhere doctor --kubeconfig \S+ --context bed$/),
      });
      for (const name of [`Binding ${REFRESHER}-update`, `Policy ${REFRESHER}-token`])
        expect(failure?.message).toContain(name);
      const commands = new ShellCommands(options, { context: kubernetes.context });
      expect(await paste(commands.upgrade())).toMatchObject({ code: 0 });
      expect(await failureOfChecks()).toBeUndefined();
    });

    test.each([
      ['serviceaccount', REFRESHER, '--namespace', NAMESPACE],
      ['mutatingwebhookconfiguration', 'ecr-anywhere'],
    ])('rejects a release without its %s, and the command in the hint restores it', async (...object) => {
      await cluster.kubectl(['delete', ...object]);
      const failure = await failureOfChecks();
      expect(failure).toMatchObject({
        code: 'chart-incomplete',
        exitCode: 5,
        hint: expect.stringMatching(/^helm upgrade /),
      });
      expect(await paste(failure?.hint ?? '')).toMatchObject({ code: 0 });
      expect(await failureOfChecks()).toBeUndefined();
    });

    describe('checkIdentity', () => {
      let installation: Installation;
      beforeAll(async () => {
        const found = await findInstallation(kubernetes);
        if (!found.installation) throw new Error('the chart is not installed');
        ({ installation } = found);
      });

      const check = (username: string, groups: readonly string[]) =>
        checkIdentity(kubernetes, installation, { username, groups }, { credential: 'given' });

      test.each<{ title: string; username: string; groups: string[] }>([
        { title: 'a member of the group', username: 'team', groups: [GROUP] },
        {
          title: "the chart's ServiceAccount",
          username: `system:serviceaccount:${NAMESPACE}:${REFRESHER}`,
          groups: ['system:serviceaccounts'],
        },
      ])('returns what $title can read', async ({ username, groups }) => {
        expect(await check(username, groups)).toEqual({
          secrets: ['*'],
          namespaces: expect.any(Number),
        });
      });

      test.each<{ title: string; username: string; groups: string[] }>([
        { title: 'an identity without groups', username: 'team', groups: [] },
        { title: 'an administrator', username: 'team', groups: [MASTERS] },
        { title: 'an administrator who is also in the group', username: 'team', groups: [GROUP, MASTERS] },
        {
          title: 'another ServiceAccount',
          username: 'system:serviceaccount:team-a:other',
          groups: ['system:serviceaccounts', 'system:serviceaccounts:team-a'],
        },
      ])('rejects $title', async ({ username, groups }) => {
        await expect(check(username, groups)).rejects.toMatchObject({
          code: 'identity-not-restricted',
          exitCode: 4,
          message: expect.stringContaining(`${username} (groups: ${groups.join(', ') || 'none'})`),
          hint: expect.stringContaining(GROUP),
        });
      });

      const ADMISSION = 'admissionregistration.k8s.io';
      const RBAC = 'rbac.authorization.k8s.io';
      /** Verb, resource and name of an object. */
      const powers: (readonly [string, string, string?])[] = [
        ['*', '*.*'],
        ['delete', `validatingadmissionpolicies.${ADMISSION}`],
        ['deletecollection', `validatingadmissionpolicybindings.${ADMISSION}`],
        ['update', `validatingadmissionpolicybindings.${ADMISSION}`, `${REFRESHER}-token`],
        ['patch', `mutatingwebhookconfigurations.${ADMISSION}`, 'ecr-anywhere'],
        ['create', `clusterrolebindings.${RBAC}`],
        ['bind', `clusterroles.${RBAC}`, 'cluster-admin'],
        ['escalate', `clusterroles.${RBAC}`],
        ['impersonate', 'users'],
        ['impersonate', 'groups', MASTERS],
        ['create', 'serviceaccounts/token'],
        ['create', 'pods'],
      ];

      test.each(
        powers.map(([verb, resource, name], index) => ({ verb, resource, name, user: `member-${index}` })),
      )('rejects a member of the group that may $verb $resource', async ({ verb, resource, name, user }) => {
        const [path = '', ...group] = resource.split('.');
        const phrase = verb === '*' ? 'do anything' : `${verb} ${path}`;
        const rule = {
          verbs: [verb],
          apiGroups: [group.join('.')],
          resources: [path],
          ...(name !== undefined && { resourceNames: [name] }),
        };
        const rbac = { apiVersion: `${RBAC}/v1`, metadata: { name: user } };
        await cluster.kubectl(['apply', '-f', '-'], {
          input: JSON.stringify({
            apiVersion: 'v1',
            kind: 'List',
            items: [
              { ...rbac, kind: 'ClusterRole', rules: [rule] },
              {
                ...rbac,
                kind: 'ClusterRoleBinding',
                roleRef: { apiGroup: RBAC, kind: 'ClusterRole', name: user },
                subjects: [{ apiGroup: RBAC, kind: 'User', name: user }],
              },
            ],
          }),
        });
        // The API server's authorizer reads the new role from a cache.
        await expect
          .poll(() => check(user, [GROUP]).catch((error: unknown) => error), { timeout: 10_000 })
          .toMatchObject({
            code: 'identity-not-restricted',
            exitCode: 4,
            message: expect.stringContaining(`It may ${phrase}.`),
          });
      });
    });
  });
});
