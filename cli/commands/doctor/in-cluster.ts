// The links inside a cluster, looked at as the operator. Changes nothing: what is created is a dry run, and of Secrets
// only metadata is asked for.
import { type Found, findInstallation, writePolicyGaps } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { caBundle, chartFinding, configuration, kubernetesVersion, policies } from './check-chart.ts';
import { type Cluster, looked } from './check-context.ts';
import { ATTEMPTED, attempts } from './check-injection.ts';
import { namespaceLabels, namespacesOf, secretLabels, secretsOf } from './check-secrets.ts';
import type { Finding } from './checks.ts';

export interface Inside {
  readonly findings: readonly Finding[];
  readonly found: Found;
  readonly commands: ShellCommands;
}

/**
 * Looks at all of them. What the operator may not see is unknown.
 *
 * @param repairsOf the commands for what is found
 */
export async function inCluster(
  kubernetes: Kubernetes,
  repairsOf: (found: Found) => ShellCommands,
): Promise<Inside> {
  let found: Found = { originals: [] };
  const chart = await looked(['chart'], async () => {
    found = await findInstallation(kubernetes);
    return [chartFinding(found, repairsOf(found))];
  });
  const { installation } = found;
  const commands = repairsOf(found);
  const cluster = { kubernetes, installation, commands };
  const parts = await Promise.all([
    looked(['kubernetes'], () => kubernetesVersion(kubernetes)),
    installation
      ? looked(['policies'], async () => [
          policies(await writePolicyGaps(kubernetes, installation), commands),
        ])
      : [],
    installation ? [configuration(installation, commands), caBundle(installation, commands)] : [],
    looked(['namespaces', 'secrets', ...ATTEMPTED], () => labelsAndAttempts(cluster)),
  ]);
  return { findings: [...chart, ...parts.flat()], found, commands };
}

/** Labels and types, then the attempts. @throws CliError where the namespaces cannot be listed */
async function labelsAndAttempts(cluster: Cluster): Promise<Finding[]> {
  const namespaces = await namespacesOf(cluster);
  const withSecrets = new Set<string>();
  const labels = await looked(['namespaces', 'secrets'], async () => {
    const secrets = await secretsOf(cluster);
    for (const { namespace = '' } of secrets.labelled) withSecrets.add(namespace);
    return [namespaceLabels(namespaces, secrets, cluster.commands), secretLabels(secrets, cluster.commands)];
  });
  // Those first that would be missed first.
  const tried = namespaces.enabled.toSorted(
    (a, b) => Number(withSecrets.has(b)) - Number(withSecrets.has(a)),
  );
  return [...labels, ...(await looked(ATTEMPTED, () => attempts(cluster, tried)))];
}
