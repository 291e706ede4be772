// Which exec entries are understood, and that each other one is refused by the name of what is not.
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
])('understood as keyless: $args', ({ args, keyless }) => {
  for (const command of ['ecr-anywhere', '/usr/local/bin/ecr-anywhere'])
    expect(readExecPlugin({ command, args })).toEqual({ keyless });
});

test.each([
  { args: ['get-token'], says: 'does not name the cluster: --cluster' },
  { args: ['get-token', '--cluster', 'prod', '--role-arn', ROLE], says: 'has the option --role-arn' },
  { args: ['authentication-config', '--cluster', 'prod'], says: 'is not "ecr-anywhere get-token"' },
])('refused as keyless: $args', ({ args, says }) => {
  expect(() => readExecPlugin({ command: 'ecr-anywhere', args })).toThrow(says);
});

describe('understood', () => {
  test.each([
    {
      what: 'aws, as update-kubeconfig writes it',
      entry: {
        ...aws('--cluster-name', 'prod', '--output', 'json'),
        apiVersion: 'client.authentication.k8s.io/v1beta1',
        env: null,
      },
      eks: { cluster: 'prod' },
    },
    {
      what: 'aws with region and role, the region first',
      entry: {
        command: 'aws',
        args: ['--region', 'eu-west-1', 'eks', 'get-token', '--cluster-name', 'prod', '--role-arn', ROLE],
      },
      eks: { cluster: 'prod', region: 'eu-west-1', roleArn: ROLE },
    },
    {
      what: 'options with =',
      entry: aws('--cluster-name=prod', '--region=cn-north-1'),
      eks: { cluster: 'prod', region: 'cn-north-1' },
    },
    {
      what: 'a path',
      entry: { ...aws('--cluster-name', 'prod'), command: '/usr/local/bin/aws' },
      eks: { cluster: 'prod' },
    },
    {
      what: 'Windows',
      entry: { ...aws('--cluster-name', 'prod'), command: 'C:\\Program Files\\Amazon\\aws.exe' },
      eks: { cluster: 'prod' },
    },
    {
      what: 'a profile of the operator’s, which says nothing of who the refresher is',
      entry: {
        ...aws('--cluster-name', 'prod', '--profile', 'me'),
        env: [{ name: 'AWS_PROFILE', value: 'me' }],
      },
      eks: { cluster: 'prod' },
    },
    {
      what: 'the region from the environment',
      entry: { ...aws('--cluster-name', 'prod'), env: [{ name: 'AWS_REGION', value: 'eu-west-1' }] },
      eks: { cluster: 'prod', region: 'eu-west-1' },
    },
    {
      what: 'the option before the environment',
      entry: {
        ...aws('--cluster-name', 'prod', '--region', 'eu-west-2'),
        env: [{ name: 'AWS_DEFAULT_REGION', value: 'eu-west-1' }],
      },
      eks: { cluster: 'prod', region: 'eu-west-2' },
    },
    {
      what: 'aws-iam-authenticator, short',
      entry: authenticator('-i', 'prod', '-r', ROLE),
      eks: { cluster: 'prod', roleArn: ROLE },
    },
    {
      what: 'aws-iam-authenticator, long, with an external id',
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

describe('refused', () => {
  test.each([
    {
      what: 'another command',
      entry: { command: 'gke-gcloud-auth-plugin' },
      says: /would run a command: register a token/,
    },
    { what: 'a shell', entry: { command: 'sh', args: ['-c', CANARY] }, says: /would run a command/ },
    { what: 'a command of Object’s', entry: { command: 'constructor' }, says: /would run a command/ },
    {
      what: 'a command whose path only looks like it',
      entry: { command: '/tmp/aws/evil' },
      says: /would run a command/,
    },
    {
      what: 'another subcommand',
      entry: { command: 'aws', args: ['s3', 'cp'] },
      says: /is not "aws eks get-token"/,
    },
    {
      what: 'more than the subcommand',
      entry: aws('--cluster-name', 'a', CANARY),
      says: /is not "aws eks get-token"/,
    },
    { what: 'no cluster', entry: aws(), says: /does not name the cluster: --cluster-name/ },
    {
      what: 'an endpoint of its own',
      entry: aws('--cluster-name', 'a', '--endpoint-url', `https://${CANARY}`),
      says: /--endpoint-url, which is not understood/,
    },
    {
      what: 'an option of Object’s',
      entry: aws('--cluster-name', 'a', '--toString', CANARY),
      says: /--toString, which is not understood/,
    },
    {
      what: 'an option without its value',
      entry: aws('--cluster-name'),
      says: /--cluster-name without a value/,
    },
    {
      what: 'an option twice',
      entry: aws('--cluster-name', 'a', '--cluster-name', 'b'),
      says: /--cluster-name twice/,
    },
    {
      what: 'a role that is none',
      entry: aws('--cluster-name', 'a', '--role-arn', CANARY),
      says: /--role-arn is no ARN of a role/,
    },
    {
      what: 'a user as role',
      entry: aws('--cluster-name', 'a', '--role-arn', 'arn:aws:iam::123456789012:user/x'),
      says: /is no ARN of a role/,
    },
    {
      what: 'a region that is a host',
      entry: aws('--cluster-name', 'a', '--region', 'evil.example/'),
      says: /--region is no AWS region/,
    },
    {
      what: 'a cluster with a line end',
      entry: aws('--cluster-name', 'a\nb'),
      says: /--cluster-name is no name of an EKS cluster/,
    },
    {
      what: 'keys in the environment',
      entry: { ...aws('--cluster-name', 'a'), env: [{ name: 'AWS_SECRET_ACCESS_KEY', value: CANARY }] },
      says: /variable AWS_SECRET_ACCESS_KEY, which is not understood/,
    },
    { what: 'no command', entry: { args: [CANARY] }, says: /is no exec entry/ },
    { what: 'not an object', entry: CANARY, says: /is no exec entry/ },
    {
      what: 'arguments of another type',
      entry: { command: 'aws', args: { a: CANARY } },
      says: /is no exec entry/,
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
