// Reads a server and an identity out of a kubeconfig. It executes nothing and reads no file: fields that need that are
// refused by name, except for the exec entries that exec-plugin.ts recognizes.

import { isDeepStrictEqual } from 'node:util';
import { isScalar, parseDocument, visit } from 'yaml';
import { z } from 'zod';
import { ClusterError } from '../cluster-error.ts';
import { sanitizeName } from '../text.ts';
import { type EksIdentity, type KeylessIdentity, readExecPlugin } from './exec-plugin.ts';

/** What authenticates a client to an API server. Certificates and keys are PEM. */
export type Credential = { readonly token: string } | { readonly cert: string; readonly key: string };

/** How to reach an API server, and the identity to use. */
export interface ClusterAccess<Identity = Credential> {
  readonly server: string;
  readonly ca?: string;
  readonly serverName?: string;
  /** An HTTP proxy, with a user and a password if it requires them. */
  readonly proxyUrl?: string;
  readonly identity: Identity;
}

/** As a kubeconfig has it: an identity of AWS still has to become a token. */
export type RegisteredAccess = ClusterAccess<Credential | EksIdentity | KeylessIdentity>;

/** A kubeconfig that cannot be used. The message has names of fields and entries, never a value. */
export class KubeconfigError extends ClusterError {
  override readonly name = 'KubeconfigError';

  constructor(message: string) {
    super('kubeconfig', message);
  }
}

const Kubeconfig = z.object({
  'current-context': z.string().optional(),
  contexts: z.array(
    z.object({ name: z.string(), context: z.object({ cluster: z.string(), user: z.string() }) }),
  ),
  clusters: z.array(z.object({ name: z.string(), cluster: z.record(z.string(), z.unknown()) })),
  users: z.array(z.object({ name: z.string(), user: z.record(z.string(), z.unknown()).nullable() })),
});

const HIDDEN = 'is what kubectl shows instead of the value: add --raw to "kubectl config view"';

/** PEM in base64, on one or more lines. */
const Embedded = z
  .string()
  .transform((text) => text.replaceAll(/\s/g, ''))
  .refine((text) => text !== 'DATA+OMITTED', { error: HIDDEN, abort: true })
  .pipe(z.base64())
  .transform((text) => Buffer.from(text, 'base64').toString())
  .refine((text) => text === '' || text.includes('-----BEGIN '), 'is not PEM');

const Server = z.object({
  server: z
    .url({ protocol: /^https$/, error: 'must be an https URL' })
    // Parsed, because "https:/me:pw@host" is the same URL.
    .refine((url) => !URL.canParse(url) || !holdsUser(new URL(url)), 'must not hold a user or a password'),
  'certificate-authority-data': Embedded.optional(),
  // Node.js quotes it in the error for a certificate with another name.
  'tls-server-name': z
    .string()
    .regex(/^[\w.:-]{0,253}$/, 'is not a host name')
    .optional(),
  'proxy-url': z
    .union([
      z.literal(''),
      z
        .url({ protocol: /^https?$/, error: 'must be an http or https URL: SOCKS is not supported' })
        .refine(
          (url) => !URL.canParse(url) || isOnlyAHost(new URL(url)),
          'must not hold more than a user, a password, a host and a port',
        ),
    ])
    .optional(),
});

const Identity = z.object({
  token: z
    .string()
    .trim()
    .regex(/^[\x21-\x7e]*$/, 'contains characters that a token cannot contain')
    .refine((text) => text !== 'REDACTED', HIDDEN)
    .optional(),
  'client-certificate-data': Embedded.optional(),
  'client-key-data': Embedded.optional(),
});

function holdsUser({ username, password }: URL): boolean {
  return username !== '' || password !== '';
}

/** Whether a proxy URL has only the parts that an HTTP client uses. */
function isOnlyAHost({ pathname, search, hash, username, password }: URL): boolean {
  try {
    decodeURIComponent(`${username}:${password}`);
  } catch {
    return false;
  }
  return /^\/?$/.test(pathname) && search === '' && hash === '';
}

/** Fields that are refused, and what the operator can do. */
const REFUSED_OF_SERVER: Readonly<Record<string, string>> = {
  'certificate-authority':
    'names a file: embed it as certificate-authority-data (kubectl config view --flatten --minify --raw)',
  'insecure-skip-tls-verify':
    'would send the credentials to any server: give certificate-authority-data instead',
};
const REFUSED_OF_USER: Readonly<Record<string, string>> = {
  'auth-provider': 'would run a plugin: register a token or a client certificate',
  tokenFile: 'names a file: use the field token instead',
  'client-certificate':
    'names a file: embed it as client-certificate-data (kubectl config view --flatten --minify --raw)',
  'client-key': 'names a file: embed it as client-key-data (kubectl config view --flatten --minify --raw)',
  username:
    'is basic authentication, which Kubernetes no longer has: register a token or a client certificate',
  password:
    'is basic authentication, which Kubernetes no longer has: register a token or a client certificate',
  as: 'impersonates: register the identity itself',
};

/**
 * Reads a context of a kubeconfig.
 *
 * @param contextName if it is not the current one
 * @throws KubeconfigError that names what is missing or refused, and what the operator can do
 */
export function readKubeconfig(text: string, contextName?: string): RegisteredAccess {
  const config = check(Kubeconfig, load(text), 'it is not a kubeconfig');
  const current = contextName ?? config['current-context'];
  if (!current) throw new KubeconfigError('it is not a kubeconfig: it has no current-context');
  const { context } = find(config.contexts, current, 'context');
  const { cluster } = find(config.clusters, context.cluster, 'cluster');
  const { user } = find(config.users, context.user, 'user');
  refuse(cluster, REFUSED_OF_SERVER, `cluster "${sanitizeName(context.cluster)}"`);
  refuse(user ?? {}, REFUSED_OF_USER, `user "${sanitizeName(context.user)}"`);
  const server = check(Server, cluster, `cluster "${sanitizeName(context.cluster)}"`);
  const identity = check(Identity, user ?? {}, `user "${sanitizeName(context.user)}"`);
  return {
    // The lookbehind makes the search linear: without it, many slashes would take seconds.
    server: server.server.replace(/(?<!\/)\/+$/, ''),
    ...(server['certificate-authority-data'] && { ca: server['certificate-authority-data'] }),
    ...(server['tls-server-name'] && { serverName: server['tls-server-name'] }),
    ...(server['proxy-url'] && { proxyUrl: server['proxy-url'] }),
    identity: user?.exec
      ? execIdentity(user.exec, identity, context.user)
      : identityOf(identity, context.user),
  };
}

/**
 * The same kubeconfig with another token for the context's user. All other bytes stay the same.
 *
 * @param token without characters that YAML or JSON must escape
 * @throws KubeconfigError if the token cannot be replaced in place
 */
export function withToken(text: string, token: string, contextName?: string): string {
  const before = readKubeconfig(text, contextName);
  const config = check(Kubeconfig, load(text), 'it is not a kubeconfig');
  const current = contextName ?? config['current-context'] ?? '';
  const { user } = find(config.contexts, current, 'context').context;
  const index = config.users.findIndex(({ name }) => name === user);
  const node = parsed(text).getIn(['users', index, 'user', 'token'], true);
  const [start, end] = (isScalar(node) && node.range) || [];
  if (start === undefined || end === undefined)
    throw new KubeconfigError(
      `user "${sanitizeName(user)}": "token" is a YAML alias: write the token itself`,
    );
  // The range of a block scalar includes the line break.
  const after = text.slice(start, end).endsWith('\n') ? '\n' : '';
  const replaced = `${text.slice(0, start)}"${token}"${after}${text.slice(end)}`;
  if (!isDeepStrictEqual(readKubeconfig(replaced, contextName), { ...before, identity: { token } }))
    throw new KubeconfigError(
      `user "${sanitizeName(user)}": "token" cannot be replaced: register it in a plainer form`,
    );
  return replaced;
}

function execIdentity(
  exec: unknown,
  user: z.infer<typeof Identity>,
  name: string,
): EksIdentity | KeylessIdentity {
  if (Object.values(user).some(Boolean))
    throw new KubeconfigError(
      `user "${sanitizeName(name)}": "exec" is set together with another credential: remove one of them`,
    );
  try {
    return readExecPlugin(exec);
  } catch (error) {
    throw new KubeconfigError(`user "${sanitizeName(name)}": "exec" ${(error as Error).message}`);
  }
}

function identityOf(user: z.infer<typeof Identity>, name: string): Credential {
  const cert = user['client-certificate-data'];
  const key = user['client-key-data'];
  // With both (AKS) the token is used, because it can be revoked.
  if (user.token) return { token: user.token };
  if (cert && key) return { cert, key };
  throw new KubeconfigError(
    `user "${sanitizeName(name)}" has neither a token nor client-certificate-data with client-key-data`,
  );
}

/** A long list of invalid entries has a problem or two for each. */
const MAX_PROBLEMS = 5;
/** The size limit of a secret in Secrets Manager (Secrets Manager quotas). */
const MAX_BYTES = 65_536;
/** The parser searches the whole document for the anchor of each alias. No tool writes aliases. */
const MAX_ALIASES = 100;

function load(text: string): unknown {
  if (text.length > MAX_BYTES) throw new KubeconfigError(`it is larger than ${MAX_BYTES} bytes`);
  try {
    const document = parsed(text);
    // A document with errors, such as a truncated one, is refused, although the parser returns a value.
    if (document.errors.length === 0 && isAcceptable(document)) return document.toJS();
  } catch {
    // The nesting is too deep, or the aliases expand without end.
  }
  // The parser's message quotes the line, which may contain a token.
  throw new KubeconfigError('it is not YAML');
}

/**
 * Parses YAML without the parser's check for duplicate keys, which compares each key with each other and takes seconds
 * for 64 KiB of keys. `prettyErrors` would copy the line for each error, and errors are not shown.
 */
function parsed(text: string) {
  return parseDocument(text, { logLevel: 'error', uniqueKeys: false, prettyErrors: false });
}

/** Whether no map has a key twice, and the document has few aliases. */
function isAcceptable(document: ReturnType<typeof parsed>): boolean {
  let aliases = 0;
  let isSound = true;
  const stopIf = (isFlawed: boolean) => {
    isSound &&= !isFlawed;
    return isFlawed ? visit.BREAK : undefined;
  };
  visit(document, {
    Alias: () => stopIf(++aliases > MAX_ALIASES),
    Map: (_, { items }) =>
      stopIf(new Set(items.map(({ key }) => (isScalar(key) ? key.value : key))).size < items.length),
  });
  return isSound;
}

function check<Schema extends z.ZodType>(schema: Schema, value: unknown, what: string): z.infer<Schema> {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const { issues } = parsed.error;
  const problems = issues
    .slice(0, MAX_PROBLEMS)
    .map(({ path, message }) => `${path.map(String).join('.') || 'document'}: ${message}`);
  if (issues.length > MAX_PROBLEMS) problems.push(`and ${issues.length - MAX_PROBLEMS} more`);
  throw new KubeconfigError(`${what}: ${problems.join('; ')}`);
}

function find<Item extends { name: string }>(items: readonly Item[], name: string, what: string): Item {
  const [item, another] = items.filter((candidate) => candidate.name === name);
  if (another) throw new KubeconfigError(`there is more than one ${what} named "${sanitizeName(name)}"`);
  if (!item) throw new KubeconfigError(`there is no ${what} named "${sanitizeName(name)}"`);
  return item;
}

function refuse(
  fields: Readonly<Record<string, unknown>>,
  refused: Readonly<Record<string, string>>,
  where: string,
): void {
  const reasons = Object.entries(refused).filter(([field]) => fields[field]);
  if (reasons.length > 0) {
    throw new KubeconfigError(`${where}: ${reasons.map(([field, why]) => `"${field}" ${why}`).join('; ')}`);
  }
}
