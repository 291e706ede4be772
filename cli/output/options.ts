// The options that lead to the account, the stack and the cluster; commands that the CLI prints repeat them.

export interface AwsOptions {
  readonly profile?: string;
  readonly region?: string;
  /** Name of the CDK stack. */
  readonly stackName?: string;
  /** Name or ARN of the function, where the construct is part of somebody's own stack. */
  readonly function?: string;
}

export interface KubeOptions {
  readonly kubeconfig?: string;
  readonly context?: string;
}

/** What helm calls an installation. */
export interface Release {
  readonly release: string;
  readonly namespace: string;
}
