// What the doctor's tests have in common: a bed with a cluster that was registered by the command line and has a managed
// Secret, the doctor as an operator runs it, and the commands that it names, run as they are printed.
import { mkdtemp, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import type { Finding, LinkName } from '../../../../cli/commands/doctor/checks.ts';
import { NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../../../contract/names.ts';
import { type CommandResult, type ControlPlane, runCommand } from '../../../bed/control-plane.ts';
import { tools } from '../../../bed/toolchain.ts';
import { Bed } from '../../../bed/up.ts';
import type { WebhookInstallation } from '../../../bed/webhook.ts';
import { type CommandLine, type Ended, type RunOptions, startCommandLine } from '../../command-line.ts';

const ROOT = fileURLToPath(new URL('../../../..', import.meta.url));

export interface Report {
  readonly cluster: string;
  readonly allWell: boolean;
  readonly firstBroken?: Finding & { readonly title: string; readonly means: string };
  readonly findings: readonly Finding[];
}

export interface Diagnosis extends Ended {
  readonly report: Report;
}

export interface Expected {
  /** Of the finding. */
  readonly says: RegExp;
  /** The other links that are broken for themselves. */
  readonly also?: readonly LinkName[];
  readonly args?: readonly string[];
  readonly options?: RunOptions;
}

/** One that is up. */
export class DoctorBed implements AsyncDisposable {
  readonly bed: Bed;
  readonly cli: CommandLine;
  /** Whatever the command line, and the commands that it named, have printed. */
  readonly printed: string[] = [];
  readonly #dir: string;

  private constructor(bed: Bed, cli: CommandLine, dir: string) {
    this.bed = bed;
    this.cli = cli;
    this.#dir = dir;
  }

  /** @param others clusters beside alpha, which is registered */
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
      // The commands name the chart as it lies in a checkout.
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

  /** @param value of its label; null: without it */
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

  /** Runs the command line, to its end. */
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

  /** That this link is the first broken one. @returns the command that is to repair it */
  async expectBroken(link: LinkName, { says, also = [], args, options }: Expected): Promise<string> {
    const { code, report } = await this.doctor(args, options);
    const { firstBroken, findings } = report;
    expect(firstBroken).toMatchObject({ link, says: expect.stringMatching(says), verdict: 'broken' });
    // What depends on it is not called broken, too.
    const broken = findings.filter(({ verdict }) => verdict === 'broken').map((finding) => finding.link);
    expect(broken).toEqual([link, ...also]);
    expect({ code, allWell: report.allWell }).toEqual({ code: 1, allWell: false });
    return firstBroken?.repair ?? '';
  }

  /** That every link is well. @param withinMs milliseconds: where something has to settle */
  async expectWell(withinMs = 0): Promise<void> {
    const deadline = Date.now() + withinMs;
    for (;;) {
      const { code, report } = await this.doctor();
      if (!report.allWell && Date.now() < deadline) {
        await sleep(500);
        continue;
      }
      expect(report.findings.filter(({ verdict }) => verdict !== 'well')).toEqual([]);
      expect({ code, allWell: report.allWell, first: report.firstBroken }).toEqual({
        ...{ code: 0, allWell: true, first: undefined },
      });
      return;
    }
  }

  /** Runs a command as it is printed, where the chart's checkout is. @throws Error with what it said */
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

  /** Has the webhook's process end, without the seconds that it would take for it. */
  async killWebhook(): Promise<void> {
    this.webhook.program.signal('SIGKILL');
    await this.webhook.program.ended;
  }

  /** Plays the kubelet after a restart of the Deployment. */
  async restartWebhook(env?: Readonly<Record<string, string>>): Promise<void> {
    await this.killWebhook();
    await this.webhook.syncVolumes();
    await this.webhook.start(env);
  }

  /** That nothing of what was printed is a credential. */
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
