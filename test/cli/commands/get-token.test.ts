// Tests get-token as kubectl runs it: the bundle, with a proxy in place of STS. Covers its output and its errors.
import { execFile } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { AssumeRoleCommand, STSClient } from '@aws-sdk/client-sts';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildCli } from '../../../cli/build.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type Issuer, startIssuer } from '../../bed/web-identity.ts';

const REGION = 'eu-central-1';
const KEY = 'AKIAIOSFODNN7EXAMPLE';

let stack: AsyncDisposableStack;
let bundle: string;
let issuer: Issuer;
let aws: AwsEndpoint;
let env: Record<string, string>;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  bundle = join(dir, 'ecr-anywhere');
  await buildCli(bundle);
  issuer = stack.use(await startIssuer());
  aws = stack.use(await startAwsEndpoint());
  aws.settings.issuer = issuer;
  aws.settings.principals[KEY] = {
    secretAccessKey: 'secret',
    arn: 'arn:aws:sts::123456789012:assumed-role/refresher/run',
    account: '123456789012',
    userId: 'AROAEXAMPLE:run',
  };
  env = {
    ...aws.env,
    PATH: `${dirname(process.execPath)}:/usr/bin:/bin`,
    HOME: dir,
    AWS_EC2_METADATA_DISABLED: 'true',
    AWS_REGION: REGION,
    AWS_ACCESS_KEY_ID: KEY,
    AWS_SECRET_ACCESS_KEY: 'secret',
  };
});
afterAll(() => stack.disposeAsync());

interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** `ecr-anywhere get-token --cluster prod`. @param changes of its environment; undefined takes one away */
async function getToken(changes: Record<string, string | undefined> = {}, ...args: string[]): Promise<Ended> {
  const all = Object.entries({ ...env, ...changes }).filter(([, value]) => value !== undefined);
  return promisify(execFile)(bundle, ['get-token', '--cluster', 'prod', ...args], {
    env: Object.fromEntries(all) as Record<string, string>,
  }).then(
    (printed) => ({ code: 0, ...printed }),
    (error: Ended) => error,
  );
}

const claimsOf = (token: string) =>
  JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString());

test('an ExecCredential with a token for this cluster, of 15 minutes', async () => {
  const { code, stdout, stderr } = await getToken({}, '--stack-name', 'Live');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  const { status, ...credential } = JSON.parse(stdout);
  expect(credential).toEqual({ apiVersion: 'client.authentication.k8s.io/v1', kind: 'ExecCredential' });
  const { aud, sub, iss, iat, exp } = claimsOf(status.token);
  expect({ aud, sub, iss, life: exp - iat }).toEqual({
    aud: 'ecr-anywhere:Live:prod',
    sub: 'arn:aws:iam::123456789012:role/refresher',
    iss: issuer.url,
    life: 900,
  });
  // As Kubernetes writes times, and as the token says: two clocks read one after the other.
  expect(status.expirationTimestamp).toMatch(/^[\d-]+T[\d:]+Z$/);
  expect(Math.abs(Date.parse(status.expirationTimestamp) / 1000 - exp)).toBeLessThanOrEqual(1);
});

test("the region is the option's, before the environment's", async () => {
  await getToken();
  await getToken({}, '--region', 'us-west-2');
  expect((await getToken({ AWS_REGION: undefined }, '--region', REGION)).code).toBe(0);
  expect(aws.stsCalls.slice(-3).map(({ region }) => region)).toEqual([REGION, 'us-west-2', REGION]);
  const { code, stderr } = await getToken({ AWS_REGION: undefined });
  expect({ code, stderr }).toEqual({
    code: 2,
    stderr: 'ecr-anywhere: No AWS region is configured.\n  → Set AWS_REGION, or add --region REGION.\n',
  });
});

/** Nothing on standard output, where kubectl would take it for a credential. */
async function expectRefusal(exitCode: number, ended: Promise<Ended>, says: RegExp): Promise<void> {
  const { code, stdout, stderr } = await ended;
  expect({ code, stdout }).toEqual({ code: exitCode, stdout: '' });
  expect(stderr).toMatch(says);
  // A sentence, and the way out.
  expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(2);
}

test('fails without AWS credentials', async () => {
  await expectRefusal(
    3,
    getToken({ AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined }),
    /No AWS credentials found: .*Could not load credentials/,
  );
});

test('the account has not switched it on: with the way out', async () => {
  aws.settings.issuer = undefined;
  await expectRefusal(10, getToken(), /aws iam enable-outbound-web-identity-federation/);
  aws.settings.issuer = issuer;
});

test('a session that would end before its token: with the way out', async () => {
  const sts = new STSClient({
    region: REGION,
    endpoint: aws.url,
    credentials: { accessKeyId: KEY, secretAccessKey: 'secret' },
  });
  const sessionOf = async (seconds: number) => {
    aws.settings.sessionSeconds = seconds;
    const role = { RoleArn: 'arn:aws:iam::123456789012:role/refresher', RoleSessionName: 'operator' };
    const { Credentials } = await sts.send(new AssumeRoleCommand(role));
    return {
      AWS_ACCESS_KEY_ID: Credentials?.AccessKeyId,
      AWS_SECRET_ACCESS_KEY: Credentials?.SecretAccessKey,
      AWS_SESSION_TOKEN: Credentials?.SessionToken,
    };
  };
  await expectRefusal(
    10,
    getToken(await sessionOf(600)),
    /SessionDurationEscalationException.*the session ends within 15 minutes, before the token would: sign in again/,
  );
  expect((await getToken(await sessionOf(3600))).code).toBe(0);
});

test('an STS that is silent: kubectl does not wait for ever', async () => {
  const silent = createServer(() => {}).listen(0, '127.0.0.1');
  await new Promise((resolve) => silent.once('listening', resolve));
  const address = silent.address();
  const port = typeof address === 'object' ? address?.port : undefined;
  try {
    await expectRefusal(
      7,
      getToken({ AWS_ENDPOINT_URL_STS: `http://127.0.0.1:${port}` }),
      /STS returned no web identity token: no answer in time/,
    );
  } finally {
    silent.closeAllConnections();
    silent.close();
  }
});
