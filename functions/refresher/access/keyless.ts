// Requests tokens for keyless clusters: STS signs them for the refresher's role, and the API servers trust the issuer of
// its AWS account (outbound web identity federation). Neither side stores a credential.

import { STSClient } from '@aws-sdk/client-sts';
import { awsRequestMs, clientLimits } from '../../../lib/aws/request-limits.ts';
import { webIdentityToken } from '../../../lib/aws/web-identity.ts';
import { ClusterError } from '../../../lib/cluster-error.ts';
import type { KeylessIdentity } from '../../../lib/kubernetes/exec-plugin.ts';
import { KubeconfigError } from '../../../lib/kubernetes/kubeconfig.ts';
import { sanitizeName } from '../../../lib/text.ts';

/** Lambda renews the session of the function's role. */
const NEXT_SESSION = 'the next run has a new session';

export interface Keyless {
  /**
   * Requests a token that only one cluster accepts.
   *
   * @param identity as the kubeconfig names it; must match `cluster` and the stack
   * @param cluster the registered name
   * @throws ClusterError with the reason
   */
  token(identity: KeylessIdentity['keyless'], cluster: string, signal: AbortSignal): Promise<string>;
}

/** @param stage the stack name; undefined if the CDK setting `keyless` is off */
export function keylessTokens({
  region,
  stage,
  clusterDeadlineMs,
}: {
  readonly region: string;
  readonly clusterDeadlineMs: number;
  readonly stage: string | undefined;
}): Keyless {
  // The global endpoint does not have the operation (STS API reference, GetWebIdentityToken).
  const sts = new STSClient({ ...clientLimits(awsRequestMs(clusterDeadlineMs)), region });
  return {
    async token({ cluster: namedCluster, stage: namedStage }, cluster, signal) {
      if (stage === undefined)
        throw new ClusterError('setting', '"ecr-anywhere get-token" needs the CDK setting keyless');
      if (namedCluster !== cluster)
        throw new KubeconfigError(
          `the kubeconfig is for the cluster ${sanitizeName(namedCluster)} and registered as ${cluster}: register it under its name, or create it again`,
        );
      if (namedStage !== undefined && namedStage !== stage)
        throw new KubeconfigError(
          `the kubeconfig is for the stack ${sanitizeName(namedStage)}, and this refresher's stack is ${stage}`,
        );
      const { token } = await webIdentityToken(sts, { stage, cluster, nextSession: NEXT_SESSION }, signal);
      return token;
    },
  };
}
