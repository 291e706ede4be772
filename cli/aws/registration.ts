// Registered secrets, as the operator changes them: create, replace, tag and delete. Never reads a secret.

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
  type UpdateSecretVersionStageCommandInput,
} from '@aws-sdk/client-secrets-manager';
import { REGISTERING_STAGE, TAG } from '../../contract/names.ts';
import type { ClusterStatus } from '../../contract/refresher-api.ts';
import { CliError } from '../output/errors.ts';
import { ShellCommands } from '../output/shell-commands.ts';
import type { Aws, Stack } from './aws.ts';
import { isMissing, untilVisible } from './until-visible.ts';

const CURRENT = 'AWSCURRENT';
/** Secrets Manager reserves the name of a secret for a short time after it was deleted without recovery. */
const NAME_RESERVED_MS = 30_000;
const NAME_RETRY_MS = 2_000;
const SECRET_NAME = /^[\w/+=.@-]+$/;

/** The most characters of a secret's name (Secrets Manager API reference, CreateSecret, Name). */
const MAX_SECRET_NAME_LENGTH = 512;

/** Checks the characters of a name (Secrets Manager API reference, CreateSecret, Name). @throws CliError */
export function checkName(name: string): void {
  if (!SECRET_NAME.test(name))
    throw new CliError(
      'usage',
      `"${name}" is not a valid cluster name.`,
      'Use letters, digits and the characters /_+=.@- only.',
    );
}

/** Checks that the secret of a cluster can have its name. @param secretPrefix the stack's @throws CliError */
export function checkNameLength(name: string, secretPrefix: string): void {
  const longest = MAX_SECRET_NAME_LENGTH - secretPrefix.length;
  if (name.length > longest)
    throw new CliError(
      'usage',
      `The cluster name is too long: it has ${name.length} characters.`,
      `Use at most ${longest} characters. With the stack's prefix ${secretPrefix}, Secrets Manager allows no more.`,
    );
}

/** The value of a registration that has no verified credential yet. A run that reads it nevertheless fails for its cluster. */
const PLACEHOLDER =
  'This registration is not complete. Repeat the register command, or remove it with unregister.';

/**
 * A registration that becomes usable when it is verified. Until then its kubeconfig is a version of the secret with a label
 * of its own, which no run reads: the version with AWSCURRENT stays the earlier one, or a placeholder. A new registration
 * has the tag `registering` until then. So a process that ends at any point leaves nothing that a run would use.
 */
export class PendingRegistration {
  readonly #aws: Aws;
  readonly #stack: Stack;
  readonly #name: string;
  readonly #clusterUid: string;
  /** Whether an earlier command created the secret, and did not complete the registration. */
  readonly #isResumed: boolean;
  #state: 'absent' | 'incomplete' | 'complete' | 'verified';

  /** @param known the registration of that name, if there is one */
  constructor(aws: Aws, stack: Stack, name: string, clusterUid: string, known: ClusterStatus | undefined) {
    this.#aws = aws;
    this.#stack = stack;
    this.#name = name;
    this.#clusterUid = clusterUid;
    this.#isResumed = known?.isRegistering === true;
    this.#state = known === undefined ? 'absent' : known.isRegistering ? 'incomplete' : 'complete';
  }

  /** A placeholder is stored, and no verified credential. */
  get isIncomplete(): boolean {
    return this.#state === 'incomplete';
  }

  /** Runs use the credential that this command has verified. */
  get isVerified(): boolean {
    return this.#state === 'verified';
  }

  /** Creates the secret with a placeholder, unless it exists. @throws CliError if the name is registered or reserved */
  async begin(): Promise<void> {
    const [aws, name, id] = [this.#aws, this.#name, this.#id];
    const commands = new ShellCommands(aws.options, {});
    // Another command may have completed it meanwhile: its tokens are in use.
    if (this.#isResumed && !(await describe(aws, id)).tags.has(TAG.registering))
      throw alreadyRegistered(name, commands);
    if (this.#state !== 'absent') return;
    const client = aws.secrets();
    const deadline = Date.now() + NAME_RESERVED_MS;
    const command = new CreateSecretCommand({
      Name: id,
      ClientRequestToken: randomUUID(),
      SecretString: PLACEHOLDER,
      ...(this.#stack.kmsKeyArn !== undefined && { KmsKeyId: this.#stack.kmsKeyArn }),
      Description: 'ECR Anywhere: a registered cluster',
      Tags: [
        { Key: TAG.clusterUid, Value: this.#clusterUid },
        { Key: TAG.registering, Value: 'true' },
      ],
    });
    await aws.change(`registering ${name}`, async (abortSignal) => {
      for (;;) {
        try {
          return await client.send(command, { abortSignal });
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
    this.#state = 'incomplete';
  }

  /** Stores a kubeconfig that is not verified yet. @returns the id of its version @throws CliError */
  async stage(kubeconfig: string): Promise<string> {
    await this.begin();
    const command = new PutSecretValueCommand({
      SecretId: this.#id,
      SecretString: kubeconfig,
      ClientRequestToken: randomUUID(),
      VersionStages: [REGISTERING_STAGE],
    });
    const client = this.#aws.secrets();
    const { VersionId = '' } = await untilVisible(
      () =>
        this.#aws.change(`registering ${this.#name}`, (abortSignal) => client.send(command, { abortSignal })),
      isMissing,
      this.#aws.signal,
    );
    return VersionId;
  }

  /** Makes a verified version the one that runs use. @throws CliError */
  async complete(version: string): Promise<void> {
    const before = await this.#makeCurrent(version);
    if (before.tags.get(TAG.clusterUid) !== this.#clusterUid)
      await tag(this.#aws, this.#id, TAG.clusterUid, this.#clusterUid);
    if (this.isIncomplete) await untag(this.#aws, this.#id, TAG.registering);
    this.#state = 'verified';
    // Another `register` may have moved the label. Nothing depends on it any more.
    await this.#move({ VersionStage: REGISTERING_STAGE, RemoveFromVersionId: version }).catch(() => {});
  }

  /** @returns the secret as it was */
  #makeCurrent(version: string): Promise<Described> {
    const attempt = async () => {
      const before = await describe(this.#aws, this.#id);
      const { current } = before;
      if (current !== version)
        await this.#move({
          VersionStage: CURRENT,
          MoveToVersionId: version,
          ...(current !== undefined && { RemoveFromVersionId: current }),
        });
      return before;
    };
    // AWS rejects the change if another version than the described one is current: the refresher has renewed the earlier
    // token meanwhile, or the description is old.
    const isRejected = (outcome: unknown) => outcome instanceof CliError && outcome.code === 'aws-error';
    return untilVisible(attempt, isRejected, this.#aws.signal);
  }

  async #move(input: Omit<UpdateSecretVersionStageCommandInput, 'SecretId'>): Promise<void> {
    const command = new UpdateSecretVersionStageCommand({ SecretId: this.#id, ...input });
    await this.#aws.change(`completing the registration of ${this.#name}`, (abortSignal) =>
      this.#aws.secrets().send(command, { abortSignal }),
    );
  }

  get #id(): string {
    return secretId(this.#stack, this.#name);
  }
}

/** Deletes a registration without recovery: its token is revoked, or belongs to another system. */
export async function deleteRegistration(aws: Aws, stack: Stack, name: string): Promise<void> {
  const command = new DeleteSecretCommand({
    SecretId: secretId(stack, name),
    ForceDeleteWithoutRecovery: true,
  });
  await aws.change(`deleting the registration of ${name}`, (abortSignal) =>
    aws.secrets().send(command, { abortSignal }),
  );
}

/** Pauses a registered cluster, or resumes it. */
export async function tagPaused(aws: Aws, stack: Stack, name: string, isPaused: boolean): Promise<void> {
  if (isPaused) await tag(aws, secretId(stack, name), TAG.paused, 'true');
  else await untag(aws, secretId(stack, name), TAG.paused);
}

export function alreadyRegistered(name: string, commands: ShellCommands, cause?: unknown): CliError {
  return new CliError(
    'already-registered',
    `The name ${name} is already registered.`,
    `To replace its credential, add --replace. To check the cluster: ${commands.cli(['doctor', name], true)}`,
    cause,
  );
}

/** The error of a command that needs a complete registration. */
export function incompleteRegistration(name: string, commands: ShellCommands): CliError {
  return new CliError(
    'registration-incomplete',
    `The registration of ${name} is not complete, so no run uses it.`,
    incompleteHint(name, commands),
  );
}

/** What to do about a registration that is not complete. */
export function incompleteHint(name: string, commands: ShellCommands): string {
  return `To complete it, repeat the register command; to remove it: ${commands.cli(['unregister', name])}`;
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
 * by five minutes (Secrets Manager API reference).
 *
 * @throws CliError if the secret cannot be described
 */
export async function withCurrent(
  aws: Aws,
  stack: Stack,
  name: string,
  listed: readonly ClusterStatus[],
): Promise<readonly ClusterStatus[]> {
  if (!SECRET_NAME.test(name)) return listed;
  const described = await describe(aws, secretId(stack, name));
  const others = listed.filter((one) => one.name !== name || one.source !== 'registered');
  if (!described.exists) return others;
  const clusterUid = described.tags.get(TAG.clusterUid);
  const { clusterUid: _, isRegistering: __, ...known } = listed.find((one) => one.name === name) ?? {};
  const current: ClusterStatus = {
    ...known,
    name,
    source: 'registered',
    isPaused: described.tags.get(TAG.paused) === 'true',
    ...(described.tags.get(TAG.registering) === 'true' && { isRegistering: true }),
    ...(clusterUid && { clusterUid }),
  };
  return [...others, current];
}

interface Described {
  /** There is such a secret, and it is not scheduled for deletion. */
  readonly exists: boolean;
  /** Id of the version with the label AWSCURRENT. */
  readonly current: string | undefined;
  readonly tags: ReadonlyMap<string, string>;
}

/** The current version and the tags of a secret; empty if there is no such secret. */
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
  return {
    exists: ARN !== undefined && DeletedDate === undefined,
    current: Object.entries(VersionIdsToStages).find(([, stages]) => stages.includes(CURRENT))?.[0],
    tags: new Map(Tags.map(({ Key = '', Value = '' }) => [Key, Value])),
  };
}

function secretId({ secretPrefix }: Stack, name: string): string {
  return `${secretPrefix}${name}`;
}
