// Tests which events the function accepts, and the error for all others.
import { expect, test } from 'vitest';
import { ERROR_TYPE, type RefresherEvent } from '../../../contract/refresher-api.ts';
import { InvalidEventError, isWholeRun, readEvent } from '../../../functions/refresher/event.ts';

const WHOLE = { action: 'refresh', dryRun: false, force: false };

test.each([
  { title: 'an empty event', event: {}, read: WHOLE, whole: true },
  { title: 'no event', event: undefined, read: WHOLE, whole: true },
  { title: 'null', event: null, read: WHOLE, whole: true },
  { title: 'a forced refresh', event: { force: true }, read: { ...WHOLE, force: true }, whole: true },
  { title: 'a dry run', event: { dryRun: true }, read: { ...WHOLE, dryRun: true }, whole: false },
  {
    title: 'a refresh of clusters',
    event: { clusters: ['a'] },
    read: { ...WHOLE, clusters: ['a'] },
    whole: false,
  },
  {
    title: 'a refresh of namespaces',
    event: { namespaces: ['n'] },
    read: { ...WHOLE, namespaces: ['n'] },
    whole: false,
  },
  { title: 'the default action by its name', event: { action: 'refresh' }, read: WHOLE, whole: true },
  {
    title: 'an inspection of all clusters as a dry run',
    event: { action: 'inspect' },
    read: { ...WHOLE, action: 'inspect', dryRun: true },
    whole: false,
  },
  {
    title: 'an inspection of some clusters as a dry run',
    event: { action: 'inspect', clusters: ['a'] },
    read: { ...WHOLE, action: 'inspect', dryRun: true, clusters: ['a'] },
    whole: false,
  },
  { title: 'a status', event: { action: 'status' }, read: { ...WHOLE, action: 'status' }, whole: false },
  {
    title: 'a revocation',
    event: { action: 'revoke', clusters: ['a'] },
    read: { ...WHOLE, action: 'revoke', clusters: ['a'] },
    whole: false,
  },
])('reads $title; it is a run over all clusters: $whole', ({ event, read, whole }) => {
  expect(readEvent(event)).toEqual(read);
  expect(isWholeRun(readEvent(event))).toBe(whole);
});

test.each([
  { title: 'an unknown field', event: { cluster: 'a' }, named: 'cluster' },
  { title: 'the event of an EventBridge rule', event: { source: 'aws.events', detail: {} }, named: 'source' },
  { title: 'a string for clusters', event: { clusters: 'a' }, named: 'clusters' },
  { title: 'an empty list of clusters', event: { clusters: [] }, named: 'clusters' },
  { title: 'a cluster without a name', event: { clusters: [''] }, named: 'clusters' },
  { title: 'a number for a namespace', event: { namespaces: [1] }, named: 'namespaces' },
  { title: 'a string for dryRun', event: { dryRun: 'true' }, named: 'dryRun' },
  { title: 'a number for force', event: { force: 1 }, named: 'force' },
  { title: 'an unknown action', event: { action: 'delete' }, named: 'action' },
  { title: 'an empty action', event: { action: '' }, named: 'action' },
  ...['namespaces', 'dryRun', 'force'].map((field) => ({
    title: `an inspection with ${field}`,
    event: { action: 'inspect', [field]: field === 'namespaces' ? ['n'] : false },
    named: field,
  })),
  ...['clusters', 'namespaces', 'dryRun', 'force'].map((field) => ({
    title: `a status with ${field}`,
    event: { action: 'status', [field]: /s$/.test(field) ? ['n'] : true },
    named: field,
  })),
  ...['namespaces', 'dryRun', 'force'].map((field) => ({
    title: `a revocation with ${field}`,
    event: { action: 'revoke', clusters: ['a'], [field]: field === 'namespaces' ? ['n'] : true },
    named: field,
  })),
  {
    title: 'a revocation without clusters',
    event: { action: 'revoke' },
    named: 'clusters',
  },
  { title: 'an array', event: [], named: undefined },
  { title: 'a string', event: 'refresh', named: undefined },
])('refuses $title and names the invalid field', ({ event, named }) => {
  const error = invalidEventError(event);
  expect(error.name).toBe(ERROR_TYPE.invalidEvent);
  if (named === undefined) expect(error.fields).toEqual([]);
  else expect(error.fields).toContain(named);
});

test('names all invalid fields, each with what to do, in one error', () => {
  expect(new Set(invalidEventError({ clusters: [], force: 'yes' }).fields)).toEqual(
    new Set(['clusters', 'force']),
  );
  const { fields, message } = invalidEventError({ action: 'revoke', force: true, dryRun: false });
  expect(new Set(fields)).toEqual(new Set(['force', 'dryRun', 'clusters']));
  expect(message).toMatch(
    /"revoke" accepts clusters only: remove it.*dryRun.*remove it.*force.*whose tokens to revoke.*clusters/,
  );
});

test('the error lists the events that the function accepts', () => {
  const events: RefresherEvent[] = [
    {},
    { clusters: ['a'], namespaces: ['n'], dryRun: true, force: true },
    { action: 'inspect', clusters: ['a'] },
    { action: 'inspect' },
    { action: 'status' },
    { action: 'revoke', clusters: ['a'] },
  ];
  for (const event of events) expect(() => readEvent(event)).not.toThrow();
  const { message } = invalidEventError({ x: 1 });
  for (const word of ['clusters', 'namespaces', 'dryRun', 'force', 'inspect', 'status', 'revoke'])
    expect(message).toContain(`"${word}"`);
});

function invalidEventError(event: unknown): InvalidEventError {
  try {
    readEvent(event);
  } catch (error) {
    if (error instanceof InvalidEventError) return error;
    throw error;
  }
  return expect.fail('the event is accepted');
}
