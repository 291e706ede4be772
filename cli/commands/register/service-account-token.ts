// Creates a token of the chart's ServiceAccount and the Secret it is bound to.
import { z } from 'zod';
import { type Installation, refresherUsername, TOKEN_MAX_SECONDS } from '../../kubernetes/chart.ts';
import { ApiError, Kubernetes } from '../../kubernetes/client.ts';
import type { Identity } from '../../kubernetes/identity.ts';
import { CliError } from '../../output/errors.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import type { RegisterContext } from './context.ts';
import { kubeconfigFor } from './kubeconfig.ts';

/** A week, unless the chart allows less. */
const DEFAULT_SECONDS = 604_800;
/** The shortest lifetime that Kubernetes allows (TokenRequestSpec.expirationSeconds). */
const MIN_SECONDS = 600;

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

/** A token to request. */
export interface TokenPlan {
  readonly installation: Installation;
  readonly seconds: number;
  /** The labels that the chart has set on the ServiceAccount. */
  readonly labels: Readonly<Record<string, string>>;
}

export interface Token {
  readonly token: string;
  /** RFC 3339. */
  readonly expiresAt: string;
}

/** The identity of the chart's ServiceAccount. */
export function serviceAccountIdentity(installation: Installation): Identity {
  const { namespace } = installation;
  return {
    username: refresherUsername(installation),
    groups: ['system:serviceaccounts', `system:serviceaccounts:${namespace}`, 'system:authenticated'],
  };
}

/**
 * Checks that a token of the chart's ServiceAccount can be created. Changes nothing.
 *
 * @param seconds the requested lifetime; default: a week, or less if the chart allows less
 * @throws CliError
 */
export async function planToken(
  kubernetes: Pick<Kubernetes, 'find'>,
  installation: Installation,
  seconds: number | undefined,
  commands: ShellCommands,
): Promise<TokenPlan> {
  const { namespace, refresher } = installation;
  const account = await kubernetes.find(`/api/v1/namespaces/${namespace}/serviceaccounts/${refresher}`);
  if (!account)
    throw new CliError(
      'chart-incomplete',
      `The chart's ServiceAccount ${namespace}/${refresher} is missing.`,
      commands.upgrade(),
    );
  const { labels = {}, annotations = {} } = ServiceAccount.parse(account).metadata;
  const allowed = Number(annotations[TOKEN_MAX_SECONDS] ?? DEFAULT_SECONDS);
  const requested = Math.round(seconds ?? Math.min(allowed, DEFAULT_SECONDS));
  if (requested > allowed)
    throw new CliError(
      'token-lifetime-invalid',
      `The refresher could not renew a token of ${requested / 3600} h, because the chart allows ${allowed / 3600} h.`,
      `Use --duration ${allowed / 3600}h, or allow more: ${commands.upgrade(['--set', `refresher.token.maxSeconds=${requested}`])}`,
    );
  if (requested < MIN_SECONDS)
    throw new CliError(
      'token-lifetime-invalid',
      'The lifetime of a token must be at least ten minutes.',
      'Use a longer --duration, such as --duration 1h.',
    );
  return { installation, seconds: requested, labels };
}

/**
 * Creates a token of the chart's ServiceAccount, bound to the release's Secret. The Secret is recreated if an earlier
 * `unregister` deleted it. If a registration of this name was interrupted, the Secret is replaced, which ends the tokens of
 * that attempt. A registration of the cluster with another stack would use the same Secret (docs/settings.md, "Stages").
 *
 * @throws CliError
 */
export async function createToken(
  plan: TokenPlan,
  {
    aws,
    kubernetes: operator,
    registration,
    commands,
  }: Pick<RegisterContext, 'aws' | 'kubernetes' | 'registration' | 'commands'>,
): Promise<Token> {
  const { namespace, refresher, tokenSecret } = plan.installation;
  const path = `/api/v1/namespaces/${namespace}/secrets`;
  const isRepeated = registration.isIncomplete;
  // First: a token that was created is then one of an incomplete registration, which the next `register` ends.
  await registration.begin();
  return aws.change(`a token of ${namespace}/${refresher}`, async (signal) => {
    const kubernetes = operator.withSignal(signal);
    const found = await kubernetes.find(`${path}/${tokenSecret}`);
    let uid = found === undefined ? undefined : uidOf(found);
    if (uid !== undefined && isRepeated) {
      await checkCreate(kubernetes, path, plan);
      await endTokens(kubernetes, plan, uid, commands);
      uid = undefined;
    }
    uid ??= uidOf((await kubernetes.post(path, { body: secretFor(plan) })).body);
    return requestToken(kubernetes, plan, uid);
  });
}

/** Checks that the Secret can be created again before it is deleted. @throws CliError */
async function checkCreate(kubernetes: Kubernetes, path: string, plan: TokenPlan): Promise<void> {
  await kubernetes.post(path, { body: secretFor(plan), query: { dryRun: 'All' } }).catch((error: unknown) => {
    // The API server authorizes a request before it looks for the name.
    if (!(error instanceof ApiError && error.status === 409)) throw error;
  });
}

/** Deletes the Secret, and with it all tokens that are bound to it. @throws CliError */
async function endTokens(
  kubernetes: Kubernetes,
  plan: TokenPlan,
  uid: string,
  commands: ShellCommands,
): Promise<void> {
  const { namespace, tokenSecret } = plan.installation;
  const path = `/api/v1/namespaces/${namespace}/secrets/${tokenSecret}`;
  // As the identity of a token: the operator needs no right to delete Secrets.
  const { token } = await requestToken(kubernetes, { ...plan, seconds: MIN_SECONDS }, uid);
  const asToken = kubeconfigFor('token', await kubernetes.server(), { token });
  await deleteSecretOfUid(Kubernetes.of(asToken, kubernetes.signal, commands), path, uid);
  // A proxy with users of its own rejects the token, and the Secret is still there.
  const remaining = await kubernetes.find(path);
  if (remaining && uidOf(remaining) === uid) await deleteSecretOfUid(kubernetes, path, uid);
}

function uidOf(object: unknown): string {
  return Created.parse(object).metadata.uid;
}

/** The Secret as the chart creates it. */
function secretFor({ installation, labels }: TokenPlan) {
  const { namespace, release, tokenSecret } = installation;
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: 'Opaque',
    immutable: true,
    // With these annotations, Helm adopts the Secret into the release.
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

async function requestToken(
  kubernetes: Kubernetes,
  { installation, seconds }: TokenPlan,
  secretUid: string,
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
          boundObjectRef: { kind: 'Secret', apiVersion: 'v1', name: tokenSecret, uid: secretUid },
        },
      },
    },
  );
  const { token, expirationTimestamp } = TokenRequest.parse(body).status;
  return { token, expiresAt: expirationTimestamp };
}

/** Deletes a Secret, unless it was replaced. @throws CliError */
async function deleteSecretOfUid(kubernetes: Kubernetes, path: string, uid: string): Promise<void> {
  const body = { kind: 'DeleteOptions', apiVersion: 'v1', preconditions: { uid } };
  await kubernetes.delete(path, { body, metadataOnly: 'PartialObjectMetadata' }).catch((error: unknown) => {
    // The Secret was deleted (401, 404) or recreated (409): the token is revoked already.
    if (!(error instanceof ApiError && [401, 404, 409].includes(error.status))) throw error;
  });
}
