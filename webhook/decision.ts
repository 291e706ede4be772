// What happens to a Secret: the decision tables of docs/design.md. Pure: data in, data out, `now` an argument.
// First `decide`, which asks for no token; then, where it says inject, `settle` with the tokens that could be had.
import { isDeepStrictEqual } from 'node:util';
import { type DueReason, formatTime, freshness, parseTime } from '../contract/freshness.ts';
import {
  ANNOTATION,
  EXCLUDED_NAMESPACES,
  REFRESHER_GROUP,
  REQUEST_ANNOTATIONS,
  SECRET_KEY,
  SECRET_LABEL,
  SECRET_TYPE,
  WEBHOOK_ANNOTATIONS,
} from '../contract/names.ts';
import {
  type DockerConfig,
  EMPTY_CONFIG,
  fingerprint,
  formatEntry,
  hostOf,
  parseDockerConfig,
  withEntries,
} from './docker-config.ts';
import { isHostOf, principalOf, type Registry } from './registries.ts';
import type { AdmissionRequest, PatchOperation, Secret } from './review.ts';

/**
 * A registry of ours in a Secret: its entry's JSON text, and when that expires (milliseconds since the epoch).
 * Without a text it has no credentials: they expired, or never were.
 */
interface Entry {
  readonly text?: string | undefined;
  readonly expiresAt: number;
  /** Whose token it is, in short: with another role in the policy it has to be replaced. */
  readonly principal: string;
}
type OwnEntries = ReadonlyMap<string, Entry>;

export interface Denial {
  action: 'deny';
  reason: string;
  code: 403 | 422 | 503;
  message: string;
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

/** What came of asking for a registry's token. */
export type TokenOutcome =
  | { registry: Registry; token: Token /** Why an older one had to do. */; stale?: string }
  | { registry: Registry; error: string };

export interface Token {
  /** The registry of the account that was asked; ECR Public names none. */
  readonly host?: string;
  readonly username: string;
  readonly password: string;
  /** Milliseconds since the epoch, ECR's clock. */
  readonly expiresAt: number;
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
    );
  }
  if (object.immutable || oldObject?.immutable) {
    return deny(
      403,
      'immutable',
      `An immutable Secret cannot be kept fresh. Create it again without "immutable: true", or without the label ${SECRET_LABEL.key}.`,
    );
  }
  if (loses(object, oldObject, policy)) {
    return deny(
      422,
      'not-a-docker-config',
      `data["${SECRET_KEY}"] is not a docker config ({"auths": {...}}), and taking it would lose the stored entries of other registries. Correct it, or leave data out.`,
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
    return deny(403, 'not-entitled', notEntitled(request, policy));
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
  const warnings = [...injection.warnings];
  let fresh = 0;
  let without = 0;
  for (const registry of injection.wanted) {
    const outcome = outcomeOf.get(registry);
    const token = outcome && 'token' in outcome ? outcome.token : undefined;
    const [storedHost, storedEntry] = storedFor(registry, stored) ?? [];
    const host = registry.host ?? token?.host ?? storedHost ?? `ECR in ${registry.source.region}`;
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
      if (outcome.stale !== undefined) warnings.push(`${host}: an earlier token is used: ${outcome.stale}`);
      continue;
    }
    const failure =
      'error' in outcome ? outcome.error : (outcome.stale ?? 'ECR gave a token that expires sooner');
    failures.push(`${host}: ${failure}`);
    if (kept) {
      entries.set(host, kept);
      warnings.push(`${host}: kept the credentials that expire at ${formatTime(kept.expiresAt)}: ${failure}`);
    } else {
      // Noted as expired, so that the Secret stays due until it has all that it should have.
      const expiresAt = Math.min(old?.expiresAt ?? now, now);
      entries.set(host, { expiresAt, principal: principalOf(registry.source) });
      without += 1;
      warnings.push(`${host}: no valid credentials: ${failure}`);
    }
  }

  const why = failures.join('; ');
  const removes = [...stored.keys()].some((host) => !entries.has(host));
  if (request.operation === 'CREATE' && without > 0) {
    return deny(
      503,
      'no-token',
      `No ECR credentials could be had for this Secret: ${why}. Create it again once that is mended.`,
    );
  }
  if (fresh > 0 || failures.length === 0) {
    const patch = write(request, entries, stored, formatTime(now));
    const bytes = sizeAfter(request, patch);
    if (bytes > MAX_SECRET_BYTES) return deny(422, 'too-large', tooLarge(bytes, entries.size));
    return { action: 'inject', reason, patch, warnings };
  }
  if (reason === 'requested' && !removes) {
    return deny(
      503,
      'no-token',
      `No fresh ECR credentials could be had, the stored ones stay as they are: ${why}`,
    );
  }
  if (stored.size === 0) {
    return deny(
      503,
      'no-token',
      `No ECR credentials could be had for this Secret: ${why}. Try again once that is mended.`,
    );
  }
  // Somebody changed something else: that may go through as long as no pull gets worse by it.
  const left = new Map([...entries].map(([host, entry]) => [host, stored.get(host) ?? entry]));
  return removes
    ? { action: 'inject', reason, patch: write(request, left, stored, formatTime(now)), warnings }
    : {
        action: 'keep',
        reason: 'no-token',
        patch: write(request, left, stored, writtenAt(request)),
        warnings,
      };
}

/** What the API server takes as data of a Secret (Kubernetes API reference, MaxSecretSize). */
const MAX_SECRET_BYTES = 1024 * 1024;

/** The bytes of data that a Secret would have, as the API server counts them. */
function sizeAfter({ object }: AdmissionRequest, patch: readonly PatchOperation[]): number {
  const written = patch.find(({ path }) => path === '/data' || path === pointer('/data', SECRET_KEY))?.value;
  const data = typeof written === 'string' ? { [SECRET_KEY]: written } : (written as object | undefined);
  return Object.values({ ...object.data, ...data }).reduce<number>(
    (sum, value) => sum + Buffer.byteLength(String(value), 'base64'),
    0,
  );
}

function tooLarge(bytes: number, registries: number): string {
  return `With the credentials of ${registries} registries the Secret would have ${bytes} bytes of data, and the API server takes ${MAX_SECRET_BYTES}. Name those that are needed in the annotation ${ANNOTATION.only}, in several Secrets if it must be.`;
}

/** Whether an entry opens its registry still: it has not expired, and its expiry can be believed. */
function isValid({ text, expiresAt }: Entry, now: number): boolean {
  const judged = freshness(formatTime(expiresAt), now);
  return text !== undefined && expiresAt > now && !(judged.due && judged.reason === 'expiry-implausible');
}

/** A token takes an entry's place unless it expires sooner, or is an older one that brings nothing new. */
function renews(outcome: { token: Token; stale?: string }, kept: Entry): boolean {
  return outcome.stale === undefined
    ? outcome.token.expiresAt >= kept.expiresAt
    : outcome.token.expiresAt > kept.expiresAt;
}

/** A registry's host and entry among the stored ones. */
function storedFor(registry: Registry, stored: OwnEntries): readonly [string, Entry] | undefined {
  if (registry.host === undefined) return [...stored].find(([host]) => isHostOf(registry, host));
  const entry = stored.get(registry.host);
  return entry && [registry.host, entry];
}

/** Whether an entry was obtained as whom the policy says. */
function isOf({ source }: Registry, { principal }: Entry): boolean {
  return principal === principalOf(source);
}

/** When the first of the entries expires; undefined where there are none. */
function soonest(entries: OwnEntries): number | undefined {
  let first: number | undefined;
  for (const { expiresAt } of entries.values()) first = Math.min(first ?? expiresAt, expiresAt);
  return first;
}

function ignore(reason: string): Allowance {
  return { action: 'ignore', reason, patch: [], warnings: [] };
}

function deny(code: Denial['code'], reason: string, message: string): Denial {
  return { action: 'deny', reason, code, message };
}

function annotation(secret: Secret, key: string): string | undefined {
  return secret.metadata.annotations?.[key];
}

function isManaged(secret: Secret): boolean {
  return secret.metadata.labels?.[SECRET_LABEL.key] === SECRET_LABEL.value;
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
    .map((host) => `${host}: not given: the namespace ${namespace} is not entitled to it`);
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
      isOneOf(registries, host)
        ? `${host}: removed: the annotation ${ANNOTATION.only} leaves it out`
        : `${host}: removed: the namespace ${namespace} is not entitled to it`,
    );
}

/** So many of them are named in warnings. */
const STRANGERS_NAMED = 5;

function notEntitled({ object, namespace }: AdmissionRequest, { registries }: Entitlement): string {
  if (registries.length === 0) {
    return `The namespace ${namespace} is entitled to no registry: have it added to the policy (the chart's value registries), or remove the label ${SECRET_LABEL.key}.`;
  }
  const hosts = registries.map(({ host, source }) => host ?? `ECR in ${source.region}`).join(', ');
  return `${ANNOTATION.only}: ${annotation(object, ANNOTATION.only)} names none of the registries that the namespace ${namespace} is entitled to: ${hosts}.`;
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

/** The docker config of a Secret; undefined where what it holds is not one (a placeholder such as FAKE, or a mistake). */
function dockerConfig(secret: Secret): DockerConfig | undefined {
  if (!documents.has(secret)) {
    const data = secret.data?.[SECRET_KEY];
    documents.set(secret, data ? parseDockerConfig(Buffer.from(data, 'base64').toString()) : EMPTY_CONFIG);
  }
  return documents.get(secret);
}

/** Each is asked for several times in a review, and may be a mebibyte. */
const documents = new WeakMap<Secret, DockerConfig | undefined>();

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

/** Our entries in a stored Secret; undefined where what it holds is not what we wrote. */
function ownEntries(secret: Secret): OwnEntries | undefined {
  const registries = annotation(secret, ANNOTATION.registries);
  const auths = dockerConfig(secret)?.auths;
  if (!isManaged(secret) || registries === undefined || !auths) return undefined;
  const entries = new Map<string, Entry>();
  for (const item of registries === '' ? [] : registries.split(',')) {
    const [host = '', time = '', principal = ''] = item.split('=');
    const expiresAt = parseTime(time);
    if (expiresAt === undefined) return undefined;
    const text = auths.has(host) ? JSON.stringify(auths.get(host)) : undefined;
    entries.set(host, { text, expiresAt, principal });
  }
  return sealOf(entries).fingerprint === annotation(secret, ANNOTATION.fingerprint) ? entries : undefined;
}

/** What the annotations say of our entries: each host with expiry and principal, and the hash over all of it. */
function sealOf(entries: OwnEntries): { registries: string; fingerprint: string } {
  const sorted = [...entries].sort(byHost);
  const registries = sorted
    .map(([host, { expiresAt, principal }]) =>
      [host, formatTime(expiresAt), principal].filter(Boolean).join('='),
    )
    .join(',');
  const texts = sorted.map(([, { text }]) => text ?? '');
  return { registries, fingerprint: fingerprint(registries, texts) };
}

function byHost([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

function match(wanted: readonly Registry[], stored: OwnEntries): boolean {
  return (
    stored.size === wanted.length &&
    wanted.every((registry) => {
      const [, entry] = storedFor(registry, stored) ?? [];
      return entry !== undefined && isOf(registry, entry);
    })
  );
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

function isUntouched({ object, oldObject }: AdmissionRequest, stored: OwnEntries): boolean {
  const expiresAt = soonest(stored);
  return (
    oldObject !== undefined &&
    annotation(oldObject, ANNOTATION.expiresAt) === (expiresAt && formatTime(expiresAt)) &&
    object.data?.[SECRET_KEY] === oldObject.data?.[SECRET_KEY] &&
    WEBHOOK_ANNOTATIONS.every((key) => annotation(object, key) === annotation(oldObject, key))
  );
}

/** The patch after which the Secret holds these entries of ours, says so, and has kept all that is not ours. */
function write(
  { object }: AdmissionRequest,
  entries: OwnEntries,
  stored: OwnEntries,
  updatedAt: string | undefined,
): PatchOperation[] {
  const sent = dockerConfig(object);
  const isKept = (key: string) => {
    const host = hostOf(key);
    const wasOurs = stored.get(host)?.text === JSON.stringify(sent?.auths.get(key));
    return !entries.has(host) && !wasOurs;
  };
  const isAsItShouldBe = (key: string) =>
    entries.has(key) ? entries.get(key)?.text === JSON.stringify(sent?.auths.get(key)) : isKept(key);
  const own = [...entries]
    .sort(byHost)
    .flatMap(([host, { text }]) => (text === undefined ? [] : [[host, text] as const]));
  const hasAll = sent && own.every(([host]) => sent.auths.has(host));
  const patch: PatchOperation[] = [];
  if (!hasAll || ![...sent.auths.keys()].every(isAsItShouldBe)) {
    const text = withEntries(sent ?? EMPTY_CONFIG, isKept, new Map(own));
    set(patch, '/data', object.data, { [SECRET_KEY]: Buffer.from(text).toString('base64') });
  }
  const expiresAt = soonest(entries);
  const seal = sealOf(entries);
  if (expiresAt === undefined && annotation(object, ANNOTATION.expiresAt) !== undefined)
    patch.push({ op: 'remove', path: pointer('/metadata/annotations', ANNOTATION.expiresAt) });
  set(patch, '/metadata/annotations', object.metadata.annotations, {
    ...(expiresAt !== undefined && { [ANNOTATION.expiresAt]: formatTime(expiresAt) }),
    [ANNOTATION.registries]: seal.registries,
    [ANNOTATION.fingerprint]: seal.fingerprint,
    ...(updatedAt !== undefined && { [ANNOTATION.updatedAt]: updatedAt }),
  });
  return patch;
}

/** Adds the operations that set members of a map which may not be there yet (RFC 6902; escapes of RFC 6901). */
function set(
  patch: PatchOperation[],
  path: string,
  map: Readonly<Record<string, string>> | null | undefined,
  values: Readonly<Record<string, string>>,
): void {
  if (!map) {
    patch.push({ op: 'add', path, value: values });
    return;
  }
  for (const [key, value] of Object.entries(values)) {
    if (map[key] === value) continue;
    patch.push({ op: 'add', path: pointer(path, key), value });
  }
}

function pointer(path: string, key: string): string {
  return `${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}
