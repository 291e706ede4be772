// Keyless clusters: what the refresher's token, the command line's and the API server's configuration agree on.

/**
 * The audience of a cluster's tokens. Each cluster has its own, so that it cannot show its token to another. A stage has
 * no colon and a registered name neither (CloudFormation's and Secrets Manager's rules), so no two pairs share one.
 *
 * @param stage the CDK stack's name
 * @param cluster as it is registered
 */
export function clusterAudience(stage: string, cluster: string): string {
  if (!/^[A-Za-z][A-Za-z0-9-]*$/.test(stage))
    throw new Error(`"${stage}" is no name of a stack: letters, digits and hyphens`);
  if (!/^[\w/+=.@-]+$/.test(cluster))
    throw new Error(`"${cluster}" is no name of a registered cluster: letters, digits and any of /_+=.@-`);
  return `ecr-anywhere:${stage}:${cluster}`;
}

/** What IAM lets the refresher ask for: the audiences of its stage. A pattern of IAM's StringLike. */
export function audiencePattern(stage: string): string {
  return clusterAudience(stage, 'x').replace(/x$/, '*');
}

/** How long a token lives, in seconds: as long as the longest run. STS gives 60 to 3,600. */
export const TOKEN_SECONDS = 900;

/** STS signs with RS256 or ES384, and Kubernetes takes both; this one's tokens are shorter. */
export const SIGNING_ALGORITHM = 'ES384';

/** The stage of a deployment that was given no other name. */
export const DEFAULT_STACK_NAME = 'EcrAnywhere';
