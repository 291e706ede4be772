// Copies CustomResourceDefinitions out of the Go modules that go.mod pins into the folder that is given. They come
// as Go modules because go then holds them to go.sum: one proxy, check and cache for all that is built here.
import { spawnSync } from 'node:child_process';
import { copyFileSync, globSync, mkdirSync } from 'node:fs';
import { basename, join } from 'node:path';

/** By module, which files of it. */
const FILES: Readonly<Record<string, string>> = {
  'github.com/cert-manager/cert-manager': 'deploy/crds/*.yaml',
  'github.com/cilium/cilium': 'pkg/k8s/apis/cilium.io/client/crds/v2/ciliumnetworkpolicies.yaml',
  // Three of ten: all together are 4 MB.
  'github.com/prometheus-operator/prometheus-operator':
    'example/prometheus-operator-crd/*_{podmonitors,prometheusrules,servicemonitors}.yaml',
};

function go(...args: string[]): string {
  const { status, stdout } = spawnSync('go', args, {
    cwd: import.meta.dirname,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) process.exit(1);
  return stdout.trim();
}

const [target] = process.argv.slice(2);
if (!target) throw new Error('the folder to copy to is missing');
mkdirSync(target, { recursive: true });
for (const [module, pattern] of Object.entries(FILES)) {
  // What go.mod pins, where go.sum agrees.
  go('mod', 'download', module);
  const folder = go('list', '-m', '-f', '{{.Dir}}', module);
  const files = globSync(pattern, { cwd: folder });
  if (files.length === 0) throw new Error(`${module} has no ${pattern}`);
  for (const file of files) copyFileSync(join(folder, file), join(target, basename(file)));
}
