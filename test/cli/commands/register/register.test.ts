// Registering as an operator does it, with a deployed stack, real API servers and the chart: what is stored, and that no run
// uses a registration that is not verified. The parts that need no stack have tests of their own. ListSecrets shows nothing
// that a test does, but where the test says so.
import { readFile } from 'node:fs/promises';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import { REGISTERING_STAGE, TAG } from '../../../../contract/names.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';
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

const tokenSecretUid = (cluster: ControlPlane) => uidOf(cluster, 'secret', TOKEN_SECRET, ...IN_RELEASE);

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
    expect(
      Object.values(VersionIdsToStages ?? {})
        .flat()
        .sort(),
    ).toEqual(['AWSCURRENT', 'AWSPREVIOUS']);
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

test('does not complete a registration if the certificate at the address is of another authority', async () => {
  const args = [...asAlpha, '--server', beta.server];
  const { message } = await registrar.expectFailure('registration-not-verified', args, { left: ['alpha'] });
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

  test('says that it may be the proxy, and stores no credential', async () => {
    const { message, hint } = await registrar.expectFailure('token-rejected', throughProxy, {
      left: ['beta'],
    });
    expect(message).toContain(`${proxy.url}/k8s/clusters/c-m-x`);
    expect(hint).toMatch(/proxy.*--server.*kubectl --kubeconfig \S+ --context \S+ get endpointslices /);
    const { VersionIdsToStages = {} } = await registrar.describe('beta');
    expect(Object.values(VersionIdsToStages)).toEqual([['AWSCURRENT']]);
    // The token that the proxy rejected ends, by the operator's own right.
    const uid = await tokenSecretUid(beta);
    await registrar.expectFailure('token-rejected', throughProxy, { left: ['beta'] });
    expect(await tokenSecretUid(beta)).not.toBe(uid);
  });

  test('checks and registers the token at --server', async () => {
    const result = await registrar.register([...throughProxy, '--server', beta.server]);
    expect(result).toMatchObject({ server: beta.server, identity: { username: USERNAME } });
  });

  test('has the refresher check the token if this machine does not reach --server', async () => {
    const args = [...throughProxy, ...UNREACHABLE];
    const { message } = await registrar.expectFailure('registration-not-verified', args, { left: ['beta'] });
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

describe('a registration that is not complete', () => {
  const TAGGED = { Key: TAG.registering, Value: 'true' };
  const unverified = async () => parse(await registrar.kubeconfig('beta', REGISTERING_STAGE)).users[0].user;
  const isRejected = async (token: string) => {
    const asToken = { kubeconfig: await registrar.fileOf(beta.kubeconfigForToken(token)), mayFail: true };
    await expect
      .poll(async () => (await beta.kubectl(['get', 'namespaces'], asToken)).stderr, { timeout: 20_000 })
      .toMatch(/logged in|Unauthorized/);
  };
  beforeEach(async () => {
    const { message, hint } = await registrar.expectFailure(
      'registration-not-verified',
      [...asBeta, ...UNREACHABLE],
      { left: ['beta'] },
    );
    expect(message).toContain('ECONNREFUSED');
    expect(hint).toMatch(/repeat the register command.*ecr-anywhere unregister beta$/);
  });

  test('is used by no run and no command, and status says what to do', async () => {
    expect(await registrar.tags('beta')).toContainEqual(TAGGED);
    registrar.lag.catchUp();
    const { payload } = await registrar.bed.deployment.invoke();
    expect(payload).toMatchObject({ clusters: [] });
    expect(await registrar.runOver('beta')).toMatchObject({ codes: ['registration-incomplete'] });
    expect(await registrar.cli.json(['status'])).toMatchObject({
      clusters: [{ name: 'beta', state: 'incomplete', isRegistering: true }],
    });
    const { stdout } = await registrar.cli.run(['status']);
    expect(stdout).toMatch(/^beta +incomplete .*repeat it, or unregister/m);
    expect(stdout).toContain('→ ecr-anywhere register beta');
    const { findings } = await registrar.cli.json<{ findings: { code?: string }[] }>(['doctor', 'beta']);
    expect(findings.map(({ code }) => code)).toContain('registration-incomplete');
    for (const command of ['pause', 'resume']) {
      const { code, stderr } = await registrar.cli.run([command, 'beta', '--output', 'json']);
      expect({ code, stderr }).toEqual({
        code: 6,
        stderr: expect.stringContaining('"registration-incomplete"'),
      });
    }
    expect(await registrar.cli.run(['refresh', 'beta'])).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('its registration is not complete'),
    });
  });

  test('is completed by the same command, which ends the tokens of the first attempt', async () => {
    const { token } = await unverified();
    await registrar.register(asBeta);
    expect(await registrar.tags('beta')).not.toContainEqual(TAGGED);
    expect(await registrar.user('beta')).not.toEqual({ token });
    expect(await registrar.runOver('beta')).toMatchObject({ served: true, failed: false });
    await isRejected(token);
  });

  test('is completed although the first request for a token of the second attempt fails', async () => {
    await using wire = await startClusterWire(beta);
    wire.handle = ({ name }) => (name.endsWith('/token') ? { reply: { status: 500, body: 'x' } } : undefined);
    const kubeconfig = wire.through(await readFile(beta.adminKubeconfigPath, 'utf8'));
    const args = ['beta', '--kubeconfig', await registrar.fileOf(kubeconfig)];
    await registrar.expectFailure('kubernetes-error', args, { left: ['beta'] });
    await registrar.register(asBeta);
  });

  test('is for its own cluster only', async () => {
    const [, ...cluster] = asAlpha;
    await registrar.expectFailure('different-cluster', ['beta', ...cluster], { left: ['beta'] });
  });

  test('is removed by unregister', async () => {
    // The refresher does not reach the registered server, so it cannot revoke the token.
    const failed = await registrar.cli.run(['unregister', 'beta', '--output', 'json']);
    expect(failed.stderr).toContain('"token-not-revoked"');
    expect(await registrar.cli.run(['unregister', 'beta', '--keep-token'])).toMatchObject({ code: 0 });
    expect(await registrar.names()).toEqual([]);
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

  test('keeps its credential and its tags until the replacement is verified, and gets the UID tag then', async () => {
    const token = await refresherToken(alpha, '24h');
    await registrar.bed.deployment.registerCluster('alpha', alpha.kubeconfigForToken(token));
    const replace = [...asAlpha, '--replace'];
    const { message } = await registrar.expectFailure(
      'registration-not-verified',
      [...replace, ...UNREACHABLE],
      { left: ['alpha'] },
    );
    expect(message).toContain('alpha keeps its earlier credential');
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
    registrar.lag.catchUp();
    const left = ['hand'];
    await registrar.expectFailure('duplicate-registration', asAlpha, { left });
    const [, ...cluster] = asBeta;
    await registrar.expectFailure('different-cluster', ['hand', ...cluster, '--replace'], { left });
    // The refresher does not contact a paused cluster.
    expect(await registrar.cli.run(['pause', 'hand'])).toMatchObject({ code: 0 });
    registrar.lag.catchUp();
    await registrar.register(asAlpha);
    expect(await registrar.cli.run(['pause', 'alpha'])).toMatchObject({ code: 0 });
    const { run } = await registrar.register([...asAlpha, '--replace']);
    expect(run).toMatchObject({ isPaused: true });
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
