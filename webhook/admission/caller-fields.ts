// Reads from managedFields which fields the refresher itself set. The API server records them before it calls mutating
// policies and webhooks, so a label that another mutator added is not among them. Pure.
import { isDeepStrictEqual } from 'node:util';
import { z } from 'zod';
import {
  ANNOTATION,
  DOMAIN,
  PROVISION_FIELD_MANAGER,
  REFRESHER_FIELD_MANAGER,
  REQUEST_ANNOTATIONS,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../contract/names.ts';
import type { AdmissionRequest } from './review.ts';

const Entry = z.object({
  manager: z.string().optional(),
  operation: z.string().optional(),
  apiVersion: z.string().optional(),
  subresource: z.string().nullish(),
  fieldsV1: z.unknown(),
});
type Entry = z.infer<typeof Entry>;

const Owned = z.object({ metadata: z.object({ managedFields: z.array(Entry).nullish() }) });
const Options = z.object({ fieldManager: z.literal(REFRESHER_FIELD_MANAGER) });
/** The fields of a manager that set request annotations and nothing else. */
const RequestFields = z.strictObject({
  'f:metadata': z.strictObject({ 'f:annotations': z.record(z.string(), z.strictObject({})) }),
});
/** The manager into which the API server merges the oldest of more than ten. */
const MERGED = 'ancient-changes';

/**
 * Whether managedFields show that the refresher set only its request annotations. The name of the field manager is chosen by
 * the caller, so it must be the refresher's: the API server then records each field that this request changed under it.
 * Fields that a request removes are not recorded.
 *
 * @param options the request's, with its field manager
 */
export function setOnlyRequest(object: unknown, oldObject: unknown, options: unknown): boolean {
  if (!Options.safeParse(options).success) return false;
  const entries = entriesOf(object);
  const [own, ...more] = entries.filter(({ manager }) => manager === REFRESHER_FIELD_MANAGER);
  // Together with the manager these identify an entry: the caller can add one that differs in any of them.
  const isCallers = own?.operation === 'Update' && own.apiVersion === 'v1' && !own.subresource;
  if (!isCallers || more.length > 0) return false;
  // A caller can give the other entries a time in the future. Its own entry is then among the oldest, which are merged.
  const merged = (all: readonly Entry[]) =>
    all.filter(({ manager }) => manager === MERGED).map(({ fieldsV1 }) => fieldsV1);
  if (!isDeepStrictEqual(merged(entries), merged(entriesOf(oldObject)))) return false;
  const fields = RequestFields.safeParse(own.fieldsV1).data?.['f:metadata']['f:annotations'] ?? {};
  const allowed = ['.', ...REQUEST_ANNOTATIONS.map((key) => `f:${key}`)];
  return `f:${ANNOTATION.requestedAt}` in fields && Object.keys(fields).every((key) => allowed.includes(key));
}

/** Labels or annotations whose keys of this project have exactly these values. */
const withOwn = (own: Readonly<Record<string, string>>) =>
  z
    .record(z.string(), z.unknown())
    .refine((map) =>
      isDeepStrictEqual(Object.fromEntries(Object.entries(map).filter(([key]) => isOurs(key))), own),
    );

/**
 * The provisioned Secret as the webhook sees its creation. The caller of an apply can bring no managedFields, and the API server
 * adds one entry with the fields that the caller sent. Other mutators may have added labels and annotations of their own.
 */
const Provisioned = z.strictObject({
  apiVersion: z.literal('v1'),
  kind: z.literal('Secret'),
  type: z.literal(SECRET_TYPE),
  metadata: z.strictObject({
    name: z.string(),
    namespace: z.string(),
    uid: z.string().nullish(),
    creationTimestamp: z.string().nullish(),
    labels: withOwn({ [SECRET_LABEL.key]: SECRET_LABEL.value }),
    annotations: withOwn({}).nullish(),
    managedFields: z.tuple([
      z.looseObject({
        manager: z.literal(PROVISION_FIELD_MANAGER),
        operation: z.literal('Apply'),
        fieldsV1: z.strictObject({
          'f:metadata': z.strictObject({
            'f:labels': z.strictObject({ [`f:${SECRET_LABEL.key}`]: z.strictObject({}) }),
          }),
          'f:type': z.strictObject({}),
        }),
      }),
    ]),
  }),
});

/** Whether the caller creates the Secret of this name by server-side apply, with its type and label, and nothing else. */
export function createsProvisioned(
  { name, raw }: AdmissionRequest,
  provisionSecret: string | undefined,
): boolean {
  return name === provisionSecret && Provisioned.safeParse(raw.object).success;
}

/**
 * The labels or annotations without what another mutator may have changed: keys that are not of this project, unless they
 * are missing now.
 */
export function withoutOthersChanges(
  map: Readonly<Record<string, unknown>>,
  old: Readonly<Record<string, unknown>>,
): Record<string, unknown> {
  const kept = Object.entries(map).filter(([key]) => isOurs(key) || key in old);
  return Object.fromEntries(kept.map(([key, value]) => [key, isOurs(key) ? value : old[key]]));
}

function isOurs(key: string): boolean {
  return key.startsWith(`${DOMAIN}/`);
}

function entriesOf(object: unknown): readonly Entry[] {
  return Owned.safeParse(object).data?.metadata.managedFields ?? [];
}
