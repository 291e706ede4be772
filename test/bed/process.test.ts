// The programs of the test bed: when one counts as started, and that none outlives the process that started it.
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { freePorts, processOfConnection, startProgram } from './process.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-process-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const start = (command: string, args: string[]) =>
  startProgram('it', command, args, {
    env: {},
    logPath: join(dir, 'log'),
    // Polled only after the program has had time to end.
    isReady: () => new Promise((resolve) => setTimeout(() => resolve(true), 500)),
  });

describe('starting a program', () => {
  test('fails with the end of the log when the program ends, even if another process answers', async () => {
    const failing = start(process.execPath, ['-e', 'console.error("out of luck"); process.exit(3)']);
    await expect(failing).rejects.toThrow(/it ended.*out of luck/s);
  });

  test('names a program that does not exist', async () => {
    await expect(start(join(dir, 'nothing'), [])).rejects.toThrow(/it cannot be started: .*ENOENT/);
  });

  test('returns a running program that can be stopped', async () => {
    await using program = await start(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    expect(program.isRunning()).toBe(true);
    await program.stop();
    expect(await program.ended).toBe('SIGTERM');
  });
});

/** Starts a program with a child of its own, and prints both process ids. */
const STARTER = `
  import { readFileSync } from 'node:fs';
  import { startProgram } from ${JSON.stringify(fileURLToPath(new URL('./process.ts', import.meta.url)))};
  const [logPath] = process.argv.slice(-1);
  const child = 'setInterval(() => {}, 1000)';
  const parent = \`const { pid } = require('node:child_process').spawn(process.execPath, ['-e', \${JSON.stringify(child)}]);
    console.log(pid); setInterval(() => {}, 1000)\`;
  const program = await startProgram('it', process.execPath, ['-e', parent], {
    env: {}, logPath, isReady: async () => readFileSync(logPath, 'utf8').includes('\\n'),
  });
  console.log(program.pid + ' ' + program.log().trim());
  setInterval(() => {}, 1000);
`;

describe('a process that started a program', () => {
  test.each(['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGKILL'] as const)(
    'leaves neither the program nor its children behind when %s ends it',
    async (signal) => {
      const logPath = join(dir, `log-${signal}`);
      const starter = spawn(process.execPath, ['--input-type=module', '-e', STARTER, logPath], {
        stdio: ['ignore', 'pipe', 'inherit'],
      });
      const [line] = (await once(createInterface({ input: starter.stdout }), 'line')) as [string];
      const pids = line.split(' ').map(Number);
      expect(pids.map(isAlive)).toEqual([true, true]);
      starter.kill(signal);
      await expect.poll(() => pids.filter(isAlive), { timeout: 10_000 }).toEqual([]);
    },
  );
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** Connects from one port to another, says so, and waits. */
const CLIENT = `
import socket, sys
client = socket.socket()
client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
client.bind(('127.0.0.1', int(sys.argv[1])))
client.connect(('127.0.0.1', int(sys.argv[2])))
print('connected', flush=True)
sys.stdin.read()
`;

test('finds the process of a connection, although another process has the same port with another server', async () => {
  await using stack = new AsyncDisposableStack();
  const [port = 0] = await freePorts(1);
  const clients = [];
  for (let index = 0; index < 2; index += 1) {
    const server = stack.adopt(createServer(), (each) => void each.close());
    await once(server.listen(0, '127.0.0.1'), 'listening');
    const { port: serverPort } = server.address() as AddressInfo;
    const { pid, stdout } = stack.adopt(
      spawn('python3', ['-c', CLIENT, String(port), String(serverPort)], {
        stdio: ['pipe', 'pipe', 'inherit'],
      }),
      (child) => void child.kill(),
    );
    await once(stdout, 'data');
    clients.push({ pid, serverPort });
  }
  for (const { pid, serverPort } of clients) expect(await processOfConnection(port, serverPort)).toBe(pid);
  expect(await processOfConnection(port, port)).toBeUndefined();
});
