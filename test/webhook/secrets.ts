// Secrets and AdmissionReviews for the tests of the decision, and a Secret as it is after an answer's patch.
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import type { Allowance, Denial, Injection, TokenOutcome } from '../../webhook/decision.ts';
import { type AdmissionRequest, type PatchOperation, readReview } from '../../webhook/review.ts';

export const NOW = Date.parse('2026-11-23T12:00:00Z');
export const HOUR = 3_600_000;
export const REGION = 'eu-central-1';
export const HOST = `123456789012.dkr.ecr.${REGION}.amazonaws.com`;
export const OTHER_HOST = '210987654321.dkr.ecr.us-east-1.amazonaws.com';

export interface SecretObject {
  metadata: {
    name: string;
    namespace: string;
    labels?: Record<string, string>;
    annotations?: Record<string, string>;
    [field: string]: unknown;
  };
  type: string;
  immutable?: boolean;
  data?: Record<string, string>;
  [field: string]: unknown;
}

/** A labelled Secret; `config` is what its docker config says, as text. */
export function secret(config?: string, annotations?: Record<string, string>): SecretObject {
  return {
    metadata: {
      name: 'pull',
      namespace: 'team-a',
      labels: { [SECRET_LABEL.key]: SECRET_LABEL.value },
      managedFields: [{ manager: 'kubectl' }],
      ...(annotations && { annotations }),
    },
    type: SECRET_TYPE,
    ...(config !== undefined && { data: { [SECRET_KEY]: Buffer.from(config).toString('base64') } }),
  };
}

/** What the API server would send about it. */
export function request(
  object: SecretObject,
  oldObject?: SecretObject,
  user: { username?: string; groups?: string[] } = {},
): AdmissionRequest {
  const reading = readReview({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u-1',
      kind: { group: '', version: 'v1', kind: 'Secret' },
      operation: oldObject ? 'UPDATE' : 'CREATE',
      namespace: object.metadata.namespace,
      name: object.metadata.name,
      userInfo: { username: 'someone', groups: ['system:authenticated'], ...user },
      object,
      oldObject: oldObject ?? null,
    },
  });
  if (reading.kind !== 'request') throw new Error(`not a request: ${JSON.stringify(reading)}`);
  return reading.request;
}

export function token(host = HOST, password = 'new', expiresAt = NOW + 12 * HOUR): TokenOutcome {
  return { registry: { region: REGION }, token: { host, username: 'AWS', password, expiresAt } };
}

/** The Secret after the patch (RFC 6902, of which only `add` is used; names unescaped as in RFC 6901). */
export function patched(object: SecretObject, patch: readonly PatchOperation[]): SecretObject {
  const result = structuredClone(object);
  for (const { op, path, value } of patch) {
    if (op !== 'add') throw new Error(`unexpected operation ${op}`);
    const names = path
      .split('/')
      .slice(1)
      .map((name) => name.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = names.pop() ?? '';
    let target = result as Record<string, unknown>;
    for (const name of names) {
      if (typeof target[name] !== 'object' || target[name] === null)
        throw new Error(`${path}: there is no ${name}`);
      target = target[name] as Record<string, unknown>;
    }
    target[last] = value;
  }
  return result;
}

/** The verdict's Secret. @throws Error where it is not allowed */
export function allowedSecret(object: SecretObject, verdict: Denial | Allowance | Injection): SecretObject {
  if (verdict.action === 'deny' || verdict.action === 'obtain')
    throw new Error(`${verdict.action}: ${verdict.reason}`);
  return patched(object, verdict.patch);
}

/** The docker config of a Secret, as text. */
export function configOf(object: SecretObject): string {
  return Buffer.from(object.data?.[SECRET_KEY] ?? '', 'base64').toString();
}

export function passwordsOf(object: SecretObject): Record<string, unknown> {
  const { auths } = JSON.parse(configOf(object)) as { auths: Record<string, { password?: string }> };
  return Object.fromEntries(Object.entries(auths).map(([host, entry]) => [host, entry.password]));
}

/** The object with other annotations on top. */
export function annotated(object: SecretObject, annotations: Record<string, string>): SecretObject {
  const copy = structuredClone(object);
  copy.metadata.annotations = { ...copy.metadata.annotations, ...annotations };
  return copy;
}

/** A request for a refresh: the object with a new mark. */
export function marked(object: SecretObject, mark = '2026-11-23T12:00:00.000Z', force = false): SecretObject {
  return annotated(object, { [ANNOTATION.requestedAt]: mark, ...(force && { [ANNOTATION.force]: mark }) });
}
