// The result of a cluster run, as text. Pure.
import type { ClusterSummary, SecretResult } from '../../contract/refresher-api.ts';

/** One sentence: the number of Secrets, and of each outcome. */
export function formatOutcome({ managed, due, outcomes, isPaused }: ClusterSummary): string {
  if (isPaused) return 'The cluster is paused, so nothing was requested.';
  const counts = Object.entries(outcomes).map(([outcome, count]) => `${count} ${outcome}`);
  const secrets = `${managed} managed ${managed === 1 ? 'Secret' : 'Secrets'}`;
  const requested = due === 0 ? 'none due' : `${due} requested`;
  return `${secrets}, ${[requested, ...(counts.length > 0 ? [counts.join(', ')] : [])].join(': ')}.`;
}

/** The problems, one a line: of the cluster, then of its Secrets. */
export function formatProblems({ reason, problems }: ClusterSummary): string[] {
  return [...(reason === undefined ? [] : [reason]), ...problems.map(formatSecretResult)];
}

/** One Secret's line. */
function formatSecretResult({ secret, outcome, reason, expiresAt }: SecretResult): string {
  const until = expiresAt === undefined ? '' : ` until ${expiresAt}`;
  return `${secret}: ${outcome}${until}${reason === undefined ? '' : `: ${reason}`}`;
}
