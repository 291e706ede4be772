// `npm run test:node`: runs the tests of this folder on a whole Kubernetes node: containerd, kubelet, kube-proxy, and Pods
// that pull their images. Arguments go to vitest, except for --if-possible.
import { fileURLToPath } from 'node:url';
import { obstacle, runOnMachine } from './machine.ts';

const IF_POSSIBLE = '--if-possible';
const CONFIG = fileURLToPath(new URL('./vitest.config.ts', import.meta.url));

const args = process.argv.slice(2);
const reason = obstacle();
if (reason === undefined) {
  const forVitest = args.filter((arg) => arg !== IF_POSSIBLE);
  process.exitCode = await runOnMachine('vitest', 'run', '--config', CONFIG, ...forVitest);
} else if (args.includes(IF_POSSIBLE)) {
  console.log(`A whole node cannot run here: ${reason}. Skipped, because of ${IF_POSSIBLE}.`);
} else {
  console.error(
    `✖ A whole node cannot run here: ${reason}. To go without, run "npm run test:node -- ${IF_POSSIBLE}".`,
  );
  process.exitCode = 1;
}
