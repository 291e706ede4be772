// doctor with answers of AWS that no test bed gives: discovery targets, and clusters that are missing from the answer.
import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ClusterStatus, ClusterSummary, Subscribers } from '../../../../contract/refresher-api.ts';
import { type CommandLine, startCommandLine } from '../../command-line.ts';
import { DEPLOYED, functionAnswer, startAwsWire, type Wire } from '../../wire.ts';

const TARGET = 'EKS in eu-central-1';
const CALLER = {
  status: 200,
  headers: { 'content-type': 'text/xml' },
  body: '<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::111122223333:user/me</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>',
};
const lookedAt = new Date().toISOString();

let aws: Wire;
let cli: CommandLine;
let known: ClusterStatus[];
let inspected: ClusterSummary[];
const topicArn = 'arn:aws:sns:eu-central-1:111122223333:alarms';
const CONFIRMED: Subscribers = { topicArn, confirmed: 1, pending: 0 };
let subscribers: Subscribers | undefined = CONFIRMED;
beforeAll(async () => {
  aws = await startAwsWire();
  aws.handle = ({ name }) => {
    if (name === 'sts:GetCallerIdentity') return { reply: CALLER };
    if (name === 'cloudformation:DescribeStacks') return { reply: DEPLOYED };
    return {
      reply: functionAnswer(
        name.endsWith('status') ? { clusters: known, subscribers } : { clusters: inspected },
      ),
    };
  };
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: aws.url,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
  });
});
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await aws?.[Symbol.asyncDispose]();
});

const target: ClusterStatus = { name: TARGET, source: 'eks-discovery', isPaused: false, lookedAt };
const alpha: ClusterStatus = { name: 'alpha', source: 'registered', isPaused: false, lookedAt };
const healthy: ClusterSummary = {
  ...{ cluster: 'alpha', served: true, failed: false, managed: 1, due: 0, outcomes: {}, problems: [] },
  inspection: {
    ...{ server: 'https://x', identity: 'token', clusterUid: 'one', clockSkewSeconds: 0 },
    ...{ username: 'system:serviceaccount:pulls:ecr-refresher', groups: [], forbidden: [] },
  },
};
const json = async (...args: string[]) => {
  const { code, stdout } = await cli.run(['doctor', ...args, '--output', 'json']);
  return { code, report: JSON.parse(stdout) };
};

test.each([{ reason: undefined }, { reason: 'ListClusters: AccessDenied' }])(
  'rejects the name of a discovery target: $reason',
  async ({ reason }) => {
    known = [{ ...target, ...(reason !== undefined && { failures: 1, reason }) }];
    const { code, stdout, stderr } = await cli.run(['doctor', TARGET, '--stack-name', 'Blue']);
    expect({ code, stdout }).toEqual({ code: 6, stdout: '' });
    expect(stderr).toContain(TARGET);
    expect(stderr).toContain(reason ?? '');
    expect(stderr).toMatch(/\n {2}→ ecr-anywhere doctor --stack-name Blue /);
  },
);

test('leaves discovery targets out of the names of clusters', async () => {
  known = [alpha, target];
  const { code, report } = await json('alhpa x');
  expect(code).toBe(1);
  expect(report.firstFailed).toMatchObject({
    code: 'not-registered',
    message: expect.stringMatching(/alhpa x.*: alpha\.$/),
    investigate: "ecr-anywhere register 'alhpa x' --dry-run",
  });
});

test('passes for a discovery target that the refresher can search', async () => {
  known = [alpha, target];
  inspected = [healthy];
  expect(await json('--stack-name', 'Blue')).toMatchObject({
    code: 0,
    report: {
      ok: true,
      clusters: [
        { cluster: 'alpha', ok: true },
        { cluster: TARGET, ok: true },
      ],
    },
  });
  const { stdout } = await cli.run(['doctor', '--stack-name', 'Blue']);
  expect(stdout).toMatch(/^EKS in eu-central-1 +none$/m);
  expect(stdout).toContain('  → ecr-anywhere doctor NAME --stack-name Blue ');
});

test('fails for a discovery target that the refresher cannot search', async () => {
  known = [alpha, target];
  const failure = { served: false, failed: true, failedAt: 'reach', reason: 'ListClusters: no' } as const;
  inspected = [healthy, { ...healthy, cluster: TARGET, ...failure }];
  const { code, report } = await json();
  expect(code).toBe(1);
  expect(report.clusters[1]).toMatchObject({
    ...{ cluster: TARGET, ok: false, problem: { code: 'discovery-failed', message: 'ListClusters: no' } },
  });
});

test('is not ok if the answer does not contain a cluster', async () => {
  known = [alpha];
  inspected = [];
  const { code, report } = await json();
  expect(code).toBe(1);
  expect(report).toMatchObject({
    ok: false,
    clusters: [{ cluster: 'alpha', ok: false, problem: { check: 'reachable', verdict: 'skipped' } }],
  });
  expect((await cli.run(['doctor'])).stdout).toContain('0 failed, 1 could not be checked');
});

test('a topic without a confirmed subscriber fails, for one cluster and for all', async () => {
  known = [alpha];
  inspected = [healthy];
  subscribers = { topicArn, confirmed: 0, pending: 1 };
  for (const args of [[], ['alpha']]) {
    const { code, report } = await json(...args);
    expect({ code, ok: report.ok }).toEqual({ code: 1, ok: false });
    expect(report.findings).toContainEqual(
      expect.objectContaining({
        check: 'subscribers',
        code: 'alarms-not-delivered',
        investigate: expect.stringContaining(`list-subscriptions-by-topic --topic-arn ${topicArn}`),
      }),
    );
  }
  subscribers = CONFIRMED;
  expect(await json()).toMatchObject({ code: 0, report: { ok: true } });
});

test('subscribers that the refresher could not read are a skipped check, and the exit code is 1', async () => {
  known = [alpha];
  inspected = [healthy];
  subscribers = undefined;
  const { code, report } = await json();
  subscribers = CONFIRMED;
  expect({ code, ok: report.ok }).toEqual({ code: 1, ok: false });
  expect(report.findings).toContainEqual(
    expect.objectContaining({ check: 'subscribers', verdict: 'skipped' }),
  );
});
