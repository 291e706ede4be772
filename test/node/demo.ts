// `npm run demo -- --node`: the README's story on a whole node. A Pod pulls a private image with the Secret that the webhook
// fills, the next one cannot once the credential has expired, and the one after the scheduled refresh can again.
import { createHash } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import Table from 'cli-table3';
import { helm } from '../bed/helm.ts';
import { runSteps } from '../bed/progress.ts';
import { interrupted, pullSecretManifest } from '../bed/up.ts';
import { NAMESPACE, RELEASE } from '../bed/webhook.ts';
import { REFUSED, sideBySide, WholeNode } from './whole-node.ts';

const ENABLED = 'team-a';
const PLAIN = 'team-b';
const WITHIN_MS = 150_000;

interface Row {
  readonly pod: string;
  readonly when: string;
  /** Hash of the password in the Secret that it names. */
  readonly credential: string;
  readonly state: string;
}

const node = await WholeNode.create();
const { registries, images, cluster, aws } = node.steps;
const rows: Row[] = [];

try {
  await runSteps([
    registries,
    sideBySide(images, cluster, aws),
    {
      title: 'helm install --wait, under restricted Pod Security; helm test',
      task: async () => {
        const { kubectl } = node.cluster;
        await kubectl(['create', 'namespace', NAMESPACE]);
        const restricted = 'pod-security.kubernetes.io/enforce=restricted';
        await kubectl(['label', 'namespace', NAMESPACE, restricted]);
        await kubectl(['create', 'namespace', PLAIN]);
        // Due at once: the refresher renews what has less than six hours left.
        node.ecr.settings.lifetimeSeconds = 3600;
        await node.helm('install', { enabled: ['*'] });
        await helm(['test', RELEASE, '--namespace', NAMESPACE, '--timeout=2m'], { cluster: node.cluster });
      },
    },
    {
      title: 'kubectl apply: a Namespace with the label, and a labelled Secret without data',
      task: async () => node.apply(pullSecretManifest(ENABLED)),
    },
    {
      title: 'A Pod with the private image starts',
      task: async () => expectPod(ENABLED, 'first', 'with the new Secret', /^Running$/),
    },
    {
      title: 'The registry expires the credential; a new Pod cannot pull',
      task: async () => {
        node.registries.expireTokens();
        await expectPod(ENABLED, 'second', 'after the credential has expired', REFUSED);
      },
    },
    {
      title: 'The deployed function, on its schedule, has the webhook renew the Secret',
      task: async () => {
        const { password } = await node.credentials(ENABLED, 'pull');
        node.ecr.settings.lifetimeSeconds = 12 * 3600;
        await node.startRefresher();
        await until(async () => (await node.credentials(ENABLED, 'pull')).password !== password);
      },
    },
    {
      title: 'A new Pod starts',
      task: async () => expectPod(ENABLED, 'third', 'after the scheduled refresh', /^Running$/),
    },
    {
      title: 'A Pod in a namespace without the label gets no credential',
      task: async () => expectPod(PLAIN, 'other', 'in a namespace without the label', REFUSED),
    },
  ]);
} catch (error) {
  console.error(`\n✖ ${(error as Error).message}`);
  process.exit(1);
}

const table = new Table({ head: ['Pod', 'created', 'credential', 'state'], style: { head: [], border: [] } });
for (const { pod, when, credential, state } of rows) table.push([pod, when, credential, state]);
console.log(`\n${table}\n(credential: a hash of the password in its Secret)\n`);
if (process.argv.includes('--keep')) {
  console.log(`To look around, in another terminal, as root:
  nsenter --mount --net --pid --target "$(pgrep -n -f '^sh .*/enter\\.sh ')" \\
    env KUBECONFIG=${node.cluster.adminKubeconfigPath} sh
  kubectl get pods,secrets --all-namespaces

Press Ctrl-C to stop.`);
  await interrupted();
} else {
  console.log('To look around while it runs: npm run demo -- --node --keep');
}
await node[Symbol.asyncDispose]();
process.exit(0);

/** Creates a Pod that names the managed Secret, waits for the state, and adds it to the table. */
async function expectPod(namespace: string, name: string, when: string, expected: RegExp): Promise<void> {
  await node.runPod(namespace, name, { pullSecret: 'pull' });
  let state = '';
  await until(async () => {
    state = await node.stateOf(namespace, name);
    return expected.test(state);
  }).catch((error: Error) => {
    throw new Error(`${namespace}/${name} is ${state}`, { cause: error });
  });
  const credential = await hash(namespace);
  const outcome = state === 'Running' ? state : 'ErrImagePull, 401 Unauthorized';
  rows.push({ pod: `${namespace}/${name}`, when, credential, state: outcome });
}

async function hash(namespace: string): Promise<string> {
  if (namespace !== ENABLED) return 'none';
  const { password } = await node.credentials(namespace, 'pull');
  return createHash('sha256').update(password).digest('hex').slice(0, 8);
}

/** Waits for a condition. @throws Error if it does not hold in time */
async function until(holds: () => Promise<boolean>): Promise<void> {
  const deadline = Date.now() + WITHIN_MS;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not within ${WITHIN_MS / 1000} s`);
    await sleep(500);
  }
}
