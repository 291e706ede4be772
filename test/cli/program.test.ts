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
  'help nope',
])('rejects: %s', async (line) => {
  await expect(parse(line)).rejects.toMatchObject({ name: 'CliError', code: 'usage' });
  expect(called).toBeUndefined();
});

test.each(['register prod --eks own', 'register --eks-name own prod --keyless', 'refresh prod -o wide'])(
  'rejects, by commander: %s',
  async (line) => {
    await expect(parse(line)).rejects.toBeInstanceOf(CommanderError);
    expect(called).toBeUndefined();
  },
);

describe('every command', () => {
  const names = createProgram(new AbortController().signal)
    .commands.map((command) => command.name())
    // These print a script for a shell, or help.
    .filter((name) => !['complete', 'completion', 'help'].includes(name));
  const optionOf = (name: string, long: string) =>
    program.commands.find((one) => one.name() === name)?.options.find((option) => option.long === long);

  test.each(names)('%s has --output json and --quiet', (name) => {
    expect(optionOf(name, '--output')?.argChoices).toContain('json');
    expect(optionOf(name, '--quiet')).toBeDefined();
  });

  test.each(names)('%s has --stage as a hidden alias of --stack-name', (name) => {
    expect(optionOf(name, '--stack-name')).toMatchObject({ hidden: false });
    expect(optionOf(name, '--stage')).toMatchObject({ hidden: true });
  });
});
