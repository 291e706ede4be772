// What of a Secret is ours: read from its data and annotations, judged, and written. Pure.
import { formatTime, freshness, parseTime } from '../../contract/freshness.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, WEBHOOK_ANNOTATIONS } from '../../contract/names.ts';
import { formatFingerprint, parseFingerprint } from '../../contract/version.ts';
import { isHostOf, principalOf, type Registry } from '../aws/registries.ts';
import {
  type DockerConfig,
  EMPTY_CONFIG,
  fingerprint,
  hostOf,
  parseDockerConfig,
  withEntries,
} from './docker-config.ts';
import type { AdmissionRequest, PatchOperation, Secret } from './review.ts';

/**
 * A registry of ours in a Secret: its entry's JSON text, and when that expires (milliseconds since the epoch).
 * Without a text it has no credentials: they expired, or never were.
 */
export interface Entry {
  readonly text?: string | undefined;
  readonly expiresAt: number;
  /** Whose token it is, in short: with another role in the policy it has to be replaced. */
  readonly principal: string;
}

/** By registry host. */
export type OwnEntries = ReadonlyMap<string, Entry>;

/** An annotation's value, by its full key. */
export function annotation(secret: Secret, key: string): string | undefined {
  return secret.metadata.annotations?.[key];
}

/** Whether a Secret has the label that makes its credentials ours to keep fresh. */
export function isManaged(secret: Secret): boolean {
  return secret.metadata.labels?.[SECRET_LABEL.key] === SECRET_LABEL.value;
}

/** Our entries in a stored Secret; undefined where what it holds is not what we wrote. */
export function ownEntries(secret: Secret): OwnEntries | undefined {
  const registries = annotation(secret, ANNOTATION.registries);
  const sealed = annotation(secret, ANNOTATION.fingerprint);
  const auths = dockerConfig(secret)?.auths;
  if (!isManaged(secret) || registries === undefined || sealed === undefined || !auths) return undefined;
  const entries = new Map<string, Entry>();
  for (const item of registries === '' ? [] : registries.split(',')) {
    const [host = '', time = '', principal = ''] = item.split('=');
    const expiresAt = parseTime(time);
    if (expiresAt === undefined) return undefined;
    const text = auths.has(host) ? JSON.stringify(auths.get(host)) : undefined;
    entries.set(host, { text, expiresAt, principal });
  }
  // Of whichever contract, if the hash fits: neither an upgrade nor a way back costs credentials.
  return sealOf(entries).hash === parseFingerprint(sealed).hash ? entries : undefined;
}

/** What the annotations say of our entries: each host with expiry and principal, and the hash over all of it. */
function sealOf(entries: OwnEntries): { registries: string; hash: string } {
  const sorted = [...entries].sort(byHost);
  const registries = sorted
    .map(([host, { expiresAt, principal }]) =>
      [host, formatTime(expiresAt), principal].filter(Boolean).join('='),
    )
    .join(',');
  const texts = sorted.map(([, { text }]) => text ?? '');
  return { registries, hash: fingerprint(registries, texts) };
}

function byHost([a]: readonly [string, unknown], [b]: readonly [string, unknown]): number {
  return a < b ? -1 : 1;
}

/** The docker config of a Secret; undefined where what it holds is not one (a placeholder such as FAKE, or a mistake). */
export function dockerConfig(secret: Secret): DockerConfig | undefined {
  if (!documents.has(secret)) {
    const data = secret.data?.[SECRET_KEY];
    documents.set(secret, data ? parseDockerConfig(Buffer.from(data, 'base64').toString()) : EMPTY_CONFIG);
  }
  return documents.get(secret);
}

/** Each is asked for several times in a review, and may be a mebibyte. */
const documents = new WeakMap<Secret, DockerConfig | undefined>();

/** A registry's host and entry among the stored ones. */
export function storedFor(registry: Registry, stored: OwnEntries): readonly [string, Entry] | undefined {
  if (registry.host === undefined) return [...stored].find(([host]) => isHostOf(registry, host));
  const entry = stored.get(registry.host);
  return entry && [registry.host, entry];
}

/** Whether an entry was obtained as whom the policy says. */
export function isOf({ source }: Registry, { principal }: Entry): boolean {
  return principal === principalOf(source);
}

/** Whether the stored entries are those of the wanted registries, as whom the policy says, and no others. */
export function match(wanted: readonly Registry[], stored: OwnEntries): boolean {
  return (
    stored.size === wanted.length &&
    wanted.every((registry) => {
      const [, entry] = storedFor(registry, stored) ?? [];
      return entry !== undefined && isOf(registry, entry);
    })
  );
}

/** Whether an entry opens its registry still: it has not expired, and its expiry can be believed. */
export function isValid({ text, expiresAt }: Entry, now: number): boolean {
  const judged = freshness(formatTime(expiresAt), now);
  return text !== undefined && expiresAt > now && !(judged.due && judged.reason === 'expiry-implausible');
}

/** When the first of the entries expires; undefined where there are none. */
export function soonest(entries: OwnEntries): number | undefined {
  let first: number | undefined;
  for (const { expiresAt } of entries.values()) first = Math.min(first ?? expiresAt, expiresAt);
  return first;
}

/** Whether an update leaves all that is ours as it is, and as it should be. */
export function isUntouched({ object, oldObject }: AdmissionRequest, stored: OwnEntries): boolean {
  const expiresAt = soonest(stored);
  return (
    oldObject !== undefined &&
    annotation(oldObject, ANNOTATION.expiresAt) === (expiresAt && formatTime(expiresAt)) &&
    object.data?.[SECRET_KEY] === oldObject.data?.[SECRET_KEY] &&
    WEBHOOK_ANNOTATIONS.every((key) => annotation(object, key) === annotation(oldObject, key))
  );
}

/** The patch after which the Secret holds these entries of ours, says so, and has kept all that is not ours. */
export function write(
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
    [ANNOTATION.fingerprint]: formatFingerprint(seal.hash),
    ...(updatedAt !== undefined && { [ANNOTATION.updatedAt]: updatedAt }),
  });
  return patch;
}

/** What the API server takes as data of a Secret (Kubernetes API reference, MaxSecretSize). */
export const MAX_SECRET_BYTES = 1024 * 1024;

/** The bytes of data that a Secret would have, as the API server counts them. */
export function sizeAfter({ object }: AdmissionRequest, patch: readonly PatchOperation[]): number {
  const written = patch.find(({ path }) => path === '/data' || path === pointer('/data', SECRET_KEY))?.value;
  const data = typeof written === 'string' ? { [SECRET_KEY]: written } : (written as object | undefined);
  return Object.values({ ...object.data, ...data }).reduce<number>(
    (sum, value) => sum + Buffer.byteLength(String(value), 'base64'),
    0,
  );
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
