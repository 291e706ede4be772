// Registering EKS clusters: the access entry is created or extended, a real API server accepts the token of the deployed
// function because of it, no credential is stored, and a failure leaves the entry as it was.

import type { ChildProcess } from 'node:child_process';
import { chmod, mkdtemp, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  GetSecretValueCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import type { ErrorCode } from '../../../../cli/output/errors.ts';
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../../bed/control-plane.ts';
import { Bed } from '../../../bed/up.ts';
import { type EksDouble, startEks } from '../../../functions/eks.ts';
import { type Authenticator, startAuthenticator } from '../../../functions/eks-authenticator.ts';
import { functionPrincipal } from '../../../functions/function-principal.ts';
import { type CommandLine, type Ended, type RunOptions, startCommandLine } from '../../command-line.ts';

const REGION = 'eu-central-1';
/** Not in the stack's setting eksRegions. */
const ELSEWHERE = 'us-east-1';
const GROUP = 'ecr-anywhere:refreshers';

let stack: AsyncDisposableStack;
let bed: Bed;
let cli: CommandLine;
let secrets: SecretsManagerClient;
let eks: EksDouble;
let sts: AwsEndpoint;
let authenticator: Authenticator;
let prod: ControlPlane;
let other: ControlPlane;
let role: string;
/** The key of the role's access entry in the cluster prod. */
let entry: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [eks, sts] = await Promise.all([startEks(), startAwsEndpoint()]);
  stack.use(eks);
  stack.use(sts);
  authenticator = stack.use(await startAuthenticator(eks, sts.url));
  bed = stack.use(
    await Bed.create({
      clusters: ['prod'],
      context: {
        scheduleEnabled: false,
        clusterDeadlineSeconds: 20,
        eksRegions: REGION,
        eksDiscovery: REGION,
      },
      registersClusters: false,
      functionEnv: { AWS_ENDPOINT_URL_EKS: eks.url },
      controlPlanes: { prod: { tokenWebhook: authenticator.kubeconfigFor('prod') } },
    }),
  );
  await bed.start();
  prod = bed.cluster('prod').controlPlane;
  const tokenWebhook = authenticator.kubeconfigFor('other');
  other = stack.use(await startControlPlane({ name: 'other', dir: join(bed.dir, 'other'), tokenWebhook }));
  Object.assign(sts.settings.principals, functionPrincipal(bed.deployment));
  role = bed.deployment.outputs.RoleArn ?? '';
  entry = `prod ${role}`;
  cli = stack.use(await startCommandLine({ ...bed.operatorEnv, AWS_ENDPOINT_URL_EKS: eks.url }));
  await installAwsCli();
  secrets = new SecretsManagerClient(bed.deployment.emulator.clientConfig);
}, 300_000);
afterAll(() => stack.disposeAsync());

beforeEach(async () => {
  // Tokens of the same second are equal, and the API server caches the identity of a token.
  await sleep(1_100);
  eks.clusters.clear();
  eks.clusters.set('prod', { endpoint: prod.server, ca: prod.caPem, region: REGION });
});
afterEach(async () => {
  for (const name of await registeredNames()) await bed.deployment.unregisterCluster(name);
  eks.entries.clear();
  eks.policies.clear();
  eks.changes.length = 0;
  eks.isAllowed = () => true;
  authenticator.lag = 0;
});

/** Installs an `aws` in the PATH whose `eks get-token` prints the administrator's token. */
async function installAwsCli(): Promise<void> {
  const { stdout } = await prod.kubectl(['config', 'view', '--raw', '-o', 'jsonpath={.users[0].user.token}']);
  const credential = {
    apiVersion: 'client.authentication.k8s.io/v1beta1',
    kind: 'ExecCredential',
    status: { token: stdout },
  };
  const path = join(dirname(cli.bundle), 'aws');
  await writeFile(path, `#!/bin/sh\ncat <<'EOF'\n${JSON.stringify(credential)}\nEOF\n`);
  await chmod(path, 0o700);
}

/** The path of a kubeconfig as `aws eks update-kubeconfig` writes it. */
async function updateKubeconfig(region = REGION): Promise<string> {
  const { stdout } = await prod.kubectl(['config', 'view', '--raw', '-o', 'json']);
  const config = JSON.parse(stdout);
  config.users[0].user = {
    exec: {
      apiVersion: 'client.authentication.k8s.io/v1beta1',
      command: 'aws',
      args: ['--region', region, 'eks', 'get-token', '--cluster-name', 'prod', '--output', 'json'],
      env: null,
      interactiveMode: 'IfAvailable',
      provideClusterInfo: false,
    },
  };
  const path = join(await mkdtemp(join(bed.dir, 'operator-')), 'kubeconfig');
  await writeFile(path, stringify(config));
  return path;
}

async function register(
  args: readonly string[] = [],
  kubeconfig?: string,
  options?: RunOptions,
): Promise<Ended> {
  const path = kubeconfig ?? (await updateKubeconfig());
  return cli.run(['register', 'eks-prod', '--kubeconfig', path, '--eks', ...args], options);
}

async function expectRegistered(...args: string[]) {
  const { code, stdout, stderr } = await register([...args, '--output', 'json', '--quiet']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

interface Failure {
  readonly code: ErrorCode;
  readonly exitCode: number;
  readonly message: string;
  readonly hint?: string;
}

interface Expected {
  readonly code: ErrorCode;
  readonly exitCode: number;
  /** The access entries that are left, with their groups; default: none. */
  readonly entries?: Readonly<Record<string, readonly string[]>>;
}

/** Expects the registration to fail with this code and exit code, to store nothing, and to leave these access entries. */
async function expectFailure(
  { code, exitCode, entries = {} }: Expected,
  {
    args = [],
    kubeconfig,
    ...options
  }: RunOptions & { readonly args?: readonly string[]; readonly kubeconfig?: string } = {},
): Promise<Failure> {
  const ended = await register([...args, '--output', 'json', '--quiet'], kubeconfig, options);
  expect({ code: ended.code, stdout: ended.stdout }, ended.stderr).toEqual({ code: exitCode, stdout: '' });
  // Nothing else is printed, such as the failure of a rollback.
  expect(ended.stderr).toMatch(/^\{.*\}\n$/);
  const { error } = JSON.parse(ended.stderr) as { error: Failure };
  expect(error).toMatchObject({ code, exitCode });
  expect(await registeredNames()).toEqual([]);
  expect(Object.fromEntries(eks.entries)).toEqual(entries);
  return error;
}

async function registeredNames(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
  return SecretList.map(({ Name = '' }) => Name.replace(CLUSTERS_PREFIX, ''));
}

async function storedKubeconfig(name: string): Promise<string> {
  const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` });
  return (await secrets.send(command)).SecretString ?? '';
}

/** The cluster prod as EKS describes it. */
const prodInEks = () => ({ endpoint: prod.server, ca: prod.caPem, region: REGION });
/** Whether a request is the operator's, and not the refresher's. */
const isOperator = ({ accessKeyId }: { accessKeyId: string }) =>
  accessKeyId === bed.operatorEnv.AWS_ACCESS_KEY_ID;

test('creates the access entry, and the registration holds no credential', async () => {
  const { code, stdout, stderr } = await register();
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(/^eks-prod is registered\n {2}as arn:aws:sts::\d+:assumed-role\/\S+\n/);
  expect(Object.fromEntries(eks.entries)).toEqual({ [entry]: [GROUP] });
  expect(authenticator.reviews.at(-1)).toEqual({ cluster: 'prod', role });
  expect(parse(await storedKubeconfig('eks-prod'))).toEqual({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'eks-prod',
    contexts: [{ name: 'eks-prod', context: { cluster: 'eks-prod', user: 'ecr-anywhere' } }],
    clusters: [
      {
        name: 'eks-prod',
        cluster: {
          server: prod.server,
          'certificate-authority-data': Buffer.from(prod.caPem).toString('base64'),
        },
      },
    ],
    users: [
      {
        name: 'ecr-anywhere',
        user: {
          exec: {
            apiVersion: 'client.authentication.k8s.io/v1',
            interactiveMode: 'Never',
            command: 'aws',
            args: ['--region', REGION, 'eks', 'get-token', '--cluster-name', 'prod', '--output', 'json'],
          },
        },
      },
    ],
  });
  expect((await bed.deployment.invoke({ clusters: ['eks-prod'] })).payload).toMatchObject({
    clusters: [{ served: true, failed: false }],
  });
});

test('adds the group to an existing entry, and keeps its other groups', async () => {
  eks.entries.set(entry, ['viewers']);
  expect(await expectRegistered()).toMatchObject({
    isRegistered: true,
    accessEntry: 'group-added',
    isRenewed: false,
    identity: { groups: expect.arrayContaining(['viewers', GROUP]) },
    run: { served: true },
  });
  expect(Object.fromEntries(eks.entries)).toEqual({ [entry]: ['viewers', GROUP] });
});

test('does not change an entry that has the group, even if the registration fails', async () => {
  eks.entries.set(entry, [GROUP]);
  expect(await expectRegistered()).toMatchObject({ accessEntry: 'unchanged' });
  await bed.deployment.unregisterCluster('eks-prod');
  eks.isAllowed = isOperator;
  const { message } = await expectFailure({
    code: 'registration-not-verified',
    exitCode: 1,
    entries: { [entry]: [GROUP] },
  });
  expect(message).toContain('AccessDeniedException');
  expect(eks.changes).toEqual([]);
});

test('waits until the API server applies a new entry', async () => {
  authenticator.lag = 2;
  expect(await expectRegistered()).toMatchObject({ accessEntry: 'created', run: { served: true } });
  expect(authenticator.lag).toBe(0);
});

test('takes the name of the cluster from --eks-name if the context does not name it', async () => {
  const kubeconfig = prod.adminKubeconfigPath;
  await expectFailure({ code: 'eks-cluster-unknown', exitCode: 2 }, { kubeconfig });
  const { hint } = await expectFailure(
    { code: 'eks-cluster-not-found', exitCode: 5 },
    { kubeconfig, args: ['--eks-name', 'nowhere'] },
  );
  expect(hint).toMatch(/: aws eks list-clusters --region eu-central-1$/);
  expect((await register(['--eks-name', 'prod'], kubeconfig)).code).toBe(0);
  expect((await bed.deployment.invoke({ clusters: ['eks-prod'] })).payload).toMatchObject({
    clusters: [{ served: true }],
  });
});

test('--dry-run prints the expected result, and changes no entry', async () => {
  expect(await expectRegistered('--dry-run')).toEqual({
    cluster: 'eks-prod',
    isRegistered: false,
    server: prod.server,
    identity: { username: role, groups: [GROUP, 'system:authenticated'] },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: false,
    accessEntry: 'created',
  });
  eks.entries.set(entry, ['viewers']);
  expect(await expectRegistered('--dry-run')).toMatchObject({ accessEntry: 'group-added' });
  expect(eks.changes).toEqual([]);
  expect(await registeredNames()).toEqual([]);
});

test('--server is rejected, because EKS names the endpoint', async () => {
  await expectFailure({ code: 'usage', exitCode: 2 }, { args: ['--server', 'https://k8s.example'] });
});

describe('fails before it changes the entry', () => {
  test.each<{
    title: string;
    cluster: Parameters<EksDouble['clusters']['set']>[1];
    code: ErrorCode;
    hint: string;
  }>([
    {
      title: 'has access entries disabled',
      cluster: { authenticationMode: 'CONFIG_MAP' },
      code: 'eks-access-entries-disabled',
      hint: `aws eks update-cluster-config --name prod --access-config authenticationMode=API_AND_CONFIG_MAP --region ${REGION}`,
    },
    {
      title: 'is being created',
      cluster: { status: 'CREATING' },
      code: 'eks-cluster-not-ready',
      hint: 'aws eks wait cluster-active --name prod',
    },
    {
      title: 'has only a private endpoint',
      cluster: { isPrivate: true },
      code: 'eks-endpoint-private',
      hint: `aws eks update-cluster-config --name prod --resources-vpc-config endpointPublicAccess=true --region ${REGION}`,
    },
  ])('if the cluster $title', async ({ cluster, code, hint }) => {
    const { status } = cluster;
    eks.clusters.set('prod', {
      ...(status === undefined ? prodInEks() : { region: REGION }),
      ...cluster,
    });
    const failure = await expectFailure({ code, exitCode: 6 });
    expect(failure.hint).toContain(hint);
    expect(eks.changes).toEqual([]);
  });

  test('if the operator may not create entries, without a rollback', async () => {
    eks.isAllowed = ({ action }) => !/^(Create|Delete)AccessEntry$/.test(action);
    const { message } = await expectFailure({ code: 'aws-access-denied', exitCode: 4 });
    expect(message).toContain('eks:CreateAccessEntry');
  });

  test('if another operator creates the entry at the same time, and keeps theirs', async () => {
    eks.isAllowed = ({ action }) => {
      if (action === 'CreateAccessEntry') eks.entries.set(entry, ['theirs']);
      return true;
    };
    const { message } = await expectFailure({
      code: 'aws-error',
      exitCode: 10,
      entries: { [entry]: ['theirs'] },
    });
    expect(message).toContain('already in use');
    expect(eks.changes).toEqual([]);
  });

  test.each([[[]], [['--dry-run']]])('if the entry has access policies %j', async (args) => {
    const arns = [
      'AmazonEKSClusterAdminPolicy',
      'AmazonEKSViewPolicy',
      'AmazonEKSEditPolicy',
      'AmazonEKSAdminPolicy',
    ].map((policy) => `arn:aws:eks::aws:cluster-access-policy/${policy}`);
    eks.entries.set(entry, [GROUP]);
    eks.policies.set(entry, arns);
    const { message, hint } = await expectFailure(
      { code: 'eks-access-policies', exitCode: 4, entries: { [entry]: [GROUP] } },
      { args },
    );
    for (const arn of arns) expect(message).toContain(arn);
    expect(eks.changes).toEqual([]);
    const command = (arn: string) =>
      `aws eks disassociate-access-policy --cluster-name prod --principal-arn ${role} --policy-arn ${arn} --region ${REGION}`;
    expect(hint).toBe(arns.map(command).join(' && '));
  });
});

describe('rolls back the entry', () => {
  test('if the stack does not have the region, and names the setting', async () => {
    eks.clusters.set('prod', { ...prodInEks(), region: ELSEWHERE });
    // The role's policy allows the regions of the setting only.
    eks.isAllowed = (request) => isOperator(request) || request.region === REGION;
    const { hint } = await expectFailure(
      { code: 'registration-not-verified', exitCode: 1 },
      { kubeconfig: await updateKubeconfig(ELSEWHERE) },
    );
    expect(hint).toContain(`npx cdk deploy -c eksRegions=${ELSEWHERE} `);
    expect(eks.changes).toEqual(['CreateAccessEntry', 'DeleteAccessEntry']);
  });

  test('to its earlier groups, and keeps groups that were added in the meantime', async () => {
    eks.entries.set(entry, ['viewers']);
    eks.isAllowed = (request) => {
      if (isOperator(request)) return true;
      eks.entries.set(entry, ['viewers', GROUP, 'auditors']);
      return false;
    };
    const { message } = await expectFailure({
      code: 'registration-not-verified',
      exitCode: 1,
      entries: { [entry]: ['viewers', 'auditors'] },
    });
    expect(message).toContain('AccessDeniedException');
    expect(eks.changes).toEqual(['UpdateAccessEntry', 'UpdateAccessEntry']);
  });

  test('if one of its other groups makes the role an administrator', async () => {
    eks.entries.set(entry, ['platform']);
    await prod.kubectl([
      ...['create', 'clusterrolebinding', 'platform', '--clusterrole=cluster-admin', '--group=platform'],
    ]);
    const expected: Expected = {
      code: 'identity-not-restricted',
      exitCode: 4,
      entries: { [entry]: ['platform'] },
    };
    try {
      const { message } = await expectFailure(expected);
      expect(message).toContain('It may do anything.');
      expect(eks.changes).toEqual(['UpdateAccessEntry', 'UpdateAccessEntry']);
      await expectFailure(expected, { args: ['--dry-run'] });
    } finally {
      await prod.kubectl(['delete', 'clusterrolebinding', 'platform']);
    }
  });

  test('after Ctrl-C during its creation, once EKS has responded', async () => {
    let process: ChildProcess | undefined;
    eks.isAllowed = async ({ action }) => {
      if (action !== 'CreateAccessEntry') return true;
      process?.kill('SIGINT');
      await sleep(500);
      return true;
    };
    const { hint } = await expectFailure(
      { code: 'interrupted', exitCode: 130 },
      {
        onStart: (child) => {
          process = child;
        },
      },
    );
    expect(hint).toBeUndefined();
    expect(eks.changes).toEqual(['CreateAccessEntry', 'DeleteAccessEntry']);
  });

  test('if --eks-name names a different cluster than the context', async () => {
    eks.clusters.set('other', { endpoint: other.server, ca: other.caPem, region: REGION });
    const reads = ['--verb=list', '--resource=namespaces,secrets'];
    await other.kubectl(['create', 'clusterrole', 'refreshers', ...reads]);
    await other.kubectl([
      ...['create', 'clusterrolebinding', 'refreshers', '--clusterrole=refreshers', `--group=${GROUP}`],
    ]);
    await expectFailure({ code: 'different-cluster', exitCode: 6 }, { args: ['--eks-name', 'other'] });
  });

  test('or, if EKS refuses that, prints the command for it in spite of --quiet', async () => {
    eks.isAllowed = (request) => isOperator(request) && request.action !== 'DeleteAccessEntry';
    const { code, stderr } = await register(['--quiet']);
    expect(code).toBe(1);
    const [problem = '', command] = stderr.split('\n');
    expect(problem).toMatch(/deleting the access entry/i);
    expect(command).toBe(
      `  → aws eks delete-access-entry --cluster-name prod --principal-arn ${role} --region eu-central-1`,
    );
    expect(Object.fromEntries(eks.entries)).toEqual({ [entry]: [GROUP] });
    expect(await registeredNames()).toEqual([]);
  });
});

test('rejects a cluster that the refresher finds by its tag, until the tag is removed', async () => {
  eks.clusters.set('prod', { ...prodInEks(), tags: { 'ecr-anywhere.centml.ai/managed': 'true' } });
  eks.entries.set(entry, [GROUP]);
  expect((await bed.deployment.invoke({})).payload).toMatchObject({ clusters: [{ served: true }] });
  const arn = `arn:aws:eks:${REGION}:123456789012:cluster/prod`;
  const expected: Expected = { code: 'found-by-tag', exitCode: 6, entries: { [entry]: [GROUP] } };
  const { hint } = await expectFailure(expected);
  expect(hint).toContain(
    `aws eks untag-resource --resource-arn ${arn} --tag-keys ecr-anywhere.centml.ai/managed --region ${REGION}`,
  );
  // The same without --eks.
  const ended = await cli.run([
    ...['register', 'prod', '--kubeconfig', prod.adminKubeconfigPath, '--output', 'json'],
  ]);
  expect(ended.code).toBe(6);
  expect(JSON.parse(ended.stderr)).toMatchObject({ error: { code: 'found-by-tag' } });
  expect(await registeredNames()).toEqual([]);
  // The tag has been removed since the last run.
  eks.clusters.set('prod', prodInEks());
  expect(await register()).toMatchObject({ code: 0, stderr: expect.stringContaining(`: ${arn}.\n`) });
});
