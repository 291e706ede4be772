// Reads AdmissionReviews (v1) and writes the answers. Pure.
import { z } from 'zod';
import type { DenialCause } from '../../contract/denials.ts';

// Go marshals an unset value of some types as null, in maps and lists too: `data: {.dockerconfigjson: }` arrives so. Null is
// absent everywhere.

/** As many problems are listed. The rest is counted: a caller may send a hundred thousand. */
const MAX_PROBLEMS = 10;
/** A name in a message is cut off after so many characters. */
const MAX_SHOWN = 100;

// The limits of Kubernetes. Names are written to the log, and are keys of caches.
const MAX_NAMESPACE = 63;
const MAX_NAME = 253;
/** A UUID has 36 characters. */
const MAX_UID = 128;
const MAX_USERNAME = 256;

/** A map from text to text; absent if it is null. An empty map stays, because patches need to know that it is there. */
const StringMap = z
  .unknown()
  .transform((map, context): Readonly<Record<string, string>> | undefined => {
    if (map === null) return undefined;
    const expected = (type: string, value: unknown) =>
      `Invalid input: expected ${type}, received ${Array.isArray(value) ? 'array' : typeof value}`;
    if (typeof map !== 'object' || Array.isArray(map)) {
      context.addIssue({ code: 'custom', input: map, message: expected('record', map) });
      return z.NEVER;
    }
    const present = Object.entries(map).filter(([, value]) => value !== null);
    const wrong = present.filter(([, value]) => typeof value !== 'string');
    for (const [key, value] of wrong.slice(0, MAX_PROBLEMS))
      context.addIssue({ code: 'custom', input: value, path: [key], message: expected('string', value) });
    if (wrong.length > MAX_PROBLEMS)
      context.addIssue({ code: 'custom', input: map, params: { more: wrong.length - MAX_PROBLEMS } });
    return wrong.length > 0 ? z.NEVER : Object.fromEntries(present as [string, string][]);
  })
  .optional();

const Text = z
  .string()
  .nullish()
  .transform((text) => text ?? '');

const Secret = z.object({
  metadata: z.object({
    labels: StringMap,
    annotations: StringMap,
    deletionTimestamp: z.string().nullish(),
    // Only their number is used: they may take as much memory as the rest.
    managedFields: z
      .array(z.unknown())
      .nullish()
      .transform((fields) => ({ length: (fields ?? []).filter((field) => field !== null).length })),
  }),
  type: z
    .string()
    .nullish()
    .transform((type) => type ?? 'Opaque'),
  immutable: z.boolean().nullish(),
  data: StringMap,
});

const Identity = z.object({
  username: Text,
  groups: z
    .array(z.string().nullable())
    .nullish()
    .transform((groups) => (groups ?? []).filter((group) => group !== null)),
});

const Envelope = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.object({ uid: z.string().min(1).max(MAX_UID) }).loose(),
});

const Kind = z.object({ group: Text, version: z.string(), kind: z.string() });

const Request = z.object({
  uid: z.string(),
  kind: Kind,
  operation: z.string(),
  namespace: z.string().min(1).max(MAX_NAMESPACE),
  name: Text.pipe(z.string().max(MAX_NAME)),
  dryRun: z.boolean().nullish(),
  userInfo: Identity.nullish().transform((user) => user ?? { username: '', groups: [] }),
});

const Create = z.object({ object: Secret });
const Update = z.object({ object: Secret, oldObject: Secret });

/** The fields of a Secret that the webhook uses. */
export type Secret = z.infer<typeof Secret>;

export interface AdmissionRequest {
  readonly uid: string;
  readonly operation: 'CREATE' | 'UPDATE';
  readonly namespace: string;
  /** Empty for a CREATE with `generateName`. */
  readonly name: string;
  readonly dryRun: boolean;
  readonly user: z.infer<typeof Identity>;
  readonly object: Secret;
  readonly oldObject?: Secret;
  /** Both objects with all their fields, and the request's options, for comparison only. */
  readonly raw: { object: unknown; oldObject?: unknown; options?: unknown };
}

/** Frees the memory of fields that only the first decision compares: a request may wait seconds for its tokens. */
export function forgetRaw({ raw }: AdmissionRequest): void {
  raw.object = undefined;
  raw.oldObject = undefined;
}

/** A review as read. Without a `uid`, a malformed one cannot be answered: the response is an HTTP 400. */
export type ParsedReview =
  | { kind: 'request'; request: AdmissionRequest }
  | { kind: 'nothing-to-do'; uid: string; reason: string }
  | { kind: 'malformed'; uid?: string; message: string };

/** Reads a parsed JSON body as an AdmissionReview about the creation or update of a Secret. */
export function readReview(body: unknown): ParsedReview {
  const envelope = Envelope.safeParse(body);
  if (!envelope.success)
    return malformed(undefined, 'The body is not an admission.k8s.io/v1 AdmissionReview', envelope.error);
  const raw = envelope.data.request;
  const parsed = Request.safeParse(raw);
  if (!parsed.success) return malformed(raw.uid, 'The AdmissionReview cannot be read', parsed.error);
  const { kind, operation, uid, namespace, name, dryRun, userInfo } = parsed.data;
  if (kind.group !== '' || kind.version !== 'v1' || kind.kind !== 'Secret') {
    const what = cutOff([kind.group, kind.version, kind.kind].filter(Boolean).join('/'));
    return {
      kind: 'malformed',
      uid,
      message: `This webhook serves v1 Secrets, not ${what}. Limit the rules of the MutatingWebhookConfiguration to secrets.`,
    };
  }
  if (operation !== 'CREATE' && operation !== 'UPDATE')
    return { kind: 'nothing-to-do', uid, reason: 'neither a CREATE nor an UPDATE' };
  const objects = (operation === 'CREATE' ? Create : Update).safeParse(raw);
  if (!objects.success) return malformed(uid, 'The AdmissionReview cannot be read', objects.error);
  return {
    kind: 'request',
    request: {
      uid,
      operation,
      namespace,
      name,
      dryRun: dryRun ?? false,
      user: userInfo,
      ...(objects.data as { object: Secret; oldObject?: Secret }),
      raw: { object: raw.object, oldObject: raw.oldObject, options: raw.options },
    },
  };
}

/** A text of a caller for a message or a log line. @param length at most so many characters of it */
export function cutOff(text: string, length = MAX_SHOWN): string {
  return text.length <= length ? text : `${text.slice(0, length)}…`;
}

/** A user name for a log line: an identity provider may issue any. */
export function shownUser({ username }: AdmissionRequest['user']): string {
  return cutOff(username, MAX_USERNAME);
}

function malformed(uid: string | undefined, what: string, error: z.ZodError): ParsedReview {
  const more = error.issues.map((issue) =>
    issue.code === 'custom' && issue.params !== undefined ? Number(issue.params.more) : 0,
  );
  const named = error.issues.filter((_, index) => more[index] === 0);
  const problems = named
    .slice(0, MAX_PROBLEMS)
    .map(({ path, message }) => `${cutOff(path.map(String).join('.')) || 'body'}: ${message}`);
  const rest = more.reduce((sum, count) => sum + count, named.length - problems.length);
  if (rest > 0) problems.push(`and ${rest} more`);
  return { kind: 'malformed', ...(uid !== undefined && { uid }), message: `${what}: ${problems.join('; ')}` };
}

/** One operation of a JSON Patch (RFC 6902). */
export interface PatchOperation {
  op: 'add' | 'remove';
  path: string;
  value?: unknown;
}

/** StatusDetails of the Kubernetes API. */
interface DenialDetails {
  readonly name?: string;
  readonly kind?: 'Secret';
  readonly causes: readonly DenialCause[];
}

export interface ReviewAnswer {
  apiVersion: 'admission.k8s.io/v1';
  kind: 'AdmissionReview';
  response: {
    uid: string;
    allowed: boolean;
    /** Of a Kubernetes Status; the API server passes it on to the client. */
    status?: { code: number; message: string; details: DenialDetails };
    patchType?: 'JSONPatch';
    patch?: string;
    warnings?: string[];
  };
}

function answer(uid: string, response: Omit<ReviewAnswer['response'], 'uid'>): ReviewAnswer {
  return { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview', response: { uid, ...response } };
}

/** Allows the request, with a patch and warnings if there are any. */
export function allowed(
  uid: string,
  patch: readonly PatchOperation[] = [],
  warnings: readonly string[] = [],
): ReviewAnswer {
  return answer(uid, {
    allowed: true,
    ...(patch.length > 0 && {
      patchType: 'JSONPatch',
      patch: Buffer.from(JSON.stringify(patch)).toString('base64'),
    }),
    ...(warnings.length > 0 && { warnings: [...warnings] }),
  });
}

/**
 * Denies the request. The API server passes the status on to the client.
 *
 * @param name the Secret's, for the details of the status
 */
export function denied(
  uid: string,
  { code, message, causes }: { code: number; message: string; causes: readonly DenialCause[] },
  name?: string,
): ReviewAnswer {
  const details = { ...(name !== undefined && { name, kind: 'Secret' as const }), causes };
  return answer(uid, { allowed: false, status: { code, message, details } });
}
