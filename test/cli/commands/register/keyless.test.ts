// Registering keyless clusters: register prints what the API server needs, verifies the registration by a token of the
// deployed function, and stores no credential.

import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  GetSecretValueCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import type { ErrorCode } from '../../../../cli/output/errors.ts';
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';
import { deployStack } from '../../../bed/deploy.ts';
import { Bed } from '../../../bed/up.ts';
import { type Issuer, startIssuer } from '../../../bed/web-identity.ts';
import { functionPrincipal } from '../../../functions/function-principal.ts';
import { type CommandLine, type Ended, type RunOptions, startCommandLine } from '../../command-line.ts';

const GROUP = 'ecr-anywhere:refreshers';
const CONTEXT = { scheduleEnabled: false, clusterDeadlineSeconds: 20 };
/** An API server with this file accepts tokens of no issuer. */
const NO_ISSUER: object = { apiVersion: 'apiserver.config.k8s.io/v1', kind: 'AuthenticationConfiguration' };
/** Seconds. An API server reloads its file within about a minute, and often sooner. */
const RELOAD_TIMEOUT = '90';

let stack: AsyncDisposableStack;
let bed: Bed;
let cli: CommandLine;
let secrets: SecretsManagerClient;
let issuer: Issuer;
let sts: AwsEndpoint;
let own: ControlPlane;
let role: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [issuer, sts] = await Promise.all([startIssuer(), startAwsEndpoint()]);
  stack.use(issuer);
  stack.use(sts);
  sts.settings.issuer = issuer;
  bed = stack.use(
    await Bed.create({
      clusters: ['own'],
      context: { ...CONTEXT, keyless: true },
      registersClusters: false,
      functionEnv: { AWS_ENDPOINT_URL_STS: sts.url },
      controlPlanes: { own: { authentication: stringify(NO_ISSUER) } },
    }),
  );
  await bed.start();
  own = bed.cluster('own').controlPlane;
  role = bed.deployment.outputs.RoleArn ?? '';
  const { account, clientConfig } = bed.deployment.emulator;
  Object.assign(sts.settings.principals, functionPrincipal(bed.deployment), {
    [clientConfig.credentials.accessKeyId]: {
      secretAccessKey: clientConfig.credentials.secretAccessKey,
      arn: `arn:aws:sts::${account}:assumed-role/operator/me`,
      ...{ account, userId: 'AROAEXAMPLE:me' },
    },
  });
  cli = stack.use(await startCommandLine({ ...bed.operatorEnv, AWS_ENDPOINT_URL_STS: sts.url }));
  secrets = new SecretsManagerClient(clientConfig);
}, 300_000);
afterAll(() => stack.disposeAsync());
afterEach(async () => {
  sts.settings.issuer = issuer;
  for (const name of await registeredNames()) await bed.deployment.unregisterCluster(name);
});

const register = (args: readonly string[] = [], options?: RunOptions): Promise<Ended> =>
  cli.run(['register', 'own', '--kubeconfig', own.adminKubeconfigPath, '--keyless', ...args], options);

async function registeredNames(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
  return SecretList.map(({ Name = '' }) => Name.replace(CLUSTERS_PREFIX, ''));
}

async function storedKubeconfig(name: string): Promise<string> {
  const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` });
  return (await secrets.send(command)).SecretString ?? '';
}

/** Replaces the configuration of the API server, as its administrator does. */
async function configure(config: object): Promise<void> {
  const path = join(own.dir, 'authentication.yaml');
  await writeFile(`${path}.new`, stringify(config));
  await rename(`${path}.new`, path);
}

/** Adds the certificate authority of the test's issuer. That of AWS has a public certificate. */
function withAuthority(authenticationConfig: string) {
  const config = parse(authenticationConfig);
  config.jwt[0].issuer.certificateAuthority = issuer.caPem;
  return config;
}

interface Failure {
  readonly code: ErrorCode;
  readonly exitCode: number;
  readonly message: string;
  readonly hint: string;
}

/** Expects the registration to fail with this code and exit code, and to store nothing. */
async function expectFailure(
  code: ErrorCode,
  exitCode: number,
  args: readonly string[] = [],
  options?: RunOptions,
): Promise<Failure> {
  const ended = await register([...args, '--output', 'json', '--quiet'], options);
  expect({ code: ended.code, stdout: ended.stdout }, ended.stderr).toEqual({ code: exitCode, stdout: '' });
  const { error } = JSON.parse(ended.stderr) as { error: Failure };
  expect(error).toMatchObject({ code, exitCode });
  expect(await registeredNames()).toEqual([]);
  return error;
}

test('prints what an API server needs that does not know the issuer, and registers nothing', async () => {
  const { code, stdout, stderr } = await register();
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  expect(await registeredNames()).toEqual([]);
  // The command in the hint prints the same configuration.
  const [, command = ''] = /: ecr-anywhere (authentication-config .*)\n$/.exec(stderr) ?? [];
  const printed = await cli.run(command.split(' '));
  expect(printed.code).toBe(0);
  expect(stderr).toContain(printed.stdout);
  expect(parse(printed.stdout).jwt[0]).toMatchObject({
    issuer: { url: issuer.url, audiences: ['ecr-anywhere:EcrAnywhere:own'] },
  });
  // The function requested the token, by its role.
  expect(sts.stsCalls.at(-1)).toMatchObject({
    action: 'GetWebIdentityToken',
    accessKeyId: Object.keys(functionPrincipal(bed.deployment))[0],
    ok: true,
  });
  const { message, hint } = await expectFailure('registration-not-verified', 1);
  expect(message).toContain('HTTP 401');
  expect(hint).toContain(command);
});

test('--dry-run prints it and the expected identity, and stores nothing', async () => {
  const { code, stdout } = await register(['--dry-run', '--output', 'json']);
  expect(code).toBe(0);
  const result = JSON.parse(stdout);
  expect(result).toEqual({
    cluster: 'own',
    isRegistered: false,
    server: own.server,
    identity: { username: `ecr-anywhere:${role}`, groups: [GROUP, 'system:authenticated'] },
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: false,
    authenticationConfig: expect.stringContaining('kind: AuthenticationConfiguration'),
  });
  expect(await registeredNames()).toEqual([]);
});

test('--wait registers the cluster once the API server has what was printed', {
  timeout: 150_000,
}, async () => {
  const { stdout } = await register(['--dry-run', '--output', 'json']);
  const registering = register(['--wait', RELOAD_TIMEOUT]);
  await configure(withAuthority(JSON.parse(stdout).authenticationConfig));
  const ended = await registering;
  expect(ended.stderr).toContain(JSON.parse(stdout).authenticationConfig);
  expect(ended.stdout).toContain(`own is registered\n  as ecr-anywhere:${role}\n`);
  expect(ended.code).toBe(0);
  expect(parse(await storedKubeconfig('own'))).toEqual({
    apiVersion: 'v1',
    kind: 'Config',
    'current-context': 'own',
    contexts: [{ name: 'own', context: { cluster: 'own', user: 'ecr-anywhere' } }],
    clusters: [
      {
        name: 'own',
        cluster: {
          server: own.server,
          'certificate-authority-data': Buffer.from(own.caPem).toString('base64'),
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
            command: 'ecr-anywhere',
            args: ['get-token', '--cluster', 'own', '--stack-name', 'EcrAnywhere'],
          },
        },
      },
    ],
  });
  expect((await bed.deployment.invoke({ clusters: ['own'] })).payload).toMatchObject({
    clusters: [{ served: true, failed: false }],
  });
});

test('--replace replaces a stored token', async () => {
  const token = await cli.run(['register', 'own', '--kubeconfig', own.adminKubeconfigPath]);
  expect(token.code).toBe(0);
  expect(await storedKubeconfig('own')).toContain('token: ');
  const { code, stdout } = await register(['--replace', '--quiet', '--output', 'json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    identity: { username: `ecr-anywhere:${role}`, groups: expect.arrayContaining([GROUP]) },
    isRenewed: false,
    run: { served: true },
  });
  expect(await storedKubeconfig('own')).not.toContain('token: ');
});

test('--issuer replaces the question to STS, and must be the issuer of the account', async () => {
  const withoutSts = { env: { AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:1' } };
  const { hint } = await expectFailure('issuer-unknown', 2, [], withoutSts);
  expect(hint).toMatch(/: aws iam get-outbound-web-identity-federation-info$/);
  expect((await register(['--issuer', issuer.url], withoutSts)).code).toBe(0);
  await bed.deployment.unregisterCluster('own');
  for (const wrong of ['https://issuer.example', `${issuer.url}/`]) {
    const { message } = await expectFailure('issuer-mismatch', 2, ['--issuer', wrong]);
    expect(message).toContain(issuer.url);
  }
  await expectFailure('usage', 2, ['--issuer', 'issuer.example'], withoutSts);
});

test('names the command that an account needs whose federation is disabled', async () => {
  sts.settings.issuer = undefined;
  const enable = 'aws iam enable-outbound-web-identity-federation';
  expect((await expectFailure('issuer-unknown', 2)).message).toContain(enable);
  const failure = await expectFailure('registration-not-verified', 1, ['--issuer', issuer.url]);
  expect(failure.message).toContain(enable);
});

test('names the setting that a stack needs whose clusters must not be keyless', async () => {
  await deployStack(bed.deployment.emulator, {
    context: { ...CONTEXT, stackName: 'Other', allowLocalServers: true },
  });
  const { hint } = await expectFailure('registration-not-verified', 1, ['--stack-name', 'Other']);
  expect(hint).toContain('npx cdk deploy -c stackName=Other -c keyless=true ');
});

test('is rejected if the API server maps the token to an identity outside the write policy', {
  timeout: 150_000,
}, async () => {
  const { stdout } = await register(['--dry-run', '--output', 'json']);
  const config = withAuthority(JSON.parse(stdout).authenticationConfig);
  config.jwt[0].claimMappings.groups.expression = "['readers']";
  const reads = ['--verb=list', '--resource=namespaces,secrets'];
  await own.kubectl(['create', 'clusterrole', 'readers', ...reads]);
  await own.kubectl([
    ...['create', 'clusterrolebinding', 'readers', '--clusterrole=readers', '--group=readers'],
  ]);
  await configure(NO_ISSUER);
  await untilIssuerIsUnknown();
  await configure(config);
  const { message } = await expectFailure('identity-not-restricted', 4, ['--wait', RELOAD_TIMEOUT]);
  expect(message).toContain(`ecr-anywhere:${role} (groups: readers, system:authenticated)`);
});

/** Waits until the API server has reloaded its configuration and rejects tokens of the issuer. */
async function untilIssuerIsUnknown(): Promise<void> {
  const kubeconfig = join(own.dir, 'by-token.kubeconfig');
  const token = issuer.sign({ sub: role, aud: 'ecr-anywhere:EcrAnywhere:own', expiresIn: 900 });
  await writeFile(kubeconfig, own.kubeconfigForToken(token));
  await expect
    .poll(async () => (await own.kubectl(['get', 'namespaces'], { kubeconfig, mayFail: true })).code, {
      timeout: 90_000,
      interval: 500,
    })
    .not.toBe(0);
}
