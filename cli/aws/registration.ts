// Registered secrets, as the operator changes them: create, replace, tag, delete, and roll back. Never reads a secret.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  CreateSecretCommand,
  DeleteSecretCommand,
  DescribeSecretCommand,
  PutSecretValueCommand,
  TagResourceCommand,
  UntagResourceCommand,
  UpdateSecretVersionStageCommand,
} from '@aws-sdk/client-secrets-manager';
import { CLUSTERS_PREFIX, TAG } from '../../contract/names.ts';
import type { ClusterStatus } from '../../contract/refresher-api.ts';
import { CliError } from '../output/errors.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import type { Aws } from './aws.ts';
import type { Rollback } from './rollback.ts';

const CURRENT = 'AWSCURRENT';
const PREVIOUS = 'AWSPREVIOUS';
/** Secrets Manager reserves the name of a secret for a short time after it was deleted without recovery. */
const NAME_RESERVED_MS = 30_000;
const NAME_RETRY_MS = 2_000;
const SECRET_NAME = /^[\w/+=.@-]+$/;

export interface Registration {
  readonly name: string;
  readonly kubeconfig: string;
  readonly clusterUid: string;
}

/** Checks the characters and length of a name (Secrets Manager API reference, CreateSecret, Name). @throws CliError */
export function checkName(name: string): void {
  if (!SECRET_NAME.test(name) || CLUSTERS_PREFIX.length + name.length > 512)
    throw new CliError(
      'usage',
      `"${name}" is not a valid cluster name.`,
      'Use letters, digits and the characters /_+=.@- only.',
    );
}

/** Registers a cluster. @throws CliError if the name is registered or reserved */
export async function createRegistration(
  aws: Aws,
  { name, kubeconfig, clusterUid }: Registration,
  rollback: Rollback,
): Promise<void> {
  const id = secretId(name);
  const commands = new ShellCommands(aws.options, {});
  // Secrets Manager uses the request token as the version's id, so the id identifies this command's version.
  let versionId: string = randomUUID();
  const change = rollback.add({
    async revert(operator) {
      const { versions } = await describe(operator, id);
      if (versions.has(versionId)) await deleteRegistration(operator, name);
    },
    manualCommand: () => commands.cli(['unregister', name, '--keep-token']),
  });
  const client = aws.secrets();
  const deadline = Date.now() + NAME_RESERVED_MS;
  await aws.change(`registering ${name}`, async (abortSignal) => {
    for (;;) {
      try {
        const command = new CreateSecretCommand({
          Name: id,
          ClientRequestToken: versionId,
          SecretString: kubeconfig,
          Description: 'ECR Anywhere: a registered cluster',
          Tags: [{ Key: TAG.clusterUid, Value: clusterUid }],
        });
        const created = await change.send(() => client.send(command, { abortSignal }));
        versionId = created.VersionId ?? versionId;
        return;
      } catch (error) {
        const { name: type, message } = error as Error;
        if (!/scheduled for deletion|currently marked deleted/i.test(message))
          throw type === 'ResourceExistsException' ? alreadyRegistered(name, commands, error) : error;
        if (Date.now() >= deadline)
          throw new CliError(
            'name-unavailable',
            `The registration ${name} was deleted, but it can still be restored, so Secrets Manager reserves its name.`,
            `Use another name, or restore it: ${commands.aws(['secretsmanager', 'restore-secret', '--secret-id', id])}`,
            error,
          );
        await sleep(NAME_RETRY_MS, undefined, { signal: aws.signal });
      }
    }
  });
}

/** Replaces the kubeconfig of a registered cluster. @throws CliError */
export async function replaceRegistration(
  aws: Aws,
  { name, kubeconfig, clusterUid }: Registration,
  rollback: Rollback,
): Promise<void> {
  const id = secretId(name);
  let versionId: string = randomUUID();
  const before = await describe(aws, id);
  const change = rollback.add({
    revert: (operator) => restoreVersion(operator, id, versionId, before),
    manualCommand: () =>
      new ShellCommands(aws.options, {}).aws([
        ...['secretsmanager', 'update-secret-version-stage', '--secret-id', id, '--version-stage', CURRENT],
        ...['--remove-from-version-id', versionId, '--move-to-version-id', before.current ?? ''],
      ]),
  });
  const client = aws.secrets();
  await aws.change(`registering ${name}`, async (abortSignal) => {
    const command = new PutSecretValueCommand({
      SecretId: id,
      SecretString: kubeconfig,
      ClientRequestToken: versionId,
    });
    const put = await change.send(() => client.send(command, { abortSignal }));
    versionId = put.VersionId ?? versionId;
  });
  if (before.tags.get(TAG.clusterUid) !== clusterUid) await tag(aws, id, TAG.clusterUid, clusterUid);
}

/** Makes the earlier version current again and removes all labels from `version`, so that Secrets Manager deletes it. */
async function restoreVersion(operator: Aws, id: string, version: string, before: Described): Promise<void> {
  const now = await describe(operator, id);
  // Another operator has replaced the registration in the meantime: theirs stays.
  if (now.current !== undefined && now.current !== version && now.current !== before.current) return;
  const move = (VersionStage: string, MoveToVersionId: string | undefined) => {
    const command = new UpdateSecretVersionStageCommand({
      SecretId: id,
      VersionStage,
      RemoveFromVersionId: version,
      ...(MoveToVersionId !== undefined && { MoveToVersionId }),
    });
    return operator.change('restoring the earlier registration', (abortSignal) =>
      operator.secrets().send(command, { abortSignal }),
    );
  };
  if (now.current === version && before.current !== undefined) await move(CURRENT, before.current);
  // Secrets Manager moves AWSPREVIOUS to the version that was current, and may have deleted the one that had the label.
  const after = await describe(operator, id);
  if (after.previous === version)
    await move(PREVIOUS, after.versions.has(before.previous ?? '') ? before.previous : undefined);
  if (now.tags.has(TAG.clusterUid) && !before.tags.has(TAG.clusterUid))
    await untag(operator, id, TAG.clusterUid);
}

/** Deletes a registration without recovery: its token is revoked, or belongs to another system. */
export async function deleteRegistration(aws: Aws, name: string): Promise<void> {
  const command = new DeleteSecretCommand({ SecretId: secretId(name), ForceDeleteWithoutRecovery: true });
  await aws.change(`deleting the registration of ${name}`, (abortSignal) =>
    aws.secrets().send(command, { abortSignal }),
  );
}

/** Pauses a registered cluster, or resumes it. */
export async function tagPaused(aws: Aws, name: string, isPaused: boolean): Promise<void> {
  if (isPaused) await tag(aws, secretId(name), TAG.paused, 'true');
  else await untag(aws, secretId(name), TAG.paused);
}

export function alreadyRegistered(name: string, commands: ShellCommands, cause?: unknown): CliError {
  return new CliError(
    'already-registered',
    `The name ${name} is already registered.`,
    `To replace its credential, add --replace. To check the cluster: ${commands.cli(['doctor', name], true)}`,
    cause,
  );
}

async function tag(aws: Aws, id: string, Key: string, Value: string): Promise<void> {
  const command = new TagResourceCommand({ SecretId: id, Tags: [{ Key, Value }] });
  await aws.change(`tagging ${id}`, (abortSignal) => aws.secrets().send(command, { abortSignal }));
}

async function untag(aws: Aws, id: string, key: string): Promise<void> {
  const command = new UntagResourceCommand({ SecretId: id, TagKeys: [key] });
  await aws.change(`untagging ${id}`, (abortSignal) => aws.secrets().send(command, { abortSignal }));
}

/**
 * The clusters with the registration of one name as it is now. The function's answer has those of ListSecrets, which may lag
 * by five minutes (Secrets Manager API reference). Without the permission to describe the secret, it stays as listed.
 */
export async function withCurrent(
  aws: Aws,
  name: string,
  listed: readonly ClusterStatus[],
): Promise<readonly ClusterStatus[]> {
  if (!SECRET_NAME.test(name)) return listed;
  const described = await describe(aws, secretId(name)).catch((error: unknown) => {
    if (error instanceof CliError) return undefined;
    throw error;
  });
  if (!described) return listed;
  const others = listed.filter((one) => one.name !== name || one.source !== 'registered');
  if (!described.exists) return others;
  const clusterUid = described.tags.get(TAG.clusterUid);
  const { clusterUid: _, ...known } = listed.find((one) => one.name === name) ?? {};
  const current: ClusterStatus = {
    ...known,
    name,
    source: 'registered',
    isPaused: described.tags.get(TAG.paused) === 'true',
    ...(clusterUid && { clusterUid }),
  };
  return [...others, current];
}

interface Described {
  /** There is such a secret, and it is not scheduled for deletion. */
  readonly exists: boolean;
  /** Ids of all versions. */
  readonly versions: ReadonlySet<string>;
  /** Id of the version with the label AWSCURRENT. */
  readonly current: string | undefined;
  /** Id of the version with the label AWSPREVIOUS. */
  readonly previous: string | undefined;
  readonly tags: ReadonlyMap<string, string>;
}

/** The versions and tags of a secret; empty if there is no such secret. */
async function describe(aws: Aws, id: string): Promise<Described> {
  const {
    ARN,
    DeletedDate,
    VersionIdsToStages = {},
    Tags = [],
  } = await aws.ask(`describing ${id}`, (abortSignal) =>
    aws
      .secrets()
      .send(new DescribeSecretCommand({ SecretId: id }), { abortSignal })
      .catch((error: Error) => {
        if (error.name === 'ResourceNotFoundException')
          return { ARN: undefined, DeletedDate: undefined, VersionIdsToStages: {}, Tags: [] };
        throw error;
      }),
  );
  const versions = Object.entries(VersionIdsToStages);
  const labelled = (label: string) => versions.find(([, stages]) => stages.includes(label))?.[0];
  return {
    exists: ARN !== undefined && DeletedDate === undefined,
    versions: new Set(versions.map(([version]) => version)),
    current: labelled(CURRENT),
    previous: labelled(PREVIOUS),
    tags: new Map(Tags.map(({ Key = '', Value = '' }) => [Key, Value])),
  };
}

function secretId(name: string): string {
  return `${CLUSTERS_PREFIX}${name}`;
}
