// Checks that the commands in hints select the same account, stack and cluster, and are safe to paste for any cluster name.
// The test responds for AWS.
import { execFileSync } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ShellCommands } from '../../../cli/output/shell-commands.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { DEPLOYED, functionAnswer, type Reply, startAwsWire, type Wire } from '../wire.ts';

const NAME = "it's $HOME";
const QUOTED = `'it'\\''s $HOME'`;
const FLAGS = '--profile work --region eu-central-1 --stack-name Pulls';

let aws: Wire;
let cli: CommandLine;
beforeAll(async () => {
  aws = await startAwsWire();
  cli = await startCommandLine({ AWS_ENDPOINT_URL: aws.url });
  const AWS_CONFIG_FILE = join(cli.home, 'aws-config');
  await writeFile(
    AWS_CONFIG_FILE,
    '[profile work]\naws_access_key_id = AKIAEXAMPLE\naws_secret_access_key = secret\n',
  );
  Object.assign(cli.env, { AWS_CONFIG_FILE });
});
afterAll(async () => {
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

describe('printed commands', () => {
  const options = { profile: 'ops', region: 'eu-west-1', stackName: 'Blue', kubeconfig: '/home/me/a b' };
  const context = "it's $HOME; `id`";
  const commands = new ShellCommands(options, { context, release: { release: 'ecr', namespace: 'pulls' } });

  /** The arguments that a shell parses from the command. */
  const argsOf = (command: string) =>
    execFileSync('/bin/sh', ['-c', `set -- ${command}\nprintf '%s\\n' "$@"`], { encoding: 'utf8' })
      .trimEnd()
      .split('\n');

  test('repeat the options for account, stack and cluster, quoted for a shell', () => {
    expect(argsOf(commands.cli(['register', 'alpha'], true))).toEqual([
      ...['ecr-anywhere', 'register', 'alpha', '--profile', 'ops', '--region', 'eu-west-1'],
      ...['--stack-name', 'Blue', '--kubeconfig', '/home/me/a b', '--context', context],
    ]);
    expect(argsOf(commands.kubectl(['get', 'pods']))).toEqual([
      ...['kubectl', '--kubeconfig', '/home/me/a b', '--context', context, 'get', 'pods'],
    ]);
    expect(argsOf(commands.upgrade())).toEqual([
      ...['helm', 'upgrade', 'ecr', 'webhook/chart', '--namespace', 'pulls', '--reset-then-reuse-values'],
      ...['--kubeconfig', '/home/me/a b', '--kube-context', context],
    ]);
    expect(argsOf(commands.deploy())).toEqual([
      ...['AWS_REGION=eu-west-1', 'npx', 'cdk', 'deploy', '-c', 'stackName=Blue', '--profile', 'ops'],
    ]);
  });

  test('a deployment carries a comment about the settings that it would reset', () => {
    for (const command of [commands.deploy(), commands.deploy({ keyless: 'true' })])
      expect(command).toMatch(/ # with the settings that the stack has: -c … or cdk\.json$/);
  });

  test('a diff shows the same deployment', () => {
    expect(argsOf(commands.diff({ keyless: 'true' }))).toEqual([
      ...['AWS_REGION=eu-west-1', 'npx', 'cdk', 'diff', '-c', 'stackName=Blue', '-c', 'keyless=true'],
      ...['--profile', 'ops'],
    ]);
  });
});
