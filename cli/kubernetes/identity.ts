// An identity as the API server sees it, whether the write policy restricts it, and which Secrets it can read.
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
/** The group that bypasses authorization: its members may delete policies (Kubernetes, "Using RBAC Authorization"). */
const MASTERS = 'system:masters';
const AccessReview = z.object({ status: z.object({ allowed: z.boolean() }) });
const NamedObject = z.object({ metadata: z.object({ name: z.string() }) });

/** SubjectAccessReviews that are sent at the same time. */
const CONCURRENCY = 8;

/** Fetches the identity that the API server sees (SelfSubjectReview, Kubernetes 1.28 and later). @throws CliError */
export async function fetchIdentity(kubernetes: Kubernetes): Promise<Identity> {
  const { body } = await kubernetes.post('/apis/authentication.k8s.io/v1/selfsubjectreviews', {
    body: { apiVersion: 'authentication.k8s.io/v1', kind: 'SelfSubjectReview' },
  });
  const { username, groups = [] } = SelfSubjectReview.parse(body).status.userInfo;
  return { username, groups };
}

/**
 * Whether the write policy and the webhook apply to this identity: the release's refresher, or a member of the group, but
 * not a member of `system:masters`, who may delete the policies.
 */
export function isRestricted({ username, groups }: Identity, refresher: string | undefined): boolean {
  return (username === refresher || groups.includes(REFRESHER_GROUP)) && !groups.includes(MASTERS);
}

/** Which Secrets an identity can read, for the operator who registers its credential. */
export interface ReadAccess {
  /** The namespaces whose Secrets it can read. `*` means every namespace. */
  readonly secrets: readonly string[];
  /** Number of namespaces in the cluster. */
  readonly namespaces: number;
}

/** RBAC verbs whose responses contain a whole Secret. */
const READ_VERBS = ['list', 'get', 'watch', 'patch', 'update'];

/** Asks the API server which Secrets an identity can read (SubjectAccessReview, as the operator). @throws CliError */
export async function readableSecrets(kubernetes: Kubernetes, identity: Identity): Promise<ReadAccess> {
  const canReadSecrets = async (namespace?: string) => {
    for (const verb of READ_VERBS)
      if (
        await isAllowed(kubernetes, identity, { resource: 'secrets', verb, ...(namespace && { namespace }) })
      )
        return true;
    return false;
  };
  const [readsAll, items] = await Promise.all([
    canReadSecrets(),
    kubernetes.list('/api/v1/namespaces', { metadataOnly: 'PartialObjectMetadataList' }),
  ]);
  const names = items.map((item) => NamedObject.parse(item).metadata.name);
  if (readsAll) return { secrets: ['*'], namespaces: names.length };
  const readable = await pMap(names, async (name) => ((await canReadSecrets(name)) ? [name] : []), {
    concurrency: CONCURRENCY,
  });
  return { secrets: readable.flat(), namespaces: names.length };
}

/** Names of the objects that enforce the write policy, by the plural of their kind. */
export type PolicyObjects = Readonly<Record<string, readonly string[]>>;

const ADMISSION = 'admissionregistration.k8s.io';
const RBAC = 'rbac.authorization.k8s.io';

interface Right {
  readonly verb: string;
  readonly resource: string;
  readonly group?: string;
  readonly subresource?: string;
  /** A role may grant the right for this object alone. */
  readonly name?: string;
}

/** Rights that lead to an unrestricted identity (Kubernetes, "RBAC Good Practices", privilege escalation). */
const ESCALATIONS: readonly Right[] = [
  ...['bind', 'escalate'].map((verb) => ({
    verb,
    group: RBAC,
    resource: 'clusterroles',
    name: 'cluster-admin',
  })),
  ...['create', 'update', 'patch'].map((verb) => ({ verb, group: RBAC, resource: 'clusterrolebindings' })),
  ...['users', 'serviceaccounts'].map((resource) => ({ verb: 'impersonate', resource })),
  { verb: 'impersonate', resource: 'groups', name: MASTERS },
  { verb: 'create', resource: 'serviceaccounts', subresource: 'token' },
  { verb: 'create', resource: 'pods' },
];

/**
 * Asks the API server for the rights by which an identity can bypass or delete the write policy (SubjectAccessReview, as
 * the operator). Phrases, such as `impersonate users`. Empty if the write policy restricts the identity.
 *
 * @throws CliError
 */
export async function escalationRights(
  kubernetes: Kubernetes,
  identity: Identity,
  policyObjects: PolicyObjects,
): Promise<readonly string[]> {
  if (await isAllowed(kubernetes, identity, { group: '*', resource: '*', verb: '*' })) return ['do anything'];
  // Each name is checked, since a role may grant the right for these objects alone.
  const deletions = Object.entries(policyObjects).flatMap(([resource, names]) => [
    ...['delete', 'patch', 'update'].flatMap((verb) =>
      names.map((name) => ({ verb, group: ADMISSION, resource, name })),
    ),
    { verb: 'deletecollection', group: ADMISSION, resource },
  ]);
  const rights = await pMap(
    [...deletions, ...ESCALATIONS],
    async (right) => ((await isAllowed(kubernetes, identity, { ...right })) ? [formatRight(right)] : []),
    { concurrency: CONCURRENCY },
  );
  return [...new Set(rights.flat())];
}

function formatRight({ verb, resource, subresource }: Right): string {
  return `${verb} ${subresource === undefined ? resource : `${resource}/${subresource}`}`;
}

async function isAllowed(
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

/** The read access as a sentence. */
export function formatReadAccess({ secrets, namespaces }: ReadAccess): string {
  if (secrets.includes('*'))
    return `It can read every Secret of every namespace (${namespaces}). Narrow that with the chart's value refresher.namespaces.`;
  if (secrets.length === 0) return 'It cannot read Secrets.';
  return `It can read Secrets only in these namespaces: ${secrets.join(', ')}.`;
}
