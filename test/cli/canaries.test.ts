// Recognisable credentials wherever the command line touches one: none of them is printed, whatever goes wrong and
// whoever repeats it, nor in the arguments of a process, nor in an environment that is not the operator's own, nor left
// in a file.
import { randomBytes } from 'node:crypto';
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { toCliError } from '../../cli/output/errors.ts';
import { redact } from '../../cli/output/redact.ts';
import { createProgram } from '../../cli/program.ts';
import { readKubeconfig } from '../../lib/kubernetes/kubeconfig.ts';
import type { Ended, RunOptions } from './command-line.ts';
import { type Operator, startOperator } from './operator.ts';
import { awsError, DEPLOYED, functionAnswer } from './wire.ts';

const canary = (name: string) => `canary-${name}-${randomBytes(16).toString('hex')}`;

/** By name; more come as they are made. */
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
let dir = '';
/** What the exec plugin saw. */
let dump = '';
const outputs: { readonly args: string; readonly text: string }[] = [];
/** Of the command line and all its children: command lines as /proc has them. */
const commandLines = new Set<string>();

beforeAll(async () => {
  operator = await startOperator();
  dir = operator.bed.dir;
  dump = join(dir, 'dump');
  for (const name of ['alpha', 'beta'] as const) {
    const { identity } = readKubeconfig(readFileSync(operator.kubeconfigs[name], 'utf8'));
    if ('token' in identity) canaries.set(`administrator of ${name}`, identity.token);
  }
  const namespace = 'metadata: {name: team-a, labels: {ecr-anywhere.centml.ai/namespace: enabled}}';
  const secret =
    'metadata: {name: ecr, namespace: team-a, labels: {ecr-anywhere.centml.ai/managed: "true"}}\ntype: kubernetes.io/dockerconfigjson';
  await operator.bed.cluster('beta').controlPlane.kubectl(['apply', '-f', '-'], {
    input: `apiVersion: v1\nkind: Namespace\n${namespace}\n---\napiVersion: v1\nkind: Secret\n${secret}\n`,
  });
  // Repeats what it was sent, as some do.
  proxy = createServer().on('connect', (request, socket) => {
    const said = `you sent ${request.headers['proxy-authorization']}`;
    socket.end(`HTTP/1.1 407 ${said}\r\nx-said: ${said}\r\ncontent-length: ${said.length}\r\n\r\n${said}`);
  });
  proxy.listen(0, '127.0.0.1');
  await new Promise((resolve) => proxy.once('listening', resolve));
  mkdirSync(join(operator.cli.home, 'tmp'));
}, 300_000);
afterAll(async () => {
  proxy?.close();
  await operator?.[Symbol.asyncDispose]();
});
afterEach(() => operator.calm());

/** The operator's own: what plugins may see. */
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
    // It has ended.
    return [];
  }
}

/** Runs a command, as text and as JSON where it prints any, and keeps what it said and who ran. */
async function run(args: string, options: RunOptions = {}): Promise<Ended> {
  let timer: NodeJS.Timeout | undefined;
  const ended = await operator.cli.run(args.split(' '), {
    ...options,
    env: { ...ownEnv(), ...options.env },
    onStart: (child) => {
      timer = setInterval(() => {
        for (const line of processesOf(child.pid ?? 0)) commandLines.add(line);
      }, 5);
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
    if (SecretString !== undefined) canaries.set(`registered kubeconfig ${canaries.size}`, SecretString);
  }
  outputs.push({ args, text: `${ended.stdout}\n${ended.stderr}` });
  return ended;
}

const both = async (args: string, options: RunOptions = {}) => {
  const ended = await run(args, options);
  await run(`${args} --output json`, options);
  return ended;
};

/** A value in the forms in which it may turn up. */
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

function found(text: string): string[] {
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

/** Every file below a folder, and its content. */
function filesBelow(folder: string): Map<string, string> {
  return new Map(
    readdirSync(folder, { recursive: true, encoding: 'utf8' })
      .map((name) => join(folder, name))
      .filter((path) => statSync(path).isFile())
      .map((path) => [path, readFileSync(path, 'latin1')]),
  );
}

test('a scan finds each of them, in each form', () => {
  for (const [name, value] of canaries)
    for (const form of formsOf(value)) expect(found(`some ${form} text`), name).toContain(name);
});

test('all that works', async () => {
  const left = filesBelow(operator.cli.home);
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
    expect((await both(args)).code, args).toBe(0);
  // A token that was minted, and ECR's, were there to be printed.
  expect([...canaries.values()].filter((value) => /^eyJ.*\..*\./.test(value)).length).toBeGreaterThan(1);
  for (const { password = '' } of operator.bed.ecr.calls) canaries.set(`ECR ${canaries.size}`, password);
  expect(operator.bed.ecr.calls.length).toBeGreaterThan(0);
  expect((await both('unregister beta')).code).toBe(0);
  expect([...filesBelow(operator.cli.home).keys()]).toEqual([...left.keys()]);
});

describe('what AWS repeats', () => {
  const echoes = (token: string) => [
    `The request signature we calculated does not match. The Canonical String should have been 'POST\n/\n\nhost:x\nx-amz-security-token:${token}\n\nhost'`,
    `Authorization: Bearer ${token}`,
    `invalid token "${token}"`,
    `SecretAccessKey=${token}`,
  ];
  test.each([
    'SignatureDoesNotMatch',
    'InvalidSignature',
    'AccessDenied',
    'ExpiredToken',
    'Validation',
    'InternalFailure',
  ])(
    '%s',
    async (code) => {
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
        operator.aws.treat = ({ name, headers }) => {
          const said = echoes(String(headers['x-amz-security-token'])).join('; ');
          return { reply: name === call ? awsError(call, code, said) : DEPLOYED };
        };
        await run('status', { env });
        await run('status --profile canary', { env: fromProfile });
      }
      const sent = operator.aws.calls.map(({ headers }) => headers['x-amz-security-token']);
      expect(new Set(sent)).toEqual(new Set([PLANTED.sessionToken, PLANTED.profileToken]));
    },
    90_000,
  );

  test('a function', async () => {
    for (const said of echoes(PLANTED.secretKey)) {
      operator.aws.treat = ({ name }) =>
        name.startsWith('lambda:')
          ? { reply: functionAnswer({ errorMessage: said }, 'Unhandled') }
          : undefined;
      await run('status');
      await run('doctor beta');
    }
  });
});

describe('what an API server or a proxy repeats', () => {
  test.each([401, 403, 404, 500, 200])('HTTP %s', async (code) => {
    for (const asBody of [false, true]) {
      operator.clusters.beta.treat = ({ headers }) => {
        const said = `bad request: Authorization: ${headers.authorization}; ${headers.authorization}`;
        return { reply: asBody ? { status: code, body: said } : STATUS(code, said) };
      };
      for (const args of ['register beta', 'doctor beta']) expect((await both(args)).code).toBeGreaterThan(0);
    }
  });

  test('a proxy with a password', async () => {
    const address = proxy.address();
    const port = typeof address === 'object' ? address?.port : 0;
    for (const [name, url] of [
      ['repeating', `http://me:${PLANTED.proxyPassword}@127.0.0.1:${port}`],
      ['closed', `http://me:${PLANTED.proxyPassword}@127.0.0.1:1`],
      ['nowhere', `http://me:${PLANTED.proxyPassword}@proxy.invalid:3128`],
      ['socks', `socks5://me:${PLANTED.proxyPassword}@127.0.0.1:1`],
      ['strange', `gopher://me:${PLANTED.proxyPassword}@127.0.0.1:1`],
      ['malformed', `http://me:${PLANTED.proxyPassword}@[::1:3128`],
    ] as const) {
      const path = kubeconfigWith(name, (text) =>
        text.replace(/( +)server: /, `$1proxy-url: "${url}"\n$1server: `),
      );
      for (const command of ['register beta', 'doctor beta'])
        expect((await both(`${command} --kubeconfig ${path}`)).code, name).toBeGreaterThan(0);
    }
  });

  test('a proxy with a password, on the way to AWS', async () => {
    const address = proxy.address();
    const port = typeof address === 'object' ? address?.port : 0;
    for (const at of [`127.0.0.1:${port}`, '127.0.0.1:1', 'proxy.invalid:3128', '[::1:3128']) {
      const HTTPS_PROXY = `http://me:${PLANTED.proxyPassword}@${at}`;
      const env = { HTTPS_PROXY, AWS_ENDPOINT_URL: 'https://aws.invalid' };
      for (const command of ['status', 'doctor beta'])
        expect((await both(command, { env })).code, at).toBeGreaterThan(0);
    }
  });

  test('a server with a password', async () => {
    const path = kubeconfigWith('server', (text) =>
      text.replace('https://', `https://me:${PLANTED.serverPassword}@`),
    );
    await both(`register beta --kubeconfig ${path}`);
    await both(`register beta --kubeconfig ${path} --dry-run`);
    await run('unregister beta --keep-token');
    const { code, stderr } = await run(`register beta --server https://me:${'x'.repeat(20)}@host`);
    expect({ code, stderr }).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('must not contain a user name or a password'),
    });
  });
});

describe('files with credentials', () => {
  test('--credential: a token that nobody takes, a key, and one that is no kubeconfig', async () => {
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
    for (const path of [token, broken, certificate])
      expect((await both(`register beta --credential ${path}`)).code).toBeGreaterThan(0);
  });

  test('a kubeconfig of the operator: a token that nobody takes, and one that is none', async () => {
    for (const [name, value] of [
      ['wrong', PLANTED.kubeconfigToken],
      ['unreadable', `{${PLANTED.kubeconfigToken}: [`],
      ['unprintable', `"${PLANTED.kubeconfigToken}\\n"`],
    ] as const) {
      const path = kubeconfigWith(name, (text) => text.replace(/token: .*/, `token: ${value}`));
      for (const command of ['register beta', 'doctor beta'])
        expect((await both(`${command} --kubeconfig ${path}`)).code).toBeGreaterThan(0);
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

  test("sees the operator's own environment and arguments, and no more", async () => {
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
    expect((await both(`doctor beta --kubeconfig ${execKubeconfig()}`)).code).toBe(0);
    await run('unregister beta --keep-token');
    const seen = readFileSync(dump, 'utf8').split('\0').filter(Boolean);
    const own = Object.entries({ ...operator.cli.env, ...ownEnv() }).map(
      ([name, value]) => `${name}=${value}`,
    );
    expect(new Set(seen.filter((one) => !/^(PWD|OLDPWD|SHLVL|_)=/.test(one)))).toEqual(new Set(own));
    expect(found(readFileSync(`${dump}.arguments`, 'utf8'))).toEqual([]);
    expect([...commandLines].some((line) => line.includes(plugin()))).toBe(true);
  });

  test('that fails, and prints its token on the way', async () => {
    const token = canaries.get('administrator of beta') ?? '';
    for (const script of [
      `echo 'token: ${token}' >&2; exit 1`,
      `echo 'Authorization: Bearer ${token}' >&2; exit 1`,
      `echo '${token}'`,
      `echo '{"status": {"token": "${token}"'`,
    ]) {
      writeFileSync(plugin(), `#!/bin/sh\n${script}\n`);
      expect((await both(`register beta --kubeconfig ${execKubeconfig()}`)).code).toBeGreaterThan(0);
      await run(`doctor beta --kubeconfig ${execKubeconfig()}`);
    }
  });
});

test('nothing that was printed holds one', () => {
  expect(outputs.length).toBeGreaterThan(100);
  expect(canaries.size).toBeGreaterThan(15);
  const leaks = outputs.flatMap(({ args, text }) => found(text).map((name) => `${args}: ${name}: ${text}`));
  expect(leaks).toEqual([]);
});

test('no process had one among its arguments', () => {
  expect([...commandLines].some((line) => line.includes('ecr-anywhere register beta'))).toBe(true);
  expect([...commandLines].flatMap((line) => found(line))).toEqual([]);
});

test('no file that is left holds one', () => {
  const files = [...filesBelow(operator.cli.home)];
  expect(files.filter(([, text]) => found(text).length > 0).map(([path]) => path)).toEqual([]);
});

test('no option and no argument takes a credential: only files and names', () => {
  const all = createProgram(new AbortController().signal).commands.flatMap((command) =>
    command.options.map((option) => ({ command: command.name(), option })),
  );
  const withValue = all.filter(({ option }) => option.required || option.optional);
  expect(withValue.length).toBeGreaterThan(20);
  for (const { command, option } of withValue)
    expect(option.flags, command).not.toMatch(/token|password|secret|\bkey\b|access-key/i);
  // A kubeconfig is a file.
  expect(
    withValue.filter(({ option }) => /credential/.test(option.flags)).map(({ option }) => option.flags),
  ).toEqual(['--credential <kubeconfig>']);
});

test('what looks like a credential is taken out of a sentence, and names are not', () => {
  const jwt = `eyJhbGciOiJSUzI1NiJ9.${Buffer.from('{"sub":"x"}').toString('base64url')}.${'s'.repeat(60)}`;
  const random = randomBytes(90).toString('base64');
  for (const secret of [jwt, random, `k8s-aws-v1.${random}`, canary('x')])
    for (const text of [
      `Authorization: Bearer ${secret}`,
      `x-amz-security-token:${secret}`,
      `"token": "${secret}"`,
    ])
      expect(redact(text), text).not.toContain(secret);
  expect(redact(`said ${jwt} and ${random}`)).toBe('said … and …');
  expect(toCliError(new Error(`http://me:hunter2hunter2@proxy:3128 refused`)).message).toBe(
    'http://…@proxy:3128 refused',
  );
  for (const name of [
    'arn:aws:iam::111122223333:role/EcrAnywhere-RefresherFunctionRoleDF987936-A7B1B7C689984',
    'EcrAnywhere-RefresherFunctionRefresher3CA9DA10-A00A0D0E32774',
    'GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations: HTTP 403: forbidden: User "system:serviceaccount:ecr-anywhere:ecr-anywhere-refresher" cannot',
    'User: arn:aws:sts::111122223333:assumed-role/AWSReservedSSO_AdministratorAccess_0123456789abcdef/me@example.com is not authorized to perform: secretsmanager:CreateSecret on resource: arn:aws:secretsmanager:eu-central-1:111122223333:secret:ecr-anywhere/clusters/a-very-long-name-of-a-cluster-1-in-some-place-2-AbCdEf',
    '706a6052-4863-4787-ace9-6f94ecca512e',
    'aws secretsmanager update-secret-version-stage --secret-id ecr-anywhere/clusters/a --version-stage AWSCURRENT --remove-from-version-id 706a6052-4863-4787-ace9-6f94ecca512e',
    'kubectl delete secret ecr-anywhere-refresher-token --namespace ecr-anywhere',
    'https://A0B1C2D3E4F5A0B1C2D3E4F5A0B1C2D3.gr7.eu-central-1.eks.amazonaws.com',
    'the Secret that the token is bound to is deleted',
    'a basic configuration',
    'its token: not ended',
  ])
    expect(redact(name)).toBe(name);
});
