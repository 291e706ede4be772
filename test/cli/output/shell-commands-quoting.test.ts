// The commands that hints and doctor print, as a shell parses them.
import { execFileSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { ShellCommands } from '../../../cli/output/shell-commands.ts';

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
