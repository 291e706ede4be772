// Registering EKS clusters with a deployed stack: a real API server accepts the token of the deployed function because of
// the access entry, no credential is stored, and a failure leaves the entry as it was.
import { chmod, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest';
import { stringify } from 'yaml';
import type { ErrorCode } from '../../../../cli/output/errors.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../../bed/control-plane.ts';
import { type EksDouble, startEks } from '../../../functions/eks.ts';
import { type Authenticator, startAuthenticator } from '../../../functions/eks-authenticator.ts';
import { functionPrincipal } from '../../../functions/function-principal.ts';
import { GROUP, Registrar } from './registrar.ts';

const REGION = 'eu-central-1';
/** Not in the stack's setting eksRegions. */
const ELSEWHERE = 'us-east-1';

let stack: AsyncDisposableStack;
let registrar: Registrar;
let eks: EksDouble;
let sts: AwsEndpoint;
let authenticator: Authenticator;
let prod: ControlPlane;
let role: string;
/** The key of the role's access entry in the cluster prod. */
let entry: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [eks, sts] = await Promise.all([startEks(), startAwsEndpoint()]);
  stack.use(eks);
  stack.use(sts);
  authenticator = stack.use(await startAuthenticator(eks, sts.url));
  registrar = stack.use(
    await Registrar.start(
      {
        clusters: ['prod'],
        context: { eksRegions: REGION, eksDiscovery: REGION },
        functionEnv: { AWS_ENDPOINT_URL_EKS: eks.url },
        controlPlanes: { prod: { tokenWebhook: authenticator.kubeconfigFor('prod') } },
      },
      { AWS_ENDPOINT_URL_EKS: eks.url },
    ),
  );
  const { bed } = registrar;
  prod = bed.cluster('prod').controlPlane;
  Object.assign(sts.settings.principals, functionPrincipal(bed.deployment));
  role = bed.deployment.outputs.RoleArn ?? '';
  entry = `prod ${role}`;
  await installAwsCli();
});
afterAll(() => stack.disposeAsync());

/** The cluster prod as EKS describes it. */
const prodInEks = () => ({ endpoint: prod.server, ca: prod.caPem, region: REGION });

beforeEach(async () => {
  // Tokens of the same second are equal, and the API server caches the identity of a token.
  await sleep(1_100);
  eks.clusters.set('prod', prodInEks());
});
afterEach(async () => {
  await registrar.reset();
  for (const map of [eks.clusters, eks.entries]) map.clear();
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
  const path = join(dirname(registrar.cli.bundle), 'aws');
  await writeFile(path, `#!/bin/sh\ncat <<'EOF'\n${JSON.stringify(credential)}\nEOF\n`);
  await chmod(path, 0o700);
}

/** Arguments of register, with a kubeconfig as `aws eks update-kubeconfig` writes it. */
async function argsOf(region = REGION): Promise<string[]> {
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
  return ['eks-prod', '--kubeconfig', await registrar.fileOf(stringify(config)), '--eks'];
}

/** Expects the registration to fail with this code, and to leave these access entries. @param left names that are registered */
async function expectFailure(
  code: ErrorCode,
  args: readonly string[],
  entries: Readonly<Record<string, readonly string[]>>,
  left: readonly string[] = [],
) {
  const failure = await registrar.expectFailure(code, args, { left });
  expect(Object.fromEntries(eks.entries)).toEqual(entries);
  return failure;
}

/** Whether a request is the operator's, and not the refresher's. */
const isOperator = ({ accessKeyId }: { accessKeyId: string }) =>
  accessKeyId === registrar.bed.operatorEnv.AWS_ACCESS_KEY_ID;

test('creates the access entry, waits until the API server applies it, and stores no credential', async () => {
  authenticator.lag = 2;
  expect(await registrar.register(await argsOf())).toMatchObject({
    isRegistered: true,
    accessEntry: 'created',
    isRenewed: false,
    identity: {
      username: expect.stringMatching(/^arn:aws:sts::\d+:assumed-role\//),
      groups: expect.arrayContaining([GROUP]),
    },
    run: { served: true },
  });
  expect(authenticator.lag).toBe(0);
  expect(Object.fromEntries(eks.entries)).toEqual({ [entry]: [GROUP] });
  expect(authenticator.reviews.at(-1)).toEqual({ cluster: 'prod', role });
  const { exec, ...credentials } = await registrar.user('eks-prod');
  expect({ command: exec.command, credentials }).toEqual({ command: 'aws', credentials: {} });
  expect(await registrar.runOver('eks-prod')).toMatchObject({ served: true, failed: false });
});

test('takes the name of the cluster from --eks-name if the context does not name it', async () => {
  const args = ['eks-prod', '--kubeconfig', prod.adminKubeconfigPath];
  expect(await registrar.register([...args, '--eks-name', 'prod'])).toMatchObject({ run: { served: true } });
});

test('--dry-run prints the expected result, and changes no entry', async () => {
  expect(await registrar.register([...(await argsOf()), '--dry-run'])).toEqual({
    cluster: 'eks-prod',
    isRegistered: false,
    server: prod.server,
    identity: { username: role, groups: [GROUP, 'system:authenticated'] },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: false,
    accessEntry: 'created',
  });
  expect(eks.changes).toEqual([]);
  expect(await registrar.names()).toEqual([]);
});

test('is not complete if the stack does not have the region, and names the setting', async () => {
  eks.clusters.set('prod', { ...prodInEks(), region: ELSEWHERE });
  // The role's policy allows the regions of the setting only.
  eks.isAllowed = (request) => isOperator(request) || request.region === REGION;
  const args = await argsOf(ELSEWHERE);
  const entries = { [entry]: [GROUP] };
  const { hint } = await expectFailure('registration-not-verified', args, entries, ['eks-prod']);
  expect(hint).toContain(`npx cdk deploy -c eksRegions=${ELSEWHERE} `);
  // The same command finds the entry and changes nothing, and completes the registration once the region is allowed.
  eks.isAllowed = () => true;
  await registrar.register(args);
  expect(eks.changes).toEqual(['CreateAccessEntry']);
});

test('is not complete if one of the other groups of the entry makes the role an administrator', async () => {
  eks.entries.set(entry, ['platform']);
  await prod.kubectl([
    ...['create', 'clusterrolebinding', 'platform', '--clusterrole=cluster-admin', '--group=platform'],
  ]);
  const args = await argsOf();
  try {
    const left = { [entry]: ['platform', GROUP] };
    const { message } = await expectFailure('identity-not-restricted', args, left, ['eks-prod']);
    expect(message).toContain('It may do anything.');
    expect(eks.changes).toEqual(['UpdateAccessEntry']);
    await expectFailure('identity-not-restricted', [...args, '--dry-run'], left, ['eks-prod']);
  } finally {
    await prod.kubectl(['delete', 'clusterrolebinding', 'platform']);
  }
});

test('is not complete if --eks-name names a different cluster than the context', async () => {
  const dir = join(registrar.bed.dir, 'other');
  const tokenWebhook = authenticator.kubeconfigFor('other');
  await using other = await startControlPlane({ name: 'other', dir, tokenWebhook });
  eks.clusters.set('other', { endpoint: other.server, ca: other.caPem, region: REGION });
  const reads = ['--verb=list', '--resource=namespaces,secrets'];
  await other.kubectl(['create', 'clusterrole', 'refreshers', ...reads]);
  await other.kubectl([
    ...['create', 'clusterrolebinding', 'refreshers', '--clusterrole=refreshers', `--group=${GROUP}`],
  ]);
  const args = [...(await argsOf()), '--eks-name', 'other'];
  await expectFailure('different-cluster', args, { [`other ${role}`]: [GROUP] }, ['eks-prod']);
});

test('rejects a cluster that the refresher finds by its tag, until the tag is removed', async () => {
  const { bed, cli } = registrar;
  eks.clusters.set('prod', { ...prodInEks(), tags: { 'ecr-anywhere.centml.ai/managed': 'true' } });
  eks.entries.set(entry, [GROUP]);
  expect((await bed.deployment.invoke({})).payload).toMatchObject({ clusters: [{ served: true }] });
  await expectFailure('found-by-tag', await argsOf(), { [entry]: [GROUP] });
  // The same without --eks.
  await expectFailure('found-by-tag', ['prod', '--kubeconfig', prod.adminKubeconfigPath], {
    [entry]: [GROUP],
  });
  // The tag has been removed since the last run.
  eks.clusters.set('prod', prodInEks());
  const arn = `arn:aws:eks:${REGION}:123456789012:cluster/prod`;
  expect(await cli.run(['register', ...(await argsOf())])).toMatchObject({
    code: 0,
    stderr: expect.stringContaining(`: ${arn}.\n`),
  });
});
