// Replaces the version of a registered secret that was read, and no other: meanwhile the operator may register the
// cluster again, or another run may renew the same token.

import { createHash } from 'node:crypto';
import {
  GetSecretValueCommand,
  PutSecretValueCommand,
  ResourceExistsException,
  type SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { prefixOf } from './cluster-secrets.ts';

/**
 * The staging label of the next version. With a label of its own, PutSecretValue does not move AWSCURRENT, and moves this
 * label from the version that had it (Secrets Manager API reference, PutSecretValue, VersionStages).
 */
const NEXT = 'ecr-anywhere-next';
const CURRENT = 'AWSCURRENT';

/**
 * - `stored`: this text is now current
 * - `other`: the text that another run stored for the same version is now current
 * - `superseded`: the version that was read was no longer current; the version that replaced it stays
 */
export type Replacement = 'stored' | 'other' | 'superseded';

/**
 * Replaces a version of a registered secret if it is still the current one. After a failure at any point, the current
 * version is the one that was read, its successor, or one that the operator registered.
 *
 * A version has at most one successor, whose id is derived from the version's own. So runs at the same time agree on the
 * successor, a run continues where an earlier one ended between the two calls, and attempts that fail for days add no
 * further versions. A secret has a quota of versions, and the operator needs one to register the cluster again.
 *
 * @throws Error of the AWS SDK: the version that was read is probably still current
 */
export async function replaceVersion(
  client: SecretsManagerClient,
  { name, versionId }: { readonly name: string; readonly versionId: string },
  text: string,
  signal: AbortSignal,
): Promise<Replacement> {
  const SecretId = `${prefixOf(client)}${name}`;
  // Becomes the version's id: 32 to 64 characters (API reference, PutSecretValue, ClientRequestToken).
  const next = createHash('sha256').update(`${NEXT} ${versionId}`).digest('hex');
  const put = { SecretId, SecretString: text, ClientRequestToken: next, VersionStages: [NEXT] };
  let successor: Replacement = 'stored';
  try {
    await client.send(new PutSecretValueCommand(put), { abortSignal: signal });
  } catch (error) {
    // It exists with another text (API reference, PutSecretValue, "idempotent"), whose token was tested like this one.
    if (!(error instanceof ResourceExistsException)) throw error;
    successor = 'other';
  }
  // Fails if the label is on another version than RemoveFromVersionId (API reference, UpdateSecretVersionStage).
  const move = {
    SecretId,
    VersionStage: CURRENT,
    RemoveFromVersionId: versionId,
    MoveToVersionId: next,
  };
  try {
    await client.send(new UpdateSecretVersionStageCommand(move), { abortSignal: signal });
    return successor;
  } catch (error) {
    // Another run was faster, or the response was lost and the SDK's retry found the label moved.
    const { VersionId } = await client
      .send(new GetSecretValueCommand({ SecretId }), { abortSignal: signal })
      .catch(() => ({ VersionId: versionId }));
    if (VersionId === versionId) throw error;
    return VersionId === next ? successor : 'superseded';
  }
}
