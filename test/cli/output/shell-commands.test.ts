// Checks that the commands in hints select the same account, stack and cluster, and are safe to paste for any cluster name.
// The test responds for AWS and for the API server.
import { writeFile } from 'node:fs/promises';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { DEPLOYED, functionAnswer, type Reply, startAwsWire, type Wire } from '../wire.ts';

const NAME = "it's $HOME";
const QUOTED = `'it'\\''s $HOME'`;
const FLAGS = '--profile work --region eu-central-1 --stack-name Pulls';

let aws: Wire;
let api: Server;
let cli: CommandLine;
let apiAnswers: { readonly status: number; readonly body: string } = { status: 401, body: '{}' };
beforeAll(async () => {
  aws = await startAwsWire();
  api = createServer((_, response) => response.writeHead(apiAnswers.status).end(apiAnswers.body));
  await new Promise<void>((resolve) => void api.listen(0, '127.0.0.1', resolve));
  cli = await startCommandLine({ AWS_ENDPOINT_URL: aws.url });
  const AWS_CONFIG_FILE = join(cli.home, 'aws-config');
  await writeFile(
    AWS_CONFIG_FILE,
    '[profile work]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n',
  );
  Object.assign(cli.env, { AWS_CONFIG_FILE });
});
afterAll(async () => {
  api?.close();
  await cli?.[Symbol.asyncDispose]();
  await aws?.[Symbol.asyncDispose]();
});

async function outputOf(args: readonly string[], reply: Reply): Promise<string> {
  const known = [{ name: NAME, source: 'registered', isPaused: false, failures: 1 }];
  aws.handle = (call) => {
    if (call.name.startsWith('cloudformation:')) return { reply: DEPLOYED };
    if (call.name.startsWith('secretsmanager:'))
      return {
        reply: { status: 200, headers: { 'content-type': 'application/x-amz-json-1.1' }, body: '{}' },
      };
    const isLook = call.name.endsWith(' status') && args[0] !== 'status';
    return { reply: isLook ? functionAnswer({ clusters: known }) : reply };
  };
  const options = ['--stack-name', 'Pulls', '--region', 'eu-central-1', '--profile', 'work'];
  const { stdout, stderr } = await cli.run([...args, ...options]);
  return `${stdout}${stderr}`;
}

const paused = { cluster: NAME, served: false, failed: false, isPaused: true, managed: 0, due: 0 };
const unknown = { names: [NAME], registered: [] };

test.each<[string, readonly string[], unknown, string]>([
  ['no cluster', ['status'], { clusters: [] }, `→ ecr-anywhere register NAME ${FLAGS}`],
  [
    'a cluster that needs attention',
    ['status'],
    { clusters: [{ name: NAME, source: 'registered', isPaused: false, failures: 1 }] },
    `→ ecr-anywhere doctor ${QUOTED} ${FLAGS}`,
  ],
  ['pause', ['pause', NAME], {}, `→ ecr-anywhere resume ${QUOTED} ${FLAGS}`],
  ['resume', ['resume', NAME], {}, `→ ecr-anywhere refresh ${QUOTED} ${FLAGS}`],
  [
    'a paused cluster',
    ['refresh', NAME],
    { clusters: [{ ...paused, outcomes: {}, problems: [] }] },
    `→ ecr-anywhere resume ${QUOTED} ${FLAGS}`,
  ],
  [
    'a cluster that is not registered',
    ['refresh', NAME],
    { clusters: [], notRegistered: unknown },
    `→ ecr-anywhere register ${QUOTED} ${FLAGS}`,
  ],
  [
    'a token that could not be revoked',
    ['unregister', NAME],
    { revoked: [{ cluster: NAME, outcome: 'failed', secret: { namespace: 'n', name: 'a b' } }] },
    `kubectl --context CONTEXT --namespace n delete secret 'a b' --ignore-not-found. Then: ecr-anywhere unregister ${QUOTED} --keep-token ${FLAGS}`,
  ],
  [
    'a namespace that is not enabled',
    ['refresh', NAME],
    { clusters: [{ ...paused, outcomes: {}, problems: [] }], namespacesNotEnabled: ['a b'] },
    "→ kubectl --context CONTEXT label namespace 'a b' ecr-anywhere.centml.ai/namespace=enabled",
  ],
  [
    'a function of another version',
    ['status'],
    { clusters: [{ name: NAME, source: 'eks-scope', isPaused: false }] },
    '-c stackName=Pulls --profile work',
  ],
])('%s: %j', async (_, args, answer, hint) => {
  expect(await outputOf(args, functionAnswer(answer))).toContain(hint);
});

test.each([
  [401, '{}', 'auth whoami'],
  [500, '{}', 'version'],
  [200, 'nginx', 'version'],
])(
  'for HTTP %i of an API server, the hint names the kubeconfig and the context',
  async (status, body, rest) => {
    apiAnswers = { status, body };
    const kubeconfig = join(cli.home, 'of a cluster');
    const { port } = api.address() as AddressInfo;
    await writeFile(
      kubeconfig,
      `contexts: [{name: "a b", context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "http://127.0.0.1:${port}", insecure-skip-tls-verify: true}}]
users: [{name: u, user: {token: a-rejected-token}}]
`,
    );
    const args = ['register', 'new', '--kubeconfig', kubeconfig, '--context', 'a b'];
    expect(await outputOf(args, functionAnswer({ clusters: [] }))).toContain(
      `kubectl --kubeconfig '${kubeconfig}' --context 'a b' ${rest}`,
    );
  },
);
