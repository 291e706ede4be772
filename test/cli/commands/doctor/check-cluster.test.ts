// The checks that doctor reads from the refresher's answers: the code of each failure, and its remedy. Pure: also for
// clusters that no test bed has, such as EKS.
import { describe, expect, test } from 'vitest';
import {
  clock,
  fromInspection,
  fromOthers,
  fromStatus,
  type Subject,
} from '../../../../cli/commands/doctor/check-cluster.ts';
import { type FailureCode, firstProblem, type Remedy } from '../../../../cli/commands/doctor/checks.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import type {
  ClusterStatus,
  ClusterSummary,
  FailedAt,
  Inspection,
} from '../../../../contract/refresher-api.ts';

const status: ClusterStatus = { name: 'alpha', source: 'registered', isPaused: false };
const summary: ClusterSummary = {
  ...{ cluster: 'alpha', served: false, failed: true, managed: 0, due: 0, outcomes: {}, problems: [] },
  ...{ reason: 'GET /api/v1/namespaces: HTTP 401: Unauthorized', failedAt: 'credential' },
};
const subject: Subject = {
  status,
  isVerified: true,
  commands: new ShellCommands({}, { context: 'prod', roleArn: 'arn:aws:iam::111122223333:role/refresher' }),
};
const first = (changes: Partial<ClusterSummary>, of: Partial<Subject> = {}) =>
  firstProblem(fromInspection({ ...summary, ...changes }, { ...subject, ...of }));

const server = 'https://edge.example.com:6443';
const inspectionOf = (identity: Inspection['identity'], more: Partial<Inspection> = {}) => ({
  inspection: { server, identity, ...more },
});
/** A cluster without a failure, as far as the inspection goes. */
const served = (more: Partial<Inspection> = {}) => ({
  ...{ served: true, failed: false },
  ...inspectionOf('token', {
    ...{ username: 'me', groups: ['ecr-anywhere:refreshers'], forbidden: [], clockSkewSeconds: 0 },
    ...more,
  }),
});

const register = (flags: string) => `ecr-anywhere register alpha --replace${flags} --context prod`;

describe('a rejected credential', () => {
  test.each<{ identity: Inspection['identity']; server?: string; flags: string; isCertain?: true }>([
    { identity: 'token', flags: ` --server ${server}`, isCertain: true },
    { identity: 'token', server, flags: '', isCertain: true },
    { identity: 'certificate', flags: ` --credential KUBECONFIG --server ${server}` },
    { identity: 'keyless', server, flags: ' --keyless' },
    // EKS names the endpoint.
    { identity: 'eks', flags: ' --eks', isCertain: true },
  ])(
    'of the kind $identity is registered as that again, under its address',
    ({ flags, isCertain, ...one }) => {
      const found = first(inspectionOf(one.identity), { server: one.server ?? 'https://10.0.0.1:6443' });
      expect(found).toMatchObject({
        code: 'credential-rejected',
        ...(isCertain ? { repair: register(flags) } : { investigate: register(`${flags} --dry-run`) }),
      });
      expect(found).not.toHaveProperty(isCertain ? 'investigate' : 'repair');
    },
  );

  test('is not certainly repaired by a context that is not verified', () => {
    const found = first(inspectionOf('token'), { server, isVerified: false });
    expect(found?.repair).toBeUndefined();
    expect(found?.investigate).toBe(register(' --dry-run'));
  });

  test('is not certainly a token if the inspection is missing', () => {
    const found = first({ failedAt: 'kubeconfig' });
    expect(found).toMatchObject({ code: 'registration-unusable', investigate: register(' --dry-run') });
    for (const option of ['--eks', '--keyless', '--credential KUBECONFIG'])
      expect(found?.hint).toContain(option);
  });

  test('waits for the chart if it is a token, and the chart is not installed', () => {
    const missingChart: Remedy = { investigate: 'helm list' };
    expect(first(inspectionOf('token'), { missingChart })?.investigate).toBe('helm list');
    expect(first(inspectionOf('eks'), { missingChart })?.repair).toContain('--eks');
    const forbidden = first(
      {
        failedAt: 'permissions',
        ...inspectionOf('eks', { username: 'me', groups: ['ecr-anywhere:refreshers'] }),
      },
      { missingChart },
    );
    expect(forbidden).toMatchObject({ code: 'permission-missing', investigate: 'helm list' });
  });
});

test('a registration of a different cluster is registered as what it is, without its address', () => {
  const of = { status: { ...status, clusterUid: 'one' }, server };
  const changes = { ...served(), ...inspectionOf('token', { clusterUid: 'another' }) };
  expect(first(changes, of)).toMatchObject({ code: 'different-cluster', repair: register('') });
  const keyless = { ...served(), ...inspectionOf('keyless', { clusterUid: 'another' }) };
  expect(first(keyless, of)?.investigate).toBe(register(' --keyless --dry-run'));
});

describe('EKS', () => {
  const arn = 'arn:aws:eks:us-east-1:111122223333:cluster/gpu';
  const tagged = { ...status, name: arn, source: 'eks' } as const;
  const ENTRY =
    'aws eks describe-access-entry --cluster-name gpu --principal-arn arn:aws:iam::111122223333:role/refresher --region us-east-1';

  test.each<{ name: string; changes: Partial<ClusterSummary>; code: FailureCode }>([
    { name: 'rejects the refresher', changes: {}, code: 'credential-rejected' },
    {
      name: 'has another identity for it',
      changes: { ...served(), ...inspectionOf('eks', { username: 'admin', groups: ['system:masters'] }) },
      code: 'identity-not-restricted',
    },
  ])('the access entry decides if a tagged cluster $name', ({ changes, code }) => {
    const found = first(changes, { status: tagged });
    expect(found).toMatchObject({ code, investigate: ENTRY });
    expect(found?.hint).toContain('create-access-entry');
  });

  test.each<{ failedAt: FailedAt; code: FailureCode }>([
    { failedAt: 'reach', code: 'unreachable' },
    { failedAt: 'kubeconfig', code: 'registration-unusable' },
  ])('the endpoint decides if a tagged cluster fails at $failedAt', ({ failedAt, code }) => {
    expect(first({ failedAt, ...inspectionOf('eks') }, { status: tagged })).toMatchObject({
      code,
      investigate:
        'aws eks describe-cluster --name gpu --query cluster.resourcesVpcConfig --region us-east-1',
    });
  });

  test('a registered cluster cannot get another address', () => {
    const found = first({ failedAt: 'reach', ...inspectionOf('eks') });
    expect(found).toMatchObject({ code: 'unreachable', hint: expect.not.stringContaining('--server') });
  });

  test('a discovery target that cannot be searched is a failure of discovery', () => {
    const target = { ...status, name: 'EKS in us-east-1', source: 'eks-discovery' } as const;
    const reason = 'ListClusters: AccessDeniedException: no';
    expect(first({ reason, failedAt: 'reach' }, { status: target })).toMatchObject({
      code: 'discovery-failed',
      message: reason,
    });
  });
});

describe('the code', () => {
  test.each<{ failedAt: FailedAt; code: FailureCode }>([
    { failedAt: 'kubeconfig', code: 'registration-unusable' },
    { failedAt: 'setting', code: 'setting-missing' },
    { failedAt: 'reach', code: 'unreachable' },
    { failedAt: 'credential', code: 'credential-rejected' },
    { failedAt: 'permissions', code: 'permission-missing' },
  ])('is $code for a failure at $failedAt, whatever the reason reads', ({ failedAt, code }) => {
    for (const reason of ['HTTP 401', 'GET /x: HTTP 403: forbidden', 'no answer', 'CDK setting', 'other'])
      expect(first({ failedAt, reason })).toMatchObject({ code, message: expect.stringContaining(reason) });
  });

  test('is not-refreshed for a namespace that cannot be listed, though nothing was due', () => {
    const reason = 'GET /api/v1/namespaces/shop/secrets: HTTP 500: etcdserver: request timed out';
    const failure = { ...served(), failed: true, managed: 3, reason };
    expect(first(failure)).toMatchObject({ code: 'not-refreshed', message: reason });
  });

  test('is not-refreshed with the first three problems of Secrets', () => {
    const problems = ['a', 'b', 'c', 'd', 'e'].map((secret) => ({
      ...({ secret, due: 'expired', outcome: 'refused', reason: 'no' } as const),
    }));
    const { reason: _, ...rest } = summary;
    const found = firstProblem(fromInspection({ ...rest, ...served(), failed: true, problems }, subject));
    expect(found?.message).toBe('a: refused: no, b: refused: no, c: refused: no, 2 more');
  });
});

describe('a setting that is missing', () => {
  test.each([
    { identity: 'keyless', command: 'npx cdk diff -c keyless=true' },
    { identity: 'eks', command: 'npx cdk diff' },
  ] as const)('is shown by a diff of the deployment: $identity', ({ identity, command }) => {
    const { investigate: shown, repair } = first({ failedAt: 'setting', ...inspectionOf(identity) }) ?? {};
    expect({ shown, repair }).toEqual({ shown: command, repair: undefined });
  });
});

describe('the registered token', () => {
  const expiresAt = '2026-01-01T00:00:00Z';
  const token = { expiresAt, renewable: true };
  const late: ClusterStatus = {
    ...{ ...status, failures: 1, reason: 'HTTP 403: 600 seconds at most' },
    ...{ codes: ['token-late'], tokenExpiresAt: expiresAt },
  };

  test.each<{ name: string; changes: Partial<Inspection>; of: ClusterStatus; why?: string }>([
    { name: 'passes if it is renewed', changes: { token }, of: status },
    {
      name: 'fails if it cannot be renewed',
      changes: { token: { ...token, renewable: false, reason: 'bound to nothing' } },
      of: status,
      why: 'bound to nothing',
    },
    {
      name: 'fails if the last run found it late',
      changes: { token },
      of: late,
      why: 'HTTP 403: 600 seconds at most',
    },
    {
      name: 'passes if another token was late',
      changes: { token },
      of: { ...late, tokenExpiresAt: '2025-01-01T00:00:00Z' },
    },
    {
      name: 'passes if the last run failed for another reason',
      changes: { token },
      of: { ...late, codes: ['unreachable'] },
    },
  ])('$name', ({ changes, of, why }) => {
    const found = first(served(changes), { status: of });
    if (why === undefined) expect(found).toBeUndefined();
    else
      expect(found).toMatchObject({
        code: 'token-not-renewed',
        message: expect.stringContaining(`${expiresAt}, and is not renewed: ${why}`),
      });
  });
});

describe('permissions', () => {
  const forbidden = (list: string[], of: Partial<Subject> = {}) => first(served({ forbidden: list }), of);

  test('are restored by the chart if it always gives them', () => {
    expect(forbidden(['list namespaces'])?.repair).toMatch(/^helm upgrade /);
  });

  test('need investigation if they may be narrowed to namespaces, or the context is not verified', () => {
    expect(forbidden(['patch secrets in team-a'])?.investigate).toMatch(/^helm get values /);
    expect(forbidden(['list namespaces'], { isVerified: false })?.repair).toBeUndefined();
  });
});

test.each([
  { seconds: undefined, verdict: 'skipped' },
  { seconds: 300, verdict: 'passed' },
  { seconds: -301, verdict: 'failed' },
])('a clock skew of $seconds s: $verdict', ({ seconds, verdict }) => {
  expect(clock(seconds).verdict).toBe(verdict);
});

describe('the schedule', () => {
  const now = Date.parse('2026-01-01T12:00:00Z');
  const ago = (ms: number) => new Date(now - ms).toISOString();
  test.each<{ name: string; changes: Partial<ClusterStatus>; expected: object }>([
    { name: 'is skipped before the first run', changes: {}, expected: { verdict: 'skipped' } },
    {
      name: 'passes after a recent run',
      changes: { lookedAt: ago(60_000) },
      expected: { verdict: 'passed' },
    },
    {
      name: 'fails without a recent run',
      changes: { lookedAt: ago(4 * 3_600_000) },
      expected: { code: 'no-recent-run', message: expect.stringContaining('4h 0m') },
    },
    {
      name: 'fails for a paused cluster',
      changes: { lookedAt: ago(60_000), isPaused: true, pausedSince: '2026-01-01' },
      expected: { code: 'paused', repair: 'ecr-anywhere resume alpha' },
    },
  ])('$name', ({ changes, expected }) => {
    const findings = fromStatus({ ...subject, status: { ...status, ...changes } }, now);
    expect(findings.find(({ check }) => check === 'schedule')).toMatchObject(expected);
  });
});

test('a registration that is not complete is named, with what completes and what removes it', () => {
  const found = firstProblem(
    fromStatus({ ...subject, status: { ...status, isRegistering: true } }, Date.now()),
  );
  expect(found).toMatchObject({
    code: 'registration-incomplete',
    investigate: 'ecr-anywhere register alpha --dry-run --context prod',
    hint: expect.stringContaining('ecr-anywhere unregister alpha'),
  });
});

test('a cluster that is registered under two names is named with both', () => {
  const named = (name: string, clusterUid?: string): ClusterStatus => ({
    ...{ name, source: 'registered', isPaused: false },
    ...(clusterUid && { clusterUid }),
  });
  const all = [
    named('alpha', 'uid'),
    named('beta', 'uid'),
    named('gamma', 'other'),
    named('delta'),
    named('zeta'),
  ];
  const found = (name: string) =>
    fromOthers({ ...subject, status: all.find((one) => one.name === name) ?? status }, all);
  expect(found('alpha')).toEqual([
    expect.objectContaining({
      code: 'registered-twice',
      message: expect.stringContaining('beta'),
      hint: expect.stringContaining('ecr-anywhere unregister beta --keep-token'),
    }),
  ]);
  expect(['gamma', 'delta'].flatMap(found)).toEqual([]);
});
