// The table of status: it does not count discovery targets as clusters, and it fits the terminal.

import { expect, test } from 'vitest';
import { overview, rowsOf } from '../../../../cli/commands/status/overview.ts';
import { CliError } from '../../../../cli/output/errors.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { heightOf } from '../../../../cli/output/table.ts';
import type { ClusterStatus } from '../../../../contract/refresher-api.ts';

const NOW = Date.parse('2026-11-25T12:00:00Z');
const lookedAt = new Date(NOW - 60_000).toISOString();
const healthy = (name: string): ClusterStatus => ({
  ...{ name, source: 'registered', isPaused: false, failures: 0, lookedAt, reachedAt: lookedAt },
});
const failing = (name: string): ClusterStatus => ({
  ...healthy(name),
  failures: 2,
  reason: 'connect ETIMEDOUT '.repeat(12),
});
const discoveryTarget = (one: ClusterStatus): ClusterStatus => ({ ...one, source: 'eks-discovery' });

const OPTIONS = { stackName: 'Pulls', region: 'eu-central-1', profile: 'work' };
const FLAGS = '--profile work --region eu-central-1 --stack-name Pulls';
const shown = (all: readonly ClusterStatus[], more?: Parameters<typeof overview>[3]) =>
  overview(rowsOf(all, NOW), NOW, new ShellCommands(OPTIONS, {}), more);
/** The summary below the table. */
const footOf = (text: string) => text.split('\n\n').at(-1);

test.each<[string, readonly ClusterStatus[], string]>([
  [
    'without clusters, suggests register',
    [],
    `No cluster is registered.\n  → ecr-anywhere register NAME ${FLAGS}`,
  ],
  ['counts one cluster', [healthy('a')], '1 cluster, none needs attention.'],
  [
    'names the cluster that needs attention',
    [healthy('a'), failing('b c')],
    `2 clusters, 1 needs attention.\n  → ecr-anywhere doctor 'b c' ${FLAGS}`,
  ],
  [
    'does not count a discovery target as a cluster',
    [healthy('a'), discoveryTarget(healthy('EKS in eu-central-1'))],
    '1 cluster, none needs attention.',
  ],
  [
    'does not suggest doctor for a discovery target',
    [healthy('a'), discoveryTarget(failing('EKS in eu-central-1'))],
    `1 cluster, none needs attention.\nEKS discovery fails: EKS in eu-central-1.\n  → ecr-anywhere doctor ${FLAGS}`,
  ],
  [
    'reports a failing cluster and a failing discovery target',
    [failing('z'), discoveryTarget(failing('EKS in eu-central-1'))],
    `1 cluster, 1 needs attention.\nEKS discovery fails: EKS in eu-central-1.\n  → ecr-anywhere doctor ${FLAGS}`,
  ],
])('%s', (_, all, foot) => {
  expect(footOf(shown(all))).toBe(foot);
});

const topicArn = 'arn:aws:sns:eu-central-1:111122223333:alarms';

test.each([
  { pending: 0, sentence: 'their topic has no confirmed subscription.' },
  { pending: 1, sentence: 'their topic has no confirmed subscription (1 waiting for confirmation).' },
])('says that alarms are not delivered, with $pending subscriptions pending', ({ pending, sentence }) => {
  const text = shown([healthy('a')], { subscribers: { topicArn, confirmed: 0, pending } });
  expect(footOf(text)?.split('\n').slice(1)).toEqual([
    `Alarms and announcements are not delivered: ${sentence}`,
    `  → aws sns list-subscriptions-by-topic --topic-arn ${topicArn} --profile work --region eu-central-1`,
  ]);
});

test('does not mention subscribers that are confirmed or unknown', () => {
  expect(shown([healthy('a')], { subscribers: { topicArn, confirmed: 1, pending: 1 } })).toBe(
    shown([healthy('a')]),
  );
});

const fleet = Array.from({ length: 40 }, (_, index) =>
  index % 2 === 0 ? failing(`cluster-${index}`) : healthy(`cluster-${index}`),
);

test('lists every cluster if there is no terminal', () => {
  expect(shown(fleet).match(/^cluster-\d+ /gm)?.length).toBe(40);
});

test.each([
  { rows: 8, columns: 80 },
  { rows: 24, columns: 80 },
  { rows: 24, columns: 200 },
  { rows: 50, columns: 100 },
  { rows: 24, columns: 30 },
])('fits the list to a terminal of $rows rows and $columns columns', (screen) => {
  const text = shown(fleet, { screen });
  expect(heightOf(text, screen.columns)).toBeLessThan(screen.rows);
  const [, more = '0'] = /^and (\d+) more$/m.exec(text) ?? [];
  const names = [...text.matchAll(/^(cluster-\d+) /gm)].map(([, name]) => name);
  expect(names.length + Number(more)).toBe(40);
  expect(names).toEqual(
    rowsOf(fleet, NOW)
      .slice(0, names.length)
      .map(({ name }) => name),
  );
  if (screen.columns >= 80 && screen.rows > 8) expect(names.length).toBeGreaterThan(screen.rows / 4);
});

test('prints no "and N more" if every cluster fits', () => {
  const text = shown(fleet.slice(0, 3), { screen: { rows: 24, columns: 100 } });
  expect(text).not.toMatch(/^and \d/m);
});

test('shows a failed update and its hint within the rows of the terminal', () => {
  const error = new CliError('aws-session-expired', `the session ${'has expired '.repeat(40)}`, 'sign in');
  const failed = { error, lastUpdate: NOW - 180_000 };
  const text = shown(fleet, { screen: { rows: 24, columns: 80 }, failed });
  expect(text).toContain('\nThis table is 3m old. The last update failed: the session has');
  expect(text).toMatch(/\n {2}→ sign in$/);
  expect(heightOf(text, 80)).toBeLessThan(24);
  expect(shown(fleet, { failed })).toContain(error.message);
});
