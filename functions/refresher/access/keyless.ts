// Keyless clusters: tokens that STS signs for the refresher's own role, for API servers that trust its account's issuer
// (AWS' outbound web identity federation). Nothing is stored on either side.

import { STSClient } from '@aws-sdk/client-sts';
import { webIdentityToken } from '../../../lib/aws/web-identity.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import type { KeylessIdentity } from '../../../lib/kubernetes/exec-plugin.ts';
import { KubeconfigError } from '../../../lib/kubernetes/kubeconfig.ts';
import { sanitizeName } from '../../../lib/text.ts';

export interface Keyless {
  /**
   * Asks for a token that one cluster takes, and no other.
   *
   * @param cluster as it is registered, whatever its kubeconfig says
   * @throws Error that says what is not as it should be
   */
  token(identity: KeylessIdentity['keyless'], cluster: string, signal: AbortSignal): Promise<string>;
}

/** @param stage absent where the CDK setting `keyless` is off */
export function keylessTokens({
  region,
  stage,
}: {
  readonly region: string;
  readonly stage: string | undefined;
}): Keyless {
  // Of the region: the global endpoint does not know the operation (STS API reference).
  const sts = new STSClient({ region });
  return {
    async token({ cluster: meant, stage: meantStage }, cluster, signal) {
      if (stage === undefined)
        throw new ClusterError('setting', '"ecr-anywhere get-token" needs the CDK setting keyless');
      if (meant !== cluster)
        throw new KubeconfigError(
          `the kubeconfig is for the cluster ${sanitizeName(meant)} and registered as ${cluster}: register it under its name, or write it anew`,
        );
      if (meantStage !== undefined && meantStage !== stage)
        throw new KubeconfigError(
          `the kubeconfig is for the stage ${sanitizeName(meantStage)}, and this one is ${stage}`,
        );
      const { token } = await webIdentityToken(sts, { stage, cluster }, signal);
      return token;
    },
  };
}
