// Loads the operator's kubeconfig by the rules of kubectl (client-go, tools/clientcmd), so that both act on the same
// cluster as the same identity. client-node's loader differs: the last file of KUBECONFIG selects its context.

import { readFileSync } from 'node:fs';
import { homedir } from 'node:os';
import { delimiter, dirname, join, resolve, sep } from 'node:path';
import { parseAllDocuments, type ScalarTag } from 'yaml';
import { z } from 'zod';
import { readToken as readClaims } from '../../lib/kubernetes/service-account-token.ts';
import { CliError, line } from '../output/errors.ts';
import type { KubeOptions } from '../output/options.ts';
import { sanitize } from '../output/sanitize.ts';
import { ShellCommands } from '../output/shell-commands.ts';

/** Go reads null as the zero value of a field's type. */
const Text = z
  .string('must be a string: put it in quotes')
  .nullish()
  .transform((text) => text ?? '');
const Flag = z
  .boolean('must be true or false')
  .nullish()
  .transform((flag) => flag ?? false);
/** Base64, on one or more lines. */
const Data = Text.transform((text) => text.replaceAll(/[\r\n]/g, '')).pipe(z.base64('is not base64'));
const struct = <Shape extends z.ZodRawShape>(shape: Shape) =>
  z.preprocess((value) => value ?? {}, z.object(shape, 'must be a map'));
const listOf = <Item extends z.ZodType>(item: Item) =>
  z
    .array(item, 'must be a list')
    .nullish()
    .transform((items) => items ?? []);

const ClusterFields = struct({
  server: Text,
  'tls-server-name': Text,
  'insecure-skip-tls-verify': Flag,
  'certificate-authority': Text,
  'certificate-authority-data': Data,
  'proxy-url': Text,
  'disable-compression': Flag,
  extensions: listOf(struct({ name: Text, extension: z.unknown() })),
});

const ExecFields = struct({
  apiVersion: Text,
  command: Text,
  args: listOf(Text),
  env: listOf(struct({ name: Text, value: Text })),
  interactiveMode: Text,
  provideClusterInfo: Flag,
  installHint: Text,
});

const UserFields = struct({
  token: Text,
  tokenFile: Text,
  'client-certificate': Text,
  'client-certificate-data': Data,
  'client-key': Text,
  'client-key-data': Data,
  username: Text,
  password: Text,
  as: Text,
  'as-uid': Text,
  'as-groups': listOf(Text),
  'as-user-extra': z.record(z.string(), listOf(Text)).nullish(),
  'auth-provider': struct({ name: Text, config: z.record(z.string(), Text).nullish() }).nullish(),
  exec: ExecFields.nullish(),
});

const ContextFields = struct({ cluster: Text, user: Text, namespace: Text });

const KubeconfigFields = struct({
  apiVersion: Text.pipe(z.enum(['', 'v1'], 'must be v1')),
  kind: Text.pipe(z.enum(['', 'Config'], 'must be Config')),
  'current-context': Text,
  contexts: listOf(struct({ name: Text, context: ContextFields })),
  clusters: listOf(struct({ name: Text, cluster: ClusterFields })),
  users: listOf(struct({ name: Text, user: UserFields })),
});

type Kubeconfig = z.infer<typeof KubeconfigFields>;
export type Cluster = z.infer<typeof ClusterFields> & { readonly name: string };
export type User = z.infer<typeof UserFields> & { readonly name: string };
export type Exec = z.infer<typeof ExecFields>;

/** A context of the merged kubeconfig. Paths of files are absolute; `server` is an http or https URL. */
export interface KubeContext {
  readonly name: string;
  readonly cluster: Cluster;
  readonly user: User;
}

/**
 * Reads the context that kubectl would use: of --kubeconfig, or of the files of KUBECONFIG, or of ~/.kube/config.
 *
 * @throws CliError if there is no kubeconfig, or kubectl would refuse it, or it has no such context
 */
export function loadContext(options: KubeOptions): KubeContext {
  const files = kubeconfigFiles(options);
  const configs = files.flatMap((file) => {
    const bytes = read(file, options);
    return bytes === undefined ? [] : [{ file, config: parse(bytes, file) }];
  });
  const where = files.join(delimiter);
  if (configs.length === 0)
    throw new CliError(
      'no-kubeconfig',
      `There is no kubeconfig${where && ` at ${where}`}.`,
      'Set KUBECONFIG, or use --kubeconfig.',
    );
  return select(configs, options, where);
}

/** Reads the current context of a kubeconfig that is in no file. @param kubeconfig YAML or JSON */
export function readContext(kubeconfig: string): KubeContext {
  const file = resolve('kubeconfig');
  return select([{ file, config: parse(Buffer.from(kubeconfig), file) }], {}, file);
}

/** An error that names the kubeconfig. @param why a clause that quotes no value */
function unreadable(where: string, why: string, cause?: unknown): CliError {
  return new CliError(
    'kubeconfig-unreadable',
    `The kubeconfig ${where} cannot be read: ${why}.`,
    'Correct the file, or select another one with --kubeconfig.',
    cause,
  );
}

function kubeconfigFiles({ kubeconfig }: KubeOptions): string[] {
  if (kubeconfig) return [kubeconfig];
  const { KUBECONFIG } = process.env;
  if (!KUBECONFIG) return [join(homedir(), '.kube', 'config')];
  return [...new Set(KUBECONFIG.split(delimiter))].filter(Boolean);
}

/** Undefined if the file does not exist, unless the operator named it with --kubeconfig. */
function read(file: string, { kubeconfig }: KubeOptions): Buffer | undefined {
  try {
    return readFileSync(file);
  } catch (error) {
    const { code = 'it cannot be opened' } = error as NodeJS.ErrnoException;
    if (!kubeconfig && (code === 'ENOENT' || code === 'ENOTDIR')) return undefined;
    throw unreadable(file, code, error);
  }
}

// As Go's YAML library resolves plain scalars (YAML 1.1, without base 60). kubectl refuses a number or boolean in the place
// of a string, and so do the schemas above.
const SCALARS: ScalarTag[] = [
  {
    tag: 'tag:yaml.org,2002:bool',
    default: true,
    test: /^(?:[yYnN]|yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF)$/,
    resolve: (text) => /^(?:y|t|on)/i.test(text),
  },
  {
    tag: 'tag:yaml.org,2002:float',
    default: true,
    test: /^(?:[-+]?(?:0[xX][\da-fA-F_]+|0[oObB]?[0-7_]+|(?:\.\d+|\d[\d_]*(?:\.[\d_]*)?)(?:[eE][-+]?\d+)?)|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$/,
    resolve: (text) => {
      const number = Number(text.replaceAll('_', ''));
      // A number that is too large for Go is a string.
      return Math.abs(number) === Number.POSITIVE_INFINITY ? text : number;
    },
  },
  {
    tag: 'tag:yaml.org,2002:binary',
    resolve: (text) => Buffer.from(text, 'base64').toString(),
  },
];
/** Of a kubeconfig in memory or a file: expansions of aliases, which protect against documents that grow without end. */
const MAX_ALIASES = 10_000;

function parse(bytes: Uint8Array, file: string): Kubeconfig {
  let content: unknown;
  try {
    // Like kubectl, reads the first document only, and of a key that occurs twice the last value.
    const [document] = parseAllDocuments(decode(bytes), {
      schema: 'failsafe',
      customTags: ['null', ...SCALARS],
      merge: true,
      uniqueKeys: false,
      logLevel: 'silent',
      prettyErrors: false,
    }) as { errors: unknown[]; toJS(options: object): unknown }[];
    if (document && document.errors.length > 0) throw document.errors[0];
    content = document?.toJS({ maxAliasCount: MAX_ALIASES });
  } catch (error) {
    // The parser's message quotes the file, and the quoted part may be a token.
    throw unreadable(file, 'it is not YAML', error);
  }
  const parsed = KubeconfigFields.safeParse(content);
  if (!parsed.success) {
    const { path = [], message = '' } = parsed.error.issues[0] ?? {};
    const field = path.reduce<string>(
      (text, key) => (typeof key === 'number' ? `${text}[${key}]` : `${text}${text && '.'}${String(key)}`),
      '',
    );
    throw unreadable(file, field ? `${line(field)} ${message}` : `it is not a kubeconfig: it ${message}`);
  }
  for (const [list, entries] of Object.entries({
    contexts: parsed.data.contexts,
    clusters: parsed.data.clusters,
    users: parsed.data.users,
  })) {
    const names = entries.map(({ name }) => name);
    const twice = names.find((name, index) => names.indexOf(name) < index);
    if (twice !== undefined) throw unreadable(file, `${list} has two entries named ${line(twice) || '""'}`);
  }
  return parsed.data;
}

/** YAML may be in UTF-8 or UTF-16, with a byte order mark. @throws TypeError if it is not text */
function decode(bytes: Uint8Array): string {
  const [first, second] = bytes;
  const encoding =
    first === 0xff && second === 0xfe ? 'utf-16le' : first === 0xfe && second === 0xff ? 'utf-16be' : 'utf-8';
  return new TextDecoder(encoding, { fatal: true }).decode(bytes);
}

interface File {
  readonly file: string;
  readonly config: Kubeconfig;
}

/** Merges the files, in which the first value of each entry wins, and selects a context. */
function select(files: readonly File[], options: KubeOptions, where: string): KubeContext {
  const name = options.context || files.map(({ config }) => config['current-context']).find(Boolean);
  if (!name)
    throw new CliError(
      'no-context',
      `The kubeconfig ${where} has no current context.`,
      'Select a context with --context.',
    );
  const context = find(files, 'contexts', name)?.entry.context;
  const cluster = context && find(files, 'clusters', context.cluster);
  const user = context && find(files, 'users', context.user);
  if (!context) {
    const contexts = [...new Set(files.flatMap(({ config }) => config.contexts.map((one) => one.name)))];
    throw new CliError(
      'no-context',
      `The kubeconfig ${where} has no context ${line(name)}.`,
      contexts.length === 0
        ? 'It has no contexts. Select another kubeconfig with --kubeconfig.'
        : `Select one of its contexts with --context: ${contexts.map(line).join(', ')}.`,
    );
  }
  // kubectl would call localhost:8080, or ask for a name and a password.
  const incomplete = (what: string) =>
    new CliError(
      'no-context',
      `The context ${line(name)} of the kubeconfig ${where} names ${what}.`,
      'Correct the kubeconfig, or select another context with --context.',
    );
  if (!cluster?.entry.cluster.server)
    throw incomplete(`the cluster ${line(context.cluster) || '""'}, which is missing or has no server`);
  if (context.user && !user) throw incomplete(`the user ${line(context.user)}, which is missing`);
  const selected = {
    name,
    cluster: resolvedCluster(context.cluster, cluster.entry.cluster, cluster.file),
    user: resolvedUser(context.user, user?.entry.user ?? UserFields.parse({}), user?.file ?? where),
  };
  const [problem] = [
    ...clusterProblems(selected.cluster),
    ...(isHttps(selected.cluster) ? userProblems(selected.user) : []),
  ];
  if (problem !== undefined) throw unreadable(where, problem);
  return { ...selected, user: withToken(selected, options, where) };
}

/** The user with the token that kubectl would send. @throws CliError */
function withToken({ name, cluster, user }: KubeContext, { kubeconfig }: KubeOptions, where: string): User {
  // kubectl sends no credential over plain HTTP.
  if (!isHttps(cluster)) {
    const { as, 'as-uid': uid, 'as-groups': groups, 'as-user-extra': extra } = user;
    const impersonated = { as, 'as-uid': uid, 'as-groups': groups, 'as-user-extra': extra };
    return { ...UserFields.parse(impersonated), name: user.name };
  }
  const { tokenFile, token, username, 'auth-provider': provider } = user;
  if (tokenFile) {
    const ofFile = readToken(tokenFile);
    if (!ofFile && !token)
      throw unreadable(where, `tokenFile of the user ${line(user.name)} (${line(tokenFile)}) has no token`);
    return { ...user, token: ofFile || token };
  }
  if (!provider || token || username) return user;
  const idToken = provider.config?.['id-token'] ?? '';
  if ((readClaims(idToken)?.expiresAt ?? (idToken ? Number.POSITIVE_INFINITY : 0)) > Date.now())
    return { ...user, token: idToken };
  // The identity provider may replace the refresh token. kubectl stores it in the kubeconfig.
  throw new CliError(
    'kubernetes-unauthorized',
    `The id-token of the kubeconfig's user ${line(user.name)} has expired.`,
    `kubectl renews it: ${new ShellCommands(kubeconfig ? { kubeconfig } : {}, { context: sanitize(name) }).kubectl(['auth', 'whoami'])}`,
  );
}

/** Empty if the file cannot be read. */
function readToken(file: string): string {
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    return '';
  }
}

function find<List extends 'contexts' | 'clusters' | 'users'>(
  files: readonly File[],
  list: List,
  name: string,
): { readonly entry: Kubeconfig[List][number]; readonly file: string } | undefined {
  for (const { file, config } of files) {
    const entry = config[list].find((one) => one.name === name);
    if (entry) return { entry, file };
  }
  return undefined;
}

export function isHttps({ server }: Cluster): boolean {
  return /^https:/i.test(server);
}

function resolvedCluster(name: string, cluster: z.infer<typeof ClusterFields>, file: string): Cluster {
  return {
    ...cluster,
    name,
    server: serverUrl(cluster.server),
    'certificate-authority': resolved(cluster['certificate-authority'], file),
  };
}

function resolvedUser(name: string, user: z.infer<typeof UserFields>, file: string): User {
  const { exec } = user;
  return {
    ...user,
    name,
    tokenFile: resolved(user.tokenFile, file),
    'client-certificate': resolved(user['client-certificate'], file),
    'client-key': resolved(user['client-key'], file),
    // A command without a separator is looked up in PATH.
    exec: exec?.command.includes(sep) ? { ...exec, command: resolved(exec.command, file) } : exec,
  };
}

/** Paths are relative to the file that has them. */
function resolved(path: string, file: string): string {
  return path && resolve(dirname(file), path);
}

/** Without a scheme it is plain HTTP, for kubectl too. @returns an empty string if it is not a URL */
function serverUrl(server: string): string {
  const url = /^[a-z][a-z\d+.-]*:\/\/[^/]/i.test(server) ? server : `http://${server}`;
  return URL.canParse(url) && /^https?:$/.test(new URL(url).protocol) ? url.replace(/\/$/, '') : '';
}

/** What kubectl refuses in a cluster, as clauses. */
function clusterProblems(cluster: Cluster): string[] {
  const problems: string[] = [];
  const { name, server, 'certificate-authority': file, 'certificate-authority-data': data } = cluster;
  const the = `the cluster ${line(name)}`;
  if (!server) problems.push(`the server of ${the} is not an http or https URL`);
  if (cluster['proxy-url'] && !isProxyUrl(cluster['proxy-url']))
    problems.push(`the field proxy-url of ${the} is not the URL of a proxy`);
  if (file && data)
    problems.push(`${the} has both certificate-authority and certificate-authority-data: remove one`);
  if (isHttps(cluster) && (file || data) && cluster['insecure-skip-tls-verify'])
    problems.push(`${the} has both a certificate authority and insecure-skip-tls-verify: remove one`);
  return [...problems, ...unreadableFiles(the, { 'certificate-authority': file })];
}

/** Whether client-node and undici accept the URL of a proxy. */
export function isProxyUrl(url: string): boolean {
  return URL.canParse(url) && /^(https?|socks(4a?|5h?)?):$/.test(new URL(url).protocol);
}

/** What kubectl refuses in a user, as clauses. */
function userProblems(user: User): string[] {
  const problems: string[] = [];
  const { exec, 'auth-provider': provider } = user;
  const the = `the user ${line(user.name)}`;
  const [certificate, key] = [user['client-certificate'], user['client-key']];
  const hasCertificate = certificate || user['client-certificate-data'];
  if (certificate && user['client-certificate-data'])
    problems.push(`${the} has both client-certificate and client-certificate-data: remove one`);
  if (hasCertificate && key && user['client-key-data'])
    problems.push(`${the} has both client-key and client-key-data: remove one`);
  if (hasCertificate && !key && !user['client-key-data'])
    problems.push(`${the} has a client certificate without client-key or client-key-data`);
  if ((user.token && user.password) || ((user.token || user.tokenFile) && user.username))
    problems.push(`${the} has both a token and a username or password: remove one`);
  if (
    !user.as &&
    (user['as-uid'] || user['as-groups'].length > 0 || Object.keys(user['as-user-extra'] ?? {}).length > 0)
  )
    problems.push(`${the} has as-uid, as-groups or as-user-extra without as`);
  if (exec && provider) problems.push(`${the} has both exec and auth-provider: remove one`);
  if (provider && provider.name !== 'oidc')
    problems.push(`the auth-provider of ${the} is not oidc, the only one that kubectl still has: use exec`);
  if (exec) problems.push(...execProblems(exec, `exec of ${the}`));
  return [
    ...problems,
    ...unreadableFiles(the, hasCertificate ? { 'client-certificate': certificate, 'client-key': key } : {}),
  ];
}

const EXEC_VERSIONS = ['client.authentication.k8s.io/v1', 'client.authentication.k8s.io/v1beta1'];

function execProblems({ apiVersion, command, env, interactiveMode }: Exec, the: string): string[] {
  const problems: string[] = [];
  if (!command) problems.push(`${the} has no command`);
  if (!EXEC_VERSIONS.includes(apiVersion))
    problems.push(`the apiVersion of ${the} must be ${EXEC_VERSIONS.join(' or ')}`);
  if (env.some(({ name }) => !name)) problems.push(`an env entry of ${the} has no name`);
  // v1beta1 has a default.
  if (
    !(interactiveMode === '' && apiVersion.endsWith('v1beta1')) &&
    !/^(Never|IfAvailable|Always)$/.test(interactiveMode)
  )
    problems.push(`the interactiveMode of ${the} must be Never, IfAvailable or Always`);
  return problems;
}

function unreadableFiles(the: string, files: Readonly<Record<string, string>>): string[] {
  return Object.entries(files).flatMap(([field, file]) => {
    try {
      if (file) readFileSync(file);
      return [];
    } catch (error) {
      return [`${field} of ${the} cannot be read (${line(file)}: ${(error as NodeJS.ErrnoException).code})`];
    }
  });
}
