// How register judges what the refresher reports, and which hint each failure gets.
import { describe, expect, test, vi } from 'vitest';
import type { EksCluster } from '../../../../cli/commands/register/eks-access-entry.ts';
import { notServed, type Verification, verify } from '../../../../cli/commands/register/verify.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import type { ClusterSummary, RefreshAnswer } from '../../../../contract/refresher-api.ts';

const EKS: EksCluster = { name: 'prod', region: 'us-east-1' };
const SERVED = {
  served: true,
  inspection: { username: 'refresher', groups: ['a'], clusterUid: 'uid-alpha' },
} as unknown as Partial<ClusterSummary>;
const UNAUTHORIZED: Partial<ClusterSummary> = { served: false, failedAt: 'credential', reason: 'HTTP 401' };

/** A verification by a refresher that reports these in turn, the last one again and again. */
function verificationOf(
  summaries: readonly Partial<ClusterSummary>[],
  more: Partial<Verification> = {},
): Verification & { readonly inspect: ReturnType<typeof vi.fn> } {
  const left = [...summaries];
  const inspect = vi.fn(async () => {
    const summary = left.length > 1 ? left.shift() : left[0];
    return { clusters: summary ? [summary] : [] } as unknown as RefreshAnswer;
  });
  return {
    name: 'alpha',
    refresher: { inspect },
    uid: 'uid-alpha',
    consequence: 'alpha is not registered',
    eksCluster: undefined,
    obtained: { server: { url: 'https://k8s.example' }, unauthorizedHint: 'Check the credential.' },
    commands: new ShellCommands({}, { context: 'ctx' }),
    signal: new AbortController().signal,
    ...more,
    inspect,
  };
}

const run = (verification: Verification, timeoutMs = 0) => verify(verification, timeoutMs, () => {});

describe('verify', () => {
  test('returns the identity that the API server reports', async () => {
    const verification = verificationOf([SERVED]);
    expect(await run(verification)).toEqual({ username: 'refresher', groups: ['a'] });
    expect(verification.inspect.mock.calls).toEqual([[['alpha']]]);
  });

  test.each<{ title: string; summary: Partial<ClusterSummary>[]; code: string; exitCode: number }>([
    {
      title: 'a different cluster answers',
      summary: [{ ...SERVED, inspection: { username: 'r', clusterUid: 'uid-beta' } as never }],
      code: 'different-cluster',
      exitCode: 6,
    },
    {
      title: 'the API server does not report the identity',
      summary: [{ ...SERVED, inspection: { clusterUid: 'uid-alpha' } as never }],
      code: 'registration-not-verified',
      exitCode: 1,
    },
    {
      title: 'the API server does not report the UID of the cluster',
      summary: [{ ...SERVED, inspection: { username: 'r' } as never }],
      code: 'registration-not-verified',
      exitCode: 1,
    },
    { title: 'the refresher reports nothing', summary: [], code: 'registration-not-verified', exitCode: 1 },
    {
      title: 'the API server rejects the credential and there is no time to wait',
      summary: [UNAUTHORIZED],
      code: 'registration-not-verified',
      exitCode: 1,
    },
  ])('fails if $title', async ({ summary, code, exitCode }) => {
    await expect(run(verificationOf(summary))).rejects.toMatchObject({
      code,
      exitCode,
      message: expect.stringContaining('alpha is not registered'),
    });
  });

  test('waits until the API server accepts the credential', async () => {
    const verification = verificationOf([UNAUTHORIZED, SERVED]);
    const reports: string[] = [];
    expect(await verify(verification, 60_000, (text) => reports.push(text))).toMatchObject({
      username: 'refresher',
    });
    expect(verification.inspect).toHaveBeenCalledTimes(2);
    expect(reports).toHaveLength(1);
  });

  test('does not wait if the failure is not about the credential', async () => {
    const verification = verificationOf([
      { served: false, failedAt: 'reach', reason: 'ECONNREFUSED' },
      SERVED,
    ]);
    await expect(run(verification, 60_000)).rejects.toMatchObject({
      code: 'registration-not-verified',
      message: expect.stringContaining('ECONNREFUSED'),
    });
    expect(verification.inspect).toHaveBeenCalledTimes(1);
  });

  test('an interruption ends the wait', async () => {
    const controller = new AbortController();
    const verification = verificationOf([UNAUTHORIZED], { signal: controller.signal });
    setTimeout(() => controller.abort(new Error('interrupted')), 50);
    await expect(run(verification, 60_000)).rejects.toThrow();
  });
});

describe('notServed', () => {
  const keyless = { authenticationConfig: 'apiVersion: …' };
  const hintOf = (
    failedAt: ClusterSummary['failedAt'] | undefined,
    { details, proxyUrl, eksCluster }: { details?: object; proxyUrl?: string; eksCluster?: EksCluster } = {},
  ) =>
    notServed(
      verificationOf([], {
        ...(eksCluster && { eksCluster }),
        obtained: {
          server: { url: 'https://k8s.example', ...(proxyUrl !== undefined && { proxyUrl }) },
          unauthorizedHint: 'Check the credential.',
          ...(details && { details }),
        },
      }),
      { served: false, reason: 'why', ...(failedAt && { failedAt }) } as ClusterSummary,
    ).hint;

  test.each<{ title: string; hint: string | undefined; expected: string }>([
    {
      title: 'deploys with the setting keyless, of a keyless cluster',
      hint: hintOf('setting', { details: keyless }),
      expected: 'npx cdk deploy -c keyless=true',
    },
    {
      title: 'deploys with the region, of an EKS cluster',
      hint: hintOf('setting', { eksCluster: EKS }),
      expected: 'npx cdk deploy -c eksRegions=us-east-1',
    },
    {
      title: 'is that of the credential, if the API server rejects it',
      hint: hintOf('credential'),
      expected: 'Check the credential.',
    },
    { title: 'restores the permissions', hint: hintOf('permissions'), expected: 'helm upgrade ecr-anywhere' },
    {
      title: 'names the page on keyless clusters, if STS refuses',
      hint: hintOf('kubeconfig', { details: keyless }),
      expected: 'docs/keyless.md',
    },
    {
      title: "is about the context's proxy, if there is one",
      hint: hintOf('reach', { proxyUrl: 'http://proxy:1' }),
      expected: 'proxy-url',
    },
    {
      title: 'shows the networks of an EKS endpoint',
      hint: hintOf('reach', { eksCluster: EKS }),
      expected: 'aws eks describe-cluster --name prod',
    },
    { title: 'is --server otherwise', hint: hintOf('reach'), expected: '--server' },
    { title: 'is --server if the place is unknown', hint: hintOf(undefined), expected: '--server' },
  ])('the hint $title', ({ hint, expected }) => {
    expect(hint).toContain(expected);
  });
});
