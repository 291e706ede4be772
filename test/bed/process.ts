// Programs that run for as long as the bed does: started with a log file, waited for, ended by their process id,
// and never left behind when this process ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { keepEvidence } from './evidence.ts';

export interface Program extends AsyncDisposable {
  readonly pid: number;
  readonly logPath: string;
  /** What it has written so far. */
  log(): string;
  /** Resolves with the exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  isRunning(): boolean;
  signal(signal: NodeJS.Signals): void;
  /** SIGTERM, and SIGKILL if that does not help within ten seconds. Idempotent. */
  stop(): Promise<void>;
}

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => process.exit(1));
}

/**
 * Starts a program with just the environment that is given.
 *
 * @param isReady asked again and again until it says so
 * @throws Error with the end of the log where the program ends, or is not ready in time
 */
export async function startProgram(
  name: string,
  command: string,
  args: readonly string[],
  options: {
    env: Readonly<Record<string, string>>;
    logPath: string;
    cwd?: string;
    isReady: () => Promise<boolean>;
    readyWithinMs?: number;
  },
): Promise<Program> {
  const log = openSync(options.logPath, 'a');
  const child = spawn(command, args, {
    env: options.env,
    stdio: ['ignore', log, log],
    ...(options.cwd && { cwd: options.cwd }),
  });
  closeSync(log);
  await once(child, 'spawn').catch((error: Error) => {
    throw new Error(`${name} cannot be started: ${error.message}`, { cause: error });
  });
  running.add(child);
  const ended = once(child, 'exit').then(([code, signal]) => {
    running.delete(child);
    keepEvidence('log', name, readFileSync(options.logPath, 'utf8'));
    return (code ?? signal) as number | NodeJS.Signals;
  });
  const isRunning = () => child.exitCode === null && child.signalCode === null;
  const stop = async () => {
    if (!isRunning()) return;
    child.kill('SIGTERM');
    const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
    await ended;
    clearTimeout(timer);
  };
  const program: Program = {
    pid: child.pid ?? 0,
    logPath: options.logPath,
    log: () => readFileSync(options.logPath, 'utf8'),
    ended,
    isRunning,
    signal: (signal) => void child.kill(signal),
    stop,
    [Symbol.asyncDispose]: stop,
  };
  const deadline = Date.now() + (options.readyWithinMs ?? 60_000);
  // One that has ended is not ready, whoever else may have answered in its place.
  while (!(await options.isReady().catch(() => false)) || !isRunning()) {
    if (isRunning() && Date.now() < deadline) {
      await sleep(100);
      continue;
    }
    const what = isRunning() ? 'is not ready in time' : 'ended';
    await stop();
    throw new Error(
      `${name} ${what}. The end of ${options.logPath}:\n${program.log().split('\n').slice(-15).join('\n')}`,
    );
  }
  return program;
}

/** TCP ports on loopback that were free a moment ago, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, '127.0.0.1'));
  const ports: number[] = [];
  for (const server of servers) {
    if (!server.listening) await once(server, 'listening');
    const address = server.address();
    if (address !== null && typeof address === 'object') ports.push(address.port);
  }
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
