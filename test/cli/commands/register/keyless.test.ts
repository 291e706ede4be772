// Registering keyless clusters: register prints what the API server needs, verifies the registration by a token of the
// deployed function, and stores no credential.
import { rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest';
import { parse, stringify } from 'yaml';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import type { ControlPlane } from '../../../bed/control-plane.ts';
import { deployStack } from '../../../bed/deploy.ts';
import { type Issuer, startIssuer } from '../../../bed/web-identity.ts';
import { functionPrincipal } from '../../../functions/function-principal.ts';
import { GROUP, Registrar } from './registrar.ts';

/** An API server with this file accepts tokens of no issuer. */
const NO_ISSUER: object = { apiVersion: 'apiserver.config.k8s.io/v1', kind: 'AuthenticationConfiguration' };
/** Seconds. An API server reloads its file within about a minute, and often sooner. */
const RELOAD_TIMEOUT = '90';

let stack: AsyncDisposableStack;
let registrar: Registrar;
let issuer: Issuer;
let sts: AwsEndpoint;
let own: ControlPlane;
let role: string;
/** Arguments of register. */
let args: string[];

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [issuer, sts] = await Promise.all([startIssuer(), startAwsEndpoint()]);
  stack.use(issuer);
  stack.use(sts);
  sts.settings.issuer = issuer;
  registrar = stack.use(
    await Registrar.start(
      {
        clusters: ['own'],
        context: { keyless: true },
        functionEnv: { AWS_ENDPOINT_URL_STS: sts.url },
        controlPlanes: { own: { authentication: stringify(NO_ISSUER) } },
      },
      { AWS_ENDPOINT_URL_STS: sts.url },
    ),
  );
  const { deployment } = registrar.bed;
  own = registrar.bed.cluster('own').controlPlane;
  role = deployment.outputs.RoleArn ?? '';
  args = ['own', '--kubeconfig', own.adminKubeconfigPath, '--keyless'];
  const { account, clientConfig } = deployment.emulator;
  Object.assign(sts.settings.principals, functionPrincipal(deployment), {
    [clientConfig.credentials.accessKeyId]: {
      secretAccessKey: clientConfig.credentials.secretAccessKey,
      arn: `arn:aws:sts::${account}:assumed-role/operator/me`,
      ...{ account, userId: 'AROAEXAMPLE:me' },
    },
  });
});
afterAll(() => stack.disposeAsync());
afterEach(() => registrar.reset());

/** Replaces the configuration of the API server, as its administrator does. */
async function configure(config: object): Promise<void> {
  const path = join(own.dir, 'authentication.yaml');
  await writeFile(`${path}.new`, stringify(config));
  await rename(`${path}.new`, path);
}

test('prints what an API server needs that does not know the issuer', async () => {
  const { cli } = registrar;
  const { code, stdout, stderr } = await cli.run(['register', ...args]);
  expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
  // The command in the hint prints the same configuration.
  const [, command = ''] = /: ecr-anywhere (authentication-config [^;]*)/.exec(stderr) ?? [];
  const printed = await cli.run(command.split(' '));
  expect(printed.code).toBe(0);
  expect(stderr).toContain(printed.stdout);
  expect(parse(printed.stdout).jwt[0]).toMatchObject({
    issuer: { url: issuer.url, audiences: ['ecr-anywhere:EcrAnywhere:own'] },
  });
  // The function requested the token, by its role.
  expect(sts.stsCalls.at(-1)).toMatchObject({
    action: 'GetWebIdentityToken',
    accessKeyId: Object.keys(functionPrincipal(registrar.bed.deployment))[0],
    ok: true,
  });
  const { message, hint } = await registrar.expectFailure('registration-not-verified', args, {
    left: ['own'],
  });
  expect(message).toContain('HTTP 401');
  expect(hint).toContain(command);
});

test('--dry-run prints the expected identity, and --wait registers the cluster once the API server is configured', {
  timeout: 150_000,
}, async () => {
  const dryRun = await registrar.register([...args, '--dry-run']);
  const identity = { username: `ecr-anywhere:${role}`, groups: [GROUP, 'system:authenticated'] };
  expect(dryRun).toEqual({
    cluster: 'own',
    isRegistered: false,
    server: own.server,
    identity,
    canRead: { secrets: ['*'], namespaces: expect.any(Number) },
    isRenewed: false,
    authenticationConfig: expect.stringContaining('kind: AuthenticationConfiguration'),
  });
  expect(await registrar.names()).toEqual([]);
  const registering = registrar.register([...args, '--wait', RELOAD_TIMEOUT]);
  const config = parse(dryRun.authenticationConfig as string);
  // That of AWS has a public certificate.
  config.jwt[0].issuer.certificateAuthority = issuer.caPem;
  await configure(config);
  expect(await registering).toMatchObject({ ...dryRun, isRegistered: true, run: { served: true } });
  const { exec, ...credentials } = await registrar.user('own');
  expect({ command: exec.command, credentials }).toEqual({ command: 'ecr-anywhere', credentials: {} });
  expect(await registrar.runOver('own')).toMatchObject({ served: true, failed: false });
});

test('--replace replaces a stored token; with --issuer it needs no STS', async () => {
  await registrar.register(args.slice(0, -1));
  expect(await registrar.user('own')).toHaveProperty('token');
  const env = { AWS_ENDPOINT_URL_STS: 'http://127.0.0.1:1' };
  const result = await registrar.register([...args, '--replace', '--issuer', issuer.url], { env });
  expect(result).toMatchObject({ isRenewed: false, run: { served: true } });
  expect(await registrar.user('own')).not.toHaveProperty('token');
});

test('names the setting that a stack needs whose clusters must not be keyless', async () => {
  await deployStack(registrar.bed.deployment.emulator, {
    context: { scheduleEnabled: false, stackName: 'Other', allowLocalServers: true },
  });
  const failure = await registrar.expectFailure(
    'registration-not-verified',
    [...args, '--stack-name', 'Other'],
    { left: ['own'] },
  );
  expect(failure.hint).toContain('npx cdk deploy -c stackName=Other -c keyless=true ');
});
