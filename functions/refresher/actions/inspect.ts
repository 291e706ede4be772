// Inspects a cluster for diagnosis: which cluster it is, which user the refresher is there, and which permissions it lacks.
// A part that cannot be determined is left out; the cluster's report beside the inspection has the failures.

import pMap from 'p-map';
import type { InspectedToken, Inspection } from '../../../contract/refresher-api.ts';
import type { RegisteredAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { readToken } from '../../../lib/kubernetes/service-account-token.ts';
import type { UsableAccess } from '../kubernetes/client.ts';
import { KubernetesApi, type KubernetesError, type Permission } from '../kubernetes/client.ts';

const REQUESTS_AT_ONCE = 4;
/** Limits of texts and lists that the server controls. */
const MAX_LENGTH = 256;
const MAX_ITEMS = 50;

/**
 * Inspects a cluster. Changes nothing and never rejects.
 *
 * @param now the refresher's clock, in milliseconds since the epoch
 * @param signal ends the inspection; parts that are missing by then are left out
 */
export async function inspect(
  access: UsableAccess,
  now: () => number,
  signal: AbortSignal,
): Promise<Inspection> {
  const registration = inspectRegistration(access);
  // Separate connections: the requests of the cluster run must not delay the response by which the clocks are compared.
  await using api = new KubernetesApi(access, REQUESTS_AT_ONCE, signal);
  const user = await api.whoAmI().catch((error: KubernetesError) => error);
  // Without an HTTP response, further requests would only wait for the same failure.
  if (user instanceof Error && user.status === undefined && user.cause !== undefined) return registration;
  // After the first request, so that the time to open the connection does not distort the comparison of the clocks.
  const version = await api.version(now).catch(() => undefined);
  const [uid, permissions] = await Promise.all([
    api.uidOfNamespace('kube-system').catch(() => undefined),
    permissionsOf(api, access).catch(() => undefined),
  ]);
  return {
    ...registration,
    ...(!(user instanceof Error) && {
      username: truncate(user.username),
      groups: truncateList(user.groups),
    }),
    ...(uid !== undefined && { clusterUid: truncate(uid) }),
    ...(version && { kubernetesVersion: truncate(version.gitVersion) }),
    ...(version?.aheadSeconds !== undefined && { clockSkewSeconds: version.aheadSeconds }),
    ...(permissions && {
      forbidden: truncateList(permissions.forbidden),
      readsEverySecret: permissions.readsEverySecret,
    }),
    ...inspectToken(access),
  };
}

/** The part of an inspection that needs no request to the API server. */
export function inspectRegistration(
  access: RegisteredAccess & Pick<UsableAccess, 'registeredAs'>,
): Inspection {
  return { server: new URL(access.server).origin, identity: access.registeredAs ?? kindOf(access.identity) };
}

function kindOf(identity: RegisteredAccess['identity']): Inspection['identity'] {
  if ('eks' in identity) return 'eks';
  if ('keyless' in identity) return 'keyless';
  return 'cert' in identity ? 'certificate' : 'token';
}

/** The registered token's claims. Tokens that are made for each cluster run are left out, because they are never renewed. */
function inspectToken({ identity, registeredAs }: UsableAccess): { token?: InspectedToken } {
  const token = 'token' in identity && !registeredAs ? readToken(identity.token) : undefined;
  if (token === undefined) return {};
  const { expiresAt } = token;
  return {
    token: {
      ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt).toISOString() }),
      ...('reason' in token
        ? { renewable: false, reason: token.reason, code: 'token-not-bound' }
        : { renewable: true }),
    },
  };
}

interface Permissions {
  /** What a cluster run needs and lacks. */
  readonly forbidden: string[];
  readonly readsEverySecret: boolean;
}

/** @throws KubernetesError if the API server does not say */
async function permissionsOf(api: KubernetesApi, access: UsableAccess): Promise<Permissions> {
  const [namespaces, secrets, renewal] = await Promise.all([
    refused(api, { verb: 'list', resource: 'namespaces' }),
    refusedOfSecrets(api),
    refusedOfRenewal(api, access),
  ]);
  return {
    forbidden: [...namespaces, ...secrets.forbidden, ...renewal],
    readsEverySecret: secrets.readsEverySecret,
  };
}

/** Checks all namespaces in one request, as the chart's ClusterRole grants them; if that fails, each enabled namespace. */
async function refusedOfSecrets(api: KubernetesApi): Promise<Permissions> {
  const needed = ['list', 'patch'].map((verb) => ({ verb, resource: 'secrets' }));
  const refusals = await Promise.all(needed.map((permission) => refused(api, permission)));
  const notEverywhere = needed.filter((_, index) => refusals[index]?.length);
  const readsEverySecret = refusals[0]?.length === 0;
  if (notEverywhere.length === 0) return { forbidden: [], readsEverySecret };
  // If namespaces cannot be listed, that permission is reported, and no cluster run gets as far as Secrets.
  const namespaces = await api.enabledNamespaces().catch(() => []);
  const each = namespaces.flatMap((namespace) =>
    notEverywhere.map((permission) => ({ ...permission, namespace })),
  );
  const lists = await pMap(each, (permission) => refused(api, permission), { concurrency: REQUESTS_AT_ONCE });
  return { forbidden: lists.flat(), readsEverySecret };
}

/** Checks the permission that the renewal of a bound token needs. */
async function refusedOfRenewal(api: KubernetesApi, { identity }: UsableAccess): Promise<string[]> {
  const token = 'token' in identity ? readToken(identity.token) : undefined;
  if (token === undefined || 'reason' in token) return [];
  const { namespace, serviceAccount: name } = token;
  return refused(api, { verb: 'create', resource: 'serviceaccounts', subresource: 'token', namespace, name });
}

async function refused(api: KubernetesApi, permission: Permission): Promise<string[]> {
  if (await api.isAllowed(permission)) return [];
  const { verb, resource, subresource, namespace, name } = permission;
  const what = [verb, [resource, subresource].filter(Boolean).join('/'), ...(name ? [name] : [])].join(' ');
  return [namespace === undefined ? what : `${what} in ${namespace}`];
}

function truncate(text: string): string {
  return text.slice(0, MAX_LENGTH);
}

function truncateList(texts: readonly string[]): string[] {
  const more = texts.length - MAX_ITEMS;
  return [...texts.slice(0, MAX_ITEMS).map(truncate), ...(more > 0 ? [`and ${more} more`] : [])];
}
