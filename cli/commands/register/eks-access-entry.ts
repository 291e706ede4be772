// An EKS cluster lets the refresher in by an access entry: found, made, widened by one group, and put back as it was.
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
import { type Aws, clientConfig } from '../../aws/aws.ts';
import { Attempt, type Rollback } from '../../aws/rollback.ts';
import type { Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisteredUser } from './kubeconfig.ts';

export interface EksTarget {
  readonly name: string;
  readonly region: string;
  /** Of the context: the way to a private endpoint. */
  readonly proxyUrl?: string;
}

export interface EksRegistration {
  readonly user: RegisteredUser;
  readonly server: Server;
  /** What was done to the access entry, or would be. */
  readonly entry: 'created' | 'group-added' | 'unchanged';
  /** That the entry gives. */
  readonly groups: readonly string[];
}

/**
 * Lets the refresher's role into an EKS cluster.
 *
 * @param dryRun nothing is changed
 * @throws CliError
 */
export async function admitToEks(
  aws: Aws,
  { name, region, proxyUrl }: EksTarget,
  principalArn: string,
  dryRun: boolean,
  begun: Rollback,
  commands: ShellCommands,
): Promise<EksRegistration> {
  const command = (...args: string[]) => commands.aws(['eks', ...args], region);
  const eksOf = (operator: Aws) => new EKSClient(clientConfig({ ...operator.options, region }));
  const eks = eksOf(aws);
  const entry = { clusterName: name, principalArn };
  const cluster = await aws.ask(`looking for the EKS cluster ${name} in ${region}`, async (abortSignal) => {
    const { cluster: found } = await eks
      .send(new DescribeClusterCommand({ name }), { abortSignal })
      .catch((error: Error) => {
        if (error.name === 'ResourceNotFoundException')
          throw new CliError(
            'eks-cluster-not-found',
            `there is no EKS cluster ${name} in ${region}`,
            `${command('list-clusters')}; then --eks-name NAME`,
          );
        throw error;
      });
    return found ?? {};
  });
  const registration = {
    user: eksUser({ name, region }),
    server: {
      ...serverOf(cluster, name, command('wait', 'cluster-active', '--name', name)),
      ...(proxyUrl !== undefined && { proxyUrl }),
    },
  };
  const update = (...args: string[]) => command('update-cluster-config', '--name', name, ...args);
  if (cluster.resourcesVpcConfig?.endpointPublicAccess === false && proxyUrl === undefined)
    throw new CliError(
      'eks-cluster-unsuitable',
      `the EKS cluster ${name} has a private endpoint only, which the function does not reach`,
      `${update('--resources-vpc-config', 'endpointPublicAccess=true')}; or a context with a proxy-url that AWS reaches`,
    );
  const { authenticationMode } = cluster.accessConfig ?? {};
  if (authenticationMode === 'CONFIG_MAP')
    throw new CliError(
      'eks-cluster-unsuitable',
      `the EKS cluster ${name} knows no access entries`,
      update('--access-config', 'authenticationMode=API_AND_CONFIG_MAP'),
    );
  const present = await aws.ask(`looking for the access entry in ${name}`, (abortSignal) => {
    return eks
      .send(new DescribeAccessEntryCommand(entry), { abortSignal })
      .then(({ accessEntry }): AccessEntry | undefined => accessEntry)
      .catch((error: Error) => {
        if (error.name === 'ResourceNotFoundException') return undefined;
        throw error;
      });
  });
  const ofEntry = ['--cluster-name', name, '--principal-arn', principalArn];
  if (present) {
    const policies = await writePolicyNames(aws, eks, entry);
    // What they give is no role of the cluster: no question of ours to the API server would show it.
    if (policies.length > 0)
      throw new CliError(
        'identity-not-restricted',
        `the access entry in ${name} has access policies, and nothing would hold whoever steals a token: ${policies.join(', ')}`,
        policies
          .map((arn) => command('disassociate-access-policy', ...ofEntry, '--policy-arn', arn))
          .join(' && '),
      );
  }
  const groups = present?.kubernetesGroups ?? [];
  if (groups.includes(REFRESHER_GROUP)) return { ...registration, entry: 'unchanged', groups };
  const kubernetesGroups = [...groups, REFRESHER_GROUP];
  // Also where somebody else has made an entry meanwhile: that one is theirs. A request of ours that is repeated is known
  // by its token, and no conflict.
  const attempt = new Attempt();
  if (present) {
    if (!dryRun) {
      begun.note({
        byHand: command(
          ...['update-access-entry', ...ofEntry],
          ...['--kubernetes-groups', ...(groups.length > 0 ? groups : ['[]'])],
        ),
        async run(operator) {
          if (attempt.mayBeMade) await takeGroupAway(operator, eksOf(operator), entry);
        },
      });
      await aws.change(`adding the group to the access entry in ${name}`, (abortSignal) =>
        attempt.make(() =>
          eks.send(new UpdateAccessEntryCommand({ ...entry, kubernetesGroups }), { abortSignal }),
        ),
      );
    }
    return { ...registration, entry: 'group-added', groups: kubernetesGroups };
  }
  if (!dryRun) {
    begun.note({
      byHand: command('delete-access-entry', ...ofEntry),
      async run(operator) {
        if (attempt.mayBeMade) await deleteEntry(operator, eksOf(operator), entry);
      },
    });
    await aws.change(`creating the access entry in ${name}`, (abortSignal) =>
      attempt.make(() =>
        eks.send(new CreateAccessEntryCommand({ ...entry, kubernetesGroups }), { abortSignal }),
      ),
    );
  }
  return { ...registration, entry: 'created', groups: kubernetesGroups };
}

type EntryId = Readonly<{ clusterName: string; principalArn: string }>;

/** ARNs of the access policies of an entry. @throws CliError */
async function writePolicyNames(aws: Aws, client: EKSClient, entry: EntryId): Promise<string[]> {
  return aws.ask(`looking for access policies in ${entry.clusterName}`, async (abortSignal) => {
    const arns: string[] = [];
    for await (const page of paginateListAssociatedAccessPolicies({ client }, entry, { abortSignal }))
      arns.push(...(page.associatedAccessPolicies ?? []).flatMap(({ policyArn }) => policyArn ?? []));
    return arns;
  });
}

/** As it is now, without our group: somebody may have changed it meanwhile. */
async function takeGroupAway(aws: Aws, eks: EKSClient, entry: EntryId): Promise<void> {
  await aws.change('putting the access entry back', async (abortSignal) => {
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

function serverOf({ endpoint, certificateAuthority, status }: Cluster, name: string, hint: string): Server {
  const { data } = certificateAuthority ?? {};
  if (!endpoint || !data)
    throw new CliError(
      'eks-cluster-unsuitable',
      `the EKS cluster ${name} has no endpoint: it is ${status}`,
      hint,
    );
  return { url: endpoint, ca: Buffer.from(data, 'base64').toString() };
}

/** What `aws eks update-kubeconfig` writes, and the refresher signs itself. */
function eksUser({ name, region }: Pick<EksTarget, 'name' | 'region'>): RegisteredUser {
  const args = ['--region', region, 'eks', 'get-token', '--cluster-name', name, '--output', 'json'];
  return { exec: { command: 'aws', args } };
}
