// What the function can be asked for, and what it says to anything else.
import { expect, test } from 'vitest';
import { isWholeRun, readEvent } from '../../../functions/refresher/event.ts';

const WHOLE = { action: 'refresh', dryRun: false, force: false };

test.each([
  { title: 'an empty event', event: {}, read: WHOLE, whole: true },
  { title: 'no event', event: undefined, read: WHOLE, whole: true },
  { title: 'null', event: null, read: WHOLE, whole: true },
  { title: 'force', event: { force: true }, read: { ...WHOLE, force: true }, whole: true },
  { title: 'a dry run', event: { dryRun: true }, read: { ...WHOLE, dryRun: true }, whole: false },
  { title: 'clusters', event: { clusters: ['a'] }, read: { ...WHOLE, clusters: ['a'] }, whole: false },
  { title: 'namespaces', event: { namespaces: ['n'] }, read: { ...WHOLE, namespaces: ['n'] }, whole: false },
  { title: 'the default action by its name', event: { action: 'refresh' }, read: WHOLE, whole: true },
  {
    title: 'inspecting all, which is a dry run',
    event: { action: 'inspect' },
    read: { ...WHOLE, action: 'inspect', dryRun: true },
    whole: false,
  },
  {
    title: 'inspecting some',
    event: { action: 'inspect', clusters: ['a'] },
    read: { ...WHOLE, action: 'inspect', dryRun: true, clusters: ['a'] },
    whole: false,
  },
  { title: 'status', event: { action: 'status' }, read: { ...WHOLE, action: 'status' }, whole: false },
  {
    title: 'revoking',
    event: { action: 'revoke', clusters: ['a'] },
    read: { ...WHOLE, action: 'revoke', clusters: ['a'] },
    whole: false,
  },
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
  { title: 'an unknown action', event: { action: 'delete' }, named: 'action' },
  { title: 'a word in place of nothing', event: { action: '' }, named: 'action' },
  ...['namespaces', 'dryRun', 'force'].map((field) => ({
    title: `inspecting with ${field}`,
    event: { action: 'inspect', [field]: field === 'namespaces' ? ['n'] : false },
    named: '"inspect" takes clusters only: leave it out',
  })),
  ...['clusters', 'namespaces', 'dryRun', 'force'].map((field) => ({
    title: `status with ${field}`,
    event: { action: 'status', [field]: /s$/.test(field) ? ['n'] : true },
    named: '"status" takes nothing else: leave it out',
  })),
  ...['namespaces', 'dryRun', 'force'].map((field) => ({
    title: `revoking with ${field}`,
    event: { action: 'revoke', clusters: ['a'], [field]: field === 'namespaces' ? ['n'] : true },
    named: '"revoke" takes clusters only: leave it out',
  })),
  {
    title: 'revoking everywhere',
    event: { action: 'revoke' },
    named: 'name the clusters whose tokens are to end',
  },
  { title: 'a list', event: [], named: 'object' },
  { title: 'a text', event: 'refresh', named: 'object' },
])('$title is refused by name, with what the event takes', ({ event, named }) => {
  expect(() => readEvent(event)).toThrow(named);
  expect(() => readEvent(event)).toThrow('It takes {"clusters": [names]');
});

test('every field that is wrong is named at once', () => {
  expect(() => readEvent({ clusters: [], force: 'yes' })).toThrow(/clusters.*force|force.*clusters/);
  expect(() => readEvent({ action: 'revoke', force: true, dryRun: false })).toThrow(
    /leave it out.*dryRun.*leave it out.*force.*whose tokens are to end.*clusters/,
  );
});

test('what the refusal says it takes, it takes', () => {
  const events = [
    {},
    { clusters: ['a'], namespaces: ['n'], dryRun: true, force: true },
    { action: 'inspect', clusters: ['a'] },
    { action: 'inspect' },
    { action: 'status' },
    { action: 'revoke', clusters: ['a'] },
  ];
  for (const event of events) expect(() => readEvent(event)).not.toThrow();
  for (const word of ['clusters', 'namespaces', 'dryRun', 'force', 'inspect', 'status', 'revoke'])
    expect(() => readEvent({ x: 1 })).toThrow(`"${word}"`);
});
