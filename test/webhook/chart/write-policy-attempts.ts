// Requests that a stolen refresher credential might send to a managed Secret, and the rule of the write policy that must
// deny each one.
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../../contract/names.ts';
import type { Call } from '../caller.ts';

export const MERGE = 'application/merge-patch+json';
export const JSON_PATCH = 'application/json-patch+json';
export const STRATEGIC = 'application/strategic-merge-patch+json';
export const APPLY = 'application/apply-patch+yaml';

/** The time that the refresher requests in these tests. */
export const REQUESTED_AT = '2026-11-23T12:00:00Z';

export const base64 = (text: string) => Buffer.from(text).toString('base64');

export const secretsOf = (namespace: string) => `/api/v1/namespaces/${namespace}/secrets`;

/** All Secrets of a namespace, with their resource versions, so that every write shows. */
export async function storedIn(namespace: string, admin: Call): Promise<string> {
  return JSON.stringify(JSON.parse((await admin('GET', secretsOf(namespace))).text).items);
}

/** A managed Secret with a value in every field that the write policy protects. */
export function pullSecret(name: string, namespace: string, change: object = {}): object {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    type: SECRET_TYPE,
    metadata: {
      name,
      namespace,
      labels: { [SECRET_LABEL.key]: SECRET_LABEL.value, app: 'shop' },
      annotations: { [ANNOTATION.expiresAt]: '2026-11-23T18:00:00Z', note: 'must stay' },
    },
    data: { [SECRET_KEY]: base64('{"auths":{}}'), other: base64('other') },
    ...change,
  };
}

export const annotate = (annotations: object) => ({ metadata: { annotations } });
export const REQUEST = annotate({ [ANNOTATION.requestedAt]: REQUESTED_AT });
/** A merge patch that requests a refresh and changes something else with it. */
export const requestAnd = (metadata: object, rest: object = {}) => ({
  metadata: { annotations: { [ANNOTATION.requestedAt]: REQUESTED_AT }, ...metadata },
  ...rest,
});
export const pointer = (key: string) => key.replaceAll('/', '~1');
const OWNER = { apiVersion: 'v1', kind: 'ConfigMap', name: 'x', uid: '6d5f3a1e-0000-4000-8000-000000000000' };

const OR_OTHER = 'If another mutating webhook or policy did, exclude the refresher from it.';

/** The messages of the two write policies, as the chart renders them for the release of the tests. */
export const DENIALS = {
  namespace:
    'The refresher may change Secrets only in namespaces with the label ecr-anywhere.centml.ai/namespace=enabled, and never in kube-system, kube-public, ecr-anywhere.',
  managed:
    'The refresher may change only managed Secrets, which have the label ecr-anywhere.centml.ai/managed=true.',
  type: 'The refresher may change only Secrets of type kubernetes.io/dockerconfigjson, and may not change the type.',
  labels: `The refresher may not change the labels. ${OR_OTHER}`,
  immutable: `The refresher may not change the field immutable. ${OR_OTHER}`,
  finalizers: `The refresher may not change the finalizers. ${OR_OTHER}`,
  owners: `The refresher may not change the owner references. ${OR_OTHER}`,
  generateName: 'The refresher may not change generateName.',
  annotations: `The refresher may not change annotations other than its request and those that the webhook writes with it. ${OR_OTHER}`,
  data: `The refresher may not change keys of the data other than .dockerconfigjson. ${OR_OTHER}`,
  withoutRequest:
    'The refresher may change credentials and their annotations only through the webhook, together with a new ecr-anywhere.centml.ai/marked_for_update_at.',
  time: 'The refresher may set ecr-anywhere.centml.ai/marked_for_update_at only to an RFC 3339 time such as 2026-01-31T12:00:00Z.',
  force:
    'The refresher may set ecr-anywhere.centml.ai/force only to the value of ecr-anywhere.centml.ai/marked_for_update_at.',
  managedFields: 'The refresher may not reset managedFields.',
  applied: 'The refresher may not change fields that another manager applied.',
  disowned: 'The refresher may not take the labels and annotations of others from managedFields.',
  ownership: 'The refresher may not own fields other than its request annotations (managedFields).',
  tooManyOwners: 'The refresher may not add owners to the managedFields of a Secret that has many.',
  createOrDelete:
    'The refresher may not create or delete Secrets. To revoke its own tokens, its ServiceAccount may delete Secret ecr-anywhere-refresher-token, with the uid as a precondition.',
} as const;

/** A request to a Secret, and the message of the rule that must deny it. */
export interface Attempt {
  what: string;
  body: object;
  contentType?: string;
  denial: string;
}

export const PATCHES: Attempt[] = [
  {
    what: 'to make the Secret immutable',
    body: requestAnd({}, { immutable: true }),
    denial: DENIALS.immutable,
  },
  {
    what: 'to remove the managed label',
    body: requestAnd({ labels: { [SECRET_LABEL.key]: null } }),
    denial: DENIALS.labels,
  },
  {
    what: 'to change the managed label',
    body: requestAnd({ labels: { [SECRET_LABEL.key]: 'no' } }),
    denial: DENIALS.labels,
  },
  { what: 'to add another label', body: requestAnd({ labels: { extra: 'x' } }), denial: DENIALS.labels },
  { what: 'to remove all labels', body: requestAnd({ labels: null }), denial: DENIALS.labels },
  {
    what: 'to add a finalizer',
    body: requestAnd({ finalizers: ['example.com/keep'] }),
    denial: DENIALS.finalizers,
  },
  {
    what: 'to add an owner reference',
    body: requestAnd({ ownerReferences: [OWNER] }),
    denial: DENIALS.owners,
  },
  { what: 'to set generateName', body: requestAnd({ generateName: 'x-' }), denial: DENIALS.generateName },
  {
    what: 'to add another annotation',
    body: requestAnd({ annotations: { [ANNOTATION.requestedAt]: REQUESTED_AT, extra: 'x' } }),
    denial: DENIALS.annotations,
  },
  {
    what: 'to set the annotation only',
    body: requestAnd({
      annotations: { [ANNOTATION.requestedAt]: REQUESTED_AT, [ANNOTATION.only]: 'public.ecr.aws' },
    }),
    denial: DENIALS.annotations,
  },
  {
    what: 'to change another annotation',
    body: requestAnd({ annotations: { [ANNOTATION.requestedAt]: REQUESTED_AT, note: 'x' } }),
    denial: DENIALS.annotations,
  },
  {
    what: 'to remove another annotation',
    body: requestAnd({ annotations: { [ANNOTATION.requestedAt]: REQUESTED_AT, note: null } }),
    denial: DENIALS.annotations,
  },
  {
    what: 'to remove all annotations',
    body: { metadata: { annotations: null } },
    denial: DENIALS.annotations,
  },
  { what: 'to add a data key', body: requestAnd({}, { data: { extra: base64('x') } }), denial: DENIALS.data },
  {
    what: 'to change a data key',
    body: requestAnd({}, { data: { other: base64('x') } }),
    denial: DENIALS.data,
  },
  { what: 'to remove a data key', body: requestAnd({}, { data: { other: null } }), denial: DENIALS.data },
  {
    what: 'to add a data key as stringData',
    body: requestAnd({}, { stringData: { extra: 'x' } }),
    denial: DENIALS.data,
  },
  {
    what: 'to write credentials without a request',
    body: { data: { [SECRET_KEY]: base64('{"auths":{"x":{}}}') } },
    denial: DENIALS.withoutRequest,
  },
  {
    what: 'to write credentials without a request, as stringData',
    body: { stringData: { [SECRET_KEY]: '{"auths":{"x":{}}}' } },
    denial: DENIALS.withoutRequest,
  },
  ...[
    ANNOTATION.force,
    ANNOTATION.updatedAt,
    ANNOTATION.expiresAt,
    ANNOTATION.registries,
    ANNOTATION.fingerprint,
  ].map((key) => ({
    what: `to set ${key.split('/')[1]} without a request`,
    body: annotate({ [key]: '2027-01-01T00:00:00Z' }),
    denial: DENIALS.withoutRequest,
  })),
  {
    what: 'to remove expires_at without a request',
    body: annotate({ [ANNOTATION.expiresAt]: null }),
    denial: DENIALS.withoutRequest,
  },
  ...[
    'now',
    '',
    '2026-11-23',
    '2026-11-23 12:00:00',
    '1763899200',
    `${REQUESTED_AT} `,
    `x${REQUESTED_AT}`,
  ].map((time) => ({
    what: `to request a refresh at ${JSON.stringify(time)}`,
    body: annotate({ [ANNOTATION.requestedAt]: time }),
    denial: DENIALS.time,
  })),
  {
    what: 'to request a refresh on a day that does not exist',
    body: annotate({ [ANNOTATION.requestedAt]: '2026-02-30T12:00:00Z' }),
    denial: "to 'google.protobuf.Timestamp'",
  },
  {
    what: 'to reset managedFields',
    body: requestAnd({ managedFields: [{}] }),
    denial: DENIALS.managedFields,
  },
  {
    what: 'to remove the applied fields of another manager from managedFields',
    body: [
      {
        op: 'replace',
        path: '/metadata/managedFields/0/fieldsV1',
        value: { 'f:metadata': { 'f:labels': { 'f:app': {} } } },
      },
    ],
    contentType: JSON_PATCH,
    denial: DENIALS.applied,
  },
  {
    what: 'to own a field of another manager',
    body: [
      {
        op: 'add',
        path: '/metadata/managedFields/-',
        value: {
          manager: 'attacker',
          operation: 'Update',
          apiVersion: 'v1',
          fieldsType: 'FieldsV1',
          fieldsV1: { 'f:metadata': { 'f:annotations': { 'f:note': {} } } },
        },
      },
    ],
    contentType: JSON_PATCH,
    denial: DENIALS.ownership,
  },
  {
    what: 'to own data, together with a request',
    body: [
      { op: 'add', path: `/metadata/annotations/${pointer(ANNOTATION.requestedAt)}`, value: REQUESTED_AT },
      {
        op: 'add',
        path: '/metadata/managedFields/-',
        value: {
          manager: 'attacker',
          operation: 'Apply',
          apiVersion: 'v1',
          fieldsType: 'FieldsV1',
          fieldsV1: { 'f:data': { 'f:other': {} } },
        },
      },
    ],
    contentType: JSON_PATCH,
    denial: DENIALS.ownership,
  },
  {
    what: 'to reset managedFields by JSON patch',
    body: [{ op: 'replace', path: '/metadata/managedFields', value: [{}] }],
    contentType: JSON_PATCH,
    denial: DENIALS.managedFields,
  },
  {
    what: 'to remove a label by JSON patch',
    body: [{ op: 'remove', path: `/metadata/labels/${pointer(SECRET_LABEL.key)}` }],
    contentType: JSON_PATCH,
    denial: DENIALS.labels,
  },
  {
    what: 'to remove a data key by JSON patch',
    body: [{ op: 'remove', path: '/data/other' }],
    contentType: JSON_PATCH,
    denial: DENIALS.data,
  },
  {
    what: 'to add a label by strategic merge patch',
    body: { metadata: { labels: { extra: 'x' } } },
    contentType: STRATEGIC,
    denial: DENIALS.labels,
  },
  {
    what: 'to add a finalizer by strategic merge patch',
    body: { metadata: { finalizers: ['example.com/keep'] } },
    contentType: STRATEGIC,
    denial: DENIALS.finalizers,
  },
];

/** Changes to try by server-side apply and by PUT. */
export const REPLACEMENTS: { what: string; change: (secret: SecretBody) => void; denial: string }[] = [
  {
    what: 'to add a label',
    change: ({ metadata }) => Object.assign(metadata.labels, { extra: 'x' }),
    denial: DENIALS.labels,
  },
  {
    what: 'to add an annotation',
    change: ({ metadata }) => Object.assign(metadata.annotations, { extra: 'x' }),
    denial: DENIALS.annotations,
  },
  {
    what: 'to add a data key',
    change: ({ data }) => Object.assign(data, { extra: base64('x') }),
    denial: DENIALS.data,
  },
  {
    what: 'to write credentials',
    change: ({ data }) => Object.assign(data, { [SECRET_KEY]: base64('{}') }),
    denial: DENIALS.withoutRequest,
  },
  {
    what: 'to add a finalizer',
    change: ({ metadata }) => Object.assign(metadata, { finalizers: ['example.com/x'] }),
    denial: DENIALS.finalizers,
  },
];
export interface SecretBody {
  metadata: { labels: object; annotations: object };
  data: object;
}
