// The options that select the account, the stack and the cluster. Commands that the CLI prints repeat them.

export interface AwsOptions {
  readonly profile?: string;
  readonly region?: string;
  /** Name of the CDK stack. */
  readonly stackName?: string;
  /** Name or ARN of the function, if the construct is part of the operator's own stack. */
  readonly function?: string;
}

export interface KubeOptions {
  readonly kubeconfig?: string;
  readonly context?: string;
}

/** A Helm release. */
export interface Release {
  readonly release: string;
  readonly namespace: string;
}
