// What the checks inside a cluster share: the cluster, metadata of objects, and how a request that fails is reported.
import { z } from 'zod';
import type { Installation } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type CheckName, type Finding, skipped } from './checks.ts';

export const Metadata = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
export type Metadata = z.infer<typeof Metadata>['metadata'];

export interface Cluster {
  readonly kubernetes: Kubernetes;
  /** Absent if the chart is not installed, or the operator may not see it. */
  readonly installation: Installation | undefined;
  readonly commands: ShellCommands;
}

/** A cluster in which the chart is installed. */
export type InstalledCluster = Cluster & { readonly installation: Installation };

/** Returns the findings of `work`. If it fails, these checks are skipped and the others go on. */
export async function observe(
  checks: readonly CheckName[],
  work: () => Promise<Finding[]>,
): Promise<Finding[]> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof CliError && error.code === 'interrupted') throw error;
    return checks.map((check) => skipped(check, (error as Error).message));
  }
}
