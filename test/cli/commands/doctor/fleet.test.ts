// doctor, of what no local AWS has: places where EKS clusters are looked for, and clusters that the refresher says nothing
// of. AWS is answered for by the test.

import { afterAll, beforeAll, expect, test } from 'vitest';
import type { ClusterStatus, ClusterSummary } from '../../../../contract/refresher-api.ts';
import { type CommandLine, startCommandLine } from '../../command-line.ts';
import { DEPLOYED, functionAnswer, startAwsWire, type Wire } from '../../wire.ts';

const PLACE = 'EKS in eu-central-1';
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
beforeAll(async () => {
  aws = await startAwsWire();
  aws.treat = ({ name }) => {
    if (name === 'sts:GetCallerIdentity') return { reply: CALLER };
    if (name === 'cloudformation:DescribeStacks') return { reply: DEPLOYED };
    return { reply: functionAnswer({ clusters: name.endsWith('status') ? known : inspected }) };
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

const place: ClusterStatus = { name: PLACE, source: 'eks-discovery', isPaused: false, lookedAt };
const alpha: ClusterStatus = { name: 'alpha', source: 'registered', isPaused: false, lookedAt };
const wellInspected: ClusterSummary = {
  ...{ cluster: 'alpha', served: true, failed: false, managed: 1, due: 0, outcomes: {}, problems: [] },
  inspection: {
    ...{ server: 'https://x', identity: 'token', clusterUid: 'one', clockSkewSeconds: 0 },
    ...{ username: 'system:serviceaccount:pulls:ecr-refresher', groups: [], forbidden: [] },
  },
};

test.each([
  { reason: undefined, says: '' },
  { reason: 'ListClusters: AccessDenied', says: '; the last look failed: ListClusters: AccessDenied' },
])('a place is no cluster, and is not to be registered: $reason', async ({ reason, says }) => {
  known = [{ ...place, ...(reason !== undefined && { failures: 1, reason }) }];
  expect(await cli.run(['doctor', PLACE, '--stack-name', 'Blue'])).toEqual({
    code: 6,
    stdout: '',
    stderr: `ecr-anywhere: ${PLACE} is a place where EKS clusters are looked for, and no cluster${says}\n  → ecr-anywhere doctor --stack-name Blue looks there, and at the clusters; docs/registering.md, "EKS clusters"\n`,
  });
});

test('it is not among the names of clusters', async () => {
  known = [alpha, place];
  const { code, stdout } = await cli.run(['doctor', 'alhpa x']);
  expect(stdout).toContain('there is no cluster alhpa x; there are: alpha\n');
  expect(stdout).toContain("  → ecr-anywhere register 'alhpa x'\n");
  expect(code).toBe(1);
});

test('all clusters: a place that can be looked at is well', async () => {
  known = [alpha, place];
  inspected = [wellInspected];
  const { code, stdout } = await cli.run(['doctor', '--stack-name', 'Blue']);
  expect(stdout).toMatch(/^EKS in eu-central-1 +none$/m);
  expect(stdout).toContain('All well, as far as it can be seen from AWS.\n');
  expect(stdout).toContain('  → ecr-anywhere doctor NAME --stack-name Blue looks into a cluster, too');
  expect(code).toBe(0);
});

test('all clusters: one that cannot be', async () => {
  known = [alpha, place];
  const failed = { served: false, failed: true, failedAt: 'reach', reason: 'ListClusters: no' } as const;
  inspected = [wellInspected, { ...wellInspected, cluster: PLACE, ...failed }];
  const { code, stdout } = await cli.run(['doctor']);
  expect(stdout).toMatch(
    /^EKS in eu-central-1 +registered +EKS clusters cannot be looked for: ListClusters: no$/m,
  );
  expect(code).toBe(1);
});

test('all clusters: what the refresher says nothing of is not well', async () => {
  known = [alpha];
  inspected = [];
  const { code, stdout } = await cli.run(['doctor']);
  expect(stdout).toMatch(
    /^alpha +not known: the registered kubeconfig +the refresher has not answered for it$/m,
  );
  expect(stdout).toContain(
    '0 of 1 have a broken link; 1 could not be looked at, which counts (exit code 1); ',
  );
  expect(code).toBe(1);
});
