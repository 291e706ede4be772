// What happens to a Secret: the decision tables of docs/design.md. Pure: data in, data out, `now` an argument.
// First `decide`, which asks for no token; then, where it says inject, `settle` with the tokens that could be had.

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
import { isHostOf, principalOf, type Registry } from '../aws/registries.ts';
import { TokenError } from '../aws/token-error.ts';
import { formatEntry, hostOf } from './docker-config.ts';
import {
  annotation,
  dockerConfig,
  type Entry,
  isManaged,
  isOf,
  isUntouched,
  isValid,
  MAX_SECRET_BYTES,
  match,
  type OwnEntries,
  ownEntries,
  sizeAfter,
  soonest,
  storedFor,
  write,
} from './owned-entries.ts';
import type { AdmissionRequest, PatchOperation, Secret } from './review.ts';

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
  warnings: readonly string[];
}
/** Tokens are needed; `settle` answers. */
export interface Injection {
  action: 'obtain';
  reason: 'created' | 'requested' | 'not-ours' | 'registries-changed' | DueReason;
  /** Set where a token from the cache will not do: what the request calls itself. */
  force?: string;
  /** Our entries in the stored Secret. */
  stored: OwnEntries;
  /** The registries whose entries the Secret shall have. */
  wanted: readonly Registry[];
  /** Those of them for which a token is to be asked. */
  registries: readonly Registry[];
  warnings: readonly string[];
}

/** What the policy says of the Secret's namespace. */
export interface Entitlement {
  readonly registries: readonly Registry[];
  readonly refresherUsername?: string | undefined;
}

/** The first table: what to do, before any token is asked for. */
export function decide(
  request: AdmissionRequest,
  policy: Entitlement,
  now: number,
): Denial | Allowance | Injection {
  const { object, oldObject } = request;
  if (EXCLUDED_NAMESPACES.includes(request.namespace)) return ignore('excluded-namespace');
  if (isRefresher(request, policy) && !changesOnlyTheRequest(request)) {
    return deny(
      403,
      'refresher-out-of-bounds',
      `The refresher may change nothing of a Secret but ${REQUEST_ANNOTATIONS.join(' and ')}.`,
    );
  }
  if (!isManaged(object)) return ignore('not-managed');
  if (object.metadata.deletionTimestamp) return ignore('being-deleted');
  if (object.type !== SECRET_TYPE) {
    return deny(
      403,
      'wrong-type',
      `A managed Secret must be of type ${SECRET_TYPE}, this one is ${object.type}. Create one of that type (a Secret's type cannot be changed), or remove the label ${SECRET_LABEL.key}.`,
      'type',
    );
  }
  if (object.immutable || oldObject?.immutable) {
    return deny(
      403,
      'immutable',
      `An immutable Secret cannot be kept fresh. Create it again without "immutable: true", or without the label ${SECRET_LABEL.key}.`,
      'immutable',
    );
  }
  if (loses(object, oldObject, policy)) {
    return deny(
      422,
      'not-a-docker-config',
      `data["${SECRET_KEY}"] is not a docker config ({"auths": {...}}), and taking it would lose the stored entries of other registries. Correct it, or leave data out.`,
      CONFIG_FIELD,
    );
  }
  const { wanted, warnings } = narrowed(request, policy);
  const stored = oldObject && ownEntries(oldObject);
  const matches = stored !== undefined && match(wanted, stored);
  if (stored && !matches) warnings.push(...removals(request, policy, wanted, stored));
  const obtain = (reason: Injection['reason'], registries = wanted): Injection => ({
    action: 'obtain',
    reason,
    // An older token will do wherever nobody has asked for a newer one.
    ...(reason === 'created' || reason === 'requested' ? forced(object) : {}),
    stored: stored ?? new Map(),
    wanted,
    registries,
    warnings,
  });
  // What the Secret loses with the entitlement it loses now; nobody begins without one.
  if (wanted.length === 0 && (!stored?.size || (policy.registries.length > 0 && setsOnly(request)))) {
    if (stored?.size === 0 && !isRequest(request)) return keep(request, stored, 'not-entitled', warnings);
    return notEntitled(request, policy);
  }
  if (!oldObject) return obtain('created');
  if (isRequest(request)) return obtain('requested');
  if (!stored) return obtain('not-ours');
  const due = wanted.filter((registry) => {
    const [, entry] = storedFor(registry, stored) ?? [];
    return !entry || !isOf(registry, entry) || freshness(formatTime(entry.expiresAt), now).due;
  });
  if (!matches) return obtain('registries-changed', due);
  // By what the entries themselves say: the annotation is what the refresher reads, and no seal is on it.
  const expiresAt = soonest(stored);
  const judged = freshness(expiresAt === undefined ? undefined : formatTime(expiresAt), now);
  if (wanted.length > 0 && judged.due) return obtain(judged.reason, due);
  return keep(request, stored, 'fresh', warnings);
}

/** The second table: what the tokens that could be had make of the Secret. */
export function settle(
  request: AdmissionRequest,
  injection: Injection,
  outcomes: readonly TokenOutcome[],
  now: number,
): Denial | Allowance {
  const { stored, reason } = injection;
  const outcomeOf = new Map(outcomes.map((outcome) => [outcome.registry, outcome]));
  const entries = new Map<string, Entry>();
  const failures: string[] = [];
  const causes: DenialCause[] = [];
  const warnings = [...injection.warnings];
  let fresh = 0;
  let without = 0;
  for (const registry of injection.wanted) {
    const outcome = outcomeOf.get(registry);
    const token = outcome && 'token' in outcome ? outcome.token : undefined;
    const [storedHost, storedEntry] = storedFor(registry, stored) ?? [];
    const knownHost = registry.host ?? token?.host ?? storedHost;
    const host = knownHost ?? `ECR in ${registry.source.region}`;
    const old = host === storedHost ? storedEntry : undefined;
    if (!outcome) {
      if (old) entries.set(host, old);
      continue;
    }
    const kept = old && isValid(old, now) ? old : undefined;
    const takesAny = injection.force !== undefined || !kept || !isOf(registry, kept);
    if ('token' in outcome && (takesAny || renews(outcome, kept))) {
      const { username, password, expiresAt } = outcome.token;
      const principal = principalOf(registry.source);
      entries.set(host, { text: formatEntry(username, password), expiresAt, principal });
      fresh += 1;
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
      // Noted as expired, so that the Secret stays due until it has all that it should have.
      const expiresAt = Math.min(old?.expiresAt ?? now, now);
      entries.set(host, { expiresAt, principal: principalOf(registry.source) });
      without += 1;
      const { reason, message } = failure;
      warnings.push(formatWarning({ host, kind: 'no credentials', reason, message }));
    }
  }

  const why = failures.join('; ');
  const removes = [...stored.keys()].some((host) => !entries.has(host));
  if (request.operation === 'CREATE' && without > 0) {
    return deny(
      503,
      'no-token',
      `No ECR credentials could be had for this Secret: ${why}. Create it again once that is mended.`,
      CONFIG_FIELD,
      causes,
    );
  }
  if (fresh > 0 || failures.length === 0) {
    const patch = write(request, entries, stored, formatTime(now));
    const bytes = sizeAfter(request, patch);
    if (bytes > MAX_SECRET_BYTES) return deny(422, 'too-large', tooLarge(bytes, entries.size), 'data');
    return { action: 'inject', reason, patch, warnings };
  }
  if (reason === 'requested' && !removes) {
    return deny(
      503,
      'no-token',
      `No fresh ECR credentials could be had, the stored ones stay as they are: ${why}`,
      CONFIG_FIELD,
      causes,
    );
  }
  if (stored.size === 0) {
    return deny(
      503,
      'no-token',
      `No ECR credentials could be had for this Secret: ${why}. Try again once that is mended.`,
      CONFIG_FIELD,
      causes,
    );
  }
  // Somebody changed something else: that may go through as long as no pull gets worse by it.
  const left = new Map([...entries].map(([host, entry]) => [host, stored.get(host) ?? entry]));
  if (removes)
    return { action: 'inject', reason, patch: write(request, left, stored, formatTime(now)), warnings };
  if (left.size === stored.size) return keep(request, stored, 'no-token', warnings);
  const patch = write(request, left, stored, writtenAt(request));
  return { action: 'keep', reason: 'no-token', patch, warnings };
}

/** A registry's failure where ECR did give a token. */
export const EXPIRES_SOONER = new TokenError(
  'ecr-error',
  'ECR gave a token that expires sooner than the stored one',
);

function causeOf({ reason, principal, message }: TokenError, host: string | undefined): DenialCause {
  return { reason, field: registryField(host), message: principal ?? message };
}

function tooLarge(bytes: number, registries: number): string {
  return `With the credentials of ${registries} registries the Secret would have ${bytes} bytes of data, and the API server takes ${MAX_SECRET_BYTES}. Name those that are needed in the annotation ${ANNOTATION.only}, in several Secrets if it must be.`;
}

/** A token takes an entry's place unless it expires sooner, or is an older one that brings nothing new. */
function renews(outcome: { token: Token; stale?: TokenError }, kept: Entry): boolean {
  // In seconds, as an entry's expiry is written.
  const seconds = Math.floor(outcome.token.expiresAt / 1000);
  const stored = Math.floor(kept.expiresAt / 1000);
  return outcome.stale === undefined ? seconds >= stored : seconds > stored;
}

function ignore(reason: string): Allowance {
  return { action: 'ignore', reason, patch: [], warnings: [] };
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

function isRefresher({ user }: AdmissionRequest, policy: Entitlement): boolean {
  return user.username === policy.refresherUsername || user.groups.includes(REFRESHER_GROUP);
}

/** An UPDATE with a new mark. */
function isRequest({ object, oldObject }: AdmissionRequest): boolean {
  const mark = annotation(object, ANNOTATION.requestedAt);
  return (
    oldObject !== undefined && mark !== undefined && mark !== annotation(oldObject, ANNOTATION.requestedAt)
  );
}

/** Whether the choice of registries is made here and now, by somebody who can be told that it is wrong. */
function setsOnly({ object, oldObject }: AdmissionRequest): boolean {
  const only = annotation(object, ANNOTATION.only);
  return only !== undefined && (!oldObject || only !== annotation(oldObject, ANNOTATION.only));
}

/** The registries that the Secret shall have: those of its namespace, or as many of them as it names itself. */
function narrowed(
  { object, namespace }: AdmissionRequest,
  { registries }: Entitlement,
): { wanted: readonly Registry[]; warnings: string[] } {
  const only = annotation(object, ANNOTATION.only);
  if (only === undefined) return { wanted: registries, warnings: [] };
  const hosts = new Set(
    only
      .split(',')
      .map((host) => hostOf(host.trim()))
      .filter(Boolean),
  );
  const strangers = [...hosts].filter((host) => !registries.some((registry) => isHostOf(registry, host)));
  const warnings = strangers
    .slice(0, STRANGERS_NAMED)
    .map((host) =>
      formatWarning({ host, kind: 'not given', message: `the namespace ${namespace} is not entitled to it` }),
    );
  const more = strangers.length - STRANGERS_NAMED;
  if (more > 0) warnings.push(`${ANNOTATION.only}: ${more} more that are not given`);
  return {
    wanted: registries.filter((registry) => [...hosts].some((host) => isHostOf(registry, host))),
    warnings,
  };
}

/** What is ours in the stored Secret and shall not be any more, as warnings. */
function removals(
  { namespace }: AdmissionRequest,
  { registries }: Entitlement,
  wanted: readonly Registry[],
  stored: OwnEntries,
): string[] {
  const isOneOf = (those: readonly Registry[], host: string) =>
    those.some((registry) => isHostOf(registry, host));
  return [...stored.keys()]
    .filter((host) => !isOneOf(wanted, host))
    .map((host) =>
      formatWarning({
        host,
        kind: 'removed',
        message: isOneOf(registries, host)
          ? `the annotation ${ANNOTATION.only} leaves it out`
          : `the namespace ${namespace} is not entitled to it`,
      }),
    );
}

/** So many of them are named in warnings. */
const STRANGERS_NAMED = 5;

function notEntitled({ object, namespace }: AdmissionRequest, { registries }: Entitlement): Denial {
  if (registries.length === 0) {
    return deny(
      403,
      'not-entitled',
      `The namespace ${namespace} is entitled to no registry: have it added to the policy (the chart's value registries), or remove the label ${SECRET_LABEL.key}.`,
      'metadata.namespace',
    );
  }
  const hosts = registries.map(({ host, source }) => host ?? `ECR in ${source.region}`).join(', ');
  return deny(
    403,
    'not-entitled',
    `${ANNOTATION.only}: ${annotation(object, ANNOTATION.only)} names none of the registries that the namespace ${namespace} is entitled to: ${hosts}.`,
    `metadata.annotations[${ANNOTATION.only}]`,
  );
}

/** A request is forced where `force` repeats its mark: one left over from an earlier request means nothing. */
function forced(secret: Secret): { force?: string } {
  const mark = annotation(secret, ANNOTATION.requestedAt);
  return mark !== undefined && annotation(secret, ANNOTATION.force) === mark ? { force: mark } : {};
}

function changesOnlyTheRequest({ object, oldObject, raw }: AdmissionRequest): boolean {
  if (!oldObject) return false;
  // An emptied managedFields would hide from server-side apply who owns what.
  if (oldObject.metadata.managedFields?.length && !object.metadata.managedFields?.length) return false;
  return isDeepStrictEqual(withoutRequest(raw.object), withoutRequest(raw.oldObject));
}

/** An object without what a request sets, and without what the API server itself counts up on each write. */
function withoutRequest(object: unknown): unknown {
  const { metadata, ...rest } = object as { metadata: Record<string, unknown> };
  const { annotations, managedFields: _, resourceVersion: __, generation: ___, ...others } = metadata;
  const kept = Object.entries((annotations as Record<string, string> | null | undefined) ?? {}).filter(
    ([key]) => !REQUEST_ANNOTATIONS.includes(key),
  );
  return { ...rest, metadata: { ...others, annotations: Object.fromEntries(kept) } };
}

/** Whether taking the new data would drop another registry's entries by mistake. */
function loses(object: Secret, oldObject: Secret | undefined, policy: Entitlement): boolean {
  if (!oldObject || object.data?.[SECRET_KEY] === oldObject.data?.[SECRET_KEY] || dockerConfig(object))
    return false;
  const old = dockerConfig(oldObject);
  if (!old) return false;
  const ours = ownEntries(oldObject);
  const isForeign = (host: string) =>
    !ours?.has(host) && !policy.registries.some((registry) => isHostOf(registry, host));
  return old.hasMore || [...old.auths.keys()].some((key) => isForeign(hostOf(key)));
}

function keep(
  request: AdmissionRequest,
  stored: OwnEntries,
  reason: string,
  warnings: readonly string[],
): Allowance {
  // Most updates touch nothing of ours: then there is nothing to restore.
  const patch = isUntouched(request, stored) ? [] : write(request, stored, stored, writtenAt(request));
  return { action: 'keep', reason, patch, warnings };
}

function writtenAt({ oldObject }: AdmissionRequest): string | undefined {
  return oldObject && annotation(oldObject, ANNOTATION.updatedAt);
}
