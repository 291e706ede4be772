// Registered secrets, as the operator writes them: made, given another version, tagged, deleted, and put back as they
// were. None is ever read.
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  PutSecretValueCommand,
  type SecretsManagerClient,
  TagResourceCommand,
  UntagResourceCommand,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { TAG } from '../contract/names.ts';
import { CLUSTERS_PREFIX } from '../functions/refresher/settings.ts';
import type { Aws } from './aws.ts';
import { CliError, EXIT } from './errors.ts';
import { Repairs } from './repairs.ts';

const CURRENT = 'AWSCURRENT';
const PREVIOUS = 'AWSPREVIOUS';
/** A secret that was deleted for good a moment ago holds its name a little longer. */
const NAME_FREE_WITHIN_MS = 30_000;
const NAME_FREE_EVERY_MS = 2_000;

/** What takes back something that was done. */
export interface Undo {
  /** As far as it was done; idempotent. @param aws of somebody who waits for it. @throws CliError */
  run(aws: Aws): Promise<void>;
  /** The command for it, where that fails. */
  readonly byHand: string;
}

/** What a registered secret may be called (Secrets Manager API reference, CreateSecret, Name). */
export function checkName(name: string): void {
  if (!/^[\w/+=.@-]+$/.test(name) || CLUSTERS_PREFIX.length + name.length > 512)
    throw new CliError(
      EXIT.usage,
      `"${name}" is no name for a cluster`,
      'letters, digits and any of /_+=.@-',
    );
}

/**
 * Registers a cluster.
 *
 * @param onAttempt is given what undoes it, before anything is done: who knows whether an answer that is lost was a yes
 * @throws CliError where the name is taken
 */
export async function createRegistration(
  aws: Aws,
  name: string,
  kubeconfig: string,
  clusterUid: string,
  onAttempt: (undo: Undo) => void,
): Promise<void> {
  const id = secretId(name);
  // Becomes the version's id (Secrets Manager API reference, CreateSecret), by which ours is told from somebody else's.
  let version: string = randomUUID();
  const create = new CreateSecretCommand({
    Name: id,
    ClientRequestToken: version,
    SecretString: kubeconfig,
    Description: 'ECR Anywhere: a registered cluster',
    Tags: [{ Key: TAG.clusterUid, Value: clusterUid }],
  });
  let isRefused = false;
  onAttempt({
    byHand: new Repairs(aws.options, {}).own(['unregister', name, '--keep-token']),
    async run(operator) {
      if (isRefused) return;
      const { versions } = await describe(operator, id);
      if (versions.has(version)) await deleteRegistration(operator, name);
    },
  });
  const client = aws.secrets();
  const until = Date.now() + NAME_FREE_WITHIN_MS;
  await aws.change(`registering ${name}`, async (abortSignal) => {
    for (;;) {
      try {
        const { VersionId = version } = await client.send(create, { abortSignal });
        version = VersionId;
        isRefused = false;
        return;
      } catch (error) {
        isRefused = wasRefused(error);
        const { name: type, message } = error as Error;
        const isBeingDeleted = /scheduled for deletion|currently marked deleted/i.test(message);
        if (isBeingDeleted && Date.now() < until) {
          await sleep(NAME_FREE_EVERY_MS, undefined, { signal: aws.signal });
          continue;
        }
        if (isBeingDeleted)
          throw new CliError(
            EXIT.conflict,
            `${name} was deleted and can be recovered still, so its name is taken`,
            `aws secretsmanager restore-secret --secret-id ${id}, or take another name`,
            error,
          );
        if (type === 'ResourceExistsException') throw alreadyRegistered(name, error);
        throw error;
      }
    }
  });
}

/** Gives a registered cluster another kubeconfig. @param onAttempt as above */
export async function replaceRegistration(
  aws: Aws,
  name: string,
  kubeconfig: string,
  clusterUid: string,
  onAttempt: (undo: Undo) => void,
): Promise<void> {
  const id = secretId(name);
  let version: string = randomUUID();
  const before = await describe(aws, id);
  const client = aws.secrets();
  let isRefused = false;
  onAttempt({
    get byHand() {
      return new Repairs(aws.options, {}).aws([
        ...['secretsmanager', 'update-secret-version-stage', '--secret-id', id, '--version-stage', CURRENT],
        ...['--remove-from-version-id', version, '--move-to-version-id', before.current ?? ''],
      ]);
    },
    async run(operator) {
      if (!isRefused) await putBack(operator, id, version, before);
    },
  });
  const put = { SecretId: id, SecretString: kubeconfig, ClientRequestToken: version };
  await aws.change(`registering ${name}`, async (abortSignal) => {
    const { VersionId = version } = await client
      .send(new PutSecretValueCommand(put), { abortSignal })
      .catch((error: unknown) => {
        isRefused = wasRefused(error);
        throw error;
      });
    version = VersionId;
  });
  if (before.tags.get(TAG.clusterUid) !== clusterUid) await tag(aws, client, id, TAG.clusterUid, clusterUid);
}

/** Whether AWS has said no, and so has done nothing: there is nothing to take back, and perhaps no right to. */
export function wasRefused(error: unknown): boolean {
  const { httpStatusCode = 0 } = (error as { $metadata?: { httpStatusCode?: number } }).$metadata ?? {};
  return httpStatusCode >= 400 && httpStatusCode < 500;
}

/** Makes the version current again that was before, and leaves the one that was put without a label: AWS drops it then. */
async function putBack(operator: Aws, id: string, version: string, before: Described): Promise<void> {
  const now = await describe(operator, id);
  // Nobody's business any more, if somebody else has registered the cluster meanwhile.
  if (now.current !== undefined && now.current !== version && now.current !== before.current) return;
  const move = (VersionStage: string, MoveToVersionId: string | undefined) => {
    const command = new UpdateSecretVersionStageCommand({
      ...{ SecretId: id, VersionStage, RemoveFromVersionId: version },
      ...(MoveToVersionId !== undefined && { MoveToVersionId }),
    });
    return operator.change('putting the registration back', (abortSignal) =>
      operator.secrets().send(command, { abortSignal }),
    );
  };
  if (now.current === version && before.current !== undefined) await move(CURRENT, before.current);
  // Secrets Manager gives this label to whatever has been current, and may have dropped the version that had it before.
  const after = await describe(operator, id);
  if (after.previous === version)
    await move(PREVIOUS, after.versions.has(before.previous ?? '') ? before.previous : undefined);
  if (now.tags.has(TAG.clusterUid) && !before.tags.has(TAG.clusterUid))
    await untag(operator, id, TAG.clusterUid);
}

/** Forgets a cluster, at once and for good: its token is dead, or somebody else's. */
export async function deleteRegistration(aws: Aws, name: string): Promise<void> {
  const command = new DeleteSecretCommand({ SecretId: secretId(name), ForceDeleteWithoutRecovery: true });
  await aws.change(`deleting the registration of ${name}`, (abortSignal) =>
    aws.secrets().send(command, { abortSignal }),
  );
}

/** Pauses a registered cluster, or resumes it. */
export async function tagPaused(aws: Aws, name: string, isPaused: boolean): Promise<void> {
  const client = aws.secrets();
  if (isPaused) return tag(aws, client, secretId(name), TAG.paused, 'true');
  await untag(aws, secretId(name), TAG.paused);
}

export function alreadyRegistered(name: string, cause?: unknown): CliError {
  return new CliError(
    EXIT.conflict,
    `${name} is registered already`,
    `--replace gives it another credential; ecr-anywhere doctor ${name} says how it is`,
    cause,
  );
}

async function tag(
  aws: Aws,
  client: SecretsManagerClient,
  id: string,
  Key: string,
  Value: string,
): Promise<void> {
  const command = new TagResourceCommand({ SecretId: id, Tags: [{ Key, Value }] });
  await aws.change(`tagging ${id}`, (abortSignal) => client.send(command, { abortSignal }));
}

async function untag(aws: Aws, id: string, key: string): Promise<void> {
  const command = new UntagResourceCommand({ SecretId: id, TagKeys: [key] });
  await aws.change(`untagging ${id}`, (abortSignal) => aws.secrets().send(command, { abortSignal }));
}

interface Described {
  readonly versions: ReadonlySet<string>;
  /** Ids of the versions with these labels. */
  readonly current: string | undefined;
  readonly previous: string | undefined;
  readonly tags: ReadonlyMap<string, string>;
}

/** The versions and tags of a secret; none where there is no secret. */
async function describe(aws: Aws, id: string): Promise<Described> {
  const { VersionIdsToStages = {}, Tags = [] } = await aws.ask(`looking at ${id}`, (abortSignal) =>
    aws
      .secrets()
      .send(new DescribeSecretCommand({ SecretId: id }), { abortSignal })
      .catch((error: Error) => {
        if (error.name === 'ResourceNotFoundException') return { VersionIdsToStages: {}, Tags: [] };
        throw error;
      }),
  );
  const versions = Object.entries(VersionIdsToStages);
  const labelled = (label: string) => versions.find(([, stages]) => stages.includes(label))?.[0];
  return {
    versions: new Set(versions.map(([version]) => version)),
    current: labelled(CURRENT),
    previous: labelled(PREVIOUS),
    tags: new Map(Tags.map(({ Key = '', Value = '' }) => [Key, Value])),
  };
}

function secretId(name: string): string {
  return `${CLUSTERS_PREFIX}${name}`;
}
