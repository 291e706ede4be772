// What a stolen refresher credential might send to a managed Secret, and which sentence of the fence must refuse it.
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';

export const MERGE = 'application/merge-patch+json';
export const JSON_PATCH = 'application/json-patch+json';
export const STRATEGIC = 'application/strategic-merge-patch+json';
export const APPLY = 'application/apply-patch+yaml';

/** Of the refresher, in these tests. */
export const MARK = '2026-11-23T12:00:00Z';

export const base64 = (text: string) => Buffer.from(text).toString('base64');

/** A managed Secret that holds something of everything the fence protects. */
export function pullSecret(name: string, namespace: string, change: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: SECRET_TYPE,
    metadata: {
      name,
      namespace,
      labels: { [SECRET_LABEL.key]: SECRET_LABEL.value, app: 'shop' },
      annotations: { [ANNOTATION.expiresAt]: '2026-11-23T18:00:00Z', note: 'ours to keep' },
    },
    data: { [SECRET_KEY]: base64('{"auths":{}}'), other: base64('other') },
    ...change,
  };
}

export const annotate = (annotations: object) => ({ metadata: { annotations } });
export const MARKED = annotate({ [ANNOTATION.requestedAt]: MARK });
/** A merge patch that sets the mark and something else with it. */
export const markedAnd = (metadata: object, rest: object = {}) => ({
  metadata: { annotations: { [ANNOTATION.requestedAt]: MARK }, ...metadata },
  ...rest,
});
export const pointer = (key: string) => key.replaceAll('/', '~1');
const OWNER = { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' };

/** What is sent to a Secret, and the part of the fence that must refuse it. */
export interface Attempt {
  what: string;
  body: object;
  contentType?: string;
  refusal: RegExp;
}

const WITHOUT_MARK = /change only together with a new/;
const NOT_A_TIME = /must be an RFC 3339 time/;
export const PATCHES: Attempt[] = [
  { what: 'immutable', body: markedAnd({}, { immutable: true }), refusal: /immutable/ },
  { what: 'managed label off', body: markedAnd({ labels: { [SECRET_LABEL.key]: null } }), refusal: /labels/ },
  {
    what: 'managed label changed',
    body: markedAnd({ labels: { [SECRET_LABEL.key]: 'no' } }),
    refusal: /labels/,
  },
  { what: 'another label on', body: markedAnd({ labels: { extra: 'x' } }), refusal: /labels/ },
  { what: 'all labels off', body: markedAnd({ labels: null }), refusal: /labels/ },
  { what: 'finalizer', body: markedAnd({ finalizers: ['example.com/keep'] }), refusal: /finalizers/ },
  { what: 'owner', body: markedAnd({ ownerReferences: [OWNER] }), refusal: /owner references/ },
  { what: 'generateName', body: markedAnd({ generateName: 'x-' }), refusal: /generateName/ },
  {
    what: 'another annotation on',
    body: markedAnd({ annotations: { [ANNOTATION.requestedAt]: MARK, extra: 'x' } }),
    refusal: /other annotations/,
  },
  {
    what: 'the choice of registries',
    body: markedAnd({ annotations: { [ANNOTATION.requestedAt]: MARK, [ANNOTATION.only]: 'public.ecr.aws' } }),
    refusal: /other annotations/,
  },
  {
    what: 'another annotation changed',
    body: markedAnd({ annotations: { [ANNOTATION.requestedAt]: MARK, note: 'x' } }),
    refusal: /other annotations/,
  },
  {
    what: 'another annotation off',
    body: markedAnd({ annotations: { [ANNOTATION.requestedAt]: MARK, note: null } }),
    refusal: /other annotations/,
  },
  { what: 'all annotations off', body: { metadata: { annotations: null } }, refusal: /other annotations/ },
  { what: 'data key on', body: markedAnd({}, { data: { extra: base64('x') } }), refusal: /other data/ },
  { what: 'data key changed', body: markedAnd({}, { data: { other: base64('x') } }), refusal: /other data/ },
  { what: 'data key off', body: markedAnd({}, { data: { other: null } }), refusal: /other data/ },
  { what: 'stringData', body: markedAnd({}, { stringData: { extra: 'x' } }), refusal: /other data/ },
  {
    what: 'credentials without the mark',
    body: { data: { [SECRET_KEY]: base64('{"auths":{"x":{}}}') } },
    refusal: WITHOUT_MARK,
  },
  {
    what: 'credentials without the mark, as stringData',
    body: { stringData: { [SECRET_KEY]: '{"auths":{"x":{}}}' } },
    refusal: WITHOUT_MARK,
  },
  ...[
    ANNOTATION.force,
    ANNOTATION.updatedAt,
    ANNOTATION.expiresAt,
    ANNOTATION.registries,
    ANNOTATION.fingerprint,
  ].map((key) => ({
    what: `${key.split('/')[1]} without the mark`,
    body: annotate({ [key]: '2027-01-01T00:00:00Z' }),
    refusal: WITHOUT_MARK,
  })),
  {
    what: 'expires_at off without the mark',
    body: annotate({ [ANNOTATION.expiresAt]: null }),
    refusal: WITHOUT_MARK,
  },
  ...['now', '', '2026-11-23', '2026-11-23 12:00:00', '1763899200', `${MARK} `, `x${MARK}`].map((mark) => ({
    what: `the mark ${JSON.stringify(mark)}`,
    body: annotate({ [ANNOTATION.requestedAt]: mark }),
    refusal: NOT_A_TIME,
  })),
  {
    what: 'a mark on a day that does not exist',
    body: annotate({ [ANNOTATION.requestedAt]: '2026-02-30T12:00:00Z' }),
    refusal: /to 'google.protobuf.Timestamp'/,
  },
  { what: 'managedFields reset', body: markedAnd({ managedFields: [{}] }), refusal: /managedFields/ },
  {
    what: "another's applied fields taken off managedFields",
    body: [
      {
        op: 'replace',
        path: '/metadata/managedFields/0/fieldsV1',
        value: { 'f:metadata': { 'f:labels': { 'f:app': {} } } },
      },
    ],
    contentType: JSON_PATCH,
    refusal: /others have applied/,
  },
  {
    what: "another manager's fields claimed",
    body: [
      {
        op: 'add',
        path: '/metadata/managedFields/-',
        value: {
          manager: 'thief',
          operation: 'Update',
          apiVersion: 'v1',
          fieldsType: 'FieldsV1',
          fieldsV1: { 'f:metadata': { 'f:annotations': { 'f:note': {} } } },
        },
      },
    ],
    contentType: JSON_PATCH,
    refusal: /claim/,
  },
  {
    what: 'data claimed, along with the mark',
    body: [
      { op: 'add', path: `/metadata/annotations/${pointer(ANNOTATION.requestedAt)}`, value: MARK },
      {
        op: 'add',
        path: '/metadata/managedFields/-',
        value: {
          manager: 'thief',
          operation: 'Apply',
          apiVersion: 'v1',
          fieldsType: 'FieldsV1',
          fieldsV1: { 'f:data': { 'f:other': {} } },
        },
      },
    ],
    contentType: JSON_PATCH,
    refusal: /claim/,
  },
  {
    what: 'managedFields reset by JSON patch',
    body: [{ op: 'replace', path: '/metadata/managedFields', value: [{}] }],
    contentType: JSON_PATCH,
    refusal: /managedFields/,
  },
  {
    what: 'a label off by JSON patch',
    body: [{ op: 'remove', path: `/metadata/labels/${pointer(SECRET_LABEL.key)}` }],
    contentType: JSON_PATCH,
    refusal: /labels/,
  },
  {
    what: 'data off by JSON patch',
    body: [{ op: 'remove', path: '/data/other' }],
    contentType: JSON_PATCH,
    refusal: /other data/,
  },
  {
    what: 'a label by strategic merge patch',
    body: { metadata: { labels: { extra: 'x' } } },
    contentType: STRATEGIC,
    refusal: /labels/,
  },
  {
    what: 'finalizers by strategic merge patch',
    body: { metadata: { finalizers: ['example.com/keep'] } },
    contentType: STRATEGIC,
    refusal: /finalizers/,
  },
];

/** For the same by server-side apply and by PUT. */
export const REPLACEMENTS: { what: string; change: (secret: SecretBody) => void; refusal: RegExp }[] = [
  {
    what: 'a label',
    change: ({ metadata }) => Object.assign(metadata.labels, { extra: 'x' }),
    refusal: /labels/,
  },
  {
    what: 'an annotation',
    change: ({ metadata }) => Object.assign(metadata.annotations, { extra: 'x' }),
    refusal: /other annotations/,
  },
  {
    what: 'a data key',
    change: ({ data }) => Object.assign(data, { extra: base64('x') }),
    refusal: /other data/,
  },
  {
    what: 'credentials',
    change: ({ data }) => Object.assign(data, { [SECRET_KEY]: base64('{}') }),
    refusal: WITHOUT_MARK,
  },
  {
    what: 'a finalizer',
    change: ({ metadata }) => Object.assign(metadata, { finalizers: ['example.com/x'] }),
    refusal: /finalizers/,
  },
];
export interface SecretBody {
  metadata: { labels: object; annotations: object };
  data: object;
}
