// Compares the command line with kubectl: the same kubeconfigs, and what each sends to which API server, or that both
// refuse. The last group has the differences that docs/command-line.md lists.
import { once } from 'node:events';
import { chmod, mkdir, mkdtempDisposable, readFile, writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import {
  type AddressInfo,
  connect,
  createServer as createNetServer,
  type Server as NetServer,
  type Socket,
} from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest';
import { parse, stringify } from 'yaml';
import { Kubernetes } from '../../../cli/kubernetes/client.ts';
import type { CliError } from '../../../cli/output/errors.ts';
import { type Authority, createAuthority } from '../../bed/certificates.ts';
import { runCommand } from '../../bed/control-plane.ts';
import { tools } from '../../bed/toolchain.ts';
import { type ApiServer, json, startApiServer } from '../../functions/api-server.ts';

const base64 = (text: string) => Buffer.from(text).toString('base64');

/** What an API server saw of a request. */
interface Seen {
  readonly server: 'alpha' | 'beta' | 'plain';
  readonly headers: Readonly<Record<string, unknown>>;
  readonly clientName?: string | undefined;
}

const shared = new AsyncDisposableStack();
let clients: Authority;
let alpha: ApiServer;
let beta: ApiServer;
let plain: Server;
let plainUrl: string;
let requests: Seen[] = [];
/** The hosts and ports to which a proxy was asked to connect. */
let targets: string[] = [];
let [cert, key] = ['', ''];

beforeAll(async () => {
  clients = await createAuthority('clients');
  ({ certPem: cert, keyPem: key } = await clients.client('operator', []));
  const start = async (server: 'alpha' | 'beta') =>
    shared.use(
      await startApiServer(
        ({ headers, query, clientName }, response) => {
          // A kubectl that selects another kubectl by the server's version asks for that first, with a time limit.
          if (!query.has('timeout')) requests.push({ server, headers: identityOf(headers), clientName });
          json(response, { gitVersion: 'v1.36.3' });
        },
        { clientCa: clients.caPem },
      ),
    );
  [alpha, beta] = [await start('alpha'), await start('beta')];
  plain = createServer(({ headers, url = '' }, response) => {
    if (!url.includes('timeout')) requests.push({ server: 'plain', headers: identityOf(headers) });
    response.end('{"gitVersion":"v1.36.3"}');
  }).listen(0, '127.0.0.1');
  plainUrl = await new Promise((resolve) => {
    plain.on('listening', () => resolve(`127.0.0.1:${(plain.address() as AddressInfo).port}`));
  });
  shared.defer(() => void plain.close());
});
afterAll(() => shared.disposeAsync());

let stack = new AsyncDisposableStack();
afterEach(async () => {
  vi.unstubAllEnvs();
  await stack.disposeAsync();
  stack = new AsyncDisposableStack();
});

function identityOf(headers: NodeJS.Dict<string | string[]>): Seen['headers'] {
  return Object.fromEntries(
    Object.entries(headers).filter(([name]) => name === 'authorization' || name.startsWith('impersonate-')),
  );
}

interface Setup {
  /** The content of each file, by its name in a new folder. */
  readonly files: Readonly<Record<string, string | Uint8Array>>;
  /** The files of KUBECONFIG; default: the first file. */
  readonly kubeconfig?: readonly string[];
  readonly options?: { readonly kubeconfig?: string; readonly context?: string };
  readonly env?: Readonly<Record<string, string | undefined>>;
}

interface Outcome {
  readonly seen: readonly Seen[];
  readonly targets: readonly string[];
  readonly isSuccess: boolean;
  /** Why it failed. */
  readonly reason: string;
  /** Of the command line. */
  readonly code?: string;
  readonly hint?: string | undefined;
}

const NO_PROXIES = Object.fromEntries(
  ['HTTPS_PROXY', 'HTTP_PROXY', 'NO_PROXY'].flatMap((name) => [
    [name, undefined],
    [name.toLowerCase(), undefined],
  ]),
);

/** Sends the same request with kubectl and with the command line. */
async function compare({
  files,
  kubeconfig = Object.keys(files).slice(0, 1),
  options = {},
  env = {},
}: Setup) {
  const { path: dir } = stack.use(await mkdtempDisposable(join(tmpdir(), 'kubeconfig-')));
  await mkdir(join(dir, 'home'));
  for (const [name, content] of Object.entries(files)) {
    await mkdir(join(dir, name, '..'), { recursive: true });
    await writeFile(join(dir, name), content);
    await chmod(join(dir, name), 0o755);
  }
  const inDir = (name: string) => (name === '' ? '' : join(dir, name));
  const variables = {
    ...NO_PROXIES,
    HOME: join(dir, 'home'),
    KUBECONFIG: kubeconfig.map(inDir).join(delimiter),
    ...env,
  };
  for (const [name, value] of Object.entries(variables)) vi.stubEnv(name, value);
  const given = {
    ...options,
    ...(options.kubeconfig !== undefined && { kubeconfig: inDir(options.kubeconfig) }),
  };
  return { kubectl: await withKubectl(given), cli: await withCommandLine(given) };
}

async function withKubectl(options: object): Promise<Outcome> {
  [requests, targets] = [[], []];
  const flags = Object.entries(options).map(([name, value]) => `--${name}=${value}`);
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([name, value]) => value !== undefined && !name.startsWith('KUBERNETES_'),
    ),
  ) as Record<string, string>;
  const { code, stderr } = await runCommand(tools().kubectl, [...flags, 'get', '--raw', '/version'], env);
  return { seen: requests, targets: [...new Set(targets)], isSuccess: code === 0, reason: stderr };
}

async function withCommandLine(options: object): Promise<Outcome> {
  [requests, targets] = [[], []];
  try {
    await Kubernetes.load(options, AbortSignal.timeout(20_000)).get('/version');
    return { seen: requests, targets: [...new Set(targets)], isSuccess: true, reason: '' };
  } catch (error) {
    const { code, hint } = error as CliError;
    return {
      seen: requests,
      targets: [...new Set(targets)],
      isSuccess: false,
      reason: String(error),
      code,
      hint,
    };
  }
}

interface Parts {
  readonly server?: 'alpha' | 'beta';
  readonly context?: string;
  readonly current?: string | null;
  readonly cluster?: object;
  readonly user?: object;
  readonly names?: { readonly cluster?: string; readonly user?: string };
}

/** A kubeconfig with one context. */
function configOf({
  server = 'alpha',
  context = server,
  current = context,
  cluster,
  user,
  names = {},
}: Parts = {}) {
  const { url, caPem } = server === 'alpha' ? alpha : beta;
  const { cluster: ofCluster = `cluster-${server}`, user: ofUser = `user-${server}` } = names;
  return {
    apiVersion: 'v1',
    kind: 'Config',
    ...(current !== null && { 'current-context': current }),
    contexts: [{ name: context, context: { cluster: ofCluster, user: ofUser } }],
    clusters: [
      { name: ofCluster, cluster: { server: url, 'certificate-authority-data': base64(caPem), ...cluster } },
    ],
    users: [{ name: ofUser, user: user ?? { token: `token-of-${server}` } }],
  };
}

const yaml = (parts: Parts = {}) => stringify(configOf(parts));
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const ofAlpha = { server: 'alpha', headers: bearer('token-of-alpha') };
const ofBeta = { server: 'beta', headers: bearer('token-of-beta') };
const REFUSED = 'refused';

type Row = [title: string, setup: () => Setup, expected: object | typeof REFUSED];

function testRows(rows: readonly Row[]): void {
  test.each(rows)('%s', async (_, setup, expected) => {
    const { kubectl, cli } = await compare(setup());
    const { isSuccess, seen } = cli;
    expect({ isSuccess, seen }, `kubectl: ${kubectl.reason} command line: ${cli.reason}`).toEqual({
      isSuccess: kubectl.isSuccess,
      seen: kubectl.seen,
    });
    expect(cli).toMatchObject(
      expected === REFUSED ? { isSuccess: false, seen: [] } : { isSuccess: true, seen: [expected] },
    );
  });
}

describe('of several files', () => {
  testRows([
    [
      'the first current context wins',
      () => ({ files: { a: yaml(), b: yaml({ server: 'beta' }) }, kubeconfig: ['a', 'b'] }),
      ofAlpha,
    ],
    [
      'the first current context that is set wins',
      () => ({ files: { a: yaml({ current: null }), b: yaml({ server: 'beta' }) }, kubeconfig: ['a', 'b'] }),
      ofBeta,
    ],
    [
      'an empty current context counts as none',
      () => ({ files: { a: yaml({ current: '' }), b: yaml({ server: 'beta' }) }, kubeconfig: ['a', 'b'] }),
      ofBeta,
    ],
    [
      'the first user of a name wins',
      () => ({
        files: {
          a: yaml({ names: { user: 'me' } }),
          b: yaml({ server: 'beta', names: { user: 'me' } }),
        },
        kubeconfig: ['a', 'b'],
        options: { context: 'beta' },
      }),
      { server: 'beta', headers: bearer('token-of-alpha') },
    ],
    [
      'the first cluster of a name wins, as a whole',
      () => ({
        files: {
          a: yaml({ names: { cluster: 'c' } }),
          b: yaml({ server: 'beta', names: { cluster: 'c' }, cluster: { 'tls-server-name': 'nowhere' } }),
        },
        kubeconfig: ['a', 'b'],
        options: { context: 'beta' },
      }),
      { server: 'alpha', headers: bearer('token-of-beta') },
    ],
    [
      'the first context of a name wins',
      () => ({
        files: {
          a: yaml({ context: 'x', current: null }),
          b: yaml({ server: 'beta', context: 'x' }),
        },
        kubeconfig: ['a', 'b'],
      }),
      ofAlpha,
    ],
    [
      'a context may refer to entries of other files',
      () => {
        const { contexts, 'current-context': current } = configOf();
        const { clusters, users } = configOf();
        return {
          files: {
            a: stringify({ contexts, 'current-context': current }),
            b: stringify({ clusters }),
            c: stringify({ users }),
          },
          kubeconfig: ['a', 'b', 'c'],
        };
      },
      ofAlpha,
    ],
    [
      'missing ones are ignored',
      () => ({ files: { b: yaml() }, kubeconfig: ['missing', 'b', 'missing/too'] }),
      ofAlpha,
    ],
    ['an empty one is ignored', () => ({ files: { a: '', b: yaml() }, kubeconfig: ['a', 'b'] }), ofAlpha],
    [
      'one with comments only is ignored',
      () => ({ files: { a: '# nothing\n', b: yaml() }, kubeconfig: ['a', 'b'] }),
      ofAlpha,
    ],
    [
      'one with a space only is ignored',
      () => ({ files: { a: ' \n', b: yaml() }, kubeconfig: ['a', 'b'] }),
      ofAlpha,
    ],
    [
      'one whose lists are null is ignored',
      () => ({ files: { a: 'users: null\nclusters:\ncontexts: ~\n', b: yaml() }, kubeconfig: ['a', 'b'] }),
      ofAlpha,
    ],
    [
      'empty elements of KUBECONFIG are ignored',
      () => ({ files: { a: yaml() }, kubeconfig: ['', 'a', ''] }),
      ofAlpha,
    ],
    [
      'the same one may occur twice',
      () => ({ files: { a: yaml(), b: yaml({ server: 'beta' }) }, kubeconfig: ['a', 'b', 'a'] }),
      ofAlpha,
    ],
    [
      'an invalid one is refused',
      () => ({ files: { a: yaml(), b: 'nonsense: [' }, kubeconfig: ['a', 'b'] }),
      REFUSED,
    ],
    ['a folder is refused', () => ({ files: { a: yaml(), 'b/c': '' }, kubeconfig: ['a', 'b'] }), REFUSED],
    [
      '--kubeconfig selects one',
      () => ({ files: { a: yaml(), b: yaml({ server: 'beta' }) }, options: { kubeconfig: 'b' } }),
      ofBeta,
    ],
    [
      'a missing one of --kubeconfig is refused',
      () => ({ files: { a: yaml() }, options: { kubeconfig: 'missing' } }),
      REFUSED,
    ],
    [
      'an empty --kubeconfig selects none',
      () => ({ files: { a: yaml() }, options: { kubeconfig: '' } }),
      ofAlpha,
    ],
    [
      'an empty KUBECONFIG means the one in the home folder',
      () => ({
        files: { a: yaml(), 'home/.kube/config': yaml({ server: 'beta' }) },
        env: { KUBECONFIG: '' },
      }),
      ofBeta,
    ],
  ]);
});

describe('of contexts', () => {
  const two = () => {
    const [first, second] = [configOf(), configOf({ server: 'beta' })];
    return {
      ...first,
      contexts: [...first.contexts, ...second.contexts],
      clusters: [...first.clusters, ...second.clusters],
      users: [...first.users, ...second.users],
    };
  };
  testRows([
    [
      '--context selects one',
      () => ({ files: { a: stringify(two()) }, options: { context: 'beta' } }),
      ofBeta,
    ],
    [
      'an empty --context selects none',
      () => ({ files: { a: stringify(two()) }, options: { context: '' } }),
      ofAlpha,
    ],
    [
      'one that is missing is refused',
      () => ({ files: { a: yaml() }, options: { context: 'nope' } }),
      REFUSED,
    ],
    [
      'a current one that is missing is refused',
      () => ({ files: { a: yaml({ current: 'nope' }) } }),
      REFUSED,
    ],
    [
      'the name may have spaces, colons and slashes',
      () => ({ files: { a: yaml({ context: 'arn:aws:eks:us-east-1:1:cluster/the main' }) } }),
      ofAlpha,
    ],
    [
      'two of the same name in one file are refused',
      () => ({ files: { a: stringify({ ...two(), contexts: [...two().contexts, ...two().contexts] }) } }),
      REFUSED,
    ],
    [
      'two users of the same name in one file are refused',
      () => ({ files: { a: stringify({ ...two(), users: [...two().users, ...two().users] }) } }),
      REFUSED,
    ],
    [
      'two clusters of the same name in one file are refused',
      () => ({ files: { a: stringify({ ...two(), clusters: [...two().clusters, ...two().clusters] }) } }),
      REFUSED,
    ],
    [
      'a null entry in a list is an entry without a name',
      () => ({ files: { a: stringify({ ...two(), users: [null, ...two().users] }) } }),
      ofAlpha,
    ],
    [
      'other entries may be unusable',
      () => ({
        files: {
          a: stringify({ ...two(), users: [...two().users, { name: 'x', user: { exec: { command: '' } } }] }),
        },
      }),
      ofAlpha,
    ],
  ]);
});

describe('of encodings and YAML', () => {
  const text = (change: (text: string) => string) => () => ({ files: { a: change(yaml()) } });
  const replaced = (from: string | RegExp, to: string) => text((all) => all.replace(from, () => to));
  const flow = () => JSON.stringify(configOf());
  testRows([
    ['JSON', text(flow), ofAlpha],
    ['JSON that is indented by tabs', text(() => JSON.stringify(configOf(), undefined, '\t')), ofAlpha],
    ['UTF-8 with a byte order mark', text((all) => `\ufeff${all}`), ofAlpha],
    ['UTF-16, little endian', () => ({ files: { a: Buffer.from(`\ufeff${yaml()}`, 'utf16le') } }), ofAlpha],
    [
      'UTF-16, big endian',
      () => ({ files: { a: Buffer.from(`\ufeff${yaml()}`, 'utf16le').swap16() } }),
      ofAlpha,
    ],
    ['what is not UTF-8', () => ({ files: { a: Buffer.from(`# \xe9\n${yaml()}`, 'latin1') } }), REFUSED],
    ['CRLF', text((all) => all.replaceAll('\n', '\r\n')), ofAlpha],
    ['a document marker and a directive', text((all) => `%YAML 1.1\n---\n${all}`), ofAlpha],
    ['several documents: the first', text((all) => `${all}---\n${yaml({ server: 'beta' })}`), ofAlpha],
    ['several documents: an invalid second', text((all) => `${all}---\nnonsense: [\n`), ofAlpha],
    ['several documents: an empty first', text((all) => `---\n---\n${all}`), REFUSED],
    ['a key that occurs twice: the last', text((all) => `current-context: nope\n${all}`), ofAlpha],
    ['unknown fields', text((all) => `preferences: {colors: true}\nmore: {x: [1]}\n${all}`), ofAlpha],
    ['fields in another case are unknown', replaced('current-context', 'Current-Context'), REFUSED],
    [
      'anchors, aliases and merge keys',
      () => {
        const { users, ...rest } = configOf();
        const aliases = 'x: &u {token: token-of-alpha}\nusers: [{name: user-alpha, user: {<<: *u}}]\n';
        return { files: { a: aliases + stringify(rest) + (users ? '' : '') } };
      },
      ofAlpha,
    ],
    ['a number as a name', replaced('current-context: alpha', 'current-context: 123'), REFUSED],
    ['a number in quotes', () => ({ files: { a: yaml({ context: '123' }) } }), ofAlpha],
    ['a boolean of YAML 1.1 as a name', replaced('current-context: alpha', 'current-context: on'), REFUSED],
    ['y as a name', replaced('current-context: alpha', 'current-context: y'), REFUSED],
    ['a hexadecimal number as a token', replaced('token-of-alpha', '0x1F'), REFUSED],
    ['a number with underscores as a token', replaced('token-of-alpha', '1_000'), REFUSED],
    ['an octal number as a token', replaced('token-of-alpha', '0o17'), REFUSED],
    ['a leading zero as a token', replaced('token-of-alpha', '0919'), REFUSED],
    ['an exponent as a token', replaced('token-of-alpha', '12e03'), REFUSED],
    ['not a number as a token', replaced('token-of-alpha', '.nan'), REFUSED],
    [
      'an exponent beyond all numbers as a token',
      replaced('token-of-alpha', '12e4567890'),
      { server: 'alpha', headers: bearer('12e4567890') },
    ],
    [
      'a number to the base 60 as a token',
      replaced('token-of-alpha', '190:20:30'),
      { server: 'alpha', headers: bearer('190:20:30') },
    ],
    [
      'a date as a token',
      replaced('token-of-alpha', '2026-11-27'),
      { server: 'alpha', headers: bearer('2026-11-27') },
    ],
    [
      'a number with the tag of a string as a token',
      replaced('token-of-alpha', '!!str 123'),
      { server: 'alpha', headers: bearer('123') },
    ],
    [
      'binary data as a token',
      replaced('token-of-alpha', '!!binary dG9rZW4='),
      { server: 'alpha', headers: bearer('token') },
    ],
    [
      'a string on several lines as a token',
      replaced('token-of-alpha', '>-\n        token-of-alpha'),
      ofAlpha,
    ],
    ['a list that is a map', text((all) => `${all.replace(/^users:(\n .*)+/m, '')}\nusers: {}\n`), REFUSED],
    ['a map that is a list', replaced(/^kind: Config/m, 'preferences: {}\nkind: Config'), ofAlpha],
    ['another kind', replaced('kind: Config', 'kind: Pod'), REFUSED],
    ['another apiVersion', replaced('apiVersion: v1', 'apiVersion: v2'), REFUSED],
    ['neither kind nor apiVersion', replaced(/apiVersion: v1\nkind: Config\n/, ''), ofAlpha],
    ['a text that is no map', text(() => 'nonsense'), REFUSED],
    [
      'yes as a flag',
      () => ({
        files: {
          a: yaml({ cluster: { 'certificate-authority-data': '' } }).replace(
            'server:',
            'insecure-skip-tls-verify: yes\n      server:',
          ),
        },
      }),
      ofAlpha,
    ],
    [
      'a flag in quotes',
      () => ({
        files: {
          a: yaml({ cluster: { 'certificate-authority-data': '', 'insecure-skip-tls-verify': 'true' } }),
        },
      }),
      REFUSED,
    ],
    [
      'base64 on several lines',
      () => ({
        files: {
          a: yaml({
            cluster: { 'certificate-authority-data': base64(alpha.caPem).replaceAll(/.{60}/g, '$&\n') },
          }),
        },
      }),
      ofAlpha,
    ],
    [
      'base64 with spaces',
      () => ({
        files: {
          a: yaml({ cluster: { 'certificate-authority-data': base64(alpha.caPem).replace(/.{60}/, '$& ') } }),
        },
      }),
      REFUSED,
    ],
    [
      'base64 without its padding',
      () => ({
        files: {
          a: yaml({
            cluster: {
              'certificate-authority-data': base64(
                `${alpha.caPem}\n\n`.slice(0, -((alpha.caPem.length + 1) % 3) || undefined),
              )
                .replace(/=+$/, '')
                .slice(0, -1),
            },
          }),
        },
      }),
      REFUSED,
    ],
    [
      'lists that are not indented, and comments between their items',
      text((all) => {
        const parsed = parse(all) as object;
        return `# first\n${stringify(parsed, { indentSeq: false }).replace('contexts:', 'contexts: # the contexts\n# more')}`;
      }),
      ofAlpha,
    ],
  ]);
});

describe('of clusters', () => {
  const cluster =
    (fields: object, more: Partial<Setup> = {}) =>
    () => ({
      files: { a: yaml({ cluster: fields }), ...more.files },
      ...(more.env && { env: more.env }),
    });
  testRows([
    [
      'the file of an authority is relative to the kubeconfig',
      () => ({
        files: {
          'some/a': yaml({
            cluster: { 'certificate-authority-data': undefined, 'certificate-authority': 'pki/ca.crt' },
          }),
          'some/pki/ca.crt': alpha.caPem,
        },
      }),
      ofAlpha,
    ],
    [
      'the file of an authority is relative to its own kubeconfig, of several',
      () => {
        const { clusters, ...rest } = configOf({
          cluster: { 'certificate-authority-data': undefined, 'certificate-authority': '../ca.crt' },
        });
        return {
          files: { a: stringify(rest), 'some/b': stringify({ clusters }), 'ca.crt': alpha.caPem },
          kubeconfig: ['a', 'some/b'],
        };
      },
      ofAlpha,
    ],
    [
      'a tilde is part of a name',
      cluster({ 'certificate-authority-data': undefined, 'certificate-authority': '~/ca.crt' }),
      REFUSED,
    ],
    [
      'a file of an authority besides its data is refused',
      cluster({ 'certificate-authority': 'a' }),
      REFUSED,
    ],
    [
      'a missing file of an authority is refused',
      cluster({ 'certificate-authority-data': null, 'certificate-authority': 'nope' }),
      REFUSED,
    ],
    [
      'an authority besides insecure-skip-tls-verify is refused',
      cluster({ 'insecure-skip-tls-verify': true }),
      REFUSED,
    ],
    [
      'insecure-skip-tls-verify',
      cluster({ 'certificate-authority-data': '', 'insecure-skip-tls-verify': true }),
      ofAlpha,
    ],
    ['an empty tls-server-name', cluster({ 'tls-server-name': '' }), ofAlpha],
    [
      'a tls-server-name that is not in the certificate is refused',
      cluster({ 'tls-server-name': 'x.test' }),
      REFUSED,
    ],
    ['disable-compression', cluster({ 'disable-compression': true }), ofAlpha],
    ['extensions', cluster({ extensions: [{ name: 'x', extension: { a: 1 } }] }), ofAlpha],
    ['an empty proxy-url', cluster({ 'proxy-url': '' }), ofAlpha],
    ['a proxy-url of another scheme is refused', cluster({ 'proxy-url': 'ftp://127.0.0.1:1' }), REFUSED],
    ['a server with a slash at its end', () => cluster({ server: `${alpha.url}/` })(), ofAlpha],
    ['a server with a path', () => cluster({ server: `${alpha.url}/k8s/clusters/c-m-x` })(), ofAlpha],
    ['a server with a query, which is dropped', () => cluster({ server: `${alpha.url}/k8s?x=1` })(), ofAlpha],
    [
      'a server with a user and a password, which precede a token',
      () => cluster({ server: alpha.url.replace('https://', 'https://me:canary%20password@') })(),
      { server: 'alpha', headers: { authorization: `Basic ${base64('me:canary password')}` } },
    ],
    ['a server in upper case', () => cluster({ server: alpha.url.replace('https', 'HTTPS') })(), ofAlpha],
    ['a server of another scheme is refused', () => cluster({ server: 'ftp://127.0.0.1:1' })(), REFUSED],
    [
      'a server over plain HTTP gets no credential',
      () => cluster({ server: `http://${plainUrl}` })(),
      { server: 'plain', headers: {} },
    ],
    [
      'a server without a scheme is one over plain HTTP',
      () => cluster({ server: plainUrl })(),
      { server: 'plain', headers: {} },
    ],
    [
      'a server over plain HTTP needs no user',
      () => ({
        files: {
          a: stringify({
            ...configOf({ cluster: { server: `http://${plainUrl}` } }),
            users: undefined,
            contexts: [{ name: 'alpha', context: { cluster: 'cluster-alpha' } }],
          }),
        },
      }),
      { server: 'plain', headers: {} },
    ],
    [
      'a server over plain HTTP gets the name of impersonation',
      () => ({
        files: { a: yaml({ cluster: { server: `http://${plainUrl}` }, user: { token: 'x', as: 'jane' } }) },
      }),
      { server: 'plain', headers: { 'impersonate-user': 'jane' } },
    ],
  ]);
});

describe('of users', () => {
  const user =
    (fields: () => object, files: Setup['files'] = {}) =>
    () => ({
      files: { a: yaml({ user: fields() }), ...files },
    });
  const seen = (headers: object, clientName?: string) => ({
    server: 'alpha',
    headers,
    ...(clientName !== undefined && { clientName }),
  });
  const certificate = () => ({ 'client-certificate-data': base64(cert), 'client-key-data': base64(key) });
  const basic = (text: string) => ({ authorization: `Basic ${base64(text)}` });
  testRows([
    ['tokenFile', user(() => ({ tokenFile: 't' }), { t: 'of-the-file\n' }), seen(bearer('of-the-file'))],
    [
      'tokenFile precedes token',
      user(() => ({ tokenFile: 't', token: 'other' }), { t: ' of-the-file ' }),
      seen(bearer('of-the-file')),
    ],
    [
      'token stands for a missing tokenFile',
      user(() => ({ tokenFile: 't', token: 'other' })),
      seen(bearer('other')),
    ],
    [
      'token stands for an empty tokenFile',
      user(() => ({ tokenFile: 't', token: 'other' }), { t: '' }),
      seen(bearer('other')),
    ],
    ['a missing tokenFile is refused', user(() => ({ tokenFile: 't' })), REFUSED],
    ['a client certificate', user(certificate), seen({}, 'operator')],
    [
      'a client certificate besides a token: both',
      user(() => ({ ...certificate(), token: 'x' })),
      seen(bearer('x'), 'operator'),
    ],
    [
      'files of a client certificate',
      () => user(() => ({ 'client-certificate': 'c', 'client-key': './k' }), { c: cert, k: key })(),
      seen({}, 'operator'),
    ],
    [
      'a file of a client certificate besides its data is refused',
      user(() => ({ ...certificate(), 'client-certificate': 'a' })),
      REFUSED,
    ],
    [
      'a file of a client key besides its data is refused',
      user(() => ({ ...certificate(), 'client-key': 'a' })),
      REFUSED,
    ],
    [
      'a client certificate without its key is refused',
      user(() => ({ 'client-certificate-data': base64(cert) })),
      REFUSED,
    ],
    [
      'a client key without its certificate is ignored',
      user(() => ({ 'client-key-data': base64(key), token: 'x' })),
      seen(bearer('x')),
    ],
    ['a name and a password', user(() => ({ username: 'me', password: 'canary' })), seen(basic('me:canary'))],
    [
      'a tokenFile besides a name and a password is refused',
      user(() => ({ username: 'me', password: 'p', tokenFile: 't' }), { t: 'x' }),
      REFUSED,
    ],
    [
      'a token besides a name and a password is refused',
      user(() => ({ username: 'me', password: 'p', token: 't' })),
      REFUSED,
    ],
    [
      'impersonation, with groups, a UID and extra fields',
      user(() => ({
        token: 'x',
        as: 'jane',
        'as-uid': '7',
        'as-groups': ['one', 'two'],
        'as-user-extra': { 'example.com/scopes': ['a', 'b'], 'ü%': ['c'] },
      })),
      seen({ ...bearer('x'), 'impersonate-user': 'jane', 'impersonate-group': 'one, two' }),
    ],
    [
      'groups of impersonation without a name are refused',
      user(() => ({ token: 'x', 'as-groups': ['one'] })),
      REFUSED,
    ],
    [
      'an unexpired id-token of the auth-provider oidc',
      user(() => ({ 'auth-provider': { name: 'oidc', config: oidc(4_102_444_800) } })),
      seen(bearer(jwt(4_102_444_800))),
    ],
    [
      'a token precedes an auth-provider',
      user(() => ({ token: 'x', 'auth-provider': { name: 'oidc', config: oidc(1) } })),
      seen(bearer('x')),
    ],
    [
      'an expired id-token that cannot be renewed is refused',
      user(() => ({ 'auth-provider': { name: 'oidc', config: oidc(1) } })),
      REFUSED,
    ],
    [
      'the auth-provider gcp is refused',
      user(() => ({ 'auth-provider': { name: 'gcp', config: {} } })),
      REFUSED,
    ],
    ['an unknown auth-provider is refused', user(() => ({ 'auth-provider': { name: 'x' } })), REFUSED],
    [
      'null for exec and auth-provider',
      user(() => ({ token: 'x', exec: null, 'auth-provider': null })),
      seen(bearer('x')),
    ],
  ]);
});

const jwt = (exp: number) =>
  `${Buffer.from('{"alg":"none"}').toString('base64url')}.${Buffer.from(JSON.stringify({ exp })).toString('base64url')}.c2ln`;
const oidc = (exp: number) => ({
  'id-token': jwt(exp),
  'idp-issuer-url': 'https://issuer.test',
  'client-id': 'c',
});

describe('of exec plugins', () => {
  const V1 = 'client.authentication.k8s.io/v1';
  const BETA = 'client.authentication.k8s.io/v1beta1';
  /** A plugin whose token is what the script prints, in base64. */
  const plugin = (script: string, apiVersion = V1) =>
    `#!/bin/sh
t=$(${script} | base64 -w0 | tr -d =)
echo '{"apiVersion":"${apiVersion}","kind":"ExecCredential","status":{"token":"'"$t"'"}}'
`;
  const prints = (credential: object) => `#!/bin/sh\ncat <<'EOF'\n${JSON.stringify(credential)}\nEOF\n`;
  const exec = (fields: object = {}, more: Parts = {}, script = plugin('echo hello')) => ({
    files: {
      'some/a': yaml({
        ...more,
        user: {
          ...more.user,
          exec: { apiVersion: V1, interactiveMode: 'Never', command: './plugin', ...fields },
        },
      }),
      'some/plugin': script,
    },
  });
  const credential = (status: object, apiVersion = V1) => ({ apiVersion, kind: 'ExecCredential', status });
  const saysHello = { server: 'alpha', headers: bearer(base64('hello\n').replaceAll('=', '')) };

  testRows([
    ['a command is relative to the kubeconfig', () => exec(), saysHello],
    [
      'a command without a slash is looked up in PATH only',
      () => ({ ...exec({ command: 'plugin' }), env: { PATH: process.env.PATH } }),
      REFUSED,
    ],
    ['a missing command is refused', () => exec({ command: './nope' }), REFUSED],
    ['an entry without a command is refused', () => exec({ command: '' }), REFUSED],
    [
      'v1beta1 needs no interactiveMode',
      () => exec({ apiVersion: BETA, interactiveMode: undefined }, {}, plugin('echo hello', BETA)),
      saysHello,
    ],
    ['v1 needs an interactiveMode', () => exec({ interactiveMode: undefined }), REFUSED],
    ['an unknown interactiveMode is refused', () => exec({ interactiveMode: 'Sometimes' }), REFUSED],
    [
      'an interactiveMode that needs a terminal is refused without one',
      () => exec({ interactiveMode: 'Always' }),
      REFUSED,
    ],
    ['IfAvailable works without a terminal', () => exec({ interactiveMode: 'IfAvailable' }), saysHello],
    [
      'v1alpha1 is refused',
      () => exec({ apiVersion: 'client.authentication.k8s.io/v1alpha1', interactiveMode: undefined }),
      REFUSED,
    ],
    ['no apiVersion is refused', () => exec({ apiVersion: undefined }), REFUSED],
    [
      'a credential of another apiVersion is refused',
      () => exec({}, {}, plugin('echo hello', BETA)),
      REFUSED,
    ],
    [
      'a credential of another kind is refused',
      () => exec({}, {}, prints({ ...credential({ token: 'x' }), kind: 'Secret' })),
      REFUSED,
    ],
    [
      'a credential without a status is refused',
      () => exec({}, {}, prints({ apiVersion: V1, kind: 'ExecCredential' })),
      REFUSED,
    ],
    ['a credential without a token is refused', () => exec({}, {}, prints(credential({}))), REFUSED],
    [
      'a credential with half a certificate is refused',
      () => exec({}, {}, prints(credential({ token: 'x', clientCertificateData: cert }))),
      REFUSED,
    ],
    [
      'a credential with a certificate',
      () => exec({}, {}, prints(credential({ clientCertificateData: cert, clientKeyData: key }))),
      { server: 'alpha', headers: {}, clientName: 'operator' },
    ],
    [
      'a credential in YAML',
      () =>
        exec(
          {},
          {},
          `#!/bin/sh\nprintf 'apiVersion: ${V1}\\nkind: ExecCredential\\nstatus: {token: x}\\n'\n`,
        ),
      { server: 'alpha', headers: bearer('x') },
    ],
    ['a command that fails is refused', () => exec({}, {}, '#!/bin/sh\necho why >&2\nexit 1\n'), REFUSED],
    [
      'arguments',
      () => exec({ args: ['a b', '', '$HOME'] }, {}, plugin('printf "<%s>" "$@"')),
      { server: 'alpha', headers: bearer(base64('<a b><><$HOME>').replaceAll('=', '')) },
    ],
    [
      'variables, of which the last value counts',
      () => ({
        ...exec(
          {
            env: [
              { name: 'A', value: '1' },
              { name: 'B', value: '2' },
              { name: 'A', value: '3' },
              { name: 'E', value: '' },
            ],
          },
          {},
          plugin('echo "$A $B $C $E."'),
        ),
        env: { B: 'replaced', C: 'kept' },
      }),
      { server: 'alpha', headers: bearer(base64('3 2 kept .\n').replaceAll('=', '')) },
    ],
    ['a variable without a name is refused', () => exec({ env: [{ value: '1' }] }), REFUSED],
    [
      'a token precedes a plugin',
      () => exec({}, { user: { token: 'static' } }),
      { server: 'alpha', headers: bearer('static') },
    ],
    [
      'a client certificate precedes a plugin',
      () => exec({}, { user: { 'client-certificate-data': base64(cert), 'client-key-data': base64(key) } }),
      { server: 'alpha', headers: {}, clientName: 'operator' },
    ],
    [
      'a plugin besides an auth-provider is refused',
      () => exec({}, { user: { 'auth-provider': { name: 'oidc' } } }),
      REFUSED,
    ],
    ['standard input is empty', () => exec({}, {}, plugin('cat; echo hello')), saysHello],
  ]);

  test.each([
    { title: 'without the cluster', apiVersion: V1, fields: {} },
    { title: 'with the cluster', apiVersion: V1, fields: { provideClusterInfo: true } },
    { title: 'with the cluster, of v1beta1', apiVersion: BETA, fields: { provideClusterInfo: true } },
  ])('KUBERNETES_EXEC_INFO is the same, $title', async ({ apiVersion, fields }) => {
    const cluster = {
      'tls-server-name': '127.0.0.1',
      'disable-compression': true,
      extensions: [
        { name: 'client.authentication.k8s.io/exec', extension: { audience: 'x', deep: { n: [1] } } },
      ],
    };
    const env = [{ name: 'KUBERNETES_EXEC_INFO', value: 'of the kubeconfig' }];
    const script = plugin('echo "$KUBERNETES_EXEC_INFO"', apiVersion);
    const { kubectl, cli } = await compare(exec({ ...fields, apiVersion, env }, { cluster }, script));
    const info = ({ seen: [one] }: Outcome): unknown =>
      JSON.parse(
        Buffer.from(String(one?.headers.authorization).slice('Bearer '.length), 'base64').toString(),
      );
    expect(info(cli)).toEqual(info(kubectl));
    expect(info(cli)).toMatchObject({ apiVersion, kind: 'ExecCredential', spec: { interactive: false } });
  });
});

describe('of proxies', () => {
  let port: string;
  let http: string;
  let socks: string;

  beforeAll(async () => {
    ({ port } = new URL(alpha.url));
    const toAlpha = (socket: Socket, target: string, greeting: string | Uint8Array) => {
      targets.push(target);
      const onward = connect(Number(port), '127.0.0.1', () => {
        socket.write(greeting);
        socket.pipe(onward).pipe(socket);
      });
      for (const one of [socket, onward]) one.on('error', () => onward.destroy());
    };
    const listen = async (server: NetServer) => {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
      shared.defer(() => void server.close());
      return `127.0.0.1:${(server.address() as AddressInfo).port}`;
    };
    const proxy = createServer().on('connect', ({ url = '' }, socket) => {
      toAlpha(socket as Socket, url, 'HTTP/1.1 200 Connection established\r\n\r\n');
    });
    http = await listen(proxy);
    // SOCKS5 without authentication (RFC 1928), for host names: another type of address is none of this proxy.
    const socksProxy = createNetServer((socket) => {
      socket.once('data', () => {
        socket.write(Uint8Array.of(5, 0));
        socket.once('data', (request) => {
          const name = request[3] === 3 ? request.subarray(5, 5 + (request[4] ?? 0)).toString() : 'address';
          toAlpha(
            socket,
            `${name}:${request.readUInt16BE(request.length - 2)}`,
            Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0),
          );
        });
      });
    });
    socks = await listen(socksProxy);
  });

  interface ProxyRow {
    readonly title: string;
    /** PROXY and SOCKS stand for the hosts and ports of the proxies, PORT for that of the API server. */
    readonly env?: Readonly<Record<string, string>>;
    readonly proxyUrl?: string;
    readonly host?: string;
    readonly isProxied?: boolean;
  }

  test.each<ProxyRow>([
    { title: 'HTTPS_PROXY', env: { HTTPS_PROXY: 'http://PROXY' }, isProxied: true },
    { title: 'HTTPS_PROXY without a scheme', env: { HTTPS_PROXY: 'PROXY' }, isProxied: true },
    { title: 'https_proxy', env: { https_proxy: 'http://PROXY' }, isProxied: true },
    {
      title: 'HTTPS_PROXY before https_proxy',
      env: { HTTPS_PROXY: 'http://PROXY', https_proxy: 'http://127.0.0.1:1' },
      isProxied: true,
    },
    { title: 'HTTPS_PROXY of a SOCKS proxy', env: { HTTPS_PROXY: 'socks5://SOCKS' }, isProxied: true },
    { title: 'HTTP_PROXY', env: { HTTP_PROXY: 'http://PROXY' } },
    { title: 'no proxy' },
    { title: 'proxy-url', proxyUrl: 'http://PROXY', isProxied: true },
    {
      title: 'proxy-url before HTTPS_PROXY and NO_PROXY',
      proxyUrl: 'http://PROXY',
      env: { HTTPS_PROXY: 'http://127.0.0.1:1', NO_PROXY: '*' },
      isProxied: true,
    },
    {
      title: 'proxy-url of a SOCKS proxy, which resolves the name',
      proxyUrl: 'socks5://SOCKS',
      isProxied: true,
    },
    ...[
      ['*'],
      ['api.example.test'],
      ['example.test'],
      ['.example.test'],
      ['*.example.test'],
      ['test'],
      ['EXAMPLE.Test'],
      [' x , api.example.test '],
      ['api.example.test:PORT'],
      ['api.example.test:1', true],
      ['pi.example.test', true],
      ['example.test.', true],
      ['10.0.0.0/8,x', true],
      ['', true],
    ].map(([NO_PROXY, isProxied = false]) => ({
      title: `NO_PROXY=${NO_PROXY}`,
      env: { HTTPS_PROXY: 'http://PROXY', NO_PROXY: String(NO_PROXY) },
      isProxied: isProxied === true,
    })),
    ...[
      ['0.0.0.0'],
      ['0.0.0.0/8'],
      ['0.0.0.0:PORT'],
      ['0.0.0.0:1', true],
      ['10.0.0.0/8', true],
      ['0.0.0.0/33', true],
      ['0', true],
      ['*.0', true],
    ].map(([NO_PROXY, isProxied = false]) => ({
      title: `NO_PROXY=${NO_PROXY} for an address`,
      host: '0.0.0.0',
      env: { HTTPS_PROXY: 'http://PROXY', NO_PROXY: String(NO_PROXY) },
      isProxied: isProxied === true,
    })),
    { title: 'HTTPS_PROXY for localhost', host: 'localhost', env: { HTTPS_PROXY: 'http://PROXY' } },
    { title: 'HTTPS_PROXY for a loopback address', host: '127.0.0.1', env: { HTTPS_PROXY: 'http://PROXY' } },
  ])('$title', async ({ env = {}, proxyUrl, host = 'api.example.test', isProxied = false }) => {
    const filled = (text: string) =>
      text.replace('PROXY', http).replace('SOCKS', socks).replace('PORT', port);
    const cluster = {
      server: `https://${host}:${port}`,
      'tls-server-name': '127.0.0.1',
      ...(proxyUrl !== undefined && { 'proxy-url': filled(proxyUrl) }),
    };
    const { kubectl, cli } = await compare({
      files: { a: yaml({ cluster }) },
      env: Object.fromEntries(Object.entries(env).map(([name, value]) => [name, filled(value)])),
    });
    const { isSuccess, seen } = kubectl;
    expect(cli, cli.reason).toMatchObject({ isSuccess, seen, targets: kubectl.targets });
    expect(cli.isSuccess).toBe(isProxied || host !== 'api.example.test');
    expect(cli.targets).toEqual(isProxied ? [`${host}:${port}`] : []);
  });

  test('an environment without a valid URL of a proxy is an error that shows no password', async () => {
    const env = { HTTPS_PROXY: 'ftp://me:canary-password@127.0.0.1:1' };
    const server = `https://api.example.test:${port}`;
    const { cli } = await compare({ files: { a: yaml({ cluster: { server } }) }, env });
    expect(cli).toMatchObject({
      isSuccess: false,
      code: 'network',
      hint: expect.stringContaining('HTTPS_PROXY'),
    });
    expect(cli.reason).not.toContain('canary');
  });
});

test('a client with another signal keeps its context, although the current context has changed since', async () => {
  const { path } = stack.use(await mkdtempDisposable(join(tmpdir(), 'kubeconfig-')));
  const kubeconfig = join(path, 'a');
  await writeFile(kubeconfig, yaml());
  const client = Kubernetes.load({ kubeconfig }, AbortSignal.abort());
  await writeFile(kubeconfig, yaml({ server: 'beta' }));
  requests = [];
  await client.withSignal(AbortSignal.timeout(20_000)).get('/version');
  expect(requests).toMatchObject([ofAlpha]);
});

test('requests at the same time share a run of the exec plugin', async () => {
  const { path } = stack.use(await mkdtempDisposable(join(tmpdir(), 'kubeconfig-')));
  const [kubeconfig, runs] = [join(path, 'a'), join(path, 'runs')];
  const apiVersion = 'client.authentication.k8s.io/v1';
  const credential = JSON.stringify({
    apiVersion,
    kind: 'ExecCredential',
    status: { token: 'of-the-plugin' },
  });
  const args = ['-c', `echo run >> '${runs}'; echo '${credential}'`];
  await writeFile(
    kubeconfig,
    yaml({ user: { exec: { apiVersion, interactiveMode: 'Never', command: 'sh', args } } }),
  );
  const client = Kubernetes.load({ kubeconfig }, AbortSignal.timeout(20_000));
  await Promise.all([1, 2, 3].map(() => client.get('/version')));
  await client.get('/version');
  expect(await readFile(runs, 'utf8')).toBe('run\n');
});

describe('different from kubectl on purpose', () => {
  const alphaWithout = (list: 'clusters' | 'users') => stringify({ ...configOf(), [list]: [] });

  test.each<[string, () => Setup, string]>([
    ['no kubeconfig', () => ({ files: {}, env: { KUBECONFIG: undefined } }), 'no-kubeconfig'],
    ['KUBECONFIG of missing files', () => ({ files: {}, kubeconfig: ['x', 'y'] }), 'no-kubeconfig'],
    ['an empty kubeconfig', () => ({ files: { a: '' } }), 'no-context'],
    ['no current context', () => ({ files: { a: yaml({ current: null }) } }), 'no-context'],
    ['a missing cluster', () => ({ files: { a: alphaWithout('clusters') } }), 'no-context'],
    ['a cluster without a server', () => ({ files: { a: yaml({ cluster: { server: '' } }) } }), 'no-context'],
  ])('%s is an error, where kubectl calls localhost:8080', async (_, setup, code) => {
    const { kubectl, cli } = await compare(setup());
    expect(kubectl.reason).toMatch(/localhost:8080/);
    expect(cli).toMatchObject({ isSuccess: false, seen: [], code });
  });

  test('for a user without a credential, sends none, where kubectl asks for a name and a password', async () => {
    const { kubectl, cli } = await compare({ files: { a: yaml({ user: {} }) } });
    expect(kubectl).toMatchObject({ isSuccess: false, seen: [] });
    expect(cli).toMatchObject({ isSuccess: true, seen: [{ server: 'alpha', headers: {} }] });
  });

  test('a missing user is an error, where kubectl asks for a name and a password', async () => {
    const { kubectl, cli } = await compare({ files: { a: alphaWithout('users') } });
    expect(kubectl).toMatchObject({ isSuccess: false, seen: [] });
    expect(cli).toMatchObject({ isSuccess: false, seen: [], code: 'no-context' });
  });

  test('a flow collection must be indented', async () => {
    const { users, ...rest } = configOf();
    const { kubectl, cli } = await compare({
      files: { a: `${stringify(rest)}users: [\n${JSON.stringify(users[0])}\n]\n` },
    });
    expect(kubectl).toMatchObject({ isSuccess: true });
    expect(cli).toMatchObject({ isSuccess: false, code: 'kubeconfig-unreadable' });
  });

  test('does not renew an id-token, and names the kubectl command that does', async () => {
    const config = {
      ...oidc(1),
      'refresh-token': 'canary-refresh-token',
      'idp-issuer-url': 'https://127.0.0.1:1',
    };
    const user = { 'auth-provider': { name: 'oidc', config } };
    const { cli } = await compare({ files: { a: yaml({ user }) }, options: { kubeconfig: 'a' } });
    expect(cli).toMatchObject({ code: 'kubernetes-unauthorized', seen: [] });
    expect(cli.hint).toMatch(/kubectl --kubeconfig \S+\/a --context alpha auth whoami$/);
  });
});
