// The real helm, against one control plane, with folders of its own.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CommandResult, type ControlPlane, runCommand } from './control-plane.ts';
import { tools } from './toolchain.ts';

/** The project's chart. */
export const CHART = fileURLToPath(new URL('../../webhook/chart', import.meta.url));

/** Runs helm. @throws Error with what it said, unless `mayFail` */
export async function helm(
  args: readonly string[],
  { cluster, mayFail = false }: { cluster?: ControlPlane; mayFail?: boolean } = {},
): Promise<CommandResult> {
  const home = cluster
    ? join(cluster.dir, 'helm')
    : join(process.env.TMPDIR ?? '/tmp', `helm-${process.pid}`);
  await mkdir(home, { recursive: true });
  const env = {
    HOME: home,
    HELM_CACHE_HOME: home,
    HELM_CONFIG_HOME: home,
    HELM_DATA_HOME: home,
    ...(cluster && { KUBECONFIG: cluster.adminKubeconfigPath }),
  };
  const result = await runCommand(tools().helm, args, env);
  if (result.code !== 0 && !mayFail)
    throw new Error(`helm ${args.slice(0, 2).join(' ')}: ${result.stderr.trim()}`);
  return result;
}
