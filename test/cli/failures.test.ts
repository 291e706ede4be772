// Failures of AWS, of API servers and of the operator's files: each command ends with an error code, a sentence and a hint,
// prints nothing on standard output, and requests nothing more. Errors of AWS have the form that its services send.
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { CloudFormationClient, ListStacksCommand } from '@aws-sdk/client-cloudformation';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { clientConfig } from '../../cli/aws/aws.ts';
import { type CliError, ERRORS, type ErrorCode, toCliError } from '../../cli/output/errors.ts';
import { createProgram } from '../../cli/program.ts';
import { freePorts } from '../bed/process.ts';
import { type ApiServer, kubeconfigFor, startApiServer } from '../functions/api-server.ts';
import {
  awsError,
  DEPLOYED,
  description,
  functionAnswer,
  notAuthorized,
  type Reply,
  startAwsWire,
  type Treatment,
  type Wire,
} from './wire.ts';

type Env = Readonly<Record<string, string | undefined>>;
/** What an error must hold, as text: parts of its message, or of its hint. */
type Data = RegExp | string;

const STACK = 'cloudformation:DescribeStacks';
const DELETE = 'secretsmanager:DeleteSecret';
const DESCRIBE = 'secretsmanager:DescribeSecret';
const INVOKE = (action: string) => `lambda:InvokeFunction ${action}`;
const NO_CREDENTIALS = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };
const html = { 'content-type': 'text/html' };

let dir: string;
let aws: Wire;
let api: ApiServer;
/** How the API server answers, if it does. */
let reply: Reply | undefined;
let env: Env;
let closedPort = 0;
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), 'ecr-anywhere-failures-'));
  aws = await startAwsWire();
  api = await startApiServer((_, response) => {
    if (reply) response.writeHead(reply.status, { ...reply.headers }).end(reply.body);
  });
  await writeFile(join(dir, 'kubeconfig'), kubeconfigFor(api, 'token-of-the-operator'));
  [closedPort = 0] = await freePorts(1);
  env = {
    ...{ HOME: dir, AWS_CONFIG_FILE: undefined, AWS_SHARED_CREDENTIALS_FILE: undefined },
    ...{ AWS_PROFILE: undefined, AWS_DEFAULT_REGION: undefined, AWS_SESSION_TOKEN: undefined },
    ...{ AWS_EC2_METADATA_DISABLED: 'true', AWS_REGION: 'eu-central-1', AWS_ENDPOINT_URL: aws.url },
    ...{ AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE', AWS_SECRET_ACCESS_KEY: 'secret' },
    KUBECONFIG: join(dir, 'kubeconfig'),
  };
});
afterAll(async () => {
  await aws?.[Symbol.asyncDispose]();
  await api?.[Symbol.asyncDispose]();
  await rm(dir, { recursive: true, force: true });
});
beforeEach(() => {
  aws.calls.length = 0;
  answer({});
});
afterEach(() => {
  vi.unstubAllEnvs();
  vi.restoreAllMocks();
});

/** Answers the requests of these names with these replies, and all others as if the cluster alpha were registered. */
function answer(replies: Readonly<Record<string, Reply>>): void {
  const clusters = [{ name: 'alpha', source: 'registered', isPaused: false }];
  const usual: Readonly<Record<string, Reply>> = {
    [STACK]: DEPLOYED,
    [INVOKE('status')]: functionAnswer({ clusters }),
    [INVOKE('revoke')]: functionAnswer({ revoked: [{ cluster: 'alpha', outcome: 'revoked' }] }),
    [DELETE]: { status: 200, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: '{}' },
  };
  aws.handle = ({ name, body }) => {
    const given = replies[name] ?? usual[name] ?? (name === DESCRIBE ? description(body) : undefined);
    return given ? { reply: given } : undefined;
  };
}

/** Runs a command in this process. @returns the failure, if any, and the standard output */
async function run(args: string, changes: Env = {}): Promise<{ failure?: CliError; stdout: string }> {
  for (const [name, value] of Object.entries({ ...env, ...changes })) vi.stubEnv(name, value);
  const write = vi.spyOn(process.stdout, 'write').mockReturnValue(true);
  const program = createProgram(new AbortController().signal, { writesUsageErrors: false });
  const failure = await program.parseAsync(args.split(' '), { from: 'user' }).then(
    () => undefined,
    (error: unknown) => toCliError(error),
  );
  const stdout = write.mock.calls.join('');
  write.mockRestore();
  return { ...(failure && { failure }), stdout };
}

/** Expects a command to fail with this code, a sentence and a hint, and to print no result. */
async function expectFailure(
  args: string,
  code: ErrorCode,
  data: readonly Data[] = [],
  changes: Env = {},
): Promise<void> {
  const { failure, stdout } = await run(args, changes);
  const { message, hint } = failure ?? {};
  expect({ code: failure?.code, exitCode: failure?.exitCode, message, hint, stdout }).toEqual({
    code,
    exitCode: ERRORS[code].exitCode,
    message: expect.stringMatching(/^\S.{0,698}[^\s:]$/),
    hint: expect.stringMatching(/\S/),
    stdout: '',
  });
  const text = `${message}\n${hint}`;
  expect(text).not.toMatch(/\n\s+at |\.m?[jt]s:\d|node:internal|\[ERROR\]|undefined/);
  expect(text).not.toContain('\u001b');
  for (const part of data) expect(text).toMatch(part);
}

const lastCall = () => aws.calls.at(-1)?.name;

test.each<[string, string]>([
  ['status', STACK],
  ['status', INVOKE('status')],
  ['refresh alpha', INVOKE('refresh')],
  ['refresh alpha --function refresher', 'lambda:GetFunctionConfiguration'],
  ['pause alpha', 'secretsmanager:TagResource'],
  ['resume alpha', 'secretsmanager:UntagResource'],
  ['unregister alpha', INVOKE('revoke')],
  ['unregister alpha --keep-token', DELETE],
])('%s ends at %s if the session has expired', async (command, call) => {
  const message = 'The security token included in the request is expired';
  answer({ [call]: awsError(call, 'ExpiredToken', message) });
  await expectFailure(command, 'aws-session-expired', [message, 'aws sso login']);
  expect(lastCall()).toBe(call);
});

test.each([
  [
    'aws sso login --profile work has expired',
    '[profile work]\nsso_session = s\nsso_account_id = 111122223333\nsso_role_name = r\n[sso-session s]\nsso_region = eu-central-1\nsso_start_url = https://x.awsapps.com/start\n',
  ],
  ['a credential process fails', '[profile work]\ncredential_process = /bin/false\n'],
])('names the profile if %s', async (title, config) => {
  const AWS_CONFIG_FILE = join(dir, title.replaceAll(' ', '-'));
  await writeFile(AWS_CONFIG_FILE, config);
  const { failure } = await run('status --profile work', { ...NO_CREDENTIALS, AWS_CONFIG_FILE });
  expect(['aws-session-expired', 'no-aws-credentials']).toContain(failure?.code);
  expect(failure?.message).toContain('(profile work)');
});

describe('AWS or the function answers unexpectedly', () => {
  const page = { status: 200, headers: html, body: '<html><body>Sign in to the hotel' };
  const failed = (failure: object | null) => functionAnswer(failure, 'Unhandled');
  test.each<[string, string, string, Reply, ErrorCode, Data]>([
    [
      'denied',
      'status',
      STACK,
      notAuthorized(STACK),
      'aws-access-denied',
      /is not authorized to perform: cloudformation:DescribeStacks on.*docs\/command-line.md/s,
    ],
    [
      'AWS does not know the key',
      'status',
      STACK,
      awsError(STACK, 'InvalidClientTokenId', 'The security token included in the request is invalid.'),
      'aws-credentials-rejected',
      'The security token included in the request is invalid.',
    ],
    [
      'a signature that does not fit',
      'status',
      STACK,
      awsError(
        STACK,
        'SignatureDoesNotMatch',
        "The request signature we calculated does not match.\n\nThe Canonical String for this request should have been\n'POST\n/\n\nx-amz-security-token:session-token-0123456789abcdef0123456789abcdef'",
      ),
      'aws-credentials-rejected',
      // The request that AWS quotes is left out.
      /^(?!.*Canonical)/,
    ],
    [
      'throttled',
      'status',
      INVOKE('status'),
      awsError('lambda:', 'TooManyRequests', 'Rate Exceeded.', 429),
      'aws-throttled',
      'Rate Exceeded.',
    ],
    [
      'AWS fails',
      'status',
      INVOKE('status'),
      awsError('lambda:', 'Service', 'Service Unavailable', 503),
      'aws-error',
      'Service Unavailable',
    ],
    ['a page of a proxy in place of AWS', 'status', STACK, page, 'unexpected-response', 'proxy'],
    [
      'a page of a proxy in place of Lambda',
      'status --function refresher',
      'lambda:GetFunctionConfiguration',
      page,
      'unexpected-response',
      'proxy',
    ],
    [
      'the function throws',
      'status',
      INVOKE('status'),
      failed({
        errorType: 'Error',
        errorMessage: 'boom\n  at x',
        trace: ['Error: boom', '    at file.js:1:2'],
      }),
      'function-failed',
      /failed: boom at x\n/,
    ],
    [
      'the function gives no reason',
      'status',
      INVOKE('status'),
      failed(null),
      'function-failed',
      'it gave no reason',
    ],
    [
      'the function times out',
      'refresh alpha',
      INVOKE('refresh'),
      failed({
        errorType: 'Sandbox.Timedout',
        errorMessage: 'RequestId: 1 Error: Task timed out after 900.00 seconds',
      }),
      'function-timeout',
      'Task timed out after 900.00 seconds',
    ],
    [
      'the function times out, in a runtime that reports no type',
      'refresh alpha',
      INVOKE('refresh'),
      failed({ errorMessage: '2026-11-26T00:00:00Z 1 Task timed out after 900.00 seconds' }),
      'function-timeout',
      'Task timed out after 900.00 seconds',
    ],
    [
      'the function fails with a message about a time-out',
      'refresh alpha',
      INVOKE('refresh'),
      failed({ errorType: 'Error', errorMessage: 'Task timed out after 3 seconds' }),
      'function-failed',
      'Task timed out after 3 seconds',
    ],
    [
      'the function answers that the event is invalid',
      'status',
      INVOKE('status'),
      functionAnswer({ invalidEvent: { message: 'event.action: unknown', fields: ['action'] } }),
      'function-too-old',
      'event.action: unknown',
    ],
    [
      'the function of an earlier version rejects the event',
      'status',
      INVOKE('status'),
      failed({ errorType: 'InvalidEventError', errorMessage: 'event.action: unknown' }),
      'function-too-old',
      'event.action: unknown',
    ],
    [
      'the function answers something else',
      'status',
      INVOKE('status'),
      functionAnswer('hello'),
      'function-too-old',
      'npx cdk deploy',
    ],
    [
      'the function of a later version answers something else',
      'status',
      INVOKE('status'),
      functionAnswer({ version: '99.0.0', clusters: [{ name: 'alpha', source: 'satellite' }] }),
      'function-too-new',
      'Use the command line of version 99.0.0.',
    ],
    [
      'the function of a later version answers that the event is invalid',
      'status',
      INVOKE('status'),
      functionAnswer({ version: '99.0.0', invalidEvent: { message: 'event.action: unknown', fields: [] } }),
      'function-too-new',
      'event.action: unknown',
    ],
    ['nothing', 'status', INVOKE('status'), functionAnswer(''), 'function-too-old', 'npx cdk deploy'],
    [
      'the answer omits the cluster',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ revoked: [] }),
      'function-too-old',
      'alpha',
    ],
  ])('%s', async (_, command, call, given, code, data) => {
    answer({ [call]: given });
    await expectFailure(command, code, [data]);
    expect(lastCall()).toBe(call);
  });
});

test.each(['refresh', 'pause', 'resume', 'unregister'])('%s: an unknown cluster', async (command) => {
  const notRegistered = { names: ['nope'], registered: ['alpha'] };
  answer({ [INVOKE('refresh')]: functionAnswer({ notRegistered }) });
  await expectFailure(`${command} nope`, 'not-registered', [/\bnope\b.*: alpha\./]);
});

describe('unregister, after the token was revoked', () => {
  const secret = { namespace: 'pulls', name: 'ecr-refresher-token' };
  const OPTIONS = '--stack-name EcrAnywhere --region eu-central-1';
  const REST = `ecr-anywhere unregister alpha --region eu-central-1 --stack-name EcrAnywhere completes this; ecr-anywhere register alpha --replace --region eu-central-1 --stack-name EcrAnywhere registers another token.`;
  const DELETION =
    'kubectl --context CONTEXT --namespace pulls delete secret ecr-refresher-token --ignore-not-found';
  const revoked = (result: object) => ({
    [INVOKE('revoke')]: functionAnswer({ revoked: [{ cluster: 'alpha', ...result }] }),
  });

  test.each<[string, Reply | undefined, ErrorCode, string, string]>([
    [
      'may not delete the registration',
      notAuthorized(DELETE),
      'aws-access-denied',
      'alpha was revoked, but the cluster is still registered',
      'secretsmanager:DeleteSecret',
    ],
    [
      'network is lost',
      undefined,
      'network',
      'alpha was revoked, but the cluster may still be registered',
      'no response',
    ],
  ])("and the operator's %s", async (_, deletion, code, ...data) => {
    for (const outcome of ['revoked', 'refused-already']) {
      answer({ ...revoked({ outcome }), ...(deletion && { [DELETE]: deletion }) });
      const { handle } = aws;
      aws.handle = (call) =>
        call.name === DELETE && !deletion ? { before: () => Promise.reject(new Error('cut')) } : handle(call);
      await expectFailure(`unregister alpha ${OPTIONS}`, code, [...data, ` Then: ${REST}`]);
    }
  });

  test('does not mention the token if nothing was revoked', async () => {
    answer({
      ...revoked({ outcome: 'nothing-to-revoke', reason: 'a certificate' }),
      [DELETE]: notAuthorized(DELETE),
    });
    await expectFailure('unregister alpha', 'aws-access-denied', [/^(?!.*revoked).*DeleteSecret/]);
  });

  test('names the command for other tokens if the API server had already rejected the token', async () => {
    const result = { outcome: 'refused-already', reason: 'why' };
    answer(revoked({ ...result, secret }));
    const { failure, stdout } = await run('unregister alpha');
    expect(failure).toBeUndefined();
    expect(stdout).toContain(`\n    → ${DELETION}\n`);
    expect(JSON.parse((await run('unregister alpha --output json')).stdout)).toEqual({
      ...{ cluster: 'alpha', isRegistered: false, token: 'refused-already', reason: 'why', secret },
    });
    answer(revoked(result));
    expect((await run('unregister alpha')).stdout).toContain('as long as that Secret exists.\n');
  });

  test('names the command for the Secret if the token could not be revoked', async () => {
    answer(revoked({ outcome: 'failed', reason: 'no route', secret }));
    await expectFailure(`unregister alpha ${OPTIONS}`, 'token-not-revoked', [
      'no route',
      `To revoke the token: ${DELETION}. Then: ecr-anywhere unregister alpha --keep-token --region eu-central-1 --stack-name EcrAnywhere`,
    ]);
    expect(lastCall()).toBe(INVOKE('revoke'));
  });
});

test.each(['403 Forbidden', '407 Proxy Authentication Required', '502 Bad Gateway'])(
  'a proxy that rejects all requests with %s is not AWS',
  async (says) => {
    const proxy = createServer().on('connect', (_, socket) => {
      socket.end(`HTTP/1.1 ${says}\r\ncontent-length: 0\r\n\r\n`);
    });
    await new Promise<void>((resolve) => void proxy.listen(0, '127.0.0.1', resolve));
    const { port } = proxy.address() as AddressInfo;
    const HTTPS_PROXY = `http://me:a-password-of-4711@127.0.0.1:${port}`;
    const data = [`HTTP/1.1 ${says}`, 'HTTPS_PROXY', /^(?!.*4711)/s];
    await expectFailure('status', 'network', data, { AWS_ENDPOINT_URL: 'https://aws.invalid', HTTPS_PROXY });
    proxy.close();
  },
);

describe('AWS cannot be used', () => {
  test.each<[string, () => Env, ErrorCode, Data]>([
    [
      'no region',
      () => ({ AWS_REGION: undefined, AWS_DEFAULT_REGION: undefined }),
      'no-region',
      'AWS_REGION',
    ],
    [
      'a closed port',
      () => ({ AWS_ENDPOINT_URL: `http://127.0.0.1:${closedPort}` }),
      'network',
      'ECONNREFUSED',
    ],
    ['no such host', () => ({ AWS_ENDPOINT_URL: 'http://aws.invalid' }), 'network', 'ENOTFOUND'],
  ])('%s', async (_, changes, code, data) => {
    await expectFailure('status', code, [data], changes());
  });

  test('no such stack; a stack without a refresher; no such function', async () => {
    const none = awsError(STACK, 'ValidationError', 'Stack with id Nope does not exist', 400);
    const empty = { ...DEPLOYED, body: DEPLOYED.body.replace(/<Outputs>.*<\/Outputs>/, '') };
    for (const given of [none, empty]) {
      answer({ [STACK]: given });
      await expectFailure('status --stack-name Nope', 'stack-not-found', ['Nope in eu-central-1']);
    }
    const GET = 'lambda:GetFunctionConfiguration';
    answer({ [GET]: awsError(GET, 'ResourceNotFound', 'Function not found', 404) });
    await expectFailure('status --function Nope', 'function-not-found', ['Nope']);
  });

  test.each(['status', 'refresh alpha', 'pause alpha', 'resume alpha', 'unregister alpha', 'register beta'])(
    '%s without credentials',
    async (command) => {
      await expectFailure(command, 'no-aws-credentials', ['--profile'], NO_CREDENTIALS);
    },
  );

  test.each<[string, () => Env, ErrorCode]>([
    ['credentials', () => NO_CREDENTIALS, 'no-aws-credentials'],
    ['a response', () => ({ AWS_ENDPOINT_URL: `http://127.0.0.1:${closedPort}` }), 'network'],
  ])('doctor without %s and without a context', async (_, changes, code) => {
    const { failure, stdout } = await run('doctor alpha', { ...changes(), KUBECONFIG: undefined });
    expect({ code: failure?.code, hint: failure?.hint, stdout }).toEqual({
      ...{ code, hint: expect.any(String), stdout: '' },
    });
    expect(failure?.message).toContain('neither AWS nor a cluster');
  });

  test.each<{ what: string; treatment: Treatment }>([
    { what: 'is silent', treatment: { isSilent: true } },
    {
      what: 'stops in the middle of its response',
      treatment: { reply: { status: 200, headers: { 'content-length': '100' }, body: '<' } },
    },
  ])('a request to an endpoint that $what ends', async ({ treatment }) => {
    aws.handle = () => treatment;
    for (const [name, value] of Object.entries(env)) vi.stubEnv(name, value);
    const client = new CloudFormationClient({ ...clientConfig({}, 200), maxAttempts: 1 });
    const failure = await client.send(new ListStacksCommand({})).catch((error: unknown) => error);
    expect(toCliError(failure, 'listing')).toMatchObject({
      code: 'network',
      message: expect.stringContaining('0.2 s'),
    });
  });
});

describe('the API server', () => {
  const status = (code: number, message: string): Reply => ({
    status: code,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, code }),
  });
  const GET = 'GET /api/v1/namespaces/kube-system';
  test.each<[string, Reply, ErrorCode, Data]>([
    ['rejects the credential', status(401, 'Unauthorized'), 'kubernetes-unauthorized', 'Unauthorized'],
    [
      'forbids the request',
      status(403, 'namespaces "kube-system" is forbidden: User "me" cannot get'),
      'kubernetes-forbidden',
      'namespaces "kube-system" is forbidden',
    ],
    ['is a proxy with a page of its own', { status: 200, body: '<html>Sign in' }, 'unexpected-response', GET],
    ['answers another JSON document', { status: 200, body: '{"hello": 1}' }, 'unexpected-response', /\S/],
    ['is another web server', { status: 404, body: 'nginx' }, 'kubernetes-error', 'HTTP 404'],
    ['fails', { status: 503, body: 'x' }, 'kubernetes-error', 'HTTP 503'],
  ])('%s', async (_, given, code, data) => {
    reply = given;
    await expectFailure('register beta', code, [data]);
  });

  test('does not answer', async () => {
    const { timeout } = AbortSignal;
    vi.spyOn(AbortSignal, 'timeout').mockImplementation((ms) => timeout.call(AbortSignal, ms / 100));
    reply = undefined;
    await expectFailure('register beta', 'network', ['30 s']);
  });

  const exec = (command: string, ...args: string[]) =>
    JSON.stringify({
      exec: {
        apiVersion: 'client.authentication.k8s.io/v1',
        interactiveMode: 'Never',
        ...{ command, args },
      },
    });
  const TOKEN = '{"token":"token-of-the-operator"}';
  test.each<[string, (text: string) => string, ErrorCode, Data]>([
    [
      'a closed port',
      (text) => text.replace(api.url, `https://127.0.0.1:${closedPort}`),
      'network',
      'ECONNREFUSED',
    ],
    ['no such host', (text) => text.replace(api.url, 'https://api.invalid'), 'network', 'ENOTFOUND'],
    [
      'no context of that name',
      (text) => text.replace(/"current-context":"[^"]*"/, '"current-context":"nope"'),
      'no-context',
      'nope',
    ],
    ['no kubeconfig', () => 'nonsense: [', 'kubeconfig-unreadable', 'no-kubeconfig'],
    [
      'an exec plugin that is not there',
      (text) => text.replace(TOKEN, exec('no-such-plugin')),
      'exec-plugin-failed',
      'no-such-plugin',
    ],
    [
      'an exec plugin that fails',
      (text) => text.replace(TOKEN, exec('sh', '-c', 'echo the session is over >&2; exit 1')),
      'exec-plugin-failed',
      /\bsh\b.*: the session is over/,
    ],
    [
      'an exec plugin that prints no credential',
      (text) => text.replace(TOKEN, exec('echo', 'hello')),
      'exec-plugin-failed',
      'ExecCredential',
    ],
  ])('%s', async (title, change, code, data) => {
    const path = join(dir, title.replaceAll(' ', '-'));
    await writeFile(path, change(kubeconfigFor(api, 'token-of-the-operator')));
    await expectFailure(`register beta --kubeconfig ${path}`, code, [data]);
  });

  test('a missing kubeconfig', async () => {
    await expectFailure('register beta', 'no-kubeconfig', ['KUBECONFIG'], { KUBECONFIG: undefined });
    await expectFailure('register beta --kubeconfig /nope', 'kubeconfig-unreadable', ['/nope', 'ENOENT']);
  });
});
