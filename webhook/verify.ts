// The program of `helm test`: checks that a managed Secret gets its credentials, and that this pod, which stands for any other
// in the cluster, gets an answer from the webhook only if the chart's values allow that. Prints each step, and no credentials.
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { Agent, request } from 'undici';
import { z } from 'zod';
import { type DenialReason, denialCauses } from '../contract/denials.ts';
import {
  ANNOTATION,
  NAMESPACE_LABEL,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_NAME,
  WEBHOOK_PATH,
} from '../contract/names.ts';
import { inClusterServer } from '../lib/kubernetes/in-cluster-server.ts';
import { trust } from '../lib/kubernetes/trust.ts';

const REQUEST_TIMEOUT_MS = 30_000;
const CONNECT_TIMEOUT_MS = 5_000;

const NOT_AUTHENTICATED: DenialReason = 'caller-not-authenticated';

const Environment = z.object({
  KUBERNETES_SERVICE_HOST: z.string(),
  KUBERNETES_SERVICE_PORT: z.string(),
  SERVICE_ACCOUNT_DIR: z.string(),
  WEBHOOK_CONFIGURATION: z.string(),
  /** https://name.namespace.svc:port */
  WEBHOOK_URL: z.string(),
  /** The namespace of the Secret that the test tries. */
  TEST_NAMESPACE: z.string(),
  /** Whether to create the Secret through the API server (dry run); otherwise the test calls the webhook directly. */
  THROUGH_API_SERVER: z.stringbool(),
  /** Whether the webhook answers only callers that prove to be the API server. */
  CALLERS_AUTHENTICATED: z.stringbool(),
  /** Whether a network policy keeps ordinary pods from the webhook. */
  CALLERS_KEPT_OUT: z.stringbool(),
});

const Configuration = z.object({
  webhooks: z.array(
    z.object({ name: z.string(), clientConfig: z.object({ caBundle: z.string().optional() }) }),
  ),
});
const Review = z.object({
  response: z.object({
    allowed: z.boolean(),
    patch: z.string().optional(),
    warnings: z.array(z.string()).optional(),
    status: z.object({ message: z.string() }).loose().optional(),
  }),
});
const Created = z.object({
  metadata: z.object({ annotations: z.record(z.string(), z.string()).optional() }),
});

const env = Environment.parse(process.env);
const apiServer = inClusterServer(env.KUBERNETES_SERVICE_HOST, env.KUBERNETES_SERVICE_PORT);
const secret = {
  apiVersion: 'v1',
  kind: 'Secret',
  type: SECRET_TYPE,
  metadata: {
    name: 'ecr-anywhere-test',
    namespace: env.TEST_NAMESPACE,
    labels: { [SECRET_LABEL.key]: SECRET_LABEL.value },
  },
};

interface Options {
  token?: string;
  body?: object;
}

async function send(url: string, ca: string, { token, body }: Options = {}) {
  const response = await request(url, {
    method: body ? 'POST' : 'GET',
    headers: {
      ...(body && { 'content-type': 'application/json' }),
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
    },
    ...(body && { body: JSON.stringify(body) }),
    dispatcher: new Agent({ connect: { ...trust(ca), timeout: CONNECT_TIMEOUT_MS } }),
    signal: AbortSignal.timeout(REQUEST_TIMEOUT_MS),
  });
  return { status: response.statusCode, answer: JSON.parse(await response.body.text()) as unknown };
}

async function call(url: string, ca: string, options: Options = {}): Promise<unknown> {
  const { status, answer } = await send(url, ca, options);
  if (status < 300) return answer;
  throw new Error(z.object({ message: z.string() }).safeParse(answer).data?.message ?? `HTTP ${status}`);
}

/** Whether a request failed because no connection could be made. */
function isUnreachable(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException;
  return ['UND_ERR_CONNECT_TIMEOUT', 'ETIMEDOUT', 'ECONNREFUSED', 'EHOSTUNREACH', 'ENETUNREACH'].includes(
    code ?? '',
  );
}

async function verify(): Promise<void> {
  const [token = '', clusterCa = ''] = await Promise.all(
    ['token', 'ca.crt'].map((file) => readFile(join(env.SERVICE_ACCOUNT_DIR, file), 'utf8')),
  );
  const configurationUrl = `${apiServer}/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/${env.WEBHOOK_CONFIGURATION}`;
  const { webhooks } = Configuration.parse(await call(configurationUrl, clusterCa, { token }));
  const caBundle = webhooks.find(({ name }) => name === WEBHOOK_NAME)?.clientConfig.caBundle;
  if (!caBundle)
    throw new Error(
      `MutatingWebhookConfiguration ${env.WEBHOOK_CONFIGURATION} has no caBundle, so the API server does not trust the webhook. If the pods started just now, run the test again; otherwise read the webhook's log.`,
    );
  const trusted = Buffer.from(caBundle, 'base64').toString();
  const isReached = await call(`${env.WEBHOOK_URL}/readyz`, trusted).then(
    () => true,
    (error: unknown) => {
      if (!env.CALLERS_KEPT_OUT || !isUnreachable(error)) throw error;
      return false;
    },
  );
  if (isReached) {
    console.log('The webhook is ready, and the API server trusts its certificate.');
    await tryAsOrdinaryPod(trusted);
  } else {
    console.log('The network policy keeps this pod from the webhook, so an ordinary pod gets no answer.');
  }
  if (env.THROUGH_API_SERVER) await tryThroughApiServer(token, clusterCa);
  else
    console.log(
      'To test through the API server too, upgrade the release with --set test.namespace=NAMESPACE, an enabled namespace.',
    );
}

/** Sends the webhook a review directly, without the API server. */
async function tryAsOrdinaryPod(trusted: string): Promise<void> {
  const review = {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'helm-test',
      kind: { group: '', version: 'v1', kind: 'Secret' },
      resource: { group: '', version: 'v1', resource: 'secrets' },
      namespace: env.TEST_NAMESPACE,
      name: secret.metadata.name,
      operation: 'CREATE',
      dryRun: true,
      userInfo: { username: 'helm-test', groups: [] },
      object: secret,
    },
  };
  const { status, answer } = await send(`${env.WEBHOOK_URL}${WEBHOOK_PATH}`, trusted, { body: review });
  const { response } = Review.safeParse(answer).data ?? {};
  const isRefused =
    status === 401 || denialCauses(response?.status).some(({ reason }) => reason === NOT_AUTHENTICATED);
  if (isRefused) {
    console.log(
      'An ordinary pod gets no answer from the webhook: it accepts only the API server as its caller.',
    );
    return;
  }
  if (env.CALLERS_AUTHENTICATED)
    throw new Error(
      'The webhook answered this pod, although the values of the chart have it accept only the API server. Do all its pods run with the current values? kubectl rollout status',
    );
  if (env.CALLERS_KEPT_OUT)
    throw new Error(
      'This pod reaches the webhook, although the chart has a network policy that keeps ordinary pods out. Does the network plug-in enforce it?',
    );
  if (!response) throw new Error(`HTTP ${status}: not an AdmissionReview`);
  for (const warning of response.warnings ?? []) console.log(`Warning: ${warning}`);
  if (!response.allowed)
    throw new Error(response.status?.message ?? 'The webhook denied the Secret without a message.');
  if (!response.patch) throw new Error('The webhook allowed a managed Secret without adding credentials.');
  console.log(`The webhook gets credentials from AWS for a Secret in namespace ${env.TEST_NAMESPACE}.`);
  console.log(
    'Warning: it gave them to this pod, as it does to every pod that reaches it. docs/callers.md has the ways to change that.',
  );
}

/** Creates a managed Secret, as a dry run. */
async function tryThroughApiServer(token: string, clusterCa: string): Promise<void> {
  const path = `/api/v1/namespaces/${env.TEST_NAMESPACE}/secrets?dryRun=All`;
  const { metadata } = Created.parse(await call(`${apiServer}${path}`, clusterCa, { token, body: secret }));
  const { annotations = {} } = metadata;
  if (!annotations[ANNOTATION.expiresAt])
    throw new Error(
      `The API server did not send a managed Secret of namespace ${env.TEST_NAMESPACE} to the webhook. Enable the namespace: kubectl label namespace ${env.TEST_NAMESPACE} ${NAMESPACE_LABEL.key}=${NAMESPACE_LABEL.value}`,
    );
  const hosts = (annotations[ANNOTATION.registries] ?? '').split(',').map((entry) => entry.split('=')[0]);
  console.log(
    `Through the API server, a managed Secret in namespace ${env.TEST_NAMESPACE} gets credentials for ${hosts.join(', ')} (dry run).`,
  );
}

try {
  await verify();
} catch (error) {
  const { message, cause } = error as Error;
  console.error(`Failed: ${message}${cause instanceof Error ? `: ${cause.message}` : ''}`);
  process.exitCode = 1;
}
