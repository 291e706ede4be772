// The chart's ways to give the webhook an AWS identity, on a real API server: STS receives what the chart configures.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import { type AwsEndpoint, type StsCall, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { installWebhook, NAMESPACE, RELEASE, type WebhookInstallation } from '../../bed/webhook.ts';
import { commandsOf, Shell } from '../../docs/shell.ts';

const role = (name: string) => `arn:aws:iam::123456789012:role/${name}`;
const KEY = 'AKIAIOSFODNN7EXAMPLE';

let stack = new AsyncDisposableStack();
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let webhook: WebhookInstallation;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-identity-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  ecr = stack.use(await startAwsEndpoint());
  cluster = stack.use(await startControlPlane({ name: 'identity', dir }));
  await createKeys(dir);
  await cluster.kubectl(['create', 'namespace', 'team']);
  await cluster.kubectl(['label', 'namespace', 'team', `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`]);
  webhook = stack.use(
    await installWebhook(cluster, {
      ecrUrl: ecr.url,
      document: { aws: { webIdentity: { roleArn: role('webhook'), expirationSeconds: 1200 } } },
    }),
  );
});
afterAll(() => stack.disposeAsync());

/** Types the page's commands for static keys, which create the namespace too. */
async function createKeys(dir: string): Promise<void> {
  const page = await readFile(new URL('../../../docs/aws-identity.md', import.meta.url), 'utf8');
  const [, section = ''] = /^## Static keys\n([\s\S]*?)^## /m.exec(page) ?? [];
  const shell = await Shell.start(dir, { KUBECONFIG: cluster.adminKubeconfigPath }, dir);
  shell.set('id', KEY);
  shell.set('secret', 'secret');
  const commands = commandsOf(section);
  expect(commands.length).toBeGreaterThan(1);
  for (const { line } of commands) expect(await shell.type(line)).toMatchObject({ code: 0 });
}

/** Creates a Secret. @returns the principal that requested its ECR token, and the calls to STS */
async function tokenFor(name: string): Promise<{ principal: string | undefined; sts: readonly StsCall[] }> {
  const before = ecr.stsCalls.length;
  await cluster.kubectl(['create', '--namespace', 'team', '-f', '-'], {
    input: JSON.stringify({
      apiVersion: 'v1',
      kind: 'Secret',
      type: SECRET_TYPE,
      metadata: { name, labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    }),
  });
  return { principal: ecr.calls.at(-1)?.role, sts: ecr.stsCalls.slice(before) };
}

/** Upgrades the release with other values and restarts the webhook, as a rollout does. */
async function rollOut(document: object): Promise<void> {
  await webhook.upgrade(document);
  await webhook.syncVolumes();
  await webhook.program.stop();
  await webhook.start();
}

test('with aws.webIdentity, assumes the role with a token of the ServiceAccount whose only audience is AWS', async () => {
  const { principal, sts } = await tokenFor('web-identity');
  expect(principal).toBe(role('webhook'));
  expect(sts).toMatchObject([{ action: 'AssumeRoleWithWebIdentity', role: role('webhook'), ok: true }]);
  const [, claims = ''] = sts[0]?.webIdentityToken?.split('.') ?? [];
  const { aud, sub, exp, iat } = JSON.parse(Buffer.from(claims, 'base64url').toString());
  expect([aud, sub, exp - iat]).toEqual([
    ['sts.amazonaws.com'],
    `system:serviceaccount:${NAMESPACE}:${RELEASE}`,
    1200,
  ]);
});

test('with aws.credentialsSecret and aws.assumeRole, assumes the role with the keys of the Secret', async () => {
  await rollOut({
    aws: { credentialsSecret: 'aws', assumeRole: { roleArn: role('webhook'), externalId: 'cluster-1' } },
  });
  const { principal, sts } = await tokenFor('keys');
  expect(principal).toBe(role('webhook'));
  expect(sts).toMatchObject([
    {
      action: 'AssumeRole',
      role: role('webhook'),
      externalId: 'cluster-1',
      accessKeyId: KEY,
      region: 'eu-central-1',
    },
  ]);
});

test('assumes the role of a registry with the role of aws.assumeRole', async () => {
  await rollOut({
    aws: { credentialsSecret: 'aws', assumeRole: { roleArn: role('webhook') } },
    registries: [
      { host: '210987654321.dkr.ecr.us-east-1.amazonaws.com', namespaces: ['team'], roleArn: role('pull') },
    ],
  });
  const { principal, sts } = await tokenFor('role');
  expect(principal).toBe(role('pull'));
  expect(sts.map(({ role: arn, by }) => [arn, by])).toEqual([
    [role('webhook'), ''],
    [role('pull'), role('webhook')],
  ]);
});

test('with aws.credentialsSecret alone, requests ECR tokens with its keys', async () => {
  await rollOut({ aws: { credentialsSecret: 'aws' } });
  expect(await tokenFor('keys-alone')).toEqual({ principal: '', sts: [] });
});
