// Runs the checks inside the cluster, as the operator. They change nothing: the Secret that is created is a dry run, and of
// Secrets only metadata is read.
import { type Found, findInstallation, type Installation, writePolicyGaps } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import type { Release } from '../../output/options.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { checkCallers } from './check-callers.ts';
import { chartFinding, configuration, writePolicy } from './check-chart.ts';
import { ATTEMPTED, checkInjection } from './check-injection.ts';
import { labels, namespacesOf, secretsOf } from './check-labels.ts';
import { checkMutators } from './check-mutators.ts';
import { checkRuns } from './check-runs.ts';
import { type Finding, type Remedy, remedyOf } from './checks.ts';
import { type Cluster, type Metadata, observe } from './observe.ts';

export interface Inside {
  readonly findings: readonly Finding[];
  readonly commands: ShellCommands;
  readonly installation?: Installation | undefined;
  /** The remedy for the chart, if it is not installed. */
  readonly missingChart?: Remedy | undefined;
}

/**
 * @param commandsFor the commands for the release that is found
 * @param wanted a namespace that must get credentials
 * @param servesItself whether the refresher must run in the cluster
 */
export async function checkInside(
  kubernetes: Kubernetes,
  commandsFor: (release: Release | undefined) => ShellCommands,
  wanted?: string,
  servesItself = false,
): Promise<Inside> {
  let found: Found = { originals: [] };
  const chart = await observe(['chart'], async () => {
    found = await findInstallation(kubernetes);
    return [chartFinding(found, commandsFor(found.release))];
  });
  const { installation, release } = found;
  const commands = commandsFor(release);
  const cluster = { kubernetes, installation, commands };
  const parts = await Promise.all([
    installation
      ? observe(['write-policy'], async () => [
          writePolicy(await writePolicyGaps(kubernetes, installation), commands),
        ])
      : [],
    installation ? [configuration(installation, commands)] : [],
    installation ? observe(['callers'], () => checkCallers({ ...cluster, installation })) : [],
    observe(['labels', ...ATTEMPTED, 'mutators'], () => labelsAndInjection(cluster, wanted)),
    installation && servesItself ? observe(['runs'], () => checkRuns({ ...cluster, installation })) : [],
  ]);
  const missing = installation ? undefined : chart.find(({ verdict }) => verdict === 'failed');
  return {
    findings: [...chart, ...parts.flat()],
    commands,
    installation,
    missingChart: missing && remedyOf(missing),
  };
}

/** @throws CliError if the namespaces cannot be listed */
async function labelsAndInjection(cluster: Cluster, wanted: string | undefined): Promise<Finding[]> {
  const namespaces = await namespacesOf(cluster);
  let managed: readonly Metadata[] = [];
  const ofLabels = await observe(['labels'], async () => {
    const secrets = await secretsOf(cluster);
    managed = secrets.managed;
    return [labels(namespaces, secrets, cluster.commands, wanted)];
  });
  const { installation } = cluster;
  const [secret] = managed.filter(({ namespace = '' }) => namespaces.enabled.includes(namespace));
  const withSecrets = new Set(managed.map(({ namespace = '' }) => namespace));
  const rank = (namespace: string) => (namespace === wanted ? 2 : Number(withSecrets.has(namespace)));
  // doctor does not try all of them.
  const enabled = namespaces.enabled.toSorted((a, b) => rank(b) - rank(a));
  const [injection, mutators] = await Promise.all([
    observe(ATTEMPTED, () => checkInjection(cluster, enabled)),
    installation && secret
      ? observe(['mutators'], () => checkMutators({ ...cluster, installation }, secret))
      : [],
  ]);
  return [...ofLabels, ...injection, ...mutators];
}
