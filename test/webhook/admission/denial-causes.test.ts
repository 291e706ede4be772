// The causes of a denial at a real API server: a client reads them in the Status, and kubectl shows what to do.
import { readFile } from 'node:fs/promises';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { type DenialCause, denialCauses, registryField } from '../../../contract/denials.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import { type RealCluster, secretPath, startRealCluster } from '../../functions/real-cluster.ts';
import { type Call, callerOf } from '../caller.ts';
import { encode } from '../support.ts';

const hostOf = (account: string) => `${account}.dkr.ecr.eu-central-1.amazonaws.com`;
const roleOf = (account: string) => `arn:aws:iam::${account}:role/pull`;
const GOOD = '111111111111';
const DENIED = '222222222222';

let cluster: RealCluster;
/** The administrator, and the refresher. */
let admin: Call;
let refresher: Call;
beforeAll(async () => {
  cluster = await startRealCluster({
    document: {
      registries: [GOOD, DENIED].map((account) => ({
        host: hostOf(account),
        roleArn: roleOf(account),
        namespaces: account === GOOD ? ['team', 'probe'] : ['team'],
      })),
    },
  });
  admin = await callerOf(await readFile(cluster.controlPlane.adminKubeconfigPath, 'utf8'));
  refresher = await callerOf(cluster.kubeconfig);
  for (const namespace of ['team', 'unlisted']) await cluster.createNamespace(namespace);
  cluster.ecr.settings.roles[roleOf(DENIED)] = { denied: true };
});
afterAll(() => cluster?.[Symbol.asyncDispose]());

const secret = (more: object = {}, annotations: Record<string, string> = {}) => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name: 'pull', labels: { [SECRET_LABEL.key]: SECRET_LABEL.value }, annotations },
  type: SECRET_TYPE,
  data: { [SECRET_KEY]: encode('{"auths":{}}') },
  ...more,
});
const create = (namespace: string, body: object) =>
  admin('POST', `/api/v1/namespaces/${namespace}/secrets`, body);
const patch = (caller: Call, body: object) =>
  caller('PATCH', secretPath('team/pull'), body, 'application/merge-patch+json');

async function causesOf(response: ReturnType<Call>): Promise<{ status: number; causes: DenialCause[] }> {
  const { status, text } = await response;
  return { status, causes: denialCauses(JSON.parse(text)) };
}

const NO_TOKEN = [
  { reason: 'no-token', field: 'data[.dockerconfigjson]', message: expect.stringContaining(hostOf(DENIED)) },
  { reason: 'aws-role-denied', field: registryField(hostOf(DENIED)), message: roleOf(DENIED) },
];

describe('a refused CREATE', () => {
  test('carries one cause for each registry without a token', async () => {
    expect(await causesOf(create('team', secret()))).toEqual({ status: 503, causes: NO_TOKEN });
  });

  test.each([
    { reason: 'wrong-type', namespace: 'team', body: secret({ type: 'Opaque' }), field: 'type' },
    { reason: 'immutable', namespace: 'team', body: secret({ immutable: true }), field: 'immutable' },
    { reason: 'not-entitled', namespace: 'unlisted', body: secret(), field: 'metadata.namespace' },
    {
      reason: 'not-entitled',
      namespace: 'team',
      body: secret({}, { [ANNOTATION.only]: 'ghcr.io' }),
      field: `metadata.annotations[${ANNOTATION.only}]`,
    },
  ])('carries the cause $reason with the field $field', async ({ reason, namespace, body, field }) => {
    const { status, causes } = await causesOf(create(namespace, body));
    expect(status).toBe(403);
    expect(causes).toEqual([{ reason, field, message: expect.any(String) }]);
  });
});

describe('a refused PATCH', () => {
  beforeAll(async () => {
    cluster.ecr.settings.roles[roleOf(DENIED)] = {};
    const config = encode('{"auths":{"registry.example.com":{"auth":"eDp5"}}}');
    const body = secret({ data: { [SECRET_KEY]: config } });
    // The webhook reuses the failure of the tests above for five seconds.
    await vi.waitFor(async () => expect((await create('team', body)).status).toBe(201), {
      timeout: 15_000,
      interval: 500,
    });
    cluster.ecr.settings.mode = 'denied';
  });

  test('of the refresher, forced, carries one cause for each registry without a new token', async () => {
    const mark = new Date().toISOString();
    const annotations = { [ANNOTATION.requestedAt]: mark, [ANNOTATION.force]: mark };
    expect(await causesOf(patch(refresher, { metadata: { annotations } }))).toEqual({
      status: 503,
      causes: [
        { reason: 'no-token', field: 'data[.dockerconfigjson]', message: expect.any(String) },
        ...[GOOD, DENIED].map((account) => ({
          reason: 'ecr-denied',
          field: registryField(hostOf(account)),
          message: roleOf(account),
        })),
      ],
    });
  });

  test('carries the field of data that is not a docker config, and kubectl shows the way out', async () => {
    const data = { [SECRET_KEY]: encode('FAKE') };
    const { status, causes } = await causesOf(patch(admin, { data }));
    expect(status).toBe(422);
    expect(causes).toEqual([
      { reason: 'not-a-docker-config', field: 'data[.dockerconfigjson]', message: expect.any(String) },
    ]);

    const { code, stderr } = await cluster.controlPlane.kubectl(
      ['patch', 'secret', 'pull', '--namespace', 'team', '--type=merge', '-p', JSON.stringify({ data })],
      { mayFail: true },
    );
    expect(code).toBe(1);
    expect(stderr).toContain(causes[0]?.message);
  });
});
