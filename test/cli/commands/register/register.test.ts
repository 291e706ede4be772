// Registering as an operator does it, with a deployed stack, real API servers and the chart: what is stored, who is
// refused, and that a registration that cannot be proved leaves nothing behind.

import type { ChildProcess } from 'node:child_process';
import { mkdtemp, readFile, writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer, type Socket } from 'node:net';
import { dirname, join } from 'node:path';
import {
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { CLUSTERS_PREFIX, TAG } from '../../../../contract/names.ts';
import { type ControlPlane, runCommand, startControlPlane } from '../../../bed/control-plane.ts';
import { helm } from '../../../bed/helm.ts';
import { tools } from '../../../bed/toolchain.ts';
import { Bed } from '../../../bed/up.ts';
import { refresherToken } from '../../../bed/webhook.ts';
import { type CommandLine, type Ended, startCommandLine } from '../../command-line.ts';
import { awsError, startAwsWire, startClusterWire } from '../../wire.ts';

const WEEK_S = 604_800;
const GROUP = 'ecr-anywhere:refreshers';
const USERNAME = 'system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher';
const GROUPS = ['system:serviceaccounts', 'system:serviceaccounts:ecr-anywhere', 'system:authenticated'];
const TOKEN_SECRET = 'ecr-anywhere-refresher-token';

let stack: AsyncDisposableStack;
let bed: Bed;
let cli: CommandLine;
let secrets: SecretsManagerClient;
let alpha: ControlPlane;
let beta: ControlPlane;
/** Neither chart nor webhook. */
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
  for (const name of await stored()) await bed.deployment.unregisterCluster(name);
});

/** `ecr-anywhere register NAME`, with the administrator's kubeconfig. */
const register = (name: string, cluster: ControlPlane, ...args: string[]): Promise<Ended> =>
  cli.run(['register', name, '--kubeconfig', cluster.adminKubeconfigPath, ...args]);

interface Registered {
  readonly expiresAt: string;
  readonly [field: string]: unknown;
}

async function registered(name: string, cluster: ControlPlane, ...args: string[]): Promise<Registered> {
  const { code, stdout, stderr } = await register(name, cluster, ...args, '--output', 'json');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout);
}

/** That it is refused with this exit code and a sentence, and that nothing is stored. */
async function expectRefusal(
  ended: Promise<Ended>,
  code: number,
  says: RegExp,
  left: readonly string[] = [],
): Promise<void> {
  const { stdout, stderr, code: was } = await ended;
  expect(stderr).toMatch(says);
  expect({ was, stdout }).toEqual({ was: code, stdout: '' });
  expect(await stored()).toEqual(left);
}

/** Names of the registered clusters. */
async function stored(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
  return SecretList.map(({ Name = '' }) => Name.replace(CLUSTERS_PREFIX, '')).sort();
}

async function textOf(name: string): Promise<string> {
  const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` });
  return (await secrets.send(command)).SecretString ?? '';
}

const describeSecret = (name: string) =>
  secrets.send(new DescribeSecretCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` }));

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

async function uidOf(cluster: ControlPlane, ...what: string[]): Promise<string> {
  return (await cluster.kubectl(['get', ...what, '-o', 'jsonpath={.metadata.uid}'])).stdout;
}

/** A file as an operator has one. */
async function fileOf(text: string): Promise<string> {
  const path = join(await mkdtemp(join(bed.dir, 'given-')), 'kubeconfig');
  await writeFile(path, text, { mode: 0o600 });
  return path;
}

/** What a run over one registered cluster says. */
async function runOver(name: string) {
  const { payload } = await bed.deployment.invoke({ clusters: [name] });
  return (payload as { clusters: { served: boolean; reason?: string }[] }).clusters[0];
}

/** All that there is in a cluster and could change: objects, with their versions. */
async function versionsOf(cluster: ControlPlane): Promise<string> {
  const kinds =
    'secrets,serviceaccounts,configmaps,roles,rolebindings,clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings,mutatingwebhookconfigurations,namespaces';
  const { stdout } = await cluster.kubectl([
    ...['get', kinds, '--all-namespaces', '-o'],
    'jsonpath={range .items[*]}{.metadata.uid} {.metadata.resourceVersion}{"\\n"}{end}',
  ]);
  return stdout;
}

describe('a token of the chart’s ServiceAccount', () => {
  test('is stored in a minimal kubeconfig, and proved by a run', async () => {
    const { code, stdout, stderr } = await register('alpha', alpha);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(
      new RegExp(
        `^alpha is registered\n  as ${USERNAME}\n  It can read every Secret of every namespace \\(\\d+\\)\\. Narrow that with the chart's value refresher\\.namespaces\\.\n  The credential expires at [-\\d]+T[:\\d]+Z, and is renewed from half of its life on\\.\n  1 managed Secret, none due\\.\n$`,
      ),
    );
    const text = await textOf('alpha');
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
    const { sub, iat, exp, 'kubernetes.io': of } = claimsOf(token);
    expect({ sub, life: exp - iat, secret: of.secret }).toEqual({
      sub: USERNAME,
      life: WEEK_S,
      secret: {
        name: TOKEN_SECRET,
        uid: await uidOf(alpha, 'secret', TOKEN_SECRET, '--namespace', 'ecr-anywhere'),
      },
    });
    const admin = await parseAdmin(alpha);
    expect(text).not.toContain(admin);
    expect(stdout + stderr).not.toContain(token);
    const { Tags, VersionIdsToStages } = await describeSecret('alpha');
    expect(Tags).toEqual([{ Key: TAG.clusterUid, Value: await uidOf(alpha, 'namespace', 'kube-system') }]);
    expect(Object.values(VersionIdsToStages ?? {})).toEqual([['AWSCURRENT']]);
  });

  test('lives as long as is asked; and the result for scripts', async () => {
    const result = await registered('alpha', alpha, '--duration', '2');
    const { token } = parse(await textOf('alpha')).users[0].user;
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

  test.each([
    {
      hours: '169',
      says: /a token of 169 h could not be renewed: the chart allows 168 h\n {2}→ --duration 168; or helm upgrade ecr-anywhere webhook\/chart --namespace ecr-anywhere --reset-then-reuse-values --set refresher\.token\.maxSeconds=608400 --kubeconfig \S+ --kube-context bed\n$/,
    },
    { hours: '0.1', says: /no token that lives less than ten minutes/ },
    { hours: '0', says: /"0" is no number of hours/ },
  ])('of $hours hours is refused, in a dry run too', async ({ hours, says }) => {
    await expectRefusal(register('alpha', alpha, '--duration', hours), 2, says);
    await expectRefusal(register('alpha', alpha, '--duration', hours, '--dry-run'), 2, says);
  });

  test('the Secret it is bound to was deleted: it is made again, and is helm’s as before', async () => {
    const inNamespace = ['--namespace', 'ecr-anywhere'];
    const before = (await alpha.kubectl(['get', 'secret', TOKEN_SECRET, ...inNamespace, '-o', 'json']))
      .stdout;
    await alpha.kubectl(['delete', 'secret', TOKEN_SECRET, ...inNamespace]);
    await registered('alpha', alpha);
    const after = JSON.parse(
      (await alpha.kubectl(['get', 'secret', TOKEN_SECRET, ...inNamespace, '-o', 'json'])).stdout,
    );
    const { labels, annotations } = JSON.parse(before).metadata;
    expect(after).toMatchObject({ type: 'Opaque', immutable: true, metadata: { labels, annotations } });
    await bed.cluster('alpha').webhook.upgrade({});
    expect(await uidOf(alpha, 'secret', TOKEN_SECRET, ...inNamespace)).toBe(after.metadata.uid);
    expect(await runOver('alpha')).toMatchObject({ served: true, failed: false });
  });

  test('narrowed to namespaces, can read what is printed, and nothing else', async () => {
    for (const name of ['shop', 'billing']) await beta.kubectl(['create', 'namespace', name]);
    const { webhook } = bed.cluster('beta');
    await webhook.upgrade({ refresher: { namespaces: ['shop', 'team-a'] } });
    try {
      const { canRead } = await registered('beta', beta);
      const kubeconfig = await fileOf(await textOf('beta'));
      const namespaces = (
        await beta.kubectl(['get', 'namespaces', '-o', 'jsonpath={.items[*].metadata.name}'])
      ).stdout.split(' ');
      const readable: string[] = [];
      for (const name of namespaces) {
        const asked = await beta.kubectl(['get', 'secrets', '--namespace', name], {
          kubeconfig,
          mayFail: true,
        });
        if (asked.code === 0) readable.push(name);
      }
      expect(canRead).toEqual({ secrets: readable, namespaces: namespaces.length });
      expect(readable.sort()).toEqual(['shop', 'team-a']);
      const { stdout } = await register('beta', beta, '--replace');
      expect(stdout).toContain('\n  It can read the Secrets of shop, team-a, and of no other namespace.\n');
    } finally {
      await webhook.upgrade({});
    }
  });
});

/** The administrator's token. */
async function parseAdmin(cluster: ControlPlane): Promise<string> {
  const { stdout } = await cluster.kubectl([
    'config',
    'view',
    '--raw',
    '-o',
    'jsonpath={.users[0].user.token}',
  ]);
  expect(stdout.length).toBeGreaterThan(20);
  return stdout;
}

describe('--credential', () => {
  test('a client certificate of a member of the group is stored, from whatever else its file holds', async () => {
    const given = parse(await alpha.kubeconfigFor('somebody', [GROUP]));
    given.users.push({ name: 'else', user: { token: 'of-somebody-else' } });
    const result = await registered('alpha', alpha, '--credential', await fileOf(JSON.stringify(given)));
    expect(result).toMatchObject({
      identity: { username: 'somebody', groups: expect.arrayContaining([GROUP]) },
      isRenewed: false,
      canRead: { secrets: ['*'] },
    });
    expect(Date.parse(result.expiresAt)).toBeGreaterThan(Date.now());
    const { users, clusters } = parse(await textOf('alpha'));
    expect(users).toEqual([{ name: 'ecr-anywhere', user: given.users[0].user }]);
    expect(clusters).toHaveLength(1);
    expect(await textOf('alpha')).not.toContain('of-somebody-else');
  });

  test('nothing renews a certificate, and that is said', async () => {
    const file = await fileOf(await alpha.kubeconfigFor('somebody', [GROUP]));
    const { stdout } = await register('alpha', alpha, '--credential', file);
    expect(stdout).toMatch(/\n {2}The credential expires at \S+Z, and nothing renews it\.\n/);
  });

  test('a token of the chart’s ServiceAccount, as somebody has made it', async () => {
    const token = await refresherToken(alpha, '24h');
    const file = await fileOf(alpha.kubeconfigForToken(token));
    expect(await registered('alpha', alpha, '--credential', file)).toMatchObject({
      identity: { username: USERNAME },
      isRenewed: true,
    });
    expect(parse(await textOf('alpha')).users[0].user).toEqual({ token });
  });

  const members: readonly [string, string[]][] = [
    ['somebody', []],
    ['somebody', ['system:masters']],
    ['somebody', [GROUP, 'system:masters']],
  ];
  test.each(members)('%s of the groups %j is refused', async (user, groups) => {
    const file = await fileOf(await alpha.kubeconfigFor(user, groups));
    await expectRefusal(
      register('alpha', alpha, '--credential', file),
      4,
      /somebody \(groups: .*\) is outside the fence: nothing would hold whoever steals this credential\n {2}→ register the chart’s ServiceAccount \(leave --credential out\)/,
    );
  });

  test('the administrator’s own kubeconfig is refused, also by a dry run', async () => {
    for (const more of [[], ['--dry-run']])
      await expectRefusal(
        register('alpha', alpha, '--credential', alpha.adminKubeconfigPath, ...more),
        4,
        /admin \(groups: system:masters, system:authenticated\) is outside the fence/,
      );
  });

  test('a member of the group whom a role makes an administrator is refused', async () => {
    await alpha.kubectl([
      ...['create', 'clusterrolebinding', 'too-much', '--clusterrole=cluster-admin', '--user=boss'],
    ]);
    try {
      const file = await fileOf(await alpha.kubeconfigFor('boss', [GROUP]));
      await expectRefusal(
        register('alpha', alpha, '--credential', file),
        4,
        /boss .* is outside the fence, and may do anything: nothing would hold/,
      );
    } finally {
      await alpha.kubectl(['delete', 'clusterrolebinding', 'too-much']);
    }
  });

  const ADMISSION = 'admissionregistration.k8s.io';
  const RBAC = 'rbac.authorization.k8s.io';
  test.each([
    ['delete', `validatingadmissionpolicies.${ADMISSION}`, undefined],
    ['deletecollection', `validatingadmissionpolicybindings.${ADMISSION}`, undefined],
    ['update', `validatingadmissionpolicybindings.${ADMISSION}`, 'ecr-anywhere-refresher-token'],
    ['patch', `mutatingwebhookconfigurations.${ADMISSION}`, 'ecr-anywhere'],
    ['create', `clusterrolebindings.${RBAC}`, undefined],
    ['bind', `clusterroles.${RBAC}`, 'cluster-admin'],
    ['escalate', `clusterroles.${RBAC}`, undefined],
    ['impersonate', 'users', undefined],
    ['impersonate', 'groups', 'system:masters'],
    ['create', 'serviceaccounts/token', undefined],
    ['create', 'pods', undefined],
  ])('a member of the group who may %s %s %s is refused', async (verb, resource, name) => {
    const of = name === undefined ? [] : [`--resource-name=${name}`];
    await alpha.kubectl([
      'create',
      'clusterrole',
      'way-out',
      `--verb=${verb}`,
      `--resource=${resource}`,
      ...of,
    ]);
    await alpha.kubectl(['create', 'clusterrolebinding', 'way-out', '--clusterrole=way-out', '--user=quiet']);
    try {
      const [kind = ''] = resource.split('.');
      await expectRefusal(
        register('alpha', alpha, '--credential', await fileOf(await alpha.kubeconfigFor('quiet', [GROUP]))),
        4,
        new RegExp(`quiet \\(.*\\) is outside the fence, and may ${verb} ${kind}: nothing would hold`),
      );
    } finally {
      await alpha.kubectl(['delete', 'clusterrole,clusterrolebinding', 'way-out']);
    }
  });

  test('another ServiceAccount is refused', async () => {
    await alpha.kubectl(['create', 'serviceaccount', 'other', '--namespace', 'team-a']);
    const { stdout } = await alpha.kubectl(['create', 'token', 'other', '--namespace', 'team-a']);
    const file = await fileOf(alpha.kubeconfigForToken(stdout.trim()));
    await expectRefusal(
      register('alpha', alpha, '--credential', file),
      4,
      /system:serviceaccount:team-a:other \(groups: .*\) is outside the fence/,
    );
  });

  test('an expired token: told before anybody is asked', async () => {
    const part = (claims: object) => Buffer.from(JSON.stringify(claims)).toString('base64url');
    const token = `${part({ alg: 'RS256' })}.${part({ iat: 1_700_000_000, exp: 1_700_003_600 })}.c2ln`;
    const file = await fileOf(alpha.kubeconfigForToken(token));
    await expectRefusal(
      register('alpha', alpha, '--credential', file),
      4,
      /: it has expired at 2023-11-14T23:13:20Z\n {2}→ leave --credential out/,
    );
  });

  test('a token of another cluster', async () => {
    const file = await fileOf(beta.kubeconfigForToken(await refresherToken(beta, '1h')));
    await expectRefusal(
      register('alpha', alpha, '--credential', file),
      4,
      /the API server of the context bed does not take it\n {2}→ is it of this cluster/,
    );
  });

  const bad: readonly { title: string; text: string; says: RegExp }[] = [
    { title: 'no YAML', text: '"', says: /kubeconfig: it is not YAML\n$/ },
    { title: 'no kubeconfig', text: 'a: 1', says: /kubeconfig: .*/ },
    {
      title: 'an exec plugin',
      text: JSON.stringify({
        'current-context': 'a',
        contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
        clusters: [{ name: 'a', cluster: { server: 'https://a.example' } }],
        users: [
          {
            name: 'a',
            user: { exec: { command: 'aws', args: ['eks', 'get-token', '--cluster-name', 'a'] } },
          },
        ],
      }),
      says: /it holds no token and no client certificate: --eks and --keyless are for the others/,
    },
    {
      title: 'a file beside it',
      text: JSON.stringify({
        'current-context': 'a',
        contexts: [{ name: 'a', context: { cluster: 'a', user: 'a' } }],
        clusters: [{ name: 'a', cluster: { server: 'https://a.example' } }],
        users: [{ name: 'a', user: { tokenFile: '/root/secret' } }],
      }),
      says: /"tokenFile"/,
    },
  ];
  test.each(bad)('a file that is $title', async ({ text, says }) => {
    await expectRefusal(register('alpha', alpha, '--credential', await fileOf(text)), 2, says);
  });

  test('no file at all; and what cannot be told together', async () => {
    await expectRefusal(
      register('alpha', alpha, '--credential', '/nowhere/it/is'),
      2,
      /nowhere.*: ENOENT\n$/,
    );
    const file = alpha.adminKubeconfigPath;
    await expectRefusal(
      register('alpha', alpha, '--credential', file, '--duration', '1'),
      2,
      /--duration cannot be used with --credential/,
    );
    await expectRefusal(register('alpha', alpha, '--issuer', 'https://a'), 2, /--issuer is for --keyless/);
    await expectRefusal(register('alpha', alpha, '--wait', '5'), 2, /--wait is for --keyless/);
  });
});

describe('what the chart has installed', () => {
  test('nothing', async () => {
    await expectRefusal(
      register('bare', bare),
      5,
      /the chart is not installed in this cluster\n {2}→ helm install ecr-anywhere webhook\/chart --namespace ecr-anywhere/,
    );
  });

  test('CentML/ecr-anywhere in its place', async () => {
    const configuration = {
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata: { name: 'centml' },
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
    await bare.kubectl(['apply', '-f', '-'], { input: JSON.stringify(configuration) });
    await expectRefusal(
      register('bare', bare),
      5,
      /the chart is not installed in this cluster; CentML\/ecr-anywhere is \(centml\)/,
    );
    await bare.kubectl(['delete', 'mutatingwebhookconfiguration', 'centml']);
  });

  test('a fence that is not in force; helm brings it back', async () => {
    const policy = 'ecr-anywhere-refresher-update';
    await beta.kubectl(['delete', 'validatingadmissionpolicybinding', policy]);
    await beta.kubectl(['delete', 'validatingadmissionpolicy', TOKEN_SECRET]);
    try {
      await expectRefusal(
        register('beta', beta),
        6,
        /the fence around the refresher is not in force: ValidatingAdmissionPolicyBinding ecr-anywhere-refresher-update is not there; ValidatingAdmissionPolicy ecr-anywhere-refresher-token is not there\n {2}→ ecr-anywhere doctor --kubeconfig \S+ --context bed names what commands each\n$/,
      );
    } finally {
      await bed.cluster('beta').webhook.upgrade({});
    }
    await registered('beta', beta);
  });

  test.each([
    {
      what: ['serviceaccount', 'ecr-anywhere-refresher', '--namespace', 'ecr-anywhere'],
      says: /there is no ServiceAccount ecr-anywhere\/ecr-anywhere-refresher\n/,
    },
    {
      what: ['mutatingwebhookconfiguration', 'ecr-anywhere'],
      says: /the chart’s MutatingWebhookConfiguration is gone \(release ecr-anywhere in the namespace ecr-anywhere\)\n/,
    },
  ])('no $what.0: the command that is named brings it back', async ({ what, says }) => {
    await beta.kubectl(['delete', ...what]);
    await expectRefusal(register('beta', beta, '--dry-run'), 5, says);
    const refused = register('beta', beta);
    await expectRefusal(refused, 5, says);
    const [, command = ''] = /→ (helm upgrade .*)\n$/.exec((await refused).stderr) ?? [];
    // As it would be pasted, in the checkout.
    const root = join(import.meta.dirname, '../../../..');
    const env = { PATH: `${dirname(tools().helm)}:/usr/bin:/bin`, HOME: beta.dir };
    expect(await runCommand('sh', ['-c', `cd ${root} && ${command}`], env)).toMatchObject({ code: 0 });
    await registered('beta', beta);
  });
});

describe('an address that does not lead there from AWS is taken back', () => {
  test('nobody answers', async () => {
    await expectRefusal(
      register('alpha', alpha, '--server', `https://127.0.0.1:${await freePort()}`),
      1,
      /the refresher cannot use it, so alpha is not registered: .*ECONNREFUSED.*\n {2}→ --server https:\/\/… names the address/,
    );
  });

  test('another cluster answers, which knows the credential, too', async () => {
    // One authority for both, as where a cluster was restored from another's backup: nothing but its UID differs.
    const file = await fileOf(await alpha.kubeconfigFor('somebody', [GROUP]));
    const twin = stack.use(
      await startControlPlane({ name: 'twin', dir: join(bed.dir, 'twin'), authority: alpha.authority }),
    );
    const names = ['--verb=list', '--resource=namespaces,secrets'];
    await twin.kubectl(['create', 'clusterrole', 'refreshers', ...names]);
    await twin.kubectl([
      ...['create', 'clusterrolebinding', 'refreshers', '--clusterrole=refreshers', `--group=${GROUP}`],
    ]);
    await expectRefusal(
      register('alpha', alpha, '--credential', file, '--server', twin.server),
      6,
      /the address leads the refresher to another cluster than the one of this context/,
    );
  });

  test.each([
    { server: 'http://127.0.0.1:1', says: /--server must be an https URL/ },
    { server: 'k8s.example:6443', says: /--server must be an https URL/ },
    { server: 'https://me:pass@k8s.example', says: /--server must not hold a user or a password/ },
  ])('$server is none', async ({ server, says }) => {
    await expectRefusal(register('alpha', alpha, '--server', server), 2, says);
  });
});

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  await new Promise((resolve) => server.close(resolve));
  return typeof address === 'object' && address ? address.port : 0;
}

describe('what a registration that fails has made in the cluster', () => {
  const inNamespace = ['--namespace', 'ecr-anywhere'];
  const failing = async (...args: string[]) =>
    register('beta', beta, '--server', `https://127.0.0.1:${await freePort()}`, ...args);

  test('the Secret goes, and with it the token, without a right of the operator’s to delete it', async () => {
    await using wire = await startClusterWire(beta);
    let token = '';
    wire.treat = ({ name, headers }) => {
      if (name.startsWith('DELETE ')) token = String(headers.authorization).replace('Bearer ', '');
      return undefined;
    };
    const kubeconfig = await fileOf(wire.through(await readFile(beta.adminKubeconfigPath, 'utf8')));
    await beta.kubectl(['delete', 'secret', TOKEN_SECRET, ...inNamespace]);
    const before = await versionsOf(beta);
    const ended = cli.run([
      ...['register', 'beta', '--kubeconfig', kubeconfig],
      ...['--server', `https://127.0.0.1:${await freePort()}`],
    ]);
    await expectRefusal(
      ended,
      1,
      /beta is not registered: .*\n {2}→ --server \S+ names (?:(?!lives until).)*\n$/,
    );
    expect(await versionsOf(beta)).toBe(before);
    expect(claimsOf(token)).toMatchObject({ sub: USERNAME });
    const asked = { kubeconfig: await fileOf(beta.kubeconfigForToken(token)), mayFail: true };
    await expect
      .poll(async () => (await beta.kubectl(['get', 'namespaces'], asked)).stderr, { timeout: 20_000 })
      .toMatch(/logged in|Unauthorized/);
  });

  test('the Secret goes, too, where no token was given for it at first', async () => {
    await using wire = await startClusterWire(beta);
    let isRefused = false;
    wire.treat = ({ name }) => {
      if (!name.endsWith('/token') || isRefused) return undefined;
      isRefused = true;
      return { reply: { status: 500, body: 'x' } };
    };
    const kubeconfig = await fileOf(wire.through(await readFile(beta.adminKubeconfigPath, 'utf8')));
    const before = await versionsOf(beta);
    await expectRefusal(cli.run(['register', 'beta', '--kubeconfig', kubeconfig]), 10, /HTTP 500/);
    expect({ isRefused, after: await versionsOf(beta) }).toEqual({ isRefused: true, after: before });
  });

  test('the Secret goes, too, after Ctrl-C while its token is being made', async () => {
    await using wire = await startClusterWire(beta);
    let child: ChildProcess | undefined;
    wire.treat = ({ name }) =>
      name.endsWith('/token')
        ? {
            async before() {
              child?.kill('SIGINT');
              await new Promise((resolve) => setTimeout(resolve, 500));
            },
          }
        : undefined;
    const kubeconfig = await fileOf(wire.through(await readFile(beta.adminKubeconfigPath, 'utf8')));
    const before = await versionsOf(beta);
    const ended = cli.run(['register', 'beta', '--kubeconfig', kubeconfig], {
      onStart(started) {
        child = started;
      },
    });
    await expectRefusal(ended, 130, /^ecr-anywhere: interrupted\n$/);
    expect(wire.calls.map(({ name }) => name)).toContain(
      `DELETE /api/v1/namespaces/ecr-anywhere/secrets/${TOKEN_SECRET}`,
    );
    expect(await versionsOf(beta)).toBe(before);
  });

  test('the Secret was there: until when the token lives, and how to end it', async () => {
    await bed.cluster('beta').webhook.upgrade({});
    const uid = await uidOf(beta, 'secret', TOKEN_SECRET, ...inNamespace);
    const { stderr } = await failing('--duration', '2');
    const [, until = '', command = ''] =
      /; the token that was made lives until (\S+), and nobody has kept it: (kubectl .*) ends it, and every other of this cluster’s\n$/.exec(
        stderr,
      ) ?? [];
    expect(Date.parse(until) - Date.now()).toBeGreaterThan(1.9 * 3_600_000);
    expect(await uidOf(beta, 'secret', TOKEN_SECRET, ...inNamespace)).toBe(uid);
    const env = { PATH: `${dirname(tools().kubectl)}:/usr/bin:/bin`, HOME: beta.dir };
    expect(await runCommand('sh', ['-c', command], env)).toMatchObject({ code: 0 });
    await registered('beta', beta);
  });

  test('an answer of Secrets Manager that was lost, and then it had too much to do: what was stored goes', async () => {
    await using wire = await startAwsWire(bed.deployment.emulator);
    const CREATE = 'secretsmanager:CreateSecret';
    let made = 0;
    wire.treat = ({ name }) => {
      if (name !== CREATE) return undefined;
      made += 1;
      if (made > 1) return { reply: awsError(CREATE, 'Throttling', 'Rate exceeded', 400) };
      return {
        async after() {
          throw new Error('lost');
        },
      };
    };
    const ended = cli.run(['register', 'beta', '--kubeconfig', beta.adminKubeconfigPath], {
      env: { AWS_ENDPOINT_URL: wire.url },
    });
    await expectRefusal(ended, 10, /registering beta: AWS has too much to do: Rate exceeded/);
    expect(made).toBeGreaterThan(1);
    expect(wire.calls.map(({ name }) => name)).toContain('secretsmanager:DeleteSecret');
  });
});

describe('a name, and a cluster, that are registered already', () => {
  test('the name; and the cluster, under another', async () => {
    await registered('alpha', alpha);
    const before = await describeSecret('alpha');
    await expectRefusal(register('alpha', alpha), 6, /alpha is registered already\n {2}→ --replace/, [
      'alpha',
    ]);
    await expectRefusal(
      register('other', alpha),
      6,
      /this cluster is registered already, as alpha\n {2}→ ecr-anywhere unregister alpha, then register it as other/,
      ['alpha'],
    );
    await expectRefusal(
      register('alpha', beta, '--replace'),
      6,
      /alpha is another cluster than the one of this context/,
      ['alpha'],
    );
    await expectRefusal(
      register('other', beta, '--replace'),
      5,
      /other is not registered: there is nothing to replace/,
      ['alpha'],
    );
    expect(await describeSecret('alpha')).toMatchObject({
      VersionIdsToStages: before.VersionIdsToStages,
    });
  });

  test('--replace gives it another credential', async () => {
    await registered('alpha', alpha);
    const before = parse(await textOf('alpha')).users[0].user.token;
    await registered('alpha', alpha, '--replace', '--duration', '3');
    const { token } = parse(await textOf('alpha')).users[0].user;
    expect(token).not.toBe(before);
    expect(await runOver('alpha')).toMatchObject({ served: true });
  });

  test('--replace with what cannot be proved: the credential from before is registered as it was', async () => {
    await registered('alpha', alpha);
    const text = await textOf('alpha');
    const before = await describeSecret('alpha');
    await expectRefusal(
      register('alpha', alpha, '--replace', '--server', `https://127.0.0.1:${await freePort()}`),
      1,
      /the refresher cannot use it, so alpha keeps the credential that it had: /,
      ['alpha'],
    );
    expect(await textOf('alpha')).toBe(text);
    const after = await describeSecret('alpha');
    const labels = (stages: Record<string, string[]> | undefined) =>
      Object.entries(stages ?? {}).filter(([, names]) => names.length > 0);
    expect(labels(after.VersionIdsToStages)).toEqual(labels(before.VersionIdsToStages));
    expect(after.Tags).toEqual(before.Tags);
    expect(await runOver('alpha')).toMatchObject({ served: true, failed: false });
  });

  test('the same for one that was registered by hand, without the tag', async () => {
    const token = await refresherToken(alpha, '24h');
    await bed.deployment.registerCluster('alpha', alpha.kubeconfigForToken(token));
    await expectRefusal(
      register('alpha', alpha, '--replace', '--server', `https://127.0.0.1:${await freePort()}`),
      1,
      /alpha keeps the credential that it had/,
      ['alpha'],
    );
    expect(await textOf('alpha')).toContain(token);
    expect((await describeSecret('alpha')).Tags ?? []).toEqual([]);
    await registered('alpha', alpha, '--replace');
    expect((await describeSecret('alpha')).Tags).toEqual([
      { Key: TAG.clusterUid, Value: await uidOf(alpha, 'namespace', 'kube-system') },
    ]);
  });

  test('the cluster, under another name, registered by hand', async () => {
    const kubeconfig = alpha.kubeconfigForToken(await refresherToken(alpha, '24h'));
    await bed.deployment.registerCluster('hand', kubeconfig);
    await expectRefusal(
      register('alpha', alpha),
      6,
      /this cluster is registered already, as hand\n {2}→ ecr-anywhere unregister hand, then register it as alpha/,
      ['hand'],
    );
    await expectRefusal(
      register('hand', beta, '--replace'),
      6,
      /hand is another cluster than the one of this context/,
      ['hand'],
    );
    // Nothing is asked of it.
    expect(await cli.run(['pause', 'hand'])).toMatchObject({ code: 0 });
    expect(await register('alpha', alpha)).toMatchObject({ code: 0, stderr: '' });
  });

  test('by hand, and many: those that do not say which cluster they are, and those that are not asked, are told of', async () => {
    const nowhere = beta
      .kubeconfigForToken('x')
      .replace(beta.server, `https://127.0.0.1:${await freePort()}`);
    const names = Array.from({ length: 51 }, (_, index) => `hand-${100 + index}`);
    for (const name of names) await bed.deployment.registerCluster(name, nowhere);
    const { code, stderr } = await register('alpha', alpha);
    expect({ code, stderr }).toEqual({
      code: 0,
      stderr:
        'It is not known whether this cluster is one of these: hand-100, hand-101, hand-102, hand-103, hand-104, 46 more.\n',
    });
  }, 120_000);

  test('and where a version before it was, which Secrets Manager drops meanwhile', async () => {
    const kubeconfig = alpha.kubeconfigForToken(await refresherToken(alpha, '24h'));
    for (const comment of ['# first', '# second'])
      await bed.deployment.registerCluster('alpha', `${kubeconfig}${comment}\n`);
    const address = `https://127.0.0.1:${await freePort()}`;
    const { stderr } = await register('alpha', alpha, '--replace', '--server', address);
    expect(stderr).not.toContain('could not be taken back');
    expect(await textOf('alpha')).toContain('# second');
    const { VersionIdsToStages = {} } = await describeSecret('alpha');
    // Nothing leads to what was refused.
    expect(Object.values(VersionIdsToStages).flat()).toEqual(['AWSCURRENT']);
  });

  test('a paused one can be given another, and stays paused', async () => {
    await registered('alpha', alpha);
    expect((await cli.run(['pause', 'alpha'])).code).toBe(0);
    const { run } = await registered('alpha', alpha, '--replace');
    expect(run).toMatchObject({ isPaused: true });
    const { stdout } = await register('alpha', alpha, '--replace');
    expect(stdout).toContain('\n  It is paused: nothing was asked of it.\n');
  });

  test('unregistered, the name is free at once', async () => {
    await registered('alpha', alpha);
    const first = await describeSecret('alpha');
    expect(await cli.run(['unregister', 'alpha'])).toMatchObject({ code: 0 });
    await registered('alpha', alpha);
    expect((await describeSecret('alpha')).ARN).not.toBe(first.ARN);
    expect(await runOver('alpha')).toMatchObject({ served: true });
  });
});

test('--dry-run says what would be, and changes nothing in the cluster or in AWS', async () => {
  const before = await versionsOf(alpha);
  const { code, stdout, stderr } = await register('alpha', alpha, '--dry-run');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  expect(stdout).toMatch(
    new RegExp(
      `^dry run: nothing was stored, and nothing changed\n  as ${USERNAME}\n  It can read every Secret of every namespace .*\n  Not tried: whether AWS reaches ${alpha.server}\\.\n  AWS does not: 127\\.0\\.0\\.1 is an address of this machine or its link\\. Give --server\\.\n$`,
    ),
  );
  const result = await registered('alpha', alpha, '--dry-run', '--server', 'https://k8s.example:6443');
  expect(result).toEqual({
    cluster: 'alpha',
    isRegistered: false,
    server: 'https://k8s.example:6443',
    identity: { username: USERNAME, groups: GROUPS },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: true,
  });
  expect(await versionsOf(alpha)).toBe(before);
  expect(await stored()).toEqual([]);
});

describe('a context of the operator’s own', () => {
  const contextWith = async (change: (cluster: Record<string, unknown>) => void) => {
    const { stdout } = await alpha.kubectl(['config', 'view', '--raw', '-o', 'json']);
    const config = JSON.parse(stdout);
    change(config.clusters[0].cluster);
    return fileOf(JSON.stringify(config));
  };

  test('with a proxy: that is stored, too; with --server it is the operator’s alone', async () => {
    await using proxy = await startTunnel();
    const kubeconfig = await contextWith((cluster) => {
      cluster['proxy-url'] = proxy.url;
    });
    const registerBy = (...args: string[]) =>
      cli.run(['register', 'alpha', '--kubeconfig', kubeconfig, ...args]);
    expect(await registerBy()).toMatchObject({ code: 0 });
    const { cluster } = parse(await textOf('alpha')).clusters[0];
    expect(cluster).toMatchObject({ server: alpha.server, 'proxy-url': proxy.url });
    expect(await registerBy('--replace', '--server', alpha.server)).toMatchObject({ code: 0 });
    expect(parse(await textOf('alpha')).clusters[0].cluster).not.toHaveProperty('proxy-url');
    expect(proxy.tunnels).toBeGreaterThan(0);
  });

  test('that looks at no certificate', async () => {
    const kubeconfig = await contextWith((cluster) => {
      delete cluster['certificate-authority-data'];
      cluster['insecure-skip-tls-verify'] = true;
    });
    await expectRefusal(
      cli.run(['register', 'alpha', '--kubeconfig', kubeconfig]),
      2,
      /the context bed does not look at the API server's certificate \(insecure-skip-tls-verify\), and the refresher does\n {2}→ kubectl --kubeconfig \S+ --context bed config set-cluster CLUSTER /,
    );
  });

  test('that names no authority: no other address is shown a token', async () => {
    await using wire = await startAwsWire(bed.deployment.emulator);
    const kubeconfig = await contextWith((cluster) => {
      delete cluster['certificate-authority-data'];
    });
    const trusted = { env: { NODE_EXTRA_CA_CERTS: join(alpha.dir, 'ca.crt'), AWS_ENDPOINT_URL: wire.url } };
    const ended = (server: string) =>
      cli.run(['register', 'alpha', '--kubeconfig', kubeconfig, '--server', server, '--dry-run'], trusted);
    await expectRefusal(
      ended('https://k8s.example:6443'),
      2,
      /--server: the context bed names no certificate authority, so anybody with a public certificate for k8s\.example would be shown the credential\n {2}→ a context whose server is that address; or .*kubectl .* config set-cluster CLUSTER --certificate-authority=FILE --embed-certs\n$/,
    );
    expect(await ended(alpha.server)).toMatchObject({ code: 0 });
  });

  test('whose authority is not that of the address', async () => {
    await expectRefusal(
      register('alpha', alpha, '--server', beta.server),
      1,
      /alpha is not registered: .*certificate.*\n {2}→ .*the certificate there must be of the context’s certificate-authority-data/,
    );
  });
});

/** A proxy that makes tunnels (RFC 9110, CONNECT) on this machine. */
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

test('Ctrl-C while it is tried takes it back', async () => {
  // Whoever listens here never answers.
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await new Promise((resolve) => silent.once('listening', resolve));
  const address = silent.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  try {
    const ended = cli.run(
      [
        ...['register', 'alpha', '--kubeconfig', alpha.adminKubeconfigPath],
        ...['--server', `https://127.0.0.1:${port}`],
      ],
      {
        async onStart(child) {
          while ((await stored()).length === 0) await new Promise((resolve) => setTimeout(resolve, 100));
          child.kill('SIGINT');
        },
      },
    );
    await expectRefusal(
      ended,
      130,
      /^ecr-anywhere: interrupted\n {2}→ the token that was made lives until .*: kubectl .*\n$/,
    );
  } finally {
    silent.close();
  }
});

test('a release of another name, in a namespace of its own', async () => {
  await helm(
    [
      ...[
        'install',
        'pull',
        join(import.meta.dirname, '../../../../webhook/chart'),
        '--namespace',
        'elsewhere',
      ],
      ...['--create-namespace', '--set', 'image.repository=registry.example.com/ecr-anywhere'],
      ...['--set', 'aws.region=eu-central-1'],
    ],
    { cluster: bare },
  );
  const { identity, expiresAt } = await registered('bare', bare);
  expect(identity).toMatchObject({ username: 'system:serviceaccount:elsewhere:pull-ecr-anywhere-refresher' });
  expect(Date.parse(expiresAt)).toBeGreaterThan(Date.now());
});
