// The test bed itself: real control planes, and an ECR stand-in that issues tokens.
import { randomUUID } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ECRClient, GetAuthorizationTokenCommand } from '@aws-sdk/client-ecr';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type AwsEndpoint, startAwsEndpoint } from './aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from './control-plane.ts';
import { helm } from './helm.ts';

describe('control planes', () => {
  const stack = new AsyncDisposableStack();
  let alpha: ControlPlane;
  let beta: ControlPlane;

  beforeAll(async () => {
    const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
    stack.defer(() => rm(dir, { recursive: true, force: true }));
    const start = async (name: string) => stack.use(await startControlPlane({ name, dir: join(dir, name) }));
    [alpha, beta] = await Promise.all([start('alpha'), start('beta')]);
  });
  afterAll(() => stack.disposeAsync());

  /** Writes a kubeconfig into a new file, for kubectl. */
  async function fileOf(cluster: ControlPlane, yaml: string): Promise<string> {
    const path = join(cluster.dir, `${randomUUID()}.kubeconfig`);
    await writeFile(path, yaml);
    return path;
  }

  /** Returns the user that the API server sees for a kubeconfig. */
  async function whoAmI(cluster: ControlPlane, yaml: string) {
    const kubeconfig = await fileOf(cluster, yaml);
    const { stdout } = await cluster.kubectl(['auth', 'whoami', '-o', 'json'], { kubeconfig });
    return JSON.parse(stdout).status.userInfo as { username: string; groups: string[] };
  }

  test('run side by side without sharing objects', async () => {
    await alpha.kubectl(['create', 'namespace', 'only-in-alpha']);
    const [inAlpha, inBeta] = await Promise.all(
      [alpha, beta].map((cluster) => cluster.kubectl(['get', 'namespace', '-o', 'name'])),
    );
    expect(inAlpha?.stdout).toContain('namespace/only-in-alpha');
    expect(inBeta?.stdout).toContain('namespace/kube-system');
    expect(inBeta?.stdout).not.toContain('only-in-alpha');
  });

  test('assign a loopback address to a Service', async () => {
    const { stdout } = await alpha.kubectl([
      ...['create', 'service', 'clusterip', 'reachable', '--tcp=8443'],
      ...['-o', 'jsonpath={.spec.clusterIP}'],
    ]);
    expect(stdout).toMatch(/^127\.\d+\.\d+\.\d+$/);
  });

  test('authenticate a client certificate of their own authority only, with its groups', async () => {
    const yaml = await alpha.kubeconfigFor('jane', ['developers', 'testers']);
    expect(await whoAmI(alpha, yaml)).toMatchObject({
      username: 'jane',
      groups: expect.arrayContaining(['developers', 'testers']),
    });
    const elsewhere = (await beta.kubeconfigFor('jane', ['developers']))
      .replace(beta.server, alpha.server)
      .replace(base64(beta.caPem), base64(alpha.caPem));
    await expect(whoAmI(alpha, elsewhere)).rejects.toThrow(/Unauthorized|must be logged in/);
  });

  test('authenticate a requested ServiceAccount token, and apply RBAC to it', async () => {
    await alpha.kubectl(['create', 'serviceaccount', 'robot']);
    const { stdout: token } = await alpha.kubectl(['create', 'token', 'robot']);
    const yaml = alpha.kubeconfigForToken(token.trim());
    expect(await whoAmI(alpha, yaml)).toMatchObject({ username: 'system:serviceaccount:default:robot' });
    const denied = await alpha.kubectl(['get', 'secrets'], {
      kubeconfig: await fileOf(alpha, yaml),
      mayFail: true,
    });
    expect(denied.stderr).toContain('Forbidden');
  });

  test('can be reached by helm', async () => {
    const { stdout } = await helm(['list', '--all-namespaces', '-o', 'json'], { cluster: alpha });
    expect(JSON.parse(stdout)).toEqual([]);
  });
});

describe('the ECR endpoint', () => {
  const stack = new AsyncDisposableStack();
  let ecr: AwsEndpoint;
  let client: ECRClient;

  beforeAll(async () => {
    ecr = stack.use(await startAwsEndpoint());
    client = stack.adopt(
      new ECRClient({
        endpoint: ecr.url,
        region: 'eu-central-1',
        credentials: { accessKeyId: 'bed', secretAccessKey: 'bed' },
        maxAttempts: 1,
      }),
      (it) => it.destroy(),
    );
  });
  afterAll(() => stack.disposeAsync());

  async function ask() {
    const { authorizationData } = await client.send(new GetAuthorizationTokenCommand({}));
    const { authorizationToken = '', expiresAt, proxyEndpoint } = authorizationData?.[0] ?? {};
    return { login: Buffer.from(authorizationToken, 'base64').toString(), expiresAt, proxyEndpoint };
  }

  test('returns a new token for each call of the AWS SDK, and records it', async () => {
    const [first, second] = [await ask(), await ask()];
    expect(first.login).not.toBe(second.login);
    expect([first.login, second.login]).toEqual(ecr.calls.map(({ password }) => `AWS:${password}`));
    expect(second.proxyEndpoint).toBe('https://123456789012.dkr.ecr.eu-central-1.amazonaws.com');
    expect(second.expiresAt?.getTime()).toBe(ecr.calls[1]?.expiresAt);
  });

  test('can be controlled from another process', async () => {
    const control = (settings: object) =>
      fetch(`${ecr.url}/_control`, { method: 'POST', body: JSON.stringify(settings) });
    await control({ mode: 'throttle' });
    await expect(ask()).rejects.toMatchObject({ name: 'ThrottlingException' });
    await control({ mode: 'denied' });
    await expect(ask()).rejects.toMatchObject({ name: 'AccessDeniedException' });
    await control({ mode: 'down' });
    await expect(ask()).rejects.toMatchObject({ $metadata: { httpStatusCode: 500 } });
    await control({ mode: 'ok', nextLifetimesSeconds: [60] });
    const lifetimes = [await ask(), await ask()].map(
      ({ expiresAt }) => Number(expiresAt?.getTime()) - Date.now(),
    );
    expect(lifetimes[0]).toBeLessThanOrEqual(60_000);
    expect(lifetimes[1]).toBeGreaterThan(11 * 3_600_000);
    const calls = (await (await fetch(`${ecr.url}/_calls`)).json()) as { outcome: string }[];
    expect(calls.map(({ outcome }) => outcome).slice(-5)).toEqual(['throttle', 'denied', 'down', 'ok', 'ok']);
  });
});

function base64(text: string): string {
  return Buffer.from(text).toString('base64');
}
