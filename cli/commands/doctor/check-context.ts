// What all looks into a cluster have in common: what is known of it, and what becomes of a look that fails.
import { z } from 'zod';
import type { Installation } from '../../kubernetes/chart.ts';
import type { Kubernetes } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { type Finding, type LinkName, unknown } from './checks.ts';

export const Metadata = z.object({
  metadata: z.object({
    name: z.string(),
    namespace: z.string().optional(),
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
export type Metadata = z.infer<typeof Metadata>['metadata'];

/** What is known of a cluster while its links are looked at. */
export interface Cluster {
  readonly kubernetes: Kubernetes;
  readonly installation: Installation | undefined;
  readonly commands: ShellCommands;
}

/** Findings; what fails says that of these links, and ends nothing else. */
export async function looked(links: readonly LinkName[], look: () => Promise<Finding[]>): Promise<Finding[]> {
  try {
    return await look();
  } catch (error) {
    if (error instanceof CliError && error.code === 'interrupted') throw error;
    return links.map((link) => unknown(link, (error as Error).message));
  }
}
