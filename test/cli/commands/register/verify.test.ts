// How register judges what the refresher reports, and which hint each failure gets.
import { describe, expect, test, vi } from 'vitest';
import type { ObtainedCredential, RegisterContext } from '../../../../cli/commands/register/context.ts';
import type { RegisterOptions } from '../../../../cli/commands/register/options.ts';
import { notServed, verify } from '../../../../cli/commands/register/verify.ts';
import { CliError } from '../../../../cli/output/errors.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import type { ClusterSummary, RefreshAnswer } from '../../../../contract/refresher-api.ts';

const EKS = { name: 'prod', region: 'us-east-1' };
const SERVED = {
  served: true,
  inspection: { username: 'refresher', groups: ['a'], clusterUid: 'uid-alpha' },
} as unknown as Partial<ClusterSummary>;
const UNAUTHORIZED: Partial<ClusterSummary> = { served: false, failedAt: 'credential', reason: 'HTTP 401' };

/** The context of a refresher that reports these in turn, the last one again and again. */
function contextOf(
  summaries: readonly Partial<ClusterSummary>[],
  options: Partial<RegisterOptions> = {},
  signal = new AbortController().signal,
) {
  const left = [...summaries];
  const inspectVersion = vi.fn(async () => {
    const summary = left.length > 1 ? left.shift() : left[0];
    return { clusters: summary ? [summary] : [] } as unknown as RefreshAnswer;
  });
  const commands = new ShellCommands({}, { context: 'ctx' });
  const context = {
    ...{
      name: 'alpha',
      options,
      refresher: { inspectVersion },
      uid: 'uid-alpha',
      commands,
      aws: { signal },
    },
  } as unknown as RegisterContext;
  return { context, inspectVersion };
}

const OBTAINED = {
  server: { url: 'https://k8s.example' },
  unauthorizedHint: 'Check the credential.',
} as ObtainedCredential;

const run = (context: RegisterContext, timeoutMs = 0, report: (text: string) => void = () => {}) =>
  verify(context, OBTAINED, 'v1', timeoutMs, report);

describe('verify', () => {
  test('returns the identity that the API server reports', async () => {
    const { context, inspectVersion } = contextOf([SERVED]);
    expect(await run(context)).toEqual({ username: 'refresher', groups: ['a'] });
    expect(inspectVersion.mock.calls).toEqual([['alpha', 'v1']]);
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
    await expect(run(contextOf(summary).context)).rejects.toMatchObject({
      code,
      exitCode,
      message: expect.stringContaining('alpha is not refreshed'),
    });
  });

  test('waits until the API server accepts the credential', async () => {
    const { context, inspectVersion } = contextOf([UNAUTHORIZED, SERVED]);
    const reports: string[] = [];
    expect(await run(context, 60_000, (text) => reports.push(text))).toMatchObject({ username: 'refresher' });
    expect(inspectVersion).toHaveBeenCalledTimes(2);
    expect(reports).toHaveLength(1);
  });

  test('waits until the refresher sees the secret, and then its new version', async () => {
    const unreadable = { served: false, failedAt: 'kubeconfig', codes: ['registration-unreadable'] } as const;
    const { context, inspectVersion } = contextOf([unreadable, SERVED]);
    inspectVersion.mockRejectedValueOnce(new CliError('not-registered', 'no such cluster'));
    expect(await run(context)).toMatchObject({ username: 'refresher' });
    expect(inspectVersion).toHaveBeenCalledTimes(3);
  });

  test('does not wait if the failure is not about the credential', async () => {
    const unreachable: Partial<ClusterSummary> = { served: false, failedAt: 'reach', reason: 'ECONNREFUSED' };
    const { context, inspectVersion } = contextOf([unreachable, SERVED]);
    await expect(run(context, 60_000)).rejects.toMatchObject({
      code: 'registration-not-verified',
      message: expect.stringContaining('ECONNREFUSED'),
    });
    expect(inspectVersion).toHaveBeenCalledTimes(1);
  });

  test('an interruption ends the wait', async () => {
    const controller = new AbortController();
    const { context } = contextOf([UNAUTHORIZED], {}, controller.signal);
    setTimeout(() => controller.abort(new Error('interrupted')), 50);
    await expect(run(context, 60_000)).rejects.toThrow();
  });
});

describe('notServed', () => {
  const KEYLESS = { keyless: true } as const;
  const PROXY = { server: { url: 'https://k8s.example', proxyUrl: 'http://proxy:1' } };
  test.each<{
    title: string;
    failedAt: ClusterSummary['failedAt'] | undefined;
    options?: Partial<RegisterOptions>;
    obtained?: Partial<ObtainedCredential>;
    hint: string;
  }>([
    {
      title: 'deploys with the setting keyless, of a keyless cluster',
      failedAt: 'setting',
      options: KEYLESS,
      hint: 'npx cdk deploy -c keyless=true',
    },
    {
      title: 'deploys with the region, of an EKS cluster',
      failedAt: 'setting',
      obtained: { eks: EKS },
      hint: 'npx cdk deploy -c eksRegions=us-east-1',
    },
    {
      title: 'is that of the credential, if the API server rejects it',
      failedAt: 'credential',
      hint: 'Check the credential.',
    },
    { title: 'restores the permissions', failedAt: 'permissions', hint: 'helm upgrade ecr-anywhere' },
    {
      title: 'names the page on keyless clusters, if STS refuses',
      failedAt: 'kubeconfig',
      options: KEYLESS,
      hint: 'docs/keyless.md',
    },
    {
      title: "is about the context's proxy, if there is one",
      failedAt: 'reach',
      obtained: PROXY,
      hint: 'proxy-url',
    },
    {
      title: 'shows the networks of an EKS endpoint',
      failedAt: 'reach',
      obtained: { eks: EKS },
      hint: 'aws eks describe-cluster --name prod',
    },
    { title: 'is --server otherwise', failedAt: 'reach', hint: '--server' },
    { title: 'is --server if the place is unknown', failedAt: undefined, hint: '--server' },
  ])('the hint $title', ({ failedAt, options, obtained, hint }) => {
    const summary = { served: false, reason: 'why', failedAt } as ClusterSummary;
    const failure = notServed(contextOf([], options).context, { ...OBTAINED, ...obtained }, summary);
    expect(failure.hint).toContain(hint);
  });

  test.each(['setting', 'reach', 'credential', 'permissions', 'kubeconfig', undefined] as const)(
    'of an EKS cluster, no hint names --server, which register refuses there (%s)',
    (failedAt) => {
      const summary = { served: false, reason: 'why', failedAt } as ClusterSummary;
      for (const obtained of [{ eks: EKS }, { eks: EKS, ...PROXY }]) {
        const { context } = contextOf([], { eks: true });
        expect(notServed(context, { ...OBTAINED, ...obtained }, summary).hint).not.toContain('--server');
      }
    },
  );

  test('a replacement that fails keeps the earlier credential', () => {
    expect(notServed(contextOf([], { replace: true }).context, OBTAINED, undefined).message).toContain(
      'alpha keeps its earlier credential',
    );
  });
});
