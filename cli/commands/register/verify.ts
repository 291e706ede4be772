// Proving a registration: the refresher looks at the cluster from AWS; and the way out where it cannot, by where it failed.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterSummary } from '../../../contract/refresher-api.ts';
import type { Refresher } from '../../aws/refresher.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import type { EksTarget } from './eks-access-entry.ts';
import type { Obtained } from './obtain-credential.ts';

const ASK_AGAIN_MS = 3_000;

export interface Proving {
  readonly name: string;
  readonly refresher: Refresher;
  /** The cluster's. */
  readonly uid: string;
  /** What becomes of the name where it fails. */
  readonly outcome: string;
  readonly target: EksTarget | undefined;
  readonly obtained: Obtained;
  readonly commands: ShellCommands;
  readonly signal: AbortSignal;
}

/**
 * Has the refresher look at the cluster.
 *
 * @param patienceMs until the API server knows the identity
 * @param say is told what it is waiting for
 * @returns whom the API server takes it for
 * @throws CliError
 */
export async function prove(
  proving: Proving,
  patienceMs: number,
  say: (text: string) => void,
): Promise<Identity> {
  const { name, refresher, uid, outcome, commands, signal } = proving;
  const until = Date.now() + patienceMs;
  for (;;) {
    const { clusters } = await refresher.inspect([name]);
    const [summary] = clusters;
    if (summary?.served) {
      const { username, groups = [], clusterUid } = summary.inspection ?? {};
      if (username === undefined || clusterUid === undefined)
        throw new CliError(
          'registration-not-verified',
          `the API server does not tell the refresher who it is (SelfSubjectReview), or which cluster this is, so ${outcome}`,
          commands.kubectl(['get', 'clusterrolebinding', 'system:basic-user']),
        );
      if (clusterUid !== uid)
        throw new CliError(
          'different-cluster',
          'the address leads the refresher to another cluster than the one of this context',
          'is --context right, and the address (--server, or --eks-name)?',
        );
      return { username, groups };
    }
    if (summary?.failedAt !== 'credential' || Date.now() >= until) throw notServed(proving, summary);
    say('the API server does not know it yet');
    await sleep(ASK_AGAIN_MS, undefined, { signal });
  }
}

/** That the refresher cannot use what is registered, and the way out. @param summary undefined: it says nothing */
export function notServed(proving: Proving, summary: ClusterSummary | undefined): CliError {
  const { reason = 'no reason given', failedAt } = summary ?? {};
  const says = `the refresher cannot use it, so ${proving.outcome}: ${reason}`;
  return new CliError('registration-not-verified', says, wayOut(failedAt, proving));
}

function wayOut(failedAt: ClusterSummary['failedAt'], { target, obtained, commands }: Proving): string {
  const { whenUnknown, server, more: { authenticationConfig } = {} } = obtained;
  const isKeyless = authenticationConfig !== undefined;
  if (failedAt === 'setting')
    return `deploy it with that setting: ${commands.deploy(
      isKeyless ? { keyless: 'true' } : { eksRegions: target?.region ?? 'REGIONS' },
    )}`;
  if (failedAt === 'credential') return whenUnknown;
  if (failedAt === 'permissions') return 'docs/registering.md says what a registered cluster needs';
  if (failedAt === 'kubeconfig' && isKeyless)
    return 'docs/keyless.md says what the account and the stack need';
  if (server.proxyUrl !== undefined)
    return 'is the context’s proxy-url for this machine? Take a context without it; or --server https://…, which leaves it out';
  if (target !== undefined)
    return `who may reach it: ${commands.aws(
      ['eks', 'describe-cluster', '--name', target.name, '--query', 'cluster.resourcesVpcConfig'],
      target.region,
    )}`;
  return `--server https://… names the address by which AWS reaches the cluster; the certificate there must be of the context’s certificate-authority-data: ${commands.kubectl(['config', 'view', '--minify', '--raw'])}`;
}
