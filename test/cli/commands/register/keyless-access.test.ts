// Which token issuer register assumes for a keyless cluster, and what the cluster's API server then needs.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test, vi } from 'vitest';
import { Aws } from '../../../../cli/aws/aws.ts';
import type { RegisterContext } from '../../../../cli/commands/register/context.ts';
import { obtainKeylessAccess } from '../../../../cli/commands/register/keyless.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { type Issuer, startIssuer } from '../../../bed/web-identity.ts';

const KEY = 'AKIAIOSFODNN7EXAMPLE';
const ROLE = 'arn:aws:iam::123456789012:role/refresher';
const SERVER = { url: 'https://k8s.example' };

let issuer: Issuer;
let sts: AwsEndpoint;
beforeAll(async () => {
  [issuer, sts] = await Promise.all([startIssuer(), startAwsEndpoint()]);
  sts.settings.principals[KEY] = {
    ...{ secretAccessKey: 'secret', account: '123456789012', userId: 'AROAEXAMPLE:me' },
    arn: 'arn:aws:sts::123456789012:assumed-role/operator/me',
  };
});
afterAll(async () => {
  await issuer?.[Symbol.asyncDispose]();
  await sts?.[Symbol.asyncDispose]();
});
beforeEach(() => {
  sts.settings.issuer = issuer;
  const env = { AWS_ENDPOINT_URL_STS: sts.url, AWS_REGION: 'eu-central-1', AWS_ACCESS_KEY_ID: KEY };
  for (const [name, value] of Object.entries({ ...env, AWS_SECRET_ACCESS_KEY: 'secret' }))
    vi.stubEnv(name, value);
});
afterEach(() => {
  vi.unstubAllEnvs();
});

/** @param given --issuer @param minor version of Kubernetes */
function obtain(given?: string, minor = '36+') {
  const context = {
    ...{ name: 'own', options: { issuer: given }, commands: new ShellCommands({}, {}) },
    ...{ aws: new Aws({}, new AbortController().signal), stack: { stackName: 'Live', roleArn: ROLE } },
    kubernetes: { get: async () => ({ body: { minor } }) },
  };
  return obtainKeylessAccess(context as unknown as RegisterContext, SERVER);
}

test('reads the issuer from a token of STS, and registers the command that requests one', async () => {
  const obtained = await obtain();
  expect(obtained).toMatchObject({
    server: SERVER,
    isRenewed: false,
    expectedIdentity: { username: `ecr-anywhere:${ROLE}` },
    details: { authenticationConfig: expect.stringContaining(`url: ${issuer.url}\n`) },
    unauthorizedHint: expect.stringContaining(`--issuer ${issuer.url} `),
  });
  expect(obtained.user).toMatchObject({ exec: { command: 'ecr-anywhere' } });
});

test.each([
  ['36+', 'v1'],
  ['34', 'v1'],
  ['33', 'v1beta1'],
  ['', 'v1beta1'],
])('Kubernetes 1.%s gets AuthenticationConfiguration %s', async (minor, version) => {
  const { details } = await obtain(undefined, minor);
  expect(details?.authenticationConfig).toContain(`apiVersion: apiserver.config.k8s.io/${version}\n`);
});

test.each(['https://issuer.example', '/'])(
  'rejects the issuer %s, which is not that of STS',
  async (wrong) => {
    await expect(obtain(wrong === '/' ? `${issuer.url}/` : wrong)).rejects.toMatchObject({
      code: 'issuer-mismatch',
      message: expect.stringContaining(issuer.url),
    });
  },
);

test('needs --issuer if the federation of the account is disabled', async () => {
  sts.settings.issuer = undefined;
  await expect(obtain()).rejects.toMatchObject({
    code: 'issuer-unknown',
    message: expect.stringContaining('aws iam enable-outbound-web-identity-federation'),
    hint: expect.stringMatching(/: aws iam get-outbound-web-identity-federation-info$/),
  });
  const { details } = await obtain('https://issuer.example');
  expect(details?.authenticationConfig).toContain('url: https://issuer.example\n');
  await expect(obtain('issuer.example')).rejects.toMatchObject({ code: 'usage' });
});
