// Reading a registration by its name, and storing one that is not verified yet.
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Aws, type Stack } from '../../../cli/aws/aws.ts';
import { PendingRegistration, withCurrent } from '../../../cli/aws/registration.ts';
import { REGISTERING_STAGE, TAG } from '../../../contract/names.ts';
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import { awsError, type Reply, startAwsWire, type Wire } from '../wire.ts';

const STACK: Stack = {
  ...{ functionName: 'refresher', roleArn: 'arn:aws:iam::111122223333:role/refresher', stackName: 'Live' },
  ...{ isInVpc: false, secretPrefix: 'ecr-anywhere-Live/clusters/', kmsKeyArn: 'arn:key' },
};

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
    return withCurrent(new Aws({}, new AbortController().signal), STACK, 'alpha', listed);
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

  test('one that is not complete is marked as such', async () => {
    const registering = [{ Key: TAG.registering, Value: 'true' }];
    expect(await current(json({ ARN, Tags: registering }), [])).toEqual([
      { name: 'alpha', source: 'registered', isPaused: false, isRegistering: true },
    ]);
  });
});

describe('a pending registration', () => {
  const registration = (known?: ClusterStatus) =>
    new PendingRegistration(new Aws({}, new AbortController().signal), STACK, 'alpha', 'uid', known);
  const inputs = (operation: string) =>
    wire.calls
      .filter(({ name }) => name === `secretsmanager:${operation}`)
      .map(({ body }) => JSON.parse(body));

  test('begins with a placeholder, and stores the kubeconfig under a label that no run reads', async () => {
    wire.handle = () => ({ reply: json({ VersionId: 'v2' }) });
    const pending = registration();
    expect(await pending.stage('kubeconfig')).toBe('v2');
    expect(pending).toMatchObject({ isIncomplete: true, isVerified: false });
    const [created] = inputs('CreateSecret');
    expect(created.SecretString).not.toContain('kubeconfig');
    expect(created.Tags).toContainEqual({ Key: TAG.registering, Value: 'true' });
    expect(inputs('PutSecretValue')).toEqual([
      expect.objectContaining({ SecretString: 'kubeconfig', VersionStages: [REGISTERING_STAGE] }),
    ]);
  });

  test('completes although the refresher renews the earlier token at the same time', async () => {
    let current = 'v1';
    wire.handle = ({ name, body }) => {
      if (name === 'secretsmanager:DescribeSecret')
        return { reply: json({ VersionIdsToStages: { [current]: ['AWSCURRENT'] }, Tags: [] }) };
      const { VersionStage, RemoveFromVersionId } = JSON.parse(body);
      if (VersionStage !== 'AWSCURRENT' || RemoveFromVersionId === 'renewed') return { reply: json({}) };
      current = 'renewed';
      return { reply: awsError(name, 'InvalidParameter', 'The label is attached to another version.') };
    };
    const pending = registration({ name: 'alpha', source: 'registered', isPaused: false });
    await pending.complete('v2');
    expect(pending.isVerified).toBe(true);
    expect(inputs('UpdateSecretVersionStage').map(({ VersionStage }) => VersionStage)).toEqual([
      'AWSCURRENT',
      'AWSCURRENT',
      REGISTERING_STAGE,
    ]);
    expect(inputs('TagResource')).toEqual([
      expect.objectContaining({ Tags: [{ Key: TAG.clusterUid, Value: 'uid' }] }),
    ]);
  });

  test('stores the kubeconfig although AWS does not see the new secret at once', async () => {
    let puts = 0;
    wire.handle = ({ name }) => ({
      reply:
        name === 'secretsmanager:PutSecretValue' && puts++ === 0
          ? awsError(name, 'ResourceNotFound', "can't find the specified secret")
          : json({ VersionId: 'v2' }),
    });
    expect(await registration().stage('kubeconfig')).toBe('v2');
    expect(puts).toBe(2);
  });

  test('fails if another operator has registered the name meanwhile', async () => {
    wire.handle = ({ name }) => ({ reply: awsError(name, 'ResourceExists', 'already exists') });
    await expect(registration().begin()).rejects.toMatchObject({ code: 'already-registered', exitCode: 6 });
    expect(wire.calls).toHaveLength(1);
  });

  test('is not resumed if another command has completed it meanwhile', async () => {
    wire.handle = () => ({ reply: json({ ARN: 'arn', Tags: [] }) });
    const listed = { name: 'alpha', source: 'registered', isPaused: false, isRegistering: true } as const;
    await expect(registration(listed).begin()).rejects.toMatchObject({ code: 'already-registered' });
    await expect(registration(listed).stage('kubeconfig')).rejects.toMatchObject({
      code: 'already-registered',
    });
    expect(inputs('PutSecretValue')).toEqual([]);
    wire.handle = () => ({ reply: json({ ARN: 'arn', Tags: [{ Key: TAG.registering, Value: 'true' }] }) });
    await registration(listed).begin();
    expect(inputs('CreateSecret')).toEqual([]);
  });
});
