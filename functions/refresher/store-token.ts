// Puts a new version of a registered secret in the place of the one that was read, and of no other: an operator may
// register the cluster anew, or another run renew the same token, at any moment.
import { randomUUID } from 'node:crypto';
import {
  GetSecretValueCommand,
  PutSecretValueCommand,
  type SecretsManagerClient,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { CLUSTERS_PREFIX } from './settings.ts';

/**
 * The staging label under which a version waits. With a label of its own PutSecretValue leaves AWSCURRENT where it is,
 * and takes the label from the version that had it (Secrets Manager API reference, PutSecretValue, VersionStages): what
 * a run has left that ended between the two calls is forgotten with the next.
 */
const WAITING = 'ecr-anywhere-next';
const CURRENT = 'AWSCURRENT';

/**
 * Replaces a version of a registered secret, if it is still the current one. Whatever fails, and whenever, what is
 * current is one of the two versions, or what somebody else has made current.
 *
 * @returns whether ours is current now
 * @throws Error of the AWS SDK: the version that was read is current still, as far as can be told
 */
export async function replaceVersion(
  client: SecretsManagerClient,
  { name, versionId }: { readonly name: string; readonly versionId: string },
  text: string,
  signal: AbortSignal,
): Promise<boolean> {
  const SecretId = `${CLUSTERS_PREFIX}${name}`;
  const next = randomUUID();
  const put = { SecretId, SecretString: text, ClientRequestToken: next, VersionStages: [WAITING] };
  await client.send(new PutSecretValueCommand(put), { abortSignal: signal });
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
    return true;
  } catch (error) {
    // A race that was lost; or the answer was, and the call that repeated it found the label moved.
    const { VersionId } = await client
      .send(new GetSecretValueCommand({ SecretId }), { abortSignal: signal })
      .catch(() => ({ VersionId: versionId }));
    if (VersionId === versionId) throw error;
    return VersionId === next;
  }
}
