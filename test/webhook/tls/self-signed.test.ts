// tls.mode self on a real API server: two replicas of the bundle behind the chart's Service renew and replace certificates
// while admissions go on.
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { certificatesIn } from '../../../lib/kubernetes/trust.ts';
import type { KeyPair } from '../../../webhook/tls/tls.ts';
import { newAuthority, newServing } from '../../../webhook/tls/x509.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import type { Pod } from '../../bed/kubelet.ts';
import { type Replicas, startReplicas } from '../../bed/replicas.ts';
import { NAMESPACE, prepareNamespace, RELEASE, runHelm, SERVICE_PORT } from '../../bed/webhook.ts';
import { type VirtualClock, virtualClock } from '../../virtual-clock.ts';
import { type Admissions, startAdmissions, tryToCreate } from '../admissions.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const SECRET = `/api/v1/namespaces/${NAMESPACE}/secrets/${RELEASE}-self-tls`;
const CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${RELEASE}`;
const NAME = `${RELEASE}.${NAMESPACE}.svc`;
/** A replica looks twice at the clock in this time. */
const TWO_TICKS_MS = 12_000;
const POLL = { timeout: 30_000, interval: 50 };

let stack: AsyncDisposableStack;
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let admin: Admin;
let clock: VirtualClock;

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-tls-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  ecr = stack.use(await startAwsEndpoint());
  cluster = stack.use(await startControlPlane({ name: 'tls', dir }));
  ({ admin } = stack.use(await connectAdmin(cluster)));
  clock = virtualClock(join(dir, 'clock'));
  await prepareNamespace(cluster);
  await runHelm(cluster, ['install', RELEASE], {});
});
afterAll(() => stack.disposeAsync());

const start = (count = 2, beforeReady?: (logs: () => string) => Promise<void>) =>
  startReplicas(cluster, {
    ...{ count, ecrUrl: ecr.url, env: clock.env, nodeArgs: clock.nodeArgs },
    ...(beforeReady && { beforeReady }),
  });

/** The decoded data of the Secret. */
async function stored(): Promise<Record<string, string>> {
  const { data = {} } = await admin<{ data?: Record<string, string> }>('GET', SECRET);
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
  );
}

/** Writes keys of the Secret as the administrator; null removes a key. */
async function store(data: Readonly<Record<string, string | null>>): Promise<void> {
  const encoded = Object.entries(data).map(([key, value]) => [
    key,
    value === null ? null : Buffer.from(value).toString('base64'),
  ]);
  await admin('PATCH', SECRET, { data: Object.fromEntries(encoded) });
}

/** The authorities in caBundle. */
async function trusted(): Promise<string[]> {
  const { webhooks } = await admin<{ webhooks: { clientConfig: { caBundle?: string } }[] }>(
    'GET',
    CONFIGURATION,
  );
  return certificatesIn(Buffer.from(webhooks[0]?.clientConfig.caBundle ?? '', 'base64').toString()).map(
    (pem) => pem.trim(),
  );
}

/** The certificate that a pod serves on a new connection. */
function served({ ip }: Pod): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ host: ip, port: SERVICE_PORT, rejectUnauthorized: false }, () => {
      resolve(socket.getPeerX509Certificate()?.toString().trim() ?? '');
      socket.destroy();
    });
    socket.on('error', reject);
  });
}

const allServe = async ({ pods }: Replicas, cert: string | undefined) =>
  (await Promise.all(pods.map(served))).every((shown) => shown === cert?.trim());

async function removeCertificates(): Promise<void> {
  await admin('PATCH', SECRET, { data: null });
  const [{ clientConfig, ...webhook }] = (
    await admin<{ webhooks: [{ clientConfig: Record<string, unknown> }] }>('GET', CONFIGURATION)
  ).webhooks;
  const { caBundle: _, ...rest } = clientConfig;
  await admin('PATCH', CONFIGURATION, { webhooks: [{ ...webhook, clientConfig: rest }] });
}

describe('two replicas that start at the same time without certificates', () => {
  test.each([1, 2, 3])('agree on one authority, attempt %i', async () => {
    await removeCertificates();
    await using replicas = await start();
    const { 'ca.crt': ca = '', 'tls.crt': cert = '', ...rest } = await stored();
    expect(Object.keys(rest).sort()).toEqual(['ca.key', 'tls.key']);
    expect(await trusted()).toEqual([ca.trim()]);
    await expect.poll(() => allServe(replicas, cert), POLL).toBe(true);
    await tryToCreate(admin, await team());
    // One of them made it; the other one took it.
    expect(replicas.logs().match(/"what":"new authority"/g)).toHaveLength(1);
    const certificate = new X509Certificate(cert);
    expect(certificate.subjectAltName).toBe(`DNS:${NAME}`);
    expect(certificate.verify(new X509Certificate(ca).publicKey)).toBe(true);
    const years = (new X509Certificate(ca).validToDate.getTime() - Date.now()) / (365 * DAY);
    expect(years).toBeGreaterThan(9.9);
    expect(certificate.validToDate.getTime() - Date.now()).toBeLessThan(31 * DAY);
  });
});

async function team(): Promise<string> {
  await using _ = await startAdmissions(cluster);
  return 'stream';
}

describe('during admissions', () => {
  let replicas: Replicas;
  let admissions: Admissions;

  beforeAll(async () => {
    replicas = await start();
    admissions = await startAdmissions(cluster);
    await admissions.more(20);
  });
  afterAll(async () => {
    await admissions[Symbol.asyncDispose]();
    await replicas[Symbol.asyncDispose]();
  });
  beforeEach(() => admissions.forgetFailures());
  /** Every admission succeeded, and admissions still succeed after the test. */
  afterEach(async () => {
    await admissions.more(40);
    expect(admissions.failures).toEqual([]);
  });

  const authority = async (): Promise<KeyPair> => {
    const { 'ca.crt': cert = '', 'ca.key': key = '' } = await stored();
    return { cert, key };
  };
  const isSame = (a: KeyPair, b: KeyPair) => a.cert === b.cert && a.key === b.key;
  const isServed = (cert: string | undefined) =>
    expect.poll(async () => cert !== undefined && (await allServe(replicas, cert)), POLL).toBe(true);

  test('renews a serving certificate with less than a third of its lifetime left', async () => {
    const before = await authority();
    const old = await newServing(before, NAME, Date.now() - 20 * DAY - MINUTE);
    await store({ 'tls.crt': old.cert, 'tls.key': old.key });
    await expect.poll(async () => (await stored())['tls.crt'] !== old.cert, POLL).toBe(true);
    await isServed((await stored())['tls.crt']);
    expect(await authority()).toEqual(before);
    expect(await trusted()).toEqual([before.cert.trim()]);
  });

  test('renews a serving certificate after both replicas were suspended', async () => {
    const nearly = await newServing(await authority(), NAME, Date.now() - 20 * DAY + 60 * MINUTE);
    await store({ 'tls.crt': nearly.cert, 'tls.key': nearly.key });
    await isServed(nearly.cert);
    // No replica can renew while both are suspended, and no admission would be answered.
    await admissions[Symbol.asyncDispose]();
    for (const { program } of replicas.pods) program.signal('SIGSTOP');
    clock.advance(61 * MINUTE);
    for (const { program } of replicas.pods) program.signal('SIGCONT');
    await expect.poll(async () => (await stored())['tls.crt'] !== nearly.cert, POLL).toBe(true);
    admissions = await startAdmissions(cluster);
    await isServed((await stored())['tls.crt']);
  });

  test('replaces the authority in three steps after the rotate-ca annotation changed', async () => {
    const old = await authority();
    await admin('PATCH', SECRET, {
      metadata: { annotations: { 'ecr-anywhere.centml.ai/rotate-ca': new Date().toISOString() } },
    });
    await expect.poll(async () => (await trusted()).length === 2, POLL).toBe(true);
    const { 'next-ca.crt': next = '' } = await stored();
    expect(await trusted()).toEqual([old.cert.trim(), next.trim()]);
    // The API servers trust the next authority, and it signs nothing yet.
    await sleep(TWO_TICKS_MS);
    expect(await authority()).toEqual(old);

    clock.advance(5 * MINUTE);
    await expect.poll(async () => (await stored())['ca.crt'] === next, POLL).toBe(true);
    const { 'tls.crt': cert = '' } = await stored();
    expect(new X509Certificate(cert).verify(new X509Certificate(next).publicKey)).toBe(true);
    await isServed(cert);
    expect((await trusted()).sort()).toEqual([old.cert.trim(), next.trim()].sort());

    clock.advance(5 * MINUTE);
    await expect.poll(async () => (await trusted()).length === 1, POLL).toBe(true);
    expect(await trusted()).toEqual([next.trim()]);
    expect(Object.keys(await stored()).sort()).toEqual(['ca.crt', 'ca.key', 'rotated', 'tls.crt', 'tls.key']);
    // The same annotation value starts no second replacement.
    await sleep(TWO_TICKS_MS);
    expect((await authority()).cert).toBe(next);
  }, 120_000);

  test.each([
    {
      what: 'without any data',
      data: async () => ({ 'ca.crt': null, 'ca.key': null, 'tls.crt': null, 'tls.key': null }),
    },
    { what: 'with an invalid authority', data: async () => ({ 'ca.crt': 'garbage' }) },
    { what: 'without the key of the authority', data: async () => ({ 'ca.key': null }) },
    {
      what: 'with another key for the authority',
      data: async () => ({ 'ca.key': (await newAuthority(Date.now())).key }),
    },
    {
      what: 'with an expired authority',
      data: async () => {
        const { cert, key } = await newAuthority(Date.now() - 3_651 * DAY);
        return { 'ca.crt': cert, 'ca.key': key };
      },
    },
    {
      what: 'with a serving certificate as authority',
      data: async () => {
        const { 'tls.crt': cert = '', 'tls.key': key = '' } = await stored();
        return { 'ca.crt': cert, 'ca.key': key };
      },
    },
  ])('restores the authority from the replicas to a Secret $what', async ({ data }) => {
    const before = await authority();
    await store(await data());
    await expect.poll(async () => isSame(await authority(), before), POLL).toBe(true);
    expect(await trusted()).toEqual([before.cert.trim()]);
  });

  test('restores a deleted Secret with the same authority', async () => {
    const before = await authority();
    await admin('DELETE', SECRET);
    await expect
      .poll(async () => (await authority().catch(() => undefined))?.cert === before.cert, POLL)
      .toBe(true);
    // Helm can still upgrade the release.
    await runHelm(cluster, ['upgrade', RELEASE], {});
    expect(await authority()).toEqual(before);
  });

  test.each([
    { what: 'invalid', pair: async () => ({ cert: 'garbage', key: 'garbage' }) },
    { what: 'expired', pair: async () => newServing(await authority(), NAME, Date.now() - 31 * DAY) },
    { what: 'for another name', pair: async () => newServing(await authority(), 'x.y.svc', Date.now()) },
    {
      what: 'signed by another authority',
      pair: async () => newServing(await newAuthority(Date.now()), NAME, Date.now()),
    },
    {
      what: 'stored with another key',
      pair: async () => ({
        cert: (await newServing(await authority(), NAME, Date.now())).cert,
        key: (await newServing(await authority(), NAME, Date.now())).key,
      }),
    },
  ])('replaces a serving certificate that is $what', async ({ pair }) => {
    const { cert, key } = await pair();
    await store({ 'tls.crt': cert, 'tls.key': key });
    await expect.poll(async () => (await stored())['tls.crt'] !== cert, POLL).toBe(true);
    await isServed((await stored())['tls.crt']);
  });

  test('drops an invalid next authority', async () => {
    const before = await authority();
    await store({ 'next-ca.crt': 'garbage' });
    await expect.poll(async () => !('next-ca.crt' in (await stored())), POLL).toBe(true);
    expect(await authority()).toEqual(before);
  });
});

describe('replicas', () => {
  test.each([
    { what: 'another authority', caBundle: async () => (await newAuthority(Date.now())).cert },
    { what: 'nothing', caBundle: async () => undefined },
  ])('restore a caBundle that was overwritten with $what', async ({ caBundle }) => {
    await using _ = await start();
    const before = await trusted();
    const [webhook] = (
      await admin<{ webhooks: [{ clientConfig: Record<string, unknown> }] }>('GET', CONFIGURATION)
    ).webhooks;
    const pem = await caBundle();
    const clientConfig = {
      ...webhook.clientConfig,
      caBundle: pem === undefined ? undefined : Buffer.from(pem).toString('base64'),
    };
    await admin('PATCH', CONFIGURATION, { webhooks: [{ ...webhook, clientConfig }] });
    await expect.poll(async () => (await trusted()).join() === before.join(), POLL).toBe(true);
    await expect
      .poll(
        () =>
          tryToCreate(admin).then(
            () => true,
            () => false,
          ),
        POLL,
      )
      .toBe(true);
  });

  test('of mode self leave the caBundle of another mode alone, and are not ready', async () => {
    await using replicas = await start(1);
    const [pod] = replicas.pods as [Pod];
    const ours = await trusted();
    const theirs = (await newAuthority(Date.now())).cert;
    const key = 'ecr-anywhere.centml.ai/tls-mode';
    const [webhook] = (
      await admin<{ webhooks: [{ clientConfig: Record<string, unknown> }] }>('GET', CONFIGURATION)
    ).webhooks;
    const caBundle = Buffer.from(theirs).toString('base64');
    await admin('PATCH', CONFIGURATION, {
      metadata: { annotations: { [key]: 'provided' } },
      webhooks: [{ ...webhook, clientConfig: { ...webhook.clientConfig, caBundle } }],
    });
    await expect.poll(async () => !(await pod.isReady()), POLL).toBe(true);
    await sleep(TWO_TICKS_MS);
    expect(await trusted()).toEqual([theirs.trim()]);
    await admin('PATCH', CONFIGURATION, { metadata: { annotations: { [key]: 'self' } } });
    await expect.poll(async () => (await trusted()).join() === ours.join(), POLL).toBe(true);
    await expect.poll(() => pod.isReady(), POLL).toBe(true);
  });

  test('replace expired certificates at their start', async () => {
    const authority = await newAuthority(Date.now() - 3_651 * DAY);
    const { cert, key } = await newServing(authority, NAME, Date.now() - 40 * DAY);
    await store({ 'ca.crt': authority.cert, 'ca.key': authority.key, 'tls.crt': cert, 'tls.key': key });
    await using replicas = await start();
    await tryToCreate(admin);
    expect(replicas.logs()).toContain('ca.crt has expired');
  });

  test('without their role are not ready and log the cause; with it, they are ready', async () => {
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}/roles/${RELEASE}`;
    const { rules } = await admin<{ rules: unknown[] }>('GET', role);
    await admin('PATCH', role, { rules: [] });
    await using replicas = await start(1, async (logs) => {
      await expect.poll(() => logs().includes('certificate upkeep failed'), POLL).toBe(true);
      await admin('PATCH', role, { rules });
    });
    expect(replicas.logs()).toMatch(/403: secrets .*is forbidden/);
    await tryToCreate(admin);
  });

  test('that lose their role still serve their certificate, and a metric reports the failure', async () => {
    await using replicas = await start(1);
    const [pod] = replicas.pods as [Pod];
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}/roles/${RELEASE}`;
    const { rules } = await admin<{ rules: unknown[] }>('GET', role);
    await admin('PATCH', role, { rules: [] });
    // A change of the Secret has it read.
    await admin('PATCH', SECRET, { metadata: { annotations: { change: 'any' } } });
    await expect
      .poll(async () => /^ecr_anywhere_certificate_failing 1$/m.test(await pod.metrics()), POLL)
      .toBe(true);
    expect(await pod.isReady()).toBe(true);
    await tryToCreate(admin);
    await admin('PATCH', role, { rules });
    await expect
      .poll(async () => /^ecr_anywhere_certificate_failing 0$/m.test(await pod.metrics()), POLL)
      .toBe(true);
    const expiry = /^ecr_anywhere_certificate_expiry_timestamp_seconds (.*)$/m.exec(await pod.metrics())?.[1];
    expect(Number(expiry) * 1000).toBe(new X509Certificate(await served(pod)).validToDate.getTime());
  });
});
