// Registering an EKS cluster: the refresher's role gets an access entry. It stays if the registration fails, because it
// gives access to the refresher only, and the same command finds it again.
import {
  type Cluster,
  CreateAccessEntryCommand,
  DescribeAccessEntryCommand,
  DescribeClusterCommand,
  EKSClient,
  paginateListAssociatedAccessPolicies,
  UpdateAccessEntryCommand,
} from '@aws-sdk/client-eks';
import { REFRESHER_GROUP } from '../../../contract/names.ts';
import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import { clientConfig } from '../../aws/aws.ts';
import type { Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { ObtainedCredential, RegisterContext } from './context.ts';

/** Gives the refresher's role access to the EKS cluster that the options or the context name. @throws CliError */
export async function obtainEksAccess({
  options,
  kubernetes,
  aws,
  stack: { roleArn, isInVpc },
  commands,
}: RegisterContext): Promise<ObtainedCredential> {
  const ofContext = kubernetes.eks();
  const name = options.eksName ?? ofContext?.cluster;
  if (name === undefined)
    throw new CliError(
      'eks-cluster-unknown',
      'The context does not say which EKS cluster it belongs to.',
      'Name it with --eks-name NAME.',
    );
  // The refresher reaches a private endpoint by the context's proxy, too.
  const { url, proxyUrl } = await kubernetes.server();
  const region = ofContext?.region ?? regionOfEndpoint(url) ?? (await aws.region());
  const command = (...args: string[]) => commands.aws(['eks', ...args], region);
  const client = new EKSClient(clientConfig({ ...aws.options, region }));

  const described = await aws.ask(`describing the EKS cluster ${name} in ${region}`, (abortSignal) =>
    unlessMissing(client.send(new DescribeClusterCommand({ name }), { abortSignal })),
  );
  if (!described)
    throw new CliError(
      'eks-cluster-not-found',
      `There is no EKS cluster ${name} in ${region}.`,
      `Name an existing one with --eks-name. To list them: ${command('list-clusters')}`,
    );
  const server = serverOf(described.cluster ?? {}, name, { proxyUrl, isInVpc }, command);

  const entry = { clusterName: name, principalArn: roleArn };
  const entryOptions = ['--cluster-name', name, '--principal-arn', roleArn];
  const existing = await aws.ask(`describing the access entry in ${name}`, (abortSignal) =>
    unlessMissing(client.send(new DescribeAccessEntryCommand(entry), { abortSignal })),
  );
  if (existing) {
    const policies: string[] = [];
    await aws.ask(`listing the access policies in ${name}`, async (abortSignal) => {
      for await (const page of paginateListAssociatedAccessPolicies({ client }, entry, { abortSignal }))
        policies.push(...(page.associatedAccessPolicies ?? []).flatMap(({ policyArn }) => policyArn ?? []));
    });
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
  const before = existing?.accessEntry?.kubernetesGroups ?? [];
  const kubernetesGroups = [...new Set([...before, REFRESHER_GROUP])];
  const accessEntry =
    before.length === kubernetesGroups.length ? 'unchanged' : existing ? 'group-added' : 'created';
  if (accessEntry !== 'unchanged' && !options.dryRun) {
    const input = { ...entry, kubernetesGroups };
    // If another operator creates the entry at the same time, EKS rejects this request, and their entry stays.
    await aws.change<unknown>(`changing the access entry in ${name}`, (abortSignal) =>
      existing
        ? client.send(new UpdateAccessEntryCommand(input), { abortSignal })
        : client.send(new CreateAccessEntryCommand(input), { abortSignal }),
    );
  }
  // The exec entry that `aws eks update-kubeconfig` writes. The refresher recognises it and signs the token itself.
  const args = ['--region', region, 'eks', 'get-token', '--cluster-name', name, '--output', 'json'];
  return {
    user: { exec: { command: 'aws', args } },
    isRenewed: false,
    server,
    expectedIdentity: { username: roleArn, groups: [...kubernetesGroups, 'system:authenticated'] },
    eks: { name, region },
    details: { accessEntry },
    unauthorizedHint: command('describe-access-entry', ...entryOptions),
  };
}

/** The server of a cluster that the refresher can reach, and that reads access entries. @throws CliError */
function serverOf(
  { endpoint, certificateAuthority, status, resourcesVpcConfig, accessConfig }: Cluster,
  name: string,
  { proxyUrl, isInVpc }: { readonly proxyUrl: string | undefined; readonly isInVpc: boolean },
  command: (...args: string[]) => string,
): Server {
  const { data } = certificateAuthority ?? {};
  if (!endpoint || !data)
    throw new CliError(
      'eks-cluster-not-ready',
      `The EKS cluster ${name} has no endpoint yet. Its status is ${status}.`,
      command('wait', 'cluster-active', '--name', name),
    );
  const update = (...args: string[]) => command('update-cluster-config', '--name', name, ...args);
  if (resourcesVpcConfig?.endpointPublicAccess === false && proxyUrl === undefined && !isInVpc)
    throw new CliError(
      'eks-endpoint-private',
      `The EKS cluster ${name} has only a private endpoint, which the refresher cannot reach.`,
      `Use a context with a proxy-url that AWS reaches, deploy the refresher into a VPC that reaches the endpoint (CDK setting subnetIds), or make the endpoint public, which opens the API server to the Internet: ${update('--resources-vpc-config', 'endpointPublicAccess=true')}`,
    );
  if (accessConfig?.authenticationMode === 'CONFIG_MAP')
    throw new CliError(
      'eks-access-entries-disabled',
      `The EKS cluster ${name} has access entries disabled.`,
      `Enable access entries. EKS cannot disable them again: ${update('--access-config', 'authenticationMode=API_AND_CONFIG_MAP')}`,
    );
  const ca = Buffer.from(data, 'base64').toString();
  return { url: endpoint, ca, ...(proxyUrl !== undefined && { proxyUrl }) };
}

/** The response; undefined if EKS knows no such cluster or entry. */
async function unlessMissing<Response>(response: Promise<Response>): Promise<Response | undefined> {
  return response.catch((error: Error) => {
    if (error.name === 'ResourceNotFoundException') return undefined;
    throw error;
  });
}
