// Why the webhook denied a request, as data: `Status.details.causes` of the denial. Programs branch on these codes,
// people read the sentence beside them. The API server passes the causes on to the client unchanged.

/** The reason of a denial; also the `reason` of the webhook's log line and metric. */
export const DENIAL_REASONS = [
  'malformed',
  'internal-error',
  /** The refresher tried to change something other than the request annotations. */
  'refresher-out-of-bounds',
  'wrong-type',
  'immutable',
  'not-a-docker-config',
  /** The policy gives the namespace no registry, or none of those that the annotation `only` names. */
  'not-entitled',
  'too-large',
  /** At least one registry has no token; its own cause says why. */
  'no-token',
] as const;

/** Why there is no token for one registry. */
export const TOKEN_FAILURES = [
  /** The webhook has no AWS credentials, or AWS does not accept them. */
  'aws-no-identity',
  /** The role of the policy could not be assumed. */
  'aws-role-denied',
  'ecr-denied',
  'ecr-throttled',
  /** No answer in time, a network error, or an error of AWS itself. */
  'ecr-unavailable',
  'ecr-error',
] as const;

export type DenialReason = (typeof DENIAL_REASONS)[number];
export type TokenFailure = (typeof TOKEN_FAILURES)[number];

/** One entry of `Status.details.causes` (Kubernetes API reference, StatusCause). */
export interface DenialCause {
  readonly reason: DenialReason | TokenFailure;
  /**
   * The field that is at fault, as kubectl writes it: `type`, `metadata.annotations[ecr-anywhere.centml.ai/only]`;
   * for a registry `data[.dockerconfigjson].auths[HOST]`.
   */
  readonly field?: string;
  /** For a registry whose role cannot be assumed or is denied: the ARN of that AWS principal. Otherwise a sentence. */
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

/** The `field` of a cause that is about one registry. */
export function registryField(host: string): string {
  return `data[.dockerconfigjson].auths[${host}]`;
}

/** The registry that a cause is about; undefined where it is about the Secret as a whole. */
export function registryOf({ field }: DenialCause): string | undefined {
  return /^data\[\.dockerconfigjson\]\.auths\[(.+)\]$/.exec(field ?? '')?.[1];
}
