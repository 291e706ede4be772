// Types the commands by which docs/aws-identity.md creates the webhook's role, against a local AWS that enforces IAM, and
// checks what the role may do.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BatchGetImageCommand, ECRClient, GetAuthorizationTokenCommand } from '@aws-sdk/client-ecr';
import { AssumeRoleWithWebIdentityCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type Emulator, startEmulator } from '../bed/emulator.ts';
import { tools } from '../bed/toolchain.ts';
import { jwt } from '../functions/token-issuer.ts';
import { commandsOf, Shell } from './shell.ts';

const ISSUER = 'https://oidc.example.com/prod';
const COMMANDS = commandsOf(await readFile(new URL('../../docs/aws-identity.md', import.meta.url), 'utf8'));

let dir: string;
let emulator: Emulator;
let shell: Shell;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  emulator = await startEmulator({ dir, python: tools().python });
  shell = await Shell.start(dir, emulator.env, dir);
  shell.set('issuer', ISSUER);
});
afterAll(async () => {
  await emulator?.stop();
  await rm(dir, { recursive: true, force: true });
});

/** Types the page's command that begins so and contains this, in the account of the local AWS. */
async function type(begin: string, contains = ''): Promise<void> {
  const command = COMMANDS.find(({ line }) => line.startsWith(begin) && line.includes(contains));
  if (!command) throw new Error(`docs/aws-identity.md has no command "${begin}"`);
  const { code, stderr } = await shell.type(command.line.replaceAll('123456789012', emulator.account));
  expect(code, stderr).toBe(0);
}

function assume(subject: string) {
  const { requestHandler, endpoint, region } = emulator.clientConfig;
  return new STSClient({ requestHandler, endpoint, region }).send(
    new AssumeRoleWithWebIdentityCommand({
      RoleArn: `arn:aws:iam::${emulator.account}:role/ecr-anywhere`,
      RoleSessionName: 'webhook',
      WebIdentityToken: jwt({
        iss: ISSUER,
        aud: 'sts.amazonaws.com',
        sub: subject,
        exp: Math.floor(Date.now() / 1000) + 3600,
      }),
    }),
  );
}

test('create the role, its trust and its policy', async () => {
  await type('aws iam create-open-id-connect-provider');
  await type('cat > trust.json', 'AssumeRoleWithWebIdentity');
  await type('cat > policy.json');
  await type('aws iam create-role');
  await type('aws iam put-role-policy');
});

test('let the ServiceAccount of the webhook pull the repositories of the policy, and no others', async () => {
  const { Credentials } = await assume('system:serviceaccount:ecr-anywhere:ecr-anywhere');
  const ecr = new ECRClient({
    ...emulator.clientConfig,
    credentials: {
      accessKeyId: Credentials?.AccessKeyId ?? '',
      secretAccessKey: Credentials?.SecretAccessKey ?? '',
      sessionToken: Credentials?.SessionToken ?? '',
    },
  });
  expect((await ecr.send(new GetAuthorizationTokenCommand({}))).authorizationData).toHaveLength(1);
  const pull = (repositoryName: string) =>
    ecr.send(new BatchGetImageCommand({ repositoryName, imageIds: [{ imageTag: 'latest' }] }));
  // The request is allowed; the repository does not exist.
  await expect(pull('team-a/shop')).rejects.toMatchObject({ name: 'RepositoryNotFoundException' });
  await expect(pull('team-b/shop')).rejects.toMatchObject({ name: 'AccessDeniedException' });
});

test('let no other ServiceAccount assume the role', async () => {
  await expect(assume('system:serviceaccount:ecr-anywhere:default')).rejects.toThrow(
    'Not authorized to perform sts:AssumeRoleWithWebIdentity',
  );
});
