// A webhook with the name, the selectors and the patches of CentML/ecr-anywhere's. It replaces `data` by one entry, under
// the registry's URL.
import { once } from 'node:events';
import { createServer } from 'node:https';
import type { AddressInfo } from 'node:net';
import { text } from 'node:stream/consumers';
import { formatTime } from '../../../../contract/freshness.ts';
import { NAMESPACE_LABEL, SECRET_KEY, SECRET_LABEL } from '../../../../contract/names.ts';
import { createAuthority } from '../../../bed/certificates.ts';

/** Prefix of its labels and annotations. */
const PREFIX = 'ecr-anywhere.centml.ai';
const HOST = 'https://123456789012.dkr.ecr.eu-central-1.amazonaws.com';
const TWELVE_HOURS_MS = 12 * 3_600_000;

export interface OriginalWebhook extends AsyncDisposable {
  /** Its MutatingWebhookConfiguration. @param webhook name of the webhook; by default that of its chart */
  configuration(name: string, webhook?: string): object;
}

/** Starts the webhook on a free loopback port. */
export async function startOriginalWebhook(): Promise<OriginalWebhook> {
  const authority = await createAuthority('CentML');
  const { certPem, keyPem } = await authority.serving(['127.0.0.1']);
  const server = createServer({ cert: certPem, key: keyPem }, async (received, response) => {
    const { request } = JSON.parse(await text(received)) as {
      request: { uid: string; object: { metadata: { annotations?: Record<string, string> } } };
    };
    const { annotations } = request.object.metadata;
    const annotate = (name: string, value: string) => ({
      op: annotations?.[`${PREFIX}/${name}`] === undefined ? 'add' : 'replace',
      path: `/metadata/annotations/${PREFIX}~1${name}`,
      value,
    });
    const entry = { username: 'AWS', password: 'x', auth: Buffer.from('AWS:x').toString('base64') };
    const config = Buffer.from(JSON.stringify({ auths: { [HOST]: entry } })).toString('base64');
    const patch = [
      ...(annotations ? [] : [{ op: 'add', path: '/metadata/annotations', value: {} }]),
      annotate('expires_at', formatTime(Date.now() + TWELVE_HOURS_MS)),
      annotate('updated_at', formatTime(Date.now())),
      { op: 'replace', path: '/data', value: { [SECRET_KEY]: config } },
    ];
    response.writeHead(200, { 'content-type': 'application/json' }).end(
      JSON.stringify({
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        response: {
          uid: request.uid,
          allowed: true,
          patchType: 'JSONPatch',
          patch: Buffer.from(JSON.stringify(patch)).toString('base64'),
        },
      }),
    );
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return {
    configuration: (name, webhook = PREFIX) => ({
      apiVersion: 'admissionregistration.k8s.io/v1',
      kind: 'MutatingWebhookConfiguration',
      metadata: { name },
      webhooks: [
        {
          name: webhook,
          admissionReviewVersions: ['v1', 'v1beta1'],
          clientConfig: {
            url: `https://127.0.0.1:${port}/sync`,
            caBundle: Buffer.from(authority.caPem).toString('base64'),
          },
          failurePolicy: 'Fail',
          matchPolicy: 'Equivalent',
          namespaceSelector: { matchLabels: { [NAMESPACE_LABEL.key]: NAMESPACE_LABEL.value } },
          objectSelector: { matchLabels: { [SECRET_LABEL.key]: SECRET_LABEL.value } },
          reinvocationPolicy: 'Never',
          rules: [
            {
              ...{ apiGroups: [''], apiVersions: ['v1'], operations: ['CREATE', 'UPDATE'] },
              ...{ resources: ['secrets'], scope: '*' },
            },
          ],
          sideEffects: 'None',
          timeoutSeconds: 10,
        },
      ],
    }),
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
