// The text that register prints: the one place where its exact words are pinned.
import { describe, expect, test } from 'vitest';
import { formatDryRun, formatResult, type Result } from '../../../../cli/commands/register/format-result.ts';
import type { ClusterSummary } from '../../../../contract/refresher-api.ts';

const run = {
  cluster: 'alpha',
  served: true,
  failed: false,
  managed: 1,
  due: 0,
  outcomes: {},
  problems: [],
} as ClusterSummary;
const result: Result = {
  cluster: 'alpha',
  isRegistered: true,
  server: 'https://k8s.example:6443',
  identity: { username: 'system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher', groups: [] },
  canRead: { secrets: ['shop', 'team-a'], namespaces: 7 },
  expiresAt: '2026-01-08T00:00:00Z',
  isRenewed: true,
  run,
};

describe('formatResult', () => {
  test('names the identity, its read access, the expiry and the outcome of the run', () => {
    expect(formatResult(result)).toBe(
      [
        'alpha is registered',
        '  as system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher',
        '  It can read Secrets only in these namespaces: shop, team-a.',
        '  The credential expires at 2026-01-08T00:00:00Z. The refresher renews it after half of its lifetime.',
        '  1 managed Secret, none due.',
      ].join('\n'),
    );
  });

  test('says that the refresher cannot renew the credential', () => {
    expect(formatResult({ ...result, isRenewed: false })).toContain(
      '\n  The credential expires at 2026-01-08T00:00:00Z. The refresher cannot renew it.\n',
    );
  });

  test('names no expiry if there is none', () => {
    const { expiresAt: _, ...without } = result;
    expect(formatResult(without)).not.toContain('expires');
  });

  test('names the change to the access entry', () => {
    expect(formatResult({ ...result, accessEntry: 'created' })).toContain('\n  Access entry: created\n');
  });

  test('lists the problems of the run', () => {
    const failed = { ...run, failed: true, reason: 'a reason' };
    expect(formatResult({ ...result, run: failed })).toMatch(/\n {2}a reason$/);
  });
});

describe('formatDryRun', () => {
  const { run: _, ...without } = result;
  const dryRun: Result = { ...without, isRegistered: false, accessEntry: 'group-added' };

  test('says what was not checked', () => {
    expect(formatDryRun(dryRun).split('\n')).toEqual([
      'Dry run: nothing was stored or changed.',
      expect.stringMatching(/^ {2}as system:serviceaccount:/),
      '  Access entry (would be): group-added',
      expect.stringMatching(/^ {2}It can read/),
      expect.stringMatching(/^ {2}The credential expires/),
      '  Not checked: whether AWS can reach https://k8s.example:6443.',
    ]);
  });

  test('warns of an address that AWS cannot reach', () => {
    expect(formatDryRun({ ...dryRun, server: 'https://127.0.0.1:6443' })).toMatch(
      /\n {2}AWS cannot reach it: 127\.0\.0\.1 .*\. Give another address with --server\.$/,
    );
  });
});
