// The Secret that the refresher creates (chart value `provision.secretName`): the webhook allows exactly this CREATE.
import { describe, expect, test } from 'vitest';
import {
  ANNOTATION,
  PROVISION_FIELD_MANAGER,
  REFRESHER_GROUP,
  SECRET_KEY,
  SECRET_LABEL,
} from '../../../contract/names.ts';
import type { Entitlement } from '../../../webhook/admission/decision.ts';
import { admit, edited, encode, type Manifest, manifest, ONE, REFRESHER } from '../support.ts';

const POLICY: Entitlement = { ...ONE, provisionSecret: 'ecr' };
const LABEL = `f:${SECRET_LABEL.key}`;
const FIELDS = { 'f:metadata': { 'f:labels': { [LABEL]: {} } }, 'f:type': {} };

/** As the API server sends it after an apply of the refresher. */
const OBJECT = edited(manifest(), ({ metadata }) => {
  metadata.name = 'ecr';
  metadata.creationTimestamp = null;
  metadata.managedFields = [entry()];
});

function entry(change: object = {}): { manager: string; [field: string]: unknown } {
  return {
    ...{ manager: PROVISION_FIELD_MANAGER, operation: 'Apply', apiVersion: 'v1', fieldsType: 'FieldsV1' },
    time: '2026-03-01T12:00:00Z',
    fieldsV1: FIELDS,
    ...change,
  };
}

const judge = (object: Manifest, policy = POLICY, username = REFRESHER, groups: string[] = []) =>
  admit({ object, username, groups }, { policy }).first;

test.each([
  { who: 'its user name', username: REFRESHER, groups: [] },
  { who: 'its group', username: 'another', groups: [REFRESHER_GROUP] },
])('the refresher, by $who, may create the Secret', ({ username, groups }) => {
  expect(judge(OBJECT, POLICY, username, groups)).toMatchObject({ action: 'obtain', reason: 'created' });
});

test('labels and annotations of other mutators do not matter', () => {
  const object = edited(OBJECT, ({ metadata }) => {
    metadata.labels = { ...metadata.labels, team: 'x' };
    metadata.annotations = { 'example.com/seen': 'x' };
  });
  expect(judge(object)).toMatchObject({ action: 'obtain' });
});

test('the refresher may create none if the setting is empty', () => {
  expect(judge(OBJECT, ONE)).toMatchObject({ action: 'deny', code: 403, reason: 'refresher-out-of-bounds' });
});

test('a Secret of the name that another user creates is judged like any other', () => {
  expect(judge({ ...OBJECT, data: { [SECRET_KEY]: encode('{"auths":{}}') } }, POLICY, 'alice')).toMatchObject(
    {
      action: 'obtain',
    },
  );
});

const set = (change: (metadata: Manifest['metadata']) => void) =>
  edited(OBJECT, ({ metadata }) => change(metadata));
const owning = (...managedFields: { manager: string }[]) =>
  set((metadata) => {
    metadata.managedFields = managedFields;
  });

describe('the refresher may not create', () => {
  test.each([
    {
      what: 'another name',
      object: set((metadata) => {
        metadata.name = 'other';
      }),
    },
    { what: 'data', object: { ...OBJECT, data: { [SECRET_KEY]: encode('{"auths":{}}') } } },
    { what: 'empty data', object: { ...OBJECT, data: {} } },
    { what: 'a key without a value', object: { ...OBJECT, data: { [SECRET_KEY]: null } as never } },
    { what: 'stringData', object: { ...OBJECT, stringData: {} } },
    { what: 'an immutable Secret', object: { ...OBJECT, immutable: true } },
    { what: 'another type', object: { ...OBJECT, type: 'kubernetes.io/service-account-token' } },
    {
      what: 'no label',
      object: set((metadata) => {
        metadata.labels = {};
      }),
    },
    {
      what: 'another label of this project',
      object: set((metadata) => {
        metadata.labels = { ...metadata.labels, 'ecr-anywhere.centml.ai/x': 'x' };
      }),
    },
    {
      what: 'an annotation of this project',
      object: set((metadata) => {
        metadata.annotations = { [ANNOTATION.only]: 'public.ecr.aws' };
      }),
    },
    {
      what: 'generateName',
      object: set((metadata) => {
        metadata.generateName = 'ecr-';
      }),
    },
    {
      what: 'owner references',
      object: set((metadata) => {
        metadata.ownerReferences = [];
      }),
    },
    {
      what: 'finalizers',
      object: set((metadata) => {
        metadata.finalizers = ['example.com/x'];
      }),
    },
    { what: 'no managedFields', object: owning() },
    { what: 'two entries in managedFields', object: owning(entry(), entry({ manager: 'x' })) },
    { what: 'the field manager of another', object: owning(entry({ manager: 'x' })) },
    { what: 'by POST', object: owning(entry({ operation: 'Update' })) },
    { what: 'more fields', object: owning(entry({ fieldsV1: { ...FIELDS, 'f:data': {} } })) },
    {
      what: 'more labels',
      object: owning(
        entry({ fieldsV1: { ...FIELDS, 'f:metadata': { 'f:labels': { [LABEL]: {}, 'f:team': {} } } } }),
      ),
    },
    {
      what: 'fields below the label',
      object: owning(
        entry({ fieldsV1: { ...FIELDS, 'f:metadata': { 'f:labels': { [LABEL]: { 'f:x': {} } } } } }),
      ),
    },
  ])('$what', ({ object }) => {
    expect(judge(object)).toMatchObject({ action: 'deny', code: 403, reason: 'refresher-out-of-bounds' });
  });
});
