// Registering an EKS cluster: the refresher's role gets an access entry, and a rollback restores the entry as it was.
import {
  type AccessEntry,
  type Cluster,
  CreateAccessEntryCommand,
  DeleteAccessEntryCommand,
  DescribeAccessEntryCommand,
  DescribeClusterCommand,
  EKSClient,
  paginateListAssociatedAccessPolicies,
  UpdateAccessEntryCommand,
} from '@aws-sdk/client-eks';
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import { type Aws, clientConfig } from '../../aws/aws.ts';
import type { Rollback } from '../../aws/rollback.ts';
import type { Kubernetes, Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisteredUser } from './kubeconfig.ts';
import type { RegisterOptions } from './options.ts';

export interface EksCluster {
  readonly name: string;
  readonly region: string;
  /** The context's proxy, by which the refresher reaches a private endpoint. */
  readonly proxyUrl?: string;
}

export interface EksRegistration {
  readonly user: RegisteredUser;
  readonly server: Server;
  /** The change to the access entry; of a dry run, the change that would be made. */
  readonly entry: 'created' | 'group-added' | 'unchanged';
  /** The groups of the access entry after that change. */
  readonly groups: readonly string[];
}

/** The EKS cluster that the options or the context name; undefined without --eks. @throws CliError if neither names it */
export async function selectedEksCluster(
  { eks, eksName }: RegisterOptions,
  kubernetes: Kubernetes,
  aws: Aws,
): Promise<EksCluster | undefined> {
  if (eks === undefined) return undefined;
  const ofContext = kubernetes.eks();
  const name = eksName ?? ofContext?.cluster;
  if (name === undefined)
    throw new CliError(
      'eks-cluster-unknown',
      'The context does not say which EKS cluster it belongs to.',
      'Name it with --eks-name NAME.',
    );
  const { url, proxyUrl } = await kubernetes.server();
  const region = ofContext?.region ?? regionOfEndpoint(url) ?? (await aws.region());
  return { name, region, ...(proxyUrl !== undefined && { proxyUrl }) };
}

/**
 * Gives the refresher's role access to an EKS cluster.
 *
 * @param dryRun changes nothing
 * @throws CliError
 */
export async function grantEksAccess(
  aws: Aws,
  { name, region, proxyUrl }: EksCluster,
  principalArn: string,
  dryRun: boolean,
  rollback: Rollback,
  commands: ShellCommands,
): Promise<EksRegistration> {
  const command = (...args: string[]) => commands.aws(['eks', ...args], region);
  const clientOf = (operator: Aws) => new EKSClient(clientConfig({ ...operator.options, region }));
  const eks = clientOf(aws);
  const entryId = { clusterName: name, principalArn };
  const entryOptions = ['--cluster-name', name, '--principal-arn', principalArn];
  const cluster = await describeCluster(aws, eks, { name, region }, command);
  const registration = {
    user: eksUser({ name, region }),
    server: {
      ...serverOf(cluster, name, command('wait', 'cluster-active', '--name', name)),
      ...(proxyUrl !== undefined && { proxyUrl }),
    },
  };
  checkAccessConfig(cluster, name, proxyUrl !== undefined, (...args) =>
    command('update-cluster-config', '--name', name, ...args),
  );
  const existing = await describeEntry(aws, eks, entryId);
  if (existing) {
    const policies = await listAccessPolicies(aws, eks, entryId);
    // EKS grants their permissions outside RBAC, so a SubjectAccessReview by group does not show them.
    if (policies.length > 0)
      throw new CliError(
        'eks-access-policies',
        `The access entry in ${name} has access policies, so the write policy would not limit a stolen token: ${policies.join(', ')}.`,
        policies
          .map((arn) => command('disassociate-access-policy', ...entryOptions, '--policy-arn', arn))
          .join(' && '),
      );
  }
  const groups = existing?.kubernetesGroups ?? [];
  if (groups.includes(REFRESHER_GROUP)) return { ...registration, entry: 'unchanged', groups };
  const kubernetesGroups = [...groups, REFRESHER_GROUP];
  const entry = existing ? 'group-added' : 'created';
  if (dryRun) return { ...registration, entry, groups: kubernetesGroups };

  // If another operator creates the entry at the same time, EKS rejects this request, and their entry stays.
  if (existing) {
    const change = rollback.add({
      revert: (operator) => removeGroup(operator, clientOf(operator), entryId),
      manualCommand: () =>
        command(
          'update-access-entry',
          ...entryOptions,
          '--kubernetes-groups',
          ...(groups.length > 0 ? groups : ['[]']),
        ),
    });
    const update = new UpdateAccessEntryCommand({ ...entryId, kubernetesGroups });
    await aws.change(`adding the group to the access entry in ${name}`, (abortSignal) =>
      change.send(() => eks.send(update, { abortSignal })),
    );
  } else {
    const change = rollback.add({
      revert: (operator) => deleteEntry(operator, clientOf(operator), entryId),
      manualCommand: () => command('delete-access-entry', ...entryOptions),
    });
    const create = new CreateAccessEntryCommand({ ...entryId, kubernetesGroups });
    await aws.change(`creating the access entry in ${name}`, (abortSignal) =>
      change.send(() => eks.send(create, { abortSignal })),
    );
  }
  return { ...registration, entry, groups: kubernetesGroups };
}

/** Checks that the refresher can reach the cluster and that EKS reads access entries. @throws CliError */
function checkAccessConfig(
  { resourcesVpcConfig, accessConfig }: Cluster,
  name: string,
  hasProxy: boolean,
  updateCommand: (...args: string[]) => string,
): void {
  if (resourcesVpcConfig?.endpointPublicAccess === false && !hasProxy)
    throw new CliError(
      'eks-endpoint-private',
      `The EKS cluster ${name} has only a private endpoint, which the refresher cannot reach.`,
      `Use a context with a proxy-url that AWS reaches, or make the endpoint public, which opens the API server to the Internet: ${updateCommand('--resources-vpc-config', 'endpointPublicAccess=true')}`,
    );
  if (accessConfig?.authenticationMode === 'CONFIG_MAP')
    throw new CliError(
      'eks-access-entries-disabled',
      `The EKS cluster ${name} has access entries disabled.`,
      `Enable access entries. EKS cannot disable them again: ${updateCommand('--access-config', 'authenticationMode=API_AND_CONFIG_MAP')}`,
    );
}

type EntryId = Readonly<{ clusterName: string; principalArn: string }>;

async function describeCluster(
  aws: Aws,
  eks: EKSClient,
  { name, region }: EksCluster,
  command: (...args: string[]) => string,
): Promise<Cluster> {
  return aws.ask(`describing the EKS cluster ${name} in ${region}`, async (abortSignal) => {
    const { cluster } = await eks
      .send(new DescribeClusterCommand({ name }), { abortSignal })
      .catch((error: Error) => {
        if (error.name === 'ResourceNotFoundException')
          throw new CliError(
            'eks-cluster-not-found',
            `There is no EKS cluster ${name} in ${region}.`,
            `Name an existing one with --eks-name. To list them: ${command('list-clusters')}`,
          );
        throw error;
      });
    return cluster ?? {};
  });
}

async function describeEntry(aws: Aws, eks: EKSClient, entry: EntryId): Promise<AccessEntry | undefined> {
  return aws.ask(`describing the access entry in ${entry.clusterName}`, (abortSignal) =>
    eks
      .send(new DescribeAccessEntryCommand(entry), { abortSignal })
      .then(({ accessEntry }): AccessEntry | undefined => accessEntry)
      .catch((error: Error) => {
        if (error.name === 'ResourceNotFoundException') return undefined;
        throw error;
      }),
  );
}

/** @returns ARNs @throws CliError */
async function listAccessPolicies(aws: Aws, client: EKSClient, entry: EntryId): Promise<string[]> {
  return aws.ask(`listing the access policies in ${entry.clusterName}`, async (abortSignal) => {
    const arns: string[] = [];
    for await (const page of paginateListAssociatedAccessPolicies({ client }, entry, { abortSignal }))
      arns.push(...(page.associatedAccessPolicies ?? []).flatMap(({ policyArn }) => policyArn ?? []));
    return arns;
  });
}

/** Removes only the refresher's group: another operator may have changed the entry in the meantime. */
async function removeGroup(aws: Aws, eks: EKSClient, entry: EntryId): Promise<void> {
  await aws.change('restoring the access entry', async (abortSignal) => {
    const { accessEntry } = await eks.send(new DescribeAccessEntryCommand(entry), { abortSignal });
    const groups = accessEntry?.kubernetesGroups ?? [];
    if (!groups.includes(REFRESHER_GROUP)) return;
    const kubernetesGroups = groups.filter((group) => group !== REFRESHER_GROUP);
    await eks.send(new UpdateAccessEntryCommand({ ...entry, kubernetesGroups }), { abortSignal });
  });
}

async function deleteEntry(aws: Aws, eks: EKSClient, entry: EntryId): Promise<void> {
  await aws.change('deleting the access entry', (abortSignal) =>
    eks.send(new DeleteAccessEntryCommand(entry), { abortSignal }).catch((error: Error) => {
      if (error.name !== 'ResourceNotFoundException') throw error;
    }),
  );
}

function serverOf(
  { endpoint, certificateAuthority, status }: Cluster,
  name: string,
  waitCommand: string,
): Server {
  const { data } = certificateAuthority ?? {};
  if (!endpoint || !data)
    throw new CliError(
      'eks-cluster-not-ready',
      `The EKS cluster ${name} has no endpoint yet. Its status is ${status}.`,
      waitCommand,
    );
  return { url: endpoint, ca: Buffer.from(data, 'base64').toString() };
}

/** The exec entry that `aws eks update-kubeconfig` writes. The refresher recognises it and signs the token itself. */
function eksUser({ name, region }: EksCluster): RegisteredUser {
  const args = ['--region', region, 'eks', 'get-token', '--cluster-name', name, '--output', 'json'];
  return { exec: { command: 'aws', args } };
}
