// From what is registered to what an API server is reached with: identities of AWS become tokens, and servers that no
// cluster has are refused.

import { regionOfEndpoint } from '../../../lib/aws/eks-endpoint.ts';
import { KubeconfigError, type RegisteredAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { localAddressProblem } from '../../../lib/kubernetes/local-addresses.ts';
import type { UsableAccess } from '../kubernetes/client.ts';
import type { Eks, EksAccess } from './eks.ts';
import type { Keyless } from './keyless.ts';

export interface AccessSettings {
  /** The refresher's own region. */
  readonly region: string;
  /** Where the "clusters" are processes of this machine: in tests. */
  readonly allowLocalServers: boolean;
}

/** What makes tokens. */
export interface Signers {
  readonly eks: Eks;
  readonly keyless: Keyless;
}

/**
 * Makes an access usable.
 *
 * @param cluster as it is registered
 * @throws KubeconfigError or Error that says what cannot be, and the way out
 */
export async function usableAccess(
  cluster: string,
  registered: RegisteredAccess,
  { eks, keyless }: Signers,
  { region, allowLocalServers }: AccessSettings,
  signal: AbortSignal,
): Promise<UsableAccess> {
  const { identity } = registered;
  if (!allowLocalServers) {
    for (const [what, url] of [
      ['server', registered.server],
      ['proxy-url', registered.proxyUrl],
    ] as const) {
      const refusal = url === undefined ? undefined : localAddressProblem(url);
      if (refusal !== undefined)
        throw new KubeconfigError(`${what}: ${refusal}: give the address by which AWS reaches the cluster`);
    }
  }
  if ('keyless' in identity) {
    const token = await keyless.token(identity.keyless, cluster, signal);
    return { ...registered, identity: { token }, allowLocal: allowLocalServers, madeFor: 'keyless' };
  }
  if (!('eks' in identity)) return { ...registered, identity, allowLocal: allowLocalServers };
  // A token says which cluster it is for, and anyone who holds it may show it there: it goes to the endpoint that EKS
  // itself names.

  const access = await eks.access(identity.eks, regionOfEndpoint(registered.server) ?? region, signal);
  if (new URL(access.server).origin !== new URL(registered.server).origin) {
    throw new KubeconfigError(
      `the server is not the endpoint that EKS names for the cluster ${identity.eks.cluster}, and nobody else is shown its token: register it again (aws eks update-kubeconfig)`,
    );
  }
  const { proxyUrl } = registered;
  return {
    ...usableEksAccess(access, allowLocalServers),
    ...(proxyUrl !== undefined && { proxyUrl }),
  };
}

/** What EKS itself says needs no check. */
export function usableEksAccess({ server, ca, token }: EksAccess, allowLocal: boolean): UsableAccess {
  return { server, ca, identity: { token }, allowLocal, madeFor: 'eks' };
}
