// A bed for the tests of doctor: a cluster that the command line registered, with a managed Secret. It runs doctor as an
// operator does, and the commands that doctor prints.
import { mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { FailureCode, Finding } from '../../../../cli/commands/doctor/checks.ts';
import { EXIT } from '../../../../cli/output/errors.ts';
import { NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../../contract/names.ts';
import { type CommandResult, type ControlPlane, runCommand } from '../../../bed/control-plane.ts';
import { tools } from '../../../bed/toolchain.ts';
import { Bed } from '../../../bed/up.ts';
import type { WebhookInstallation } from '../../../bed/webhook.ts';
import { type CommandLine, type Ended, type RunOptions, startCommandLine } from '../../command-line.ts';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));

type Printed = Finding & { readonly title: string; readonly means?: string };

export interface Report {
  readonly cluster: string;
  readonly ok: boolean;
  readonly firstFailed?: Printed;
  readonly findings: readonly Printed[];
}

export interface Diagnosis extends Ended {
  readonly report: Report;
}

export interface Expected {
  /** Names or values that the message must contain. */
  readonly message?: readonly string[];
  /** The codes of other checks that fail independently. */
  readonly also?: readonly FailureCode[];
  readonly args?: readonly string[];
  readonly options?: RunOptions;
}

/** A way to break one thing, and what doctor must report. */
export interface Case extends Expected {
  readonly name: string;
  readonly code: FailureCode;
  readonly breaks: () => Promise<unknown>;
  /** The command as doctor prints it. A repair is executed. */
  readonly repair?: string;
  readonly investigate?: string | RegExp;
  /** What has to follow, or to replace, the repair. */
  readonly mends?: () => Promise<unknown>;
  /** Time in milliseconds until everything passes again. */
  readonly settlesWithin?: number;
}

/** A running bed. */
export class DoctorBed implements AsyncDisposable {
  readonly bed: Bed;
  readonly cli: CommandLine;
  /** The output of the command line, and of the commands that doctor printed. */
  readonly printed: string[] = [];
  readonly #dir: string;

  private constructor(bed: Bed, cli: CommandLine, dir: string) {
    this.bed = bed;
    this.cli = cli;
    this.#dir = dir;
  }

  /** @param others further clusters, which are not registered */
  static async start(others: readonly string[] = []): Promise<DoctorBed> {
    const bed = await Bed.create({
      clusters: ['alpha', ...others],
      context: { scheduleEnabled: false, clusterDeadlineSeconds: 20 },
      registersClusters: false,
    });
    try {
      await bed.start();
      const cli = await startCommandLine({
        ...bed.operatorEnv,
        KUBECONFIG: bed.cluster('alpha').controlPlane.adminKubeconfigPath,
      });
      const dir = await mkdtemp(join(bed.dir, 'operator-'));
      // The commands name the chart by its path in a checkout.
      await symlink(join(ROOT, 'webhook'), join(dir, 'webhook'));
      const self = new DoctorBed(bed, cli, dir);
      await self.run(['register', 'alpha']);
      await self.createNamespace('team-a');
      await self.createSecret('team-a', 'pull');
      return self;
    } catch (error) {
      await bed[Symbol.asyncDispose]();
      throw error;
    }
  }

  get controlPlane(): ControlPlane {
    return this.bed.cluster('alpha').controlPlane;
  }

  get webhook(): WebhookInstallation {
    return this.bed.cluster('alpha').webhook;
  }

  kubectl(...args: string[]): Promise<CommandResult> {
    return this.controlPlane.kubectl(args);
  }

  async apply(...objects: object[]): Promise<void> {
    const input = JSON.stringify({ apiVersion: 'v1', kind: 'List', items: objects });
    await this.controlPlane.kubectl(['apply', '--filename=-'], { input });
  }

  /** @param value of the namespace label; null: no label */
  createNamespace(name: string, value: string | null = NAMESPACE_LABEL.value): Promise<void> {
    const labels = value === null ? {} : { [NAMESPACE_LABEL.key]: value };
    return this.apply({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } });
  }

  createSecret(
    namespace: string,
    name: string,
    { label = SECRET_LABEL.value as string, type = SECRET_TYPE as string, data = {} } = {},
  ): Promise<void> {
    const metadata = { namespace, name, labels: { [SECRET_LABEL.key]: label } };
    return this.apply({ apiVersion: 'v1', kind: 'Secret', type, metadata, stringData: data });
  }

  /** Runs the command line. @throws Error if another command than doctor fails */
  async run(args: readonly string[], options?: RunOptions): Promise<Ended> {
    const ended = await this.cli.run(args, options);
    this.printed.push(ended.stdout, ended.stderr);
    if (ended.code !== 0 && args[0] !== 'doctor')
      throw new Error(`${args.join(' ')}: ${ended.code}: ${ended.stderr}${ended.stdout}`);
    return ended;
  }

  async doctor(args: readonly string[] = ['alpha'], options?: RunOptions): Promise<Diagnosis> {
    const ended = await this.run(['doctor', ...args, '--output', 'json'], options);
    if (!ended.stdout.startsWith('{')) throw new Error(`doctor: ${ended.code}: ${ended.stderr}`);
    return { ...ended, report: JSON.parse(ended.stdout) as Report };
  }

  /** Expects that this check fails first, and no other but those. @returns the failure */
  async expectFailed(code: FailureCode, { message = [], also = [], args, options }: Expected = {}) {
    const { code: exitCode, report } = await this.doctor(args, options);
    const { firstFailed, findings, ok } = report;
    expect(firstFailed).toMatchObject({ code, verdict: 'failed', means: expect.stringMatching(/\w/) });
    for (const part of message) expect(firstFailed?.message).toContain(part);
    // What may follow from a failure is skipped.
    const failed = findings.filter(({ verdict }) => verdict === 'failed');
    expect(failed.map((finding) => finding.code)).toEqual([code, ...also]);
    for (const { repair, investigate } of failed) expect(repair ?? investigate).toMatch(/^\w/);
    expect({ exitCode, ok }).toEqual({ exitCode: EXIT.unhealthy, ok: false });
    return firstFailed ?? expect.unreachable();
  }

  /** Breaks something, expects the failure, executes the repair, and expects that every check passes again. */
  async expectCase({ breaks, code, repair, investigate, mends, settlesWithin, ...expected }: Case) {
    await breaks();
    const failure = await this.expectFailed(code, expected);
    if (investigate instanceof RegExp) expect(failure.investigate).toMatch(investigate);
    else expect({ ...failure, observed: undefined }).toMatchObject(repair ? { repair } : { investigate });
    expect(failure.repair).toBe(repair);
    if (repair) await this.repair(repair);
    await mends?.();
    await this.expectPassed(settlesWithin);
  }

  /** Expects that every check passes. @param withinMs how long the cluster may take to settle, in milliseconds */
  async expectPassed(withinMs = 0): Promise<void> {
    const notPassed = async () => {
      const { code, report } = await this.doctor();
      expect(code).toBe(report.ok ? 0 : EXIT.unhealthy);
      return report.findings.filter(({ verdict }) => verdict !== 'passed');
    };
    if (withinMs === 0) expect(await notPassed()).toEqual([]);
    else await expect.poll(notPassed, { timeout: withinMs, interval: 500 }).toEqual([]);
  }

  /** Runs a command as doctor prints it, in the checkout. @throws Error with its output */
  async repair(command: string, files: Readonly<Record<string, string>> = {}): Promise<void> {
    for (const [name, content] of Object.entries(files)) await writeFile(join(this.#dir, name), content);
    const { env } = this.cli;
    const path = [dirname(tools().helm), dirname(tools().kubectl), env.PATH].join(':');
    const { code, stdout, stderr } = await runCommand('/bin/sh', ['-c', `cd ${this.#dir} && ${command}`], {
      ...env,
      PATH: path,
    });
    this.printed.push(command, stdout, stderr);
    if (code !== 0) throw new Error(`${command}: ${code}: ${stderr}${stdout}`);
  }

  /** Kills the webhook's process, without its graceful shutdown. */
  async killWebhook(): Promise<void> {
    this.webhook.program.signal('SIGKILL');
    await this.webhook.program.ended;
  }

  /** Does what the kubelet does after a restart of the Deployment. */
  async restartWebhook(env?: Readonly<Record<string, string>>): Promise<void> {
    await this.killWebhook();
    await this.webhook.syncVolumes();
    await this.webhook.start(env);
  }

  /** Expects that no credential was printed. */
  async expectNoCredential(): Promise<void> {
    const text = this.printed.join('\n');
    expect(text.length).toBeGreaterThan(10_000);
    expect(text).not.toMatch(/eyJ[\w-]{10,}\.eyJ|PRIVATE KEY|ecr-token-|secret-access-key-|session-token-/);
    const kubeconfig = await this.kubectl('config', 'view', '--raw', '-o', 'jsonpath={.users[0].user.token}');
    expect(kubeconfig.stdout.length).toBeGreaterThan(8);
    for (const secret of [kubeconfig.stdout, ...this.bed.ecr.calls.flatMap(({ password }) => password ?? [])])
      expect(text.includes(secret)).toBe(false);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.cli[Symbol.asyncDispose]();
    await this.bed[Symbol.asyncDispose]();
  }
}
