// The kubeconfig that is registered: one server, one identity, nothing else of whatever the operator's holds. Pure.
import { stringify } from 'yaml';
import { readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import type { Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';

/** A user of a kubeconfig. */
export type RegisteredUser =
  | { readonly token: string }
  | { readonly 'client-certificate-data': string; readonly 'client-key-data': string }
  | { readonly exec: { readonly command: string; readonly args: readonly string[] } };

/** Kubernetes' own, for exec plugins. */
const EXEC = { apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Never' };

/**
 * The kubeconfig (YAML) for a server and a user.
 *
 * @throws CliError where the refresher would not take it
 */
export function minimalKubeconfig(name: string, server: Server, user: RegisteredUser): string {
  const kubeconfig = kubeconfigOf(name, server, user);
  try {
    readKubeconfig(kubeconfig);
  } catch (error) {
    throw new CliError(
      'kubeconfig-unsupported',
      `the refresher would not take this: ${(error as Error).message}`,
      '--server names another address; docs/registering.md says what a kubeconfig may hold',
      error,
    );
  }
  return kubeconfig;
}

/** The same, for whoever is here. */
export function kubeconfigOf(name: string, server: Server, user: RegisteredUser): string {
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
