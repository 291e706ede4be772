// Verifies a registration: the refresher uses it from AWS. If that fails, the hint depends on where it failed.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ClusterSummary, FailureCode, RefreshAnswer } from '../../../contract/refresher-api.ts';
import { untilVisible } from '../../aws/until-visible.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import type { ObtainedCredential, RegisterContext } from './context.ts';

const RETRY_MS = 3_000;
/** The codes of a cluster whose secret the refresher sees as it was. */
const OLD: ReadonlySet<string> = new Set<FailureCode>(['registration-unreadable', 'registration-incomplete']);

/**
 * Has the refresher inspect the cluster.
 *
 * @param timeoutMs how long to wait until the API server accepts the credential
 * @param report called with the current state while waiting
 * @param version of the registered secret
 * @returns the refresher's identity, according to the API server
 * @throws CliError
 */
export async function verify(
  context: RegisterContext,
  obtained: ObtainedCredential,
  version: string,
  timeoutMs: number,
  report: (text: string) => void,
): Promise<Identity> {
  const { name, options, refresher, uid, commands, aws } = context;
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const summary = await summaryOf(() => refresher.inspectVersion(name, version), aws.signal);
    if (summary?.served) {
      const { username, groups = [], clusterUid } = summary.inspection ?? {};
      if (username === undefined || clusterUid === undefined)
        throw new CliError(
          'registration-not-verified',
          `The API server does not tell the refresher its identity (SelfSubjectReview) or the cluster's UID, so ${consequence(context)}.`,
          `Check that this ClusterRoleBinding exists and has the group system:authenticated: ${commands.kubectl(['get', 'clusterrolebinding', 'system:basic-user', '--output=yaml'])}`,
        );
      if (clusterUid !== uid)
        throw new CliError(
          'different-cluster',
          `The refresher reaches a different cluster than that of the context, so ${consequence(context)}.`,
          options.eks
            ? 'Check --context and --eks-name: they must name the same cluster.'
            : 'Check --context, and the address of --server: both must belong to the same cluster.',
        );
      return { username, groups };
    }
    if (summary?.failedAt !== 'credential' || Date.now() >= deadline)
      throw notServed(context, obtained, summary);
    report('the API server does not accept the credential yet');
    await sleep(RETRY_MS, undefined, { signal: aws.signal });
  }
}

/** The report of the registered cluster. Repeats the request while the refresher does not see the change of a moment ago. */
export async function summaryOf(
  request: () => Promise<RefreshAnswer>,
  signal: AbortSignal,
): Promise<ClusterSummary | undefined> {
  const isOld = (outcome: RefreshAnswer | CliError) =>
    outcome instanceof CliError
      ? outcome.code === 'not-registered'
      : outcome.clusters.some(({ codes = [] }) => codes.some((code) => OLD.has(code)));
  return (await untilVisible(request, isOld, signal)).clusters[0];
}

/** What a failure means for the registration. */
function consequence({ name, options }: RegisterContext): string {
  return options.replace ? `${name} keeps its earlier credential` : `${name} is not refreshed`;
}

/** The error if the refresher cannot use the registration. @param summary undefined if the refresher reported none */
export function notServed(
  context: RegisterContext,
  obtained: ObtainedCredential,
  summary: ClusterSummary | undefined,
): CliError {
  const { reason = 'the refresher gave no reason', failedAt } = summary ?? {};
  return new CliError(
    'registration-not-verified',
    `The refresher cannot use the registration, so ${consequence(context)}: ${reason}`,
    hintFor(failedAt, context, obtained),
  );
}

function hintFor(
  failedAt: ClusterSummary['failedAt'],
  { commands, options: { keyless: isKeyless } }: RegisterContext,
  { unauthorizedHint, server, eks }: ObtainedCredential,
): string {
  if (failedAt === 'setting') {
    const settings = isKeyless ? { keyless: 'true' } : { eksRegions: eks?.region ?? 'REGIONS' };
    return `Deploy the stack with that setting: ${commands.deploy(settings)}`;
  }
  if (failedAt === 'credential') return unauthorizedHint;
  if (failedAt === 'permissions')
    return `The chart grants the permissions. To restore them: ${commands.upgrade()}. refresher.namespaces must be * or name every enabled namespace.`;
  if (failedAt === 'kubeconfig' && isKeyless)
    return 'docs/keyless.md lists what the account and the stack need.';
  if (server.proxyUrl !== undefined)
    return `Check that AWS can reach the context's proxy-url. If it cannot, use a context without a proxy-url${
      // EKS names the endpoint.
      eks === undefined ? ", or give the cluster's public address with --server" : ''
    }.`;
  if (eks !== undefined)
    return `Check which networks may reach the endpoint: ${commands.aws(
      ['eks', 'describe-cluster', '--name', eks.name, '--query', 'cluster.resourcesVpcConfig'],
      eks.region,
    )}`;
  return `Give the address by which AWS reaches the cluster with --server. Its certificate must be signed by the context's certificate authority: ${commands.kubectl(['config', 'view', '--minify', '--raw'])}`;
}
