// Which registrations are rejected as duplicates, and how clusters without a UID tag are identified.

import { describe, expect, test, vi } from 'vitest';
import { NotRegisteredError } from '../../../../cli/aws/refresher.ts';
import {
  checkNotRegistered,
  determineUids,
} from '../../../../cli/commands/register/duplicate-registration.ts';
import { CliError } from '../../../../cli/output/errors.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import type { ClusterStatus, RefreshAnswer } from '../../../../contract/refresher-api.ts';

const commands = new ShellCommands({}, { context: 'ctx' });
const ARN = 'arn:aws:eks:eu-central-1:123456789012:cluster/prod';

const cluster = (name: string, more: Partial<ClusterStatus> = {}): ClusterStatus => ({
  name,
  source: 'registered',
  isPaused: false,
  ...more,
});
const tagged = (more: Partial<ClusterStatus> = {}) => cluster(ARN, { source: 'eks', ...more });

describe('checkNotRegistered', () => {
  test.each<{ title: string; known: ClusterStatus[]; isReplacing?: true }>([
    { title: 'an unknown name and cluster', known: [] },
    { title: 'a name beside another cluster', known: [cluster('beta', { clusterUid: 'uid-beta' })] },
    { title: 'a name beside a cluster without a UID', known: [cluster('beta')] },
    {
      title: 'a replacement for the same cluster',
      known: [cluster('alpha', { clusterUid: 'uid-alpha' })],
      isReplacing: true,
    },
    { title: 'a replacement for a cluster without a UID', known: [cluster('alpha')], isReplacing: true },
    { title: 'a cluster beside a tagged one', known: [tagged({ clusterUid: 'uid-prod' })] },
  ])('accepts $title', ({ known, isReplacing = false }) => {
    expect(() => checkNotRegistered('alpha', 'uid-alpha', known, isReplacing, commands)).not.toThrow();
  });

  test.each<{
    title: string;
    known: ClusterStatus[];
    isReplacing?: true;
    code: string;
    exitCode: number;
    hint: string;
  }>([
    {
      title: 'a name that is registered',
      known: [cluster('alpha', { clusterUid: 'uid-alpha' })],
      code: 'already-registered',
      exitCode: 6,
      hint: '--replace',
    },
    {
      title: 'a cluster that is registered under another name',
      known: [cluster('hand', { clusterUid: 'uid-alpha' })],
      code: 'duplicate-registration',
      exitCode: 6,
      hint: 'ecr-anywhere unregister hand',
    },
    {
      title: 'a replacement for a name that is not registered',
      known: [],
      isReplacing: true,
      code: 'not-registered',
      exitCode: 5,
      hint: 'Omit --replace.',
    },
    {
      title: 'a replacement for a name that belongs to a different cluster',
      known: [cluster('alpha', { clusterUid: 'uid-beta' })],
      isReplacing: true,
      code: 'different-cluster',
      exitCode: 6,
      hint: 'ecr-anywhere unregister alpha --keep-token',
    },
    {
      title: 'a cluster that the refresher finds by its EKS tag',
      known: [tagged({ clusterUid: 'uid-alpha' })],
      code: 'found-by-tag',
      exitCode: 6,
      hint: `aws eks untag-resource --resource-arn ${ARN} --tag-keys ecr-anywhere.centml.ai/managed --region eu-central-1`,
    },
  ])('rejects $title', ({ known, isReplacing = false, code, exitCode, hint }) => {
    expect(() => checkNotRegistered('alpha', 'uid-alpha', known, isReplacing, commands)).toThrow(
      expect.objectContaining({ code, exitCode, hint: expect.stringContaining(hint) }),
    );
  });
});

/** A refresher that knows the UIDs of these clusters. */
function refresherWith(uids: Readonly<Record<string, string>>) {
  return {
    inspect: vi.fn(
      async (names: readonly string[]) =>
        ({
          clusters: names.map((name) => ({
            cluster: name,
            served: name in uids,
            ...(uids[name] !== undefined && { inspection: { clusterUid: uids[name] } }),
          })),
        }) as unknown as RefreshAnswer,
    ),
  };
}

describe('determineUids', () => {
  test('inspects nothing if every cluster has a UID', async () => {
    const refresher = refresherWith({});
    const known = [cluster('beta', { clusterUid: 'uid-beta' })];
    expect(await determineUids(refresher, known, 'alpha')).toEqual({ clusters: known });
    expect(refresher.inspect).not.toHaveBeenCalled();
  });

  test('adds the UIDs that the refresher reports, to registered and to tagged clusters', async () => {
    const refresher = refresherWith({ hand: 'uid-hand', [ARN]: 'uid-prod' });
    expect(await determineUids(refresher, [cluster('hand'), tagged()], 'alpha')).toEqual({
      clusters: [cluster('hand', { clusterUid: 'uid-hand' }), tagged({ clusterUid: 'uid-prod' })],
    });
  });

  test('does not contact paused clusters, and discovery targets are no clusters', async () => {
    const refresher = refresherWith({});
    const known = [
      cluster('paused', { isPaused: true }),
      cluster('eu-central-1', { source: 'eks-discovery' }),
    ];
    expect(await determineUids(refresher, known, 'alpha')).toEqual({ clusters: known });
    expect(refresher.inspect).not.toHaveBeenCalled();
  });

  test('inspects at most 50 clusters, the name to register first, and notes those without a UID', async () => {
    const refresher = refresherWith({});
    const known = Array.from({ length: 51 }, (_, index) => cluster(`hand-${100 + index}`));
    const { clusters, note } = await determineUids(refresher, known, 'hand-150');
    expect(clusters).toEqual(known);
    expect(refresher.inspect).toHaveBeenCalledTimes(1);
    const [names = []] = refresher.inspect.mock.calls[0] ?? [];
    expect(names).toHaveLength(50);
    expect(names[0]).toBe('hand-150');
    expect(note).toMatch(/: hand-150, hand-100, hand-101, hand-102, hand-103, 46 more\.$/);
  });

  test('inspects the other clusters if one has disappeared', async () => {
    const refresher = refresherWith({ hand: 'uid-hand' });
    refresher.inspect.mockRejectedValueOnce(new NotRegisteredError([ARN], 'no such cluster', ''));
    const { clusters, note } = await determineUids(refresher, [cluster('hand'), tagged()], 'alpha');
    expect(clusters).toEqual([cluster('hand', { clusterUid: 'uid-hand' }), tagged()]);
    expect(note).toContain(ARN);
    expect(refresher.inspect.mock.calls).toEqual([[['hand', ARN]], [['hand']]]);
  });

  test('fails if the refresher fails', async () => {
    const refresher = refresherWith({});
    refresher.inspect.mockRejectedValueOnce(new CliError('function-failed', 'out of memory'));
    await expect(determineUids(refresher, [cluster('hand')], 'alpha')).rejects.toMatchObject({
      code: 'function-failed',
    });
  });
});
