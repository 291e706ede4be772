// What the function can be asked for, and what it says to anything else.
import { expect, test } from 'vitest';
import { isWholeRun, readEvent } from '../../../functions/refresher/event.ts';

const WHOLE = { dryRun: false, force: false };

test.each([
  { title: 'an empty event', event: {}, read: WHOLE, whole: true },
  { title: 'no event', event: undefined, read: WHOLE, whole: true },
  { title: 'null', event: null, read: WHOLE, whole: true },
  { title: 'force', event: { force: true }, read: { ...WHOLE, force: true }, whole: true },
  { title: 'a dry run', event: { dryRun: true }, read: { ...WHOLE, dryRun: true }, whole: false },
  { title: 'clusters', event: { clusters: ['a'] }, read: { ...WHOLE, clusters: ['a'] }, whole: false },
  { title: 'namespaces', event: { namespaces: ['n'] }, read: { ...WHOLE, namespaces: ['n'] }, whole: false },
])('$title is understood, and whether its figures are those of a whole run', ({ event, read, whole }) => {
  expect(readEvent(event)).toEqual(read);
  expect(isWholeRun(readEvent(event))).toBe(whole);
});

test.each([
  { title: 'an unknown field', event: { cluster: 'a' }, named: 'cluster' },
  { title: 'the event of an EventBridge rule', event: { source: 'aws.events', detail: {} }, named: 'source' },
  { title: 'one cluster without a list', event: { clusters: 'a' }, named: 'clusters' },
  { title: 'no clusters', event: { clusters: [] }, named: 'clusters' },
  { title: 'a cluster without a name', event: { clusters: [''] }, named: 'clusters' },
  { title: 'a number for a namespace', event: { namespaces: [1] }, named: 'namespaces' },
  { title: 'a word for dryRun', event: { dryRun: 'true' }, named: 'dryRun' },
  { title: 'a number for force', event: { force: 1 }, named: 'force' },
  { title: 'a list', event: [], named: 'object' },
  { title: 'a text', event: 'refresh', named: 'object' },
])('$title is refused by name, with what the event takes', ({ event, named }) => {
  expect(() => readEvent(event)).toThrow(named);
  expect(() => readEvent(event)).toThrow('It takes {"clusters": [names]');
});

test('every field that is wrong is named at once', () => {
  expect(() => readEvent({ clusters: [], force: 'yes' })).toThrow(/clusters.*force|force.*clusters/);
});
