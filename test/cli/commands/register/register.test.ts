// Registering as an operator does it, with a deployed stack, real API servers and the chart: what is stored, and that a
// registration that cannot be verified leaves nothing behind. The parts that need no stack have tests of their own.
import { readFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { TAG } from '../../../../contract/names.ts';
import { type ControlPlane, runCommand } from '../../../bed/control-plane.ts';
import { tools } from '../../../bed/toolchain.ts';
import { refresherToken } from '../../../bed/webhook.ts';
import { createManagedSecret } from '../../operator.ts';
import { type ClusterWire, startClusterWire } from '../../wire.ts';
import { GROUP, Registrar } from './registrar.ts';

const USERNAME = 'system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher';
const GROUPS = ['system:serviceaccounts', 'system:serviceaccounts:ecr-anywhere', 'system:authenticated'];
const TOKEN_SECRET = 'ecr-anywhere-refresher-token';
const IN_RELEASE = ['--namespace', 'ecr-anywhere'];
/** Nothing listens at this address. */
const UNREACHABLE = ['--server', 'https://127.0.0.1:1'];

let registrar: Registrar;
let alpha: ControlPlane;
let beta: ControlPlane;
/** Arguments of register, with the administrator's kubeconfig. */
let asAlpha: string[];
let asBeta: string[];

beforeAll(async () => {
  registrar = await Registrar.start({ clusters: ['alpha', 'beta'] });
  [alpha, beta] = ['alpha', 'beta'].map((name) => registrar.bed.cluster(name).controlPlane) as [
    ControlPlane,
    ControlPlane,
  ];
  asAlpha = ['alpha', '--kubeconfig', alpha.adminKubeconfigPath];
  asBeta = ['beta', '--kubeconfig', beta.adminKubeconfigPath];
  await createManagedSecret(alpha);
});
afterAll(() => registrar?.[Symbol.asyncDispose]());
afterEach(() => registrar.reset());

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

async function uidOf(cluster: ControlPlane, ...object: string[]): Promise<string> {
  return (await cluster.kubectl(['get', ...object, '-o', 'jsonpath={.metadata.uid}'])).stdout;
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

describe("a token of the chart's ServiceAccount", () => {
  test('is stored in a minimal kubeconfig, lives as long as requested, and is verified by a run', async () => {
    const result = await registrar.register([...asAlpha, '--duration', '2']);
    const text = await registrar.kubeconfig('alpha');
    const { token } = await registrar.user('alpha');
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
      lifetime: 7200,
      secret: { name: TOKEN_SECRET, uid: await uidOf(alpha, 'secret', TOKEN_SECRET, ...IN_RELEASE) },
    });
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
    expect(JSON.stringify(result)).not.toContain(token);
    const { Tags, VersionIdsToStages } = await registrar.describe('alpha');
    expect(Tags).toEqual([{ Key: TAG.clusterUid, Value: await uidOf(alpha, 'namespace', 'kube-system') }]);
    expect(Object.values(VersionIdsToStages ?? {})).toEqual([['AWSCURRENT']]);
  });

  test('recreates the Secret it is bound to, and Helm keeps that Secret', async () => {
    const getSecret = async () =>
      JSON.parse((await alpha.kubectl(['get', 'secret', TOKEN_SECRET, ...IN_RELEASE, '-o', 'json'])).stdout);
    const { labels, annotations } = (await getSecret()).metadata;
    await alpha.kubectl(['delete', 'secret', TOKEN_SECRET, ...IN_RELEASE]);
    await registrar.register(asAlpha);
    const after = await getSecret();
    expect(after).toMatchObject({ type: 'Opaque', immutable: true, metadata: { labels, annotations } });
    await registrar.bed.cluster('alpha').webhook.upgrade({});
    expect(await uidOf(alpha, 'secret', TOKEN_SECRET, ...IN_RELEASE)).toBe(after.metadata.uid);
    expect(await registrar.runOver('alpha')).toMatchObject({ served: true, failed: false });
  });

  test('limited to namespaces, reads the reported namespaces and no others', async () => {
    for (const name of ['shop', 'billing', 'team-a']) await beta.kubectl(['create', 'namespace', name]);
    const { webhook } = registrar.bed.cluster('beta');
    await webhook.upgrade({ refresher: { namespaces: ['shop', 'team-a'] } });
    try {
      const { canRead } = await registrar.register(asBeta);
      const kubeconfig = await registrar.fileOf(await registrar.kubeconfig('beta'));
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

describe('--credential', () => {
  test('stores the client certificate of a member of the group, and nothing else of its file', async () => {
    const given = parse(await alpha.kubeconfigFor('team', [GROUP]));
    given.users.push({ name: 'other', user: { token: 'of-another-user' } });
    const file = await registrar.fileOf(JSON.stringify(given));
    expect(await registrar.register([...asAlpha, '--credential', file])).toMatchObject({
      identity: { username: 'team', groups: expect.arrayContaining([GROUP]) },
      isRenewed: false,
      canRead: { secrets: ['*'] },
    });
    const { users, clusters } = parse(await registrar.kubeconfig('alpha'));
    expect(users).toEqual([{ name: 'ecr-anywhere', user: given.users[0].user }]);
    expect(clusters).toHaveLength(1);
  });

  test.each([[[]], [['--dry-run']]])("rejects the administrator's own kubeconfig %j", async (more) => {
    const args = [...asAlpha, '--credential', alpha.adminKubeconfigPath, ...more];
    await registrar.expectFailure('identity-not-restricted', args);
  });

  test('rejects a token of another cluster', async () => {
    const file = await registrar.fileOf(beta.kubeconfigForToken(await refresherToken(beta, '1h')));
    await registrar.expectFailure('credential-rejected', [...asAlpha, '--credential', file]);
  });
});

test('rolls back a registration if the certificate at the address is of another authority', async () => {
  const args = [...asAlpha, '--server', beta.server];
  const { message } = await registrar.expectFailure('registration-not-verified', args);
  expect(message).toContain('certificate');
});

describe('through a proxy with users of its own, such as Rancher', () => {
  let proxy: ClusterWire;
  let throughProxy: string[];

  beforeAll(async () => {
    const prefix = '/k8s/clusters/c-m-x';
    proxy = await startClusterWire(beta, { prefix, authority: beta.authority });
    // The proxy knows only the administrator's token, which is no JWT.
    proxy.handle = ({ headers }) =>
      /^Bearer eyJ/.test(String(headers.authorization))
        ? { reply: { status: 401, body: '{"type":"error","status":"401","message":"must authenticate"}' } }
        : undefined;
    const kubeconfig = proxy.through(await readFile(beta.adminKubeconfigPath, 'utf8'));
    throughProxy = ['beta', '--kubeconfig', await registrar.fileOf(kubeconfig)];
  });
  afterAll(() => proxy?.[Symbol.asyncDispose]());

  test('says that it may be the proxy, and leaves nothing behind', async () => {
    await beta.kubectl(['delete', 'secret', TOKEN_SECRET, ...IN_RELEASE]);
    const before = await versionsOf(beta);
    const { message, hint } = await registrar.expectFailure('token-rejected', throughProxy);
    expect(message).toContain(`${proxy.url}/k8s/clusters/c-m-x`);
    expect(hint).toMatch(/proxy.*--server.*kubectl --kubeconfig \S+ --context \S+ get endpointslices /);
    expect(await versionsOf(beta)).toBe(before);
    await registrar.bed.cluster('beta').webhook.upgrade({});
  });

  test('checks and registers the token at --server', async () => {
    const result = await registrar.register([...throughProxy, '--server', beta.server]);
    expect(result).toMatchObject({ server: beta.server, identity: { username: USERNAME } });
  });

  test('has the refresher check the token if this machine does not reach --server', async () => {
    const args = [...throughProxy, ...UNREACHABLE];
    const { message } = await registrar.expectFailure('registration-not-verified', args);
    expect(message).toContain('ECONNREFUSED');
  });

  test('checks the credential of --credential at --server', async () => {
    const file = await registrar.fileOf(beta.kubeconfigForToken(await refresherToken(beta, '1h')));
    const credential = [...throughProxy, '--credential', file];
    const { hint } = await registrar.expectFailure('credential-rejected', credential);
    expect(hint).toContain('--server');
    const result = await registrar.register([...credential, '--server', beta.server]);
    expect(result).toMatchObject({ identity: { username: USERNAME } });
    const args = [...throughProxy, '--replace', '--credential'];
    const ofAlpha = await registrar.fileOf(alpha.kubeconfigForToken(await refresherToken(alpha, '1h')));
    const { message } = await registrar.expectFailure(
      'credential-rejected',
      [...args, ofAlpha, '--server', beta.server],
      { left: ['beta'] },
    );
    expect(message).toContain(beta.server);
  });
});

describe('rolls back what it created in the cluster', () => {
  /** Arguments of register, with the wire as the server. */
  const throughWire = async (wire: ClusterWire) => {
    const kubeconfig = wire.through(await readFile(beta.adminKubeconfigPath, 'utf8'));
    return ['beta', '--kubeconfig', await registrar.fileOf(kubeconfig)];
  };

  test("the Secret and its token, by the token's own right to delete it", async () => {
    await using wire = await startClusterWire(beta);
    let token = '';
    wire.handle = ({ name, headers }) => {
      if (name.startsWith('DELETE ')) token = String(headers.authorization).replace('Bearer ', '');
      return undefined;
    };
    await beta.kubectl(['delete', 'secret', TOKEN_SECRET, ...IN_RELEASE]);
    const before = await versionsOf(beta);
    const args = [...(await throughWire(wire)), ...UNREACHABLE];
    const { message, hint } = await registrar.expectFailure('registration-not-verified', args);
    expect(message).toContain('ECONNREFUSED');
    // Nothing is left for the operator to do.
    expect(hint).not.toContain('delete secret');
    expect(await versionsOf(beta)).toBe(before);
    expect(claimsOf(token)).toMatchObject({ sub: USERNAME });
    const asToken = { kubeconfig: await registrar.fileOf(beta.kubeconfigForToken(token)), mayFail: true };
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
    await registrar.expectFailure('kubernetes-error', await throughWire(wire));
    expect({ isRejected, after: await versionsOf(beta) }).toEqual({ isRejected: true, after: before });
  });

  test('not a Secret that existed before: the hint has the expiry of the token and a command that revokes it', async () => {
    await registrar.bed.cluster('beta').webhook.upgrade({});
    const uid = await uidOf(beta, 'secret', TOKEN_SECRET, ...IN_RELEASE);
    const args = [...asBeta, ...UNREACHABLE, '--duration', '2'];
    const { hint = '' } = await registrar.expectFailure('registration-not-verified', args);
    const [, until = '', command = ''] = /; .* valid until (\S+), .*: (kubectl .*)$/.exec(hint) ?? [];
    expect(Date.parse(until) - Date.now()).toBeGreaterThan(1.9 * 3_600_000);
    expect(await uidOf(beta, 'secret', TOKEN_SECRET, ...IN_RELEASE)).toBe(uid);
    const env = { PATH: `${dirname(tools().kubectl)}:/usr/bin:/bin`, HOME: beta.dir };
    expect(await runCommand('sh', ['-c', command], env)).toMatchObject({ code: 0 });
    await registrar.register(asBeta);
  });
});

describe('a registered cluster', () => {
  test('keeps its registration when its name or the cluster is registered again', async () => {
    await registrar.register(asAlpha);
    const before = await registrar.describe('alpha');
    const [, ...cluster] = asAlpha;
    await registrar.expectFailure('already-registered', asAlpha, { left: ['alpha'] });
    await registrar.expectFailure('duplicate-registration', ['other', ...cluster], { left: ['alpha'] });
    expect((await registrar.describe('alpha')).VersionIdsToStages).toEqual(before.VersionIdsToStages);
  });

  test('gets the UID tag with a replacement, and loses it when the replacement is rolled back', async () => {
    const token = await refresherToken(alpha, '24h');
    await registrar.bed.deployment.registerCluster('alpha', alpha.kubeconfigForToken(token));
    const replace = [...asAlpha, '--replace'];
    await registrar.expectFailure('registration-not-verified', [...replace, ...UNREACHABLE], {
      left: ['alpha'],
    });
    expect(await registrar.user('alpha')).toEqual({ token });
    expect(await registrar.tags('alpha')).toEqual([]);
    expect(await registrar.runOver('alpha')).toMatchObject({ served: true, failed: false });
    await registrar.register(replace);
    expect(await registrar.user('alpha')).not.toEqual({ token });
    expect(await registrar.tags('alpha')).toEqual([
      { Key: TAG.clusterUid, Value: await uidOf(alpha, 'namespace', 'kube-system') },
    ]);
  });

  test('is recognised without a UID tag, unless it is paused; stays paused when it is replaced', async () => {
    const kubeconfig = alpha.kubeconfigForToken(await refresherToken(alpha, '24h'));
    await registrar.bed.deployment.registerCluster('hand', kubeconfig);
    const left = ['hand'];
    await registrar.expectFailure('duplicate-registration', asAlpha, { left });
    const [, ...cluster] = asBeta;
    await registrar.expectFailure('different-cluster', ['hand', ...cluster, '--replace'], { left });
    // The refresher does not contact a paused cluster.
    expect(await registrar.cli.run(['pause', 'hand'])).toMatchObject({ code: 0 });
    await registrar.register(asAlpha);
    expect(await registrar.cli.run(['pause', 'alpha'])).toMatchObject({ code: 0 });
    const { run } = await registrar.register([...asAlpha, '--replace']);
    expect(run).toMatchObject({ isPaused: true });
  });

  test('keeps its current version if Secrets Manager drops the previous one during a rollback', async () => {
    const kubeconfig = alpha.kubeconfigForToken(await refresherToken(alpha, '24h'));
    for (const comment of ['# first', '# second'])
      await registrar.bed.deployment.registerCluster('alpha', `${kubeconfig}${comment}\n`);
    const args = [...asAlpha, '--replace', ...UNREACHABLE];
    await registrar.expectFailure('registration-not-verified', args, { left: ['alpha'] });
    expect(await registrar.kubeconfig('alpha')).toContain('# second');
    const { VersionIdsToStages = {} } = await registrar.describe('alpha');
    // No label leads to the version that was rolled back.
    expect(Object.values(VersionIdsToStages).flat()).toEqual(['AWSCURRENT']);
  });
});

test('--dry-run prints the expected result, and changes nothing in the cluster or in AWS', async () => {
  const before = await versionsOf(alpha);
  const server = 'https://k8s.example:6443';
  expect(await registrar.register([...asAlpha, '--dry-run', '--server', server])).toEqual({
    cluster: 'alpha',
    isRegistered: false,
    server,
    identity: { username: USERNAME, groups: GROUPS },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: true,
  });
  expect(await versionsOf(alpha)).toBe(before);
  expect(await registrar.names()).toEqual([]);
});
