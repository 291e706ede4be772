// Shared by the tests of the decision: Secrets as an API server sends them, reviews that are parsed, and patches that are
// applied, so that a test sees the Secret that would be stored.

import { expect } from 'vitest';
import { type DenialCause, registryField } from '../../contract/denials.ts';
import { formatTime } from '../../contract/freshness.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, SECRET_TYPE } from '../../contract/names.ts';
import { formatWarning, type WarningKind } from '../../contract/warnings.ts';
import {
  type Allowance,
  applyTokens,
  type Denial,
  decide,
  type Entitlement,
  type TokensNeeded,
} from '../../webhook/admission/decision.ts';
import {
  type AdmissionRequest,
  allowed,
  type ParsedReview,
  type PatchOperation,
  readReview,
} from '../../webhook/admission/review.ts';
import type { Token, TokenOutcome } from '../../webhook/aws/ecr-tokens.ts';
import type { Registry } from '../../webhook/aws/registries.ts';
import { TokenError } from '../../webhook/aws/token-error.ts';

export const SECOND = 1_000;
export const HOUR = 3_600_000;
export const NOW = Date.UTC(2026, 2, 1, 12, 0, 0);

export const HOST = '123456789012.dkr.ecr.eu-central-1.amazonaws.com';
export const OTHER_HOST = '123456789012.dkr.ecr.us-east-1.amazonaws.com';
export const REFRESHER = 'system:serviceaccount:ecr-anywhere:refresher';
const HERE: Registry = { source: { service: 'ecr', region: 'eu-central-1' }, host: HOST };
const THERE: Registry = { source: { service: 'ecr', region: 'us-east-1' }, host: OTHER_HOST };
export const ONE: Entitlement = { registries: [HERE], refresherUsername: REFRESHER };
export const TWO: Entitlement = { registries: [HERE, THERE], refresherUsername: REFRESHER };

export interface Manifest {
  apiVersion: 'v1';
  kind: 'Secret';
  metadata: {
    name: string;
    namespace: string;
    labels?: Record<string, string> | null;
    annotations?: Record<string, string> | null;
    managedFields?: { manager: string; [field: string]: unknown }[] | null;
    [field: string]: unknown;
  };
  type?: string;
  immutable?: boolean;
  data?: Record<string, string> | null;
}

/** A managed Secret as a user would apply it, with `text` as its docker config. */
export function manifest(text?: string, annotations?: Record<string, string>): Manifest {
  return {
    apiVersion: 'v1',
    kind: 'Secret',
    metadata: {
      name: 'pull',
      namespace: 'team-a',
      labels: { [SECRET_LABEL.key]: SECRET_LABEL.value },
      ...(annotations && { annotations }),
    },
    type: SECRET_TYPE,
    ...(text !== undefined && { data: { [SECRET_KEY]: encode(text) } }),
  };
}

/** A changed copy. */
export function edited(secret: Manifest, change: (copy: Manifest) => void): Manifest {
  const copy = structuredClone(secret);
  change(copy);
  return copy;
}

/** A copy with these annotations set; undefined removes one. */
export function annotated(secret: Manifest, annotations: Record<string, string | undefined>): Manifest {
  return edited(secret, ({ metadata }) => {
    const all = Object.entries({ ...metadata.annotations, ...annotations });
    metadata.annotations = Object.fromEntries(
      all.filter((entry): entry is [string, string] => entry[1] !== undefined),
    );
  });
}

/** A copy as a webhook of another contract version wrote it; undefined: contract 1, which had no number. */
export function ofContract(number: string | undefined, secret: Manifest): Manifest {
  const hash = notesOf(secret).fingerprint?.replace(/^\d+\./, '') ?? '';
  return annotated(secret, { [ANNOTATION.fingerprint]: number === undefined ? hash : `${number}.${hash}` });
}

/** A copy with another docker config. */
export function holding(secret: Manifest, text: string): Manifest {
  return edited(secret, (copy) => {
    copy.data = { ...copy.data, [SECRET_KEY]: encode(text) };
  });
}

export interface Change {
  object: Manifest;
  /** Present: an UPDATE. */
  oldObject?: Manifest;
  username?: string;
  groups?: string[];
  /** The options of the request, such as its field manager. */
  options?: object;
}

/** The AdmissionReview that an API server (1.34) would send. */
export function reviewOf({
  object,
  oldObject,
  username = 'alice',
  groups = ['system:authenticated'],
  options = {},
}: Change) {
  const { name, namespace } = object.metadata;
  return {
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: '705ab4f5-6393-11e8-b7cc-42010a800002',
      kind: { group: '', version: 'v1', kind: 'Secret' },
      resource: { group: '', version: 'v1', resource: 'secrets' },
      requestKind: { group: '', version: 'v1', kind: 'Secret' },
      requestResource: { group: '', version: 'v1', resource: 'secrets' },
      name,
      namespace,
      operation: oldObject ? 'UPDATE' : 'CREATE',
      userInfo: { username, groups },
      object,
      oldObject: oldObject ?? null,
      dryRun: false,
      options: {
        kind: oldObject ? 'UpdateOptions' : 'CreateOptions',
        apiVersion: 'meta.k8s.io/v1',
        ...options,
      },
    },
  };
}

/** The parsed review of a change. */
export function requestOf(change: Change): AdmissionRequest {
  return fromReview(readReview(JSON.parse(JSON.stringify(reviewOf(change)))));
}

/** The request of a valid review. @throws Error if it is not one */
export function fromReview(reading: ParsedReview): AdmissionRequest {
  if (reading.kind !== 'request') throw new Error(`not a request: ${JSON.stringify(reading)}`);
  return reading.request;
}

export function tokenFor(host: string, expiresAt: number = NOW + 12 * HOUR, password = 'new'): Token {
  return { host, username: 'AWS', password: `${password}-${host}`, expiresAt };
}

export const THROTTLED = new TokenError('ecr-throttled', 'ECR refused: ThrottlingException: Rate exceeded');

/** The cause that a denial carries for a registry without a token. */
export function causeFor(host: string, { reason, principal, message }: TokenError = THROTTLED): DenialCause {
  return { reason, field: registryField(host), message: principal ?? message };
}

/** Matches a warning by its data, with `text` in its message. */
export function warning(
  host: string,
  kind: WarningKind,
  error?: TokenError,
  text = error?.message ?? '',
): unknown {
  const start = formatWarning({ host, kind, ...(error && { reason: error.reason }), message: '' });
  return expect.stringMatching(new RegExp(`^${RegExp.escape(start)}.*${RegExp.escape(text)}`));
}

/** A new token for every registry of the policy. */
export function allFresh(policy: Entitlement, at = NOW, password = 'new'): TokenOutcome[] {
  return policy.registries.map((registry) => ({
    registry,
    token: tokenFor(registry.host ?? HOST, at + 12 * HOUR, password),
  }));
}

/** The entry that is written for a token. */
export function entryOf({ username, password }: Pick<Token, 'username' | 'password'>): object {
  return { username, password, auth: encode(`${username}:${password}`) };
}

export interface Admitted {
  /** The result of `decide`; `obtain` means that tokens were needed. */
  readonly first: Denial | Allowance | TokensNeeded;
  readonly verdict: Denial | Allowance;
  /** The Secret that would be stored; absent if the request was denied. */
  readonly secret?: Manifest;
}

/** Decides, with these outcomes if tokens are needed, and applies the patch. */
export function admit(
  change: Change,
  {
    policy = ONE,
    now = NOW,
    outcomes = allFresh(policy, now),
  }: { policy?: Entitlement; now?: number; outcomes?: TokenOutcome[] } = {},
): Admitted {
  const request = requestOf(change);
  const first = decide(request, policy, now);
  const verdict =
    first.action === 'obtain' ? applyTokens(request, first, asked(first, outcomes), now) : first;
  if (verdict.action === 'deny') return { first, verdict };
  return { first, verdict, secret: applied(change.object, patchOnTheWire(verdict.patch)) };
}

/** The outcomes for the registries that need a token. */
function asked({ registries }: TokensNeeded, outcomes: readonly TokenOutcome[]): TokenOutcome[] {
  return outcomes.filter(({ registry }) => registries.includes(registry));
}

/** As `admit`, for tests that need only the Secret. */
export function afterwards(change: Change, options?: Parameters<typeof admit>[1]): Manifest {
  const { verdict, secret } = admit(change, options);
  if (!secret) throw new Error(`denied: ${JSON.stringify(verdict)}`);
  return secret;
}

/** A Secret that the webhook filled an hour ago (or at another time) and the API server stored. */
export function stored({
  at = NOW - HOUR,
  policy = ONE,
  from = manifest(),
  outcomes = allFresh(policy, at, 'old'),
}: {
  at?: number;
  policy?: Entitlement;
  from?: Manifest;
  outcomes?: TokenOutcome[];
} = {}): Manifest {
  return edited(afterwards({ object: from }, { policy, now: at, outcomes }), ({ metadata }) => {
    metadata.uid = '2f1c7b52-0d0e-4a37-9a6e-3f3d8f6c9d11';
    metadata.resourceVersion = '4711';
    metadata.creationTimestamp = formatTime(at);
    metadata.managedFields = [{ manager: 'kubectl' }];
  });
}

function patchOnTheWire(patch: readonly PatchOperation[]): PatchOperation[] {
  const { patch: encoded } = allowed('uid', patch).response;
  return encoded === undefined ? [] : JSON.parse(decode(encoded));
}

/** Applies RFC 6902 `add` and `remove` to objects. @throws Error for another operation, or a missing parent */
export function applied(secret: Manifest, patch: readonly PatchOperation[]): Manifest {
  const copy = structuredClone(secret);
  for (const { op, path, value } of patch) {
    if (!path.startsWith('/')) throw new Error(`unexpected: ${op} ${path}`);
    const keys = path
      .slice(1)
      .split('/')
      .map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~'));
    const last = keys.pop() ?? '';
    let parent: unknown = copy;
    for (const key of keys) parent = (parent as Record<string, unknown>)[key];
    if (typeof parent !== 'object' || parent === null) throw new Error(`no parent for ${path}`);
    const members = parent as Record<string, unknown>;
    if (op === 'add') members[last] = structuredClone(value);
    else if (!(op === 'remove' && last in members && delete members[last]))
      throw new Error(`unexpected: ${op} ${path}`);
  }
  return copy;
}

/** The docker config of a Secret as text. */
export function configText(secret: Manifest | undefined): string {
  return decode(secret?.data?.[SECRET_KEY] ?? '');
}

/** The `auths` of a Secret's docker config. */
export function authsOf(secret: Manifest | undefined): Record<string, unknown> {
  return JSON.parse(configText(secret)).auths;
}

/** The webhook's annotations, by short names. */
export function notesOf(secret: Manifest | undefined) {
  const all = secret?.metadata.annotations ?? {};
  return {
    updatedAt: all[ANNOTATION.updatedAt],
    expiresAt: all[ANNOTATION.expiresAt],
    registries: all[ANNOTATION.registries],
    fingerprint: all[ANNOTATION.fingerprint],
  };
}

export function encode(text: string): string {
  return Buffer.from(text).toString('base64');
}

export function decode(base64: string): string {
  return Buffer.from(base64, 'base64').toString();
}
