// A program of the bed counts as started only if it runs and is ready; otherwise whoever starts it hears why.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { startProgram } from './process.ts';

let dir: string;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-process-'));
});
afterAll(() => rm(dir, { recursive: true, force: true }));

const start = (command: string, args: string[]) =>
  startProgram('it', command, args, {
    env: {},
    logPath: join(dir, 'log'),
    // Asked only once it has had the time to end.
    isReady: () => new Promise((resolve) => setTimeout(() => resolve(true), 500)),
  });

test('one that has ended is not taken for ready, although somebody answers', async () => {
  const failing = start(process.execPath, ['-e', 'console.error("out of luck"); process.exit(3)']);
  await expect(failing).rejects.toThrow(/it ended.*out of luck/s);
});

test('one that is not there is named', async () => {
  await expect(start(join(dir, 'nothing'), [])).rejects.toThrow(/it cannot be started: .*ENOENT/);
});

test('one that runs is, and is stopped', async () => {
  await using program = await start(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
  expect(program.isRunning()).toBe(true);
  await program.stop();
  expect(await program.ended).toBe('SIGTERM');
});
