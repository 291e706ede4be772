// A machine for a whole Kubernetes node: namespaces of its own (enter.sh), so that nothing of the node is left on the real
// machine, and it disturbs nothing that runs there.
import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, existsSync, globSync, mkdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { buildNodeTools, nodeTools } from '../bed/toolchain.ts';
import { ADDRESS, CGROUP, SERVICES } from './settings.ts';

const CGROUPS = '/sys/fs/cgroup';
const path = (file: string) => fileURLToPath(new URL(file, import.meta.url));

/** Namespaces of its own; they end, with everything in them, when this process of unshare ends. */
const UNSHARE = ['--mount', '--net', '--pid', '--ipc', '--uts', '--fork', '--kill-child', '--mount-proc'];

/** Says why this machine cannot run a node; undefined if it can. */
export function obstacle(): string | undefined {
  if (process.platform !== 'linux') return 'it needs Linux';
  if (process.getuid?.() !== 0) return 'it needs root: run it with sudo, or in a virtual machine';
  for (const command of ['apt-get', 'dpkg-deb', 'unshare'])
    if (spawnSync(command, ['--version'], { stdio: 'ignore' }).error)
      return `it needs ${command}: run it on Debian`;
  const { status, stderr } = spawnSync('unshare', [...UNSHARE, 'true'], { encoding: 'utf8' });
  if (status !== 0) return `this machine does not allow new namespaces: ${stderr.trim()}`;
  const roots = cgroupRoots();
  if (roots.length === 0 || !roots.every(isWritable)) return `it cannot create control groups in ${CGROUPS}`;
  return undefined;
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

/** The roots of the control groups: one with cgroup v2, one for each hierarchy of v1. */
function cgroupRoots(): string[] {
  if (existsSync(join(CGROUPS, 'cgroup.controllers'))) return [CGROUPS];
  return globSync(`${CGROUPS}/*/cgroup.procs`)
    .map((file) => dirname(file))
    .filter((root) => basename(root) !== 'unified');
}

/**
 * Runs a command where `startNode` can start a node, and removes everything when it ends, also after a signal.
 *
 * @param command searched for on this process's PATH
 * @returns the command's exit code; 130 if a signal ended it
 */
export async function runOnMachine(...command: readonly string[]): Promise<number> {
  await buildNodeTools();
  // A node within a node: the outer caretaker removes the groups of both, because the inner one may end with the outer node.
  const outer = process.env[CGROUP];
  const cgroup = outer === undefined ? `ecr-anywhere-node-${process.pid}` : `${outer}.${process.pid}`;
  const caretaker = spawn('sh', [path('caretaker.sh'), cgroup], {
    stdio: ['pipe', 'ignore', 'inherit'],
    // Ctrl-C must not end it before it has removed everything.
    detached: true,
  });
  for (const root of cgroupRoots()) mkdirSync(join(root, cgroup), { recursive: true });
  const node = spawn(
    'unshare',
    [...UNSHARE, 'sh', path('enter.sh'), nodeTools().packages, ADDRESS, SERVICES, ...command],
    { stdio: 'inherit', env: { ...process.env, [CGROUP]: cgroup } },
  );
  caretaker.stdin.write(`${node.pid}\n`);
  let signalled = false;
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const)
    process.on(signal, () => {
      signalled = true;
      node.kill('SIGKILL');
    });
  const [code] = await once(node, 'exit');
  // An empty line: no process is left to end, and another one may get its id.
  caretaker.stdin.end('\n');
  const [removed] = await once(caretaker, 'exit');
  // The command had no time to show the cursor again that its progress listing had hidden.
  if (signalled && process.stdout.isTTY) process.stdout.write('\u001b[?25h');
  return signalled ? 130 : (code ?? 1) || removed;
}
