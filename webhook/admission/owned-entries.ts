// The owned entries of a Secret, which the webhook wrote: read, judged, and written as a patch. Pure.
import { formatTime, freshness, parseTime } from '../../contract/freshness.ts';
import { ANNOTATION, SECRET_KEY, SECRET_LABEL, WEBHOOK_ANNOTATIONS } from '../../contract/names.ts';
import { formatFingerprint, parseFingerprint } from '../../contract/version.ts';
import { principalOf, type Registry, unnamedHost } from '../aws/registries.ts';
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
 * An owned entry. `text` is its JSON; `expiresAt` is in milliseconds since the epoch.
 * Without a text it has no credentials: they expired, or there never were any.
 */
export interface Entry {
  readonly text?: string | undefined;
  readonly expiresAt: number;
  /** Of `principalOf`. If the policy names another role now, the entry must be replaced. */
  readonly principal: string;
}

/** As many owned entries are read. A Secret has room for the credentials of some two hundred. */
const MAX_ENTRIES = 1_000;

/** By registry host. */
export type OwnedEntries = ReadonlyMap<string, Entry>;

/** An annotation's value, by its full key. */
export function annotation(secret: Secret, key: string): string | undefined {
  return secret.metadata.annotations?.[key];
}

/** Whether a Secret has the label of managed Secrets. */
export function isManaged(secret: Secret): boolean {
  return secret.metadata.labels?.[SECRET_LABEL.key] === SECRET_LABEL.value;
}

/** The owned entries of a stored Secret; undefined if its content is not what the webhook wrote. */
export function ownedEntries(secret: Secret): OwnedEntries | undefined {
  const registries = annotation(secret, ANNOTATION.registries);
  const stored = annotation(secret, ANNOTATION.fingerprint);
  const auths = dockerConfig(secret)?.auths;
  if (!isManaged(secret) || registries === undefined || stored === undefined || !auths) return undefined;
  const entries = new Map<string, Entry>();
  const items = registries === '' ? [] : registries.split(',', MAX_ENTRIES + 1);
  if (items.length > MAX_ENTRIES) return undefined;
  for (const item of items) {
    const [host = '', time = '', principal = ''] = item.split('=');
    const expiresAt = parseTime(time);
    if (expiresAt === undefined) return undefined;
    const text = auths.has(host) ? JSON.stringify(auths.get(host)) : undefined;
    entries.set(host, { text, expiresAt, principal });
  }
  // The contract version does not matter: after an upgrade or a downgrade, entries with the right hash are still owned.
  return fingerprinted(entries).hash === parseFingerprint(stored).hash ? entries : undefined;
}

/** The annotation `registries` for these entries, and the hash over it and over the entries. */
function fingerprinted(entries: OwnedEntries): { registries: string; hash: string } {
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

/** The docker config of a Secret; undefined if its data is not one (a placeholder such as FAKE, or an error). */
export function dockerConfig(secret: Secret): DockerConfig | undefined {
  if (!documents.has(secret)) {
    const data = secret.data?.[SECRET_KEY];
    documents.set(secret, data ? decodeConfig(data) : EMPTY_CONFIG);
  }
  return documents.get(secret);
}

/** @returns undefined as well if it is larger than any stored one can be */
function decodeConfig(base64: string): DockerConfig | undefined {
  if (Buffer.byteLength(base64, 'base64') > MAX_SECRET_BYTES) return undefined;
  return parseDockerConfig(Buffer.from(base64, 'base64').toString());
}

/** A review needs each document several times, and one may have a mebibyte. */
const documents = new WeakMap<Secret, DockerConfig | undefined>();

/** Frees the parsed documents, which may take twenty times their text: a request may wait seconds for its tokens. */
export function forgetDocuments({ object, oldObject }: AdmissionRequest): void {
  documents.delete(object);
  if (oldObject) documents.delete(oldObject);
}

/** The stored entry of a registry. While the registry's host is not known, it has at most one without credentials. */
export function storedEntry({ host, source }: Registry, stored: OwnedEntries): Entry | undefined {
  return stored.get(host ?? unnamedHost(source));
}

/** Whether an entry's token was issued to the principal that the policy names for the registry. */
export function hasPrincipalOf({ source }: Registry, { principal }: Entry): boolean {
  return principal === principalOf(source);
}

/** Whether the stored entries are exactly those of these registries, each of the right principal. */
export function areEntriesOf(registries: readonly Registry[], stored: OwnedEntries): boolean {
  return (
    stored.size === registries.length &&
    registries.every((registry) => {
      const entry = storedEntry(registry, stored);
      return entry !== undefined && hasPrincipalOf(registry, entry);
    })
  );
}

/** Whether an entry still grants access: it has not expired, and its expiry is plausible. */
export function isValid({ text, expiresAt }: Entry, now: number): boolean {
  const judged = freshness(formatTime(expiresAt), now);
  return text !== undefined && expiresAt > now && !(judged.due && judged.reason === 'expiry-implausible');
}

/** When the first of the entries expires; undefined if there are none. */
export function soonestExpiry(entries: OwnedEntries): number | undefined {
  let first: number | undefined;
  for (const { expiresAt } of entries.values()) first = Math.min(first ?? expiresAt, expiresAt);
  return first;
}

/** Whether an update leaves data and the webhook's annotations unchanged, and they match the stored entries. */
export function isUntouched({ object, oldObject }: AdmissionRequest, stored: OwnedEntries): boolean {
  const expiresAt = soonestExpiry(stored);
  return (
    oldObject !== undefined &&
    annotation(oldObject, ANNOTATION.expiresAt) === (expiresAt && formatTime(expiresAt)) &&
    object.data?.[SECRET_KEY] === oldObject.data?.[SECRET_KEY] &&
    WEBHOOK_ANNOTATIONS.every((key) => annotation(object, key) === annotation(oldObject, key))
  );
}

/** The patch that makes these the owned entries and records them in the annotations. Foreign entries stay. */
export function patchFor(
  { object }: AdmissionRequest,
  entries: OwnedEntries,
  stored: OwnedEntries,
  updatedAt: string | undefined,
): PatchOperation[] {
  const sent = dockerConfig(object);
  const isKept = (key: string) => {
    const host = hostOf(key);
    const wasOwned = stored.get(host)?.text === JSON.stringify(sent?.auths.get(key));
    return !entries.has(host) && !wasOwned;
  };
  const isUpToDate = (key: string) =>
    entries.has(key) ? entries.get(key)?.text === JSON.stringify(sent?.auths.get(key)) : isKept(key);
  const withCredentials = [...entries]
    .sort(byHost)
    .flatMap(([host, { text }]) => (text === undefined ? [] : [[host, text] as const]));
  const hasAll = sent && withCredentials.every(([host]) => sent.auths.has(host));
  const patch: PatchOperation[] = [];
  if (!hasAll || ![...sent.auths.keys()].every(isUpToDate)) {
    const text = withEntries(sent ?? EMPTY_CONFIG, isKept, new Map(withCredentials));
    set(patch, '/data', object.data, { [SECRET_KEY]: Buffer.from(text).toString('base64') });
  }
  const expiresAt = soonestExpiry(entries);
  const { registries, hash } = fingerprinted(entries);
  if (expiresAt === undefined && annotation(object, ANNOTATION.expiresAt) !== undefined)
    patch.push({ op: 'remove', path: pointer('/metadata/annotations', ANNOTATION.expiresAt) });
  set(patch, '/metadata/annotations', object.metadata.annotations, {
    ...(expiresAt !== undefined && { [ANNOTATION.expiresAt]: formatTime(expiresAt) }),
    [ANNOTATION.registries]: registries,
    [ANNOTATION.fingerprint]: formatFingerprint(hash),
    ...(updatedAt !== undefined && { [ANNOTATION.updatedAt]: updatedAt }),
  });
  return patch;
}

/** The API server's limit for the data of a Secret (Kubernetes API reference, MaxSecretSize). */
export const MAX_SECRET_BYTES = 1024 * 1024;

/** The size of a Secret's data after the patch, in bytes, as the API server counts it. */
export function sizeAfter({ object }: AdmissionRequest, patch: readonly PatchOperation[]): number {
  const written = patch.find(({ path }) => path === '/data' || path === pointer('/data', SECRET_KEY))?.value;
  const data = typeof written === 'string' ? { [SECRET_KEY]: written } : (written as Secret['data']);
  return sizeOf({ ...object.data, ...data });
}

/** The size of a Secret's data, in bytes, as the API server counts it. */
export function sizeOf(data: Secret['data']): number {
  return Object.values(data ?? {}).reduce((sum, value) => sum + Buffer.byteLength(value, 'base64'), 0);
}

/** Adds the operations that set members of a map, which may be missing (RFC 6902; escapes of RFC 6901). */
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
