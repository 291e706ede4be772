// A bed without registered clusters, and the command line of an operator who registers them.
import { mkdtemp, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import {
  DeleteSecretCommand,
  DescribeSecretCommand,
  GetSecretValueCommand,
  ListSecretsCommand,
  SecretsManagerClient,
} from '@aws-sdk/client-secrets-manager';
import { expect } from 'vitest';
import { parse } from 'yaml';
import { ERRORS, type ErrorCode } from '../../../../cli/output/errors.ts';
import { CLUSTERS_PREFIX } from '../../../../contract/names.ts';
import { Bed, type BedOptions } from '../../../bed/up.ts';
import { type CommandLine, type RunOptions, startCommandLine } from '../../command-line.ts';
import { type ListLag, startListLag } from '../../list-lag.ts';

export const GROUP = 'ecr-anywhere:refreshers';

export interface Registered {
  readonly expiresAt: string;
  readonly [field: string]: unknown;
}

export interface Failure {
  readonly code: ErrorCode;
  readonly message: string;
  readonly hint?: string;
}

export class Registrar implements AsyncDisposable {
  readonly bed: Bed;
  readonly cli: CommandLine;
  /** ListSecrets shows nothing that a test does before it calls `catchUp`. */
  readonly lag: ListLag;
  readonly #secrets: SecretsManagerClient;

  private constructor(bed: Bed, cli: CommandLine, lag: ListLag) {
    this.bed = bed;
    this.cli = cli;
    this.lag = lag;
    this.#secrets = new SecretsManagerClient(bed.deployment.emulator.clientConfig);
  }

  /** @param env of the command line, beside that of the bed's operator */
  static async start(
    { context, ...options }: Omit<BedOptions, 'context'> & Partial<Pick<BedOptions, 'context'>>,
    env: Readonly<Record<string, string>> = {},
  ): Promise<Registrar> {
    const lag = await startListLag();
    const bed = await Bed.create({
      context: { scheduleEnabled: false, clusterDeadlineSeconds: 20, ...context },
      registersClusters: false,
      ...options,
      functionEnv: { ...options.functionEnv, ...lag.env },
    });
    await bed.start();
    lag.attach(bed.deployment.emulator);
    return new Registrar(bed, await startCommandLine({ ...bed.operatorEnv, ...env }), lag);
  }

  /** Names of the clusters that are registered with any stack. */
  async names(): Promise<string[]> {
    return (await this.#ids()).map((id) => id.replace(/^ecr-anywhere[^/]*\/clusters\//, '')).sort();
  }

  async #ids(): Promise<string[]> {
    const { SecretList = [] } = await this.#secrets.send(new ListSecretsCommand({}));
    return SecretList.map(({ Name = '' }) => Name);
  }

  async kubeconfig(name: string, VersionStage = 'AWSCURRENT'): Promise<string> {
    const command = new GetSecretValueCommand({ SecretId: `${CLUSTERS_PREFIX}${name}`, VersionStage });
    return (await this.#secrets.send(command)).SecretString ?? '';
  }

  /** The registered user of a cluster, as its kubeconfig holds it. */
  async user(name: string) {
    return parse(await this.kubeconfig(name)).users[0].user;
  }

  async tags(name: string) {
    return (await this.describe(name)).Tags ?? [];
  }

  describe(name: string) {
    return this.#secrets.send(new DescribeSecretCommand({ SecretId: `${CLUSTERS_PREFIX}${name}` }));
  }

  /** Deletes all registrations. */
  async reset(): Promise<void> {
    for (const SecretId of await this.#ids())
      await this.#secrets.send(new DeleteSecretCommand({ SecretId, ForceDeleteWithoutRecovery: true }));
  }

  /** What a run over one registered cluster reports. */
  async runOver(name: string) {
    const { payload } = await this.bed.deployment.invoke({ clusters: [name] });
    return (payload as { clusters: { served: boolean; failed: boolean }[] }).clusters[0];
  }

  /** Expects `ecr-anywhere register ARGS` to succeed. @returns its result */
  async register(args: readonly string[], options?: RunOptions): Promise<Registered> {
    const ended = await this.cli.run(['register', ...args, '--output', 'json', '--quiet'], options);
    expect({ code: ended.code, stderr: ended.stderr }).toEqual({ code: 0, stderr: '' });
    return JSON.parse(ended.stdout);
  }

  /**
   * Expects `ecr-anywhere register ARGS` to fail, to print no result, and to leave only these registrations.
   *
   * @param options.left all names that are registered, incomplete ones included
   */
  async expectFailure(
    code: ErrorCode,
    args: readonly string[],
    { left = [], ...options }: RunOptions & { readonly left?: readonly string[] } = {},
  ): Promise<Failure> {
    const ended = await this.cli.run(['register', ...args, '--output', 'json', '--quiet'], options);
    const { exitCode } = ERRORS[code];
    expect({ code: ended.code, stdout: ended.stdout }, ended.stderr).toEqual({ code: exitCode, stdout: '' });
    // Nothing else is printed.
    expect(ended.stderr).toMatch(/^\{.*\}\n$/);
    const { error } = JSON.parse(ended.stderr) as { error: Failure };
    expect(error).toMatchObject({ code, exitCode });
    expect(await this.names()).toEqual(left);
    return error;
  }

  /** Writes a file that only the operator can read. @returns its path */
  async fileOf(text: string): Promise<string> {
    const path = join(await mkdtemp(join(this.bed.dir, 'given-')), 'kubeconfig');
    await writeFile(path, text, { mode: 0o600 });
    return path;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cli[Symbol.asyncDispose]();
    await this.bed[Symbol.asyncDispose]();
    await this.lag[Symbol.asyncDispose]();
  }
}
