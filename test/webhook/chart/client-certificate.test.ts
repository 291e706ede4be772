// Client certificates on a real API server that is configured to send one: the webhook answers no other caller, and both the
// certificate and its authority can be replaced without a restart.
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_PATH,
} from '../../../contract/names.ts';
import { type Admin, connectAdmin } from '../../bed/admin.ts';
import { startAwsEndpoint } from '../../bed/aws-endpoint.ts';
import { type Authority, createAuthority } from '../../bed/certificates.ts';
import { type ControlPlane, startControlPlane } from '../../bed/control-plane.ts';
import {
  installWebhook,
  NAMESPACE,
  RELEASE,
  SERVICE_PORT,
  type WebhookInstallation,
} from '../../bed/webhook.ts';
import { manifest, reviewOf } from '../support.ts';

const NAME = 'kube-apiserver-webhooks';
const TEAM = 'team';
/** The API server uses replaced files within a minute. */
const POLL = { timeout: 150_000, interval: 500 };

let stack: AsyncDisposableStack;
let dir: string;
let cluster: ControlPlane;
let admin: Admin;
let webhook: WebhookInstallation;
let authority: Authority;
let next: Authority;

/** Writes the client certificate of the API server. */
async function issue(by: Authority): Promise<void> {
  const { certPem, keyPem } = await by.client(NAME, []);
  for (const [file, text] of [
    ['client.crt', certPem],
    ['client.key', keyPem],
  ] as const) {
    await writeFile(join(dir, `${file}.new`), text, { mode: 0o600 });
    await rename(join(dir, `${file}.new`), join(dir, file));
  }
}

const values = (...accepted: readonly Authority[]) => ({
  callerProof: { mode: 'disabled' },
  clientCA: accepted.map(({ caPem }) => caPem).join('\n'),
  clientNames: [NAME],
});

beforeAll(async () => {
  stack = new AsyncDisposableStack();
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-client-certificate-'));
  stack.defer(() => rm(dir, { recursive: true, force: true }));
  authority = await createAuthority('callers');
  // Without its root, which the webhook does not know.
  next = await (await createAuthority('root')).intermediate('next callers');
  await issue(authority);
  const kubeConfigFile = join(dir, 'webhooks.kubeconfig');
  const config = join(dir, 'admission.yaml');
  // As docs/callers.md shows it, but for the paths and the port.
  await writeFile(
    kubeConfigFile,
    JSON.stringify({
      apiVersion: 'v1',
      kind: 'Config',
      users: [
        {
          name: `${RELEASE}.${NAMESPACE}.svc:${SERVICE_PORT}`,
          user: { 'client-certificate': join(dir, 'client.crt'), 'client-key': join(dir, 'client.key') },
        },
      ],
    }),
  );
  await writeFile(
    config,
    JSON.stringify({
      apiVersion: 'apiserver.config.k8s.io/v1',
      kind: 'AdmissionConfiguration',
      plugins: [
        {
          name: 'MutatingAdmissionWebhook',
          configuration: {
            apiVersion: 'apiserver.config.k8s.io/v1',
            kind: 'WebhookAdmissionConfiguration',
            kubeConfigFile,
          },
        },
      ],
    }),
  );
  const ecr = stack.use(await startAwsEndpoint());
  const extraArgs = [`--admission-control-config-file=${config}`];
  cluster = stack.use(
    await startControlPlane({ name: 'client-certificate', dir: join(dir, 'cp'), extraArgs }),
  );
  ({ admin } = stack.use(await connectAdmin(cluster)));
  await cluster.kubectl(['create', 'namespace', TEAM]);
  await cluster.kubectl(['label', 'namespace', TEAM, `${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`]);
  webhook = stack.use(await installWebhook(cluster, { ecrUrl: ecr.url, document: values(authority) }));
});
afterAll(() => stack.disposeAsync());

/** Creates a Secret as a dry run. @returns `credentials`, or why there are none */
async function attempt(): Promise<string> {
  const labels = { [SECRET_LABEL.key]: SECRET_LABEL.value };
  const secret = { type: SECRET_TYPE, metadata: { generateName: 'ecr-', labels } };
  const path = `/api/v1/namespaces/${TEAM}/secrets?dryRun=All`;
  return admin<{ metadata: { annotations?: object } }>('POST', path, secret).then(
    ({ metadata }) => (ANNOTATION.expiresAt in (metadata.annotations ?? {}) ? 'credentials' : 'none'),
    ({ message }: Error) => message,
  );
}

async function upgrade(document: object): Promise<void> {
  await webhook.upgrade(document);
  await webhook.syncVolumes();
}

test('the API server with its certificate gets credentials', async () => {
  await expect.poll(attempt, POLL).toBe('credentials');
});

test('a pod gets 401, and the kubelet its probes', async () => {
  const { host, port } = webhook.address;
  const statusOf = (path: string, body?: string) =>
    new Promise<number>((resolve, reject) => {
      const headers = { 'content-type': 'application/json' };
      const method = body === undefined ? 'GET' : 'POST';
      const asked = request({ host, port, path, method, headers, rejectUnauthorized: false }, (response) => {
        response.resume();
        resolve(response.statusCode ?? 0);
      });
      asked.on('error', reject);
      asked.end(body);
    });
  expect(await statusOf(WEBHOOK_PATH, JSON.stringify(reviewOf({ object: manifest() })))).toBe(401);
  expect(await statusOf('/readyz')).toBe(200);
  expect(await statusOf('/healthz')).toBe(200);
});

test('the authority and the certificate are replaced without a restart, and the old ones are refused', async () => {
  await upgrade(values(authority, next));
  await expect.poll(() => webhook.program.log(), POLL).toContain('new client authorities in use');
  await expect.poll(attempt, POLL).toBe('credentials');

  // Only the next authority: the API server still has the certificate of the first one.
  await upgrade(values(next));
  await expect.poll(attempt, POLL).toMatch(/failed calling webhook/);
  await expect.poll(() => webhook.program.log(), POLL).toContain('caller refused');
  await issue(next);
  await expect.poll(attempt, POLL).toBe('credentials');
}, 400_000);
