// Checks that no command prints control characters from a hostile function response or a hostile API server, neither as text
// nor as JSON.
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { parseSanitized, sanitize } from '../../../cli/output/sanitize.ts';
import { NAMESPACE_LABEL, SECRET_LABEL, WEBHOOK_NAME } from '../../../contract/names.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { awsError, DEPLOYED, description, functionAnswer, startAwsWire, type Wire } from '../wire.ts';

/** Control sequences that write to the clipboard, start a row, set a colour, reverse the text, or are invisible. */
const EVIL =
  '\u001b]52;c;ZXZpbA==\u0007\nfake-row   well\r\u2028fake-row\u2029\u202eevil\u009b31m\u0000\u200b\u00ad\u007f\ud800';
const evil = (name: string) => `${name}${EVIL}`;

/** Control characters, except the line feeds that the command line itself prints. */
const UNPRINTABLE = /(?!\n)[\p{C}\p{Zl}\p{Zp}]/u;

test('sanitizes values, lists and names in JSON', () => {
  const hostile = { [evil('a')]: [{ b: evil('b') }, 1, null, true], c: {} };
  const [name, value] = ['a', 'b'].map((one) => sanitize(evil(one)));
  expect(parseSanitized(JSON.stringify(hostile))).toEqual({
    [name ?? '']: [{ b: value }, 1, null, true],
    c: {},
  });
});

let aws: Wire;
let api: Server;
let cli: CommandLine;
beforeAll(async () => {
  aws = await startAwsWire();
  api = createServer((request, response) => {
    const { status = 200, body } = hostileCluster(
      `${request.method} ${new URL(request.url ?? '', 'http://x').pathname}`,
    );
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
  });
  api.listen(0, '127.0.0.1');
  await new Promise((resolve) => api.once('listening', resolve));
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: aws.url,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
  });
  const KUBECONFIG = join(cli.home, '.kubeconfig');
  const { port } = api.address() as AddressInfo;
  const named = JSON.stringify(evil('context'));
  await writeFile(
    KUBECONFIG,
    `current-context: ${named}
contexts: [{name: ${named}, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:${port}", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: a-rejected-token}}]
`,
  );
  Object.assign(cli.env, { KUBECONFIG });
});
afterAll(async () => {
  api?.close();
  await cli?.[Symbol.asyncDispose]();
  await aws?.[Symbol.asyncDispose]();
});

/** Runs a command, as text and as JSON, and expects no control characters in its output. */
async function expectPrintable(args: string, code: number): Promise<string> {
  const all: string[] = [];
  for (const more of [[], ['--output', 'json']]) {
    const ended = await cli.run([...args.split(' '), ...more]);
    const text = `${ended.stdout}${ended.stderr}`;
    expect(ended.code, text).toBe(code);
    expect(text).not.toMatch(UNPRINTABLE);
    // Not as an escape sequence of JSON either, which a consumer would decode.
    expect(text).not.toMatch(/\\u|\\n|\\r/);
    expect(text).not.toMatch(/^fake-row/m);
    all.push(text);
  }
  // The command printed the hostile text.
  expect(all.join('\n')).toContain('ZXZpbA==');
  return all.join('\n');
}

const secret = { secret: evil('team/one'), due: 'expired', outcome: 'refused', reason: evil('no') };
const summary = {
  cluster: evil('alpha'),
  ...{ served: false, failed: true, managed: 1, due: 1, outcomes: { [evil('refused')]: 1 } },
  ...{ reason: evil('down'), problems: [secret], secrets: [secret] },
  inspection: { server: evil('https://x'), username: evil('root'), groups: [evil('g')], identity: 'token' },
};

describe('a function', () => {
  const name = 'alpha';
  const known = [
    { name, source: 'registered', isPaused: false, context: evil('c'), failures: 2, reason: evil('down') },
    { name: evil('beta'), source: 'eks', isPaused: false, failures: 1, reason: evil('down') },
  ];
  const answers = (answer: object, action?: string) => {
    aws.handle = (call) => {
      if (call.name.startsWith('cloudformation:')) return { reply: DEPLOYED };
      if (call.name === 'secretsmanager:DescribeSecret') return { reply: description(call.body) };
      if (call.name.startsWith('secretsmanager:'))
        return {
          reply: { status: 200, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: '{}' },
        };
      const isOther = action !== undefined && !call.name.endsWith(` ${action}`);
      return { reply: functionAnswer(isOther ? { clusters: known } : answer) };
    };
  };

  test.each<[string, number, object, string?]>([
    ['status -o wide', 1, { clusters: known }],
    ['status --live', 1, { clusters: [{ ...summary, cluster: name }] }, 'refresh'],
    ['refresh alpha', 1, { clusters: [summary], namespacesNotEnabled: [evil('ns')] }],
    ['refresh alpha', 5, { clusters: [], notRegistered: { names: [evil('a')], registered: [evil('b')] } }],
    [
      'unregister alpha',
      1,
      { revoked: [{ cluster: name, outcome: 'failed', reason: evil('no') }] },
      'revoke',
    ],
    [
      'unregister alpha',
      0,
      {
        revoked: [
          { cluster: name, outcome: 'refused-already', secret: { namespace: evil('n'), name: evil('s') } },
        ],
      },
      'revoke',
    ],
  ])('%s, exit code %i', async (args, code, answer, action) => {
    answers(answer, action);
    await expectPrintable(args, code);
  });

  test('that throws', async () => {
    aws.handle = (call) => ({
      reply: call.name.startsWith('cloudformation:')
        ? DEPLOYED
        : functionAnswer({ errorMessage: evil('boom') }, 'Unhandled'),
    });
    await expectPrintable('status', 10);
  });
});

test('AWS itself', async () => {
  aws.handle = (call) => ({
    reply: call.name.startsWith('lambda:') ? awsError('lambda:', 'AccessDenied', evil('no')) : DEPLOYED,
  });
  await expectPrintable('status', 4);
});

/** What an API server answers whose owner would like to have the operator's terminal. */
let refuses = false;
function hostileCluster(name: string): { readonly status?: number; readonly body: object } {
  const metadata = {
    name: evil('name'),
    namespace: evil('namespace'),
    uid: 'the-uid',
    labels: {
      [evil('label')]: evil('value'),
      [NAMESPACE_LABEL.key]: evil('on'),
      [SECRET_LABEL.key]: evil('yes'),
    },
    annotations: { 'meta.helm.sh/release-name': evil('r'), 'meta.helm.sh/release-namespace': evil('n') },
  };
  const items = (...all: object[]) => ({ body: { metadata: {}, items: all } });
  if (!refuses && name.endsWith('/namespaces/kube-system')) return { body: { metadata: { uid: 'the-uid' } } };
  if (name.endsWith('/version'))
    return { body: { major: '1', minor: evil('34'), gitVersion: evil('v1.34.0') } };
  if (name.endsWith('/mutatingwebhookconfigurations'))
    return items({
      metadata,
      webhooks: [
        {
          name: WEBHOOK_NAME,
          clientConfig: { caBundle: evil('ca'), service: { name: evil('s'), namespace: evil('n') } },
          failurePolicy: evil('Fail'),
          matchConditions: [{ name: evil('condition'), expression: evil('true') }],
        },
      ],
    });
  if (/\/validatingadmissionpolicies$/.test(name))
    return items({ metadata, spec: { failurePolicy: evil('Ignore') } });
  if (/\/validatingadmissionpolicybindings$/.test(name))
    return items({ metadata, spec: { policyName: evil('p') } });
  if (name === 'GET /api/v1/namespaces' || name === 'GET /api/v1/secrets') return items({ metadata });
  return { status: 403, body: { kind: 'Status', message: evil('forbidden') } };
}

describe('an API server', () => {
  beforeAll(() => {
    const lookedAt = new Date().toISOString();
    const status = { name: 'alpha', source: 'registered', isPaused: false, clusterUid: 'the-uid', lookedAt };
    aws.handle = (call) => ({
      reply: call.name.startsWith('cloudformation:')
        ? DEPLOYED
        : call.name.startsWith('sts:')
          ? CALLER
          : call.name === 'secretsmanager:DescribeSecret'
            ? description(call.body)
            : functionAnswer({
                clusters: [call.name.endsWith('status') ? status : { ...summary, cluster: 'alpha' }],
              }),
    });
  });
  const CALLER = {
    status: 200,
    headers: { 'content-type': 'text/xml' },
    body: '<GetCallerIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><GetCallerIdentityResult><Arn>arn:aws:iam::111122223333:user/me</Arn><UserId>me</UserId><Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>',
  };

  test('doctor prints every name sanitized', async () => {
    const shown = await expectPrintable('doctor alpha', 1);
    for (const name of ['context', 'n', 'name', 'Fail', 'down'])
      expect(shown).toContain(`${name}\ufffd]52;c;`);
  });

  test('register prints the message of a refusal sanitized', async () => {
    expect(await expectPrintable('register alpha --replace', 6)).toContain('\ufffd]52;c;');
    refuses = true;
    expect(await expectPrintable('register alpha --replace', 4)).toContain('HTTP 403: forbidden\ufffd]52;c;');
    refuses = false;
  });
});
