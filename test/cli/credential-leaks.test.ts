// Checks that the command line leaks no canary, which is a recognisable fake credential: not in its output, even if AWS or a
// server quotes it, nor in process arguments, in the environment of an exec plugin, or in files.
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';
import type { Ended, RunOptions } from './command-line.ts';
import { createManagedSecret, type Operator, startOperator } from './operator.ts';
import { awsError, DEPLOYED, functionAnswer } from './wire.ts';

const canary = (name: string) => `canary-${name}-${randomBytes(16).toString('hex')}`;

/** Canaries by name. The tests add the credentials that they create. */
const canaries = new Map<string, string>();
const PLANTED = {
  secretKey: canary('aws-secret-key'),
  sessionToken: canary('aws-session-token'),
  profileKey: canary('profile-key'),
  profileToken: canary('profile-token'),
  proxyPassword: canary('proxy-password'),
  credentialToken: canary('credential-file'),
  kubeconfigToken: canary('kubeconfig-token'),
  serverPassword: canary('server-password'),
} as const;
for (const [name, value] of Object.entries(PLANTED)) canaries.set(name, value);

let operator: Operator;
let proxy: Server;
/** Its host and port. */
let proxyHost = '';
let dir = '';
/** File that the exec plugin writes its environment to. */
let dump = '';
const outputs: { readonly args: string; readonly text: string }[] = [];
/** Command lines of the CLI and all its child processes, from /proc. */
const commandLines = new Set<string>();

beforeAll(async () => {
  operator = await startOperator();
  dir = operator.bed.dir;
  dump = join(dir, 'dump');
  for (const name of ['alpha', 'beta'] as const) {
    const { identity } = readKubeconfig(readFileSync(operator.kubeconfigs[name], 'utf8'));
    if ('token' in identity) canaries.set(`administrator of ${name}`, identity.token);
  }
  await createManagedSecret(operator.bed.cluster('beta').controlPlane);
  // Quotes the credential in its response, as some proxies do.
  proxy = createServer().on('connect', (request, socket) => {
    const message = `you sent ${request.headers['proxy-authorization']}`;
    socket.end(
      `HTTP/1.1 407 ${message}\r\nx-message: ${message}\r\ncontent-length: ${message.length}\r\n\r\n${message}`,
    );
  });
  proxy.listen(0, '127.0.0.1');
  await new Promise((resolve) => proxy.once('listening', resolve));
  proxyHost = `127.0.0.1:${(proxy.address() as AddressInfo).port}`;
  mkdirSync(join(operator.cli.home, 'tmp'));
}, 300_000);
afterAll(async () => {
  proxy?.close();
  await operator?.[Symbol.asyncDispose]();
});
afterEach(() => operator.reset());

/** The operator's environment, which exec plugins may see. */
const ownEnv = () => ({
  AWS_SECRET_ACCESS_KEY: PLANTED.secretKey,
  TMPDIR: join(operator.cli.home, 'tmp'),
});

function processesOf(pid: number): string[] {
  try {
    const children = readdirSync(`/proc/${pid}/task`).flatMap((task) =>
      readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim().split(' ').filter(Boolean),
    );
    return [
      readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' '),
      ...children.flatMap((child) => processesOf(Number(child))),
    ];
  } catch {
    // The process has ended.
    return [];
  }
}

/** Runs a command, and records its output, its processes and the credentials that it sent. */
async function run(args: string, options: RunOptions = {}): Promise<Ended> {
  let timer: NodeJS.Timeout | undefined;
  const ended = await operator.cli.run(args.split(' '), {
    ...options,
    env: { ...ownEnv(), ...options.env },
    onStart: (child) => {
      timer = setInterval(() => {
        for (const line of processesOf(child.pid ?? 0)) commandLines.add(line);
      }, 20);
    },
  });
  clearInterval(timer);
  for (const { headers, body } of [operator.aws, ...Object.values(operator.clusters)].flatMap(
    ({ calls }) => calls,
  )) {
    const [, token] = /^Bearer (.+)$/.exec(headers.authorization ?? '') ?? [];
    if (token !== undefined && !canaries.values().some((value) => value === token))
      canaries.set(`bearer token ${canaries.size}`, token);
    const { SecretString } = (/"SecretString"/.test(body) ? JSON.parse(body) : {}) as {
      SecretString?: string;
    };
    // Not the placeholder of a new registration.
    if (SecretString?.includes('apiVersion'))
      canaries.set(`registered kubeconfig ${canaries.size}`, SecretString);
  }
  outputs.push({ args, text: `${ended.stdout}\n${ended.stderr}` });
  return ended;
}

const runBoth = async (args: string, options: RunOptions = {}) => {
  const ended = await run(args, options);
  await run(`${args} --output json`, options);
  return ended;
};

/** Runs commands that fail and change nothing, at the same time, each as text and as JSON. */
async function expectFailures(commands: readonly string[], options: RunOptions = {}): Promise<void> {
  const all = commands.flatMap((args) => [args, `${args} --output json`]);
  for (const { code, stderr } of await Promise.all(all.map((args) => run(args, options))))
    expect(code, stderr).toBeGreaterThan(0);
}

/** The encodings in which a value may appear. */
function formsOf(value: string): string[] {
  const trimmed = value.trim();
  return [
    trimmed,
    encodeURIComponent(trimmed),
    JSON.stringify(trimmed).slice(1, -1),
    Buffer.from(trimmed).toString('base64'),
    Buffer.from(`me:${trimmed}`).toString('base64'),
  ];
}

function canariesIn(text: string): string[] {
  return [...canaries].flatMap(([name, value]) =>
    formsOf(value).some((form) => text.includes(form)) ? [name] : [],
  );
}

function kubeconfigWith(name: string, change: (text: string) => string): string {
  const path = join(dir, `${name}.kubeconfig`);
  writeFileSync(path, change(readFileSync(operator.kubeconfigs.beta, 'utf8')), { mode: 0o600 });
  return path;
}

const STATUS = (code: number, message: string) => ({
  status: code,
  headers: { 'content-type': 'application/json' },
  body: JSON.stringify({ kind: 'Status', message }),
});

/** The files below a folder, with their content. */
function filesBelow(folder: string): Map<string, string> {
  return new Map(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .map((name) => join(folder, name))
      .filter((path) => statSync(path).isFile())
      .map((path) => [path, readFileSync(path, 'latin1')]),
  );
}

test('the scan finds every canary in every form', () => {
  for (const [name, value] of canaries)
    for (const form of formsOf(value)) expect(canariesIn(`some ${form} text`), name).toContain(name);
});

test('successful commands print no canary', async () => {
  const before = filesBelow(operator.cli.home);
  expect(await run('register beta')).toMatchObject({ code: 0 });
  for (const args of [
    'status -o wide',
    'status',
    'doctor beta',
    'doctor',
    'refresh beta --force',
    'pause beta',
    'resume beta',
    'register beta --replace',
    'register beta --replace --dry-run',
  ])
    expect((await runBoth(args)).code, args).toBe(0);
  // The commands received a ServiceAccount token, and the webhook received passwords of ECR.
  expect([...canaries.values()].filter((value) => /^eyJ.*\..*\./.test(value)).length).toBeGreaterThan(1);
  for (const { password = '' } of operator.bed.ecr.calls) canaries.set(`ECR ${canaries.size}`, password);
  expect(operator.bed.ecr.calls.length).toBeGreaterThan(0);
  expect((await runBoth('unregister beta')).code).toBe(0);
  expect([...filesBelow(operator.cli.home).keys()]).toEqual([...before.keys()]);
});

describe('an error of AWS that quotes a credential', () => {
  const echoes = (token: string) => [
    `The request signature we calculated does not match. The Canonical String should have been 'POST\n/\n\nhost:x\nx-amz-security-token:${token}\n\nhost'`,
    `Authorization: Bearer ${token}`,
    `invalid token "${token}"`,
    `SecretAccessKey=${token}`,
  ];
  const CODES = ['SignatureDoesNotMatch', 'InvalidSignature', 'AccessDenied', 'ExpiredToken', 'Validation'];
  test.each([...CODES, 'InternalFailure'])('%s', { timeout: 90_000 }, async (code) => {
    const env = { AWS_SESSION_TOKEN: PLANTED.sessionToken };
    const AWS_SHARED_CREDENTIALS_FILE = join(dir, 'credentials');
    writeFileSync(
      AWS_SHARED_CREDENTIALS_FILE,
      `[canary]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = ${PLANTED.profileKey}\naws_session_token = ${PLANTED.profileToken}\n`,
      { mode: 0o600 },
    );
    const fromProfile = {
      ...{ AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined, AWS_SHARED_CREDENTIALS_FILE },
    };
    for (const call of ['cloudformation:DescribeStacks', 'lambda:InvokeFunction status']) {
      operator.aws.handle = ({ name, headers }) => {
        const message = echoes(String(headers['x-amz-security-token'])).join('; ');
        return { reply: name === call ? awsError(call, code, message) : DEPLOYED };
      };
      await Promise.all([run('status', { env }), run('status --profile canary', { env: fromProfile })]);
    }
    const sent = operator.aws.calls.map(({ headers }) => headers['x-amz-security-token']);
    expect(new Set(sent)).toEqual(new Set([PLANTED.sessionToken, PLANTED.profileToken]));
  });

  test('from a function', async () => {
    for (const message of echoes(PLANTED.secretKey)) {
      operator.aws.handle = ({ name }) =>
        name.startsWith('lambda:')
          ? { reply: functionAnswer({ errorMessage: message }, 'Unhandled') }
          : undefined;
      await expectFailures(['status', 'doctor beta']);
    }
  });
});

describe('a server or a proxy that quotes a credential', () => {
  test.each([401, 403, 404, 500, 200])('an API server with HTTP %s', async (code) => {
    for (const asBody of [false, true]) {
      operator.clusters.beta.handle = ({ headers }) => {
        const message = `bad request: Authorization: ${headers.authorization}; ${headers.authorization}`;
        return { reply: asBody ? { status: code, body: message } : STATUS(code, message) };
      };
      await expectFailures(['register beta', 'doctor beta']);
    }
  });

  test('a proxy whose URL has a password', async () => {
    for (const [scheme, host] of [
      ['http', proxyHost],
      ['http', '127.0.0.1:1'],
      ['http', 'proxy.invalid:3128'],
      ['socks5', '127.0.0.1:1'],
      ['gopher', '127.0.0.1:1'],
      ['http', '[::1:3128'],
    ]) {
      const url = `${scheme}://me:${PLANTED.proxyPassword}@${host}`;
      const path = kubeconfigWith('proxy', (text) =>
        text.replace(/( +)server: /, `$1proxy-url: "${url}"\n$1server: `),
      );
      await expectFailures([`register beta --kubeconfig ${path}`, `doctor beta --kubeconfig ${path}`]);
    }
  });

  test('a proxy for AWS whose URL has a password', async () => {
    for (const host of [proxyHost, '127.0.0.1:1', 'proxy.invalid:3128', '[::1:3128']) {
      const HTTPS_PROXY = `http://me:${PLANTED.proxyPassword}@${host}`;
      const env = { HTTPS_PROXY, AWS_ENDPOINT_URL: 'https://aws.invalid' };
      await expectFailures(['status', 'doctor beta'], { env });
    }
  });

  test('a server whose URL has a password', async () => {
    const path = kubeconfigWith('server', (text) =>
      text.replace('https://', `https://me:${PLANTED.serverPassword}@`),
    );
    await runBoth(`register beta --kubeconfig ${path}`);
    await runBoth(`register beta --kubeconfig ${path} --dry-run`);
    await run('unregister beta --keep-token');
    const { code, stderr } = await run(`register beta --server https://me:${'x'.repeat(20)}@host`);
    expect({ code, stderr }).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('must not contain a user name or a password'),
    });
  });
});

describe('files with credentials', () => {
  test('rejected and invalid files of --credential are not printed', async () => {
    const token = kubeconfigWith('credential', (text) =>
      text.replace(/token: .*/, `token: ${PLANTED.credentialToken}`),
    );
    const broken = kubeconfigWith('broken', (text) =>
      text.replace(/token: .*/, `token: [${PLANTED.credentialToken}`),
    );
    const certificate = join(dir, 'certificate.kubeconfig');
    const text = await operator.bed.cluster('beta').controlPlane.kubeconfigFor('someone', ['nobodies']);
    writeFileSync(certificate, text, { mode: 0o600 });
    const { identity } = readKubeconfig(text);
    if ('key' in identity) canaries.set('client key', identity.key);
    await expectFailures([token, broken, certificate].map((path) => `register beta --credential ${path}`));
  });

  test('rejected and invalid kubeconfigs of the operator are not printed', async () => {
    for (const [name, value] of [
      ['wrong', PLANTED.kubeconfigToken],
      ['unreadable', `{${PLANTED.kubeconfigToken}: [`],
      ['unprintable', `"${PLANTED.kubeconfigToken}\\n"`],
    ] as const) {
      const path = kubeconfigWith(name, (text) => text.replace(/token: .*/, `token: ${value}`));
      await expectFailures([`register beta --kubeconfig ${path}`, `doctor beta --kubeconfig ${path}`]);
    }
  });
});

describe('an exec plugin', () => {
  const plugin = () => join(dir, 'plugin');
  const execKubeconfig = (args: readonly string[] = []) =>
    kubeconfigWith('exec', (text) =>
      text.replace(
        /token: .*/,
        `exec: ${JSON.stringify({ apiVersion: 'client.authentication.k8s.io/v1', interactiveMode: 'Never', command: plugin(), args })}`,
      ),
    );

  test("gets only the operator's environment and its own arguments", async () => {
    const token = canaries.get('administrator of beta') ?? '';
    const credential = JSON.stringify({
      apiVersion: 'client.authentication.k8s.io/v1',
      kind: 'ExecCredential',
      status: { token },
    });
    writeFileSync(
      plugin(),
      `#!/bin/sh\nenv -0 >> ${dump}\ntr '\\0' ' ' < /proc/$$/cmdline >> ${dump}.arguments\nsleep 0.1\necho '${credential}'\n`,
    );
    chmodSync(plugin(), 0o700);
    expect(await run(`register beta --kubeconfig ${execKubeconfig(['one', 'two'])}`)).toMatchObject({
      code: 0,
    });
    expect((await runBoth(`doctor beta --kubeconfig ${execKubeconfig()}`)).code).toBe(0);
    await run('unregister beta --keep-token');
    const received = readFileSync(dump, 'utf8').split('\0').filter(Boolean);
    const KUBERNETES_EXEC_INFO =
      '{"kind":"ExecCredential","apiVersion":"client.authentication.k8s.io/v1","spec":{"interactive":false}}';
    const own = Object.entries({ ...operator.cli.env, ...ownEnv(), KUBERNETES_EXEC_INFO }).map(
      ([name, value]) => `${name}=${value}`,
    );
    expect(new Set(received.filter((one) => !/^(PWD|OLDPWD|SHLVL|_)=/.test(one)))).toEqual(new Set(own));
    expect(canariesIn(readFileSync(`${dump}.arguments`, 'utf8'))).toEqual([]);
    expect([...commandLines].some((line) => line.includes(plugin()))).toBe(true);
  });

  test('that prints its token and fails', async () => {
    const token = canaries.get('administrator of beta') ?? '';
    for (const script of [
      `echo 'token: ${token}' >&2; exit 1`,
      `echo 'Authorization: Bearer ${token}' >&2; exit 1`,
      `echo '${token}'`,
      `echo '{"status": {"token": "${token}"'`,
    ]) {
      writeFileSync(plugin(), `#!/bin/sh\n${script}\n`);
      const kubeconfig = execKubeconfig();
      await expectFailures([
        `register beta --kubeconfig ${kubeconfig}`,
        `doctor beta --kubeconfig ${kubeconfig}`,
      ]);
    }
  });
});

test('no output contains a canary', () => {
  expect(outputs.length).toBeGreaterThan(100);
  expect(canaries.size).toBeGreaterThan(15);
  const leaks = outputs.flatMap(({ args, text }) =>
    canariesIn(text).map((name) => `${args}: ${name}: ${text}`),
  );
  expect(leaks).toEqual([]);
});

test('no process argument contains a canary', () => {
  expect([...commandLines].some((line) => line.includes('ecr-anywhere register beta'))).toBe(true);
  expect([...commandLines].flatMap((line) => canariesIn(line))).toEqual([]);
});

test('no file contains a canary', () => {
  const files = [...filesBelow(operator.cli.home)];
  expect(files.filter(([, text]) => canariesIn(text).length > 0).map(([path]) => path)).toEqual([]);
});
