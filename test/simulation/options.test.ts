// Tests the options of `npm run simulate`.
import { expect, test } from 'vitest';
import { readOptions } from './options.ts';

const HOUR = 3_600_000;

test('without options, 10,000 clusters with 100 Secrets are simulated for 72 hours, with three outages', () => {
  expect(readOptions([], 0)).toMatchObject({ clusters: 10_000, secrets: 100, hours: 72, replicas: 2 });
  expect(readOptions([], 0).outages.map(({ kind }) => kind)).toEqual(['ecr', 'region', 'clusters']);
});

test('reads outages, and none', () => {
  expect(readOptions(['--outage', 'region@2+3'], 5).outages).toEqual([
    { kind: 'region', from: 5 + 2 * HOUR, to: 5 + 5 * HOUR },
  ]);
  expect(readOptions(['--outage', 'none'], 0).outages).toEqual([]);
});

test('takes a sixth of the interval as the flexible window, as the CDK app does', () => {
  expect(readOptions(['--interval', '30'], 0).flexibleWindowMinutes).toBe(5);
});

test.each([
  [['--outage', 'moon@2+3'], '--outage'],
  [['--secrets', '0'], '--secrets'],
  [['--hours', 'long'], '--hours'],
  [['--interval', '91'], '--interval'],
  [['--ecr-quota', '21'], '--ecr-quota'],
  [['--clusters', '10', '--dead', '11'], '--dead'],
  [['--colour', 'red'], '--colour'],
])('refuses %j and names the option', (args, option) => {
  expect(() => readOptions(args, 0)).toThrow(option);
});
