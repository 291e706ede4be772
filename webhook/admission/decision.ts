// Decides what happens to a Secret: the two tables of docs/design.md. Pure: `now` is an argument.
// First `decide`, without tokens. If it needs tokens, the caller obtains them, and `applyTokens` makes the decision.

import { isDeepStrictEqual } from 'node:util';
import { CONFIG_FIELD, type DenialCause, type DenialReason, registryField } from '../../contract/denials.ts';
import { type DueReason, formatTime, freshness } from '../../contract/freshness.ts';
import {
  ANNOTATION,
  EXCLUDED_NAMESPACES,
  REFRESHER_GROUP,
  REQUEST_ANNOTATIONS,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
} from '../../contract/names.ts';
import { formatWarning } from '../../contract/warnings.ts';
import type { Token, TokenOutcome } from '../aws/ecr-tokens.ts';
import { mayBeHostOf, principalOf, type Registry, unnamedHost } from '../aws/registries.ts';
import { TokenError } from '../aws/token-error.ts';
import { createsProvisioned, setOnlyRequest, withoutOthersChanges } from './caller-fields.ts';
import { formatEntry, hostOf } from './docker-config.ts';
import {
  annotation,
  areEntriesOf,
  dockerConfig,
  type Entry,
  hasPrincipalOf,
  isManaged,
  isUntouched,
  isValid,
  MAX_SECRET_BYTES,
  type OwnedEntries,
  ownedEntries,
  patchFor,
  sizeAfter,
  sizeOf,
  soonestExpiry,
  storedEntry,
} from './owned-entries.ts';
import { type AdmissionRequest, cutOff, type PatchOperation, type Secret } from './review.ts';

export interface Denial {
  action: 'deny';
  reason: DenialReason;
  code: 403 | 422 | 503;
  /** For people: what happened, why, and what to do. */
  message: string;
  /** For programs: first the reason itself, then one for each registry without a token. */
  causes: readonly DenialCause[];
}
export interface Allowance {
  action: 'ignore' | 'keep' | 'inject';
  reason: string;
  patch: readonly PatchOperation[];
  /** Each written by `formatWarning`, but for the one that counts what is not listed. */
  warnings: readonly string[];
}
/** `applyTokens` decides, with a token outcome for each of `registries`. */
export interface TokensNeeded {
  action: 'obtain';
  reason: 'created' | 'requested' | 'not-ours' | 'registries-changed' | DueReason;
  /** The value of the annotation `force` if the request is forced: a cached token is not enough. */
  force?: string;
  /** The owned entries of the stored Secret. */
  stored: OwnedEntries;
  /** The registries that the Secret must have entries for. */
  selected: readonly Registry[];
  /** Those of the selected registries that need a token. */
  registries: readonly Registry[];
  warnings: readonly string[];
}

/** What the policy gives the Secret's namespace. */
export interface Entitlement {
  /** The webhook has no valid policy. */
  readonly isInvalid?: boolean | undefined;
  readonly registries: readonly Registry[];
  readonly refresherUsername?: string | undefined;
  /** The only Secret that the refresher may create; undefined: none. */
  readonly provisionSecret?: string | undefined;
}

/** The first rows of the first table, which no registry changes; undefined if none applies. */
export function decideByRequest(
  request: AdmissionRequest,
  policy: Omit<Entitlement, 'registries'>,
): Denial | Allowance | undefined {
  const { object, oldObject } = request;
  if (EXCLUDED_NAMESPACES.includes(request.namespace)) return ignore('excluded-namespace');
  if (isRefresher(request, policy)) {
    const { provisionSecret } = policy;
    if (!oldObject && !createsProvisioned(request, provisionSecret))
      return refresherMayNotCreate(provisionSecret);
    if (oldObject && !changesOnlyRequestAnnotations(request, oldObject)) return refresherOutOfBounds();
  }
  if (!isManaged(object)) return ignore('not-managed');
  if (object.metadata.deletionTimestamp) return ignore('being-deleted');
  if (object.type !== SECRET_TYPE) return wrongType(object.type);
  if (object.immutable || oldObject?.immutable) return immutable();
  const bytes = sizeOf(object.data);
  if (bytes > MAX_SECRET_BYTES) return tooLargeAlready(bytes);
  if (policy.isInvalid) return policyInvalid();
  return undefined;
}

/**
 * The first table: the decision before any token is obtained. A registry without a host has no token at the moment (see
 * own-registry.ts).
 */
export function decide(
  request: AdmissionRequest,
  policy: Entitlement,
  now: number,
): Denial | Allowance | TokensNeeded {
  const byRequest = decideByRequest(request, policy);
  if (byRequest) return byRequest;
  const { object, oldObject } = request;
  if (wouldLoseEntries(object, oldObject, policy)) return notADockerConfig();

  const selection = selectRegistries(request, policy);
  if (!selection) return annotationTooLong();
  const { selected, warnings } = selection;
  const stored = oldObject && ownedEntries(oldObject);
  const isMatch = stored !== undefined && areEntriesOf(selected, stored);
  if (stored && !isMatch) warnings.push(...removalWarnings(request, policy, selected, stored));
  if (selected.length === 0) {
    const hasNothingToRemove = !stored?.size;
    if (hasNothingToRemove || (policy.registries.length > 0 && changesSelection(request))) {
      // The webhook emptied this Secret before: an update that requests nothing may pass.
      if (stored?.size === 0 && !isRequest(request)) return keep(request, stored, 'not-entitled', warnings);
      return notEntitled(request, policy);
    }
  }
  const obtain = (reason: TokensNeeded['reason'], registries = selected): TokensNeeded => ({
    action: 'obtain',
    reason,
    // The annotation `force` counts only with a request; on another update it is left over from an earlier one.
    ...(reason === 'created' || reason === 'requested' ? forced(object) : {}),
    stored: stored ?? new Map(),
    selected,
    registries,
    warnings,
  });
  if (!oldObject) return obtain('created');
  if (isRequest(request)) return obtain('requested');
  if (!stored) return obtain('not-ours');
  const due = selected.filter((registry) => {
    const entry = storedEntry(registry, stored);
    return !entry || !hasPrincipalOf(registry, entry) || freshness(formatTime(entry.expiresAt), now).due;
  });
  if (!isMatch) return obtain('registries-changed', due);
  // Judged by the expiries that the fingerprint covers. It does not cover the annotation `expires_at`.
  const expiresAt = soonestExpiry(stored);
  const judged = freshness(expiresAt === undefined ? undefined : formatTime(expiresAt), now);
  if (selected.length > 0 && judged.due) return obtain(judged.reason, due);
  return keep(request, stored, 'fresh', warnings);
}

/** The second table: the decision with the tokens that were obtained, and the failures. */
export function applyTokens(
  request: AdmissionRequest,
  { stored, reason, selected, force, warnings: earlierWarnings }: TokensNeeded,
  outcomes: readonly TokenOutcome[],
  now: number,
): Denial | Allowance {
  const outcomeOf = new Map(outcomes.map((outcome) => [outcome.registry, outcome]));
  const entries = new Map<string, Entry>();
  const failures: string[] = [];
  const causes: DenialCause[] = [];
  const warnings = [...earlierWarnings];
  let freshCount = 0;
  let missingCount = 0;
  for (const registry of selected) {
    const outcome = outcomeOf.get(registry);
    const token = outcome && 'token' in outcome ? outcome.token : undefined;
    const knownHost = registry.host ?? token?.host;
    const host = knownHost ?? unnamedHost(registry.source);
    const old = stored.get(host);
    // No token was needed for it.
    if (!outcome) {
      if (old) entries.set(host, old);
      continue;
    }
    const kept = old && isValid(old, now) ? old : undefined;
    const takesAnyToken = force !== undefined || !kept || !hasPrincipalOf(registry, kept);
    if ('token' in outcome && (takesAnyToken || isNewer(outcome, kept))) {
      const { username, password, expiresAt } = outcome.token;
      const principal = principalOf(registry.source);
      entries.set(host, { text: formatEntry(username, password), expiresAt, principal });
      freshCount += 1;
      if (outcome.stale) {
        const { reason, message } = outcome.stale;
        warnings.push(formatWarning({ host, kind: 'cached token', reason, message }));
      }
      continue;
    }
    const failure = 'error' in outcome ? outcome.error : (outcome.stale ?? EXPIRES_SOONER);
    failures.push(`${host}: ${failure.message}`);
    causes.push(causeOf(failure, knownHost));
    if (kept) {
      entries.set(host, kept);
      const message = `the stored credentials expire at ${formatTime(kept.expiresAt)}: ${failure.message}`;
      warnings.push(formatWarning({ host, kind: 'kept', reason: failure.reason, message }));
    } else {
      // Recorded as expired, so that the Secret stays due until the registry has a token.
      const expiresAt = Math.min(old?.expiresAt ?? now, now);
      entries.set(host, { expiresAt, principal: principalOf(registry.source) });
      missingCount += 1;
      const { reason, message } = failure;
      warnings.push(formatWarning({ host, kind: 'no credentials', reason, message }));
    }
  }

  const removesEntries = [...stored.keys()].some((host) => !entries.has(host));
  if (request.operation === 'CREATE' && missingCount > 0) return noToken(NO_TOKEN.created, failures, causes);
  if (freshCount > 0 || failures.length === 0) {
    const patch = patchFor(request, entries, stored, formatTime(now));
    const bytes = sizeAfter(request, patch);
    if (bytes > MAX_SECRET_BYTES) return tooLarge(bytes, entries.size);
    return { action: 'inject', reason, patch, warnings };
  }
  if (reason === 'requested' && !removesEntries) return noToken(NO_TOKEN.requested, failures, causes);
  if (stored.size === 0) return noToken(NO_TOKEN.updated, failures, causes);
  // An update of something else passes, and no stored entry gets worse: an expired one stays as it is.
  const left = new Map([...entries].map(([host, entry]) => [host, stored.get(host) ?? entry]));
  if (removesEntries) {
    return { action: 'inject', reason, patch: patchFor(request, left, stored, formatTime(now)), warnings };
  }
  if (left.size === stored.size) return keep(request, stored, 'no-token', warnings);
  const patch = patchFor(request, left, stored, updatedAt(request));
  return { action: 'keep', reason: 'no-token', patch, warnings };
}

/** The failure of a registry whose token expires before the stored entry does. */
export const EXPIRES_SOONER = new TokenError(
  'ecr-error',
  'the token that ECR returned expires before the stored one',
);

/** Whether a token replaces an entry: it must not expire sooner, and a cached one must expire later. */
export function isNewer(
  outcome: { token: Token; stale?: TokenError },
  kept: Pick<Entry, 'expiresAt'>,
): boolean {
  // Compared in seconds, as the annotation `registries` stores expiries.
  const seconds = Math.floor(outcome.token.expiresAt / 1000);
  const keptSeconds = Math.floor(kept.expiresAt / 1000);
  return outcome.stale === undefined ? seconds >= keptSeconds : seconds > keptSeconds;
}

function ignore(reason: string): Allowance {
  return { action: 'ignore', reason, patch: [], warnings: [] };
}

function keep(
  request: AdmissionRequest,
  stored: OwnedEntries,
  reason: string,
  warnings: readonly string[],
): Allowance {
  const patch = isUntouched(request, stored) ? [] : patchFor(request, stored, stored, updatedAt(request));
  return { action: 'keep', reason, patch, warnings };
}

function updatedAt({ oldObject }: AdmissionRequest): string | undefined {
  return oldObject && annotation(oldObject, ANNOTATION.updatedAt);
}

function isRefresher({ user }: AdmissionRequest, policy: Omit<Entitlement, 'registries'>): boolean {
  return user.username === policy.refresherUsername || user.groups.includes(REFRESHER_GROUP);
}

/** Whether an UPDATE requests a refresh: its `marked_for_update_at` differs from the stored one. */
function isRequest({ object, oldObject }: Pick<AdmissionRequest, 'object' | 'oldObject'>): boolean {
  const requestedAt = annotation(object, ANNOTATION.requestedAt);
  return (
    oldObject !== undefined &&
    requestedAt !== undefined &&
    requestedAt !== annotation(oldObject, ANNOTATION.requestedAt)
  );
}

/** A request is forced if `force` equals its `marked_for_update_at`; a value from an earlier request has no effect. */
function forced(secret: Secret): { force?: string } {
  const requestedAt = annotation(secret, ANNOTATION.requestedAt);
  return requestedAt !== undefined && annotation(secret, ANNOTATION.force) === requestedAt
    ? { force: requestedAt }
    : {};
}

/** The `force` of the tokens that a request needs; undefined if it is not a forced one. */
export function forceOf(request: AdmissionRequest): string | undefined {
  return !request.oldObject || isRequest(request) ? forced(request.object).force : undefined;
}

/** Whether this request sets the annotation `only`, so that its author sees the denial of a wrong value. */
function changesSelection({ object, oldObject }: AdmissionRequest): boolean {
  const only = annotation(object, ANNOTATION.only);
  return only !== undefined && (!oldObject || only !== annotation(oldObject, ANNOTATION.only));
}

/** Kubernetes' limit for all annotations of an object (apimachinery, TotalAnnotationSizeLimitB). */
const MAX_ANNOTATION = 256 * 1024;

/** As many hosts are named in warnings. */
const MAX_UNEXPECTED_HOSTS = 5;

/**
 * The registries that the namespace is entitled to, or those of them that the annotation `only` names. Takes linear time:
 * users write the annotation.
 *
 * @returns undefined if the annotation is too long
 */
function selectRegistries(
  { object, namespace }: AdmissionRequest,
  { registries }: Entitlement,
): { selected: readonly Registry[]; warnings: string[] } | undefined {
  const only = annotation(object, ANNOTATION.only);
  if (only === undefined) return { selected: registries, warnings: [] };
  if (only.length > MAX_ANNOTATION) return undefined;
  const hosts = new Set(
    only
      .split(',')
      .map((host) => hostOf(host.trim()))
      .filter(Boolean),
  );
  const isEntitled = hostMatcher(registries);
  // A registry whose host is not known may be any of its region. It has no token, so that nothing is written for it.
  const mayBeUnnamed = (registry: Registry, host: string) =>
    registry.host === undefined && mayBeHostOf(registry, host) && !isEntitled(host);
  const unnamed = registries.filter(({ host }) => host === undefined);
  const unexpected = [...hosts].filter(
    (host) => !isEntitled(host) && !unnamed.some((registry) => mayBeUnnamed(registry, host)),
  );
  const message = notEntitledMessage(namespace);
  const warnings = unexpected
    .slice(0, MAX_UNEXPECTED_HOSTS)
    .map((host) => formatWarning({ host: cutOff(host), kind: 'not given', message }));
  const more = unexpected.length - MAX_UNEXPECTED_HOSTS;
  if (more > 0) warnings.push(`${ANNOTATION.only}: ${more} more hosts that the namespace is not entitled to`);
  const selected = registries.filter((registry) =>
    registry.host === undefined
      ? [...hosts].some((host) => mayBeUnnamed(registry, host))
      : hosts.has(registry.host),
  );
  return { selected, warnings };
}

/** A warning for each owned entry whose registry is not selected. */
function removalWarnings(
  { namespace }: AdmissionRequest,
  { registries }: Entitlement,
  selected: readonly Registry[],
  stored: OwnedEntries,
): string[] {
  const isSelected = hostMatcher(selected);
  const isEntitled = hostMatcher(registries);
  const unnamed = new Set(registries.map(({ source }) => unnamedHost(source)));
  return [...stored.keys()]
    .filter((host) => !isSelected(host) && !unnamed.has(host))
    .map((host) => {
      const message = isEntitled(host)
        ? `the annotation ${ANNOTATION.only} does not name it`
        : notEntitledMessage(namespace);
      return formatWarning({ host, kind: 'removed', message });
    });
}

function notEntitledMessage(namespace: string): string {
  return `the namespace ${namespace} is not entitled to it`;
}

/** Makes the function that tells whether a host is one of the registries'. */
function hostMatcher(registries: readonly Registry[]): (host: string) => boolean {
  const known = new Set(registries.map(({ host }) => host));
  return (host) => known.has(host);
}

/** Whether the caller set only request annotations. Other mutators may have changed labels and annotations of their own. */
function changesOnlyRequestAnnotations({ object, raw }: AdmissionRequest, oldObject: Secret): boolean {
  // Without managedFields, server-side apply would no longer know which manager owns which field.
  if (oldObject.metadata.managedFields.length > 0 && object.metadata.managedFields.length === 0) return false;
  const changed = withoutRequest(raw.object);
  const stored = withoutRequest(raw.oldObject);
  if (isDeepStrictEqual(withoutNulls(changed), withoutNulls(stored))) return true;
  if (!isRequest({ object, oldObject }) || !setOnlyRequest(raw.object, raw.oldObject, raw.options))
    return false;
  const { labels = {}, annotations = {} } = stored.metadata;
  const sent = {
    ...changed,
    metadata: {
      ...changed.metadata,
      labels: withoutOthersChanges(changed.metadata.labels ?? {}, labels ?? {}),
      annotations: withoutOthersChanges(changed.metadata.annotations ?? {}, annotations ?? {}),
    },
  };
  return isDeepStrictEqual(withoutNulls(sent), withoutNulls(stored));
}

type Labelled = {
  readonly metadata: { readonly labels?: StringMap | null; readonly annotations?: StringMap | null };
};
type StringMap = Readonly<Record<string, unknown>>;

/** An object without the request annotations, and without the fields that the API server changes on each write. */
function withoutRequest(object: unknown): Labelled {
  const { metadata, data, ...rest } = object as { metadata: Record<string, unknown>; data?: unknown };
  const { annotations, managedFields: _, resourceVersion: __, generation: ___, ...others } = metadata;
  const kept = Object.entries((annotations as Record<string, string> | null | undefined) ?? {}).filter(
    ([key]) => !REQUEST_ANNOTATIONS.includes(key),
  );
  return {
    ...rest,
    data: withEmptyValues(data),
    metadata: { ...others, annotations: Object.fromEntries(kept) },
  } as Labelled;
}

/** A copy without null, which Go marshals for some unset values, and without what has only null in it. */
function withoutNulls(value: unknown): unknown {
  if (value === null || typeof value !== 'object') return value ?? undefined;
  if (Array.isArray(value)) {
    const items = value.map(withoutNulls).filter((item) => item !== undefined);
    return items.length === 0 && value.length > 0 ? undefined : items;
  }
  const all = Object.entries(value).map(([key, member]) => [key, withoutNulls(member)] as const);
  const members = all.filter(([, member]) => member !== undefined);
  return members.length === 0 && all.length > 0 ? undefined : Object.fromEntries(members);
}

/** A key of `data` is there whatever its value is: null is a value without bytes. The refresher must not add one. */
function withEmptyValues(data: unknown): unknown {
  if (typeof data !== 'object' || data === null || Array.isArray(data)) return data;
  return Object.fromEntries(Object.entries(data).map(([key, value]) => [key, value ?? '']));
}

/** Whether the new data is not a docker config, while the stored one has foreign entries or other members. */
function wouldLoseEntries(object: Secret, oldObject: Secret | undefined, policy: Entitlement): boolean {
  if (!oldObject || object.data?.[SECRET_KEY] === oldObject.data?.[SECRET_KEY] || dockerConfig(object))
    return false;
  const old = dockerConfig(oldObject);
  if (!old) return false;
  const owned = ownedEntries(oldObject);
  const isEntitled = hostMatcher(policy.registries);
  const isForeign = (host: string) => !owned?.has(host) && !isEntitled(host);
  return old.hasMore || [...old.auths.keys()].some((key) => isForeign(hostOf(key)));
}

/** @param field the field at fault, if it is a single one */
function deny(
  code: Denial['code'],
  reason: DenialReason,
  message: string,
  field?: string,
  registryCauses: readonly DenialCause[] = [],
): Denial {
  const cause: DenialCause = { reason, ...(field !== undefined && { field }), message };
  return { action: 'deny', reason, code, message, causes: [cause, ...registryCauses] };
}

function refresherOutOfBounds(): Denial {
  const allowed = REQUEST_ANNOTATIONS.join(' and ');
  return deny(
    403,
    'refresher-out-of-bounds',
    `The refresher may change only the annotations ${allowed} of a Secret. If another mutating webhook or policy made the change, exclude the refresher from it.`,
  );
}

function refresherMayNotCreate(provisionSecret: string | undefined): Denial {
  const message =
    provisionSecret === undefined
      ? "The refresher may not create Secrets: the chart's value provision.secretName is empty."
      : `The refresher may create only Secret ${provisionSecret}, by server-side apply, with its type and the label ${SECRET_LABEL.key} alone. If another mutating webhook or policy added more, exclude the refresher from it.`;
  return deny(403, 'refresher-out-of-bounds', message);
}

function wrongType(type: string): Denial {
  const message =
    `A managed Secret must be of type ${SECRET_TYPE}, and this one is of type ${cutOff(type)}. ` +
    `The type of a Secret cannot be changed: create another one, or remove the label ${SECRET_LABEL.key}.`;
  return deny(403, 'wrong-type', message, 'type');
}

function immutable(): Denial {
  const message =
    'The webhook cannot refresh an immutable Secret. ' +
    `Create it again without "immutable: true", or without the label ${SECRET_LABEL.key}.`;
  return deny(403, 'immutable', message, 'immutable');
}

function policyInvalid(): Denial {
  // The problems name other namespaces and roles, so that only the log has them.
  const message =
    "The webhook's registry policy is invalid, so the webhook writes no credentials. " +
    'The line "no policy in use" in the webhook\'s log names every problem. Correct the chart\'s values registries and ownRegistry.';
  return deny(503, 'policy-invalid', message);
}

function notADockerConfig(): Denial {
  const message =
    `The new data["${SECRET_KEY}"] is not a docker config ({"auths": {...}}), ` +
    'and it would replace the stored entries of other registries. Correct it, or leave data out.';
  return deny(422, 'not-a-docker-config', message, CONFIG_FIELD);
}

function notEntitled({ object, namespace }: AdmissionRequest, { registries }: Entitlement): Denial {
  if (registries.length === 0) {
    const message =
      `The namespace ${namespace} is entitled to no registry. ` +
      `Add it to the policy (the chart's values registries and ownRegistry.namespaces), or remove the label ${SECRET_LABEL.key}.`;
    return deny(403, 'not-entitled', message, 'metadata.namespace');
  }
  const hosts = registries.map(({ host, source }) => host ?? unnamedHost(source)).join(', ');
  const message =
    `The annotation ${ANNOTATION.only} is "${cutOff(annotation(object, ANNOTATION.only) ?? '', 500)}". ` +
    `It must name at least one registry that the namespace ${namespace} is entitled to: ${hosts}.`;
  return deny(403, 'not-entitled', message, `metadata.annotations[${ANNOTATION.only}]`);
}

function annotationTooLong(): Denial {
  const message = `The annotation ${ANNOTATION.only} has more than ${MAX_ANNOTATION} characters, which is Kubernetes' limit for all annotations. Name fewer hosts.`;
  return deny(403, 'not-entitled', message, `metadata.annotations[${ANNOTATION.only}]`);
}

function tooLargeAlready(bytes: number): Denial {
  const message = `The Secret has ${bytes} bytes of data; the limit is ${MAX_SECRET_BYTES}. Leave out what it does not need.`;
  return deny(422, 'too-large', message, 'data');
}

function tooLarge(bytes: number, registries: number): Denial {
  const message =
    `With the credentials of ${registries} registries the Secret would have ${bytes} bytes of data; the limit is ${MAX_SECRET_BYTES}. ` +
    `Name fewer registries in the annotation ${ANNOTATION.only}, and use several Secrets if necessary.`;
  return deny(422, 'too-large', message, 'data');
}

/** The message of a denial without tokens, before and after the failures. */
const NO_TOKEN = {
  created: ['The webhook has no ECR credentials for this Secret:', 'Correct the cause and create it again.'],
  updated: ['The webhook has no ECR credentials for this Secret:', 'Correct the cause and try again.'],
  requested: ['The webhook got no new ECR credentials, and the stored ones are unchanged:', ''],
} as const;

function noToken(
  [what, next]: readonly [string, string],
  failures: readonly string[],
  causes: readonly DenialCause[],
): Denial {
  const message = `${what} ${failures.join('; ')}. ${next}`.trim();
  return deny(503, 'no-token', message, CONFIG_FIELD, causes);
}

function causeOf({ reason, principal, message }: TokenError, host: string | undefined): DenialCause {
  return { reason, field: registryField(host), message: principal ?? message };
}
