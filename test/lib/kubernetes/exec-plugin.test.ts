// Tests which exec entries are recognized, and that the refusal of any other names the unsupported part.
import { describe, expect, test } from 'vitest';
import { readExecPlugin } from '../../../lib/kubernetes/exec-plugin.ts';

const ROLE = 'arn:aws:iam::123456789012:role/refresher';
const CANARY = 'canary-3f9b';
const aws = (...args: string[]) => ({ command: 'aws', args: ['eks', 'get-token', ...args] });
const authenticator = (...args: string[]) => ({ command: 'aws-iam-authenticator', args: ['token', ...args] });

test.each([
  { args: ['get-token', '--cluster', 'prod'], keyless: { cluster: 'prod' } },
  {
    args: ['get-token', '--cluster=team/prod', '--stage', 'Live', '--region', 'eu-west-1'],
    keyless: { cluster: 'team/prod', stage: 'Live' },
  },
  {
    args: ['get-token', '--cluster=team/prod', '--stack-name', 'Live', '--region', 'eu-west-1'],
    keyless: { cluster: 'team/prod', stage: 'Live' },
  },
])('ecr-anywhere $args is an identity of a keyless cluster', ({ args, keyless }) => {
  for (const command of ['ecr-anywhere', '/usr/local/bin/ecr-anywhere'])
    expect(readExecPlugin({ command, args })).toEqual({ keyless });
});

test.each([
  { args: ['get-token'], says: 'does not name the cluster: add --cluster' },
  { args: ['get-token', '--cluster', 'prod', '--role-arn', ROLE], says: 'has the option --role-arn' },
  { args: ['authentication-config', '--cluster', 'prod'], says: 'is not "ecr-anywhere get-token"' },
])('ecr-anywhere $args is refused', ({ args, says }) => {
  expect(() => readExecPlugin({ command: 'ecr-anywhere', args })).toThrow(says);
});

describe('an exec entry for EKS is recognized', () => {
  test.each([
    {
      what: 'as "aws eks update-kubeconfig" writes it',
      entry: {
        ...aws('--cluster-name', 'prod', '--output', 'json'),
        apiVersion: 'client.authentication.k8s.io/v1beta1',
        env: null,
      },
      eks: { cluster: 'prod' },
    },
    {
      what: 'with a region before the subcommand, and a role',
      entry: {
        command: 'aws',
        args: ['--region', 'eu-west-1', 'eks', 'get-token', '--cluster-name', 'prod', '--role-arn', ROLE],
      },
      eks: { cluster: 'prod', region: 'eu-west-1', roleArn: ROLE },
    },
    {
      what: 'with options in the form --option=value',
      entry: aws('--cluster-name=prod', '--region=cn-north-1'),
      eks: { cluster: 'prod', region: 'cn-north-1' },
    },
    {
      what: 'with the path of a command',
      entry: { ...aws('--cluster-name', 'prod'), command: '/usr/local/bin/aws' },
      eks: { cluster: 'prod' },
    },
    {
      what: 'with a Windows path',
      entry: { ...aws('--cluster-name', 'prod'), command: 'C:\\Program Files\\Amazon\\aws.exe' },
      eks: { cluster: 'prod' },
    },
    {
      what: 'with a profile, which the refresher ignores',
      entry: {
        ...aws('--cluster-name', 'prod', '--profile', 'me'),
        env: [{ name: 'AWS_PROFILE', value: 'me' }],
      },
      eks: { cluster: 'prod' },
    },
    {
      what: 'with the region in an environment variable',
      entry: { ...aws('--cluster-name', 'prod'), env: [{ name: 'AWS_REGION', value: 'eu-west-1' }] },
      eks: { cluster: 'prod', region: 'eu-west-1' },
    },
    {
      what: 'with a region option, which takes precedence over the environment variable',
      entry: {
        ...aws('--cluster-name', 'prod', '--region', 'eu-west-2'),
        env: [{ name: 'AWS_DEFAULT_REGION', value: 'eu-west-1' }],
      },
      eks: { cluster: 'prod', region: 'eu-west-2' },
    },
    {
      what: 'of aws-iam-authenticator with short options',
      entry: authenticator('-i', 'prod', '-r', ROLE),
      eks: { cluster: 'prod', roleArn: ROLE },
    },
    {
      what: 'of aws-iam-authenticator with long options and an external ID',
      entry: authenticator(
        '--cluster-id',
        'prod',
        '--role',
        ROLE,
        '--external-id',
        'x-1',
        '--region',
        'eu-west-1',
        '--session-name',
        's',
      ),
      eks: { cluster: 'prod', region: 'eu-west-1', roleArn: ROLE, externalId: 'x-1' },
    },
  ])('$what', ({ entry, eks }) => {
    expect(readExecPlugin(entry)).toEqual({ eks });
  });
});

describe('an exec entry is refused', () => {
  test.each([
    {
      what: 'with another command',
      entry: { command: 'gke-gcloud-auth-plugin' },
      says: /would run a command: register a token/,
    },
    { what: 'with a shell', entry: { command: 'sh', args: ['-c', CANARY] }, says: /would run a command/ },
    {
      what: 'with a command that is a property of Object',
      entry: { command: 'constructor' },
      says: /would run a command/,
    },
    {
      what: 'with aws as a folder of the path',
      entry: { command: '/tmp/aws/evil' },
      says: /would run a command/,
    },
    {
      what: 'with another subcommand',
      entry: { command: 'aws', args: ['s3', 'cp'] },
      says: /is not "aws eks get-token"/,
    },
    {
      what: 'with a further positional argument',
      entry: aws('--cluster-name', 'a', CANARY),
      says: /is not "aws eks get-token"/,
    },
    { what: 'without a cluster', entry: aws(), says: /does not name the cluster: add --cluster-name/ },
    {
      what: 'with an endpoint URL',
      entry: aws('--cluster-name', 'a', '--endpoint-url', `https://${CANARY}`),
      says: /--endpoint-url, which is not supported/,
    },
    {
      what: 'with an option that is a property of Object',
      entry: aws('--cluster-name', 'a', '--toString', CANARY),
      says: /--toString, which is not supported/,
    },
    {
      what: 'with an option without its value',
      entry: aws('--cluster-name'),
      says: /--cluster-name without a value/,
    },
    {
      what: 'with an option twice',
      entry: aws('--cluster-name', 'a', '--cluster-name', 'b'),
      says: /--cluster-name twice/,
    },
    {
      what: 'with an invalid role ARN',
      entry: aws('--cluster-name', 'a', '--role-arn', CANARY),
      says: /--role-arn is not the ARN of a role/,
    },
    {
      what: 'with the ARN of a user as the role',
      entry: aws('--cluster-name', 'a', '--role-arn', 'arn:aws:iam::123456789012:user/x'),
      says: /is not the ARN of a role/,
    },
    {
      what: 'with a host name as the region',
      entry: aws('--cluster-name', 'a', '--region', 'evil.example/'),
      says: /--region is not an AWS region/,
    },
    {
      what: 'with a line break in the cluster name',
      entry: aws('--cluster-name', 'a\nb'),
      says: /--cluster-name is not the name of an EKS cluster/,
    },
    {
      what: 'with an access key in the environment',
      entry: { ...aws('--cluster-name', 'a'), env: [{ name: 'AWS_SECRET_ACCESS_KEY', value: CANARY }] },
      says: /variable AWS_SECRET_ACCESS_KEY, which is not supported/,
    },
    { what: 'without a command', entry: { args: [CANARY] }, says: /is not an exec entry/ },
    { what: 'that is not an object', entry: CANARY, says: /is not an exec entry/ },
    {
      what: 'whose arguments are not a list',
      entry: { command: 'aws', args: { a: CANARY } },
      says: /is not an exec entry/,
    },
  ])('$what', ({ entry, says }) => {
    expect(() => readExecPlugin(entry)).toThrow(says);
    try {
      readExecPlugin(entry);
    } catch (error) {
      expect((error as Error).message).not.toContain(CANARY);
    }
  });
});
