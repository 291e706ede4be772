// What came of a run over one cluster, in words. Pure.
import type { ClusterSummary, SecretResult } from '../../contract/refresher-api.ts';

/** A sentence: how many Secrets, and what became of them. */
export function formatOutcome({ managed, due, outcomes, isPaused }: ClusterSummary): string {
  if (isPaused) return 'It is paused: nothing was asked of it.';
  const came = Object.entries(outcomes).map(([outcome, count]) => `${count} ${outcome}`);
  const secrets = `${managed} managed ${managed === 1 ? 'Secret' : 'Secrets'}`;
  return due === 0 ? `${secrets}, none due.` : `${secrets}, ${due} asked for: ${came.join(', ')}.`;
}

/** What went wrong, a line each: of the cluster, then of its Secrets. */
export function formatProblems({ reason, problems }: ClusterSummary): string[] {
  return [...(reason === undefined ? [] : [reason]), ...problems.map(formatSecretResult)];
}

/** One Secret's line. */
export function formatSecretResult({ secret, outcome, reason, expiresAt }: SecretResult): string {
  const until = expiresAt === undefined ? '' : ` until ${expiresAt}`;
  return `${secret}: ${outcome}${until}${reason === undefined ? '' : `: ${reason}`}`;
}
