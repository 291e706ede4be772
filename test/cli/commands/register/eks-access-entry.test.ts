// Registering EKS clusters: the access entry is found, made or widened, a real API server takes the token of the deployed
// function by it, nothing secret is stored, and whatever fails leaves the entry as it was.

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
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../../bed/control-plane.ts';
import { Bed } from '../../../bed/up.ts';
import { type EksDouble, startEks } from '../../../functions/eks.ts';
import { type Authenticator, startAuthenticator } from '../../../functions/eks-authenticator.ts';
import { functionPrincipal } from '../../../functions/function-principal.ts';
import { type CommandLine, type Ended, startCommandLine } from '../../command-line.ts';

const REGION = 'eu-central-1';
/** Not among the stack's eksRegions. */
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
/** The refresher's, and its access entry in the cluster prod. */
let role: string;
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
  await standInForAws();
  secrets = new SecretsManagerClient(bed.deployment.emulator.clientConfig);
}, 300_000);
afterAll(() => stack.disposeAsync());

beforeEach(async () => {
  // A token is the same for a second, and the API server remembers whose it was.
  await sleep(1_100);
  eks.clusters.clear();
  eks.clusters.set('prod', { endpoint: prod.server, ca: prod.caPem, region: REGION });
});
afterEach(async () => {
  for (const name of await stored()) await bed.deployment.unregisterCluster(name);
  eks.entries.clear();
  eks.policies.clear();
  eks.changes.length = 0;
  eks.isAllowed = () => true;
  authenticator.lag = 0;
});

/** `aws eks get-token`, which gives the operator a token of the administrator's. */
async function standInForAws(): Promise<void> {
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

/** A kubeconfig as `aws eks update-kubeconfig` writes it. */
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

async function register(args: readonly string[] = [], kubeconfig?: string): Promise<Ended> {
  const path = kubeconfig ?? (await updateKubeconfig());
  return cli.run(['register', 'eks-prod', '--kubeconfig', path, '--eks', ...args]);
}

async function registered(...args: string[]) {
  const { code, stdout, stderr } = await register([...args, '--output', 'json', '--quiet']);
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

/** That it fails with this exit code and a sentence, stores nothing, and leaves these entries. */
async function expectFailure(
  ended: Promise<Ended>,
  code: number,
  says: RegExp,
  entries: Readonly<Record<string, readonly string[]>> = {},
): Promise<void> {
  const { stdout, stderr, code: was } = await ended;
  expect(stderr).toMatch(says);
  expect({ was, stdout }).toEqual({ was: code, stdout: '' });
  expect(await stored()).toEqual([]);
  expect(Object.fromEntries(eks.entries)).toEqual(entries);
}

async function stored(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
  return SecretList.map(({ Name = '' }) => Name.replace(CLUSTERS_PREFIX, ''));
}

async function textOf(name: string): Promise<string> {
  const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` });
  return (await secrets.send(command)).SecretString ?? '';
}

test('a cluster without an entry: it is made, the function’s own token is taken, and nothing secret is stored', async () => {
  const { code, stdout, stderr } = await register();
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(
    /^eks-prod is registered\n {2}as arn:aws:sts::\d+:assumed-role\/\S+\n {2}Its access entry: created\n {2}It can read every Secret of every namespace \(\d+\)\. .*\n {2}0 managed Secrets, none due\.\n$/,
  );
  expect(Object.fromEntries(eks.entries)).toEqual({ [entry]: [GROUP] });
  expect(authenticator.reviews.at(-1)).toEqual({ cluster: 'prod', role });
  expect(parse(await textOf('eks-prod'))).toEqual({
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

test('an entry of other groups: the group is added, and the others stay', async () => {
  eks.entries.set(entry, ['viewers']);
  expect(await registered()).toMatchObject({
    isRegistered: true,
    accessEntry: 'group-added',
    isRenewed: false,
    identity: { groups: expect.arrayContaining(['viewers', GROUP]) },
    run: { served: true },
  });
  expect(Object.fromEntries(eks.entries)).toEqual({ [entry]: ['viewers', GROUP] });
});

test('the right entry is not touched; nor is it where that fails', async () => {
  eks.entries.set(entry, [GROUP]);
  expect(await registered()).toMatchObject({ accessEntry: 'unchanged' });
  await bed.deployment.unregisterCluster('eks-prod');
  const { AWS_ACCESS_KEY_ID: operator } = bed.operatorEnv;
  eks.isAllowed = ({ accessKeyId }) => accessKeyId === operator;
  await expectFailure(register(), 1, /AccessDeniedException/, { [entry]: [GROUP] });
  expect(eks.changes).toEqual([]);
});

test('the API server does not know the entry at first: it is waited for', async () => {
  authenticator.lag = 2;
  expect(await registered()).toMatchObject({ accessEntry: 'created', run: { served: true } });
  expect(authenticator.lag).toBe(0);
});

test('named by --eks, where the context says nothing of it', async () => {
  const kubeconfig = prod.adminKubeconfigPath;
  await expectFailure(
    register([], kubeconfig),
    2,
    /the context does not say which EKS cluster it is\n {2}→ name it: --eks NAME/,
  );
  await expectFailure(
    register(['nowhere'], kubeconfig),
    5,
    /there is no EKS cluster nowhere in eu-central-1\n {2}→ aws eks list-clusters --region eu-central-1; then --eks NAME/,
  );
  expect((await register(['prod'], kubeconfig)).code).toBe(0);
  expect((await bed.deployment.invoke({ clusters: ['eks-prod'] })).payload).toMatchObject({
    clusters: [{ served: true }],
  });
});

test('--dry-run says what would be, and makes no entry', async () => {
  expect((await register(['--dry-run'])).stdout).toContain('\n  Its access entry would be: created\n');
  expect(await registered('--dry-run')).toEqual({
    cluster: 'eks-prod',
    isRegistered: false,
    server: prod.server,
    identity: { username: role, groups: [GROUP, 'system:authenticated'] },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: false,
    accessEntry: 'created',
  });
  eks.entries.set(entry, ['viewers']);
  expect(await registered('--dry-run')).toMatchObject({ accessEntry: 'group-added' });
  expect(eks.changes).toEqual([]);
  expect(await stored()).toEqual([]);
});

describe('fails, and the entry is as it was', () => {
  test('a cluster that knows no entries: with the command', async () => {
    eks.clusters.set('prod', {
      ...{ endpoint: prod.server, ca: prod.caPem, region: REGION },
      authenticationMode: 'CONFIG_MAP',
    });
    await expectFailure(
      register(),
      6,
      /the EKS cluster prod knows no access entries\n {2}→ aws eks update-cluster-config --name prod --access-config authenticationMode=API_AND_CONFIG_MAP --region eu-central-1\n$/,
    );
    expect(eks.changes).toEqual([]);
  });

  test('a cluster that is being created', async () => {
    eks.clusters.set('prod', { status: 'CREATING', region: REGION });
    await expectFailure(
      register(),
      6,
      /the EKS cluster prod has no endpoint: it is CREATING\n {2}→ aws eks wait/,
    );
  });

  test('a private endpoint: with both ways out', async () => {
    eks.clusters.set('prod', { endpoint: prod.server, ca: prod.caPem, region: REGION, isPrivate: true });
    await expectFailure(
      register(),
      6,
      /the EKS cluster prod has a private endpoint only, which the function does not reach\n {2}→ aws eks update-cluster-config --name prod --resources-vpc-config endpointPublicAccess=true --region eu-central-1; or a context with a proxy-url/,
    );
    expect(eks.changes).toEqual([]);
  });

  test('an operator who may not make entries: nothing is taken back that was not made', async () => {
    eks.isAllowed = ({ action }) => !/^(Create|Delete)AccessEntry$/.test(action);
    await expectFailure(
      register(),
      4,
      /^ecr-anywhere: creating the access entry in prod: AWS does not allow it: .*eks:CreateAccessEntry\n/,
    );
  });

  test('a region that the stack does not have', async () => {
    eks.clusters.set('prod', { endpoint: prod.server, ca: prod.caPem, region: ELSEWHERE });
    const { AWS_ACCESS_KEY_ID: operator } = bed.operatorEnv;
    // As the role's policy has it.
    eks.isAllowed = ({ accessKeyId, region }) => accessKeyId === operator || region === REGION;
    await expectFailure(
      register([], await updateKubeconfig(ELSEWHERE)),
      1,
      /the refresher cannot use it, so eks-prod is not registered: EKS cluster prod in us-east-1: .*CDK setting eksRegions\n {2}→ deploy it with that setting: npx cdk deploy -c eksRegions=us-east-1 [^\n]*\n$/,
    );
    expect(eks.changes).toEqual(['CreateAccessEntry', 'DeleteAccessEntry']);
  });

  test('an entry that was there is put back; what somebody has added meanwhile stays', async () => {
    eks.entries.set(entry, ['viewers']);
    const { AWS_ACCESS_KEY_ID: operator } = bed.operatorEnv;
    eks.isAllowed = ({ accessKeyId }) => {
      if (accessKeyId === operator) return true;
      eks.entries.set(entry, ['viewers', GROUP, 'auditors']);
      return false;
    };
    await expectFailure(register(), 1, /AccessDeniedException/, { [entry]: ['viewers', 'auditors'] });
    expect(eks.changes).toEqual(['UpdateAccessEntry', 'UpdateAccessEntry']);
  });

  test('an entry whose answer was lost, and then AWS had too much to do: it is deleted all the same', async () => {
    eks.isAllowed = async ({ action }) => {
      if (action !== 'CreateAccessEntry') return true;
      eks.isAllowed = () => true;
      // Made, and nobody hears of it.
      eks.entries.set(entry, [GROUP]);
      eks.throttle(3);
      await new Promise((resolve) => setTimeout(resolve, 12_000));
      // To nobody.
      return false;
    };
    await expectFailure(register(), 10, /creating the access entry in prod: AWS has too much to do/);
  }, 60_000);

  test('an entry that somebody makes at the same time is theirs', async () => {
    eks.isAllowed = ({ action }) => {
      if (action === 'CreateAccessEntry') eks.entries.set(entry, ['theirs']);
      return true;
    };
    await expectFailure(register(), 10, /creating the access entry in prod: .*already in use/, {
      [entry]: ['theirs'],
    });
    expect(eks.changes).toEqual([]);
  });

  test('an entry that makes the role an administrator', async () => {
    eks.entries.set(entry, ['platform']);
    await prod.kubectl([
      ...['create', 'clusterrolebinding', 'platform', '--clusterrole=cluster-admin', '--group=platform'],
    ]);
    try {
      const says = /assumed-role.* is outside the fence, and may do anything:/;
      await expectFailure(register(), 4, says, { [entry]: ['platform'] });
      await expectFailure(register(['--dry-run']), 4, /is outside the fence, and may do anything:/, {
        [entry]: ['platform'],
      });
    } finally {
      await prod.kubectl(['delete', 'clusterrolebinding', 'platform']);
    }
  });

  test.each([['--dry-run'], ['--quiet']])(
    'an entry with access policies, which no question to the API server shows %s',
    async (...args) => {
      const all = [
        'AmazonEKSClusterAdminPolicy',
        'AmazonEKSViewPolicy',
        'AmazonEKSEditPolicy',
        'AmazonEKSAdminPolicy',
      ];
      const arns = all.map((policy) => `arn:aws:eks::aws:cluster-access-policy/${policy}`);
      eks.entries.set(entry, [GROUP]);
      eks.policies.set(entry, arns);
      const { stderr } = await register(args);
      await expectFailure(
        register(args),
        4,
        /^ecr-anywhere: the access entry in prod has access policies, and nothing would hold whoever steals a token: \S+AmazonEKSClusterAdminPolicy, /,
        { [entry]: [GROUP] },
      );
      expect(eks.changes).toEqual([]);
      const command = (arn: string) =>
        `aws eks disassociate-access-policy --cluster-name prod --principal-arn ${role} --policy-arn ${arn} --region ${REGION}`;
      expect(stderr).toContain(`\n  → ${arns.map(command).join(' && ')}\n`);
    },
  );

  test('Ctrl-C while the entry is being made: its answer is waited for, and it is deleted', async () => {
    let process: ChildProcess | undefined;
    eks.isAllowed = async ({ action }) => {
      if (action !== 'CreateAccessEntry') return true;
      process?.kill('SIGINT');
      await new Promise((resolve) => setTimeout(resolve, 500));
      return true;
    };
    const ended = cli.run(['register', 'eks-prod', '--kubeconfig', await updateKubeconfig(), '--eks'], {
      onStart: (child) => {
        process = child;
      },
    });
    await expectFailure(ended, 130, /^ecr-anywhere: interrupted\n$/);
    expect(eks.changes).toEqual(['CreateAccessEntry', 'DeleteAccessEntry']);
  });

  test('another cluster than the one of the context', async () => {
    eks.clusters.set('other', { endpoint: other.server, ca: other.caPem, region: REGION });
    const reads = ['--verb=list', '--resource=namespaces,secrets'];
    await other.kubectl(['create', 'clusterrole', 'refreshers', ...reads]);
    await other.kubectl([
      ...['create', 'clusterrolebinding', 'refreshers', '--clusterrole=refreshers', `--group=${GROUP}`],
    ]);
    await expectFailure(
      register(['other']),
      6,
      /the address leads the refresher to another cluster than the one of this context\n {2}→ is --context right, and the address \(--server, or the name after --eks\)/,
    );
  });

  test('it cannot be taken back: that is said, with the command, also where it was asked to be quiet', async () => {
    const { AWS_ACCESS_KEY_ID: operator } = bed.operatorEnv;
    eks.isAllowed = ({ accessKeyId, action }) => accessKeyId === operator && action !== 'DeleteAccessEntry';
    const { code, stderr } = await register(['--quiet']);
    expect(code).toBe(1);
    expect(stderr).toMatch(
      new RegExp(
        `^ecr-anywhere: what was begun could not be taken back: deleting the access entry: AWS does not allow it: .*\n  → aws eks delete-access-entry --cluster-name prod --principal-arn ${role} --region eu-central-1\necr-anywhere: the refresher cannot use it`,
      ),
    );
    expect(await stored()).toEqual([]);
  });
});

test('a cluster that is refreshed already, found by its tag', async () => {
  eks.clusters.set('prod', {
    ...{ endpoint: prod.server, ca: prod.caPem, region: REGION },
    tags: { 'ecr-anywhere.centml.ai/managed': 'true' },
  });
  eks.entries.set(entry, [GROUP]);
  expect((await bed.deployment.invoke({})).payload).toMatchObject({ clusters: [{ served: true }] });
  const arn = `arn:aws:eks:${REGION}:123456789012:cluster/prod`;
  const says = new RegExp(
    `this cluster is refreshed already: the refresher finds it by its tag, as ${arn}\n  → ecr-anywhere doctor ${arn} .* says how it is; .*: aws eks untag-resource --resource-arn ${arn} --tag-keys ecr-anywhere\\.centml\\.ai/managed --region ${REGION}\n$`,
  );
  await expectFailure(register(), 6, says, { [entry]: [GROUP] });
  await expectFailure(cli.run(['register', 'prod', '--kubeconfig', prod.adminKubeconfigPath]), 6, says, {
    [entry]: [GROUP],
  });
  // Its tag went since the last look.
  eks.clusters.set('prod', { endpoint: prod.server, ca: prod.caPem, region: REGION });
  expect(await register()).toMatchObject({
    code: 0,
    stderr: expect.stringContaining(`It is not known whether this cluster is one of these: ${arn}.\n`),
  });
});

test('--server is refused: EKS names the endpoint', async () => {
  await expectFailure(
    register(['--server', 'https://k8s.example']),
    2,
    /--server cannot be used with --eks: EKS itself names the endpoint/,
  );
});
