// The document inside a kubernetes.io/dockerconfigjson Secret. Pure.
// Foreign entries are handled as the text that they were written as, so that they stay byte for byte.
import { hash } from 'node:crypto';
import { parseTree } from 'jsonc-parser';

export interface DockerConfig {
  readonly text: string;
  /** Registry key as written → its entry. */
  readonly auths: ReadonlyMap<string, unknown>;
  /** Whether there are top-level members other than `auths` (credHelpers and the like). */
  readonly hasMore: boolean;
}

export const EMPTY_CONFIG: DockerConfig = { text: '{}', auths: new Map(), hasMore: false };

/** Reads a docker config; undefined if the text is not one (not JSON, or `auths` is not an object). */
export function parseDockerConfig(text: string): DockerConfig | undefined {
  try {
    const document: unknown = JSON.parse(text);
    if (!isObject(document)) return undefined;
    const { auths, ...more } = document;
    if (auths !== undefined && auths !== null && !isObject(auths)) return undefined;
    return { text, auths: new Map(Object.entries(auths ?? {})), hasMore: Object.keys(more).length > 0 };
  } catch {
    return undefined;
  }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/**
 * Writes a docker config with other entries: all that is kept as the text it was, then the new entries.
 *
 * @param isKept by registry key as written
 * @param entries registry key → JSON text
 */
export function withEntries(
  config: DockerConfig,
  isKept: (key: string) => boolean,
  entries: ReadonlyMap<string, string>,
): string {
  const more = members(config.text);
  const auths = more.get('auths') ?? '{}';
  more.delete('auths');
  const kept = auths === 'null' ? [] : [...members(auths)].filter(([key]) => isKept(key));
  return object([...more, ['auths', object([...kept, ...entries])]]);
}

/** The members of a JSON object as text. Of equal names the last one wins, as in JSON.parse. */
function members(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const { children } of parseTree(text)?.children ?? []) {
    const [key, value] = children ?? [];
    if (key && value) found.set(String(key.value), text.slice(value.offset, value.offset + value.length));
  }
  return found;
}

function object(entries: readonly (readonly [string, string])[]): string {
  return `{${entries.map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(',')}}`;
}

/** An entry's JSON text, with the fields that kubelet, containerd, skopeo and podman read. */
export function formatEntry(username: string, password: string): string {
  const auth = Buffer.from(`${username}:${password}`).toString('base64');
  return JSON.stringify({ username, password, auth });
}

/**
 * The registry host of a key: `https://host/v2/` and `host` are the same registry.
 * A key with a repository path is an entry of its own, which kubelet prefers over the host's, and stays as it is.
 */
export function hostOf(key: string): string {
  return key
    .toLowerCase()
    .replace(/^https?:\/\//, '')
    .replace(/\/(v[12]\/?)?$/, '');
}

/** A short hash of the annotation `registries` and the entries. It tells owned entries from data that imitates them. */
export function fingerprint(registries: string, entries: readonly string[]): string {
  // JSON texts contain no line feed, so that no other list joins to the same text.
  return hash('sha256', [registries, ...entries].join('\n'), 'base64url').slice(0, 16);
}
