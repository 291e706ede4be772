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
import { isHostOf, type Registry } from './registries.ts';
import type { AdmissionRequest, PatchOperation, Secret } from './review.ts';

/** One of our entries: its JSON text, and when it expires (milliseconds since the epoch). */
interface Entry {
  readonly text: string;
  readonly expiresAt: number;
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
}

/** What came of asking for a registry's token. */
export type TokenOutcome =
  | { registry: Registry; token: Token /** Why an older one had to do. */; stale?: string }
  | { registry: Registry; error: string };

export interface Token {
  readonly host: string;
  readonly username: string;
  readonly password: string;
  /** Milliseconds since the epoch, ECR's clock. */
  readonly expiresAt: number;
}

export interface Policy {
  readonly registries: readonly Registry[];
  readonly refresherUsername?: string | undefined;
}

/** The first table: what to do, before any token is asked for. */
export function decide(
  request: AdmissionRequest,
  policy: Policy,
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
  if (!oldObject) return { action: 'obtain', reason: 'created', ...forced(object), stored: new Map() };
  const stored = ownEntries(oldObject);
  const mark = annotation(object, ANNOTATION.requestedAt);
  if (mark !== undefined && mark !== annotation(oldObject, ANNOTATION.requestedAt)) {
    return { action: 'obtain', reason: 'requested', ...forced(object), stored: stored ?? new Map() };
  }
  if (!stored) return { action: 'obtain', reason: 'not-ours', stored: new Map() };
  if (!match(policy.registries, stored)) return { action: 'obtain', reason: 'registries-changed', stored };
  const judged = freshness(annotation(oldObject, ANNOTATION.expiresAt), now);
  if (judged.due) return { action: 'obtain', reason: judged.reason, stored };
  return keep(request, stored, 'fresh');
}

/** The second table: what the tokens that could be had make of the Secret. */
export function settle(
  request: AdmissionRequest,
  injection: Injection,
  outcomes: readonly TokenOutcome[],
  now: number,
): Denial | Allowance {
  const { stored, reason } = injection;
  const entries = new Map<string, Entry>();
  const failures: string[] = [];
  const warnings: string[] = [];
  let fresh = 0;
  let expired = 0;
  for (const outcome of outcomes) {
    const host = 'token' in outcome ? outcome.token.host : hostFor(outcome.registry, stored);
    const old = stored.get(host);
    const kept = old && old.expiresAt > now ? old : undefined;
    if ('token' in outcome && (injection.force !== undefined || !kept || renews(outcome, kept))) {
      const { username, password, expiresAt } = outcome.token;
      entries.set(host, { text: formatEntry(username, password), expiresAt });
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
      expired += 1;
      warnings.push(`${host}: no valid credentials: ${failure}`);
    }
  }

  const why = failures.join('; ');
  if (request.operation === 'CREATE' && expired > 0) {
    return deny(
      503,
      'no-token',
      `No ECR credentials could be had for this Secret: ${why}. Create it again once that is mended.`,
    );
  }
  if (fresh === 0 && failures.length > 0) {
    if (reason === 'requested') {
      return deny(
        503,
        'no-token',
        `No fresh ECR credentials could be had, the stored ones stay as they are: ${why}`,
      );
    }
    // Somebody changed something else: that may go through as long as no pull gets worse by it.
    if (stored.size > 0) return keep(request, stored, 'no-token', warnings);
    return deny(
      503,
      'no-token',
      `No ECR credentials could be had for this Secret: ${why}. Try again once that is mended.`,
    );
  }
  return { action: 'inject', reason, patch: write(request, entries, stored, formatTime(now)), warnings };
}

/** A token takes an entry's place unless it expires sooner, or is an older one that brings nothing new. */
function renews(outcome: { token: Token; stale?: string }, kept: Entry): boolean {
  return outcome.stale === undefined
    ? outcome.token.expiresAt >= kept.expiresAt
    : outcome.token.expiresAt > kept.expiresAt;
}

function hostFor(registry: Registry, stored: OwnEntries): string {
  return (
    registry.host ??
    [...stored.keys()].find((host) => isHostOf(registry, host)) ??
    `ECR in ${registry.region}`
  );
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

function isRefresher({ user }: AdmissionRequest, policy: Policy): boolean {
  return user.username === policy.refresherUsername || user.groups.includes(REFRESHER_GROUP);
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
function loses(object: Secret, oldObject: Secret | undefined, policy: Policy): boolean {
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
  if (!isManaged(secret) || !registries || !auths) return undefined;
  const entries = new Map<string, Entry>();
  for (const item of registries.split(',')) {
    const [host = '', time = ''] = item.split('=');
    const expiresAt = parseTime(time);
    if (!auths.has(host) || expiresAt === undefined) return undefined;
    entries.set(host, { text: JSON.stringify(auths.get(host)), expiresAt });
  }
  return sealOf(entries).fingerprint === annotation(secret, ANNOTATION.fingerprint) ? entries : undefined;
}

/** What the annotations say of our entries: each host with its expiry, and the hash over all of it. */
function sealOf(entries: OwnEntries): { registries: string; fingerprint: string } {
  const sorted = [...entries].sort(byHost);
  const registries = sorted.map(([host, { expiresAt }]) => `${host}=${formatTime(expiresAt)}`).join(',');
  const texts = sorted.map(([, { text }]) => text);
  return { registries, fingerprint: fingerprint(registries, texts) };
}

function byHost([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

function match(registries: readonly Registry[], stored: OwnEntries): boolean {
  const hosts = [...stored.keys()];
  return (
    hosts.length === registries.length &&
    registries.every((registry) => hosts.some((host) => isHostOf(registry, host)))
  );
}

function keep(
  request: AdmissionRequest,
  stored: OwnEntries,
  reason: string,
  warnings: readonly string[] = [],
): Allowance {
  // Most updates touch nothing of ours: then there is nothing to restore.
  if (isUntouched(request)) return { action: 'keep', reason, patch: [], warnings };
  const updatedAt = request.oldObject && annotation(request.oldObject, ANNOTATION.updatedAt);
  return { action: 'keep', reason, patch: write(request, stored, stored, updatedAt), warnings };
}

function isUntouched({ object, oldObject }: AdmissionRequest): boolean {
  return (
    oldObject !== undefined &&
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
  const hasAll = sent && [...entries.keys()].every((host) => sent.auths.has(host));
  const patch: PatchOperation[] = [];
  if (!hasAll || ![...sent.auths.keys()].every(isAsItShouldBe)) {
    const own = [...entries].sort(byHost).map(([host, { text }]) => [host, text] as const);
    const text = withEntries(sent ?? EMPTY_CONFIG, isKept, new Map(own));
    set(patch, '/data', object.data, { [SECRET_KEY]: Buffer.from(text).toString('base64') });
  }
  const soonest = Math.min(...[...entries.values()].map(({ expiresAt }) => expiresAt));
  const seal = sealOf(entries);
  set(patch, '/metadata/annotations', object.metadata.annotations, {
    [ANNOTATION.expiresAt]: formatTime(soonest),
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
    patch.push({ op: 'add', path: `${path}/${key.replaceAll('~', '~0').replaceAll('/', '~1')}`, value });
  }
}
