// The kubeconfig that is stored: one server and one identity, and nothing else of the operator's kubeconfig. Pure.
import { stringify } from 'yaml';
import { readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import type { Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';

/** A user of a kubeconfig. */
export type RegisteredUser =
  | { readonly token: string }
  | { readonly 'client-certificate-data': string; readonly 'client-key-data': string }
  | { readonly exec: { readonly command: string; readonly args: readonly string[] } };

/** The fields that Kubernetes requires of an exec plugin. */
const EXEC = { apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Never' };

/** The kubeconfig (YAML) to register. @throws CliError if the refresher would reject it */
export function registeredKubeconfig(name: string, server: Server, user: RegisteredUser): string {
  const kubeconfig = kubeconfigFor(name, server, user);
  try {
    readKubeconfig(kubeconfig);
  } catch (error) {
    throw new CliError(
      'kubeconfig-unsupported',
      `The refresher would reject this registration: ${(error as Error).message}`,
      // Of an EKS cluster, EKS names the address.
      `${'exec' in user && user.exec.command === 'aws' ? '' : 'Use --server to name another address. '}docs/registering.md lists what a kubeconfig may contain.`,
      error,
    );
  }
  return kubeconfig;
}

/** A kubeconfig (YAML) with one context. */
export function kubeconfigFor(name: string, server: Server, user: RegisteredUser): string {
  return stringify(
    {
      apiVersion: 'v1',
      kind: 'Config',
      'current-context': name,
      contexts: [{ name, context: { cluster: name, user: 'ecr-anywhere' } }],
      clusters: [
        {
          name,
          cluster: {
            server: server.url,
            ...(server.ca !== undefined && {
              'certificate-authority-data': Buffer.from(server.ca).toString('base64'),
            }),
            ...(server.serverName !== undefined && { 'tls-server-name': server.serverName }),
            ...(server.proxyUrl !== undefined && { 'proxy-url': server.proxyUrl }),
          },
        },
      ],
      users: [{ name: 'ecr-anywhere', user: 'exec' in user ? { exec: { ...EXEC, ...user.exec } } : user }],
    },
    { lineWidth: 0 },
  );
}
