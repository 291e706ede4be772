// What must be so before anything is begun: the name and the cluster are free, the chart and its fence are there; and of
// an identity, before it is handed out: that the fence holds it.

import { REFRESHER_GROUP, TAG } from '../../../contract/names.ts';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import { alreadyRegistered } from '../../aws/registration.ts';
import {
  findInstallation,
  type Installation,
  refresherUsername,
  writePolicyNames,
  writePolicyProblems,
} from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import { type Identity, isFenced, powersOf, type Reach, reachOf } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import { formatList } from '../../output/format-list.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisterOptions } from './options.ts';

/**
 * Whether the name is to be given another credential.
 *
 * @param known with their UIDs, as far as those could be learned
 * @param uid of the cluster that is to be registered
 * @throws CliError where the name, or the cluster, is registered
 */
export function checkFree(
  name: string,
  uid: string,
  known: readonly ClusterStatus[],
  { replace: isReplacing }: RegisterOptions,
  commands: ShellCommands,
): boolean {
  const registered = known.filter(({ source }) => source === 'registered');
  const same = registered.find((cluster) => cluster.name === name);
  if (same && !isReplacing) throw alreadyRegistered(name, commands);
  if (!same && isReplacing)
    throw new CliError(
      'not-registered',
      `${name} is not registered: there is nothing to replace`,
      'leave --replace out',
    );
  if (same?.clusterUid !== undefined && same.clusterUid !== uid)
    throw new CliError(
      'different-cluster',
      `${name} is another cluster than the one of this context`,
      `is --context right? If the cluster was made anew: ${commands.cli(['unregister', name, '--keep-token'])}, then register it again`,
    );
  // They would share the Secret that their tokens are bound to: ending one would end the other.
  const twin = registered.find((cluster) => cluster.name !== name && cluster.clusterUid === uid);
  if (twin)
    throw new CliError(
      'already-registered',
      `this cluster is registered already, as ${twin.name}`,
      `${commands.cli(['unregister', twin.name])}, then register it as ${name}`,
    );
  const tagged = known.find(({ source, clusterUid }) => source === 'eks' && clusterUid === uid);
  if (tagged)
    throw new CliError(
      'already-registered',
      `this cluster is refreshed already: the refresher finds it by its tag, as ${tagged.name}`,
      `${commands.cli(['doctor', tagged.name], true)} says how it is; to have it registered in place of that, take the tag off: ${untag(tagged.name, commands)}`,
    );
  return same !== undefined;
}

/** @param arn of an EKS cluster */
function untag(arn: string, commands: ShellCommands): string {
  const [, , , region = ''] = arn.split(':');
  const args = ['eks', 'untag-resource', '--resource-arn', arn, '--tag-keys', TAG.managed];
  return commands.aws(args, region);
}

/** What the chart has installed, with its fence in force. @throws CliError */
export async function checkInstallation(
  kubernetes: Kubernetes,
  options: RegisterOptions,
): Promise<Installation> {
  const { installation, originals, release } = await findInstallation(kubernetes);
  const commands = new ShellCommands(options, { context: kubernetes.context, release });
  if (!installation && release)
    throw new CliError(
      'chart-incomplete',
      `the chart’s MutatingWebhookConfiguration is gone (release ${release.release} in the namespace ${release.namespace})`,
      commands.upgrade(),
    );
  if (!installation)
    throw new CliError(
      'chart-not-installed',
      originals.length > 0
        ? `the chart is not installed in this cluster; CentML/ecr-anywhere is (${originals.join(', ')})`
        : 'the chart is not installed in this cluster',
      // Helm would take another release of this name for the same.
      commands.install(originals.includes('ecr-anywhere') ? 'ecr-anywhere-keeper' : 'ecr-anywhere'),
    );
  const broken = await writePolicyProblems(kubernetes, installation);
  if (broken.length > 0)
    throw new CliError(
      'write-policy-not-enforced',
      `the fence around the refresher is not in force: ${broken.join('; ')}`,
      `${commands.cli(['doctor'], true)} names what commands each`,
    );
  return installation;
}

/** What an identity can read. @throws CliError where the fence does not hold it */
export async function checkFenced(
  kubernetes: Kubernetes,
  installation: Installation,
  who: Identity,
): Promise<Reach> {
  if (!isFenced(who, refresherUsername(installation))) throw unfenced(who);
  const policies = writePolicyNames(installation);
  const powers = await powersOf(kubernetes, who, {
    validatingadmissionpolicies: policies,
    validatingadmissionpolicybindings: policies,
    mutatingwebhookconfigurations: [installation.name],
  });
  if (powers.length > 0) throw unfenced(who, `, and may ${formatList(powers)}`);
  return reachOf(kubernetes, who);
}

function unfenced({ username, groups }: Identity, why = ''): CliError {
  return new CliError(
    'identity-not-restricted',
    `${username} (groups: ${groups.join(', ') || 'none'}) is outside the fence${why}: nothing would hold whoever steals this credential`,
    `register the chart’s ServiceAccount (leave --credential out), or a member of the group ${REFRESHER_GROUP} that is nothing else`,
  );
}
