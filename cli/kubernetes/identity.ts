// Who a credential is to an API server, whether the fence holds it, and what it can read there.
import pMap from 'p-map';
import { z } from 'zod';
import { REFRESHER_GROUP } from '../../contract/names.ts';
import type { Kubernetes } from './client.ts';

export interface Identity {
  readonly username: string;
  readonly groups: readonly string[];
}

const SelfSubjectReview = z.object({
  status: z.object({
    userInfo: z.object({ username: z.string(), groups: z.array(z.string()).optional() }),
  }),
});
/** Above all authorization: who is in it may take policies away (Kubernetes, "Using RBAC Authorization"). */
const MASTERS = 'system:masters';
const AccessReview = z.object({ status: z.object({ allowed: z.boolean() }) });
const Named = z.object({ metadata: z.object({ name: z.string() }) });

/** Namespaces are asked for one by one where not all are open: so many at the same time. */
const ASKED_AT_ONCE = 8;

/** Who the API server takes it for (SelfSubjectReview, Kubernetes 1.28 and later). @throws CliError */
export async function whoIs(kubernetes: Kubernetes): Promise<Identity> {
  const { body } = await kubernetes.post('/apis/authentication.k8s.io/v1/selfsubjectreviews', {
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
  });
  const { username, groups = [] } = SelfSubjectReview.parse(body).status.userInfo;
  return { username, groups };
}

/**
 * Whether the fence's policies and the webhook hold this identity to its job: the release's refresher, or a member of the
 * group, and nobody who may take the fence away.
 */
export function isFenced({ username, groups }: Identity, refresher: string | undefined): boolean {
  return (username === refresher || groups.includes(REFRESHER_GROUP)) && !groups.includes(MASTERS);
}

/** What a credential can read, for whoever is about to hand it out. */
export interface Reach {
  /** The namespaces whose Secrets it can read; `*` is every one. */
  readonly secrets: readonly string[];
  /** How many namespaces there are. */
  readonly namespaces: number;
}

/** RBAC's verbs whose answers have a whole Secret in them. */
const READING = ['list', 'get', 'watch', 'patch', 'update'];

/** What an identity can read, by the API server's own word (SubjectAccessReview, as the operator). @throws CliError */
export async function reachOf(kubernetes: Kubernetes, identity: Identity): Promise<Reach> {
  const mayReadSecrets = async (namespace?: string) => {
    for (const verb of READING)
      if (await may(kubernetes, identity, { resource: 'secrets', verb, ...(namespace && { namespace }) }))
        return true;
    return false;
  };
  const [readsAll, items] = await Promise.all([
    mayReadSecrets(),
    kubernetes.list('/api/v1/namespaces', { metadataOnly: 'PartialObjectMetadataList' }),
  ]);
  const names = items.map((item) => Named.parse(item).metadata.name);
  if (readsAll) return { secrets: ['*'], namespaces: names.length };
  const readable = await pMap(names, async (name) => ((await mayReadSecrets(name)) ? [name] : []), {
    concurrency: ASKED_AT_ONCE,
  });
  return { secrets: readable.flat(), namespaces: names.length };
}

/** What of the fence somebody could take away, by the kinds of its objects (plural) and their names. */
export type Fence = Readonly<Record<string, readonly string[]>>;

const ADMISSION = 'admissionregistration.k8s.io';
const RBAC = 'rbac.authorization.k8s.io';

interface Power {
  readonly verb: string;
  readonly resource: string;
  readonly group?: string;
  readonly subresource?: string;
  /** A role may be for this one alone. */
  readonly name?: string;
}

/** Rights that lead to an identity which no fence holds (Kubernetes, "RBAC Good Practices", privilege escalation). */
const ESCALATIONS: readonly Power[] = [
  ...['bind', 'escalate'].map((verb) => ({
    ...{ verb, group: RBAC, resource: 'clusterroles', name: 'cluster-admin' },
  })),
  ...['create', 'update', 'patch'].map((verb) => ({ verb, group: RBAC, resource: 'clusterrolebindings' })),
  ...['users', 'serviceaccounts'].map((resource) => ({ verb: 'impersonate', resource })),
  { verb: 'impersonate', resource: 'groups', name: MASTERS },
  { verb: 'create', resource: 'serviceaccounts', subresource: 'token' },
  { verb: 'create', resource: 'pods' },
];

/**
 * By which rights an identity gets out of the fence or takes it away, by the API server's own word (SubjectAccessReview,
 * as the operator). Phrases, such as `impersonate users`; none where the fence holds it.
 *
 * @throws CliError
 */
export async function powersOf(
  kubernetes: Kubernetes,
  identity: Identity,
  fence: Fence,
): Promise<readonly string[]> {
  if (await may(kubernetes, identity, { group: '*', resource: '*', verb: '*' })) return ['do anything'];
  // By the name, too: a role may be for these very objects.
  const ofFence = Object.entries(fence).flatMap(([resource, names]) => [
    ...['delete', 'patch', 'update'].flatMap((verb) =>
      names.map((name) => ({ verb, group: ADMISSION, resource, name })),
    ),
    { verb: 'deletecollection', group: ADMISSION, resource },
  ]);
  const powers = await pMap(
    [...ofFence, ...ESCALATIONS],
    async (power) => ((await may(kubernetes, identity, { ...power })) ? [inWords(power)] : []),
    { concurrency: ASKED_AT_ONCE },
  );
  return [...new Set(powers.flat())];
}

function inWords({ verb, resource, subresource }: Power): string {
  return `${verb} ${subresource === undefined ? resource : `${resource}/${subresource}`}`;
}

async function may(
  kubernetes: Kubernetes,
  { username, groups }: Identity,
  resourceAttributes: Readonly<Record<string, string>>,
): Promise<boolean> {
  const { body } = await kubernetes.post('/apis/authorization.k8s.io/v1/subjectaccessreviews', {
    body: {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SubjectAccessReview',
      spec: { user: username, groups, resourceAttributes },
    },
  });
  return AccessReview.parse(body).status.allowed;
}

/** A reach in a sentence. */
export function formatReach({ secrets, namespaces }: Reach): string {
  if (secrets.includes('*'))
    return `It can read every Secret of every namespace (${namespaces}). Narrow that with the chart's value refresher.namespaces.`;
  if (secrets.length === 0) return 'It can read the Secrets of no namespace.';
  return `It can read the Secrets of ${secrets.join(', ')}, and of no other namespace.`;
}
