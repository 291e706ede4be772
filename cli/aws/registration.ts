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
import { CLUSTERS_PREFIX, TAG } from '../../contract/names.ts';
import { CliError } from '../output/errors.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import type { Aws } from './aws.ts';
import { Attempt, type Rollback } from './rollback.ts';

const CURRENT = 'AWSCURRENT';
const PREVIOUS = 'AWSPREVIOUS';
/** A secret that was deleted for good a moment ago holds its name a little longer. */
const NAME_FREE_WITHIN_MS = 30_000;
const NAME_FREE_EVERY_MS = 2_000;

/** What is registered. */
export interface Registration {
  readonly name: string;
  readonly kubeconfig: string;
  readonly clusterUid: string;
}

/** What a registered secret may be called (Secrets Manager API reference, CreateSecret, Name). */
export function checkName(name: string): void {
  if (!/^[\w/+=.@-]+$/.test(name) || CLUSTERS_PREFIX.length + name.length > 512)
    throw new CliError('usage', `"${name}" is no name for a cluster`, 'letters, digits and any of /_+=.@-');
}

/** A version of a registered secret, while AWS is given it. */
class Version {
  /** Ours is told by it from somebody else's: the request's token becomes it (Secrets Manager API reference, CreateSecret). */
  id: string = randomUUID();
  readonly attempt = new Attempt();

  /** @param send requests it, with the token */
  async put(send: (token: string) => Promise<{ readonly VersionId?: string | undefined }>): Promise<void> {
    const { VersionId = this.id } = await this.attempt.make(() => send(this.id));
    this.id = VersionId;
  }
}

/** Registers a cluster. @throws CliError where the name is taken */
export async function createRegistration(
  aws: Aws,
  { name, kubeconfig, clusterUid }: Registration,
  begun: Rollback,
): Promise<void> {
  const id = secretId(name);
  const version = new Version();
  const commands = new ShellCommands(aws.options, {});
  begun.note({
    byHand: commands.cli(['unregister', name, '--keep-token']),
    async run(operator) {
      if (!version.attempt.mayBeMade) return;
      const { versions } = await describe(operator, id);
      if (versions.has(version.id)) await deleteRegistration(operator, name);
    },
  });
  const client = aws.secrets();
  const until = Date.now() + NAME_FREE_WITHIN_MS;
  await aws.change(`registering ${name}`, async (abortSignal) => {
    for (;;) {
      try {
        return await version.put((ClientRequestToken) => {
          const create = new CreateSecretCommand({
            ...{ Name: id, ClientRequestToken, SecretString: kubeconfig },
            Description: 'ECR Anywhere: a registered cluster',
            Tags: [{ Key: TAG.clusterUid, Value: clusterUid }],
          });
          return client.send(create, { abortSignal });
        });
      } catch (error) {
        const { name: type, message } = error as Error;
        const isBeingDeleted = /scheduled for deletion|currently marked deleted/i.test(message);
        if (isBeingDeleted && Date.now() < until) {
          await sleep(NAME_FREE_EVERY_MS, undefined, { signal: aws.signal });
          continue;
        }
        if (isBeingDeleted)
          throw new CliError(
            'name-unavailable',
            `${name} was deleted and can be recovered still, so its name is taken`,
            `${commands.aws(['secretsmanager', 'restore-secret', '--secret-id', id])}, or take another name`,
            error,
          );
        if (type === 'ResourceExistsException') throw alreadyRegistered(name, commands, error);
        throw error;
      }
    }
  });
}

/** Gives a registered cluster another kubeconfig. @throws CliError */
export async function replaceRegistration(
  aws: Aws,
  { name, kubeconfig, clusterUid }: Registration,
  begun: Rollback,
): Promise<void> {
  const id = secretId(name);
  const version = new Version();
  const before = await describe(aws, id);
  begun.note({
    get byHand() {
      return new ShellCommands(aws.options, {}).aws([
        ...['secretsmanager', 'update-secret-version-stage', '--secret-id', id, '--version-stage', CURRENT],
        ...['--remove-from-version-id', version.id, '--move-to-version-id', before.current ?? ''],
      ]);
    },
    async run(operator) {
      if (version.attempt.mayBeMade) await putBack(operator, id, version.id, before);
    },
  });
  const client = aws.secrets();
  await aws.change(`registering ${name}`, (abortSignal) =>
    version.put((ClientRequestToken) => {
      const put = new PutSecretValueCommand({ SecretId: id, SecretString: kubeconfig, ClientRequestToken });
      return client.send(put, { abortSignal });
    }),
  );
  if (before.tags.get(TAG.clusterUid) !== clusterUid) await tag(aws, client, id, TAG.clusterUid, clusterUid);
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

export function alreadyRegistered(name: string, commands: ShellCommands, cause?: unknown): CliError {
  return new CliError(
    'already-registered',
    `${name} is registered already`,
    `--replace gives it another credential; ${commands.cli(['doctor', name], true)} says how it is`,
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
