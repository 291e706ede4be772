// The settings of the CDK app: text from the command line, values from cdk.json, and one error for all problems.
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
  scaleOut: false,
  toleratedFailingClusters: 0,
  memorySize: 512,
  tracing: false,
  logRetentionDays: 30,
  subnetIds: [],
  securityGroupIds: [],
  noProxy: [],
  eksRegions: [],
  assumableRoles: [],
  eksDiscovery: [],
  clusterMetrics: false,
  dashboard: true,
  keyless: false,
  webhooks: [],
  tags: {},
  allowLocalServers: false,
};

test('returns the defaults, and ignores the context keys of the CDK', () => {
  expect(
    readSettings({
      '@aws-cdk/aws-iam:minimizePolicies': true,
      'aws:cdk:enable-path-metadata': true,
      '// settings': 'a comment',
      'availability-zones:account=123456789012:region=eu-central-1': ['eu-central-1a'],
      'acknowledged-issue-numbers': [1],
      'cli-telemetry': false,
    }),
  ).toEqual(DEFAULTS);
});

test('reads text like the values it stands for', () => {
  const settings = { ...DEFAULTS, rateMinutes: 30, scheduleEnabled: false, alarmEmail: 'a@example.com' };
  expect(readSettings({ rateMinutes: '30', scheduleEnabled: 'false', alarmEmail: 'a@example.com' })).toEqual(
    settings,
  );
  expect(readSettings({ rateMinutes: 30, scheduleEnabled: false, alarmEmail: 'a@example.com' })).toEqual(
    settings,
  );
});

test('reads comma-separated text like a list', () => {
  const roles = ['arn:aws:iam::123456789012:role/a', 'arn:aws:iam::123456789012:role/path/b'];
  const targets = ['eu-central-1', `us-east-1=${roles[0]}`];
  for (const lists of [
    { eksRegions: 'eu-central-1, eu-west-1', assumableRoles: roles.join(), eksDiscovery: targets.join() },
    { eksRegions: ['eu-central-1', 'eu-west-1'], assumableRoles: roles, eksDiscovery: targets },
  ])
    expect(readSettings(lists)).toEqual({
      ...DEFAULTS,
      eksRegions: ['eu-central-1', 'eu-west-1'],
      assumableRoles: roles,
      eksDiscovery: targets,
    });
});

test('reads tags as a list of name=value, as JSON, and as an object', () => {
  const tags = { team: 'platform', 'cost center': 'a=b' };
  for (const given of ['team=platform, cost center=a=b', JSON.stringify(tags), tags])
    expect(readSettings({ tags: given })).toEqual({ ...DEFAULTS, tags });
});

test.each([
  { rateMinutes: 0 },
  { memorySize: 511 },
  { memorySize: 10_241 },
  { tracing: 'active' },
  { logRetentionDays: 31 },
  { logRetentionDays: 9_999 },
  { alarmTopicArn: 'alarms' },
  { alarmTopicArn: 'arn:aws:sns:eu-central-1:123456789012:alarms.fifo' },
  { tags: 'team' },
  { tags: { 'aws:team': 'platform' } },
  { tags: { 'AWS:team': 'platform' } },
  { tags: { team: 'platform', Team: 'platform' } },
  { tags: 'team=platform,team=other' },
  { tags: { team: 'x'.repeat(257) } },
  { toleratedFailingClusters: '' },
  { toleratedFailingClusters: ' ' },
  { toleratedFailingClusters: true },
  { logRetentionDays: true },
  { tags: Object.fromEntries(Array.from({ length: 51 }, (_, index) => [`tag${index}`, ''])) },
  { kmsKeyArn: 'arn:aws:kms:eu-central-1:123456789012:alias/key' },
  { kmsKeyArn: '01234567-89ab-cdef-0123-456789abcdef' },
  { secretPrefix: 'ecr-anywhere-Live/clusters/eu/' },
  { secretPrefix: 'ecr-anywhere-Live/' },
  { eksDiscovery: 'eu-central-1,eu-central-1' },
  { subnetIds: 'subnet-0123456789abcdef0,subnet-0123456789abcdef0' },
  { secretPrefix: 'clusters' },
  { secretPrefix: '/' },
  { secretPrefix: 'my clusters/' },
  // Of the default stack, these are the parent and a part.
  { secretPrefix: 'ecr-anywhere/' },
  { secretPrefix: 'ecr-anywhere/clusters/live/' },
  { subnetIds: 'subnet-1' },
  { subnetIds: Array(17).fill('subnet-0123456789abcdef0') },
  { securityGroupIds: 'subnet-0123456789abcdef0' },
  { securityGroupIds: Array(6).fill('sg-0123456789abcdef0') },
  { httpsProxy: 'proxy.example.com' },
  { httpsProxy: 'http://user:password@proxy.example.com' },
  { noProxy: 'https://sts.amazonaws.com' },
  { permissionsBoundary: 'arn:aws:iam::123456789012:role/boundary' },
  { eksRegions: 'frankfurt' },
  { eksRegions: '*' },
  { eksDiscovery: 'eu-central-1=*' },
  { eksDiscovery: 'arn:aws:iam::123456789012:role/a' },
  { assumableRoles: Array(30).fill(`arn:aws:iam::123456789012:role/${'a'.repeat(30)}`) },
  { assumableRoles: '*' },
  { assumableRoles: 'arn:aws:iam::123456789012:role/*' },
  { assumableRoles: 'arn:aws:iam::123456789012:user/a' },
  { allowLocalServers: 'maybe' },
  { rateMinutes: 91 },
  { rateMinutes: 1.5 },
  { rateMinutes: 'hourly' },
  { stackName: 'ecr_anywhere' },
  { alarmEmail: 'no-address' },
  { clusterDeadlineSeconds: 891 },
  { clusterConcurrency: 101 },
  { scheduleEnabled: 'maybe' },
])('refuses %j with the name of the setting', (context) => {
  // For a list, the number of the item; for tags, the name.
  expect(() => readSettings(context)).toThrow(new RegExp(`- ${Object.keys(context)[0]}(\\.[^ ]+)?: `));
});

test.each([
  { key: 'alarm-email', name: 'alarmEmail' },
  { key: 'ALARM_EMAIL', name: 'alarmEmail' },
  { key: 'alarm:email', name: 'alarmEmail' },
  { key: 'alarmMail', name: 'alarmEmail' },
  { key: 'alarm-emial', name: 'alarmEmail' },
  { key: 'stack-name', name: 'stackName' },
  { key: 'eks-region', name: 'eksRegions' },
])('refuses $key and names $name', ({ key, name }) => {
  expect(() => readSettings({ [key]: 'a@example.com' })).toThrow(
    `  - ${key}: there is no such setting; did you mean ${name}?`,
  );
});

test('refuses a key that resembles no setting', () => {
  expect(() => readSettings({ 'log-group-class': '7' })).toThrow(
    /^ {2}- log-group-class: there is no such setting$/m,
  );
});

test.each([
  {
    settings: { subnetIds: 'subnet-0123456789abcdef0' },
    problem: 'subnetIds, securityGroupIds: .*needs both',
  },
  {
    settings: { securityGroupIds: 'sg-0123456789abcdef0' },
    problem: 'subnetIds, securityGroupIds: .*needs both',
  },
  { settings: { noProxy: 'sts.amazonaws.com' }, problem: 'noProxy: has no effect without httpsProxy' },
])('refuses $settings, because another setting is missing', ({ settings, problem }) => {
  expect(() => readSettings(settings)).toThrow(new RegExp(`^ {2}- ${problem}$`, 'm'));
});

test('refuses alarmEmail with alarmTopicArn, because the address could not be subscribed', () => {
  const settings = {
    alarmTopicArn: 'arn:aws:sns:eu-central-1:123456789012:alarms',
    alarmEmail: 'a@example.com',
  };
  expect(() => readSettings(settings)).toThrow(/^ {2}- alarmEmail: .*subscribe the address to that topic$/m);
});

test('reports all problems together, with unknown names and the list of known ones', () => {
  expect(() => readSettings({ rateMinutes: 0, clusterConcurrency: 0, alarmMail: 'a@example.com' })).toThrow(
    /rateMinutes.*clusterConcurrency.*alarmMail.*Known settings: stackName/s,
  );
});

test('the app prints the problems without a stack trace', () => {
  const { status, stderr } = spawnSync(
    process.execPath,
    [fileURLToPath(new URL('../../infra/app.ts', import.meta.url))],
    { env: { ...process.env, CDK_CONTEXT_JSON: '{"rateMinutes":"0"}' }, encoding: 'utf8' },
  );
  expect(status).toBe(1);
  expect(stderr).toMatch(/^\S.*:\n {2}- rateMinutes: /);
  expect(stderr).not.toContain('    at ');
});

const KEY = 'arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef';

test('refuses ARNs of different regions, because the stack is in one', () => {
  const topic = 'arn:aws:sns:eu-west-1:123456789012:alarms';
  expect(() => readSettings({ kmsKeyArn: KEY, alarmTopicArn: topic, pagerTopicArn: topic })).toThrow(
    '- kmsKeyArn, alarmTopicArn, pagerTopicArn: must be in one region, that of the stack, and are in eu-central-1, eu-west-1, eu-west-1',
  );
});

const CHINESE_ROLE = 'arn:aws-cn:iam::123456789012:role/refresher';
test.each([
  { eksDiscovery: `eu-central-1=${CHINESE_ROLE}` },
  { eksDiscovery: 'eu-central-1,cn-north-1' },
  { eksRegions: 'eu-central-1', assumableRoles: CHINESE_ROLE },
  { kmsKeyArn: KEY, eksRegions: 'cn-north-1' },
])('refuses %j, because no stack has credentials for two partitions', (context) => {
  expect(() => readSettings(context)).toThrow(/one AWS partition, .* aws, aws-cn;/);
});

test.each([
  { eksDiscovery: `cn-north-1=${CHINESE_ROLE}`, eksRegions: 'cn-northwest-1', assumableRoles: CHINESE_ROLE },
  { eksRegions: 'us-gov-west-1', assumableRoles: 'arn:aws-us-gov:iam::123456789012:role/refresher' },
])('accepts regions and ARNs of one partition: %j', (context) => {
  expect(() => readSettings(context)).not.toThrow();
});
