// Who a credential is to an API server, whether the fence holds it, and what it can read there.
import pMap from 'p-map';
import { z } from 'zod';
import { REFRESHER_GROUP } from '../contract/names.ts';
import type { Kubernetes } from './kubernetes.ts';

export interface Identity {
  readonly username: string;
  readonly groups: readonly string[];
}

const SelfSubjectReview = z.object({
  status: z.object({
    userInfo: z.object({ username: z.string(), groups: z.array(z.string()).optional() }),
  }),
});
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
 * group, and nobody who is above all policies.
 */
export function isFenced({ username, groups }: Identity, refresher: string | undefined): boolean {
  return username === refresher || groups.includes(REFRESHER_GROUP);
}

/** What a credential can read, for whoever is about to hand it out. */
export interface Reach {
  /** Of `secrets`, the namespaces whose Secrets it can list or get; `*` is every one. */
  readonly secrets: readonly string[];
  /** How many namespaces there are. */
  readonly namespaces: number;
  /** It can do anything at all. */
  readonly isAdministrator: boolean;
}

/** What an identity can read, by the API server's own word (SubjectAccessReview, as the operator). @throws CliError */
export async function reachOf(kubernetes: Kubernetes, { username, groups }: Identity): Promise<Reach> {
  const may = async (attributes: Readonly<Record<string, string>>) => {
    const { body } = await kubernetes.post('/apis/authorization.k8s.io/v1/subjectaccessreviews', {
      body: {
        apiVersion: 'authorization.k8s.io/v1',
        kind: 'SubjectAccessReview',
        spec: { user: username, groups, resourceAttributes: attributes },
      },
    });
    return AccessReview.parse(body).status.allowed;
  };
  const mayReadSecrets = async (namespace: string) => {
    for (const verb of ['list', 'get', 'watch'])
      if (await may({ resource: 'secrets', verb, ...(namespace && { namespace }) })) return true;
    return false;
  };
  const [isAdministrator, readsAll, items] = await Promise.all([
    may({ group: '*', resource: '*', verb: '*' }),
    mayReadSecrets(''),
    kubernetes.list('/api/v1/namespaces', { metadataOnly: 'PartialObjectMetadataList' }),
  ]);
  const names = items.map((item) => Named.parse(item).metadata.name);
  if (readsAll) return { secrets: ['*'], namespaces: names.length, isAdministrator };
  const readable = await pMap(names, async (name) => ((await mayReadSecrets(name)) ? [name] : []), {
    concurrency: ASKED_AT_ONCE,
  });
  return { secrets: readable.flat(), namespaces: names.length, isAdministrator };
}

/** The same in a sentence. */
export function reachInWords({ secrets, namespaces, isAdministrator }: Reach): string {
  const more = isAdministrator ? ' It can do everything else there, too: it is an administrator.' : '';
  if (secrets.includes('*'))
    return `It can read every Secret of every namespace (${namespaces}). Narrow that with the chart's value refresher.namespaces.${more}`;
  if (secrets.length === 0) return `It can read no Secret of any namespace.${more}`;
  return `It can read the Secrets of ${secrets.join(', ')}, and no others.${more}`;
}
