// Tests keyless clusters: two real API servers that trust the issuer of an AWS account, a run of the refresher, kubectl
// with the command line, and tokens that the API servers must refuse.

import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { GetWebIdentityTokenCommand, STSClient } from '@aws-sdk/client-sts';
import { Agent, request } from 'undici';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { buildCli } from '../../../../cli/build.ts';
import { clusterAudience, SIGNING_ALGORITHM, TOKEN_SECONDS } from '../../../../contract/keyless.ts';
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { keylessTokens } from '../../../../functions/refresher/access/keyless.ts';
import { readEvent } from '../../../../functions/refresher/event.ts';
import { run } from '../../../../functions/refresher/run/run.ts';
import { ENVIRONMENT } from '../../../../functions/refresher/settings.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../../bed/control-plane.ts';
import { IS_OLDEST_KUBERNETES, tools } from '../../../bed/toolchain.ts';
import { type Conditions, type Issuer, startIssuer } from '../../../bed/web-identity.ts';
import { resources, synth } from '../../../infra/synth.ts';
import { startClusterStateTable } from '../../cluster-state-table.ts';
import { startEks } from '../../eks.ts';
import { bundleIn } from '../../invoke-bundle.ts';
import { NO_EKS, type RealCluster, startRealCluster } from '../../real-cluster.ts';
import { startSecretsManager } from '../../secrets-manager.ts';

const STAGE = 'Test';
const KEY = 'AKIAIOSFODNN7EXAMPLE';
const ROLE = 'arn:aws:iam::123456789012:role/refresher';

const PRINCIPAL = {
  secretAccessKey: 'secret',
  arn: 'arn:aws:sts::123456789012:assumed-role/refresher/run',
  account: '123456789012',
  userId: 'AROAEXAMPLE:run',
};

let stack: AsyncDisposableStack;
let dir: string;
let env: Record<string, string>;
let issuer: Issuer;
let aws: AwsEndpoint;
let a: RealCluster;
let b: ControlPlane;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  await mkdir(join(dir, 'bin'));
  await buildCli(join(dir, 'bin', 'ecr-anywhere'));
  [issuer, aws] = await Promise.all([startIssuer(), startAwsEndpoint()]);
  stack.use(issuer);
  stack.use(aws);
  aws.settings.issuer = issuer;
  aws.settings.webIdentityConditions = grantOf(STAGE);
  aws.settings.principals[KEY] = PRINCIPAL;
  env = {
    ...aws.env,
    AWS_ACCESS_KEY_ID: KEY,
    AWS_SECRET_ACCESS_KEY: 'secret',
    AWS_REGION: 'eu-central-1',
    PATH: [join(dir, 'bin'), dirname(process.execPath), '/usr/bin', '/bin'].join(delimiter),
    HOME: dir,
  };
  for (const [name, value] of Object.entries(env)) if (name.startsWith('AWS_')) vi.stubEnv(name, value);
  [a, b] = await Promise.all([
    startRealCluster({ authentication: await authenticationOf('a', 'v1beta1') }),
    // v1 is of Kubernetes 1.34.
    startControlPlane({
      name: 'b',
      dir: join(dir, 'b'),
      authentication: await authenticationOf('b', IS_OLDEST_KUBERNETES ? 'v1beta1' : 'v1'),
    }),
  ]);
  stack.use(a);
  stack.use(b);
  await a.createNamespace('team');
  await a.createSecrets([{ namespace: 'team', name: 'pull' }]);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
});

/** The STS statements of the policy that the CDK app gives the role. */
function grantOf(stage: string): Conditions {
  const roles = Object.values(resources(synth({ keyless: true, stackName: stage }), 'AWS::IAM::Role'));
  const policies = roles.flatMap(
    ({ Properties }) =>
      Properties.Policies as {
        PolicyDocument: { Statement: { Action: unknown; Condition?: Conditions }[] };
      }[],
  );
  const statement = policies
    .flatMap(({ PolicyDocument }) => PolicyDocument.Statement)
    .find(({ Action }) => Action === 'sts:GetWebIdentityToken');
  if (!statement?.Condition) throw new Error('there is no grant');
  return statement.Condition;
}

const cli = (...args: string[]) => promisify(execFile)(join(dir, 'bin', 'ecr-anywhere'), args, { env });

/** The configuration that the command line prints, with the certificate authority of the test's issuer. */
async function authenticationOf(cluster: string, apiVersion: string): Promise<string> {
  const { stdout } = await cli(
    ...['authentication-config', '--cluster', cluster, '--stack-name', STAGE, '--api-version', apiVersion],
    ...['--issuer', issuer.url, '--role-arn', ROLE],
  );
  const config = parse(stdout);
  config.jwt[0].issuer.certificateAuthority = issuer.caPem;
  return stringify(config);
}

/** A kubeconfig without a credential. */
function kubeconfigOf({ server, caPem }: ControlPlane, cluster: string, stage = STAGE): string {
  const exec = {
    apiVersion: 'client.authentication.k8s.io/v1',
    interactiveMode: 'Never',
    command: 'ecr-anywhere',
    args: ['get-token', '--cluster', cluster, '--stack-name', stage],
  };
  return stringify({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': cluster,
    contexts: [{ name: cluster, context: { cluster, user: 'refresher' } }],
    clusters: [
      {
        name: cluster,
        cluster: { server, 'certificate-authority-data': Buffer.from(caPem).toString('base64') },
      },
    ],
    users: [{ name: 'refresher', user: { exec } }],
  });
}

/** Runs the refresher over clusters by their registered names. */
async function runOn(
  clusters: Readonly<Record<string, string>>,
  event: object = {},
  stage?: string | null,
  clusterDeadlineMs = 20_000,
) {
  const secrets = Object.entries(clusters).map(([name, text]) => [`${CLUSTERS_PREFIX}${name}`, text]);
  await using registry = await startSecretsManager(Object.fromEntries(secrets));
  const keyless = keylessTokens({
    region: 'eu-central-1',
    stage: stage === null ? undefined : (stage ?? STAGE),
    clusterDeadlineMs,
  });
  return await run(
    { secrets: registry.client, eks: NO_EKS, keyless },
    readEvent(event),
    {
      clusterDeadlineMs,
      clusterConcurrency: 5,
      region: 'eu-central-1',
      allowLocalServers: true,
      eksDiscovery: [],
    },
    Date.now,
    AbortSignal.timeout(30_000),
    () => {},
  );
}

test('the bundled function refreshes a keyless cluster and an EKS cluster', async () => {
  const table = stack.use(await startClusterStateTable(join(dir, 'aws')));
  // The local AWS of the table accepts only this key, so the refresher uses it here.
  const { accessKeyId, secretAccessKey } = table.emulator.clientConfig.credentials;
  aws.settings.principals[accessKeyId] = { ...PRINCIPAL, secretAccessKey };
  const eks = stack.use(await startEks());
  eks.clusters.set('prod', { endpoint: a.controlPlane.server, ca: a.controlPlane.caPem });
  const ofEks = parse(kubeconfigOf(a.controlPlane, 'a'));
  ofEks.users[0].user.exec = { command: 'aws', args: ['eks', 'get-token', '--cluster-name', 'prod'] };
  const registry = stack.use(
    await startSecretsManager({
      [`${CLUSTERS_PREFIX}a`]: kubeconfigOf(a.controlPlane, 'a'),
      [`${CLUSTERS_PREFIX}eks`]: stringify(ofEks),
    }),
  );
  const invoke = bundleIn(join(dir, 'bundle'));
  const { answer } = await invoke({
    event: { force: true },
    env: {
      ...env,
      ...table.emulator.env,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: registry.url,
      AWS_ENDPOINT_URL_EKS: eks.url,
      [ENVIRONMENT.stateTable]: table.name,
      [ENVIRONMENT.topic]: 'arn:aws:sns:eu-central-1:111122223333:alarms',
      [ENVIRONMENT.stackName]: 'EcrAnywhere',
      [ENVIRONMENT.keylessStage]: STAGE,
    },
  });
  expect(answer.clusters).toEqual([
    expect.objectContaining({ cluster: 'a', served: true, failed: false, outcomes: { refreshed: 1 } }),
    // This API server has no EKS authenticator, so the test can only check that the token arrives and is refused.
    expect.objectContaining({ cluster: 'eks', served: false, reason: expect.stringContaining('HTTP 401') }),
  ]);
});

test('a run succeeds with a kubeconfig without a credential', async () => {
  const kubeconfig = kubeconfigOf(a.controlPlane, 'a');
  const [report] = await runOn({ a: kubeconfig }, { force: true });
  expect(report).toMatchObject({ served: true, failed: false, managed: 1, outcomes: { refreshed: 1 } });
  expect(aws.stsCalls.at(-1)).toMatchObject({ action: 'GetWebIdentityToken', role: 'ecr-anywhere:Test:a' });
});

test('kubectl works with the same kubeconfig as the same user', async () => {
  const file = join(dir, 'kubeconfig');
  await writeFile(file, kubeconfigOf(a.controlPlane, 'a'));
  const kubectl = (...args: string[]) =>
    promisify(execFile)(tools().kubectl, ['--kubeconfig', file, ...args], { env });
  expect((await kubectl('get', 'namespaces', '-o', 'name')).stdout).toContain('namespace/team');
  const whoami = JSON.parse((await kubectl('auth', 'whoami', '-o', 'json')).stdout);
  expect(whoami.status.userInfo).toMatchObject({
    username: `ecr-anywhere:${ROLE}`,
    groups: expect.arrayContaining(['ecr-anywhere:refreshers']),
  });
  await expect(kubectl('--namespace', 'team', 'delete', 'secret', 'pull')).rejects.toThrow(
    /Forbidden|forbidden/,
  );
});

describe('the policy of the refresher’s role allows', () => {
  const request = {
    Audience: [clusterAudience(STAGE, 'a')],
    DurationSeconds: TOKEN_SECONDS,
    SigningAlgorithm: SIGNING_ALGORITHM,
  };
  const ask = (changes: object) =>
    new STSClient({ region: 'eu-central-1' }).send(
      new GetWebIdentityTokenCommand({ ...request, ...changes }),
    );

  test('a token for each cluster of its stack', async () => {
    const names = ['a', 'team/b', 'c_d+e=f.g@h-i'].map((name) => clusterAudience(STAGE, name));
    for (const Audience of [...names.map((name) => [name]), names])
      expect((await ask({ Audience })).WebIdentityToken).toMatch(/^eyJ/);
  });

  test.each([
    { title: 'another stack', changes: { Audience: [clusterAudience('Other', 'a')] } },
    {
      title: 'a stack whose name begins with the same characters',
      changes: { Audience: [clusterAudience(`${STAGE}2`, 'a')] },
    },
    { title: 'another audience', changes: { Audience: ['sts.amazonaws.com'] } },
    { title: 'a cluster and another audience', changes: { Audience: [...request.Audience, 'vault'] } },
    { title: 'a longer lifetime', changes: { DurationSeconds: 3_600 } },
    { title: 'no lifetime', changes: { DurationSeconds: undefined } },
    { title: 'another algorithm', changes: { SigningAlgorithm: 'RS256' } },
  ])('no token with $title', async ({ changes }) => {
    await expect(ask(changes)).rejects.toMatchObject({ name: 'AccessDenied' });
  });
});

describe('the API server', () => {
  /** The HTTP status of a request with a token. */
  async function statusOf({ server, caPem }: ControlPlane, token: string): Promise<number> {
    const dispatcher = new Agent({ connect: { ca: caPem } });
    try {
      const { statusCode, body } = await request(`${server}/api/v1/namespaces`, {
        dispatcher,
        headers: { authorization: `Bearer ${token}` },
      });
      await body.dump();
      return statusCode;
    } finally {
      await dispatcher.close();
    }
  }
  const claims = { sub: ROLE, aud: clusterAudience(STAGE, 'a'), expiresIn: 900 };

  test('accepts a token of the role for this cluster, as this test signs it', async () => {
    expect(await statusOf(a.controlPlane, issuer.sign(claims))).toBe(200);
    expect(await statusOf(a.controlPlane, issuer.sign({ ...claims, aud: [claims.aud] }))).toBe(200);
  });

  test('refuses the token of another cluster', async () => {
    const forB = issuer.sign({ ...claims, aud: clusterAudience(STAGE, 'b') });
    expect(await statusOf(b, issuer.sign(claims))).toBe(401);
    expect(await statusOf(a.controlPlane, forB)).toBe(401);
    // Cluster B authenticates it, and grants it nothing.
    expect(await statusOf(b, forB)).toBe(403);
  });

  test.each([
    { title: 'another audience', wrong: { aud: 'sts.amazonaws.com' } },
    { title: 'the same cluster of another stack', wrong: { aud: clusterAudience('Other', 'a') } },
    { title: 'an audience that begins with the same characters', wrong: { aud: `${claims.aud}a` } },
    { title: 'both audiences in one token', wrong: { aud: [claims.aud, clusterAudience(STAGE, 'b')] } },
    { title: 'an expired token', wrong: { expiresIn: -60 } },
    { title: 'another role', wrong: { sub: 'arn:aws:iam::123456789012:role/other' } },
    { title: 'a role whose name begins with the same characters', wrong: { sub: `${ROLE}2` } },
    {
      title: 'the same role in another account',
      wrong: { sub: ROLE.replace('123456789012', '210987654321') },
    },
    { title: 'the account itself', wrong: { sub: 'arn:aws:iam::123456789012:root' } },
  ])('refuses $title', async ({ wrong }) => {
    expect(await statusOf(a.controlPlane, issuer.sign({ ...claims, ...wrong }))).toBe(401);
  });

  test('refuses another issuer, also with the name of this one', async () => {
    await using other = await startIssuer();
    expect(await statusOf(a.controlPlane, other.sign(claims))).toBe(401);
    const [, payload] = issuer.sign(claims).split('.');
    const [header, , signature] = other.sign(claims).split('.');
    expect(await statusOf(a.controlPlane, [header, payload, signature].join('.'))).toBe(401);
  });

  test('refuses a token without a signature', async () => {
    const [, payload] = issuer.sign(claims).split('.');
    const none = Buffer.from('{"alg":"none","typ":"JWT"}').toString('base64url');
    expect(await statusOf(a.controlPlane, `${none}.${payload}.`)).toBe(401);
  });
});

describe('a run of the refresher', () => {
  test('requests no token for a kubeconfig that is registered under another name', async () => {
    const before = aws.stsCalls.length;
    const [report] = await runOn({ b: kubeconfigOf(a.controlPlane, 'a') });
    expect(report).toMatchObject({
      served: false,
      reason:
        'the kubeconfig is for the cluster a and registered as b: register it under its name, or create it again',
    });
    expect(aws.stsCalls).toHaveLength(before);
  });

  test('fails if the kubeconfig of cluster B has the server of cluster A', async () => {
    const [report] = await runOn({ b: kubeconfigOf(a.controlPlane, 'b') });
    expect(report).toMatchObject({
      ...{ served: false, failedAt: 'credential' },
      reason: expect.stringContaining('HTTP 401'),
    });
  });

  test('fails for a kubeconfig of another stack, and without the setting keyless', async () => {
    const [other] = await runOn({ a: kubeconfigOf(a.controlPlane, 'a', 'Other') });
    expect(other?.reason).toBe("the kubeconfig is for the stack Other, and this refresher's stack is Test");
    expect(other?.failedAt).toBe('kubeconfig');
    const [none] = await runOn({ a: kubeconfigOf(a.controlPlane, 'a') }, {}, null);
    expect(none?.reason).toBe('"ecr-anywhere get-token" needs the CDK setting keyless');
    expect(none?.failedAt).toBe('setting');
  });

  test('fails keyless clusters at their deadline if STS does not respond, and serves the others', async () => {
    const silent = createServer(() => {}).listen(0, '127.0.0.1');
    await once(silent, 'listening');
    const address = silent.address();
    const port = typeof address === 'object' ? address?.port : undefined;
    vi.stubEnv('AWS_ENDPOINT_URL_STS', `http://127.0.0.1:${port}`);
    try {
      const [keyless, other] = await runOn(
        { a: kubeconfigOf(a.controlPlane, 'a'), other: a.kubeconfig },
        {},
        STAGE,
        3_000,
      );
      expect(keyless?.codes).toEqual(['cluster-time-up']);
      expect(other).toMatchObject({ served: true, failed: false });
    } finally {
      vi.stubEnv('AWS_ENDPOINT_URL_STS', aws.url);
      silent.closeAllConnections();
      silent.close();
    }
  });

  test('fails with the command to enable federation if the account lacks it', async () => {
    aws.settings.issuer = undefined;
    const [report] = await runOn({ a: kubeconfigOf(a.controlPlane, 'a') });
    aws.settings.issuer = issuer;
    expect(report?.reason).toMatch(
      /OutboundWebIdentityFederationDisabledException.*aws iam enable-outbound-web-identity-federation/,
    );
  });
});
