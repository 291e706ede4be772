// Checks before a credential is created and before it is stored: the chart is installed, its write policy is enforced,
// and the write policy limits the identity.

import { REFRESHER_GROUP } from '../../../contract/names.ts';
import {
  findInstallation,
  type Installation,
  proposedRelease,
  refresherUsername,
  writePolicyGaps,
  writePolicyNames,
} from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import {
  escalationRights,
  type Identity,
  isRestricted,
  type ReadAccess,
  readableSecrets,
} from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import { formatList } from '../../output/format-list.ts';
import { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisterOptions } from './options.ts';

/** Finds the chart's release. @throws CliError if it is missing, incomplete, or its write policy is not enforced */
export async function checkInstallation(
  kubernetes: Kubernetes,
  options: RegisterOptions,
): Promise<Installation> {
  const found = await findInstallation(kubernetes);
  const { installation, originals, release } = found;
  const commands = new ShellCommands(options, { context: kubernetes.context, release });
  if (!installation && release)
    throw new CliError(
      'chart-incomplete',
      `The chart's MutatingWebhookConfiguration is missing (release ${release.release} in the namespace ${release.namespace}).`,
      commands.upgrade(),
    );
  if (!installation)
    throw new CliError(
      'chart-not-installed',
      originals.length > 0
        ? `The chart is not installed in this cluster, but CentML/ecr-anywhere is (${originals.join(', ')}).`
        : 'The chart is not installed in this cluster.',
      commands.install(proposedRelease(found)),
    );
  const gaps = await writePolicyGaps(kubernetes, installation);
  if (gaps.length > 0)
    throw new CliError(
      'write-policy-not-enforced',
      `The write policy for the refresher is not enforced: ${gaps.map(({ problem }) => problem).join('; ')}.`,
      `To see how to repair each: ${commands.cli(['doctor'], true)}`,
    );
  return installation;
}

/** Determines what an identity can read. @throws CliError if the write policy does not limit the identity */
export async function checkIdentity(
  kubernetes: Kubernetes,
  installation: Installation,
  identity: Identity,
  { credential }: Pick<RegisterOptions, 'credential'>,
): Promise<ReadAccess> {
  const notLimited = notLimitedError(identity, credential !== undefined);
  if (!isRestricted(identity, refresherUsername(installation))) throw notLimited();
  const policies = writePolicyNames(installation);
  const powers = await escalationRights(kubernetes, identity, {
    validatingadmissionpolicies: policies,
    validatingadmissionpolicybindings: policies,
    mutatingwebhookconfigurations: [installation.name],
  });
  if (powers.length > 0) throw notLimited(` It may ${formatList(powers)}.`);
  return readableSecrets(kubernetes, identity);
}

const notLimitedError =
  ({ username, groups }: Identity, isGiven: boolean) =>
  (powers = '') =>
    new CliError(
      'identity-not-restricted',
      `The write policy does not limit ${username} (groups: ${groups.join(', ') || 'none'}), so a stolen credential could do harm.${powers}`,
      isGiven
        ? `Omit --credential to register the chart's ServiceAccount, or use an identity whose only role comes from the group ${REFRESHER_GROUP}.`
        : 'Remove the other roles and groups of this identity: it needs only what the chart grants.',
    );
