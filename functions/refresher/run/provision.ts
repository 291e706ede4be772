// Creates the managed Secret in enabled namespaces that lack it, if the cluster's RBAC allows the refresher one Secret name. The
// webhook writes the credentials in the same request. Nothing else configures the name (docs/decisions/provisioning.md).
import { freshness } from '../../../contract/freshness.ts';
import { ANNOTATION } from '../../../contract/names.ts';
import { type KubernetesApi, KubernetesError } from '../kubernetes/client.ts';
import { notMutated, type RequestResult, refused } from './request-result.ts';

export type ProvisionApi = Pick<
  KubernetesApi,
  'creatableSecret' | 'hasSecret' | 'managedSecrets' | 'createManagedSecret'
>;

/** The name of the Secret that each enabled namespace gets; undefined if the refresher creates none. */
export interface Provisioning {
  readonly secretName?: string | undefined;
  /** Why the API server did not say which name it is. */
  readonly unknown?: string;
}

/**
 * Reads from RBAC which Secret to create. A failure must not fail a cluster that has none to create, so it is not thrown.
 *
 * @param namespace one in which the refresher may list Secrets: there it has all its permissions. Undefined: there is none
 */
export async function provisioningOf(
  api: ProvisionApi,
  namespace: string | undefined,
): Promise<Provisioning> {
  if (namespace === undefined) return {};
  try {
    return { secretName: await api.creatableSecret(namespace) };
  } catch (error) {
    // Where the review itself is forbidden, the chart has not allowed the refresher to create Secrets: it allows both together.
    if (error instanceof KubernetesError && (error.status === 403 || error.status === 404)) return {};
    return { unknown: error instanceof Error ? error.message : String(error) };
  }
}

/**
 * Creates the Secret in one namespace, if none of that name exists. Never rejects.
 *
 * @param now milliseconds since the epoch
 */
export async function provision(
  api: ProvisionApi,
  namespace: string,
  name: string,
  dryRun: boolean,
  now: number,
): Promise<RequestResult> {
  try {
    // First, because the webhook and the write policy would refuse the request, and count it as an attack.
    const secret = (await api.hasSecret(namespace, name))
      ? // Another run may have created it since this one listed the namespace.
        (await api.managedSecrets(namespace)).find((one) => one.name === name)
      : await api.createManagedSecret(namespace, name, dryRun);
    if (secret === undefined) return taken(name);
    const expiresAt = secret.annotations[ANNOTATION.expiresAt];
    if (expiresAt === undefined) return notMutated();
    if (!freshness(expiresAt, now).due) return { outcome: 'provisioned', expiresAt };
    return { outcome: 'partial', expiresAt, reason: 'the new credentials are due again already' };
  } catch (error) {
    const result = refused(error);
    if (!(error instanceof KubernetesError)) return result;
    if (error.detail === 'namespace-terminating') return { outcome: 'gone' };
    // Kubernetes requires the data that the webhook would have written.
    if (error.detail === 'data-missing') return notMutated();
    if (error.detail === 'quota-exceeded') return { ...result, outcome: 'not-provisioned' };
    const isNotEntitled = error.causes.some(({ reason }) => reason === 'not-entitled');
    return isNotEntitled ? { ...result, outcome: 'not-provisioned' } : result;
  }
}

function taken(name: string): RequestResult {
  return {
    outcome: 'not-provisioned',
    code: 'secret-name-taken',
    reason: `a Secret ${name} exists that is not managed: delete it, or give it the type and the label of a managed Secret`,
  };
}
