// `npm run demo`: shows the main job on the test bed, or with --node on a whole Kubernetes node, with Pods that pull.
import { fileURLToPath } from 'node:url';

if (process.argv.includes('--node')) {
  const { obstacle, runOnMachine } = await import('./node/machine.ts');
  const reason = obstacle();
  if (reason === undefined) {
    const demo = fileURLToPath(new URL('./node/demo.ts', import.meta.url));
    process.exitCode = await runOnMachine(process.execPath, demo, ...process.argv.slice(2));
  } else {
    console.error(
      `✖ A whole node cannot run here: ${reason}. "npm run demo" shows everything but the Pods, and needs none of it.`,
    );
    process.exitCode = 1;
  }
} else {
  await import('./bed/demo.ts');
}
