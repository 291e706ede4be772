// The result of register, as JSON and as text. Pure.
import type { ClusterSummary } from '../../../contract/refresher-api.ts';
import { localAddressProblem } from '../../../lib/kubernetes/local-addresses.ts';
import { formatReadAccess, type Identity, type ReadAccess } from '../../kubernetes/identity.ts';
import { formatOutcome, formatProblems } from '../../output/format-outcome.ts';
import type { ObtainedCredential } from './context.ts';

/** What `--output json` prints. */
export interface Result extends NonNullable<ObtainedCredential['details']> {
  readonly cluster: string;
  readonly isRegistered: boolean;
  readonly server: string;
  /** Of a dry run, the identity that is expected. */
  readonly identity: Identity;
  readonly canRead: ReadAccess;
  /** RFC 3339. Absent if the credential names no expiry, or none is stored. */
  readonly expiresAt?: string;
  readonly isRenewed: boolean;
  /** Absent in a dry run. */
  readonly run?: ClusterSummary;
}

export function formatResult(result: Result): string {
  return format(result, `${result.cluster} is registered`);
}

export function formatDryRun(result: Result): string {
  const problem = localAddressProblem(result.server);
  return [
    format(result, 'Dry run: nothing was stored or changed.'),
    `  Not checked: whether AWS can reach ${result.server}.`,
    // Kubeconfigs of k3s and kind name a loopback address.
    ...(problem === undefined
      ? []
      : [`  AWS cannot reach it: ${problem}. Give another address with --server.`]),
  ].join('\n');
}

function format(result: Result, headline: string): string {
  const { identity, canRead, expiresAt, isRenewed, accessEntry, isRegistered, run } = result;
  const renewal = isRenewed
    ? 'The refresher renews it after half of its lifetime.'
    : 'The refresher cannot renew it.';
  return [
    headline,
    `  as ${identity.username}`,
    ...(accessEntry === undefined
      ? []
      : [`  Access entry${isRegistered ? '' : ' (would be)'}: ${accessEntry}`]),
    `  ${formatReadAccess(canRead)}`,
    ...(expiresAt === undefined ? [] : [`  The credential expires at ${expiresAt}. ${renewal}`]),
    ...(run ? [`  ${formatOutcome(run)}`, ...formatProblems(run).map((problem) => `  ${problem}`)] : []),
  ].join('\n');
}
