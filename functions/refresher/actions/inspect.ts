// What else can be found out of a cluster, for people who ask why something is not as it should be: which cluster it
// is, who the refresher is there, what it may not do. Each part on its own: what fails is left out, and what is really
// wrong says the cluster's report beside this.

import pMap from 'p-map';
import type { InspectedToken, Inspection } from '../../../contract/refresher-api.ts';
import type { RegisteredAccess } from '../../../lib/kubernetes/kubeconfig.ts';
import { readToken } from '../../../lib/kubernetes/service-account-token.ts';
import type { UsableAccess } from '../kubernetes/client.ts';
import { KubernetesApi, type KubernetesError, type Permission } from '../kubernetes/client.ts';

const REQUESTS_AT_ONCE = 4;
/** Of what a server says of itself, which may be anything, and of what it forbids. */
const MAX_LENGTH = 256;
const MAX_ITEMS = 50;

/**
 * Inspects a cluster. Changes nothing, and never rejects.
 *
 * @param now our clock, in milliseconds since the epoch
 * @param signal ends it; what could not be had by then is left out
 */
export async function inspect(
  access: UsableAccess,
  now: () => number,
  signal: AbortSignal,
): Promise<Inspection> {
  const begun = beginningOf(access);
  // Connections of its own: how long an answer takes is not to depend on what the turn asks at the same time.
  await using api = new KubernetesApi(access, REQUESTS_AT_ONCE, signal);
  const who = await api.whoAmI().catch((error: KubernetesError) => error);
  // What is not there is not asked again and again.
  if (who instanceof Error && who.status === undefined && who.cause !== undefined) return begun;
  // Now that there is a connection, so that making one does not count as part of the way there.
  const version = await api.version(now).catch(() => undefined);
  const [uid, forbidden] = await Promise.all([
    api.uidOfNamespace('kube-system').catch(() => undefined),
    forbiddenBy(api, access).catch(() => undefined),
  ]);
  return {
    ...begun,
    ...(!(who instanceof Error) && { username: cut(who.username), groups: listed(who.groups) }),
    ...(uid !== undefined && { clusterUid: cut(uid) }),
    ...(version && { kubernetesVersion: cut(version.gitVersion) }),
    ...(version?.aheadSeconds !== undefined && { clockSkewSeconds: version.aheadSeconds }),
    ...(forbidden && { forbidden: listed(forbidden) }),
    ...tokenOf(access),
  };
}

/** What is known of a cluster before it is asked anything. */
export function beginningOf(access: RegisteredAccess & Pick<UsableAccess, 'madeFor'>): Inspection {
  return { server: new URL(access.server).origin, identity: access.madeFor ?? kindOf(access.identity) };
}

function kindOf(identity: RegisteredAccess['identity']): Inspection['identity'] {
  if ('eks' in identity) return 'eks';
  if ('keyless' in identity) return 'keyless';
  return 'cert' in identity ? 'certificate' : 'token';
}

/** Nothing of tokens that are made for each turn: whoever made them makes the next. */
function tokenOf({ identity, madeFor }: UsableAccess): { token?: InspectedToken } {
  const token = 'token' in identity && !madeFor ? readToken(identity.token) : undefined;
  if (token === undefined) return {};
  const { expiresAt } = token;
  return {
    token: {
      ...(expiresAt !== undefined && { expiresAt: new Date(expiresAt).toISOString() }),
      ...('reason' in token ? { renewable: false, reason: token.reason } : { renewable: true }),
    },
  };
}

/** What a turn needs and is not allowed. @throws KubernetesError where that cannot be told */
async function forbiddenBy(api: KubernetesApi, access: UsableAccess): Promise<string[]> {
  const [namespaces, secrets, renewal] = await Promise.all([
    refused(api, { verb: 'list', resource: 'namespaces' }),
    refusedOfSecrets(api),
    refusedOfRenewal(api, access),
  ]);
  return [...namespaces, ...secrets, ...renewal];
}

/** In all namespaces at once, as the chart's ClusterRole has it; else in each that a turn would look at. */
async function refusedOfSecrets(api: KubernetesApi): Promise<string[]> {
  const needed = ['list', 'patch'].map((verb) => ({ verb, resource: 'secrets' }));
  const refusals = await Promise.all(needed.map((permission) => refused(api, permission)));
  const narrow = needed.filter((_, index) => refusals[index]?.length);
  if (narrow.length === 0) return [];
  // Where they cannot be listed, that is said, and ends every turn before it comes to Secrets.
  const namespaces = await api.enabledNamespaces().catch(() => []);
  const each = namespaces.flatMap((namespace) => narrow.map((permission) => ({ ...permission, namespace })));
  const lists = await pMap(each, (permission) => refused(api, permission), { concurrency: REQUESTS_AT_ONCE });
  return lists.flat();
}

/** Of a token that could renew itself. */
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

function cut(text: string): string {
  return text.slice(0, MAX_LENGTH);
}

function listed(texts: readonly string[]): string[] {
  const more = texts.length - MAX_ITEMS;
  return [...texts.slice(0, MAX_ITEMS).map(cut), ...(more > 0 ? [`and ${more} more`] : [])];
}
