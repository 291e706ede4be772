// The result of one request for a Secret, and how a failed request becomes one.
import type { Outcome, SecretResult } from '../../../contract/refresher-api.ts';
import { KubernetesError } from '../kubernetes/client.ts';
import type { SharedFailure } from './circuit-breaker.ts';
import { type Failure, failureOf } from './cluster-report.ts';

export interface RequestResult extends Omit<SecretResult, 'secret' | 'due'> {
  readonly outcome: Outcome;
  /** Set if the next Secret is likely to fail in the same way. */
  readonly sharedFailure?: SharedFailure;
}

const NOT_MUTATED: Failure = {
  code: 'not-mutated',
  reason:
    'the API server accepted the request and no credentials were written: does the webhook configuration exist, and does it select this namespace?',
};

/** The API server did not call the webhook. One namespace may be exempt from the webhook while the others are not. */
export function notMutated(): RequestResult {
  const outcome = 'not-mutated';
  return { outcome, ...NOT_MUTATED, sharedFailure: { affects: 'namespace', cause: outcome, ...NOT_MUTATED } };
}

/** The result of a request that was refused, or had no response. */
export function refused(error: unknown): RequestResult {
  if (error instanceof KubernetesError && error.status === 404) return { outcome: 'gone' };
  const failure = failureOf(error);
  if (!(error instanceof KubernetesError)) return { outcome: 'refused', ...failure };
  const { causes } = error;
  const result = { outcome: 'refused', ...failure, ...(causes.length > 0 && { causes }) } as const;
  if (error.affects === 'object') return result;
  // Ports and times differ from one failure to the next.
  const cause = error.reason.replaceAll(/\d+/g, '#');
  return { ...result, sharedFailure: { affects: error.affects, cause, ...failure } };
}
