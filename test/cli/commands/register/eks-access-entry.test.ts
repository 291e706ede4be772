// How register changes the access entry of the refresher's role in an EKS cluster.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { Aws } from '../../../../cli/aws/aws.ts';
import type { RegisterContext } from '../../../../cli/commands/register/context.ts';
import { obtainEksAccess } from '../../../../cli/commands/register/eks-access-entry.ts';
import type { RegisterOptions } from '../../../../cli/commands/register/options.ts';
import { EXIT } from '../../../../cli/output/errors.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { type EksCluster, type EksDouble, startEks } from '../../../functions/eks.ts';

const REGION = 'eu-central-1';
const GROUP = 'ecr-anywhere:refreshers';
const ROLE = 'arn:aws:iam::123456789012:role/refresher';
const ENTRY = `prod ${ROLE}`;
const PROD: EksCluster = { endpoint: 'https://eks.example', ca: 'PEM', region: REGION };

let eks: EksDouble;
beforeAll(async () => {
  eks = await startEks();
});
afterAll(() => eks[Symbol.asyncDispose]());
beforeEach(() => {
  const env = { AWS_ENDPOINT_URL_EKS: eks.url, AWS_REGION: 'us-east-1', AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE' };
  for (const [name, value] of Object.entries({ ...env, AWS_SECRET_ACCESS_KEY: 'secret' }))
    vi.stubEnv(name, value);
  eks.clusters.set('prod', PROD);
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
  for (const map of [eks.clusters, eks.entries, eks.policies]) map.clear();
  eks.changes.length = 0;
  eks.isAllowed = () => true;
});

interface Given {
  readonly options?: Partial<RegisterOptions>;
  /** The cluster that the context names. */
  readonly ofContext?: { readonly cluster: string; readonly region: string } | undefined;
  readonly url?: string;
  readonly proxyUrl?: string;
  readonly isInVpc?: boolean;
}

function obtain(given: Given = {}) {
  const { options = {}, url = 'https://eks.example', proxyUrl, isInVpc = false } = given;
  const ofContext = 'ofContext' in given ? given.ofContext : { cluster: 'prod', region: REGION };
  return obtainEksAccess({
    ...{ options, stack: { roleArn: ROLE, isInVpc }, aws: new Aws({}, new AbortController().signal) },
    commands: new ShellCommands({}, {}),
    kubernetes: { eks: () => ofContext, server: async () => ({ url, proxyUrl }) },
  } as unknown as RegisterContext);
}

const entries = () => Object.fromEntries(eks.entries);

test.each<{ title: string; groups?: string[]; accessEntry: string; after: string[] }>([
  { title: 'creates an entry', accessEntry: 'created', after: [GROUP] },
  {
    title: 'adds the group, and keeps the other groups',
    groups: ['viewers'],
    accessEntry: 'group-added',
    after: ['viewers', GROUP],
  },
  { title: 'keeps an entry that has the group', groups: [GROUP], accessEntry: 'unchanged', after: [GROUP] },
])('$title; the same command again changes nothing', async ({ groups, accessEntry, after }) => {
  if (groups) eks.entries.set(ENTRY, groups);
  const expected = {
    server: { url: 'https://eks.example', ca: 'PEM' },
    expectedIdentity: { username: ROLE, groups: [...after, 'system:authenticated'] },
    details: { accessEntry },
    isRenewed: false,
  };
  expect(await obtain({ options: { dryRun: true } })).toMatchObject(expected);
  expect(eks.changes).toEqual([]);
  expect(await obtain()).toMatchObject(expected);
  expect(entries()).toEqual({ [ENTRY]: after });
  const made = eks.changes.length;
  expect(await obtain()).toMatchObject({ ...expected, details: { accessEntry: 'unchanged' } });
  expect(eks.changes.length).toBe(made);
});

test('registers the command that `aws eks update-kubeconfig` writes', async () => {
  const args = ['--region', REGION, 'eks', 'get-token', '--cluster-name', 'prod', '--output', 'json'];
  expect((await obtain()).user).toEqual({ exec: { command: 'aws', args } });
});

test.each<{ title: string; given: Given; region: string }>([
  {
    title: 'the endpoint',
    given: { url: 'https://A0B1.gr7.eu-west-1.eks.amazonaws.com' },
    region: 'eu-west-1',
  },
  { title: 'AWS_REGION otherwise', given: {}, region: 'us-east-1' },
])('without EKS arguments in the context, the region is that of $title', async ({ given, region }) => {
  eks.clusters.set('named', { ...PROD, region });
  const options = { eksName: 'named' };
  expect((await obtain({ ...given, options, ofContext: undefined })).eks).toEqual({ name: 'named', region });
});

describe('fails before it changes the entry', () => {
  const update = 'aws eks update-cluster-config --name prod';
  test.each<{ title: string; cluster?: EksCluster; given?: Given; code: string; hint: string }>([
    {
      title: 'the context names no cluster',
      given: { ofContext: undefined },
      code: 'eks-cluster-unknown',
      hint: '--eks-name',
    },
    {
      title: 'there is no such cluster',
      given: { options: { eksName: 'nowhere' } },
      code: 'eks-cluster-not-found',
      hint: `: aws eks list-clusters --region ${REGION}`,
    },
    {
      title: 'the cluster has access entries disabled',
      cluster: { ...PROD, authenticationMode: 'CONFIG_MAP' },
      code: 'eks-access-entries-disabled',
      hint: `${update} --access-config authenticationMode=API_AND_CONFIG_MAP --region ${REGION}`,
    },
    {
      title: 'the cluster is being created',
      cluster: { region: REGION, status: 'CREATING' },
      code: 'eks-cluster-not-ready',
      hint: 'aws eks wait cluster-active --name prod',
    },
    {
      title: 'the cluster has only a private endpoint',
      cluster: { ...PROD, isPrivate: true },
      code: 'eks-endpoint-private',
      hint: `${update} --resources-vpc-config endpointPublicAccess=true --region ${REGION}`,
    },
  ])('if $title', async ({ cluster = PROD, given, code, hint }) => {
    eks.clusters.set('prod', cluster);
    await expect(obtain(given)).rejects.toMatchObject({ code, hint: expect.stringContaining(hint) });
    expect(eks.changes).toEqual([]);
  });

  test.each([false, true])('if the entry has access policies; dry run: %s', async (dryRun) => {
    const policies = ['ClusterAdmin', 'View', 'Edit', 'Admin'];
    const arns = policies.map((policy) => `arn:aws:eks::aws:cluster-access-policy/AmazonEKS${policy}Policy`);
    eks.entries.set(ENTRY, [GROUP]);
    eks.policies.set(ENTRY, arns);
    const command = (arn: string) =>
      `aws eks disassociate-access-policy --cluster-name prod --principal-arn ${ROLE} --policy-arn ${arn} --region ${REGION}`;
    await expect(obtain({ options: dryRun ? { dryRun } : {} })).rejects.toMatchObject({
      code: 'eks-access-policies',
      exitCode: EXIT.denied,
      message: expect.stringContaining(arns.join(', ')),
      hint: arns.map(command).join(' && '),
    });
    expect(eks.changes).toEqual([]);
  });

  test('accepts a private endpoint that the context reaches by a proxy', async () => {
    eks.clusters.set('prod', { ...PROD, isPrivate: true });
    const { server } = await obtain({ proxyUrl: 'http://proxy:1' });
    expect(server.proxyUrl).toBe('http://proxy:1');
  });

  test('accepts a private endpoint if the refresher is in a VPC', async () => {
    eks.clusters.set('prod', { ...PROD, isPrivate: true });
    expect((await obtain({ isInVpc: true })).server.url).toBe('https://eks.example');
  });
});

test('fails if the operator may not create entries', async () => {
  eks.isAllowed = ({ action }) => action !== 'CreateAccessEntry';
  await expect(obtain()).rejects.toMatchObject({
    code: 'aws-access-denied',
    message: expect.stringContaining('eks:CreateAccessEntry'),
  });
});

test('keeps the entry that another operator creates at the same time', async () => {
  eks.isAllowed = ({ action }) => {
    if (action === 'CreateAccessEntry') eks.entries.set(ENTRY, ['theirs']);
    return true;
  };
  await expect(obtain()).rejects.toMatchObject({
    code: 'aws-error',
    message: expect.stringContaining('already in use'),
  });
  expect(entries()).toEqual({ [ENTRY]: ['theirs'] });
});
