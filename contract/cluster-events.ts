// The events that the refresher sends to EventBridge when the condition of a cluster changes. Rules match on these fields.
import type { FailureCode } from './refresher-api.ts';

/** The event's `source`. */
export const EVENT_SOURCE = 'ecr-anywhere';
/** The event's `detail-type`. */
export const EVENT_TYPE = 'ECR Anywhere Cluster Transition';

/** Failures in a row from which a cluster is failing: one that is upgraded or restarted works again at the next run. */
export const FAILURES = 2;

/**
 * What is wrong with a cluster.
 *
 * - `failing`: it failed in at least two runs in a row
 * - `token-ending`: its registered token is past three quarters of its lifetime, ends within 14 days and is not renewed
 * - `expiring`: credentials expire within half of the refresh window
 * - `expired`: credentials have expired: new Pods cannot pull
 */
export const CONDITIONS = ['failing', 'token-ending', 'expiring', 'expired'] as const;
export type Condition = (typeof CONDITIONS)[number];

/** A condition that the cluster came into, or that it has none any more. */
export type Transition = Condition | 'recovered';

/** The event's `detail`. Times are RFC 3339. A field is absent where its value is unknown or does not apply. */
export interface ClusterTransition {
  /** Equal in events that repeat an announcement: SNS refused the message, or the run was killed. */
  readonly id: string;
  /** The registered name; the ARN of a tagged EKS cluster; the name of a discovery target. */
  readonly cluster: string;
  readonly transition: Transition;
  /** All that is wrong with the cluster now, the least urgent first; empty if it recovered. */
  readonly conditions: readonly Condition[];
  /** Why its last run failed, as a sentence and as codes. */
  readonly reason?: string | undefined;
  readonly codes?: readonly FailureCode[] | undefined;
  /** Consecutive failures, and the time of the first. */
  readonly failures?: number | undefined;
  readonly failingSince?: string | undefined;
  /** When the first of its credentials expires, as last observed. */
  readonly soonestExpiry?: string | undefined;
  readonly tokenExpiresAt?: string | undefined;
  /** The first command to run. */
  readonly command: string;
}
