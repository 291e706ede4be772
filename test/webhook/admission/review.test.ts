// Reading AdmissionReviews, valid and malformed, and writing the answers.
import { describe, expect, test } from 'vitest';
import { allowed, denied, forgetRaw, readReview } from '../../../webhook/admission/review.ts';
import { edited, fromReview, manifest, reviewOf } from '../support.ts';

const SECRET = manifest('{}', { 'example.com/owner': 'alice' });
const UID = reviewOf({ object: SECRET }).request.uid;

describe('a review of a Secret', () => {
  test('is read as a CREATE', () => {
    const reading = readReview(reviewOf({ object: SECRET, username: 'alice', groups: ['team-a'] }));
    expect(reading).toMatchObject({
      kind: 'request',
      request: {
        uid: UID,
        operation: 'CREATE',
        namespace: 'team-a',
        name: 'pull',
        dryRun: false,
        user: { username: 'alice', groups: ['team-a'] },
        object: { type: 'kubernetes.io/dockerconfigjson', data: SECRET.data },
      },
    });
    expect(fromReview(reading).oldObject).toBeUndefined();
  });

  test('is read as an UPDATE, with all fields for comparison', () => {
    const object = edited(SECRET, ({ metadata }) => {
      metadata.finalizers = ['example.com/hold'];
    });
    const request = fromReview(readReview(reviewOf({ object, oldObject: SECRET })));
    expect(request.operation).toBe('UPDATE');
    expect(request.oldObject?.metadata.annotations).toEqual({ 'example.com/owner': 'alice' });
    expect(request.raw).toMatchObject({ object, oldObject: SECRET });
  });

  test('may lack a name, dryRun, a user, labels, annotations, data and a type', () => {
    const { dryRun: _, userInfo: __, name: ___, ...rest } = reviewOf({ object: SECRET }).request;
    const bare = { ...reviewOf({ object: SECRET }), request: { ...rest, object: { metadata: {} } } };
    expect(fromReview(readReview(bare))).toMatchObject({
      name: '',
      dryRun: false,
      user: { username: '', groups: [] },
      object: { type: 'Opaque', metadata: {} },
    });
  });

  test('reads null as absent, in every map and list', () => {
    const nulls = {
      metadata: {
        labels: { a: 'b', c: null },
        annotations: null,
        deletionTimestamp: null,
        managedFields: [null],
      },
      type: null,
      immutable: null,
      data: { '.dockerconfigjson': null },
    };
    const { request } = reviewOf({ object: SECRET });
    const review = {
      ...reviewOf({ object: SECRET }),
      request: {
        ...request,
        kind: { ...request.kind, group: null },
        name: null,
        dryRun: null,
        userInfo: { username: null, groups: [null, 'team-a', null] },
        object: nulls,
      },
    };
    expect(fromReview(readReview(review))).toMatchObject({
      name: '',
      dryRun: false,
      user: { username: '', groups: ['team-a'] },
      object: { type: 'Opaque', metadata: { labels: { a: 'b' }, managedFields: { length: 0 } }, data: {} },
    });
    for (const userInfo of [null, { username: 'alice', groups: null }]) {
      const other = { ...review, request: { ...review.request, userInfo } };
      expect(fromReview(readReview(other)).user.groups).toEqual([]);
    }
  });

  test('frees the fields that are only compared', () => {
    const request = fromReview(readReview(reviewOf({ object: SECRET, oldObject: SECRET })));
    forgetRaw(request);
    expect(request.raw).toMatchObject({ object: undefined, oldObject: undefined });
  });

  test.each([
    { what: 'a namespace', fields: { namespace: 'x'.repeat(64) }, names: 'namespace: ' },
    { what: 'a name', fields: { name: 'x'.repeat(254) }, names: 'name: ' },
    { what: 'a uid', fields: { uid: 'x'.repeat(129) }, names: 'request.uid: ' },
  ])('may not have $what that is longer than in Kubernetes', ({ fields, names }) => {
    const review = reviewOf({ object: SECRET });
    expect(readReview({ ...review, request: { ...review.request, ...fields } })).toMatchObject({
      kind: 'malformed',
      message: expect.stringContaining(names),
    });
  });

  test('is refused with a short message, however long the names in it are', () => {
    const labels = Object.fromEntries([1, 2, 3].map((index) => [`${index}${'x'.repeat(100_000)}`, index]));
    const review = reviewOf({ object: SECRET });
    const request = { ...review.request, object: { ...SECRET, metadata: { labels } } };
    const reading = readReview({ ...review, request });
    expect(reading).toMatchObject({ kind: 'malformed' });
    expect(JSON.stringify(reading).length).toBeLessThan(1_500);
  });

  test('is read with its dryRun', () => {
    const review = reviewOf({ object: SECRET });
    expect(fromReview(readReview({ ...review, request: { ...review.request, dryRun: true } })).dryRun).toBe(
      true,
    );
  });
});

test.each(['DELETE', 'CONNECT'])('%s needs no action', (operation) => {
  const review = reviewOf({ object: SECRET });
  const request = { ...review.request, operation, object: null, oldObject: SECRET };
  expect(readReview({ ...review, request })).toMatchObject({ kind: 'nothing-to-do', uid: UID });
});

describe('a body without a uid is malformed', () => {
  const review = reviewOf({ object: SECRET });
  test.each([
    { what: 'undefined', body: undefined, names: 'body' },
    { what: 'null', body: null, names: 'body' },
    { what: 'an array', body: [review], names: 'body' },
    { what: 'a string', body: JSON.stringify(review), names: 'body' },
    { what: 'a number', body: 7, names: 'body' },
    { what: 'empty', body: {}, names: 'apiVersion' },
    { what: 'no request', body: { ...review, request: undefined }, names: 'request' },
    { what: 'request null', body: { ...review, request: null }, names: 'request' },
    { what: 'request an array', body: { ...review, request: [] }, names: 'request' },
    {
      what: 'no uid',
      body: { ...review, request: { ...review.request, uid: undefined } },
      names: 'request.uid',
    },
    {
      what: 'an empty uid',
      body: { ...review, request: { ...review.request, uid: '' } },
      names: 'request.uid',
    },
    {
      what: 'a uid that is no string',
      body: { ...review, request: { ...review.request, uid: 1 } },
      names: 'request.uid',
    },
    {
      what: 'another apiVersion',
      body: { ...review, apiVersion: 'admission.k8s.io/v1beta1' },
      names: 'apiVersion',
    },
    { what: 'another kind', body: { ...review, kind: 'ConversionReview' }, names: 'kind' },
  ])('$what', ({ body, names }) => {
    const reading = readReview(body);
    expect(reading).toMatchObject({ kind: 'malformed', message: expect.stringContaining(`${names}: `) });
    expect(reading).toMatchObject({
      message: expect.stringMatching(/^The body is not an admission.k8s.io\/v1 AdmissionReview: /),
    });
    expect(reading).not.toHaveProperty('uid');
  });
});

describe('a review with a uid and wrong fields is malformed', () => {
  const metadata = SECRET.metadata;
  const mistakes: { what: string; request: object; names: string }[] = [
    { what: 'no object', request: { object: undefined }, names: 'object: ' },
    { what: 'object null', request: { object: null }, names: 'object: ' },
    { what: 'object an array', request: { object: [] }, names: 'object' },
    { what: 'no metadata', request: { object: {} }, names: 'object.metadata: ' },
    {
      what: 'no oldObject on UPDATE',
      request: { operation: 'UPDATE', oldObject: undefined },
      names: 'oldObject: ',
    },
    {
      what: 'oldObject null on UPDATE',
      request: { operation: 'UPDATE', oldObject: null },
      names: 'oldObject: ',
    },
    {
      what: 'labels of numbers',
      request: { object: { ...SECRET, metadata: { ...metadata, labels: { a: 1 } } } },
      names: 'object.metadata.labels.a: ',
    },
    {
      what: 'labels an array',
      request: { object: { ...SECRET, metadata: { ...metadata, labels: [] } } },
      names: 'object.metadata.labels: ',
    },
    {
      what: 'annotations a string',
      request: { object: { ...SECRET, metadata: { ...metadata, annotations: 'x' } } },
      names: 'object.metadata.annotations: ',
    },
    { what: 'data a string', request: { object: { ...SECRET, data: 'x' } }, names: 'object.data: ' },
    {
      what: 'data of objects',
      request: { object: { ...SECRET, data: { '.dockerconfigjson': {} } } },
      names: 'object.data..dockerconfigjson: ',
    },
    { what: 'a type that is no string', request: { object: { ...SECRET, type: 7 } }, names: 'object.type: ' },
    {
      what: 'immutable that is no boolean',
      request: { object: { ...SECRET, immutable: 'yes' } },
      names: 'object.immutable: ',
    },
    {
      what: 'managedFields that are no list',
      request: { object: { ...SECRET, metadata: { ...metadata, managedFields: {} } } },
      names: 'object.metadata.managedFields: ',
    },
    {
      what: 'the same in oldObject',
      request: { operation: 'UPDATE', oldObject: { ...SECRET, data: 'x' } },
      names: 'oldObject.data: ',
    },
    { what: 'no kind', request: { kind: undefined }, names: 'kind: ' },
    { what: 'no namespace', request: { namespace: undefined }, names: 'namespace: ' },
    { what: 'an empty namespace', request: { namespace: '' }, names: 'namespace: ' },
    { what: 'no operation', request: { operation: undefined }, names: 'operation: ' },
    {
      what: 'groups a string',
      request: { userInfo: { username: 'a', groups: 'b' } },
      names: 'userInfo.groups: ',
    },
    {
      what: 'a username that is no string',
      request: { userInfo: { username: 1 } },
      names: 'userInfo.username: ',
    },
  ];
  test.each(mistakes)('$what', ({ request, names }) => {
    const review = reviewOf({ object: SECRET });
    const reading = readReview({ ...review, request: { ...review.request, ...request } });
    expect(reading).toMatchObject({
      kind: 'malformed',
      uid: UID,
      message: expect.stringMatching(/^The AdmissionReview cannot be read: /),
    });
    expect(reading).toMatchObject({ message: expect.stringContaining(names) });
  });

  test('names all problems together', () => {
    const review = reviewOf({ object: SECRET });
    const object = { ...SECRET, data: 'x', type: 7 };
    expect(readReview({ ...review, request: { ...review.request, object } })).toMatchObject({
      message: expect.stringMatching(/object\.type: .*; object\.data: /),
    });
  });

  test('does not repeat a value of the Secret', () => {
    const review = reviewOf({ object: SECRET });
    const object = { ...SECRET, data: { '.dockerconfigjson': ['hunter2'] } };
    expect(JSON.stringify(readReview({ ...review, request: { ...review.request, object } }))).not.toContain(
      'hunter2',
    );
  });

  test.each([
    { kind: { group: '', version: 'v1', kind: 'Pod' }, named: 'v1/Pod' },
    { kind: { group: 'apps', version: 'v1', kind: 'Deployment' }, named: 'apps/v1/Deployment' },
    { kind: { group: 'example.com', version: 'v1', kind: 'Secret' }, named: 'example.com/v1/Secret' },
    { kind: { group: '', version: 'v2', kind: 'Secret' }, named: 'v2/Secret' },
  ])('names the kind if it is not a v1 Secret: $named', ({ kind, named }) => {
    const review = reviewOf({ object: SECRET });
    expect(readReview({ ...review, request: { ...review.request, kind } })).toMatchObject({
      kind: 'malformed',
      uid: UID,
      message: expect.stringContaining(`serves v1 Secrets, not ${named}. `),
    });
  });
});

describe('answers', () => {
  const envelope = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' };

  test('allow without a patch', () => {
    expect(allowed('u')).toEqual({ ...envelope, response: { uid: 'u', allowed: true } });
  });

  test('allow with a patch and warnings', () => {
    const patch = [{ op: 'add', path: '/data', value: { ü: '~' } } as const];
    const { response } = allowed('u', patch, ['mind this']);
    expect(response).toEqual({
      uid: 'u',
      allowed: true,
      patchType: 'JSONPatch',
      patch: expect.any(String),
      warnings: ['mind this'],
    });
    expect(JSON.parse(Buffer.from(response.patch ?? '', 'base64').toString())).toEqual(patch);
  });

  test('deny with code, message, causes, and the name of the Secret', () => {
    const causes = [{ reason: 'too-large', field: 'data', message: 'because' }] as const;
    expect(denied('u', { code: 422, message: 'because', causes })).toEqual({
      ...envelope,
      response: { uid: 'u', allowed: false, status: { code: 422, message: 'because', details: { causes } } },
    });
    expect(denied('u', { code: 422, message: 'because', causes }, 'pull').response.status?.details).toEqual({
      name: 'pull',
      kind: 'Secret',
      causes,
    });
  });
});
