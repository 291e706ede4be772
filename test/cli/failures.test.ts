// Failures of AWS, of API servers and of the operator's files: each command prints an error code, a sentence and a hint,
// prints nothing on standard output, and changes nothing. Errors of AWS have the form that its services send.
import { writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { ERRORS, type ErrorCode, EXIT } from '../../cli/output/errors.ts';
import { freePorts } from '../bed/process.ts';
import type { Ended, RunOptions } from './command-line.ts';
import { type Operator, startOperator } from './operator.ts';
import { awsError, functionAnswer, notAuthorized, type Reply, type Treatment } from './wire.ts';

let operator: Operator;
let closedPort = 0;
let silent: { url: string; close: () => void };
beforeAll(async () => {
  operator = await startOperator();
  const { cli, kubeconfigs } = operator;
  const registered = await cli.run(['register', 'alpha', '--kubeconfig', kubeconfigs.alpha]);
  expect(registered, registered.stderr).toMatchObject({ code: 0 });
  [closedPort = 0] = await freePorts(1);
  const server = createServer(() => {}).listen(0, '127.0.0.1');
  await new Promise((resolve) => server.once('listening', resolve));
  const address = server.address();
  silent = {
    url: `http://127.0.0.1:${typeof address === 'object' ? address?.port : 0}`,
    close: () => server.close(),
  };
}, 300_000);
afterAll(async () => {
  silent?.close();
  await operator?.[Symbol.asyncDispose]();
});

let before: unknown;
beforeEach(() => operator.reset());
afterEach(() => operator.reset());

/** What an error object must hold, as text: parts of its message, or of its hint. */
type Data = RegExp | string;

/** Asserts that a run with --output json printed one error object, with a sentence and a hint, and nothing else. */
function expectFailure(
  { code, stdout, stderr }: Ended,
  errorCode: ErrorCode,
  ...data: readonly Data[]
): void {
  const { exitCode } = ERRORS[errorCode];
  expect({ code, stdout }, stderr).toEqual({ code: exitCode, stdout: '' });
  const { error } = JSON.parse(stderr) as { error: { message: string; hint: string } };
  expect(error).toEqual({
    code: errorCode,
    exitCode,
    message: expect.stringMatching(/^\S.{0,698}[^\s:]$/),
    hint: expect.stringMatching(/\S/),
  });
  const text = `${error.message}\n${error.hint}`;
  expect(text).not.toMatch(/\n\s+at |\.m?[jt]s:\d|node:internal|\[ERROR\]|undefined/);
  expect(text).not.toContain('\u001b');
  for (const part of data)
    if (typeof part === 'string') expect(text).toContain(part);
    else expect(text).toMatch(part);
}

const run = (args: string, options?: RunOptions) => operator.cli.run(args.split(' '), options);
/** The same, for the error object. */
const fail = (args: string, options?: RunOptions) => run(`${args} --output json`, options);

/** Answers the requests of one name with this reply. */
function answer(name: string, reply: Reply): void {
  operator.aws.handle = (call) => (call.name === name ? { reply } : undefined);
}

const STACK = 'cloudformation:DescribeStacks';
const INVOKE = (action: string) => `lambda:InvokeFunction ${action}`;

/** Every command, and its calls to AWS in order. */
const COMMANDS: readonly (readonly [string, readonly string[]])[] = [
  ['status', [STACK, INVOKE('status')]],
  ['refresh alpha', [STACK, INVOKE('refresh')]],
  ['refresh alpha --function FUNCTION', ['lambda:GetFunctionConfiguration']],
  ['pause alpha', [STACK, INVOKE('status'), 'secretsmanager:TagResource']],
  ['resume alpha', [STACK, INVOKE('status'), 'secretsmanager:UntagResource']],
  ['unregister alpha --keep-token', [STACK, INVOKE('status'), 'secretsmanager:DeleteSecret']],
  ['unregister alpha', [INVOKE('revoke')]],
  [
    'register beta',
    [STACK, INVOKE('status'), 'secretsmanager:CreateSecret', INVOKE('inspect'), INVOKE('refresh')],
  ],
  [
    'register alpha --replace --kubeconfig ALPHA',
    ['secretsmanager:DescribeSecret', 'secretsmanager:PutSecretValue', INVOKE('inspect'), INVOKE('refresh')],
  ],
];
const EACH_CALL = COMMANDS.flatMap(([command, calls]) => calls.map((call) => ({ command, call })));
const runCommand = (command: string, options?: RunOptions) =>
  fail(
    command
      .replace('FUNCTION', operator.bed.deployment.functionName)
      .replace('ALPHA', operator.kubeconfigs.alpha),
    options,
  );

test('the registered cluster is healthy at the start', async () => {
  expect(await run('refresh alpha')).toMatchObject({ code: 0, stderr: '' });
  before = await operator.state();
});

describe('AWS denies the request', () => {
  test.each(EACH_CALL)('$command: $call', async ({ command, call }) => {
    answer(call, notAuthorized(call));
    const [action = ''] = call.split(' ');
    expectFailure(
      await runCommand(command),
      'aws-access-denied',
      `User: arn:aws:iam::111122223333:user/operator is not authorized to perform: ${action} on`,
      'docs/command-line.md',
    );
    expect(operator.aws.calls.map(({ name }) => name)).toContain(call);
  });
});

describe('the session has expired', () => {
  test.each(EACH_CALL)('$command: $call', async ({ command, call }) => {
    answer(call, awsError(call, 'ExpiredToken', 'The security token included in the request is expired'));
    expectFailure(
      await runCommand(command),
      'aws-session-expired',
      'The security token included in the request is expired',
      'aws sso login',
    );
  });

  test.each([
    [
      'aws sso login --profile work has expired',
      '[profile work]\nsso_session = s\nsso_account_id = 111122223333\nsso_role_name = r\n[sso-session s]\nsso_region = eu-central-1\nsso_start_url = https://x.awsapps.com/start\n',
    ],
    ['a credential process that fails', '[profile work]\ncredential_process = /bin/false\n'],
  ])('%s', async (_, config) => {
    const AWS_CONFIG_FILE = join(operator.cli.home, 'config');
    await writeFile(AWS_CONFIG_FILE, config);
    const env = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined, AWS_CONFIG_FILE };
    const ended = await fail('status --profile work', { env });
    expectFailure(
      ended,
      ended.stderr.includes('"aws-session-expired"') ? 'aws-session-expired' : 'no-aws-credentials',
      '(profile work)',
    );
  });
});

describe('AWS or the function answers unexpectedly', () => {
  test.each<[string, string, string, Reply, ErrorCode, Data]>([
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
    [
      'a page of a proxy in place of AWS',
      'status',
      STACK,
      { status: 200, headers: { 'content-type': 'text/html' }, body: '<html><body>Sign in to the hotel' },
      'unexpected-response',
      'proxy',
    ],
    [
      'a page of a proxy in place of Lambda',
      'status --function FUNCTION',
      'lambda:GetFunctionConfiguration',
      { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>Sign in to the hotel' },
      'unexpected-response',
      'proxy',
    ],
    [
      'the function throws',
      'status',
      INVOKE('status'),
      functionAnswer(
        { errorType: 'Error', errorMessage: 'boom\n  at x', trace: ['Error: boom', '    at file.js:1:2'] },
        'Unhandled',
      ),
      'function-failed',
      /failed: boom at x\n/,
    ],
    [
      'the function gives no reason',
      'status',
      INVOKE('status'),
      functionAnswer(null, 'Unhandled'),
      'function-failed',
      'it gave no reason',
    ],
    [
      'the function times out',
      'refresh alpha',
      INVOKE('refresh'),
      functionAnswer(
        {
          errorType: 'Sandbox.Timedout',
          errorMessage: 'RequestId: 1 Error: Task timed out after 900.00 seconds',
        },
        'Unhandled',
      ),
      'function-timeout',
      'Task timed out after 900.00 seconds',
    ],
    [
      'the function times out, in a runtime that reports no type',
      'refresh alpha',
      INVOKE('refresh'),
      functionAnswer(
        { errorMessage: '2026-11-26T00:00:00Z 1 Task timed out after 900.00 seconds' },
        'Unhandled',
      ),
      'function-timeout',
      'Task timed out after 900.00 seconds',
    ],
    [
      'the function fails with a message about a time-out',
      'refresh alpha',
      INVOKE('refresh'),
      functionAnswer({ errorType: 'Error', errorMessage: 'Task timed out after 3 seconds' }, 'Unhandled'),
      'function-failed',
      'Task timed out after 3 seconds',
    ],
    [
      'the function rejects the event',
      'status',
      INVOKE('status'),
      functionAnswer({ errorType: 'InvalidEventError', errorMessage: 'event.action: unknown' }, 'Unhandled'),
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
    ['nothing', 'status', INVOKE('status'), functionAnswer(''), 'function-too-old', 'npx cdk deploy'],
    [
      'an older version answers as if it were a run',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ clusters: [] }),
      'function-too-old',
      'npx cdk deploy',
    ],
    [
      'the answer omits the cluster',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ revoked: [] }),
      'function-too-old',
      'alpha',
    ],
    [
      'the token cannot be ended',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ revoked: [{ cluster: 'alpha', outcome: 'failed', reason: 'no route' }] }),
      'token-not-revoked',
      'no route',
    ],
    [
      'another operator registers the same name meanwhile',
      'register beta',
      'secretsmanager:CreateSecret',
      awsError('secretsmanager:', 'ResourceExists', 'A resource with the ID you requested already exists.'),
      'already-registered',
      'beta',
    ],
    [
      'the refresher does not reach it',
      'register beta',
      INVOKE('inspect'),
      functionAnswer({ clusters: [{ cluster: 'beta', served: false, reason: 'connect ETIMEDOUT' }] }),
      'registration-not-verified',
      'connect ETIMEDOUT',
    ],
  ])(
    '%s',
    async (_, command, call, reply, code, data) => {
      answer(call, reply);
      expectFailure(await runCommand(command), code, data);
      expect(operator.aws.calls.map(({ name }) => name)).toContain(call);
    },
    90_000,
  );
});

describe('unregister, after the token was revoked', () => {
  const DELETE = 'secretsmanager:DeleteSecret';
  const REVOKE = INVOKE('revoke');
  const secret = { namespace: 'pulls', name: 'ecr-refresher-token' };
  const OPTIONS = '--stack-name EcrAnywhere --region eu-central-1';
  const REST = `ecr-anywhere unregister alpha --region eu-central-1 --stack-name EcrAnywhere completes this; ecr-anywhere register alpha --replace --region eu-central-1 --stack-name EcrAnywhere registers another token.`;
  const DELETION =
    'kubectl --context CONTEXT --namespace pulls delete secret ecr-refresher-token --ignore-not-found';

  function answers(revoked: object, deletion: Treatment): void {
    operator.aws.handle = ({ name }) => {
      if (name === REVOKE) return { reply: functionAnswer({ revoked: [{ cluster: 'alpha', ...revoked }] }) };
      return name === DELETE ? deletion : undefined;
    };
  }
  const DELETED: Treatment = {
    reply: { status: 200, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: '{}' },
  };

  test.each<[string, Treatment, ErrorCode, string, string]>([
    [
      'may not delete the registration',
      { reply: notAuthorized(DELETE) },
      'aws-access-denied',
      'alpha was revoked, but the cluster is still registered',
      'secretsmanager:DeleteSecret',
    ],
    [
      'session expires',
      { reply: awsError(DELETE, 'ExpiredToken', 'The security token included in the request is expired') },
      'aws-session-expired',
      'alpha was revoked, but the cluster is still registered',
      'is expired',
    ],
    [
      'network is lost',
      { before: () => Promise.reject(new Error('cut')) },
      'network',
      'alpha was revoked, but the cluster may still be registered',
      'no response',
    ],
  ])("and the operator's %s", async (_, deletion, code, ...data) => {
    for (const outcome of ['revoked', 'refused-already']) {
      answers({ outcome }, deletion);
      expectFailure(await fail(`unregister alpha ${OPTIONS}`), code, ...data, ` Then: ${REST}`);
    }
  });

  test('does not mention the token if nothing was revoked', async () => {
    answers({ outcome: 'nothing-to-revoke', reason: 'a certificate' }, { reply: notAuthorized(DELETE) });
    expectFailure(await fail('unregister alpha'), 'aws-access-denied', /^(?!.*revoked).*DeleteSecret/);
  });

  test('names the command for other tokens if the API server had already rejected the token', async () => {
    answers({ outcome: 'refused-already', reason: 'why', secret }, DELETED);
    const { code, stdout, stderr } = await run('unregister alpha');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(
      /^alpha is no longer registered\.\n {2}Its API server had already rejected the token/,
    );
    expect(stdout).toContain(`\n    → ${DELETION}\n`);
    expect(await operator.cli.json(['unregister', 'alpha'])).toEqual({
      ...{ cluster: 'alpha', isRegistered: false, token: 'refused-already', reason: 'why', secret },
    });
    answers({ outcome: 'refused-already' }, DELETED);
    expect((await run('unregister alpha')).stdout).toContain('as long as that Secret exists.\n');
  });

  test('names the command for the Secret if the token could not be revoked', async () => {
    answers({ outcome: 'failed', reason: 'no route', secret }, DELETED);
    expectFailure(
      await fail(`unregister alpha ${OPTIONS}`),
      'token-not-revoked',
      'no route',
      `To revoke the token: ${DELETION}. Then: ecr-anywhere unregister alpha --keep-token --region eu-central-1 --stack-name EcrAnywhere`,
    );
    expect(operator.aws.calls.map(({ name }) => name)).not.toContain(DELETE);
  });
});

describe('a proxy that rejects all requests is not AWS', () => {
  test.each(['403 Forbidden', '407 Proxy Authentication Required', '502 Bad Gateway'])('%s', async (says) => {
    await using stack = new AsyncDisposableStack();
    const proxy = createHttpServer().on('connect', (_, socket) => {
      socket.end(`HTTP/1.1 ${says}\r\ncontent-length: 0\r\n\r\n`);
    });
    stack.defer(() => void proxy.close());
    await new Promise<void>((resolve) => void proxy.listen(0, '127.0.0.1', resolve));
    const { port } = proxy.address() as AddressInfo;
    const env = {
      AWS_ENDPOINT_URL: 'https://aws.invalid',
      HTTPS_PROXY: `http://me:a-password-of-4711@127.0.0.1:${port}`,
    };
    const ended = await fail('status', { env });
    expectFailure(ended, 'network', `HTTP/1.1 ${says}`, 'HTTPS_PROXY');
    expect(ended.stderr).not.toContain('4711');
  });
});

const NO_CREDENTIALS = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };

describe.each([
  'status',
  'refresh alpha',
  'pause alpha',
  'resume alpha',
  'unregister alpha',
  'register beta',
])('%s', (command) => {
  test.each<[string, () => RunOptions['env'], ErrorCode, Data]>([
    ['not signed in', () => NO_CREDENTIALS, 'no-aws-credentials', '--profile'],
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
    [
      'an authority that is not trusted',
      () => ({
        AWS_ENDPOINT_URL: operator.bed.deployment.emulator.endpoint,
        NODE_EXTRA_CA_CERTS: undefined,
        AWS_CA_BUNDLE: undefined,
      }),
      'network',
      'unable to verify',
    ],
  ])('%s', async (_, env, code, data) => {
    expectFailure(await fail(command, { env: env() ?? {} }), code, data);
  });

  test('no such stack; a stack without a refresher; no such function', async () => {
    for (const name of ['Nope', 'CDKToolkit'])
      expectFailure(
        await fail(`${command} --stack-name ${name}`),
        'stack-not-found',
        `${name} in eu-central-1`,
      );
    expectFailure(await fail(`${command} --function Nope`), 'function-not-found', 'Nope');
  });

  test('prints the error as one sentence and one hint without --output json', async () => {
    const { code, stdout, stderr } = await run(command, { env: NO_CREDENTIALS });
    expect({ code, stdout }).toEqual({ code: EXIT.unauthenticated, stdout: '' });
    expect(stderr).toMatch(/^ecr-anywhere: \S.*\.\n {2}→ \S.*\.\n$/);
  });
});

test.each(['refresh', 'pause', 'resume', 'unregister'])('%s: an unknown cluster', async (command) => {
  expectFailure(await fail(`${command} nope`), 'not-registered', /\bnope\b.*: alpha\./);
});

test('rejects a second registration of a name or of a cluster', async () => {
  const { alpha } = operator.kubeconfigs;
  expectFailure(await fail(`register alpha --kubeconfig ${alpha}`), 'already-registered', 'alpha');
  expectFailure(
    await fail(`register gamma --kubeconfig ${alpha}`),
    'duplicate-registration',
    'alpha',
    'gamma',
  );
  expectFailure(await fail('register alpha --replace'), 'different-cluster', 'alpha');
  expectFailure(await fail('register beta --replace'), 'not-registered', 'beta');
});

test('a silent endpoint delays a command by half a minute at most', async () => {
  const startedAt = performance.now();
  const ended = await Promise.all([
    fail('status', { env: { AWS_ENDPOINT_URL: silent.url } }),
    fail('register beta', { env: { AWS_ENDPOINT_URL: silent.url } }),
  ]);
  for (const one of ended) expectFailure(one, 'network', 'stack EcrAnywhere', '10 s');
  expect(performance.now() - startedAt).toBeLessThan(45_000);
});

describe('the API server', () => {
  const STATUS = (code: number, message: string): Reply => ({
    status: code,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, code }),
  });
  test.each<[string, string, Reply, ErrorCode, Data]>([
    [
      'rejects the credential',
      'GET /api/v1/namespaces/kube-system',
      STATUS(401, 'Unauthorized'),
      'kubernetes-unauthorized',
      'Unauthorized',
    ],
    [
      'forbids reading kube-system',
      'GET /api/v1/namespaces/kube-system',
      STATUS(403, 'namespaces "kube-system" is forbidden: User "me" cannot get'),
      'kubernetes-forbidden',
      'namespaces "kube-system" is forbidden',
    ],
    [
      'forbids listing the chart',
      'GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
      STATUS(403, 'forbidden: cannot list'),
      'kubernetes-forbidden',
      'cannot list',
    ],
    [
      'forbids creating the token',
      'POST /api/v1/namespaces/ecr-anywhere/serviceaccounts/ecr-anywhere-refresher/token',
      STATUS(403, 'forbidden: cannot create resource "serviceaccounts/token"'),
      'kubernetes-forbidden',
      'serviceaccounts/token',
    ],
    [
      'is a proxy with a page of its own',
      'GET /api/v1/namespaces/kube-system',
      { status: 200, body: '<html>Sign in' },
      'unexpected-response',
      'GET /api/v1/namespaces/kube-system',
    ],
    [
      'answers another JSON document',
      'GET /api/v1/namespaces/kube-system',
      { status: 200, body: '{"hello": 1}' },
      'unexpected-response',
      /\S/,
    ],
    [
      'is another web server',
      'GET /api/v1/namespaces/kube-system',
      { status: 404, body: 'nginx' },
      'kubernetes-error',
      'HTTP 404',
    ],
    [
      'fails',
      'GET /api/v1/namespaces/kube-system',
      { status: 503, body: 'x' },
      'kubernetes-error',
      'HTTP 503',
    ],
  ])('%s', async (_, name, reply, code, data) => {
    operator.clusters.beta.handle = (call) => (call.name === name ? { reply } : undefined);
    expectFailure(await fail('register beta'), code, data);
    expect(operator.clusters.beta.calls.map((call) => call.name)).toContain(name);
  });

  const kubeconfig = async (name: string, change: (text: string) => string) => {
    const path = join(operator.cli.home, name);
    const { readFile } = await import('node:fs/promises');
    await writeFile(path, change(await readFile(operator.kubeconfigs.beta, 'utf8')));
    return path;
  };

  test.each<[string, (text: string) => string, ErrorCode, Data]>([
    [
      'a closed port',
      (text) => text.replace(/server: .*/, `server: https://127.0.0.1:${closedPort}`),
      'network',
      'ECONNREFUSED',
    ],
    [
      'no such host',
      (text) => text.replace(/server: .*/, 'server: https://api.invalid'),
      'network',
      'ENOTFOUND',
    ],
    [
      'another authority',
      (text) => text.replace(/ *certificate-authority-data: .*\n/, ''),
      'network',
      'certificate',
    ],
    [
      'no context of that name',
      (text) => text.replace(/current-context: .*/, 'current-context: nope'),
      'no-context',
      'nope',
    ],
    ['no kubeconfig', () => 'nonsense: [', 'kubeconfig-unreadable', 'no-kubeconfig'],
    [
      'an exec plugin that is not there',
      (text) =>
        text.replace(
          /token: .*/,
          'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: no-such-plugin}',
        ),
      'exec-plugin-failed',
      'no-such-plugin',
    ],
    [
      'an exec plugin that fails',
      (text) =>
        text.replace(
          /token: .*/,
          'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: [-c, "echo the session is over >&2; exit 1"]}',
        ),
      'exec-plugin-failed',
      /\bsh\b.*\bbed\b.*: the session is over/,
    ],
    [
      'an exec plugin that prints no credential',
      (text) =>
        text.replace(
          /token: .*/,
          'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: echo, args: [hello]}',
        ),
      'exec-plugin-failed',
      'ExecCredential',
    ],
  ])('%s', async (name, change, code, data) => {
    const path = await kubeconfig(name.replaceAll(' ', '-'), change);
    expectFailure(await fail(`register beta --kubeconfig ${path}`), code, data);
  });

  test('a silent API server', async () => {
    operator.clusters.beta.handle = () => ({ isSilent: true });
    expectFailure(await fail('register beta'), 'network', '30 s');
  });

  test('a missing kubeconfig', async () => {
    expectFailure(
      await fail('register beta', { env: { KUBECONFIG: undefined } }),
      'no-kubeconfig',
      'KUBECONFIG',
    );
    expectFailure(await fail('register beta --kubeconfig /nope'), 'kubeconfig-unreadable', '/nope', 'ENOENT');
  });
});

describe('doctor without AWS', () => {
  const withoutAws = () => [
    { what: 'no credentials', env: NO_CREDENTIALS, code: 'no-session', exitCode: EXIT.unauthenticated },
    {
      what: 'no response',
      env: { AWS_ENDPOINT_URL: `http://127.0.0.1:${closedPort}` },
      code: 'aws-unavailable',
      exitCode: EXIT.network,
    },
  ];

  test('checks the cluster of the context, and skips the checks from AWS', async () => {
    for (const { env, code, what } of withoutAws()) {
      const args = ['doctor', 'alpha', '--kubeconfig', operator.kubeconfigs.alpha, '--output', 'json'];
      const ended = await operator.cli.run(args, { env });
      expect({ code: ended.code, stderr: ended.stderr }, what).toEqual({ code: EXIT.unhealthy, stderr: '' });
      const report = JSON.parse(ended.stdout);
      expect(report, what).toMatchObject({ ok: false, firstFailed: { check: 'session', code } });
      const verdicts = Object.fromEntries(
        report.findings.map((finding: { check: string; verdict: string }) => [
          finding.check,
          finding.verdict,
        ]),
      );
      expect(verdicts, what).toMatchObject({
        ...{ session: 'failed', function: 'skipped', registration: 'skipped', reachable: 'skipped' },
        ...{ context: 'passed', chart: 'passed', 'write-policy': 'passed' },
      });
    }
  });

  test('ends with an error and a way out if there is no usable context either', async () => {
    for (const { env, exitCode } of withoutAws()) {
      const ended = await run('doctor alpha', { env: { ...env, KUBECONFIG: undefined } });
      expect(ended).toMatchObject({ code: exitCode, stdout: '' });
      expect(ended.stderr).toMatch(/^ecr-anywhere: .*neither AWS nor a cluster.*\n {2}→ \S.*\n$/);
    }
  });
});

test('prints no progress into a pipe', async () => {
  operator.aws.handle = (call) =>
    call.name === INVOKE('status')
      ? { before: () => new Promise((resolve) => setTimeout(resolve, 3_000)) }
      : undefined;
  expect(await run('status')).toMatchObject({ code: 0, stderr: '' });
});

test('no failed command has changed anything', async () => {
  expect(await operator.state()).toEqual(before);
});
