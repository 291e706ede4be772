// The caller proof on a real API server: the webhook answers only the API server, the proof is in nothing that a
// client sees, and it is rotated without a refused Secret.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  PROOF_ANNOTATION,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_PATH,
} from '../../../contract/names.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { type AwsEndpoint, startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import { helm } from '../../bed/helm.ts';
import { type Replicas, startReplicas } from '../../bed/replicas.ts';
import { NAMESPACE, prepareNamespace, RELEASE, refresherKubeconfig, runHelm } from '../../bed/webhook.ts';
import { type Admissions, startAdmissions } from '../admissions.ts';
import { type CallAnswer, callerOf, send } from '../caller.ts';
import { encode, manifest, reviewOf } from '../support.ts';

const TEAM = 'team';
const SECRETS = `/api/v1/namespaces/${TEAM}/secrets`;
const OWN = `/api/v1/namespaces/${NAMESPACE}/secrets/${RELEASE}-caller-proof`;
const REGISTRATION = '/apis/admissionregistration.k8s.io/v1';
const CONFIGURATION = `${REGISTRATION}/mutatingwebhookconfigurations/${RELEASE}`;
const BINDING = `${REGISTRATION}/mutatingadmissionpolicybindings/${RELEASE}-caller-proof`;
const POLL = { timeout: 30_000, interval: 100 };
const AUDIT_POLICY = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules: [{level: RequestResponse, namespaces: [${TEAM}], resources: [{group: "", resources: [secrets]}]}]
`;
/** Nothing here depends on the drain. */
const VALUES = ['drainSeconds=0'];
const REFUSED = 'caller-not-authenticated';
const BY_POLICY = /ValidatingAdmissionPolicy 'ecr-anywhere-caller-proof'/;

let stack: AsyncDisposableStack;
let cluster: ControlPlane;
let ecr: AwsEndpoint;
let admin: Admin;
let replicas: Replicas;
let auditLog: string;
/** Every proof that was in use; none may appear in what a client sees. */
const proofs = new Set<string>();

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  const dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-caller-proof-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  ecr = stack.use(await startAwsEndpoint());
  const auditPolicy = join(dir, 'audit-policy.yaml');
  auditLog = join(dir, 'audit.log');
  // The level at which credentials appear in the log (docs/security.md).
  await writeFile(auditPolicy, AUDIT_POLICY);
  const extraArgs = [`--audit-policy-file=${auditPolicy}`, `--audit-log-path=${auditLog}`];
  cluster = stack.use(await startControlPlane({ name: 'caller-proof', dir, extraArgs }));
  ({ admin } = stack.use(await connectAdmin(cluster)));
  await prepareNamespace(cluster);
  await cluster.kubectl(['create', 'namespace', TEAM]);
  await cluster.kubectl(['label', 'namespace', TEAM, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`]);
  await runHelm(cluster, ['install', RELEASE], { values: VALUES });
  replicas = await startReplicas(cluster, { count: 2, ecrUrl: ecr.url });
  stack.defer(() => replicas[Symbol.asyncDispose]());
});
afterAll(() => stack.disposeAsync());

interface OwnSecret {
  data?: Record<string, string>;
}
async function proofData(): Promise<Record<string, string>> {
  const { data = {} } = await admin<OwnSecret>('GET', OWN);
  for (const key of ['proof', 'next', 'previous']) if (data[key]) proofs.add(data[key]);
  return data;
}

/** Expects that a text has no proof, neither as in the Secret nor decoded. */
async function expectNoProof(text: string): Promise<void> {
  await proofData();
  expect(proofs.size).toBeGreaterThan(0);
  for (const proof of proofs) {
    expect(text).not.toContain(proof);
    expect(text).not.toContain(Buffer.from(proof, 'base64').toString());
  }
}

let count = 0;
function secret(change: object = {}): { metadata: { name: string } } {
  count += 1;
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  const name = `ecr-${count}`;
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: SECRET_TYPE,
    ...change,
    metadata: { name, labels, ...(change as { metadata?: object }).metadata },
  } as never;
}

/** Posts a review to a pod of the webhook directly, without the API server. */
function post(body: unknown, pod = replicas.pods[0]): Promise<CallAnswer> {
  const headers = { 'content-type': 'application/json' };
  const options = { method: 'POST', rejectUnauthorized: false, headers };
  return send(`https://${pod?.ip}:8443${WEBHOOK_PATH}`, options, JSON.stringify(body));
}

function reviewWith(proof?: string) {
  return reviewOf({ object: manifest(undefined, proof === undefined ? {} : { [PROOF_ANNOTATION]: proof }) });
}

describe('a caller that is not the API server', () => {
  test.each([
    { title: 'without a proof', proof: () => undefined },
    { title: 'with an empty proof', proof: () => '' },
    { title: 'with a guess', proof: () => encode('guess') },
    {
      title: 'with the beginning of the proof',
      proof: async () => (await proofData()).proof?.slice(0, -1),
    },
  ])('is denied $title, and causes no call to AWS', async ({ proof }) => {
    const calls = ecr.calls.length;
    const { status, text } = await post(reviewWith(await proof()));
    expect(status).toBe(200);
    expect(JSON.parse(text).response).toEqual({
      uid: reviewWith().request.uid,
      allowed: false,
      status: {
        code: 403,
        message: expect.any(String),
        details: expect.objectContaining({ causes: [{ reason: REFUSED, message: expect.any(String) }] }),
      },
    });
    expect(ecr.calls.length).toBe(calls);
    await expectNoProof(text);
    const line = replicas
      .logs()
      .trim()
      .split('\n')
      .findLast((entry) => entry.includes(REFUSED));
    expect(JSON.parse(line ?? '{}')).toMatchObject({
      action: 'deny',
      reason: REFUSED,
      secret: 'team-a/pull',
    });
    expect(await replicas.pods[0]?.metrics()).toMatch(new RegExp(`admissions_total\\{.*reason="${REFUSED}"`));
  });

  test('would be answered with the proof, which shows that the proof decides', async () => {
    const { proof = '' } = await proofData();
    for (const pod of replicas.pods) {
      const { text } = await post(reviewWith(proof), pod);
      expect(JSON.parse(text).response).toMatchObject({ allowed: true, patch: expect.any(String) });
      await expectNoProof(Buffer.from(JSON.parse(text).response.patch, 'base64').toString());
    }
  });
});

describe('through the API server', () => {
  const read = async (args: readonly string[], input?: object) => {
    const result = await cluster.kubectl(args, {
      mayFail: true,
      ...(input && { input: JSON.stringify(input) }),
    });
    const text = `${result.stdout}${result.stderr}`;
    await expectNoProof(text);
    expect(text).not.toContain(PROOF_ANNOTATION);
    return result;
  };
  const OUT = ['-n', TEAM, '-o', 'yaml', '--show-managed-fields'];

  test.each([
    { title: 'created', args: ['create', ...OUT, '-f', '-'] },
    { title: 'created in a dry run', args: ['create', '--dry-run=server', ...OUT, '-f', '-'] },
    { title: 'applied', args: ['apply', '--server-side', ...OUT, '-f', '-'] },
    {
      title: 'created with a proof of the caller',
      args: ['create', ...OUT, '-f', '-'],
      guess: encode('guess'),
    },
  ])('a Secret that is $title gets credentials, and the answer has no proof', async ({ args, guess }) => {
    const object = secret(guess ? { metadata: { annotations: { [PROOF_ANNOTATION]: guess } } } : {});
    const before = object.metadata.name;
    const { code, stdout, stderr } = await cluster.kubectl(args, {
      input: JSON.stringify(object),
      mayFail: true,
    });
    expect(code, stderr).toBe(0);
    await expectNoProof(stdout + stderr);
    expect(stdout).toContain(ANNOTATION.expiresAt);
    if (args.includes('--dry-run=server')) return;
    const { metadata } = await admin<{ metadata: { annotations: object } }>('GET', `${SECRETS}/${before}`);
    expect(metadata.annotations).toHaveProperty([ANNOTATION.expiresAt]);
    expect(metadata.annotations).not.toHaveProperty([PROOF_ANNOTATION]);
  });

  test('a Secret without annotations that is patched and replaced keeps its credentials, without a proof', async () => {
    const { metadata } = secret();
    await admin('POST', SECRETS, secret({ metadata }));
    const path = `${SECRETS}/${metadata.name}`;
    expect((await read(['annotate', 'secret', metadata.name, 'x=1', ...OUT])).stdout).toContain('x: "1"');
    expect((await read(['get', 'secret', metadata.name, ...OUT])).code).toBe(0);
    const current = await admin<object>('GET', path);
    await expectNoProof(JSON.stringify(await admin('PUT', path, current)));
    // A write that changes nothing is not stored.
    const version = async () =>
      (await admin<{ metadata: { resourceVersion: string } }>('GET', path)).metadata.resourceVersion;
    const before = await version();
    await admin('PATCH', path, { metadata: { annotations: { x: '1' } } });
    expect(await version()).toBe(before);
  });

  test('a denial has no proof', async () => {
    const { code, stderr } = await read(['create', ...OUT, '-f', '-'], secret({ type: 'Opaque' }));
    expect(code).not.toBe(0);
    expect(stderr).toContain(SECRET_TYPE);
  });

  test('the refresher requests a refresh', async () => {
    const { metadata } = secret();
    await admin('POST', SECRETS, secret({ metadata }));
    const call = await callerOf(await refresherKubeconfig(cluster));
    const annotations = { [ANNOTATION.requestedAt]: new Date().toISOString() };
    const { status, text } = await call(
      'PATCH',
      `${SECRETS}/${metadata.name}`,
      { metadata: { annotations } },
      'application/merge-patch+json',
    );
    expect(status, text).toBe(200);
    await expectNoProof(text);
  });

  test("the audit log has the webhook's credentials, but no proof", async () => {
    const log = await readFile(auditLog, 'utf8');
    expect(log).toContain('/metadata/annotations/ecr-anywhere.centml.ai~1fingerprint');
    await expectNoProof(log);
  });

  test('the log and the metrics have no proof', async () => {
    await expectNoProof(replicas.logs());
    await expectNoProof((await Promise.all(replicas.pods.map((pod) => pod.metrics()))).join('\n'));
  });
});

describe('rotation', () => {
  let admissions: Admissions;
  beforeAll(async () => {
    admissions = await startAdmissions(cluster);
  });
  afterAll(() => admissions[Symbol.asyncDispose]());

  /** Has all replicas read the Secret again, which a wrong proof causes. */
  const reread = () => Promise.all(replicas.pods.map((pod) => post(reviewWith(encode('wrong')), pod)));
  /** Lets the current step be over. */
  const afterTheOverlap = async () => {
    const since = new Date(Date.now() - 6 * 60_000).toISOString();
    await admin('PATCH', OWN, { data: { since: encode(since) } });
  };
  const untilRefused = (proof: string) =>
    expect
      .poll(async () => {
        await reread();
        return JSON.parse((await post(reviewWith(proof))).text).response.allowed;
      }, POLL)
      .toBe(false);
  const untilData = (check: (data: Record<string, string>) => boolean) =>
    expect
      .poll(async () => {
        await reread();
        return check(await proofData());
      }, POLL)
      .toBe(true);

  test('by an annotation goes through its steps without a refused Secret', async () => {
    const { proof: old = '' } = await proofData();
    await admin('PATCH', OWN, {
      metadata: { annotations: { 'ecr-anywhere.centml.ai/rotate-proof': 'now' } },
    });
    await untilData(({ proof, next }) => proof === old && next !== undefined);
    const { next = '' } = await proofData();
    await admissions.more(20);
    await afterTheOverlap();
    await untilData(({ proof, previous }) => proof === next && previous === old);
    await admissions.more(20);
    await afterTheOverlap();
    await untilData(({ proof, previous }) => proof === next && previous === undefined);
    await admissions.more(20);
    expect(admissions.failures).toEqual([]);
    // A replica may hold the previous one until its next read.
    await untilRefused(old);
  });

  test('at once, by removing the data, makes the old proof worthless within seconds', async () => {
    const { proof: old = '' } = await proofData();
    await admin('PATCH', OWN, { data: null });
    await untilData(({ proof }) => proof !== undefined && proof !== old);
    await admissions.untilEach(undefined);
    await untilRefused(old);
    admissions.forgetFailures();
    await admissions.more(20);
    expect(admissions.failures).toEqual([]);
  });

  test('of an existing Secret follows the documented steps without a refused Secret', async () => {
    const existing = `/api/v1/namespaces/${NAMESPACE}/secrets/my-proof`;
    await admin('POST', `/api/v1/namespaces/${NAMESPACE}/secrets`, {
      metadata: { name: 'my-proof' },
      data: { proof: encode('first') },
    });
    const values = [...VALUES, 'callerProof.existingSecret=my-proof'];
    await runHelm(cluster, ['upgrade', RELEASE], { values });
    await replicas.rollOut();
    await admissions.untilEach(undefined);
    admissions.forgetFailures();

    const step = async (data: Record<string, string | null>, isSyncedFirst: boolean) => {
      await admin('PATCH', existing, { data });
      if (!isSyncedFirst) await admissions.more(20);
      await replicas.syncVolumes();
      await admissions.more(20);
    };
    await step({ next: encode('second') }, false);
    await expect
      .poll(async () => JSON.parse((await post(reviewWith(encode('second')))).text).response.allowed, POLL)
      .toBe(true);
    await step({ proof: encode('second'), previous: encode('first'), next: null }, false);
    await step({ previous: null }, false);
    expect(admissions.failures).toEqual([]);

    await runHelm(cluster, ['upgrade', RELEASE], { values: VALUES });
    await replicas.rollOut();
    await admissions.untilEach(undefined);
  }, 180_000);
});

describe('a Secret is refused, not stored with the proof', () => {
  test('when the webhook configuration is deleted', async () => {
    const configuration = await admin<{ metadata: object }>('GET', CONFIGURATION);
    await admin('DELETE', CONFIGURATION);
    const create = () =>
      admin('POST', SECRETS, secret({ data: { '.dockerconfigjson': encode('{"auths":{}}') } })).then(
        () => 'created',
        ({ message }: Error) => message,
      );
    await expect.poll(create, POLL).toMatch(BY_POLICY);
    await expectNoProof(await create());
    const { webhooks } = configuration as unknown as { webhooks: unknown };
    await admin('POST', `${REGISTRATION}/mutatingwebhookconfigurations`, {
      metadata: { name: RELEASE },
      webhooks,
    });
    await expect.poll(create, POLL).toBe('created');
  });

  // A namespace can lose its label between the policy that adds the proof and the one that refuses to store it.
  test.each(['default', NAMESPACE])(
    'in the namespace %s, which the webhook does not serve',
    async (namespace) => {
      const { metadata } = secret();
      const annotated = secret({
        data: { [SECRET_KEY]: encode('{"auths":{}}') },
        metadata: { ...metadata, annotations: { [PROOF_ANNOTATION]: 'x' } },
      });
      await expect(
        admin('POST', `/api/v1/namespaces/${namespace}/secrets?dryRun=All`, annotated),
      ).rejects.toThrow(BY_POLICY);
    },
  );

  test('when the policy that adds the proof is not bound, and the denial says so', async () => {
    await admin('DELETE', BINDING);
    const create = () =>
      admin('POST', SECRETS, secret()).then(
        () => 'created',
        ({ message }: Error) => message,
      );
    await expect.poll(create, POLL).toContain(REFUSED);
  });
});

test('has no policy and requires no proof with callerProof.mode disabled', async () => {
  await helm(['uninstall', RELEASE, '--namespace', NAMESPACE], { cluster });
  await runHelm(cluster, ['install', RELEASE], { values: ['callerProof.mode=disabled'] });
  const { stdout } = await cluster.kubectl(['get', 'mutatingadmissionpolicies', '-o', 'name']);
  expect(stdout).toBe('');
});
