// A cluster whose certificates are of an intermediate authority, and whose kubeconfigs and kube-root-ca.crt contain that
// authority without its root. kubectl, the API server and the kubelet accept that, so every part of this project must.
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { Kubernetes } from '../../cli/kubernetes/client.ts';
import { buildWebhook } from '../../webhook/build.ts';
import { createAuthority } from '../bed/certificates.ts';
import { helm } from '../bed/helm.ts';
import { runPodToItsEnd } from '../bed/kubelet.ts';
import { NAMESPACE, RELEASE, serviceAddress } from '../bed/webhook.ts';
import { HOUR, outcomesOf, type RealCluster, startRealCluster } from '../functions/real-cluster.ts';

let cluster: RealCluster;

beforeAll(async () => {
  const root = await createAuthority('root');
  // The webhook's own certificates: the webhook obtains one only if it trusts the API server.
  cluster = await startRealCluster({ authority: await root.intermediate('intermediate') });
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

test('kubectl connects', async () => {
  expect((await cluster.controlPlane.kubectl(['version'])).stdout).toContain('Server Version');
});

test('the refresher connects, and the webhook injects credentials', async () => {
  await cluster.createNamespace('team');
  await cluster.createSecrets([{ namespace: 'team', name: 'due' }]);
  await cluster.age(new Map([['team/due', HOUR]]));
  await cluster.restartWebhook();
  expect(outcomesOf(await cluster.refresh())).toEqual({ refreshed: 1 });
});

test('the command line connects', async () => {
  const { adminKubeconfigPath } = cluster.controlPlane;
  const options = { kubeconfig: adminKubeconfigPath };
  const kubernetes = Kubernetes.load(options, AbortSignal.timeout(20_000));
  expect(await kubernetes.get('/version')).toMatchObject({ body: { gitVersion: expect.any(String) } });
});

test('helm test connects', async () => {
  const { controlPlane } = cluster;
  const verify = join(controlPlane.dir, 'verify.mjs');
  await buildWebhook(verify, 'webhook/verify.ts');
  const services = { [`${RELEASE}.${NAMESPACE}.svc`]: await serviceAddress(controlPlane) };
  const [, { code, stdout }] = await Promise.all([
    helm(['test', RELEASE, '--namespace', NAMESPACE, '--timeout', '60s'], { cluster: controlPlane }),
    runPodToItsEnd(controlPlane, NAMESPACE, `${RELEASE}-test`, verify, services),
  ]);
  expect(stdout).toContain('The webhook is ready');
  expect(code).toBe(0);
});
