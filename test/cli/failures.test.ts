// What goes wrong: each time one sentence, the way out, an exit code of cli/errors.ts, nothing on standard output, and
// nothing that was written. AWS' errors are worded as its services word them on the wire.
import { writeFile } from 'node:fs/promises';
import { createServer as createHttpServer } from 'node:http';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest';
import { EXIT } from '../../cli/output/errors.ts';
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
beforeEach(() => operator.calm());
afterEach(() => operator.calm());

/** One sentence and the way out. */
function expectSentence({ code, stdout, stderr }: Ended, exitCode: number, says: RegExp | string): void {
  expect({ code, stdout }, stderr).toEqual({ code: exitCode, stdout: '' });
  const [sentence = '', wayOut = '', ...rest] = stderr.split('\n');
  expect(rest, stderr).toEqual(['']);
  expect(sentence).toMatch(/^ecr-anywhere: \S.*[^\s:]$/);
  expect(sentence.length).toBeLessThan(700);
  expect(wayOut).toMatch(/^ {2}→ \S/);
  expect(stderr).not.toMatch(/\n\s+at |\.m?[jt]s:\d|node:internal|\[ERROR\]|undefined/);
  expect(stderr).not.toContain('\u001b');
  if (typeof says === 'string') expect(sentence).toContain(says);
  else expect(sentence).toMatch(says);
}

const run = (args: string, options?: RunOptions) => operator.cli.run(args.split(' '), options);

/** Treats the requests of one name, and no others. */
function answer(name: string, reply: Reply): void {
  operator.aws.treat = (call) => (call.name === name ? { reply } : undefined);
}

const STACK = 'cloudformation:DescribeStacks';
const INVOKE = (action: string) => `lambda:InvokeFunction ${action}`;

/** Every command, and what it asks of AWS in turn. */
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
  run(
    command
      .replace('FUNCTION', operator.bed.deployment.functionName)
      .replace('ALPHA', operator.kubeconfigs.alpha),
    options,
  );

test('the registered cluster is well, to begin with', async () => {
  expect(await run('refresh alpha')).toMatchObject({ code: 0, stderr: '' });
  before = await operator.state();
});

describe('AWS does not allow it', () => {
  test.each(EACH_CALL)('$command: $call', async ({ command, call }) => {
    answer(call, notAuthorized(call));
    const ended = await runCommand(command);
    const [action = ''] = call.split(' ');
    expectSentence(
      ended,
      EXIT.denied,
      `AWS does not allow it: User: arn:aws:iam::111122223333:user/operator is not authorized to perform: ${action} on`,
    );
    expect(ended.stderr).toContain('→ docs/command-line.md has the policy');
    expect(operator.aws.calls.map(({ name }) => name)).toContain(call);
  });
});

describe('the session has expired', () => {
  test.each(EACH_CALL)('$command: $call', async ({ command, call }) => {
    answer(call, awsError(call, 'ExpiredToken', 'The security token included in the request is expired'));
    const ended = await runCommand(command);
    expectSentence(
      ended,
      EXIT.unauthenticated,
      'the AWS session has expired: The security token included in the request is expired',
    );
    expect(ended.stderr).toContain('aws sso login');
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
    expectSentence(
      await run('status --profile work', { env }),
      EXIT.unauthenticated,
      /\(profile work\): (nobody is signed in|the AWS session has expired)/,
    );
  });
});

describe('the other side is not what it was', () => {
  test.each<[string, string, string, Reply, number, RegExp | string]>([
    [
      'AWS does not know the key',
      'status',
      STACK,
      awsError(STACK, 'InvalidClientTokenId', 'The security token included in the request is invalid.'),
      EXIT.unauthenticated,
      'AWS does not accept these credentials',
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
      EXIT.unauthenticated,
      /AWS does not accept these credentials$/,
    ],
    [
      'throttled',
      'status',
      INVOKE('status'),
      awsError('lambda:', 'TooManyRequests', 'Rate Exceeded.', 429),
      EXIT.failed,
      'AWS has too much to do: Rate Exceeded.',
    ],
    [
      'AWS fails',
      'status',
      INVOKE('status'),
      awsError('lambda:', 'Service', 'Service Unavailable', 503),
      EXIT.failed,
      'Service Unavailable',
    ],
    [
      'a page of a proxy in place of AWS',
      'status',
      STACK,
      { status: 200, headers: { 'content-type': 'text/html' }, body: '<html><body>Sign in to the hotel' },
      EXIT.network,

      'what answers is something else',
    ],
    [
      'a page of a proxy in place of Lambda',
      'status --function FUNCTION',
      'lambda:GetFunctionConfiguration',
      { status: 200, headers: { 'content-type': 'text/html' }, body: '<html>Sign in to the hotel' },
      EXIT.network,
      'what answers is something else',
    ],
    [
      'the function throws',
      'status',
      INVOKE('status'),
      functionAnswer(
        { errorType: 'Error', errorMessage: 'boom\n  at x', trace: ['Error: boom', '    at file.js:1:2'] },
        'Unhandled',
      ),
      EXIT.failed,
      /failed: boom at x$/,
    ],
    [
      'the function gives no reason',
      'status',
      INVOKE('status'),
      functionAnswer(null, 'Unhandled'),
      EXIT.failed,
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
      EXIT.failed,
      'ran out of time',
    ],
    [
      'the function answers something else',
      'status',
      INVOKE('status'),
      functionAnswer('hello'),
      EXIT.failed,
      'answers what this command line does not understand',
    ],
    [
      'nothing',
      'status',
      INVOKE('status'),
      functionAnswer(''),
      EXIT.failed,
      'answers what this command line does not understand',
    ],
    [
      'an older version answers as if it were a run',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ clusters: [] }),
      EXIT.failed,
      'answers what this command line does not understand',
    ],
    [
      'an older version says no',
      'status',
      INVOKE('status'),
      functionAnswer(
        {
          errorType: 'Error',
          errorMessage: 'The event is not one that the refresher knows: ✖ Unrecognized key: "action"',
        },
        'Unhandled',
      ),
      EXIT.failed,
      'does not understand what this command line asks',
    ],
    [
      'another cluster is told of',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ revoked: [] }),
      EXIT.failed,
      'says nothing of alpha',
    ],
    [
      'the token cannot be ended',
      'unregister alpha',
      INVOKE('revoke'),
      functionAnswer({ revoked: [{ cluster: 'alpha', outcome: 'failed', reason: 'no route' }] }),
      EXIT.unhealthy,
      'could not be ended, so it stays registered: no route',
    ],
    [
      'taken by somebody else meanwhile',
      'register beta',
      'secretsmanager:CreateSecret',
      awsError('secretsmanager:', 'ResourceExists', 'A resource with the ID you requested already exists.'),
      EXIT.conflict,
      'The name beta is already registered.',
    ],
    [
      'the refresher does not reach it',
      'register beta',
      INVOKE('inspect'),
      functionAnswer({ clusters: [{ cluster: 'beta', served: false, reason: 'connect ETIMEDOUT' }] }),
      EXIT.unhealthy,
      'beta is not registered: connect ETIMEDOUT',
    ],
  ])(
    '%s',
    async (_, command, call, reply, code, says) => {
      answer(call, reply);
      expectSentence(await runCommand(command), code, says);
      expect(operator.aws.calls.map(({ name }) => name)).toContain(call);
    },
    90_000,
  );
});

describe('unregister, when the token has ended', () => {
  const DELETE = 'secretsmanager:DeleteSecret';
  const REVOKE = INVOKE('revoke');
  const secret = { namespace: 'pulls', name: 'ecr-refresher-token' };
  const OPTIONS = '--stack-name EcrAnywhere --region eu-central-1';
  const REST = `ecr-anywhere unregister alpha --region eu-central-1 --stack-name EcrAnywhere does the rest; ecr-anywhere register alpha --replace --region eu-central-1 --stack-name EcrAnywhere gives it another token`;
  const DELETION =
    'kubectl --context CONTEXT --namespace pulls delete secret ecr-refresher-token --ignore-not-found';

  function answers(revoked: object, deletion: Treatment): void {
    operator.aws.treat = ({ name }) => {
      if (name === REVOKE) return { reply: functionAnswer({ revoked: [{ cluster: 'alpha', ...revoked }] }) };
      return name === DELETE ? deletion : undefined;
    };
  }
  const DELETED: Treatment = {
    reply: { status: 200, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: '{}' },
  };

  test.each<[string, Treatment, number, RegExp]>([
    [
      'may not delete the registration',
      { reply: notAuthorized(DELETE) },
      EXIT.denied,
      /the token of alpha has ended, and it is registered still: .*AWS does not allow it: .*DeleteSecret/,
    ],
    [
      'session expires',
      { reply: awsError(DELETE, 'ExpiredToken', 'The security token included in the request is expired') },
      EXIT.unauthenticated,
      /the token of alpha has ended, and it is registered still: .*the AWS session has expired/,
    ],
    [
      'network is lost',
      { before: () => Promise.reject(new Error('cut')) },
      EXIT.network,
      /the token of alpha has ended, and it may be registered still: .*no answer: /,
    ],
  ])('and the operator’s %s', async (_, deletion, code, says) => {
    for (const outcome of ['revoked', 'refused-already']) {
      answers({ outcome }, deletion);
      const ended = await run(`unregister alpha ${OPTIONS}`);
      expectSentence(ended, code, says);
      expect(ended.stderr).toMatch(new RegExp(`; then ${REST}\n$`));
    }
  });

  test('nothing has ended: nothing is said of it', async () => {
    answers({ outcome: 'nothing-to-revoke', reason: 'a certificate' }, { reply: notAuthorized(DELETE) });
    const ended = await run('unregister alpha');
    expectSentence(ended, EXIT.denied, /^ecr-anywhere: deleting the registration of alpha: AWS does not/);
  });

  test('which the API server refused already: what else may be bound to its Secret is said, with the command', async () => {
    answers({ outcome: 'refused-already', reason: 'why', secret }, DELETED);
    const { code, stdout, stderr } = await run('unregister alpha');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(
      /^alpha is not registered any more\.\n {2}Its API server refused the token already/,
    );
    expect(stdout).toContain(`\n    → ${DELETION}\n`);
    expect(await operator.cli.json(['unregister', 'alpha'])).toEqual({
      ...{ cluster: 'alpha', isRegistered: false, token: 'refused-already', reason: 'why', secret },
    });
    answers({ outcome: 'refused-already' }, DELETED);
    expect((await run('unregister alpha')).stdout).toContain('lives on while that Secret does.\n');
  });

  test('or has not: the command is of the Secret that it is bound to', async () => {
    answers({ outcome: 'failed', reason: 'no route', secret }, DELETED);
    const ended = await run(`unregister alpha ${OPTIONS}`);
    expectSentence(ended, EXIT.unhealthy, 'could not be ended, so it stays registered: no route');
    expect(ended.stderr).toContain(
      `→ end it yourself: ${DELETION}; then ecr-anywhere unregister alpha --keep-token --region eu-central-1 --stack-name EcrAnywhere\n`,
    );
    expect(operator.aws.calls.map(({ name }) => name)).not.toContain(DELETE);
  });
});

describe('a proxy that lets nobody through is not AWS', () => {
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
    const ended = await run('status', { env });
    expectSentence(ended, EXIT.network, `HTTP/1.1 ${says}`);
    expect(ended.stderr).toContain('a proxy (HTTPS_PROXY)?');
    expect(ended.stderr).not.toContain('4711');
    expect(ended.stderr).not.toContain('AWS says so');
  });
});

const NOBODY = { AWS_ACCESS_KEY_ID: undefined, AWS_SECRET_ACCESS_KEY: undefined };

describe.each([
  'status',
  'refresh alpha',
  'pause alpha',
  'resume alpha',
  'unregister alpha',
  'register beta',
])('%s', (command) => {
  test.each<[string, () => RunOptions['env'], number, RegExp | string]>([
    ['not signed in', () => NOBODY, EXIT.unauthenticated, 'nobody is signed in to AWS'],
    [
      'no region',
      () => ({ AWS_REGION: undefined, AWS_DEFAULT_REGION: undefined }),
      EXIT.usage,
      'no AWS region',
    ],
    [
      'nobody listens',
      () => ({ AWS_ENDPOINT_URL: `http://127.0.0.1:${closedPort}` }),
      EXIT.network,
      'ECONNREFUSED',
    ],
    ['no such host', () => ({ AWS_ENDPOINT_URL: 'http://aws.invalid' }), EXIT.network, 'ENOTFOUND'],
    [
      'an authority that is not trusted',
      () => ({ AWS_ENDPOINT_URL: operator.bed.deployment.emulator.endpoint, NODE_EXTRA_CA_CERTS: undefined }),
      EXIT.network,
      'unable to verify',
    ],
  ])('%s', async (_, env, code, says) => {
    expectSentence(await run(command, { env: env() ?? {} }), code, says);
  });

  test('no such stack; a stack of something else', async () => {
    expectSentence(
      await run(`${command} --stack-name Nope`),
      EXIT.notFound,
      'there is no stack Nope in eu-central-1',
    );
    expectSentence(
      await run(`${command} --stack-name CDKToolkit`),
      EXIT.notFound,
      "the stack CDKToolkit is no refresher's in eu-central-1",
    );
    expectSentence(await run(`${command} --function Nope`), EXIT.notFound, 'there is no function Nope');
  });

  test('prints the error as an object on standard error with --output json', async () => {
    const { code, stdout, stderr } = await run(`${command} --output json`, { env: NOBODY });
    expect({ code, stdout }).toEqual({ code: EXIT.unauthenticated, stdout: '' });
    expect(JSON.parse(stderr)).toMatchObject({ error: { code: 'no-aws-credentials', exitCode: code } });
  });
});

test.each(['refresh', 'pause', 'resume', 'unregister'])('%s: an unknown cluster', async (command) => {
  const ended = await run(`${command} nope`);
  expectSentence(ended, EXIT.notFound, 'not registered: nope; registered are: alpha');
});

test('registered twice: by its name, and as the same cluster under another', async () => {
  const { alpha } = operator.kubeconfigs;
  expectSentence(
    await run(`register alpha --kubeconfig ${alpha}`),
    EXIT.conflict,
    'The name alpha is already registered.',
  );
  expectSentence(
    await run(`register gamma --kubeconfig ${alpha}`),
    EXIT.conflict,
    'This cluster is already registered as alpha.',
  );
  expectSentence(
    await run('register alpha --replace'),
    EXIT.conflict,
    'The name alpha is registered for a different cluster than that of the context.',
  );
  expectSentence(
    await run('register beta --replace'),
    EXIT.notFound,
    'The name beta is not registered, so there is no credential to replace.',
  );
});

test('a host that says nothing costs half a minute at most', async () => {
  const startedAt = performance.now();
  const ended = await Promise.all([
    run('status', { env: { AWS_ENDPOINT_URL: silent.url } }),
    run('register beta', { env: { AWS_ENDPOINT_URL: silent.url } }),
  ]);
  for (const one of ended)
    expectSentence(one, EXIT.network, 'looking for the stack EcrAnywhere: no answer within 10 s');
  expect(performance.now() - startedAt).toBeLessThan(45_000);
});

describe('the API server', () => {
  const STATUS = (code: number, message: string): Reply => ({
    status: code,
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ kind: 'Status', apiVersion: 'v1', status: 'Failure', message, code }),
  });
  test.each<[string, string, Reply, number, RegExp | string]>([
    [
      'knows nobody',
      'GET /api/v1/namespaces/kube-system',
      STATUS(401, 'Unauthorized'),
      EXIT.unauthenticated,
      'HTTP 401: Unauthorized',
    ],
    [
      'refuses the operator',
      'GET /api/v1/namespaces/kube-system',
      STATUS(403, 'namespaces "kube-system" is forbidden: User "me" cannot get'),
      EXIT.denied,
      'namespaces "kube-system" is forbidden',
    ],
    [
      'refuses the look at the chart',
      'GET /apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations',
      STATUS(403, 'forbidden: cannot list'),
      EXIT.denied,
      'cannot list',
    ],
    [
      'refuses the token',
      'POST /api/v1/namespaces/ecr-anywhere/serviceaccounts/ecr-anywhere-refresher/token',
      STATUS(403, 'forbidden: cannot create resource "serviceaccounts/token"'),
      EXIT.denied,
      'serviceaccounts/token',
    ],
    [
      'is a page of a proxy',
      'GET /api/v1/namespaces/kube-system',
      { status: 200, body: '<html>Sign in' },
      EXIT.network,
      'what answers is no API server',
    ],
    [
      'is something else',
      'GET /api/v1/namespaces/kube-system',
      { status: 200, body: '{"hello": 1}' },
      EXIT.network,
      /\S/,
    ],
    [
      'is another one',
      'GET /api/v1/namespaces/kube-system',
      { status: 404, body: 'nginx' },
      EXIT.failed,
      'HTTP 404: no reason given',
    ],
    ['fails', 'GET /api/v1/namespaces/kube-system', { status: 503, body: 'x' }, EXIT.failed, 'HTTP 503'],
  ])('%s', async (_, name, reply, code, says) => {
    operator.clusters.beta.treat = (call) => (call.name === name ? { reply } : undefined);
    expectSentence(await run('register beta'), code, says);
    expect(operator.clusters.beta.calls.map((call) => call.name)).toContain(name);
  });

  const kubeconfig = async (name: string, change: (text: string) => string) => {
    const path = join(operator.cli.home, name);
    const { readFile } = await import('node:fs/promises');
    await writeFile(path, change(await readFile(operator.kubeconfigs.beta, 'utf8')));
    return path;
  };

  test.each<[string, (text: string) => string, number, RegExp | string]>([
    [
      'nobody listens',
      (text) => text.replace(/server: .*/, `server: https://127.0.0.1:${closedPort}`),
      EXIT.network,
      'ECONNREFUSED',
    ],
    [
      'no such host',
      (text) => text.replace(/server: .*/, 'server: https://api.invalid'),
      EXIT.network,
      'ENOTFOUND',
    ],
    [
      'another authority',
      (text) => text.replace(/ *certificate-authority-data: .*\n/, ''),
      EXIT.network,
      'certificate',
    ],
    [
      'no context of that name',
      (text) => text.replace(/current-context: .*/, 'current-context: nope'),
      EXIT.notFound,
      'there is no context nope',
    ],
    ['no kubeconfig', () => 'nonsense: [', EXIT.usage, 'cannot be read: it is not a kubeconfig'],
    [
      'an exec plugin that is not there',
      (text) =>
        text.replace(
          /token: .*/,
          'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: no-such-plugin}',
        ),
      EXIT.unauthenticated,
      'no-such-plugin',
    ],
    [
      'an exec plugin that fails',
      (text) =>
        text.replace(
          /token: .*/,
          'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: sh, args: [-c, "echo the session is over >&2; exit 1"]}',
        ),
      EXIT.unauthenticated,
      /sh, which the kubeconfig names for the user bed: the session is over$/,
    ],
    [
      'an exec plugin that prints no credential',
      (text) =>
        text.replace(
          /token: .*/,
          'exec: {apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, command: echo, args: [hello]}',
        ),
      EXIT.unauthenticated,
      'it prints no ExecCredential',
    ],
  ])('%s', async (name, change, code, says) => {
    const path = await kubeconfig(name.replaceAll(' ', '-'), change);
    expectSentence(await run(`register beta --kubeconfig ${path}`), code, says);
  });

  test('says nothing for half a minute', async () => {
    operator.clusters.beta.treat = () => ({ isSilent: true });
    expectSentence(await run('register beta'), EXIT.network, 'no answer within 30 s');
  });

  test('there is no kubeconfig at all', async () => {
    expectSentence(
      await run('register beta', { env: { KUBECONFIG: undefined } }),
      EXIT.notFound,
      'there is no kubeconfig',
    );
    expectSentence(await run('register beta --kubeconfig /nope'), EXIT.usage, '/nope cannot be read: ENOENT');
  });
});

describe('doctor without AWS', () => {
  const withoutAws = () => [
    { what: 'no credentials', env: NOBODY, code: 'no-session', exitCode: EXIT.unauthenticated },
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
    for (const { env, exitCode } of withoutAws())
      expectSentence(
        await run('doctor alpha', { env: { ...env, KUBECONFIG: undefined } }),
        exitCode,
        'neither AWS nor a cluster',
      );
  });
});

test('an invocation that takes long says nothing where nobody looks', async () => {
  operator.aws.treat = (call) =>
    call.name === INVOKE('status')
      ? { before: () => new Promise((resolve) => setTimeout(resolve, 3_000)) }
      : undefined;
  expect(await run('status')).toMatchObject({ code: 0, stderr: '' });
});

test('nothing of all this has written anything', async () => {
  expect(await operator.state()).toEqual(before);
});
