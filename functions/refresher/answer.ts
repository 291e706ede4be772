// What the function answers to whoever invokes it (docs/operations.md, "Asking the refresher").
import type { ClusterSummary } from './report.ts';
import type { RevokeResult } from './revoke.ts';
import type { ClusterStatus } from './status.ts';

/** To `refresh` and `inspect`. */
export interface RefreshAnswer {
  readonly clusters: readonly ClusterSummary[];
  /** Namespaces that the event named and that are enabled in none of the clusters. */
  readonly namespacesNotEnabled?: readonly string[];
}

/** To `status`. */
export interface StatusAnswer {
  readonly clusters: readonly ClusterStatus[];
}

/** To `revoke`. */
export interface RevokeAnswer {
  readonly revoked: readonly RevokeResult[];
}

/** To an event that names a cluster which there is not: nothing was done for any. */
export interface NotRegisteredAnswer {
  readonly clusters: readonly [];
  readonly notRegistered: {
    readonly names: readonly string[];
    /** All names that there are. */
    readonly registered: readonly string[];
    /** Where tagged clusters could not all be found, and why. */
    readonly failures?: readonly string[];
  };
}

export type Answer = RefreshAnswer | StatusAnswer | RevokeAnswer | NotRegisteredAnswer;
