// Names that the tokens of keyless clusters and the API servers' authentication configurations must share.

/**
 * The audience of a cluster's tokens. Each cluster has its own, so that a cluster cannot use its token at another one.
 * Neither a stack name nor a registered name contains a colon (rules of CloudFormation and Secrets Manager), so the
 * audience is unique.
 *
 * @param stage the CDK stack's name
 * @param cluster the registered name
 * @throws Error if one of the names has characters that AWS does not allow
 */
export function clusterAudience(stage: string, cluster: string): string {
  if (!/^[A-Za-z][A-Za-z0-9-]*$/.test(stage))
    throw new Error(
      `"${stage}" is not a valid stack name: use letters, digits and hyphens, and begin with a letter`,
    );
  if (!/^[\w/+=.@-]+$/.test(cluster))
    throw new Error(
      `"${cluster}" is not a valid name of a registered cluster: use letters, digits and the characters /_+=.@-`,
    );
  return `ecr-anywhere:${stage}:${cluster}`;
}

/** The audiences that IAM allows the refresher to request, as a pattern of IAM's StringLike: those of its stack. */
export function audiencePattern(stage: string): string {
  return clusterAudience(stage, 'x').replace(/x$/, '*');
}

/** The lifetime of a token in seconds: that of the longest run. STS allows 60 to 3,600. */
export const TOKEN_SECONDS = 900;

/** STS signs with RS256 or ES384. Kubernetes accepts both; tokens with ES384 are shorter. */
export const SIGNING_ALGORITHM = 'ES384';

/** The stack name of a deployment without a name of its own. */
export const DEFAULT_STACK_NAME = 'EcrAnywhere';
