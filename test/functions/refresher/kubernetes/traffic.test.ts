// Tests the traffic between the refresher and a real API server. The refresher requests no Secret's data. It receives data
// only in kubectl's last-applied annotation, which it drops.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest';
import { ANNOTATION, SECRET_KEY } from '../../../../contract/names.ts';
import { KubernetesApi } from '../../../../functions/refresher/kubernetes/client.ts';
import type { ClusterReport } from '../../../../functions/refresher/run/cluster-report.ts';
import { summarize } from '../../../../functions/refresher/run/summaries.ts';
import { type ClusterAccess, readKubeconfig } from '../../../../lib/kubernetes/kubeconfig.ts';
import { HOUR, outcomesOf, type RealCluster, startRealCluster } from '../../real-cluster.ts';
import { type Exchange, type RecordingProxy, startRecordingProxy } from '../../recording-proxy.ts';

const PASSWORD = 'canary-docker-hub-password';
const AUTH = Buffer.from(`me:${PASSWORD}`).toString('base64');
const DOCKER_HUB = { 'https://index.docker.io/v1/': { username: 'me', password: PASSWORD, auth: AUTH } };
const CONFIG = Buffer.from(JSON.stringify({ auths: DOCKER_HUB })).toString('base64');
const LAST_APPLIED = 'kubectl.kubernetes.io/last-applied-configuration';

const MANIFEST = `apiVersion: v1
kind: Secret
type: kubernetes.io/dockerconfigjson
metadata:
  name: applied
  namespace: team
  labels: {ecr-anywhere.centml.ai/managed: "true"}
data: {.dockerconfigjson: ${CONFIG}}
`;

let cluster: RealCluster;
let proxy: RecordingProxy;
beforeAll(async () => {
  cluster = await startRealCluster();
  proxy = await startRecordingProxy(cluster.controlPlane);
  await cluster.createNamespace('team');
  await cluster.createSecrets([{ namespace: 'team', name: 'plain' }]);
  await cluster.controlPlane.kubectl(['apply', '-f', '-'], { input: MANIFEST });
});
afterAll(async () => {
  await proxy?.[Symbol.asyncDispose]();
  await cluster?.[Symbol.asyncDispose]();
});
beforeEach(() => {
  proxy.exchanges.length = 0;
});

const refresh = (event: object = {}): Promise<ClusterReport> =>
  cluster.refresh(event, proxy.through(cluster.kubeconfig));

/** All credentials of this cluster, in plain text and in base64. */
async function secretTexts(): Promise<string[]> {
  const stored = [...(await cluster.secrets()).values()].flatMap(({ data }) => data?.[SECRET_KEY] ?? []);
  const tokens = cluster.ecr.calls.flatMap(({ password }) => password ?? []);
  const plain = [PASSWORD, AUTH, ...tokens];
  // Base64 depends on the offset modulo three, and at both ends on the surrounding text.
  const encoded = plain.flatMap((text) =>
    [0, 1, 2].map((offset) =>
      Buffer.from(`${'x'.repeat(offset)}${text}`)
        .toString('base64')
        .slice(4, -4),
    ),
  );
  return [...plain, ...encoded, ...stored, CONFIG];
}

/** A response without kubectl's annotation. */
function withoutLastApplied(answer: string): string {
  return JSON.stringify(JSON.parse(answer), (key, value) => (key === LAST_APPLIED ? undefined : value));
}

function keysOf(value: unknown): string[] {
  if (typeof value !== 'object' || value === null) return [];
  return Object.entries(value).flatMap(([key, member]) => [key, ...keysOf(member)]);
}

async function expectNoSecretsIn(report: ClusterReport): Promise<void> {
  const secrets = await secretTexts();
  for (const { answer } of proxy.exchanges) {
    expect(keysOf(JSON.parse(answer))).not.toContain('data');
    expect(keysOf(JSON.parse(answer))).not.toContain('stringData');
    for (const text of secrets) expect(withoutLastApplied(answer)).not.toContain(text);
  }
  const shown = JSON.stringify([report, summarize(report), proxy.exchanges.map(({ body }) => body)]);
  for (const text of secrets) expect(shown).not.toContain(text);
}

const ofKind = (method: string, path: string) =>
  proxy.exchanges.filter((exchange) => exchange.method === method && exchange.path === path);

const LIST_ACCEPT = 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1';
const annotationsOf = ({ body }: Exchange): object => JSON.parse(body).metadata.annotations;

test.each([
  { title: 'a scheduled run', event: {}, annotations: [ANNOTATION.requestedAt], dryRun: undefined },
  {
    title: 'a forced run',
    event: { force: true },
    annotations: [ANNOTATION.requestedAt, ANNOTATION.force],
    dryRun: undefined,
  },
  { title: 'a dry run', event: { dryRun: true }, annotations: [ANNOTATION.requestedAt], dryRun: 'All' },
])(
  '$title lists metadata, patches the request annotations, reviews its rules, and sends no other request',
  async ({ event, annotations, dryRun }) => {
    await cluster.age(
      new Map([
        // With less time left, the run would ask whether it may tell of the recovery.
        ['team/plain', 4 * HOUR],
        ['team/applied', 4 * HOUR],
      ]),
    );
    const report = await refresh(event);
    expect(outcomesOf(report)).toEqual({ refreshed: 2 });

    const namespaces = ofKind('GET', '/api/v1/namespaces');
    expect(namespaces.map(({ query }) => query.labelSelector)).toEqual([
      'ecr-anywhere.centml.ai/namespace=enabled',
    ]);
    const lists = ['team', 'probe'].flatMap((name) => ofKind('GET', `/api/v1/namespaces/${name}/secrets`));
    expect(lists).toHaveLength(2);
    for (const { query } of lists) {
      expect(query.labelSelector).toBe('ecr-anywhere.centml.ai/managed=true');
      expect(query.fieldSelector).toBe('type=kubernetes.io/dockerconfigjson');
    }
    for (const { accept } of [...namespaces, ...lists]) expect(accept).toBe(LIST_ACCEPT);
    const patches = ['plain', 'applied'].flatMap((name) =>
      ofKind('PATCH', `/api/v1/namespaces/team/secrets/${name}`),
    );
    expect(patches).toHaveLength(2);
    for (const patch of patches) {
      expect(JSON.parse(patch.body)).toEqual({ metadata: { annotations: annotationsOf(patch) } });
      expect(Object.keys(annotationsOf(patch))).toEqual(annotations);
      expect(patch.accept).toBe(LIST_ACCEPT.replace('List;', ';'));
      expect(patch.query.dryRun).toBe(dryRun);
    }
    // Which Secret it may create: none (`provision.secretName`).
    const reviews = ofKind('POST', '/apis/authorization.k8s.io/v1/selfsubjectrulesreviews');
    expect(reviews).toHaveLength(1);
    const known = [...namespaces, ...lists, ...patches, ...reviews];
    expect(proxy.exchanges).toHaveLength(known.length);
    await expectNoSecretsIn(report);
  },
);

test('the last-applied annotation is received, and dropped when it is parsed', async () => {
  await refresh();
  const [list] = ofKind('GET', '/api/v1/namespaces/team/secrets');
  expect(list?.answer).toContain(CONFIG);
  await using api = new KubernetesApi(
    readKubeconfig(proxy.through(cluster.kubeconfig)) as ClusterAccess,
    1,
    AbortSignal.timeout(20_000),
  );
  const secrets = await api.managedSecrets('team');
  expect(secrets.map(({ name }) => name)).toEqual(['applied', 'plain']);
  const applied = secrets[0] ?? expect.fail('not listed');
  const after = await api.annotate(applied, { [ANNOTATION.requestedAt]: '2026-11-23T12:00:00Z' }, true);
  for (const secret of [...secrets, after]) {
    for (const key of Object.keys(secret.annotations))
      expect(Object.values<string>(ANNOTATION)).toContain(key);
    expect(JSON.stringify(secret)).not.toContain(CONFIG);
  }
  expect(proxy.exchanges.at(-1)?.answer).toContain(CONFIG);
});

test('errors of the API server and denials of the webhook contain no credential', async () => {
  await cluster.age(new Map([['team/applied', HOUR]]));
  cluster.webhook.program.signal('SIGKILL');
  await cluster.webhook.program.ended;
  const down = await refresh();
  expect(outcomesOf(down)).toEqual({ refused: 1 });
  await expectNoSecretsIn(down);

  await cluster.webhook.start();
  cluster.ecr.settings.mode = 'down';
  const denied = await refresh();
  expect(outcomesOf(denied)).toEqual({ refused: 1 });
  await expectNoSecretsIn(denied);
});
