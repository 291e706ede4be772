// A webhook's role in the local AWS, which enforces trust policies and IAM: the tokens that may assume it, and what the
// session may do. The local CloudFormation has no OIDC providers, so the template contains the ARN that a real one would
// have. The local STS does not check signatures.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import {
  CloudFormationClient,
  CreateStackCommand,
  DescribeStacksCommand,
  waitUntilStackCreateComplete,
} from '@aws-sdk/client-cloudformation';
import {
  BatchGetImageCommand,
  DeleteRepositoryCommand,
  DescribeRepositoriesCommand,
  ECRClient,
  GetAuthorizationTokenCommand,
} from '@aws-sdk/client-ecr';
import { AssumeRoleWithWebIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';
import { jwt } from '../functions/token-issuer.ts';
import { type Resource, resources, synth } from './synth.ts';

const ISSUER = 'https://oidc.example.com/k3s';
const claims = {
  iss: ISSUER,
  aud: 'sts.amazonaws.com',
  sub: 'system:serviceaccount:ecr-anywhere:ecr-anywhere',
};

let dir: string;
let emulator: Emulator;
let roleArn: string;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  emulator = await startEmulator({ dir, python: tools().python });
  const cloudFormation = new CloudFormationClient(emulator.clientConfig);
  const StackName = 'Webhook';
  await cloudFormation.send(
    new CreateStackCommand({
      StackName,
      TemplateBody: JSON.stringify({
        Resources: { Role: roleWith(`arn:aws:iam::${emulator.account}:oidc-provider/oidc.example.com/k3s`) },
        Outputs: { Arn: { Value: { 'Fn::GetAtt': ['Role', 'Arn'] } } },
      }),
      Capabilities: ['CAPABILITY_IAM'],
    }),
  );
  await waitUntilStackCreateComplete({ client: cloudFormation, maxWaitTime: 30, minDelay: 1 }, { StackName });
  const { Stacks } = await cloudFormation.send(new DescribeStacksCommand({ StackName }));
  roleArn = Stacks?.[0]?.Outputs?.[0]?.OutputValue ?? '';
});
afterAll(async () => {
  await emulator?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** The role of the template, with the ARN of a provider. */
function roleWith(providerArn: string): Resource {
  const template = synth({ webhooks: [{ name: 'k3s', issuer: ISSUER, repositories: ['team-a/*'] }] });
  const role = resources(template, 'AWS::IAM::Role').Webhookk3sRole;
  const text = JSON.stringify(role).replace(
    /\{"Fn::GetAtt":\["Webhookk3sIssuer\w+","Arn"\]\}/,
    `"${providerArn}"`,
  );
  if (!role || text === JSON.stringify(role)) throw new Error('The role trusts no provider of the template.');
  return JSON.parse(text) as Resource;
}

/** Credentials of a session that a token with these claims starts. */
async function assume(tokenClaims: object) {
  const { requestHandler, endpoint, region } = emulator.clientConfig;
  const sts = new STSClient({ requestHandler, endpoint, region });
  const { Credentials } = await sts.send(
    new AssumeRoleWithWebIdentityCommand({
      RoleArn: roleArn,
      RoleSessionName: 'webhook',
      WebIdentityToken: jwt({ ...tokenClaims, exp: Math.floor(Date.now() / 1000) + 3600 }),
    }),
  );
  return {
    accessKeyId: Credentials?.AccessKeyId ?? '',
    secretAccessKey: Credentials?.SecretAccessKey ?? '',
    sessionToken: Credentials?.SessionToken ?? '',
  };
}

test('the webhook’s ServiceAccount may request ECR tokens and pull from the given repositories only', async () => {
  const ecr = new ECRClient({ ...emulator.clientConfig, credentials: await assume(claims) });
  const { authorizationData } = await ecr.send(new GetAuthorizationTokenCommand({}));
  expect(authorizationData).toHaveLength(1);
  const imageIds = [{ imageTag: 'latest' }];
  const pull = (repositoryName: string) => ecr.send(new BatchGetImageCommand({ repositoryName, imageIds }));
  // IAM allows the call, and then the repository does not exist.
  await expect(pull('team-a/shop')).rejects.toThrow(
    expect.objectContaining({ name: 'RepositoryNotFoundException' }),
  );
  for (const denied of [
    pull('team-b/shop'),
    ecr.send(new DescribeRepositoriesCommand({})),
    ecr.send(new DeleteRepositoryCommand({ repositoryName: 'team-a/shop' })),
  ])
    await expect(denied).rejects.toThrow(expect.objectContaining({ name: 'AccessDeniedException' }));
});

test.each([
  { title: 'another ServiceAccount', but: { sub: 'system:serviceaccount:ecr-anywhere:default' } },
  { title: 'its name in another namespace', but: { sub: 'system:serviceaccount:default:ecr-anywhere' } },
  { title: 'an audience other than AWS', but: { aud: 'https://kubernetes.default.svc' } },
  { title: 'another cluster', but: { iss: 'https://oidc.example.com/gpu' } },
  { title: 'an issuer whose URL has the same start', but: { iss: `${ISSUER}/x` } },
])('does not accept a token with $title', async ({ but }) => {
  await expect(assume({ ...claims, ...but })).rejects.toThrow(
    expect.objectContaining({ message: 'Not authorized to perform sts:AssumeRoleWithWebIdentity' }),
  );
});
