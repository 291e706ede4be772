// How the options of the command line are parsed. The commands themselves do not run.
import { type Command, CommanderError } from 'commander';
import { beforeEach, describe, expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';

let program: Command;
let called: { args: string[]; options: Record<string, unknown> } | undefined;
beforeEach(() => {
  called = undefined;
  program = createProgram(new AbortController().signal, { writesUsageErrors: false });
  for (const command of program.commands)
    if (command.name() !== 'help')
      command.action(() => {
        called = { args: command.args, options: command.opts() };
      });
});

async function parse(line: string) {
  await program.parseAsync(line.split(' '), { from: 'user' });
  return called;
}

test.each([
  ['refresh -n team-a prod', ['prod'], { namespace: ['team-a'] }],
  ['refresh prod -n team-a --namespace team-b', ['prod'], { namespace: ['team-a', 'team-b'] }],
  ['register --eks prod', ['prod'], { eks: true }],
  ['register --eks-name own prod', ['prod'], { eks: true, eksName: 'own' }],
  ['register prod --duration 168h', ['prod'], { duration: 168 }],
  ['register prod --duration 168', ['prod'], { duration: 168 }],
  ['register prod --duration 90m', ['prod'], { duration: 1.5 }],
  ['register prod --keyless --wait 1m30s', ['prod'], { wait: 90 }],
  ['register prod --keyless --wait 90', ['prod'], { wait: 90 }],
  ['status --watch --interval 2m', [], { interval: 120 }],
  ['status --watch --interval 5', [], { interval: 5 }],
  ['status -o wide', [], { output: 'wide' }],
  ['status --stack-name Live', [], { stackName: 'Live' }],
  ['status --stage Live', [], { stackName: 'Live' }],
  ['get-token --cluster a --stage Live -o json', [], { stackName: 'Live', output: 'json' }],
])('parses: %s', async (line, args, options) => {
  expect(await parse(line)).toMatchObject({ args, options });
});

test.each([
  'register prod --duration 7d',
  'register prod --duration 0h',
  'register prod --wait soon',
  'status --watch --interval 500ms',
  'status --watch --interval 25h',
  'status --watch --interval 1e9',
  'help nope',
])('rejects: %s', async (line) => {
  await expect(parse(line)).rejects.toMatchObject({ name: 'CliError', code: 'usage' });
  expect(called).toBeUndefined();
});

test.each([
  'frobnicate',
  'status --frobnicate',
  'register',
  'register prod --eks own',
  'register prod --eks --keyless',
  'register --eks-name own prod --keyless',
  'refresh prod -o wide',
  'get-token --cluster a b',
  'get-token',
  'authentication-config --cluster a',
  'authentication-config --cluster a --issuer https://x --role-arn r --api-version v2',
])('rejects, by commander: %s', async (line) => {
  await expect(parse(line)).rejects.toBeInstanceOf(CommanderError);
  expect(called).toBeUndefined();
});

test('register --eks=NAME leads to --eks-name', async () => {
  await expect(parse('register prod --eks=own')).rejects.toThrow('--eks-name');
});

describe('every command', () => {
  const commands = createProgram(new AbortController().signal)
    // Called by the completion script; prints help.
    .commands.filter((command) => !['complete', 'help'].includes(command.name()))
    .map((command) => ({ name: command.name(), command, help: command.createHelp() }));
  // The completion script is printed for a shell.
  const withOutput = commands.filter(({ name }) => name !== 'completion');

  test.each(withOutput)('$name has --output json, --quiet, --stack-name and its alias', ({ command }) => {
    const options = Object.fromEntries(command.options.map((option) => [option.long, option]));
    expect(options).toMatchObject({
      '--output': { argChoices: expect.arrayContaining(['json']) },
      '--quiet': {},
      '--stack-name': { hidden: false },
      '--stage': { hidden: true },
    });
  });

  test.each(commands)('$name has a summary, and describes each option and argument', ({ command, help }) => {
    expect(help.subcommandDescription(command)).toMatch(/^\S.{8,90}$/);
    for (const { description } of [...help.visibleOptions(command), ...help.visibleArguments(command)])
      expect(description).toMatch(/\S/);
    expect(help.visibleArguments(command)).toEqual(command.registeredArguments);
  });

  test.each(commands)('$name takes no credential as the value of an option', ({ command }) => {
    const flags = command.options.flatMap((option) => (option.required ? [option.flags] : []));
    // The value of --credential is the name of a file.
    const others = flags.filter((one) => one !== '--credential <kubeconfig>');
    expect(others.join('\n')).not.toMatch(/token|password|secret|\bkey\b|access-key|credential/i);
  });
});
