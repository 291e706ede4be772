// How doctor judges the CronJob of the refresher in the cluster. Pure.
import { describe, expect, test } from 'vitest';
import { judgeRuns } from '../../../../cli/commands/doctor/check-runs.ts';
import { ShellCommands } from '../../../../cli/output/shell-commands.ts';
import { INSTALLATION } from './installation.ts';

const NAME = 'ecr-anywhere-refresher';
const NOW = Date.parse('2026-11-23T12:00:00Z');
const commands = new ShellCommands({}, { context: 'bed', release: INSTALLATION });
const ago = (minutes: number) => new Date(NOW - minutes * 60_000).toISOString();
const cronJob = (status: object, { created = 10_000, spec = {} } = {}) => ({
  metadata: { creationTimestamp: ago(created) },
  spec,
  status,
});
const judged = (found: unknown) => judgeRuns(found, NAME, { commands }, NOW);

describe('passes', () => {
  test.each([
    ['if the last run succeeded', { lastScheduleTime: ago(20), lastSuccessfulTime: ago(19) }],
    ['while a run takes place', { lastScheduleTime: ago(1), lastSuccessfulTime: ago(60), active: [{}] }],
    [
      'if a run by hand succeeded after one that failed',
      { lastScheduleTime: ago(30), lastSuccessfulTime: ago(5) },
    ],
  ])('%s', (_, status) => {
    expect(judged(cronJob(status))).toMatchObject({ check: 'runs', verdict: 'passed' });
  });
});

test('is skipped before the first run, with the command that starts one', () => {
  expect(judged(cronJob({}, { created: 30 }))).toMatchObject({
    verdict: 'skipped',
    message: expect.stringContaining(`create job --from=cronjob/${NAME} refresh-now`),
  });
});

describe('fails', () => {
  test.each([
    ['cronjob-missing', undefined, /refresher\.inCluster\.enabled=true/],
    [
      'cronjob-suspended',
      cronJob({ lastSuccessfulTime: ago(5) }, { spec: { suspend: true } }),
      /patch cronjob/,
    ],
    ['last-run-failed', cronJob({ lastScheduleTime: ago(10), lastSuccessfulTime: ago(70) }), /describe pods/],
    ['last-run-failed', cronJob({ lastScheduleTime: ago(10) }, { created: 20 }), /describe pods/],
    [
      'no-recent-success',
      cronJob({ lastScheduleTime: ago(200), lastSuccessfulTime: ago(199) }),
      /describe pods/,
    ],
    ['no-recent-success', cronJob({}, { created: 200 }), /describe pods/],
  ])('with %s', (code, found, command) => {
    const finding = judged(found);
    expect(finding).toMatchObject({ check: 'runs', verdict: 'failed', code });
    expect(finding.repair ?? finding.investigate).toMatch(command);
  });
});
