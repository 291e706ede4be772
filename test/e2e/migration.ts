// The other tools of docs/migration.md, for its test. Their images do not run on the bed, so the test plays what they do to
// the API server, as their sources say: CentML/ecr-anywhere at 5cd16f2, nabsul/k8s-ecr-login-renew at 02386de,
// upmc-enterprises/registry-creds at b2e8fec, external-secrets at cc5bfbc.
import { hash } from 'node:crypto';
import { once } from 'node:events';
import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:https';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { ECRClient, GetAuthorizationTokenCommand } from '@aws-sdk/client-ecr';
import { NAMESPACE_LABEL, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import type { Admin } from '../bed/admin.ts';
import type { AwsEndpoint } from '../bed/aws-endpoint.ts';
import type { Authority } from '../bed/certificates.ts';

export interface SecretObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly type?: string;
  readonly metadata: {
    readonly name: string;
    readonly namespace?: string;
    readonly uid?: string;
    readonly resourceVersion?: string;
    readonly labels?: Readonly<Record<string, string>>;
    readonly annotations?: Readonly<Record<string, string>>;
    readonly ownerReferences?: readonly object[];
  };
  readonly data?: Readonly<Record<string, string>>;
}

export const base64 = (plain: string) => Buffer.from(plain).toString('base64');

interface EcrToken {
  readonly username: string;
  readonly password: string;
  readonly proxyEndpoint: string;
  readonly expiresAt: Date;
}

/** A token, as each of the tools requests it: with a call of its own. */
async function ecrToken({ url }: AwsEndpoint): Promise<EcrToken> {
  const client = new ECRClient({
    region: 'eu-central-1',
    endpoint: url,
    credentials: { accessKeyId: 'theirs', secretAccessKey: 'theirs' },
  });
  try {
    const { authorizationData: [data] = [] } = await client.send(new GetAuthorizationTokenCommand({}));
    const { authorizationToken = '', proxyEndpoint = '', expiresAt = new Date(0) } = data ?? {};
    const [username = '', password = ''] = Buffer.from(authorizationToken, 'base64').toString().split(':');
    return { username, password, proxyEndpoint, expiresAt };
  } finally {
    client.destroy();
  }
}

const path = (namespace: string, name: string) => `/api/v1/namespaces/${namespace}/secrets/${name}`;

/** @returns undefined if it does not exist */
export async function read<Answer = SecretObject>(admin: Admin, where: string): Promise<Answer | undefined> {
  return admin<Answer>('GET', where).catch((error: unknown) => {
    if (/: 404: /.test(String(error))) return undefined;
    throw error;
  });
}

/**
 * Updates the Secret of k8s-ecr-login-renew, or creates it, as one run of its CronJob does in one namespace
 * (src/k8s/kubernetes.go, UpdatePassword). If the update is refused, it replaces the Secret by a new one.
 */
export async function runLoginRenew(admin: Admin, ecr: AwsEndpoint, namespace: string, name: string) {
  const { username, password, proxyEndpoint } = await ecrToken(ecr);
  const auth = {
    username,
    password,
    email: 'awsregrenew@demo.test',
    auth: base64(`${username}:${password}`),
  };
  const data = { [SECRET_KEY]: base64(JSON.stringify({ auths: { [proxyEndpoint]: auth } })) };
  const secret = await read(admin, path(namespace, name));
  const create = () =>
    admin('POST', `/api/v1/namespaces/${namespace}/secrets`, { metadata: { name }, type: SECRET_TYPE, data });
  if (!secret) return create();
  return admin('PUT', path(namespace, name), { ...secret, data: { ...secret.data, ...data } }).catch(
    async () => {
      await admin('DELETE', path(namespace, name));
      return create();
    },
  );
}

/**
 * What registry-creds does with one namespace, each hour and when it starts (main.go, processNamespace): it writes a whole
 * new object, and adds its name to the ServiceAccount `default`.
 */
export async function runRegistryCreds(admin: Admin, ecr: AwsEndpoint, namespace: string) {
  const name = 'awsecr-cred';
  const { username, password, proxyEndpoint } = await ecrToken(ecr);
  const auths = { [proxyEndpoint]: { auth: base64(`${username}:${password}`), email: 'none' } };
  const secret = {
    metadata: { name },
    type: SECRET_TYPE,
    data: { [SECRET_KEY]: base64(JSON.stringify({ auths })) },
  };
  if (await read(admin, path(namespace, name))) await admin('PUT', path(namespace, name), secret);
  else await admin('POST', `/api/v1/namespaces/${namespace}/secrets`, secret);
  const account = `/api/v1/namespaces/${namespace}/serviceaccounts/default`;
  const { imagePullSecrets = [], ...rest } = await admin<{ imagePullSecrets?: { name: string }[] }>(
    'GET',
    account,
  );
  const others = imagePullSecrets.filter((one) => one.name !== name);
  await admin('PUT', account, { ...rest, imagePullSecrets: [...others, { name }] });
}

const ESO = 'reconcile.external-secrets.io';

/** docs/snippets/generator-ecr-example.yaml of external-secrets, with the fields that the CRD's defaults add. */
export const EXTERNAL_SECRET = `apiVersion: external-secrets.io/v1
kind: ExternalSecret
metadata: {name: ecr-secret}
spec:
  refreshInterval: 1h0m0s
  target:
    name: ecr-secret
    creationPolicy: Owner
    deletionPolicy: Retain
    template:
      type: kubernetes.io/dockerconfigjson
      metadata: {annotations: {expiresAt: "{{ .expires_at }}"}}
  dataFrom:
    - sourceRef: {generatorRef: {apiVersion: generators.external-secrets.io/v1alpha1, kind: ECRAuthorizationToken, name: ecr-gen}}
`;

/** Its CustomResourceDefinition, without the schema. */
export const EXTERNAL_SECRET_CRD = {
  apiVersion: 'apiextensions.k8s.io/v1',
  kind: 'CustomResourceDefinition',
  metadata: { name: 'externalsecrets.external-secrets.io' },
  spec: {
    group: 'external-secrets.io',
    names: { kind: 'ExternalSecret', plural: 'externalsecrets', singular: 'externalsecret' },
    scope: 'Namespaced',
    versions: [
      {
        ...{ name: 'v1', served: true, storage: true },
        schema: { openAPIV3Schema: { type: 'object', 'x-kubernetes-preserve-unknown-fields': true } },
      },
    ],
  },
};

interface ExternalSecret {
  readonly metadata: { readonly name: string; readonly uid: string };
  readonly spec: {
    readonly target: { readonly name: string; readonly creationPolicy: 'Owner' | 'Orphan' };
  };
}

/** The hash by which External Secrets recognises its data; its algorithm does not matter here. */
const dataHash = (data: SecretObject['data']) => hash('sha256', JSON.stringify(data)).slice(0, 56);

/** Whether External Secrets would leave the Secret alone until the next interval (isSecretValid). */
export function isAsExternalSecretsWrote({ metadata, data }: SecretObject): boolean {
  const { labels = {}, annotations = {} } = metadata;
  return labels[`${ESO}/managed`] === 'true' && annotations[`${ESO}/data-hash`] === dataHash(data);
}

/** One reconciliation of External Secrets (externalsecret_controller.go: mutationFunc, applyOwnership). */
export async function reconcileExternalSecret(admin: Admin, ecr: AwsEndpoint, namespace: string, of: string) {
  const found = await read<ExternalSecret>(
    admin,
    `/apis/external-secrets.io/v1/namespaces/${namespace}/externalsecrets/${of}`,
  );
  if (!found) return;
  const { name: target, creationPolicy } = found.spec.target;
  const { username, password, proxyEndpoint, expiresAt } = await ecrToken(ecr);
  const auth = { username, password, auth: base64(`${username}:${password}`) };
  const auths = { [proxyEndpoint.replace('https://', '')]: auth };
  const data = { [SECRET_KEY]: base64(JSON.stringify({ auths })) };
  const stored = await read(admin, path(namespace, target));
  const { ownerReferences: _, ...metadata } = stored?.metadata ?? { name: target };
  const { [`${ESO}/created-by`]: __, ...labels } = metadata.labels ?? {};
  const isOwner = creationPolicy === 'Owner';
  const owner = {
    ...{ apiVersion: 'external-secrets.io/v1', kind: 'ExternalSecret', name: of, uid: found.metadata.uid },
    ...{ controller: true, blockOwnerDeletion: true },
  };
  const secret = {
    ...{ apiVersion: 'v1', kind: 'Secret', type: SECRET_TYPE, data },
    metadata: {
      ...metadata,
      ...(isOwner && { ownerReferences: [owner] }),
      labels: {
        ...labels,
        [`${ESO}/managed`]: 'true',
        ...(isOwner && { [`${ESO}/created-by`]: dataHash({ namespace, of }) }),
      },
      annotations: {
        ...metadata.annotations,
        expiresAt: String(Math.floor(expiresAt.getTime() / 1000)),
        [`${ESO}/data-hash`]: dataHash(data),
      },
    },
  };
  if (stored) await admin('PUT', path(namespace, target), secret);
  else await admin('POST', `/api/v1/namespaces/${namespace}/secrets`, secret);
}

/** What the garbage collector does when an owner is deleted: it deletes the Secrets that only this owner had. */
export async function collectGarbage(admin: Admin, namespace: string): Promise<void> {
  const { items } = await admin<{ items: SecretObject[] }>('GET', `/api/v1/namespaces/${namespace}/secrets`);
  for (const { metadata } of items) {
    const [owner] = (metadata.ownerReferences ?? []) as { name: string }[];
    if (!owner) continue;
    const from = `/apis/external-secrets.io/v1/namespaces/${namespace}/externalsecrets/${owner.name}`;
    if (!(await read(admin, from))) await admin('DELETE', path(namespace, metadata.name));
  }
}

/** Writes the chart of CentML/ecr-anywhere 1.0.5, as it is rendered, without the Deployment and the CronJob. */
export async function writeOriginalChart(dir: string, caPem: string, port: number): Promise<void> {
  const name = 'ecr-anywhere';
  const labels = { app: name };
  const rbac = 'rbac.authorization.k8s.io';
  const role = { apiGroup: rbac, kind: 'ClusterRole', name };
  const objects = [
    {
      ...{ apiVersion: 'admissionregistration.k8s.io/v1', kind: 'MutatingWebhookConfiguration' },
      metadata: { name },
      webhooks: [
        {
          ...{ name: 'ecr-anywhere.centml.ai', admissionReviewVersions: ['v1', 'v1beta1'] },
          clientConfig: {
            caBundle: base64(caPem),
            // 443 in the chart: an ordinary user may not listen there.
            service: { name, namespace: name, path: '/sync', port },
          },
          ...{ failurePolicy: 'Fail', matchPolicy: 'Equivalent', reinvocationPolicy: 'Never' },
          namespaceSelector: { matchLabels: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } },
          objectSelector: { matchLabels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
          rules: [
            {
              ...{ apiGroups: [''], apiVersions: ['v1'], resources: ['secrets'], scope: '*' },
              operations: ['CREATE', 'UPDATE'],
            },
          ],
          ...{ sideEffects: 'None', timeoutSeconds: 10 },
        },
      ],
    },
    {
      ...{ apiVersion: 'v1', kind: 'Service', metadata: { name, namespace: name, labels } },
      spec: { ports: [{ port, targetPort: 8443 }], selector: labels },
    },
    { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name, namespace: name, labels } },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: 'ClusterRole', metadata: { name, labels } },
      rules: [
        { apiGroups: [''], resources: ['secrets'], verbs: ['get', 'list', 'update'] },
        { apiGroups: [''], resources: ['namespaces'], verbs: ['get', 'list'] },
      ],
    },
    {
      ...{ apiVersion: `${rbac}/v1`, kind: 'ClusterRoleBinding', metadata: { name, labels } },
      ...{ roleRef: role, subjects: [{ kind: 'ServiceAccount', name, namespace: name }] },
    },
  ];
  await mkdir(join(dir, 'templates'), { recursive: true });
  await writeFile(join(dir, 'Chart.yaml'), JSON.stringify({ apiVersion: 'v2', name, version: '1.0.5' }));
  const documents = objects.map((object) => JSON.stringify(object));
  await writeFile(join(dir, 'templates', 'objects.yaml'), documents.join('\n---\n'));
}

const EXPIRES_AT = 'ecr-anywhere.centml.ai/expires_at';
const UPDATED_AT = 'ecr-anywhere.centml.ai/updated_at';
const MARKED_FOR_UPDATE_AT = 'ecr-anywhere.centml.ai/marked_for_update_at';

/** The webhook of CentML/ecr-anywhere at this address: pkg/credentials/credentials.go, Inject. */
export async function startOriginalWebhook(
  ecr: AwsEndpoint,
  authority: Authority,
  address: { readonly host: string; readonly port: number },
): Promise<AsyncDisposable> {
  const { certPem: cert, keyPem: key } = await authority.serving(['ecr-anywhere.ecr-anywhere.svc']);
  const patchOf = async ({ metadata }: SecretObject) => {
    const { username, password, proxyEndpoint, expiresAt } = await ecrToken(ecr);
    const auth = { username, password, auth: base64(`${username}:${password}`) };
    const annotations = metadata.annotations ?? {};
    const set = (name: string, value: string) => ({
      op: name in annotations ? 'replace' : 'add',
      path: `/metadata/annotations/${name.replaceAll('/', '~1')}`,
      value,
    });
    const time = (date: Date) => date.toISOString().replace(/\.\d+/, '');
    const config = JSON.stringify({ auths: { [proxyEndpoint]: auth } });
    return [
      ...(metadata.annotations ? [] : [{ op: 'add', path: '/metadata/annotations', value: {} }]),
      set(EXPIRES_AT, time(expiresAt)),
      set(UPDATED_AT, time(new Date())),
      { op: 'replace', path: '/data', value: { [SECRET_KEY]: base64(config) } },
    ];
  };
  const server = createServer({ cert, key }, async (request, response) => {
    const { request: review } = JSON.parse(await text(request)) as {
      request: { uid: string; object: SecretObject };
    };
    const patch = base64(JSON.stringify(await patchOf(review.object)));
    const answer = { uid: review.uid, allowed: true, patch, patchType: 'JSONPatch' };
    response.end(
      JSON.stringify({ apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: answer }),
    );
  });
  server.listen(address.port, address.host);
  await once(server, 'listening');
  return {
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}

/** A run of its CronJob, which requests a refresh of every managed Secret (cmd/refresher/main.go: RequestRefreshes(true)). */
export async function runOriginalRefresher(admin: Admin): Promise<void> {
  const selector = ({ key, value }: { key: string; value: string }) => `labelSelector=${key}=${value}`;
  type List = { readonly items: readonly SecretObject[] };
  const namespaces = await admin<List>('GET', `/api/v1/namespaces?${selector(NAMESPACE_LABEL)}`);
  for (const { metadata: namespace } of namespaces.items) {
    const from = `/api/v1/namespaces/${namespace.name}/secrets`;
    const { items } = await admin<List>('GET', `${from}?${selector(SECRET_LABEL)}`);
    for (const secret of items) {
      const annotations = {
        ...secret.metadata.annotations,
        [MARKED_FOR_UPDATE_AT]: new Date().toISOString(),
      };
      const metadata = { ...secret.metadata, annotations };
      await admin('PUT', `${from}/${secret.metadata.name}`, { ...secret, metadata });
    }
  }
}

/**
 * The passwords that the kubelet would try for an image of the registry, in a Secret that the Pod names: of all entries
 * whose key is the host, with a scheme and an API version or without (pkg/credentialprovider/keyring.go, Add).
 */
export function passwordsFor(host: string, { data }: SecretObject): string[] {
  const { auths = {} } = JSON.parse(Buffer.from(data?.[SECRET_KEY] ?? '', 'base64').toString()) as {
    auths?: Record<string, { username?: string; password?: string; auth?: string }>;
  };
  return Object.entries(auths)
    .filter(([key]) => key.replace(/^https?:\/\//, '').replace(/\/(v[12]\/)?$/, '') === host)
    .map(([, { auth = '' }]) => Buffer.from(auth, 'base64').toString().split(':')[1] ?? '');
}
