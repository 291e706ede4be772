// The document inside a kubernetes.io/dockerconfigjson Secret. Pure.
// Entries that are not ours are handled as the text they were written in, so that they stay byte for byte.
import { createHash } from 'node:crypto';
import { type Node, parseTree } from 'jsonc-parser';

/** Registry key as written → the entry's JSON text. */
export type Entries = ReadonlyMap<string, string>;

export interface DockerConfig {
  readonly auths: Entries;
  /** Top-level members other than `auths` (credHelpers and the like), as JSON text. */
  readonly rest: Entries;
}

export const EMPTY_CONFIG: DockerConfig = { auths: new Map(), rest: new Map() };

/** Reads a docker config; undefined where the text is not one (not JSON, or `auths` is not an object). */
export function parseDockerConfig(text: string): DockerConfig | undefined {
  try {
    JSON.parse(text); // strict; the tree below is only for the positions
    const rest = members(text, parseTree(text));
    const auths = rest?.get('auths');
    if (!rest || auths === undefined) return rest && { auths: new Map(), rest };
    rest.delete('auths');
    if (auths === 'null') return { auths: new Map(), rest };
    const entries = members(auths, parseTree(auths));
    return entries && { auths: entries, rest };
  } catch {
    return undefined; // also nesting so deep that the reader's stack ends
  }
}

/** The members of an object as text, the last of equal names winning as in JSON.parse; undefined for anything else. */
function members(text: string, node: Node | undefined): Map<string, string> | undefined {
  if (node?.type !== 'object') return undefined;
  const found = new Map<string, string>();
  for (const member of node.children ?? []) {
    const [key, value] = member.children ?? [];
    if (key && value) found.set(String(key.value), text.slice(value.offset, value.offset + value.length));
  }
  return found;
}

/** Writes a docker config: what else it holds as it was, then the entries in their order. */
export function formatDockerConfig(config: DockerConfig): string {
  const auths = `{${format(config.auths)}}`;
  return `{${format(new Map([...config.rest, ['auths', auths]]))}}`;
}

function format(entries: Entries): string {
  return [...entries].map(([key, value]) => `${JSON.stringify(key)}:${value}`).join(',');
}

/** An entry's JSON text, with the fields that kubelet, containerd, skopeo and podman read. */
export function formatEntry(username: string, password: string): string {
  const auth = Buffer.from(`${username}:${password}`).toString('base64');
  return JSON.stringify({ username, password, auth });
}

/**
 * The registry host of a key, so that `https://host/v2/` and `host` are seen to be the same registry.
 * A key with a repository path stays as it is: kubelet prefers it over the host's entry, so it is another entry.
 */
export function hostOf(key: string): string {
  return key
    .toLowerCase()
    .replace(/^https?:\/\//, '')
    .replace(/\/(v[12]\/?)?$/, '');
}

/** A short hash of entries and what is said of them; tells ours from data that only looks like ours. */
export function fingerprint(registries: string, entries: readonly string[]): string {
  return createHash('sha256')
    .update(JSON.stringify([registries, entries]))
    .digest('base64url')
    .slice(0, 16);
}
