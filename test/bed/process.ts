// Starts the programs that the test bed consists of, each with a log file, and ends them by process id. They end with
// the process that started them, however that ends.
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, openSync, readFileSync } from 'node:fs';
import { readdir, readFile, readlink } from 'node:fs/promises';
import { createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { keepEvidence } from './evidence.ts';

export interface Program extends AsyncDisposable {
  readonly pid: number;
  readonly logPath: string;
  /** Reads the whole log. */
  log(): string;
  /** Resolves with the exit code, or the signal that ended it. */
  readonly ended: Promise<number | NodeJS.Signals>;
  isRunning(): boolean;
  signal(signal: NodeJS.Signals): void;
  /** Sends SIGTERM, and SIGKILL after ten seconds. Idempotent. */
  stop(): Promise<void>;
}

const WATCHDOG = fileURLToPath(new URL('./watchdog.mjs', import.meta.url));
let watchdog: ChildProcess | undefined;

for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.once(signal, () => process.exit(1));
}

/** Registers a program with the watchdog, or removes it. One watchdog serves all programs of this process. */
function tellWatchdog(change: '+' | '-', pid: number): void {
  watchdog ??= startWatchdog();
  watchdog.stdin?.write(`${change}${pid}\n`);
}

function startWatchdog(): ChildProcess {
  // In a process group of its own: Ctrl-C must not end it before it has ended the programs.
  const child = spawn(process.execPath, [WATCHDOG], { stdio: ['pipe', 'ignore', 'ignore'], detached: true });
  // Neither the child nor the pipe may keep this process alive.
  child.unref();
  (child.stdin as Socket | null)?.unref();
  return child;
}

/**
 * Makes a process, and all its children, end with this one.
 *
 * @param child spawned with `detached: true`: the leader of a process group
 */
export function endWithThisProcess<Child extends ChildProcess>(child: Child): Child {
  const { pid } = child;
  if (pid === undefined) return child;
  tellWatchdog('+', pid);
  child.once('exit', () => {
    signalGroup(pid, 'SIGKILL');
    tellWatchdog('-', pid);
  });
  return child;
}

/** Signals a program and all its children. */
function signalGroup(pid: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-pid, signal);
  } catch {
    // The group has ended.
  }
}

/**
 * Starts a program with exactly the given environment, and waits until it is ready.
 *
 * @param options.isReady polled until it returns true
 * @throws Error with the end of the log if the program ends, or is not ready within `readyWithinMs`
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
  const child = endWithThisProcess(
    spawn(command, args, {
      env: options.env,
      stdio: ['ignore', log, log],
      detached: true,
      ...(options.cwd && { cwd: options.cwd }),
    }),
  );
  closeSync(log);
  await once(child, 'spawn').catch((error: Error) => {
    throw new Error(`${name} cannot be started: ${error.message}`, { cause: error });
  });
  const ended = once(child, 'exit').then(([code, signal]) => {
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
    pid: child.pid as number,
    logPath: options.logPath,
    log: () => readFileSync(options.logPath, 'utf8'),
    ended,
    isRunning,
    signal: (signal) => void child.kill(signal),
    stop,
    [Symbol.asyncDispose]: stop,
  };
  const deadline = Date.now() + (options.readyWithinMs ?? 60_000);
  // A program that has ended is not ready, even if another process answers on its port.
  while (!(await options.isReady().catch(() => false)) || !isRunning()) {
    if (isRunning() && Date.now() < deadline) {
      await sleep(100);
      continue;
    }
    const what = isRunning() ? 'was not ready in time' : 'ended';
    await stop();
    throw new Error(
      `${name} ${what}. The end of ${options.logPath}:\n${program.log().split('\n').slice(-15).join('\n')}`,
    );
  }
  return program;
}

/** Returns `count` different TCP ports on loopback that were free a moment ago. */
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

/**
 * The process on this machine that has the TCP connection between these ports on loopback (Linux: proc(5), /proc/net/tcp).
 *
 * @param port of the process; Linux gives one port to several connections, if they have different servers
 * @param serverPort of the other side
 * @returns its id; undefined if the connection is closed or the process is another user's
 */
export async function processOfConnection(port: number, serverPort: number): Promise<number | undefined> {
  const addressOf = (each: number) => `0100007F:${each.toString(16).toUpperCase().padStart(4, '0')}`;
  const rows = (await readFile('/proc/net/tcp', 'utf8')).split('\n').map((row) => row.trim().split(/\s+/));
  const inode = rows.find(
    ([, local, remote]) => local === addressOf(port) && remote === addressOf(serverPort),
  )?.[9];
  if (inode === undefined) return undefined;
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    // Processes end while they are read.
    const files = await readdir(`/proc/${pid}/fd`).catch(() => []);
    for (const file of files)
      if ((await readlink(`/proc/${pid}/fd/${file}`).catch(() => '')) === `socket:[${inode}]`)
        return Number(pid);
  }
  return undefined;
}
