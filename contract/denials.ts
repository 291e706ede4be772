// The codes of a denial by the webhook, which travel to the client in `Status.details.causes`.
// Programs branch on the codes; people read the message. The API server passes the causes on unchanged.

/** The reason of a denial; also the `reason` of the webhook's log line and metric. */
export const DENIAL_REASONS = [
  /** The review is not one of a Secret, or its fields have the wrong types. */
  'malformed',
  /** The caller did not prove that it is the API server. */
  'caller-not-authenticated',
  /** The webhook failed to process the Secret. */
  'internal-error',
  /** The refresher tried to change something other than the request annotations. */
  'refresher-out-of-bounds',
  /** The Secret's type is not kubernetes.io/dockerconfigjson. */
  'wrong-type',
  'immutable',
  /** The new data is not a docker config; storing it would lose entries of other registries. */
  'not-a-docker-config',
  /** The webhook started with an invalid policy, and has had no valid one since. */
  'policy-invalid',
  /** The policy gives the namespace no registry, or none of those that the annotation `only` names. */
  'not-entitled',
  /** With all its credentials the Secret would exceed the API server's limit. */
  'too-large',
  /** At least one registry has no token; its own cause says why. */
  'no-token',
] as const;

/** Why there is no token for one registry. */
export const TOKEN_FAILURES = [
  /** The webhook has no AWS credentials, or AWS does not accept them. */
  'aws-no-identity',
  /** STS refused to let the webhook assume a role: the one of the policy, or the one that the chart sets. */
  'aws-role-denied',
  /** ECR refused the principal, for example because it lacks `ecr:GetAuthorizationToken`. */
  'ecr-denied',
  'ecr-throttled',
  /** No answer from ECR or STS in time, a network error, or an internal error of AWS. */
  'ecr-unavailable',
  /** Anything else, such as an answer without a usable token. */
  'ecr-error',
] as const;

export type DenialReason = (typeof DENIAL_REASONS)[number];
export type TokenFailure = (typeof TOKEN_FAILURES)[number];

/** Whether a cause is about a registry's token. */
export function isTokenFailure(reason: DenialReason | TokenFailure): reason is TokenFailure {
  return (TOKEN_FAILURES as readonly string[]).includes(reason);
}

/** One entry of `Status.details.causes` (Kubernetes API reference, StatusCause). */
export interface DenialCause {
  readonly reason: DenialReason | TokenFailure;
  /**
   * The field at fault, as kubectl writes it: `type`, `metadata.annotations[ecr-anywhere.centml.ai/only]`. For a registry
   * it is `registryField(host)`. Absent where no single field is at fault.
   */
  readonly field?: string;
  /** For `aws-role-denied` and `ecr-denied`: the ARN of the AWS principal, if known. Otherwise a sentence. */
  readonly message: string;
}

const REASONS: ReadonlySet<string> = new Set([...DENIAL_REASONS, ...TOKEN_FAILURES]);

/** The webhook's causes in a Kubernetes Status; those of other admission plugins are left out. */
export function denialCauses(status: unknown): DenialCause[] {
  const causes = (status as { details?: { causes?: unknown } } | null | undefined)?.details?.causes;
  if (!Array.isArray(causes)) return [];
  return causes.flatMap((cause: unknown) => {
    const { reason, field, message } = (cause ?? {}) as Partial<Record<keyof DenialCause, unknown>>;
    if (typeof reason !== 'string' || !REASONS.has(reason)) return [];
    return [
      {
        reason: reason as DenialCause['reason'],
        ...(typeof field === 'string' && { field }),
        message: typeof message === 'string' ? message : '',
      },
    ];
  });
}

/** The field that holds the docker config. */
export const CONFIG_FIELD = 'data[.dockerconfigjson]';

/**
 * The `field` of a cause that is about one registry.
 *
 * @param host undefined while the webhook does not know the host of its own registry: before the first token
 */
export function registryField(host?: string): string {
  return host === undefined ? `${CONFIG_FIELD}.auths` : `${CONFIG_FIELD}.auths[${host}]`;
}

/** The registry that a cause is about; undefined where it is about the Secret, or the host is not known. */
export function registryOf({ field }: DenialCause): string | undefined {
  return /^data\[\.dockerconfigjson\]\.auths\[(.+)\]$/.exec(field ?? '')?.[1];
}
