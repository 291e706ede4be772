// A run that is killed leaves the machine as it was. The machine of this test is itself a node's, so that nothing but the
// killed run changes it.
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { globSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { expect, onTestFinished, test } from 'vitest';
import { CGROUP } from './settings.ts';

const path = (file: string) => fileURLToPath(new URL(file, import.meta.url));
/** Runs a node with one Pod, as main.ts runs the tests, which would take minutes until they have one. */
const ONE_POD = `const { runOnMachine } = await import(${JSON.stringify(path('./machine.ts'))});
process.exitCode = await runOnMachine(process.execPath, ${JSON.stringify(path('./one-pod.ts'))});`;
const output = async (command: string, ...args: string[]) =>
  (await promisify(execFile)(command, args)).stdout;

/** What a node could leave behind. */
async function machine(): Promise<object> {
  const settings = globSync('/proc/sys/{vm,kernel,kernel/keys}/{overcommit_memory,panic*,root_max*}').sort();
  return {
    interfaces: await output('ip', '-oneline', 'address'),
    routes: await output('ip', 'route'),
    rules: await output('nft', 'list', 'ruleset'),
    mounts: readFileSync('/proc/mounts', 'utf8'),
    hosts: readFileSync('/etc/hosts', 'utf8'),
    settings: settings.map((path) => `${path} ${readFileSync(path, 'utf8')}`),
    files: globSync(['/run/*', '/run/node/*', '/var/lib/*', '/var/log/*', '/etc/*']).sort(),
    // Another run on the same machine has its own.
    controlGroups: globSync(`/sys/fs/cgroup/{,*/}${process.env[CGROUP]}*`).sort(),
    programs: globSync('/proc/[0-9]*/comm')
      .map(nameOf)
      .filter((name) => /^(containerd|kube|etcd|coredns|docker-registry|unshare|sh$|pause)/.test(name))
      .sort(),
  };
}

function nameOf(comm: string): string {
  try {
    return readFileSync(comm, 'utf8').trim();
  } catch {
    // The process has ended.
    return '';
  }
}

test.each([
  { signal: 'SIGKILL', moment: 'a Pod is on the node', group: 'kubepods/**/pod*' },
  { signal: 'SIGINT', moment: 'the kubelet starts', group: 'kubepods' },
] as const)(
  'a run that ends with $signal while $moment leaves nothing',
  {
    timeout: 300_000,
  },
  async ({ signal, group }) => {
    const before = await machine();
    const run = spawn(process.execPath, ['--input-type=module', '--eval', ONE_POD], {
      stdio: ['ignore', 'ignore', 'inherit'],
    });
    onTestFinished(() => void run.kill('SIGKILL'));
    const ended = once(run, 'exit');
    const groups = `/sys/fs/cgroup/{,*/}${process.env[CGROUP]}.${run.pid}/${group}`;
    await expect
      .poll(() => run.exitCode ?? globSync(groups).length > 0, { timeout: 240_000, interval: 500 })
      .toBe(true);
    expect(await machine()).not.toEqual(before);
    run.kill(signal);
    await ended;
    await expect.poll(machine, { timeout: 30_000, interval: 200 }).toEqual(before);
  },
);
