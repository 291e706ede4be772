// Storing a registration when Secrets Manager rejects a request, or its response is lost.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Aws } from '../../../cli/aws/aws.ts';
import { createRegistration, withCurrent } from '../../../cli/aws/registration.ts';
import { Rollback } from '../../../cli/aws/rollback.ts';
import { TAG } from '../../../contract/names.ts';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import { awsError, type Reply, startAwsWire, type Treatment, type Wire } from '../wire.ts';

const CREATE = 'secretsmanager:CreateSecret';
const DELETE = 'secretsmanager:DeleteSecret';

let wire: Wire;
beforeEach(async () => {
  wire = await startAwsWire();
  const env = { AWS_ENDPOINT_URL: wire.url, AWS_REGION: 'eu-central-1', AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE' };
  for (const [name, value] of Object.entries({ ...env, AWS_SECRET_ACCESS_KEY: 'secret' }))
    vi.stubEnv(name, value);
});
afterEach(async () => {
  vi.unstubAllEnvs();
  await wire[Symbol.asyncDispose]();
});

const json = (body: object): Reply => ({
  status: 200,
  headers: { 'content-type': 'application/x-amz-json-1.1' },
  body: JSON.stringify(body),
});

describe('ListSecrets lags, so a registration is read by its name', () => {
  const DESCRIBE = 'secretsmanager:DescribeSecret';
  const beta: ClusterStatus = { name: 'beta', source: 'registered', isPaused: false };
  const alpha: ClusterStatus = { name: 'alpha', source: 'registered', isPaused: false, failures: 3 };
  const current = async (reply: Reply, listed: ClusterStatus[]) => {
    wire.handle = ({ name }) => (name === DESCRIBE ? { reply } : undefined);
    return withCurrent(new Aws({}, new AbortController().signal), 'alpha', listed);
  };
  const ARN = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:ecr-anywhere/clusters/alpha-AbCdEf';
  const Tags = [
    { Key: TAG.paused, Value: 'true' },
    { Key: TAG.clusterUid, Value: 'uid' },
  ];

  test('one that is not listed yet is there', async () => {
    expect(await current(json({ ARN, Tags }), [beta])).toEqual([
      beta,
      { name: 'alpha', source: 'registered', isPaused: true, clusterUid: 'uid' },
    ]);
  });

  test('one that is listed has its tags of now', async () => {
    const listed = { ...alpha, clusterUid: 'earlier' };
    expect(await current(json({ ARN, Tags: [] }), [listed, beta])).toEqual([beta, alpha]);
  });

  test('one that is still listed, but deleted, is not there', async () => {
    const missing = awsError(DESCRIBE, 'ResourceNotFound', "can't find the specified secret");
    expect(await current(missing, [alpha, beta])).toEqual([beta]);
    expect(await current(json({ ARN, DeletedDate: 1_795_000_000 }), [alpha, beta])).toEqual([beta]);
  });

  test('without the permission, it is as listed', async () => {
    const denied = awsError(DESCRIBE, 'AccessDenied', 'not authorized');
    expect(await current(denied, [alpha, beta])).toEqual([alpha, beta]);
  });
});

/** Creates a registration that fails, and rolls it back. @param creations treats each CreateSecret @returns the failure */
async function failureOf(...creations: Treatment[]): Promise<unknown> {
  let token = '';
  wire.handle = ({ name, body }) => {
    if (name === CREATE) {
      token = JSON.parse(body).ClientRequestToken;
      return creations.shift();
    }
    const described = { VersionIdsToStages: { [token]: ['AWSCURRENT'] } };
    return { reply: json(name === DELETE ? {} : described) };
  };
  const rollback = new Rollback();
  const aws = new Aws({}, new AbortController().signal);
  const registration = { name: 'alpha', kubeconfig: 'kubeconfig', clusterUid: 'uid' };
  const failure = await createRegistration(aws, registration, rollback).catch((error: unknown) => error);
  return rollback.run({}, failure);
}

const calls = () => wire.calls.map(({ name }) => name);

test('a name that another operator has registered meanwhile is not deleted', async () => {
  const exists = awsError(CREATE, 'ResourceExists', 'A resource with the ID you requested already exists.');
  expect(await failureOf({ reply: exists })).toMatchObject({ code: 'already-registered', exitCode: 6 });
  expect(calls()).toEqual([CREATE]);
});

test('a registration is deleted if the response was lost and the retry was throttled', async () => {
  const lost = { before: () => Promise.reject(new Error('lost')) };
  const throttled = { reply: awsError(CREATE, 'Throttling', 'Rate exceeded') };
  const failure = await failureOf(lost, throttled, throttled, throttled);
  expect(failure).toMatchObject({ code: 'aws-throttled', exitCode: 10 });
  expect(calls().at(-1)).toBe(DELETE);
});
