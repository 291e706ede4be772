// A token of the chart's ServiceAccount: whether it can be had, making it and the Secret that it is bound to, and ending
// it where nobody keeps it.
import { z } from 'zod';
import { readToken } from '../../../lib/kubernetes/service-account-token.ts';
import type { Aws } from '../../aws/aws.ts';
import type { Rollback } from '../../aws/rollback.ts';
import { type Installation, TOKEN_MAX_SECONDS } from '../../kubernetes/chart.ts';
import { ApiError, Kubernetes, type Server } from '../../kubernetes/client.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { kubeconfigOf } from './kubeconfig.ts';

/** A week, unless the chart allows less. */
const TOKEN_SECONDS = 604_800;
/** Kubernetes makes none that live shorter (TokenRequestSpec.expirationSeconds). */
const MIN_TOKEN_SECONDS = 600;

const ServiceAccount = z.object({
  metadata: z.object({
    labels: z.record(z.string(), z.string()).optional(),
    annotations: z.record(z.string(), z.string()).optional(),
  }),
});
const Created = z.object({ metadata: z.object({ uid: z.string() }) });
const TokenRequest = z.object({
  status: z.object({ token: z.string(), expirationTimestamp: z.string() }),
});

/** A token that is to be asked for. */
export interface TokenPlan {
  readonly installation: Installation;
  readonly seconds: number;
  /** Of the ServiceAccount, as the chart has set them. */
  readonly labels: Readonly<Record<string, string>>;
}

export interface Token {
  readonly token: string;
  /** RFC 3339. */
  readonly expiresAt: string;
}

/**
 * Whether a token of the chart's ServiceAccount can be had. Changes nothing.
 *
 * @param seconds that it is to live; default: a week, or as long as the chart allows
 * @throws CliError where it cannot
 */
export async function planToken(
  kubernetes: Kubernetes,
  installation: Installation,
  seconds: number | undefined,
  commands: ShellCommands,
): Promise<TokenPlan> {
  const { namespace, refresher } = installation;
  const account = await kubernetes.find(`/api/v1/namespaces/${namespace}/serviceaccounts/${refresher}`);
  if (!account)
    throw new CliError(
      'chart-incomplete',
      `there is no ServiceAccount ${namespace}/${refresher}`,
      commands.upgrade(),
    );
  const { labels = {}, annotations = {} } = ServiceAccount.parse(account).metadata;
  const allowed = Number(annotations[TOKEN_MAX_SECONDS] ?? TOKEN_SECONDS);
  const wanted = Math.round(seconds ?? Math.min(allowed, TOKEN_SECONDS));
  if (wanted > allowed)
    throw new CliError(
      'usage',
      `a token of ${wanted / 3600} h could not be renewed: the chart allows ${allowed / 3600} h`,
      `--duration ${allowed / 3600}; or ${commands.upgrade(['--set', `refresher.token.maxSeconds=${wanted}`])}`,
    );
  if (wanted < MIN_TOKEN_SECONDS)
    throw new CliError('usage', 'Kubernetes makes no token that lives less than ten minutes', '--duration 1');
  return { installation, seconds: wanted, labels };
}

/** Where a token is made, and what is begun there. */
export interface Minting {
  readonly aws: Aws;
  /** The operator's context, for as long as a signal says. */
  readonly clusterOf: (signal: AbortSignal) => Kubernetes;
  readonly begun: Rollback;
  readonly commands: ShellCommands;
}

/**
 * A token of the chart's ServiceAccount, bound to the release's Secret, which is made again if an earlier registration
 * was ended by deleting it. A Secret that was made goes with whatever fails, and the token with it.
 *
 * @throws CliError
 */
export async function mintToken(
  plan: TokenPlan,
  { aws, clusterOf, begun, commands }: Minting,
): Promise<Token> {
  const { namespace, tokenSecret } = plan.installation;
  const path = `/api/v1/namespaces/${namespace}/secrets`;
  const endsAll = commands.kubectlInRelease(['delete', 'secret', tokenSecret]);
  // Ctrl-C waits for the answers: what was made without being known would be left.
  return aws.change(`a token of ${namespace}/${plan.installation.refresher}`, async (signal) => {
    const kubernetes = clusterOf(signal);
    const found = await kubernetes.find(`${path}/${tokenSecret}`);
    if (found) {
      const minted = await requestToken(kubernetes, plan, uidOf(found));
      begun.addManualStep(
        `the token that was made lives until ${minted.expiresAt}, and nobody has kept it: ${endsAll} ends it, and every other of this cluster’s`,
      );
      return minted;
    }
    const made: { uid?: string; minted?: Token; isRefused?: true } = {};
    begun.note({
      byHand: endsAll,
      async run(operator) {
        if (made.isRefused) return;
        if (made.uid === undefined)
          throw new Error(`whether the Secret ${namespace}/${tokenSecret} was made is not known`);
        const context = clusterOf(operator.signal);
        const { token } =
          made.minted ?? (await requestToken(context, { ...plan, seconds: MIN_TOKEN_SECONDS }, made.uid));
        await endToken(await context.server(), token, operator.signal);
      },
    });
    const secret = await kubernetes.post(path, { body: secretOf(plan) }).catch((error: unknown) => {
      if (error instanceof ApiError && error.status < 500) made.isRefused = true;
      throw error;
    });
    made.uid = uidOf(secret.body);
    made.minted = await requestToken(kubernetes, plan, made.uid);
    return made.minted;
  });
}

function uidOf(object: unknown): string {
  return Created.parse(object).metadata.uid;
}

/** As the chart has it. */
function secretOf({ installation, labels }: TokenPlan) {
  const { namespace, release, tokenSecret } = installation;
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'Opaque',
    immutable: true,
    // Helm takes it for its own again.
    metadata: {
      name: tokenSecret,
      labels,
      annotations: {
        'meta.helm.sh/release-name': release,
        'meta.helm.sh/release-namespace': namespace,
      },
    },
  };
}

/** @param uid of the Secret */
async function requestToken(
  kubernetes: Kubernetes,
  { installation, seconds }: TokenPlan,
  uid: string,
): Promise<Token> {
  const { namespace, refresher, tokenSecret } = installation;
  const { body } = await kubernetes.post(
    `/api/v1/namespaces/${namespace}/serviceaccounts/${refresher}/token`,
    {
      body: {
        apiVersion: 'authentication.k8s.io/v1',
        kind: 'TokenRequest',
        spec: {
          expirationSeconds: seconds,
          boundObjectRef: { kind: 'Secret', apiVersion: 'v1', name: tokenSecret, uid },
        },
      },
    },
  );
  const { token, expirationTimestamp } = TokenRequest.parse(body).status;
  return { token, expiresAt: expirationTimestamp };
}

/** Deletes the Secret that the token is bound to, as the token's own identity. @throws CliError */
async function endToken(server: Server, token: string, signal: AbortSignal): Promise<void> {
  const bound = readToken(token);
  if (bound === undefined || 'reason' in bound) throw new Error(bound?.reason ?? 'the token says nothing');
  const { namespace, secret } = bound;
  const kubernetes = Kubernetes.of(kubeconfigOf('registered', server, { token }), signal);
  const path = `/api/v1/namespaces/${encodeURIComponent(namespace)}/secrets/${encodeURIComponent(secret.name)}`;
  const body = { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid: secret.uid } };
  await kubernetes.delete(path, { body, metadataOnly: 'PartialObjectMetadata' }).catch((error: unknown) => {
    // The Secret is gone, or another one: the token has ended.
    if (!(error instanceof ApiError && [401, 404, 409].includes(error.status))) throw error;
  });
}
