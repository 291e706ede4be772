// The command line as an operator has it: the bundle in a process of its own, with an environment of its own.
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { buildCli } from '../../cli/build.ts';
import { keepEvidence } from '../bed/evidence.ts';
import { endWithThisProcess } from '../bed/process.ts';

export interface Ended {
  /** The exit code; of a process that a signal ended, null. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  /** Changes of the environment; undefined takes a variable away. */
  readonly env?: Readonly<Record<string, string | undefined>>;
  readonly cwd?: string;
  /** Is given the process as soon as it runs. */
  readonly onStart?: (child: import('node:child_process').ChildProcess) => void;
}

export interface CommandLine extends AsyncDisposable {
  /** The executable. */
  readonly bundle: string;
  /** HOME of the operator. */
  readonly home: string;
  readonly env: Readonly<Record<string, string>>;
  /** Runs `ecr-anywhere ARGS`, to its end. */
  run(args: readonly string[], options?: RunOptions): Promise<Ended>;
  /** The same, and what it prints as JSON. @throws Error where it fails */
  json<Result = unknown>(args: readonly string[], options?: RunOptions): Promise<Result>;
}

/** Builds it. @param env of each run, beside PATH and HOME. @param build builds it from another checkout */
export async function startCommandLine(
  env: Readonly<Record<string, string>>,
  build = buildCli,
): Promise<CommandLine> {
  const home = await mkdtemp(join(tmpdir(), 'ecr-anywhere-cli-'));
  const bundle = join(home, 'bin', 'ecr-anywhere');
  await build(bundle);
  const all = {
    ...env,
    PATH: `${dirname(bundle)}:${dirname(process.execPath)}:/usr/local/bin:/usr/bin:/bin`,
    HOME: home,
  };
  const run: CommandLine['run'] = (args, { env: changes = {}, cwd = home, onStart } = {}) =>
    new Promise((resolve, reject) => {
      const merged = Object.entries({ ...all, ...changes }).filter(([, value]) => value !== undefined);
      const child = endWithThisProcess(
        spawn(bundle, args, {
          cwd,
          env: Object.fromEntries(merged) as Record<string, string>,
          stdio: ['ignore', 'pipe', 'pipe'],
          detached: true,
        }),
      );
      let [stdout, stderr] = ['', ''];
      child.stdout.setEncoding('utf8').on('data', (text: string) => {
        stdout += text;
      });
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        stderr += text;
      });
      child.on('error', reject);
      child.on('close', (code) => {
        // get-token is the one command whose result is a credential.
        if (args[0] !== 'get-token') keepEvidence('cli', args[0] ?? 'none', `${stdout}\n${stderr}`);
        resolve({ code, stdout, stderr });
      });
      onStart?.(child);
    });
  return {
    bundle,
    home,
    env: all,
    run,
    async json<Result>(args: readonly string[], options?: RunOptions) {
      const { code, stdout, stderr } = await run([...args, '--output', 'json'], options);
      try {
        return JSON.parse(stdout) as Result;
      } catch {
        throw new Error(`${args.join(' ')}: exit code ${code}: ${stderr || stdout}`);
      }
    },
    [Symbol.asyncDispose]: () => rm(home, { recursive: true, force: true }),
  };
}
