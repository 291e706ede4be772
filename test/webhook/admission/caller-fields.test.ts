// Tests what managedFields prove about a refresher's request while another mutator changes the Secret too. The same rules
// of the write policy are tested on a real API server (test/webhook/chart/write-policy.test.ts).
import { describe, expect, test } from 'vitest';
import { ANNOTATION, REFRESHER_FIELD_MANAGER, SECRET_LABEL } from '../../../contract/names.ts';
import { setOnlyRequest, withoutOthersChanges } from '../../../webhook/admission/caller-fields.ts';
import { admit, annotated, edited, type Manifest, REFRESHER, stored } from '../support.ts';

const REQUESTED = `f:${ANNOTATION.requestedAt}`;
const OPTIONS = { kind: 'UpdateOptions', fieldManager: REFRESHER_FIELD_MANAGER };
const OTHER = {
  manager: 'kubectl',
  operation: 'Update',
  fieldsV1: { 'f:metadata': { 'f:labels': { 'f:app': {} } } },
};

const own = (
  annotations: object = { '.': {}, [REQUESTED]: {} },
  more: object = {},
  metadata: object = {},
) => ({
  manager: REFRESHER_FIELD_MANAGER,
  operation: 'Update',
  apiVersion: 'v1',
  fieldsV1: { 'f:metadata': { 'f:annotations': annotations, ...metadata } },
  ...more,
});
const owned = (...managedFields: unknown[]) => ({ metadata: { managedFields } });

describe('managedFields', () => {
  test.each([
    { what: 'a request', entries: [OTHER, own()] },
    { what: 'a forced request', entries: [own({ [REQUESTED]: {}, [`f:${ANNOTATION.force}`]: {} })] },
  ])('show that the refresher set only $what', ({ entries }) => {
    expect(setOnlyRequest(owned(...entries), owned(OTHER), OPTIONS)).toBe(true);
  });

  const merged = (fieldsV1: object) => ({ manager: 'ancient-changes', operation: 'Update', fieldsV1 });
  test.each([
    { what: 'another label', entries: [own(undefined, {}, { 'f:labels': { 'f:app': {} } })] },
    { what: 'another annotation', entries: [own({ [REQUESTED]: {}, 'f:note': {} })] },
    { what: 'data', entries: [own(undefined, { fieldsV1: { ...own().fieldsV1, 'f:data': {} } })] },
    { what: 'a field by server-side apply', entries: [own(), own({ 'f:note': {} }, { operation: 'Apply' })] },
    { what: 'a request by server-side apply', entries: [own(undefined, { operation: 'Apply' })] },
    { what: 'no request', entries: [own({})] },
    { what: 'something below a request annotation', entries: [own({ [REQUESTED]: { 'f:x': {} } })] },
    { what: 'something in another API version', entries: [own(undefined, { apiVersion: '/v1' })] },
    { what: 'something under a subresource', entries: [own(undefined, { subresource: 'status' })] },
    { what: 'something that is not recorded', entries: [OTHER] },
    { what: 'something without managedFields', entries: [] },
    { what: 'something that was merged', entries: [merged({ 'f:data': {} }), own()] },
  ])('do not show it where the refresher may have set $what', ({ entries }) => {
    expect(setOnlyRequest(owned(...entries), owned(OTHER), OPTIONS)).toBe(false);
  });

  test('may have an earlier entry of merged managers', () => {
    const earlier = merged({ 'f:data': {} });
    expect(setOnlyRequest(owned(earlier, own()), owned(earlier), OPTIONS)).toBe(true);
  });

  test.each([
    { what: 'another field manager', options: { fieldManager: 'kubectl' } },
    { what: 'no field manager', options: { kind: 'UpdateOptions' } },
    { what: 'no options', options: undefined },
  ])('prove nothing for $what, which may own the changed fields already', ({ options }) => {
    expect(setOnlyRequest(owned(own()), owned(), options)).toBe(false);
  });
});

test("keeps this project's keys, and removals, among the changes", () => {
  const old = { app: 'a', gone: 'x', [SECRET_LABEL.key]: 'true' };
  const changed = { app: 'b', added: 'y', [SECRET_LABEL.key]: 'false', [ANNOTATION.only]: 'host' };
  expect(withoutOthersChanges(changed, old)).toEqual({
    app: 'a',
    [SECRET_LABEL.key]: 'false',
    [ANNOTATION.only]: 'host',
  });
});

describe('a refresh request', () => {
  const fresh = stored();
  const requested = (change: (secret: Manifest) => void = () => {}) =>
    edited(annotated(fresh, { [ANNOTATION.requestedAt]: '2026-03-01T11:59:58Z' }), (secret) => {
      secret.metadata.managedFields = [own()];
      change(secret);
    });
  const decide = (object: Manifest, options: object = OPTIONS) =>
    admit({ object, oldObject: fresh, username: REFRESHER, groups: [], options }).first;
  const stamp = (secret: Manifest) => {
    Object.assign(secret.metadata, { labels: { ...secret.metadata.labels, team: 'x' } });
    Object.assign(secret.metadata, {
      annotations: { ...secret.metadata.annotations, 'example.com/seen': 'y' },
    });
  };

  test('passes with a label and an annotation of another mutator', () => {
    expect(decide(requested(stamp))).toMatchObject({ action: 'obtain', reason: 'requested' });
  });

  test.each([
    { what: 'of a caller with another field manager', change: stamp, options: { fieldManager: 'kubectl' } },
    {
      what: 'with the annotation only',
      change: ({ metadata }: Manifest) => {
        metadata.annotations = { ...metadata.annotations, [ANNOTATION.only]: 'public.ecr.aws' };
      },
    },
    {
      what: 'without the managed label',
      change: ({ metadata }: Manifest) => {
        metadata.labels = {};
      },
    },
    {
      what: 'with a finalizer',
      change: ({ metadata }: Manifest) => {
        metadata.finalizers = ['example.com/hold'];
      },
    },
  ])('$what is denied', ({ change, options }) => {
    expect(decide(requested(change), options)).toMatchObject({
      action: 'deny',
      reason: 'refresher-out-of-bounds',
    });
  });
});
