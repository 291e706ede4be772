// tls.mode self on a real API server: two replicas of the bundle behind the chart's Service, certificates that change
// under a steady stream of admissions.
import { X509Certificate } from 'node:crypto';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'node:tls';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import type { KeyPair } from '../../../webhook/tls/tls.ts';
import { newAuthority, newServing, split } from '../../../webhook/tls/x509.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import type { Pod } from '../../bed/kubelet.ts';
import { type Replicas, startReplicas } from '../../bed/replicas.ts';
import { NAMESPACE, prepareNamespace, RELEASE, runHelm, SERVICE_PORT } from '../../bed/webhook.ts';
import { type VirtualClock, virtualClock } from '../../virtual-clock.ts';
import { type Admissions, startAdmissions, tryToCreate } from '../admissions.ts';
import { eventually } from '../ask.ts';

const MINUTE = 60_000;
const DAY = 24 * 60 * MINUTE;
const SECRET = `/api/v1/namespaces/${NAMESPACE}/secrets/${RELEASE}-self-tls`;
const CONFIGURATION = `/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${RELEASE}`;
const NAME = `${RELEASE}.${NAMESPACE}.svc`;
/** A look every five to six seconds, and what it takes. */
const LOOK_MS = 12_000;

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

/** What is in the Secret, decoded. */
async function stored(): Promise<Record<string, string>> {
  const { data = {} } = await admin<{ data?: Record<string, string> }>('GET', SECRET);
  return Object.fromEntries(
    Object.entries(data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString()]),
  );
}

/** Somebody writes into the Secret; null takes a key away. */
async function store(data: Readonly<Record<string, string | null>>): Promise<void> {
  const encoded = Object.entries(data).map(([key, value]) => [
    key,
    value === null ? null : Buffer.from(value).toString('base64'),
  ]);
  await admin('PATCH', SECRET, { data: Object.fromEntries(encoded) });
}

/** The certificates that the API server trusts. */
async function trusted(): Promise<string[]> {
  const { webhooks } = await admin<{ webhooks: { clientConfig: { caBundle?: string } }[] }>(
    'GET',
    CONFIGURATION,
  );
  return split(Buffer.from(webhooks[0]?.clientConfig.caBundle ?? '', 'base64').toString()).map((pem) =>
    pem.trim(),
  );
}

/** What a new connection to a pod is shown. */
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

async function forgetCertificates(): Promise<void> {
  await admin('PATCH', SECRET, { data: null });
  const [{ clientConfig, ...webhook }] = (
    await admin<{ webhooks: [{ clientConfig: Record<string, unknown> }] }>('GET', CONFIGURATION)
  ).webhooks;
  const { caBundle: _, ...rest } = clientConfig;
  await admin('PATCH', CONFIGURATION, { webhooks: [{ ...webhook, clientConfig: rest }] });
}

describe('two replicas that start at the same instant on an empty cluster', () => {
  test.each([1, 2, 3])('agree on one authority, time %i', async () => {
    await forgetCertificates();
    await using replicas = await start();
    const { 'ca.crt': ca = '', 'tls.crt': cert = '', ...rest } = await stored();
    expect(Object.keys(rest).sort()).toEqual(['ca.key', 'tls.key']);
    expect(await trusted()).toEqual([ca.trim()]);
    await eventually(() => allServe(replicas, cert));
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

describe('under a steady stream of admissions', () => {
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
  /** None failed; and some went through at the end of it. */
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
    eventually(async () => cert !== undefined && (await allServe(replicas, cert)), LOOK_MS);

  test('a serving certificate with less than a third of its life is renewed', async () => {
    const before = await authority();
    const old = await newServing(before, NAME, Date.now() - 20 * DAY - MINUTE);
    await store({ 'tls.crt': old.cert, 'tls.key': old.key });
    await eventually(async () => (await stored())['tls.crt'] !== old.cert, LOOK_MS);
    await isServed((await stored())['tls.crt']);
    expect(await authority()).toEqual(before);
    expect(await trusted()).toEqual([before.cert.trim()]);
  });

  test('a replica that slept over it renews when it wakes', async () => {
    const nearly = await newServing(await authority(), NAME, Date.now() - 20 * DAY + 60 * MINUTE);
    await store({ 'tls.crt': nearly.cert, 'tls.key': nearly.key });
    await isServed(nearly.cert);
    // Both sleep: nobody else does it, and while they do nobody is asked.
    await admissions[Symbol.asyncDispose]();
    for (const { program } of replicas.pods) program.signal('SIGSTOP');
    clock.advance(61 * MINUTE);
    for (const { program } of replicas.pods) program.signal('SIGCONT');
    await eventually(async () => (await stored())['tls.crt'] !== nearly.cert, LOOK_MS);
    admissions = await startAdmissions(cluster);
    await isServed((await stored())['tls.crt']);
  });

  test('the authority is exchanged on command, in three steps', async () => {
    const old = await authority();
    await admin('PATCH', SECRET, {
      metadata: { annotations: { 'ecr-anywhere.centml.ai/rotate-ca': new Date().toISOString() } },
    });
    await eventually(async () => (await trusted()).length === 2, LOOK_MS);
    const { 'next-ca.crt': next = '' } = await stored();
    expect(await trusted()).toEqual([old.cert.trim(), next.trim()]);
    // Trusted, and it signs nothing yet.
    await sleep(LOOK_MS);
    expect(await authority()).toEqual(old);

    clock.advance(5 * MINUTE);
    await eventually(async () => (await stored())['ca.crt'] === next, LOOK_MS);
    const { 'tls.crt': cert = '' } = await stored();
    expect(new X509Certificate(cert).verify(new X509Certificate(next).publicKey)).toBe(true);
    await isServed(cert);
    expect((await trusted()).sort()).toEqual([old.cert.trim(), next.trim()].sort());

    clock.advance(5 * MINUTE);
    await eventually(async () => (await trusted()).length === 1, LOOK_MS);
    expect(await trusted()).toEqual([next.trim()]);
    expect(Object.keys(await stored()).sort()).toEqual(['ca.crt', 'ca.key', 'rotated', 'tls.crt', 'tls.key']);
    // A command is followed once.
    await sleep(LOOK_MS);
    expect((await authority()).cert).toBe(next);
  }, 120_000);

  test.each([
    {
      what: 'emptied',
      data: async () => ({ 'ca.crt': null, 'ca.key': null, 'tls.crt': null, 'tls.key': null }),
    },
    { what: 'garbage for the authority', data: async () => ({ 'ca.crt': 'garbage' }) },
    { what: 'no key of the authority', data: async () => ({ 'ca.key': null }) },
    {
      what: 'another key of the authority',
      data: async () => ({ 'ca.key': (await newAuthority(Date.now())).key }),
    },
    {
      what: 'an expired authority',
      data: async () => {
        const { cert, key } = await newAuthority(Date.now() - 3_651 * DAY);
        return { 'ca.crt': cert, 'ca.key': key };
      },
    },
    {
      what: 'a serving certificate as authority',
      data: async () => {
        const { 'tls.crt': cert = '', 'tls.key': key = '' } = await stored();
        return { 'ca.crt': cert, 'ca.key': key };
      },
    },
  ])('the authority is kept by the replicas: $what', async ({ data }) => {
    const before = await authority();
    await store(await data());
    await eventually(async () => isSame(await authority(), before), LOOK_MS);
    expect(await trusted()).toEqual([before.cert.trim()]);
  });

  test('the Secret is deleted: it is there again, with the same authority', async () => {
    const before = await authority();
    await admin('DELETE', SECRET);
    await eventually(async () => (await authority().catch(() => undefined))?.cert === before.cert, LOOK_MS);
    // Helm finds it as if nothing had been.
    await runHelm(cluster, ['upgrade', RELEASE], {});
    expect(await authority()).toEqual(before);
  });

  test.each([
    { what: 'garbage', pair: async () => ({ cert: 'garbage', key: 'garbage' }) },
    { what: 'expired', pair: async () => newServing(await authority(), NAME, Date.now() - 31 * DAY) },
    { what: 'for another name', pair: async () => newServing(await authority(), 'x.y.svc', Date.now()) },
    {
      what: 'of another authority',
      pair: async () => newServing(await newAuthority(Date.now()), NAME, Date.now()),
    },
    {
      what: 'with another key',
      pair: async () => ({
        cert: (await newServing(await authority(), NAME, Date.now())).cert,
        key: (await newServing(await authority(), NAME, Date.now())).key,
      }),
    },
  ])('a serving certificate that cannot be served is replaced: $what', async ({ pair }) => {
    const { cert, key } = await pair();
    await store({ 'tls.crt': cert, 'tls.key': key });
    await eventually(async () => (await stored())['tls.crt'] !== cert, LOOK_MS);
    await isServed((await stored())['tls.crt']);
  });

  test('a next authority that is broken is dropped', async () => {
    const before = await authority();
    await store({ 'next-ca.crt': 'garbage' });
    await eventually(async () => !('next-ca.crt' in (await stored())), LOOK_MS);
    expect(await authority()).toEqual(before);
  });
});

describe('what is not theirs to keep', () => {
  test.each([
    { what: 'another authority', caBundle: async () => (await newAuthority(Date.now())).cert },
    { what: 'nothing', caBundle: async () => undefined },
  ])('a caBundle that somebody overwrote with $what heals', async ({ caBundle }) => {
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
    await eventually(async () => (await trusted()).join() === before.join(), LOOK_MS);
    await eventually(() =>
      tryToCreate(admin).then(
        () => true,
        () => false,
      ),
    );
  });

  test('a caBundle of another tls.mode: a pod of before leaves it alone, and is not ready', async () => {
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
    await eventually(async () => !(await pod.isReady()), LOOK_MS);
    await sleep(LOOK_MS);
    expect(await trusted()).toEqual([theirs.trim()]);
    await admin('PATCH', CONFIGURATION, { metadata: { annotations: { [key]: 'self' } } });
    await eventually(async () => (await trusted()).join() === ours.join(), LOOK_MS);
    await eventually(() => pod.isReady());
  });

  test('an expired Secret that nobody looked after: new certificates at the next start', async () => {
    const authority = await newAuthority(Date.now() - 3_651 * DAY);
    const { cert, key } = await newServing(authority, NAME, Date.now() - 40 * DAY);
    await store({ 'ca.crt': authority.cert, 'ca.key': authority.key, 'tls.crt': cert, 'tls.key': key });
    await using replicas = await start();
    await tryToCreate(admin);
    expect(replicas.logs()).toContain('ca.crt has expired');
  });

  test('without its role it is not ready, and says why; with it, it is', async () => {
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}/roles/${RELEASE}`;
    const { rules } = await admin<{ rules: unknown[] }>('GET', role);
    await admin('PATCH', role, { rules: [] });
    await using replicas = await start(1, async (logs) => {
      await eventually(() => logs().includes('certificate upkeep failed'), 30_000);
      await admin('PATCH', role, { rules });
    });
    expect(replicas.logs()).toMatch(/403: secrets .*is forbidden/);
    await tryToCreate(admin);
  });

  test('a token that is refused: what is served is served on, and that is told and measured', async () => {
    await using replicas = await start(1);
    const [pod] = replicas.pods as [Pod];
    const role = `/apis/rbac.authorization.k8s.io/v1/namespaces/${NAMESPACE}/roles/${RELEASE}`;
    const { rules } = await admin<{ rules: unknown[] }>('GET', role);
    await admin('PATCH', role, { rules: [] });
    await eventually(async () => /^ecr_anywhere_certificate_failing 1$/m.test(await pod.metrics()), LOOK_MS);
    expect(await pod.isReady()).toBe(true);
    await tryToCreate(admin);
    await admin('PATCH', role, { rules });
    await eventually(async () => /^ecr_anywhere_certificate_failing 0$/m.test(await pod.metrics()), LOOK_MS);
    const expiry = /^ecr_anywhere_certificate_expiry_timestamp_seconds (.*)$/m.exec(await pod.metrics())?.[1];
    expect(Number(expiry) * 1000).toBe(new X509Certificate(await served(pod)).validToDate.getTime());
  });
});
