// Registering as an operator does it, with a deployed stack, real API servers and the chart: what is stored, and that a
// registration that cannot be verified leaves nothing behind. The parts that need no stack have tests of their own.

import type { ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import type { ErrorCode } from '../../../../cli/output/errors.ts';
import { CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import { type ControlPlane, runCommand, startControlPlane } from '../../../bed/control-plane.ts';
import { CHART, helm } from '../../../bed/helm.ts';
import { tools } from '../../../bed/toolchain.ts';
import { Bed } from '../../../bed/up.ts';
import { refresherToken } from '../../../bed/webhook.ts';
import { type CommandLine, type Ended, type RunOptions, startCommandLine } from '../../command-line.ts';
import { awsError, startAwsWire, startClusterWire } from '../../wire.ts';

const WEEK_S = 604_800;
const GROUP = 'ecr-anywhere:refreshers';
const USERNAME = 'system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher';
const GROUPS = ['system:serviceaccounts', 'system:serviceaccounts:ecr-anywhere', 'system:authenticated'];
const TOKEN_SECRET = 'ecr-anywhere-refresher-token';
const IN_RELEASE = ['--namespace', 'ecr-anywhere'];

let stack: AsyncDisposableStack;
let bed: Bed;
let cli: CommandLine;
let secrets: SecretsManagerClient;
let alpha: ControlPlane;
let beta: ControlPlane;
/** A cluster without the chart, until the last test. */
let bare: ControlPlane;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  bed = stack.use(
    await Bed.create({
      clusters: ['alpha', 'beta'],
      context: { scheduleEnabled: false, clusterDeadlineSeconds: 20 },
      registersClusters: false,
    }),
  );
  await bed.start();
  alpha = bed.cluster('alpha').controlPlane;
  beta = bed.cluster('beta').controlPlane;
  bare = stack.use(await startControlPlane({ name: 'bare', dir: join(bed.dir, 'bare') }));
  cli = stack.use(await startCommandLine(bed.operatorEnv));
  secrets = new SecretsManagerClient(bed.deployment.emulator.clientConfig);
  for (const cluster of [alpha, beta])
    await cluster.kubectl(['apply', '-f', '-'], {
      input: `apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {ecr-anywhere.centml.ai/namespace: enabled}}
---
apiVersion: v1
kind: Secret
metadata: {name: pull, namespace: team-a, labels: {ecr-anywhere.centml.ai/managed: "true"}}
type: kubernetes.io/dockerconfigjson
`,
    });
}, 300_000);
afterAll(() => stack.disposeAsync());
afterEach(async () => {
  for (const name of await registeredNames()) await bed.deployment.unregisterCluster(name);
});

/** `ecr-anywhere register NAME`, with the administrator's kubeconfig. */
const register = (name: string, cluster: ControlPlane, ...args: string[]): Promise<Ended> =>
  cli.run(['register', name, '--kubeconfig', cluster.adminKubeconfigPath, ...args]);

interface Registered {
  readonly expiresAt: string;
  readonly [field: string]: unknown;
}

async function expectRegistered(name: string, cluster: ControlPlane, ...args: string[]): Promise<Registered> {
  const { code, stdout, stderr } = await register(name, cluster, ...args, '--output', 'json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

interface Failure {
  readonly code: ErrorCode;
  readonly exitCode: number;
  readonly message: string;
  readonly hint?: string;
}

/**
 * Expects the registration to fail with this code and exit code, to print no result, and to leave these registrations.
 *
 * @param args of `ecr-anywhere register`
 */
async function expectFailure(
  args: readonly string[],
  expected: { readonly code: ErrorCode; readonly exitCode: number; readonly left?: readonly string[] },
  options?: RunOptions,
): Promise<Failure> {
  const ended = await cli.run(['register', ...args, '--output', 'json', '--quiet'], options);
  const { code, exitCode, left = [] } = expected;
  expect({ code: ended.code, stdout: ended.stdout }, ended.stderr).toEqual({ code: exitCode, stdout: '' });
  // Nothing else is printed, such as the failure of a rollback.
  expect(ended.stderr).toMatch(/^\{.*\}\n$/);
  const { error } = JSON.parse(ended.stderr) as { error: Failure };
  expect(error).toMatchObject({ code, exitCode });
  expect(await registeredNames()).toEqual(left);
  return error;
}

const by = (cluster: ControlPlane) => ['--kubeconfig', cluster.adminKubeconfigPath];

async function registeredNames(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
  return SecretList.map(({ Name = '' }) => Name.replace(CLUSTERS_PREFIX, '')).sort();
}

async function storedKubeconfig(name: string): Promise<string> {
  const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` });
  return (await secrets.send(command)).SecretString ?? '';
}

const describeSecret = (name: string) =>
  secrets.send(new DescribeSecretCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` }));

/** The versions of a secret that have a label. */
const labelledVersions = (stages: Record<string, string[]> | undefined) =>
  Object.entries(stages ?? {}).filter(([, labels]) => labels.length > 0);

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

async function uidOf(cluster: ControlPlane, ...object: string[]): Promise<string> {
  return (await cluster.kubectl(['get', ...object, '-o', 'jsonpath={.metadata.uid}'])).stdout;
}

/** Writes a file that only the operator can read. */
async function fileOf(text: string): Promise<string> {
  const path = join(await mkdtemp(join(bed.dir, 'given-')), 'kubeconfig');
  await writeFile(path, text, { mode: 0o600 });
  return path;
}

/** What a run over one registered cluster reports. */
async function runOver(name: string) {
  const { payload } = await bed.deployment.invoke({ clusters: [name] });
  return (payload as { clusters: { served: boolean; reason?: string }[] }).clusters[0];
}

/** The versions of all objects that a registration could change. */
async function versionsOf(cluster: ControlPlane): Promise<string> {
  const kinds =
    'secrets,serviceaccounts,configmaps,roles,rolebindings,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingwebhookconfigurations,namespaces';
  const { stdout } = await cluster.kubectl([
    ...['get', kinds, '--all-namespaces', '-o'],
    'jsonpath={range .items[*]}{.metadata.uid} {.metadata.resourceVersion}{"\\n"}{end}',
  ]);
  return stdout;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address ? address.port : 0;
}

/** An address at which nothing listens. */
const unreachable = async () => ['--server', `https://127.0.0.1:${await freePort()}`];

describe("a token of the chart's ServiceAccount", () => {
  test('is stored in a minimal kubeconfig, and verified by a run', async () => {
    const { code, stdout, stderr } = await register('alpha', alpha);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(new RegExp(`^alpha is registered\n  as ${USERNAME}\n`));
    expect(stdout).toMatch(/\n {2}1 managed Secret, none due\.\n$/);
    const text = await storedKubeconfig('alpha');
    const { token } = parse(text).users[0].user;
    expect(parse(text)).toEqual({
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': 'alpha',
      contexts: [{ name: 'alpha', context: { cluster: 'alpha', user: 'ecr-anywhere' } }],
      clusters: [
        {
          name: 'alpha',
          cluster: {
            server: alpha.server,
            'certificate-authority-data': Buffer.from(alpha.caPem).toString('base64'),
          },
        },
      ],
      users: [{ name: 'ecr-anywhere', user: { token } }],
    });
    const { sub, iat, exp, 'kubernetes.io': bound } = claimsOf(token);
    expect({ sub, lifetime: exp - iat, secret: bound.secret }).toEqual({
      sub: USERNAME,
      lifetime: WEEK_S,
      secret: { name: TOKEN_SECRET, uid: await uidOf(alpha, 'secret', TOKEN_SECRET, ...IN_RELEASE) },
    });
    expect(text).not.toContain(await adminToken(alpha));
    expect(stdout + stderr).not.toContain(token);
    const { Tags, VersionIdsToStages } = await describeSecret('alpha');
    expect(Tags).toEqual([{ Key: TAG.clusterUid, Value: await uidOf(alpha, 'namespace', 'kube-system') }]);
    expect(Object.values(VersionIdsToStages ?? {})).toEqual([['AWSCURRENT']]);
  });

  test('lives as long as requested, and the result as JSON names its expiry', async () => {
    const result = await expectRegistered('alpha', alpha, '--duration', '2');
    const { token } = parse(await storedKubeconfig('alpha')).users[0].user;
    const { exp, iat } = claimsOf(token);
    expect(exp - iat).toBe(7200);
    const namespaces = (await alpha.kubectl(['get', 'namespaces', '-o', 'name'])).stdout.trim().split('\n');
    expect(result).toEqual({
      cluster: 'alpha',
      isRegistered: true,
      server: alpha.server,
      identity: { username: USERNAME, groups: expect.arrayContaining(GROUPS) },
      canRead: { secrets: ['*'], namespaces: namespaces.length },
      expiresAt: expect.stringMatching(/Z$/),
      isRenewed: true,
      run: expect.objectContaining({ cluster: 'alpha', served: true, failed: false, managed: 1 }),
    });
    expect(Date.parse(result.expiresAt)).toBe(exp * 1000);
  });

  test('recreates the Secret it is bound to, and Helm keeps that Secret', async () => {
    const getSecret = async () =>
      JSON.parse((await alpha.kubectl(['get', 'secret', TOKEN_SECRET, ...IN_RELEASE, '-o', 'json'])).stdout);
    const { labels, annotations } = (await getSecret()).metadata;
    await alpha.kubectl(['delete', 'secret', TOKEN_SECRET, ...IN_RELEASE]);
    await expectRegistered('alpha', alpha);
    const after = await getSecret();
    expect(after).toMatchObject({ type: 'Opaque', immutable: true, metadata: { labels, annotations } });
    await bed.cluster('alpha').webhook.upgrade({});
    expect(await uidOf(alpha, 'secret', TOKEN_SECRET, ...IN_RELEASE)).toBe(after.metadata.uid);
    expect(await runOver('alpha')).toMatchObject({ served: true, failed: false });
  });

  test('limited to namespaces, reads the reported namespaces and no others', async () => {
    for (const name of ['shop', 'billing']) await beta.kubectl(['create', 'namespace', name]);
    const { webhook } = bed.cluster('beta');
    await webhook.upgrade({ refresher: { namespaces: ['shop', 'team-a'] } });
    try {
      const { canRead } = await expectRegistered('beta', beta);
      const kubeconfig = await fileOf(await storedKubeconfig('beta'));
      const namespaces = (
        await beta.kubectl(['get', 'namespaces', '-o', 'jsonpath={.items[*].metadata.name}'])
      ).stdout.split(' ');
      const readable: string[] = [];
      for (const name of namespaces) {
        const asRefresher = { kubeconfig, mayFail: true };
        const { code } = await beta.kubectl(['get', 'secrets', '--namespace', name], asRefresher);
        if (code === 0) readable.push(name);
      }
      expect(canRead).toEqual({ secrets: readable, namespaces: namespaces.length });
      expect(readable.sort()).toEqual(['shop', 'team-a']);
    } finally {
      await webhook.upgrade({});
    }
  });
});

async function adminToken(cluster: ControlPlane): Promise<string> {
  const { stdout } = await cluster.kubectl([
    ...['config', 'view', '--raw', '-o', 'jsonpath={.users[0].user.token}'],
  ]);
  expect(stdout.length).toBeGreaterThan(20);
  return stdout;
}

describe('--credential', () => {
  test('stores the client certificate of a member of the group, and nothing else of its file', async () => {
    const given = parse(await alpha.kubeconfigFor('team', [GROUP]));
    given.users.push({ name: 'other', user: { token: 'of-another-user' } });
    const result = await expectRegistered(
      'alpha',
      alpha,
      '--credential',
      await fileOf(JSON.stringify(given)),
    );
    expect(result).toMatchObject({
      identity: { username: 'team', groups: expect.arrayContaining([GROUP]) },
      isRenewed: false,
      canRead: { secrets: ['*'] },
    });
    expect(Date.parse(result.expiresAt)).toBeGreaterThan(Date.now());
    const { users, clusters } = parse(await storedKubeconfig('alpha'));
    expect(users).toEqual([{ name: 'ecr-anywhere', user: given.users[0].user }]);
    expect(clusters).toHaveLength(1);
    expect(await storedKubeconfig('alpha')).not.toContain('of-another-user');
  });

  test("stores a token of the chart's ServiceAccount that the operator has created", async () => {
    const token = await refresherToken(alpha, '24h');
    const file = await fileOf(alpha.kubeconfigForToken(token));
    expect(await expectRegistered('alpha', alpha, '--credential', file)).toMatchObject({
      identity: { username: USERNAME },
      isRenewed: true,
    });
    expect(parse(await storedKubeconfig('alpha')).users[0].user).toEqual({ token });
  });

  test.each([[[]], [['--dry-run']]])("rejects the administrator's own kubeconfig %j", async (more) => {
    await expectFailure(['alpha', ...by(alpha), '--credential', alpha.adminKubeconfigPath, ...more], {
      code: 'identity-not-restricted',
      exitCode: 4,
    });
  });

  test('rejects a token of another cluster', async () => {
    const file = await fileOf(beta.kubeconfigForToken(await refresherToken(beta, '1h')));
    await expectFailure(['alpha', ...by(alpha), '--credential', file], {
      code: 'credential-rejected',
      exitCode: 4,
    });
  });
});

test.each<{ title: string; args: string[]; code: ErrorCode; exitCode: number }>([
  { title: 'an invalid name', args: ['a b'], code: 'usage', exitCode: 2 },
  { title: 'an option without the one it needs', args: ['alpha', '--wait', '5'], code: 'usage', exitCode: 2 },
  {
    title: 'a lifetime that the chart does not allow',
    args: ['alpha', '--duration', '169'],
    code: 'token-lifetime-invalid',
    exitCode: 2,
  },
  {
    title: 'a lifetime that the chart does not allow, in a dry run',
    args: ['alpha', '--duration', '169', '--dry-run'],
    code: 'token-lifetime-invalid',
    exitCode: 2,
  },
  {
    title: 'a credential file that does not exist',
    args: ['alpha', '--credential', '/nowhere/it/is'],
    code: 'credential-unreadable',
    exitCode: 2,
  },
])('rejects $title, and stores nothing', async ({ args, code, exitCode }) => {
  await expectFailure([...args, ...by(alpha)], { code, exitCode });
});

test('rejects a cluster without the chart', async () => {
  await expectFailure(['bare', ...by(bare)], { code: 'chart-not-installed', exitCode: 5 });
});

describe('rolls back a registration that AWS cannot use', () => {
  test('if nothing listens at the address', async () => {
    const { message } = await expectFailure(['alpha', ...by(alpha), ...(await unreachable())], {
      code: 'registration-not-verified',
      exitCode: 1,
    });
    expect(message).toContain('ECONNREFUSED');
  });

  test('if the certificate at the address is of another authority', async () => {
    const { message } = await expectFailure(['alpha', ...by(alpha), '--server', beta.server], {
      code: 'registration-not-verified',
      exitCode: 1,
    });
    expect(message).toContain('certificate');
  });
});

describe('rolls back what it created in the cluster', () => {
  /** The administrator's kubeconfig, with the wire as its server. */
  const throughWire = async (wire: Awaited<ReturnType<typeof startClusterWire>>) =>
    fileOf(wire.through(await readFile(beta.adminKubeconfigPath, 'utf8')));

  test("the Secret and its token, by the token's own right to delete it", async () => {
    await using wire = await startClusterWire(beta);
    let token = '';
    wire.handle = ({ name, headers }) => {
      if (name.startsWith('DELETE ')) token = String(headers.authorization).replace('Bearer ', '');
      return undefined;
    };
    await beta.kubectl(['delete', 'secret', TOKEN_SECRET, ...IN_RELEASE]);
    const before = await versionsOf(beta);
    const args = ['beta', '--kubeconfig', await throughWire(wire), ...(await unreachable())];
    const { hint } = await expectFailure(args, { code: 'registration-not-verified', exitCode: 1 });
    // Nothing is left for the operator to do.
    expect(hint).not.toContain('delete secret');
    expect(await versionsOf(beta)).toBe(before);
    expect(claimsOf(token)).toMatchObject({ sub: USERNAME });
    const asToken = { kubeconfig: await fileOf(beta.kubeconfigForToken(token)), mayFail: true };
    await expect
      .poll(async () => (await beta.kubectl(['get', 'namespaces'], asToken)).stderr, { timeout: 20_000 })
      .toMatch(/logged in|Unauthorized/);
  });

  test('the Secret, if the first request for a token failed', async () => {
    await using wire = await startClusterWire(beta);
    let isRejected = false;
    wire.handle = ({ name }) => {
      if (!name.endsWith('/token') || isRejected) return undefined;
      isRejected = true;
      return { reply: { status: 500, body: 'x' } };
    };
    const before = await versionsOf(beta);
    await expectFailure(['beta', '--kubeconfig', await throughWire(wire)], {
      code: 'kubernetes-error',
      exitCode: 10,
    });
    expect({ isRejected, after: await versionsOf(beta) }).toEqual({ isRejected: true, after: before });
  });

  test('the Secret, after Ctrl-C during the request for its token', async () => {
    await using wire = await startClusterWire(beta);
    let child: ChildProcess | undefined;
    wire.handle = ({ name }) =>
      name.endsWith('/token')
        ? {
            async before() {
              child?.kill('SIGINT');
              await sleep(500);
            },
          }
        : undefined;
    const before = await versionsOf(beta);
    const { hint } = await expectFailure(
      ['beta', '--kubeconfig', await throughWire(wire)],
      { code: 'interrupted', exitCode: 130 },
      {
        onStart(started) {
          child = started;
        },
      },
    );
    expect(hint).toBeUndefined();
    expect(wire.calls.map(({ name }) => name)).toContain(
      `DELETE /api/v1/namespaces/ecr-anywhere/secrets/${TOKEN_SECRET}`,
    );
    expect(await versionsOf(beta)).toBe(before);
  });

  test('not a Secret that existed before: the hint has the expiry of the token and a command that revokes it', async () => {
    await bed.cluster('beta').webhook.upgrade({});
    const uid = await uidOf(beta, 'secret', TOKEN_SECRET, ...IN_RELEASE);
    const { hint = '' } = await expectFailure(
      ['beta', ...by(beta), ...(await unreachable()), '--duration', '2'],
      { code: 'registration-not-verified', exitCode: 1 },
    );
    const [, until = '', command = ''] = /; .* valid until (\S+), .*: (kubectl .*)$/.exec(hint) ?? [];
    expect(Date.parse(until) - Date.now()).toBeGreaterThan(1.9 * 3_600_000);
    expect(await uidOf(beta, 'secret', TOKEN_SECRET, ...IN_RELEASE)).toBe(uid);
    const env = { PATH: `${dirname(tools().kubectl)}:/usr/bin:/bin`, HOME: beta.dir };
    expect(await runCommand('sh', ['-c', command], env)).toMatchObject({ code: 0 });
    await expectRegistered('beta', beta);
  });

  test('the registration, if the response of Secrets Manager was lost and the retry was throttled', async () => {
    await using wire = await startAwsWire(bed.deployment.emulator);
    const CREATE = 'secretsmanager:CreateSecret';
    let requests = 0;
    wire.handle = ({ name }) => {
      if (name !== CREATE) return undefined;
      requests += 1;
      if (requests > 1) return { reply: awsError(CREATE, 'Throttling', 'Rate exceeded', 400) };
      return {
        async after() {
          throw new Error('lost');
        },
      };
    };
    await expectFailure(
      ['beta', ...by(beta)],
      { code: 'aws-throttled', exitCode: 10 },
      { env: { AWS_ENDPOINT_URL: wire.url } },
    );
    expect(requests).toBeGreaterThan(1);
    expect(wire.calls.map(({ name }) => name)).toContain('secretsmanager:DeleteSecret');
  });
});

describe('a registered cluster', () => {
  test('keeps its registration when its name or the cluster is registered again', async () => {
    await expectRegistered('alpha', alpha);
    const before = await describeSecret('alpha');
    const left = ['alpha'];
    for (const [args, code, exitCode] of [
      [['alpha', ...by(alpha)], 'already-registered', 6],
      [['other', ...by(alpha)], 'duplicate-registration', 6],
      [['alpha', ...by(beta), '--replace'], 'different-cluster', 6],
      [['other', ...by(beta), '--replace'], 'not-registered', 5],
    ] as const)
      await expectFailure(args, { code, exitCode, left });
    expect((await describeSecret('alpha')).VersionIdsToStages).toEqual(before.VersionIdsToStages);
  });

  test('gets another credential with --replace', async () => {
    await expectRegistered('alpha', alpha);
    const before = parse(await storedKubeconfig('alpha')).users[0].user.token;
    await expectRegistered('alpha', alpha, '--replace', '--duration', '3');
    expect(parse(await storedKubeconfig('alpha')).users[0].user.token).not.toBe(before);
    expect(await runOver('alpha')).toMatchObject({ served: true });
  });

  test('keeps its credential, versions and tags if the replacement cannot be verified', async () => {
    await expectRegistered('alpha', alpha);
    const text = await storedKubeconfig('alpha');
    const before = await describeSecret('alpha');
    const { message } = await expectFailure(['alpha', ...by(alpha), '--replace', ...(await unreachable())], {
      code: 'registration-not-verified',
      exitCode: 1,
      left: ['alpha'],
    });
    expect(message).toContain('alpha keeps its earlier credential');
    expect(await storedKubeconfig('alpha')).toBe(text);
    const after = await describeSecret('alpha');
    expect(labelledVersions(after.VersionIdsToStages)).toEqual(labelledVersions(before.VersionIdsToStages));
    expect(after.Tags).toEqual(before.Tags);
    expect(await runOver('alpha')).toMatchObject({ served: true, failed: false });
  });

  test('gets the UID tag with a replacement, and loses it when the replacement is rolled back', async () => {
    const token = await refresherToken(alpha, '24h');
    await bed.deployment.registerCluster('alpha', alpha.kubeconfigForToken(token));
    await expectFailure(['alpha', ...by(alpha), '--replace', ...(await unreachable())], {
      code: 'registration-not-verified',
      exitCode: 1,
      left: ['alpha'],
    });
    expect(await storedKubeconfig('alpha')).toContain(token);
    expect((await describeSecret('alpha')).Tags ?? []).toEqual([]);
    await expectRegistered('alpha', alpha, '--replace');
    expect((await describeSecret('alpha')).Tags).toEqual([
      { Key: TAG.clusterUid, Value: await uidOf(alpha, 'namespace', 'kube-system') },
    ]);
  });

  test('is recognised without a UID tag, unless it is paused', async () => {
    const kubeconfig = alpha.kubeconfigForToken(await refresherToken(alpha, '24h'));
    await bed.deployment.registerCluster('hand', kubeconfig);
    const left = ['hand'];
    await expectFailure(['alpha', ...by(alpha)], { code: 'duplicate-registration', exitCode: 6, left });
    await expectFailure(['hand', ...by(beta), '--replace'], { code: 'different-cluster', exitCode: 6, left });
    // The refresher does not contact a paused cluster.
    expect(await cli.run(['pause', 'hand'])).toMatchObject({ code: 0 });
    expect(await register('alpha', alpha)).toMatchObject({ code: 0, stderr: '' });
  });

  test('that does not answer is named in a note', async () => {
    const nowhere = beta
      .kubeconfigForToken('x')
      .replace(beta.server, `https://127.0.0.1:${await freePort()}`);
    await bed.deployment.registerCluster('hand', nowhere);
    const { code, stderr } = await register('alpha', alpha);
    expect(code).toBe(0);
    expect(stderr).toMatch(/^[^\n]*: hand\.\n$/);
  });

  test('keeps its current version if Secrets Manager drops the previous one during a rollback', async () => {
    const kubeconfig = alpha.kubeconfigForToken(await refresherToken(alpha, '24h'));
    for (const comment of ['# first', '# second'])
      await bed.deployment.registerCluster('alpha', `${kubeconfig}${comment}\n`);
    await expectFailure(['alpha', ...by(alpha), '--replace', ...(await unreachable())], {
      code: 'registration-not-verified',
      exitCode: 1,
      left: ['alpha'],
    });
    expect(await storedKubeconfig('alpha')).toContain('# second');
    const { VersionIdsToStages = {} } = await describeSecret('alpha');
    // No label leads to the version that was rolled back.
    expect(Object.values(VersionIdsToStages).flat()).toEqual(['AWSCURRENT']);
  });

  test('stays paused when its credential is replaced', async () => {
    await expectRegistered('alpha', alpha);
    expect((await cli.run(['pause', 'alpha'])).code).toBe(0);
    const { run } = await expectRegistered('alpha', alpha, '--replace');
    expect(run).toMatchObject({ isPaused: true });
  });

  test('can be registered under the same name as soon as it is unregistered', async () => {
    await expectRegistered('alpha', alpha);
    const first = await describeSecret('alpha');
    expect(await cli.run(['unregister', 'alpha'])).toMatchObject({ code: 0 });
    await expectRegistered('alpha', alpha);
    expect((await describeSecret('alpha')).ARN).not.toBe(first.ARN);
    expect(await runOver('alpha')).toMatchObject({ served: true });
  });
});

test('--dry-run prints the expected result, and changes nothing in the cluster or in AWS', async () => {
  const before = await versionsOf(alpha);
  const { code, stdout, stderr } = await register('alpha', alpha, '--dry-run');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toContain(`\n  as ${USERNAME}\n`);
  expect(stdout).toContain(alpha.server);
  const result = await expectRegistered('alpha', alpha, '--dry-run', '--server', 'https://k8s.example:6443');
  expect(result).toEqual({
    cluster: 'alpha',
    isRegistered: false,
    server: 'https://k8s.example:6443',
    identity: { username: USERNAME, groups: GROUPS },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: true,
  });
  expect(await versionsOf(alpha)).toBe(before);
  expect(await registeredNames()).toEqual([]);
});

test("stores the context's proxy, but not with --server", async () => {
  await using proxy = await startTunnel();
  const { stdout } = await alpha.kubectl(['config', 'view', '--raw', '-o', 'json']);
  const config = JSON.parse(stdout);
  config.clusters[0].cluster['proxy-url'] = proxy.url;
  const kubeconfig = await fileOf(JSON.stringify(config));
  const registerWith = (...args: string[]) =>
    cli.run(['register', 'alpha', '--kubeconfig', kubeconfig, ...args]);
  expect(await registerWith()).toMatchObject({ code: 0 });
  const { cluster } = parse(await storedKubeconfig('alpha')).clusters[0];
  expect(cluster).toMatchObject({ server: alpha.server, 'proxy-url': proxy.url });
  expect(await registerWith('--replace', '--server', alpha.server)).toMatchObject({ code: 0 });
  expect(parse(await storedKubeconfig('alpha')).clusters[0].cluster).not.toHaveProperty('proxy-url');
  expect(proxy.tunnels).toBeGreaterThan(0);
});

/** An HTTP proxy on loopback that opens tunnels (RFC 9110, CONNECT). */
async function startTunnel() {
  let tunnels = 0;
  const sockets = new Set<Socket>();
  const server = createHttpServer().on('connect', (request, socket: Socket) => {
    tunnels += 1;
    const [host, port] = (request.url ?? '').split(':');
    const upstream = connect(Number(port), host, () => {
      socket.write('HTTP/1.1 200 Connection Established\r\n\r\n');
      upstream.pipe(socket).pipe(upstream);
    });
    for (const one of [socket, upstream]) {
      sockets.add(one);
      one.on('error', () => one.destroy());
    }
  });
  server.listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  return {
    url: `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`,
    get tunnels() {
      return tunnels;
    },
    async [Symbol.asyncDispose]() {
      for (const socket of sockets) socket.destroy();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}

test('finds a release of another name in another namespace', async () => {
  await helm(
    [
      ...['install', 'pull', CHART, '--namespace', 'elsewhere', '--create-namespace'],
      ...['--set', 'image.repository=registry.example.com/ecr-anywhere'],
      ...['--set', 'aws.region=eu-central-1'],
    ],
    { cluster: bare },
  );
  const { identity, expiresAt } = await expectRegistered('bare', bare);
  expect(identity).toMatchObject({
    username: 'system:serviceaccount:elsewhere:pull-ecr-anywhere-refresher',
  });
  expect(Date.parse(expiresAt)).toBeGreaterThan(Date.now());
});
