// Reads the settings of the refresher in the cluster from its environment variables, and the credential that the kubelet
// mounts. All invalid variables are in one error.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { z } from 'zod';
import { inClusterServer } from '../../../lib/kubernetes/in-cluster-server.ts';
import { certificatesIn } from '../../../lib/kubernetes/trust.ts';
import type { UsableAccess } from '../kubernetes/client.ts';

/** The environment variables. The chart sets those that Kubernetes does not. */
export const ENVIRONMENT = {
  /** Kubernetes sets these two in every Pod. */
  kubernetesHost: 'KUBERNETES_SERVICE_HOST',
  kubernetesPort: 'KUBERNETES_SERVICE_PORT',
  /** Holds `token` and `ca.crt`. */
  serviceAccountDir: 'SERVICE_ACCOUNT_DIR',
  /** Time limit of the run, in seconds. */
  deadline: 'DEADLINE_SECONDS',
  /** The file whose text Kubernetes shows as the container's termination message. */
  terminationLog: 'TERMINATION_LOG',
} as const;

/** Kubernetes' default of `terminationMessagePath`. */
export const TERMINATION_LOG = '/dev/termination-log';

const IN_A_POD = 'is missing: Kubernetes sets it in every Pod, so run this program in one';

const Environment = z
  .object({
    [ENVIRONMENT.kubernetesHost]: z.string({ error: IN_A_POD }).min(1, IN_A_POD),
    [ENVIRONMENT.kubernetesPort]: z.string({ error: IN_A_POD }).regex(/^\d{1,5}$/, 'is not a port'),
    [ENVIRONMENT.serviceAccountDir]: z
      .string()
      .min(1)
      .default('/var/run/secrets/kubernetes.io/serviceaccount'),
    [ENVIRONMENT.deadline]: z.coerce.number().min(1).max(3_600).default(600),
  })
  .transform((env) => ({
    server: inClusterServer(env.KUBERNETES_SERVICE_HOST, env.KUBERNETES_SERVICE_PORT),
    serviceAccountDir: env.SERVICE_ACCOUNT_DIR,
    deadlineMs: env.DEADLINE_SECONDS * 1000,
  }));

export type Settings = Readonly<z.infer<typeof Environment>>;

/** The run cannot start: the environment variables, or the mounted files, are unusable. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError';
}

/** Reads the environment variables. @throws SettingsError that names every invalid one */
export function readSettings(env: Readonly<Record<string, string | undefined>>): Settings {
  const parsed = Environment.safeParse(env);
  if (parsed.success) return parsed.data;
  const problems = parsed.error.issues.map((issue) => `${issue.path.join('.')} ${issue.message}`);
  throw new SettingsError(
    `The refresher cannot start with these environment variables: ${problems.join('; ')}`,
  );
}

/** The API server of the Pod's cluster, and the token of its ServiceAccount. @throws SettingsError */
export async function podAccess({ server, serviceAccountDir }: Settings): Promise<UsableAccess> {
  const read = async (file: string, isUsable: (text: string) => boolean) => {
    const path = join(serviceAccountDir, file);
    const text = await readFile(path, 'utf8').catch((error: Error) => error);
    const problem = text instanceof Error ? text.message : isUsable(text) ? '' : `${path} has none`;
    if (text instanceof Error || problem)
      throw new SettingsError(
        `The refresher cannot use the credential of its Pod (${problem}). The chart mounts the token of its ServiceAccount and the cluster's ca.crt in ${serviceAccountDir}: upgrade the release.`,
      );
    return text.trim();
  };
  const [token, ca] = await Promise.all([
    read('token', (text) => /^\S+$/.test(text.trim())),
    read('ca.crt', (text) => certificatesIn(text).length > 0),
  ]);
  return { server, ca, identity: { token }, isLocalAllowed: true };
}
