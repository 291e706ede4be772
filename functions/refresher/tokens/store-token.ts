// Puts a new version of a registered secret in the place of the one that was read, and of no other: an operator may
// register the cluster anew, or another run renew the same token, at any moment.

import { createHash } from 'node:crypto';
import {
  GetSecretValueCommand,
  PutSecretValueCommand,
  ResourceExistsException,
  type SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { CLUSTERS_PREFIX } from '../../../contract/names.ts';

/**
 * The staging label under which a version waits. With a label of its own PutSecretValue leaves AWSCURRENT where it is,
 * and takes the label from the version that had it (Secrets Manager API reference, PutSecretValue, VersionStages).
 */
const WAITING = 'ecr-anywhere-next';
const CURRENT = 'AWSCURRENT';

/** `stored`: this text is current. `other`: one that another run, or one before, has put in the same version's place. */
export type Replaced = 'stored' | 'other' | 'superseded';

/**
 * Replaces a version of a registered secret, if it is still the current one. Whatever fails, and whenever, what is
 * current is one of the two versions, or what somebody else has made current.
 *
 * A version has one successor at most, whose id follows from its own: runs at the same time agree on it, one that ended
 * between the two calls is taken up where it ended, and attempts that fail for days leave no versions behind (a secret
 * has a quota of them, and who registers it anew needs one).
 *
 * @throws Error of the AWS SDK: the version that was read is current still, as far as can be told
 */
export async function replaceVersion(
  client: SecretsManagerClient,
  { name, versionId }: { readonly name: string; readonly versionId: string },
  text: string,
  signal: AbortSignal,
): Promise<Replaced> {
  const SecretId = `${CLUSTERS_PREFIX}${name}`;
  // Becomes the version's id: 32 to 64 characters (API reference, PutSecretValue, ClientRequestToken).
  const next = createHash('sha256').update(`${WAITING} ${versionId}`).digest('hex');
  const put = { SecretId, SecretString: text, ClientRequestToken: next, VersionStages: [WAITING] };
  let successor: Replaced = 'stored';
  try {
    await client.send(new PutSecretValueCommand(put), { abortSignal: signal });
  } catch (error) {
    // It is there, with another text (API reference, PutSecretValue, "idempotent"): that was tried as well as this.
    if (!(error instanceof ResourceExistsException)) throw error;
    successor = 'other';
  }
  // Fails where the label is on another version than the one it is to be removed from (API reference,
  // UpdateSecretVersionStage, RemoveFromVersionId).
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
    // A race that was lost; or the answer was, and the call that repeated it found the label moved.
    const { VersionId } = await client
      .send(new GetSecretValueCommand({ SecretId }), { abortSignal: signal })
      .catch(() => ({ VersionId: versionId }));
    if (VersionId === versionId) throw error;
    return VersionId === next ? successor : 'superseded';
  }
}
