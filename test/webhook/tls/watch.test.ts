// The webhook follows its own objects by watches: it sends few requests, and misses no change while a watch is broken. The
// audit log of a real API server has every request. The webhook's timers are so fast that reads at intervals would show.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { newAuthority } from '../../../webhook/tls/x509.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import type { Pod } from '../../bed/kubelet.ts';
import { type Replicas, startReplicas } from '../../bed/replicas.ts';
import { NAMESPACE, prepareNamespace, RELEASE, runHelm } from '../../bed/webhook.ts';
import { startTcpProxy, type TcpProxy } from './tcp-proxy.ts';

const WEBHOOK = `system:serviceaccount:${NAMESPACE}:${RELEASE}`;
const SECRETS = `/api/v1/namespaces/${NAMESPACE}/secrets`;
const CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${RELEASE}`;
const RBAC = '/apis/rbac.authorization.k8s.io/v1';
const ROLES = [`${RBAC}/namespaces/${NAMESPACE}/roles/${RELEASE}`, `${RBAC}/clusterroles/${RELEASE}`];
/** The objects that the webhook watches. */
const OBJECTS = [RELEASE, `${RELEASE}-self-tls`, `${RELEASE}-caller-proof`];
const POLL = { timeout: 30_000, interval: 50 };
const AUDIT_POLICY = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: Metadata, users: ['${WEBHOOK}']}]
`;
/** A second of the webhook's timers is two milliseconds. */
const FAST = {
  env: { FAST_TIMERS: '500' },
  nodeArgs: ['--import', fileURLToPath(new URL('../../fast-timers.ts', import.meta.url))],
};

interface Audited {
  readonly verb: string;
  readonly name: string;
  readonly stage: string;
  readonly code: number;
}

let stack: AsyncDisposableStack;
let cluster: ControlPlane;
let admin: Admin;
let proxy: TcpProxy;
let replicas: Replicas;
let pod: Pod;
let auditLog: string;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-watch-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  const ecr = stack.use(await startAwsEndpoint());
  const auditPolicy = join(dir, 'audit-policy.yaml');
  auditLog = join(dir, 'audit.log');
  await writeFile(auditPolicy, AUDIT_POLICY);
  const extraArgs = [
    ...[`--audit-policy-file=${auditPolicy}`, `--audit-log-path=${auditLog}`],
    // A watch that begins at a version that it has seen would find it compacted.
    '--etcd-compaction-interval=1s',
  ];
  cluster = stack.use(await startControlPlane({ name: 'watch', dir, extraArgs }));
  ({ admin } = stack.use(await connectAdmin(cluster)));
  await prepareNamespace(cluster);
  await runHelm(cluster, ['install', RELEASE], {});
  proxy = stack.use(await startTcpProxy(cluster.server));
  replicas = stack.use(
    await startReplicas(cluster, {
      count: 1,
      ecrUrl: ecr.url,
      nodeArgs: FAST.nodeArgs,
      env: { ...FAST.env, KUBERNETES_SERVICE_PORT: String(proxy.port) },
    }),
  );
  [pod] = replicas.pods as [Pod];
});
afterAll(() => stack.disposeAsync());

/** The webhook's requests, oldest first. */
async function audited(): Promise<Audited[]> {
  const lines = (await readFile(auditLog, 'utf8')).split('\n').filter((line) => line.endsWith('}'));
  return lines.map((line) => {
    const { verb, objectRef, stage, responseStatus } = JSON.parse(line) as {
      verb: string;
      objectRef: { name: string };
      stage: string;
      responseStatus: { code: number };
    };
    return { verb, name: objectRef.name, stage, code: responseStatus.code };
  });
}

/** The requests after the first `since`. */
const requests = async (verb: string, since = 0): Promise<Audited[]> =>
  (await audited()).slice(since).filter((request) => request.verb === verb);

/** Waits until a watch of each object has started after the first `since` requests. */
async function untilWatching(since: number): Promise<void> {
  const started = async () =>
    (await requests('watch', since))
      .filter(({ stage, code }) => stage === 'ResponseStarted' && code === 200)
      .map(({ name }) => name);
  await expect.poll(started, POLL).toEqual(expect.arrayContaining(OBJECTS));
}

interface Configuration {
  readonly webhooks: readonly [{ readonly clientConfig: { readonly caBundle?: string } }];
}
const caBundle = async () =>
  (await admin<Configuration>('GET', CONFIGURATION)).webhooks[0].clientConfig.caBundle;

/** Overwrites caBundle with another authority. kubectl takes as long as many of the webhook's ticks. */
async function spoilCaBundle(): Promise<void> {
  const value = Buffer.from((await newAuthority(Date.now())).cert).toString('base64');
  const patch = [{ op: 'replace', path: '/webhooks/0/clientConfig/caBundle', value }];
  await cluster.kubectl([
    ...['patch', 'mutatingwebhookconfiguration', RELEASE],
    ...['--type=json', `--patch=${JSON.stringify(patch)}`],
  ]);
}

async function expectRepairs(): Promise<void> {
  const right = await caBundle();
  await spoilCaBundle();
  await expect.poll(caBundle, POLL).toBe(right);
}

describe('the webhook', () => {
  test('reads an object when it changed, and not at intervals', async () => {
    await untilWatching(0);
    const since = (await audited()).length;
    const repairs = 10;
    for (let repair = 0; repair < repairs; repair += 1) await expectRepairs();
    const reads = await requests('get', since);
    // One check reads both objects, and another one may find its own write.
    expect(reads.filter(({ name }) => name === RELEASE).length).toBeLessThanOrEqual(2 * repairs);
    expect(reads.filter(({ name }) => name === `${RELEASE}-self-tls`).length).toBeLessThanOrEqual(
      2 * repairs,
    );
    expect(reads.filter(({ name }) => name === `${RELEASE}-caller-proof`)).toEqual([]);
    expect(await requests('patch', since)).toHaveLength(repairs);
    expect(await requests('watch', since)).toEqual([]);
  });

  test('creates a deleted Secret again, with the same authority or a new proof', async () => {
    const certificates = `${SECRETS}/${RELEASE}-self-tls`;
    const { data } = await admin<{ data: Record<string, string> }>('GET', certificates);
    const stored = async (path: string, key: string) =>
      (await admin<{ data?: Record<string, string> }>('GET', path).catch(() => undefined))?.data?.[key];
    await admin('DELETE', certificates);
    await expect.poll(() => stored(certificates, 'ca.crt'), POLL).toBe(data['ca.crt']);
    const proof = `${SECRETS}/${RELEASE}-caller-proof`;
    await admin('DELETE', proof);
    await expect.poll(() => stored(proof, 'proof'), POLL).toBeTypeOf('string');
  });

  test('watches again after its connections broke, and reads each object a few times only', async () => {
    const since = (await audited()).length;
    proxy.cut();
    await untilWatching(since);
    await expectRepairs();
    const started = (await requests('watch', since)).filter(({ stage }) => stage === 'ResponseStarted');
    expect((await requests('get', since)).length).toBeLessThanOrEqual(4 * started.length + 4);
  });

  test('finds what changed while it had no connection', async () => {
    const right = await caBundle();
    await proxy.refuse();
    await spoilCaBundle();
    await expect.poll(() => replicas.logs(), POLL).toMatch(/WATCH .*ECONNREFUSED.*"watch failed"/);
    await proxy.accept();
    await expect.poll(caBundle, POLL).toBe(right);
  });

  test('watches again after the API server was restarted', async () => {
    const since = (await audited()).length;
    await cluster.restartApiServer();
    await untilWatching(since);
    await expectRepairs();
  });

  test('watches again with a valid token after the API server refused an old one', async () => {
    const { SERVICE_ACCOUNT_DIR = '' } = await pod.container.environment();
    await writeFile(join(SERVICE_ACCOUNT_DIR, 'token'), 'old');
    proxy.cut();
    await expect.poll(() => replicas.logs(), POLL).toMatch(/WATCH .*401: Unauthorized.*"watch failed"/);
    const since = (await audited()).length;
    await pod.container.syncVolumes();
    await untilWatching(since);
    await expectRepairs();
  });

  test('reads its objects while it may not watch them', async () => {
    const rules = await Promise.all(
      ROLES.map(async (role) => (await admin<{ rules: { verbs: string[] }[] }>('GET', role)).rules),
    );
    const setVerbs = (isWatching: boolean) =>
      Promise.all(
        ROLES.map((role, index) =>
          admin('PATCH', role, {
            rules: rules[index]?.map((rule) => ({
              ...rule,
              verbs: rule.verbs.filter((verb) => isWatching || verb !== 'watch'),
            })),
          }),
        ),
      );
    await setVerbs(false);
    proxy.cut();
    await expect.poll(() => replicas.logs(), POLL).toMatch(/WATCH .*403: .*forbidden.*"watch failed"/);
    await expectRepairs();
    const since = (await audited()).length;
    await setVerbs(true);
    await untilWatching(since);
  });
});
