// Benchmarks a refresh of 500 due Secrets through API server, policies and webhook, against bare PATCH requests without
// webhook and policies; and a run in which no Secret is due.
import pMap from 'p-map';
import { Pool } from 'undici';
import { SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { KubernetesApi } from '../../functions/refresher/kubernetes/client.ts';
import { PATCHES_AT_ONCE, refreshCluster } from '../../functions/refresher/run/cluster.ts';
import type { ClusterReport } from '../../functions/refresher/run/cluster-report.ts';
import { type ClusterAccess, readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';
import { startAwsEndpoint } from '../bed/aws-endpoint.ts';
import { startControlPlane } from '../bed/control-plane.ts';
import { installWebhook, refresherKubeconfig } from '../bed/webhook.ts';
import { median, type Row } from './table.ts';

const SECRETS = 500;
const ROUNDS = 5;
const HOUR_S = 3600;

/** Measures both runs. */
export async function benchRefresh(dir: string): Promise<Row[]> {
  await using ecr = await startAwsEndpoint();
  await using cluster = await startControlPlane({ name: 'bench', dir });
  await using _ = await installWebhook(cluster, { ecrUrl: ecr.url });
  await cluster.kubectl(['create', 'namespace', 'managed']);
  await cluster.kubectl(['label', 'namespace', 'managed', 'ecr-anywhere.centml.ai/namespace=enabled']);
  await cluster.kubectl(['create', 'namespace', 'bare']);
  const admin = readKubeconfig(await cluster.kubeconfigFor('bench', ['system:masters']));
  const refresher = readKubeconfig(await refresherKubeconfig(cluster));

  const pool = new Pool(admin.server, {
    connections: PATCHES_AT_ONCE,
    connect: { ca: admin.ca ?? '', ...('cert' in admin.identity && admin.identity) },
  });
  const send = async (method: 'POST' | 'PATCH', path: string, type: string, body: unknown) => {
    const headers = {
      'content-type': type,
      accept: 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1',
    };
    const answer = await pool.request({ method, path, headers, body: JSON.stringify(body) });
    const text = await answer.body.text();
    if (answer.statusCode >= 300) throw new Error(`${method} ${path}: HTTP ${answer.statusCode}: ${text}`);
  };
  const each = (task: (index: number) => Promise<void>) =>
    pMap(
      Array.from({ length: SECRETS }, (_, index) => index),
      task,
      { concurrency: PATCHES_AT_ONCE },
    );

  // As large as a managed Secret, so that the API server's work is comparable.
  const config = JSON.stringify({
    auths: { 'registry.example.com': { username: 'AWS', password: 'x'.repeat(1_750) } },
  });
  const data = { '.dockerconfigjson': Buffer.from(config).toString('base64') };
  await each((index) =>
    send('POST', '/api/v1/namespaces/bare/secrets', 'application/json', {
      metadata: { name: `s-${index}` },
      type: SECRET_TYPE,
      data,
    }),
  );
  ecr.settings.lifetimeSeconds = HOUR_S;
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  await each((index) =>
    send('POST', '/api/v1/namespaces/managed/secrets', 'application/json', {
      metadata: { name: `s-${index}`, labels },
      type: SECRET_TYPE,
    }),
  );

  const refresh = async (force: boolean): Promise<{ ms: number; report: ClusterReport; calls: number }> => {
    const callsBefore = ecr.calls.length;
    const startedAt = performance.now();
    const signal = AbortSignal.timeout(120_000);
    await using api = new KubernetesApi(refresher as ClusterAccess, PATCHES_AT_ONCE, signal);
    const report = await refreshCluster('bench', api, { dryRun: false, force }, Date.now(), signal);
    return { ms: performance.now() - startedAt, report, calls: ecr.calls.length - callsBefore };
  };

  const rounds: { bareMs: number; dueMs: number; freshMs: number }[] = [];
  for (let round = 0; round <= ROUNDS; round++) {
    const mark = new Date().toISOString();
    const startedAt = performance.now();
    await each((index) =>
      send('PATCH', `/api/v1/namespaces/bare/secrets/s-${index}`, 'application/merge-patch+json', {
        metadata: { annotations: { 'example.com/mark': mark } },
      }),
    );
    const bareMs = performance.now() - startedAt;
    ecr.settings.lifetimeSeconds = 12 * HOUR_S;
    const due = await refresh(false);
    expectOutcome(due.report, SECRETS, due.calls, 1);
    const fresh = await refresh(false);
    expectOutcome(fresh.report, 0, fresh.calls, 0);
    if (round > 0) rounds.push({ bareMs, dueMs: due.ms, freshMs: fresh.ms }); // the first one warms up
    ecr.settings.lifetimeSeconds = HOUR_S; // a forced token that is due at once, for the next round
    await refresh(true);
  }
  await pool.close();
  const seconds = (values: number[]) => `${(median(values) / 1000).toFixed(2)} s`;
  return [
    {
      what: `${SECRETS} due Secrets (one ECR call) against ${SECRETS} bare PATCHes`,
      floor: seconds(rounds.map(({ bareMs }) => bareMs)),
      ours: seconds(rounds.map(({ dueMs }) => dueMs)),
      ratio: median(rounds.map(({ bareMs, dueMs }) => bareMs / dueMs)),
      aim: 0.5,
    },
    {
      what: `${SECRETS} fresh Secrets (no write, no ECR call)`,
      floor: '',
      ours: seconds(rounds.map(({ freshMs }) => freshMs)),
    },
  ];
}

function expectOutcome(report: ClusterReport, refreshed: number, calls: number, expectedCalls: number): void {
  const got = report.results.filter(({ outcome }) => outcome === 'refreshed').length;
  if (report.failed || got !== refreshed || calls !== expectedCalls) {
    throw new Error(
      `expected ${refreshed} refreshed with ${expectedCalls} ECR calls; got ${got} with ${calls}: ${report.reason}`,
    );
  }
}
