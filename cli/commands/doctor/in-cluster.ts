// Runs the checks inside the cluster, as the operator. They change nothing: the Secret that is created is a dry run, and of
// Secrets only metadata is read.
import { type Found, findInstallation, writePolicyGaps } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { caBundle, chartFinding, configuration, kubernetesVersion, writePolicy } from './check-chart.ts';
import { ATTEMPTED, checkInjection } from './check-injection.ts';
import { labels, namespacesOf, secretsOf } from './check-labels.ts';
import type { Finding } from './checks.ts';
import { type Cluster, observe } from './observe.ts';

export interface Inside {
  readonly findings: readonly Finding[];
  readonly found: Found;
  readonly commands: ShellCommands;
}

/** @param commandsFor the commands for the release that is found */
export async function checkInside(
  kubernetes: Kubernetes,
  commandsFor: (found: Found) => ShellCommands,
): Promise<Inside> {
  let found: Found = { originals: [] };
  const version = await observe([], async () => {
    const finding = await kubernetesVersion(kubernetes, commandsFor(found));
    return finding ? [finding] : [];
  });
  const chart = await observe(['chart'], async () => {
    found = await findInstallation(kubernetes);
    return [chartFinding(found, commandsFor(found))];
  });
  const { installation } = found;
  const commands = commandsFor(found);
  const cluster = { kubernetes, installation, commands };
  const parts = await Promise.all([
    installation
      ? observe(['write-policy'], async () => [
          writePolicy(await writePolicyGaps(kubernetes, installation), commands),
        ])
      : [],
    installation ? [configuration(installation, commands)] : [],
    observe(['labels', ...ATTEMPTED], () => labelsAndInjection(cluster)),
  ]);
  return { findings: [...version, ...chart, ...parts.flat()], found, commands };
}

/** @throws CliError if the namespaces cannot be listed */
async function labelsAndInjection(cluster: Cluster): Promise<Finding[]> {
  const { installation, commands } = cluster;
  const namespaces = await namespacesOf(cluster);
  const withSecrets = new Set<string>();
  const ofLabels = await observe(['labels'], async () => {
    const secrets = await secretsOf(cluster);
    for (const { namespace = '' } of secrets.labelled) withSecrets.add(namespace);
    return [labels(namespaces, secrets, commands)];
  });
  // The namespaces with managed Secrets first, as doctor does not try all of them.
  const enabled = namespaces.enabled.toSorted(
    (a, b) => Number(withSecrets.has(b)) - Number(withSecrets.has(a)),
  );
  const ofBundle = installation && caBundle(installation, commands);
  return [
    ...ofLabels,
    // Before the attempts: it is the more specific failure of the webhook.
    ...(ofBundle ? [ofBundle] : []),
    ...(await observe(ATTEMPTED, () => checkInjection(cluster, enabled))),
  ];
}
