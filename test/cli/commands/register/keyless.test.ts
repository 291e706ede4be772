// Registering keyless clusters: what the API server needs is printed, a registration is proved by the function's own token
// or taken back, and nothing secret is stored.

import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  GetSecretValueCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
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
const NOBODY: object = { apiVersion: 'apiserver.config.k8s.io/v1', kind: 'AuthenticationConfiguration' };
/** An API server reads its file again within about a minute, and often sooner. */
const RELOADED_WITHIN = '90';

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
      controlPlanes: { own: { authentication: stringify(NOBODY) } },
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
  for (const name of await stored()) await bed.deployment.unregisterCluster(name);
});

const register = (args: readonly string[] = [], options?: RunOptions): Promise<Ended> =>
  cli.run(['register', 'own', '--kubeconfig', own.adminKubeconfigPath, '--keyless', ...args], options);

async function stored(): Promise<string[]> {
  const { SecretList = [] } = await secrets.send(new ListSecretsCommand({}));
  return SecretList.map(({ Name = '' }) => Name.replace(CLUSTERS_PREFIX, ''));
}

async function textOf(name: string): Promise<string> {
  const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` });
  return (await secrets.send(command)).SecretString ?? '';
}

/** Gives the API server another configuration, as whoever looks after it does. It is read within seconds. */
async function configure(config: object): Promise<void> {
  const path = join(own.dir, 'authentication.yaml');
  await writeFile(`${path}.new`, stringify(config));
  await rename(`${path}.new`, path);
}

/** With the authority of the test's issuer, where AWS' has a public one. */
function withAuthority(authenticationConfig: string) {
  const config = parse(authenticationConfig);
  config.jwt[0].issuer.certificateAuthority = issuer.caPem;
  return config;
}

async function expectRefusal(ended: Promise<Ended>, code: number, says: RegExp): Promise<string> {
  const { stdout, stderr, code: was } = await ended;
  expect(stderr).toMatch(says);
  expect({ was, stdout }).toEqual({ was: code, stdout: '' });
  expect(await stored()).toEqual([]);
  return stderr;
}

test('an API server that does not know the issuer: what it needs is printed, and nothing is registered', async () => {
  const stderr = await expectRefusal(
    register(),
    1,
    /^What its kube-apiserver needs, as --authentication-config:\n\napiVersion: apiserver\.config\.k8s\.io\/v1\n[\s\S]*\n\necr-anywhere: the refresher cannot use it, so own is not registered: .*HTTP 401[\s\S]*\n {2}→ ecr-anywhere authentication-config .* prints what its kube-apiserver needs; then register it again, with --wait 120\n$/,
  );
  // The hint's command is one.
  const [, command = ''] = /→ ecr-anywhere (authentication-config .*) prints/.exec(stderr) ?? [];
  const { code, stdout } = await cli.run(command.split(' '));
  expect(code).toBe(0);
  expect(stderr).toContain(stdout);
  expect(parse(stdout).jwt[0]).toMatchObject({
    issuer: { url: issuer.url, audiences: ['ecr-anywhere:EcrAnywhere:own'] },
  });
  // It was the function that asked for the token, by its role.
  expect(sts.stsCalls.at(-1)).toMatchObject({
    action: 'GetWebIdentityToken',
    accessKeyId: Object.keys(functionPrincipal(bed.deployment))[0],
    ok: true,
  });
});

test('--dry-run prints it, too, says who the refresher will be, and stores nothing', async () => {
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
  expect(await stored()).toEqual([]);
});

test('given what was printed while it waits, it is registered', { timeout: 150_000 }, async () => {
  const { stdout } = await register(['--dry-run', '--output', 'json']);
  const registering = register(['--wait', RELOADED_WITHIN]);
  await configure(withAuthority(JSON.parse(stdout).authenticationConfig));
  const ended = await registering;
  expect(ended.stderr).toMatch(/^What its kube-apiserver needs[\s\S]*groups:\n\s+expression: .*\n\n$/);
  expect(ended.stdout).toMatch(
    new RegExp(
      `^own is registered\n  as ecr-anywhere:${role}\n  It can read every Secret of every namespace \\(\\d+\\)\\. .*\n  0 managed Secrets, none due\\.\n$`,
    ),
  );
  expect(ended.code).toBe(0);
  expect(parse(await textOf('own'))).toEqual({
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
            args: ['get-token', '--cluster', 'own', '--stage', 'EcrAnywhere'],
          },
        },
      },
    ],
  });
  expect((await bed.deployment.invoke({ clusters: ['own'] })).payload).toMatchObject({
    clusters: [{ served: true, failed: false }],
  });
});

test('in the place of a token', async () => {
  const token = await cli.run(['register', 'own', '--kubeconfig', own.adminKubeconfigPath]);
  expect(token.code).toBe(0);
  expect(await textOf('own')).toContain('token: ');
  const { code, stdout } = await register(['--replace', '--quiet', '--output', 'json']);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toMatchObject({
    identity: { username: `ecr-anywhere:${role}`, groups: expect.arrayContaining([GROUP]) },
    isRenewed: false,
    run: { served: true },
  });
  expect(await textOf('own')).not.toContain('token: ');
});

test('--issuer, where whoever registers may not ask; a wrong one is told from the account’s', async () => {
  const denied = { env: { AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:1' } };
  await expectRefusal(
    register([], denied),
    2,
    /the account's issuer is not known: [\s\S]*\n {2}→ give it as --issuer: aws iam get-outbound-web-identity-federation-info names it\n$/,
  );
  expect((await register(['--issuer', issuer.url], denied)).code).toBe(0);
  await bed.deployment.unregisterCluster('own');
  for (const wrong of ['https://issuer.example', `${issuer.url}/`])
    await expectRefusal(
      register(['--issuer', wrong]),
      2,
      new RegExp(`--issuer: the account's is ${issuer.url}, and API servers compare it to the letter\n`),
    );
  await expectRefusal(register(['--issuer', 'issuer.example'], denied), 2, /--issuer must be an https URL/);
});

test('an account that has not switched it on', async () => {
  sts.settings.issuer = undefined;
  await expectRefusal(register(), 2, /aws iam enable-outbound-web-identity-federation/);
  await expectRefusal(
    register(['--issuer', issuer.url]),
    1,
    /the refresher cannot use it, so own is not registered: .*aws iam enable-outbound-web-identity-federation/,
  );
});

test('a stack whose clusters may not be keyless: with the setting', async () => {
  await deployStack(bed.deployment.emulator, {
    context: { ...CONTEXT, stackName: 'Other', allowLocalServers: true },
  });
  await expectRefusal(
    register(['--stack-name', 'Other']),
    1,
    /the refresher cannot use it, so own is not registered: "ecr-anywhere get-token" needs the CDK setting keyless\n {2}→ deploy it with that setting: npx cdk deploy -c stackName=Other -c keyless=true [^\n]*\n$/,
  );
});

test('an API server that takes it for somebody outside the fence', { timeout: 150_000 }, async () => {
  const { stdout } = await register(['--dry-run', '--output', 'json']);
  const config = withAuthority(JSON.parse(stdout).authenticationConfig);
  config.jwt[0].claimMappings.groups.expression = "['readers']";
  const reads = ['--verb=list', '--resource=namespaces,secrets'];
  await own.kubectl(['create', 'clusterrole', 'readers', ...reads]);
  await own.kubectl([
    ...['create', 'clusterrolebinding', 'readers', '--clusterrole=readers', '--group=readers'],
  ]);
  await configure(NOBODY);
  await unknown();
  await configure(config);
  await expectRefusal(
    register(['--wait', RELOADED_WITHIN]),
    4,
    new RegExp(`ecr-anywhere:${role} \\(groups: readers, system:authenticated\\) is outside the fence:`),
  );
});

/** Until the API server has forgotten the issuer. */
async function unknown(): Promise<void> {
  const kubeconfig = join(own.dir, 'by-token.kubeconfig');
  const token = issuer.sign({ sub: role, aud: 'ecr-anywhere:EcrAnywhere:own', expiresIn: 900 });
  await writeFile(kubeconfig, own.kubeconfigForToken(token));
  for (;;) {
    const { code } = await own.kubectl(['get', 'namespaces'], { kubeconfig, mayFail: true });
    if (code !== 0) return;
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
}
