// Tests tokens for EKS with the verifier of aws-iam-authenticator, which EKS runs, and an imitation of STS: the verifier
// accepts the refresher's tokens and refuses every variation of them.
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { STSClient } from '@aws-sdk/client-sts';
import { SignatureV4 } from '@smithy/signature-v4';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { eksAccess, tokenFor } from '../../../../functions/refresher/access/eks.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../../bed/aws-endpoint.ts';
import { tools } from '../../../bed/toolchain.ts';
import { type EksDouble, startEks } from '../../eks.ts';

const OWN = {
  accessKeyId: 'AKIAIOSFODNN7EXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY',
};

let stack: AsyncDisposableStack;
let aws: AwsEndpoint;
let eks: EksDouble;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  [aws, eks] = await Promise.all([startAwsEndpoint(), startEks()]);
  stack.use(aws);
  stack.use(eks);
  aws.settings.principals[OWN.accessKeyId] = {
    secretAccessKey: OWN.secretAccessKey,
    arn: 'arn:aws:sts::123456789012:assumed-role/refresher/run',
    account: '123456789012',
    userId: 'AROAEXAMPLE:run',
  };
  for (const [name, value] of Object.entries({
    ...aws.env,
    AWS_ENDPOINT_URL_EKS: eks.url,
    AWS_ACCESS_KEY_ID: OWN.accessKeyId,
    AWS_SECRET_ACCESS_KEY: OWN.secretAccessKey,
  }))
    vi.stubEnv(name, value);
  eks.clusters.set('prod', { endpoint: 'https://prod.example', ca: 'a certificate' });
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
});

interface Verdict {
  readonly error?: string;
  readonly [field: string]: unknown;
}

/** Runs the verifier of a cluster with a token. */
async function verify(token: string, { cluster = 'prod', partition = 'aws', region = 'eu-central-1' } = {}) {
  const verifier = spawn(tools().eksTokenVerifier, { env: { STS_URL: aws.url } });
  verifier.stdin.end(JSON.stringify({ cluster, partition, region, token }));
  const [out, err] = await Promise.all([text(verifier.stdout), text(verifier.stderr)]);
  if (err) throw new Error(err);
  return JSON.parse(out) as Verdict;
}

/** Signs a token like the refresher's, with the changes of a test covered by the signature. */
async function sign({
  host = 'sts.eu-central-1.amazonaws.com',
  region = 'eu-central-1',
  query = {},
  clusterHeader = { 'x-k8s-aws-id': 'prod' } as Record<string, string>,
  expiresIn = 60,
  signingDate = new Date(),
} = {}): Promise<URL> {
  const { sha256 } = new STSClient({ region, credentials: OWN }).config;
  const signer = new SignatureV4({ service: 'sts', region, credentials: OWN, sha256 });
  const { query: signed = {} } = await signer.presign(
    {
      method: 'GET',
      protocol: 'https:',
      hostname: host,
      path: '/',
      query: { Action: 'GetCallerIdentity', Version: '2011-06-15', ...query },
      headers: { host, ...clusterHeader },
    },
    { expiresIn, signingDate },
  );
  return new URL(`https://${host}/?${new URLSearchParams(signed as Record<string, string>)}`);
}

const encode = (url: URL | string) => `k8s-aws-v1.${Buffer.from(String(url)).toString('base64url')}`;
const signal = () => AbortSignal.timeout(20_000);

describe('the verifier accepts', () => {
  test.each([
    { region: 'eu-central-1', partition: 'aws', host: 'sts.eu-central-1.amazonaws.com' },
    { region: 'us-east-1', partition: 'aws', host: 'sts.us-east-1.amazonaws.com' },
    { region: 'cn-north-1', partition: 'aws-cn', host: 'sts.cn-north-1.amazonaws.com.cn' },
    { region: 'us-gov-west-1', partition: 'aws-us-gov', host: 'sts.us-gov-west-1.amazonaws.com' },
    { region: 'eusc-de-east-1', partition: 'aws-eusc', host: 'sts.eusc-de-east-1.amazonaws.eu' },
    { region: 'us-iso-east-1', partition: 'aws-iso', host: 'sts.us-iso-east-1.c2s.ic.gov' },
    { region: 'us-isob-east-1', partition: 'aws-iso-b', host: 'sts.us-isob-east-1.sc2s.sgov.gov' },
  ])('a token of the refresher itself, in $region', async ({ region, partition, host }) => {
    const token = await tokenFor('prod', new STSClient({ region }));
    expect(await verify(token, { partition, region })).toEqual({
      arn: 'arn:aws:sts::123456789012:assumed-role/refresher/run',
      canonicalARN: 'arn:aws:iam::123456789012:role/refresher',
      accountID: '123456789012',
      userID: 'AROAEXAMPLE',
      sessionName: 'run',
      accessKeyID: OWN.accessKeyId,
      stsEndpoint: host,
    });
  });

  test.each([
    {
      role: 'arn:aws:iam::210987654321:role/path/to/clusters',
      region: 'eu-central-1',
      domain: 'amazonaws.com',
    },
    {
      role: 'arn:aws-cn:iam::210987654321:role/clusters',
      region: 'cn-northwest-1',
      domain: 'amazonaws.com.cn',
    },
    {
      role: 'arn:aws-us-gov:iam::210987654321:role/clusters',
      region: 'us-gov-east-1',
      domain: 'amazonaws.com',
    },
  ])('a token as $role, and identifies the role', async ({ role, region, domain }) => {
    const access = eksAccess({ region, assumableRoles: [role], clusterDeadlineMs: 20_000 });
    const { token } = await access.access({ cluster: 'prod', roleArn: role }, region, signal());
    const partition = role.split(':')[1] ?? '';
    expect(await verify(token, { partition, region })).toEqual({
      arn: `arn:${partition}:sts::210987654321:assumed-role/clusters/ecr-anywhere-refresher`,
      // STS returns the role without its path.
      canonicalARN: `arn:${partition}:iam::210987654321:role/clusters`,
      accountID: '210987654321',
      userID: 'AROAEXAMPLECLUSTERS',
      sessionName: 'ecr-anywhere-refresher',
      accessKeyID: expect.stringMatching(/^ASIA/),
      stsEndpoint: `sts.${region}.${domain}`,
    });
  });

  test('the global host of STS, which the refresher does not use', async () => {
    const url = await sign({ host: 'sts.amazonaws.com', region: 'us-east-1' });
    expect(await verify(encode(url))).toMatchObject({ stsEndpoint: 'sts.amazonaws.com' });
  });

  test('the token that the refusals below vary', async () => {
    expect(await verify(encode(await sign()))).toMatchObject({ accountID: '123456789012' });
  });
});

describe('the verifier refuses', () => {
  const refusal = async (url: URL | string, where?: Parameters<typeof verify>[1]) => {
    const { error, ...identity } = await verify(encode(url), where);
    expect(identity).toEqual({});
    return error;
  };

  test('a further, signed query parameter', async () => {
    const url = await sign({ query: { DurationSeconds: '900' } });
    expect(await refusal(url)).toContain('non-whitelisted query parameter "DurationSeconds"');
  });

  test('a cluster that the signature does not cover', async () => {
    expect(await refusal(await sign({ clusterHeader: {} }))).toContain(
      'client did not sign the x-k8s-aws-id header',
    );
  });

  test('the token of another cluster', async () => {
    expect(await refusal(await sign(), { cluster: 'staging' })).toContain('SignatureDoesNotMatch');
  });

  test('a lifetime of more than 15 minutes', async () => {
    expect(await refusal(await sign({ expiresIn: 901 }))).toContain('invalid X-Amz-Expires parameter');
    expect(await verify(encode(await sign({ expiresIn: 900 })))).toMatchObject({ accountID: '123456789012' });
  });

  test('an old signature, and STS one of the future', async () => {
    const signedIn = (minutes: number) => sign({ signingDate: new Date(Date.now() + minutes * 60_000) });
    expect(await refusal(await signedIn(-16))).toContain('X-Amz-Date parameter is expired');
    expect(await refusal(await signedIn(16))).toContain('SignatureDoesNotMatch');
  });

  test('a token without its prefix, with padding, with a parameter twice, or too large', async () => {
    const url = await sign();
    const errorOf = async (token: string) => (await verify(token)).error;
    expect(await errorOf(encode(url).replace('k8s-aws-v1.', ''))).toContain('token is missing expected');
    expect(await errorOf(`${encode(url)}=`)).toContain('illegal base64');
    expect(await refusal(`${url}&Action=GetCallerIdentity`)).toContain(
      'query parameter with multiple values',
    );
    expect(await refusal(`${url}&X-Amz-Security-Token=${'x'.repeat(4_096)}`)).toContain('token is too large');
  });

  test('a parameter in another case, a missing or invalid date, a missing lifetime', async () => {
    const changed = async (change: (query: URLSearchParams) => void) => {
      const url = await sign();
      change(url.searchParams);
      return refusal(url);
    };
    // The verifier names one of the two, in random order.
    expect(await changed((query) => query.set('x-amz-expires', '60'))).toMatch(
      /duplicate query parameter found: "x-amz-expires"/i,
    );
    expect(await changed((query) => query.delete('X-Amz-Date'))).toContain('X-Amz-Date parameter must be');
    expect(await changed((query) => query.set('X-Amz-Date', 'today'))).toContain('parsing X-Amz-Date');
    expect(await changed((query) => query.delete('X-Amz-Expires'))).toContain('invalid X-Amz-Expires');
  });

  test('a further query parameter that the signature does not cover', async () => {
    expect(await refusal(`${await sign()}&x=1`)).toContain('non-whitelisted query parameter "x"');
  });

  test('a signature with another secret key', async () => {
    const { secretAccessKey } = OWN;
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', `${secretAccessKey}x`);
    const token = await tokenFor('prod', new STSClient({ region: 'eu-central-1' }));
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', secretAccessKey);
    expect((await verify(token)).error).toContain('SignatureDoesNotMatch');
  });

  test('an unknown key, and a session key without its token, with another token, or after its end', async () => {
    const url = await sign();
    url.searchParams.set(
      'X-Amz-Credential',
      `AKIANOBODY${url.searchParams.get('X-Amz-Credential')?.slice(20)}`,
    );
    expect(await refusal(url)).toContain('InvalidClientTokenId');

    const role = 'arn:aws:iam::210987654321:role/clusters';
    const sessionUrl = async () => {
      const { token } = await eksAccess({
        region: 'eu-central-1',
        assumableRoles: [role],
        clusterDeadlineMs: 20_000,
      }).access({ cluster: 'prod', roleArn: role }, 'eu-central-1', signal());
      return new URL(Buffer.from(token.slice('k8s-aws-v1.'.length), 'base64url').toString());
    };
    const [one, another] = [await sessionUrl(), await sessionUrl()];
    expect(await verify(encode(one))).toMatchObject({ accountID: '210987654321' });
    another.searchParams.set('X-Amz-Security-Token', one.searchParams.get('X-Amz-Security-Token') ?? '');
    expect(await refusal(another)).toContain('InvalidClientTokenId');
    one.searchParams.delete('X-Amz-Security-Token');
    expect(await refusal(one)).toContain('InvalidClientTokenId');

    const { sessionSeconds } = aws.settings;
    aws.settings.sessionSeconds = 0;
    const ended = await sessionUrl();
    aws.settings.sessionSeconds = sessionSeconds;
    expect(await refusal(ended)).toContain('ExpiredToken');
  });

  test('the host of another partition, and a host that is not of STS', async () => {
    const china = await sign({ host: 'sts.cn-north-1.amazonaws.com.cn', region: 'cn-north-1' });
    expect(await refusal(china)).toContain(
      'partition {aws} does not support hostname sts.cn-north-1.amazonaws.com.cn',
    );
    expect(await refusal(await sign({ host: 'sts.eu-central-1.example.com' }))).toContain(
      'unexpected hostname "sts.eu-central-1.example.com"',
    );
  });

  test('the global host outside of the aws partition, and STS refuses it inside', async () => {
    const url = await sign({ host: 'sts.amazonaws.com' });
    expect(await refusal(url, { partition: 'aws-cn', region: 'cn-north-1' })).toContain('global endpoint');
    expect(await refusal(url)).toContain('Credential should be scoped to a valid region');
  });

  test('another action, another path, and http', async () => {
    expect(await refusal(await sign({ query: { Action: 'GetSessionToken' } }))).toContain(
      'unexpected action',
    );
    const url = await sign();
    expect(await refusal(String(url).replace('.com/?', '.com/x?'))).toContain('unexpected path');
    expect(await refusal(String(url).replace('https:', 'http:'))).toContain('unexpected scheme');
  });

  test('a changed signature', async () => {
    const url = await sign();
    const signature = url.searchParams.get('X-Amz-Signature') ?? '';
    url.searchParams.set('X-Amz-Signature', `${signature.startsWith('0') ? '1' : '0'}${signature.slice(1)}`);
    expect(await refusal(url)).toContain('SignatureDoesNotMatch');
  });
});
