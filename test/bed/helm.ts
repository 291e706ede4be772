// Runs the real helm against one control plane, with separate cache and configuration directories.
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type CommandResult, type ControlPlane, runCommand } from './control-plane.ts';
import { tools } from './toolchain.ts';

/** The project's chart. */
export const CHART = fileURLToPath(new URL('../../webhook/chart', import.meta.url));

/** Runs helm 3 or 4. @throws Error with helm's output, unless `mayFail` */
export async function helm(
  args: readonly string[],
  {
    cluster,
    mayFail = false,
    version = 3,
  }: { cluster?: ControlPlane; mayFail?: boolean; version?: 3 | 4 } = {},
): Promise<CommandResult> {
  const program = version === 4 ? 'helm4' : 'helm';
  // One directory per version: they must not share state.
  const home = cluster
    ? join(cluster.dir, program)
    : join(process.env.TMPDIR ?? '/tmp', `${program}-${process.pid}`);
  await mkdir(home, { recursive: true });
  const env = {
    HOME: home,
    HELM_CACHE_HOME: home,
    HELM_CONFIG_HOME: home,
    HELM_DATA_HOME: home,
    ...(cluster && { KUBECONFIG: cluster.adminKubeconfigPath }),
  };
  const result = await runCommand(tools()[program], args, env);
  if (result.code !== 0 && !mayFail)
    throw new Error(`${program} ${args.slice(0, 2).join(' ')}: ${result.stderr.trim()}`);
  return result;
}
