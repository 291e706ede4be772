// Reads AdmissionReviews (v1) and writes the answers. Pure.
import { z } from 'zod';
import type { DenialCause } from '../../contract/denials.ts';

const StringMap = z.record(z.string(), z.string());

const Secret = z.object({
  metadata: z.object({
    labels: StringMap.nullish(),
    annotations: StringMap.nullish(),
    deletionTimestamp: z.string().nullish(),
    managedFields: z.array(z.unknown()).nullish(),
  }),
  type: z.string().default('Opaque'),
  immutable: z.boolean().nullish(),
  data: StringMap.nullish(),
});

const Identity = z.object({ username: z.string().default(''), groups: z.array(z.string()).default([]) });

const Envelope = z.object({
  apiVersion: z.literal('admission.k8s.io/v1'),
  kind: z.literal('AdmissionReview'),
  request: z.object({ uid: z.string().min(1) }).loose(),
});

const Kind = z.object({ group: z.string().default(''), version: z.string(), kind: z.string() });

const Request = z.object({
  uid: z.string(),
  kind: Kind,
  operation: z.string(),
  namespace: z.string().min(1),
  name: z.string().default(''),
  dryRun: z.boolean().nullish(),
  userInfo: Identity.default({ username: '', groups: [] }),
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
  /** Both objects with all their fields, for comparison only. */
  readonly raw: { readonly object: unknown; readonly oldObject?: unknown };
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
    const what = [kind.group, kind.version, kind.kind].filter(Boolean).join('/');
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
      raw: { object: raw.object, oldObject: raw.oldObject },
    },
  };
}

/** As many problems are listed. */
const MAX_PROBLEMS = 10;

function malformed(uid: string | undefined, what: string, error: z.ZodError): ParsedReview {
  const problems = error.issues
    .slice(0, MAX_PROBLEMS)
    .map(({ path, message }) => `${path.map(String).join('.') || 'body'}: ${message}`);
  if (error.issues.length > MAX_PROBLEMS) problems.push(`and ${error.issues.length - MAX_PROBLEMS} more`);
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
