// Tests who may send the steps of a run in batches, and which.
import { expect, test } from 'vitest';
import { InvalidEventError } from '../../../../functions/refresher/event.ts';
import { readStep, ScaleOutEventError } from '../../../../functions/refresher/scale-out/event.ts';

const FUNCTION = 'arn:aws:lambda:eu-central-1:111122223333:function:refresher';
const ALIAS = `${FUNCTION}:scale-out`;

test.each([
  { scaleOut: 'list', run: 'a1b2-c3', started: '2026-11-27T08:00:00.000Z', seconds: 60 },
  { scaleOut: 'batch', run: 'a1b2-c3', batch: 0 },
  { scaleOut: 'summary', run: 'e.f_g=h+i@j' },
])('the alias accepts %j', (event) => {
  expect(readStep(event, ALIAS)).toEqual(event);
});

test.each([{}, undefined, null, 'list', { action: 'status' }])(
  '%j is no step, but an event of the function API',
  (event) => {
    for (const arn of [FUNCTION, `${FUNCTION}:operator`, undefined])
      expect(readStep(event, arn)).toBeUndefined();
  },
);

test.each([FUNCTION, `${FUNCTION}:operator`, `${FUNCTION}:$LATEST`, undefined])(
  'a step that is sent to %s is refused',
  (arn) => {
    expect(() => readStep({ scaleOut: 'summary', run: 'old' }, arn)).toThrow(InvalidEventError);
  },
);

test.each([
  {},
  { action: 'revoke', clusters: ['a'] },
  { scaleOut: 'all', run: 'a' },
  { scaleOut: 'list', run: 'a' },
  { scaleOut: 'list', run: 'a', started: 'now', seconds: 60 },
  { scaleOut: 'list', run: 'a', started: '2026-11-27T08:00:00.000Z', seconds: 0 },
  { scaleOut: 'summary' },
  { scaleOut: 'batch', run: 'a' },
  { scaleOut: 'batch', run: 'a', batch: -1 },
  { scaleOut: 'batch', run: 'a', batch: '1' },
  { scaleOut: 'summary', run: 'a', clusters: ['b'] },
  ...['', '.', '..', 'a/b', '../a', 'a b', 'a'.repeat(81)].map((run) => ({ scaleOut: 'summary', run })),
])('the execution fails if it sends %j', (event) => {
  expect(() => readStep(event, ALIAS)).toThrow(ScaleOutEventError);
});
