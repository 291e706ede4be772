// SIGTERM while the webhook bundle starts: it ends at once, also as process 1, which ignores a signal without a handler.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildWebhook } from '../../webhook/build.ts';
import { endWithThisProcess } from '../bed/process.ts';

const dir = mkdtempSync(join(tmpdir(), 'ecr-anywhere-starting-'));
const bundle = join(dir, 'webhook.mjs');
/** An API server that accepts connections and never answers: the webhook waits for its certificate. */
let apiServer: Server;
let connections = 0;
beforeAll(async () => {
  await buildWebhook(bundle);
  writeFileSync(join(dir, 'token'), 'token');
  writeFileSync(join(dir, 'ca.crt'), '');
  writeFileSync(join(dir, 'policy.yaml'), 'registries: []');
  apiServer = createServer(() => {
    connections += 1;
  }).listen(0, '127.0.0.1');
  await once(apiServer, 'listening');
});
afterAll(() => {
  apiServer?.close();
  rmSync(dir, { recursive: true, force: true });
});

/** Whether this machine lets a process be process 1 of a namespace. */
const canBeProcess1 = spawnSync('unshare', ['--pid', '--fork', 'true']).status === 0;

const start = (isProcess1: boolean) => {
  const command = [process.execPath, bundle];
  const [program = '', ...args] = isProcess1 ? ['unshare', '--pid', '--fork', ...command] : command;
  const address = apiServer.address();
  if (address === null || typeof address === 'string') throw new Error('the API server has no port');
  let log = '';
  const child = endWithThisProcess(
    spawn(program, args, {
      env: {
        AWS_REGION: 'eu-central-1',
        POLICY_FILE: join(dir, 'policy.yaml'),
        TLS_SECRET: 'ecr-anywhere/tls',
        SERVER_NAME: 'ecr-anywhere.ecr-anywhere.svc',
        WEBHOOK_CONFIGURATION: 'ecr-anywhere',
        SERVICE_ACCOUNT_DIR: dir,
        KUBERNETES_SERVICE_HOST: '127.0.0.1',
        KUBERNETES_SERVICE_PORT: String(address.port),
      },
      stdio: ['ignore', 'pipe', 'inherit'],
      detached: true,
    }),
  );
  child.stdout?.on('data', (chunk: Buffer) => {
    log += chunk.toString();
  });
  return { child, log: () => log };
};

/** The only child of a process. */
const childOf = (pid: number): number => {
  const [child = ''] = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim().split(' '),
  );
  return Number(child);
};

test.each([
  { what: 'an ordinary process', isProcess1: false },
  { what: 'process 1, if the machine allows that', isProcess1: canBeProcess1 },
])('ends with 0 while it waits for its certificate, as $what', async ({ isProcess1 }) => {
  const before = connections;
  const { child, log } = start(isProcess1);
  const exit = once(child, 'exit');
  await expect.poll(() => connections, { timeout: 60_000 }).toBeGreaterThan(before);
  const pid = child.pid ?? 0;
  process.kill(isProcess1 ? childOf(pid) : pid, 'SIGTERM');
  expect(await exit).toEqual([0, null]);
  expect(
    log()
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toEqual([expect.objectContaining({ msg: 'stopped', signal: 'SIGTERM' })]);
});
