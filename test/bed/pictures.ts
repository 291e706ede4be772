// `npm run pictures`: draws the README's pictures. Those of the command line show its output on the test bed, with healthy,
// failing, unreachable and paused clusters; that of the dashboard shows the template. "npm run pictures -- dashboard" draws
// the latter only, and needs no test bed.
import { execFile } from 'node:child_process';
import { mkdir, readFile, writeFile } from 'node:fs/promises';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import type { ListrTask } from 'listr2';
import { NAMESPACE_LABEL, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { startCommandLine } from '../cli/command-line.ts';
import { drawDashboard } from '../infra/dashboard-picture.ts';
import { widgetsOf } from '../infra/dashboard-widgets.ts';
import { deployed } from '../infra/synth.ts';
import { runSteps } from './progress.ts';
import { tools } from './toolchain.ts';
import { Bed } from './up.ts';

const IMAGES = fileURLToPath(new URL('../../docs/images/', import.meta.url));
const DRAW = fileURLToPath(new URL('./terminal-picture.py', import.meta.url));
const COLUMNS = 118;
/** A token lifetime that makes a Secret due and shows as expiring. */
const SHORT_LIFE_S = 2 * 3600;

await mkdir(IMAGES, { recursive: true });
await writeFile(join(IMAGES, 'dashboard.svg'), drawDashboard(widgetsOf(deployed())));
if (process.argv[2] === 'dashboard') process.exit(0);

const stack = new AsyncDisposableStack();
const bed = stack.use(
  await Bed.create({
    clusters: ['prod', 'edge'],
    context: { scheduleEnabled: false, clusterDeadlineSeconds: 10 },
    registersClusters: false,
  }),
);
const command = { line: undefined as Awaited<ReturnType<typeof startCommandLine>> | undefined };
const line = () => {
  if (!command.line) throw new Error('the command line is not built yet');
  return command.line;
};

const steps: ListrTask[] = [
  ...bed.tasks(),
  {
    title: 'Namespaces and Secrets',
    task: async () => {
      for (const name of ['prod', 'edge']) await apply(name, 'team-a');
    },
  },
  {
    title: 'ecr-anywhere register',
    task: async () => {
      command.line = stack.use(
        await startCommandLine({ ...bed.operatorEnv, KUBECONFIG: await kubeconfigs(['prod', 'edge']) }),
      );
      for (const name of ['prod', 'edge']) await ecrAnywhere('register', name, '--context', name);
      // Two more registrations: a cluster that is switched off, and one that is paused.
      const kubeconfig = await bed
        .cluster('prod')
        .controlPlane.kubeconfigFor('spare', ['ecr-anywhere:refreshers']);
      await bed.deployment.registerCluster(
        'gpu-cloud',
        kubeconfig.replace(/server: .*/, 'server: https://127.0.0.1:1'),
      );
      await bed.deployment.registerCluster('lab', kubeconfig);
      await ecrAnywhere('pause', 'lab');
    },
  },
  {
    title: 'Three runs; before the last two, edge gets a Secret that is due, and its webhook ends',
    task: async () => {
      await bed.deployment.invoke();
      const { webhook } = bed.cluster('edge');
      // A restarted webhook has no cached token.
      await webhook.program.stop();
      await webhook.start();
      bed.ecr.settings.nextLifetimesSeconds = [SHORT_LIFE_S];
      await apply('edge', 'team-b');
      await webhook.program.stop();
      await bed.deployment.invoke();
      await bed.deployment.invoke();
    },
  },
  {
    title: 'Draw docs/images',
    task: async () => {
      await draw('status', ['status']);
      await draw('doctor', ['doctor', 'edge', '--context', 'edge']);
    },
  },
];

try {
  await runSteps(steps);
} finally {
  await stack.disposeAsync();
}
process.exit(0);

/** Writes a kubeconfig with one context per cluster, named after it. */
async function kubeconfigs(names: readonly string[]): Promise<string> {
  const paths = names.map(async (name) => {
    const path = join(bed.dir, `${name}.kubeconfig`);
    const kubeconfig = await readFile(bed.cluster(name).controlPlane.adminKubeconfigPath, 'utf8');
    await writeFile(path, kubeconfig.replaceAll(/: bed$/gm, `: ${name}`), { mode: 0o600 });
    return path;
  });
  return (await Promise.all(paths)).join(delimiter);
}

/** Creates an enabled namespace with a managed Secret. */
async function apply(cluster: string, namespace: string): Promise<void> {
  const objects = [
    {
      apiVersion: 'v1',
      kind: 'Namespace',
      metadata: { name: namespace, labels: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } },
    },
    {
      apiVersion: 'v1',
      kind: 'Secret',
      type: SECRET_TYPE,
      metadata: { name: 'ecr', namespace, labels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
    },
  ];
  for (const object of objects)
    await bed.cluster(cluster).controlPlane.kubectl(['apply', '-f', '-'], { input: JSON.stringify(object) });
}

async function ecrAnywhere(...args: string[]): Promise<void> {
  const { code, stderr } = await line().run(args);
  if (code !== 0) throw new Error(`ecr-anywhere ${args.join(' ')}: ${stderr}`);
}

/** Draws a command's output. */
async function draw(name: string, args: readonly string[]): Promise<void> {
  const file = join(IMAGES, `${name}.svg`);
  const title = `ecr-anywhere ${args.join(' ')}`;
  await promisify(execFile)(tools().python, [DRAW, file, title, String(COLUMNS), line().bundle, ...args], {
    env: { ...line().env, TERM: 'xterm-256color' },
  });
}
