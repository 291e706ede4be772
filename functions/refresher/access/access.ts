// Turns a registered identity into a credential for an API server. Identities of AWS become tokens; local addresses and
// servers other than the EKS endpoint are refused.

import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import { KubeconfigError, type RegisteredAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { localAddressProblem } from '../../../lib/kubernetes/local-addresses.ts';
import type { UsableAccess } from '../kubernetes/client.ts';
import type { Eks, EksAccess } from './eks.ts';
import type { Keyless } from './keyless.ts';

export interface AccessSettings {
  /** The refresher's own region. */
  readonly region: string;
  /** Allows servers and proxies on this machine: in tests. */
  readonly allowLocalServers: boolean;
}

/** The sources of tokens for identities of AWS. */
export interface TokenSources {
  readonly eks: Eks;
  readonly keyless: Keyless;
}

/**
 * Returns the server and a credential for it.
 *
 * @param cluster the registered name
 * @throws KubeconfigError or Error with the reason and what the operator can do
 */
export async function usableAccess(
  cluster: string,
  registered: RegisteredAccess,
  { eks, keyless }: TokenSources,
  { region, allowLocalServers }: AccessSettings,
  signal: AbortSignal,
): Promise<UsableAccess> {
  const { identity } = registered;
  if (!allowLocalServers) {
    for (const [field, url] of [
      ['server', registered.server],
      ['proxy-url', registered.proxyUrl],
    ] as const) {
      const problem = url === undefined ? undefined : localAddressProblem(url);
      if (problem !== undefined)
        throw new KubeconfigError(`${field}: ${problem}: give the address by which AWS reaches the cluster`);
    }
  }
  if ('keyless' in identity) {
    const token = await keyless.token(identity.keyless, cluster, signal);
    return { ...registered, identity: { token }, isLocalAllowed: allowLocalServers, registeredAs: 'keyless' };
  }
  if (!('eks' in identity)) return { ...registered, identity, isLocalAllowed: allowLocalServers };
  // Another server could use the token at the cluster's API server, so it is sent only to the endpoint that EKS returns.
  const access = await eks.access(identity.eks, regionOfEndpoint(registered.server) ?? region, signal);
  if (new URL(access.server).origin !== new URL(registered.server).origin) {
    throw new KubeconfigError(
      `the server is not the endpoint that EKS returns for the cluster ${identity.eks.cluster}, so the refresher sends it no token: register the cluster again (aws eks update-kubeconfig)`,
    );
  }
  const { proxyUrl } = registered;
  return {
    ...usableEksAccess(access, allowLocalServers),
    ...(proxyUrl !== undefined && { proxyUrl }),
  };
}

/** An endpoint that EKS returned needs no check. */
export function usableEksAccess({ server, ca, token }: EksAccess, isLocalAllowed: boolean): UsableAccess {
  return { server, ca, identity: { token }, isLocalAllowed, registeredAs: 'eks' };
}
