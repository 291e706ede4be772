// The deployer's settings: text from the command line or values from cdk.json, and one clear error for all that is wrong.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { readSettings } from '../../infra/settings.ts';

const DEFAULTS = {
  stackName: 'EcrAnywhere',
  rateMinutes: 60,
  scheduleEnabled: true,
  clusterDeadlineSeconds: 120,
  clusterConcurrency: 25,
  eksRegions: [],
  assumableRoles: [],
  eksDiscovery: [],
  keyless: false,
  webhooks: [],
  allowLocalServers: false,
};

test('defaults, whatever else the CDK knows', () => {
  expect(
    readSettings({
      '@aws-cdk/aws-iam:minimizePolicies': true,
      'aws:cdk:enable-path-metadata': true,
      '// settings': 'a comment',
      'acknowledged-issue-numbers': [1],
    }),
  ).toEqual(DEFAULTS);
});

test('text and values are the same', () => {
  const settings = { ...DEFAULTS, rateMinutes: 30, scheduleEnabled: false, alarmEmail: 'a@example.com' };
  expect(readSettings({ rateMinutes: '30', scheduleEnabled: 'false', alarmEmail: 'a@example.com' })).toEqual(
    settings,
  );
  expect(readSettings({ rateMinutes: 30, scheduleEnabled: false, alarmEmail: 'a@example.com' })).toEqual(
    settings,
  );
});

test('lists are comma-separated, or lists', () => {
  const roles = ['arn:aws:iam::123456789012:role/a', 'arn:aws-cn:iam::123456789012:role/path/b'];
  const scopes = ['eu-central-1', `us-east-1=${roles[0]}`];
  for (const lists of [
    { eksRegions: 'eu-central-1, us-gov-west-1', assumableRoles: roles.join(), eksDiscovery: scopes.join() },
    { eksRegions: ['eu-central-1', 'us-gov-west-1'], assumableRoles: roles, eksDiscovery: scopes },
  ])
    expect(readSettings(lists)).toEqual({
      ...DEFAULTS,
      eksRegions: ['eu-central-1', 'us-gov-west-1'],
      assumableRoles: roles,
      eksDiscovery: scopes,
    });
});

test.each([
  { rateMinutes: 0 },
  { eksRegions: 'frankfurt' },
  { eksRegions: '*' },
  { eksDiscovery: 'eu-central-1=*' },
  { eksDiscovery: 'arn:aws:iam::123456789012:role/a' },
  { assumableRoles: Array(30).fill(`arn:aws:iam::123456789012:role/${'a'.repeat(30)}`) },
  { assumableRoles: '*' },
  { assumableRoles: 'arn:aws:iam::123456789012:role/*' },
  { assumableRoles: 'arn:aws:iam::123456789012:user/a' },
  { allowLocalServers: 'perhaps' },
  { rateMinutes: 121 },
  { rateMinutes: 1.5 },
  { rateMinutes: 'hourly' },
  { stackName: 'ecr_anywhere' },
  { alarmEmail: 'nobody' },
  { clusterDeadlineSeconds: 891 },
  { clusterConcurrency: 101 },
  { scheduleEnabled: 'perhaps' },
])('refuses %j by name', (context) => {
  // Of a list the item is named.
  expect(() => readSettings(context)).toThrow(new RegExp(`- ${Object.keys(context)[0]}(\\.0)?: `));
});

test('reports every problem together, a mistyped name too', () => {
  expect(() => readSettings({ rateMinutes: 0, clusterConcurrency: 0, alarmMail: 'a@example.com' })).toThrow(
    /rateMinutes.*clusterConcurrency.*"alarmMail".*Known settings: stackName/s,
  );
});

test('the app ends with the sentence and without a stack trace', () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [fileURLToPath(new URL('../../infra/app.ts', import.meta.url))],
    { env: { ...process.env, CDK_CONTEXT_JSON: '{"rateMinutes":"0"}' }, encoding: 'utf8' },
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^The CDK context does not fit:\n {2}- rateMinutes: /);
  expect(stderr).not.toContain('    at ');
});
