// Colours, progress and completion are for whoever sits at a terminal, a real one here; a file, a pipe, NO_COLOR and
// --quiet get none. AWS is answered for by the test.
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { createProgram } from '../../cli/program.ts';
import { tools } from '../bed/toolchain.ts';
import { type CommandLine, startCommandLine } from './command-line.ts';
import { DEPLOYED, functionAnswer, startAwsWire, type Wire } from './wire.ts';

let aws: Wire;
let cli: CommandLine;
beforeAll(async () => {
  aws = await startAwsWire();
  const clusters = [
    { name: 'alpha', source: 'registered', isPaused: false, failures: 3, reason: 'connect ETIMEDOUT' },
    { name: 'beta', source: 'registered', isPaused: true },
  ];
  aws.treat = ({ name }) => {
    if (name === 'cloudformation:DescribeStacks') return { reply: DEPLOYED };
    // Long enough to be seen.
    const before = () => new Promise((resolve) => setTimeout(resolve, 400));
    return { before, reply: functionAnswer({ clusters }) };
  };
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: aws.url,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
    TERM: 'xterm-256color',
  });
});
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await aws?.[Symbol.asyncDispose]();
});

/** Runs a program at a pseudo-terminal of its own, on which both streams are. Prints what it showed, returns its exit code. */
const PTY = `
import fcntl, os, pty, struct, sys, termios
columns, sees_stdout = int(sys.argv[1]), sys.argv[2] == 'both'
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', 40 if columns else 0, columns, 0, 0))
    if not sees_stdout: os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execvp(sys.argv[3], sys.argv[3:])
while True:
    try: shown = os.read(terminal, 65536)
    except OSError: break
    if not shown: break
    os.write(1, shown)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

/** Types into an interactive bash that has sourced the completion script, and prints what that showed from then on. */
const BASH = `
import os, pty, select, sys, time
pid, terminal = pty.fork()
if pid == 0: os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])
def shown(until, seconds):
    text, end = b'', time.time() + seconds
    while until not in text and time.time() < end:
        if select.select([terminal], [], [], 0.2)[0]: text += os.read(terminal, 65536)
    return text
os.write(terminal, b'bind "set enable-bracketed-paste off"; source <(' + sys.argv[1].encode() + b' completion bash); echo RE""ADY\\n')
shown(b'READY', 15)
os.write(terminal, sys.argv[2].encode() + b'\\t\\t')
os.write(1, shown(b'nothing that is ever shown', 4))
os.kill(pid, 9)
`;

async function atTerminal(
  args: readonly string[],
  {
    columns = 100,
    env = {},
    sees = 'both',
  }: { columns?: number; env?: Record<string, string>; sees?: 'both' | 'stderr' } = {},
): Promise<{ code: number; shown: string }> {
  const python = tools().python;
  return new Promise((resolve) => {
    const command = ['-c', PTY, String(columns), sees, cli.bundle, ...args];
    execFile(python, command, { env: { ...cli.env, ...env }, timeout: 30_000 }, (error, stdout) =>
      resolve({ code: error === null ? 0 : Number(error.code ?? -1), shown: stdout }),
    );
  });
}

const ESCAPE = '\u001b';
// biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
const COLOUR = /\u001b\[(?:[39]\d|1)(?:;\d+)*m/;

describe('at a terminal', () => {
  test('there are colours and progress', async () => {
    const { code, shown } = await atTerminal(['status']);
    expect(code, shown).toBe(1);
    expect(shown).toMatch(COLOUR);
    expect(shown).toContain('✔');
    expect(shown).toMatch(/[⠋⠙⠹⠸]/);
    expect(shown).toContain('alpha');
    // The cursor is there again.
    expect(shown.lastIndexOf(`${ESCAPE}[?25h`)).toBeGreaterThan(shown.lastIndexOf(`${ESCAPE}[?25l`));
  });

  test('NO_COLOR is heeded, on both streams; progress stays', async () => {
    const { shown } = await atTerminal(['status'], { env: { NO_COLOR: '1' } });
    expect(shown).not.toMatch(COLOUR);
    expect(shown).toContain('✔');
  });

  test('--quiet shows the result and nothing else', async () => {
    const { shown } = await atTerminal(['list', '--quiet']);
    expect(shown).not.toContain(ESCAPE);
    expect(shown).toMatch(/^CLUSTER .*\r\nalpha .*\r\nbeta .*\r\n$/);
  });

  test('of JSON not even a terminal makes something else', async () => {
    const { shown } = await atTerminal(['list', '--output', 'json', '--quiet']);
    expect(JSON.parse(shown)).toMatchObject({ clusters: [{ name: 'alpha' }, { name: 'beta' }] });
  });

  test('progress is on standard error: the result may go elsewhere', async () => {
    const { shown } = await atTerminal(['list'], { sees: 'stderr' });
    expect(shown).toContain('✔');
    expect(shown).not.toContain('CLUSTER');
  });

  test('one that has no size is none', async () => {
    const { code, shown } = await atTerminal(['list'], { columns: 0 });
    expect(code).toBe(0);
    expect(shown.length).toBeLessThan(1_000);
    expect(shown).toContain('alpha');
  });

  test('a failure is marked where it happened, and told at the end', async () => {
    const { code, shown } = await atTerminal(['list'], { env: { AWS_REGION: '' } });
    expect(code).toBe(2);
    expect(shown).toContain('✖');
    expect(shown).toContain('ecr-anywhere: no AWS region\r\n  → give --region');
  });
});

describe('in a file or a pipe', () => {
  test.each(['list', 'status', 'refresh nope', 'pause nope', 'list --stage', 'frobnicate', '--help'])(
    '%s',
    async (args) => {
      const { stdout, stderr } = await cli.run(args.split(' '));
      expect(`${stdout}${stderr}`).not.toContain(ESCAPE);
      expect(`${stdout}${stderr}`).not.toMatch(/[⠋⠙✔]/);
    },
  );

  test('a reader that has seen enough is no failure', async () => {
    const { stderr } = await promisify(execFile)(
      'bash',
      ['-c', `${cli.bundle} status | true; ${cli.bundle} --help | head -1`],
      { env: cli.env },
    );
    expect(stderr).toBe('');
  });
});

describe('completion', () => {
  /** What an interactive bash shows when this is typed, and TAB twice. */
  async function completed(typed: string): Promise<string> {
    const { stdout } = await promisify(execFile)(tools().python, ['-c', BASH, cli.bundle, typed], {
      env: { ...cli.env, INPUTRC: '/dev/null' },
      timeout: 30_000,
    });
    return stdout;
  }

  test.each([
    ['ecr-anywhere unreg', 'ecr-anywhere unregister '],
    ['ecr-anywhere re', 'refresh register resume'],
    ['ecr-anywhere register --du', 'ecr-anywhere register --duration '],
    ['ecr-anywhere status --output j', 'ecr-anywhere status --output json '],
  ])('bash: %s⇥', async (typed, expected) => {
    const shown = await completed(typed);
    expect(shown).not.toMatch(/not found|readonly|syntax/);
    expect(shown.replaceAll(/\s+/g, ' ')).toContain(expected);
  });

  test.each(['bash', 'zsh', 'fish', 'powershell'])('%s has a script', async (shell) => {
    const { code, stdout, stderr } = await cli.run(['completion', shell]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('ecr-anywhere');
    // Only bash is there wherever the tests run.
    if (shell === 'bash') {
      await writeFile(join(cli.home, 'completion'), stdout);
      await promisify(execFile)('bash', ['-n', join(cli.home, 'completion')]);
    }
  });
});

describe('help', () => {
  const program = createProgram(new AbortController().signal);
  const visible = (command: Command) => command.createHelp().visibleCommands(command);

  test.each(
    visible(program)
      .filter((command) => command.name() !== 'help')
      .map((command) => [command.name(), command] as const),
  )('%s: a summary, and each option and argument with what it is', async (name, command) => {
    const { code, stdout, stderr } = await cli.run([name, '--help']);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const help = command.createHelp();
    expect(help.subcommandDescription(command)).toMatch(/^\S.{8,90}$/);
    expect(stdout).toMatch(new RegExp(`^Usage: ecr-anywhere ${name} `));
    for (const option of help.visibleOptions(command)) {
      expect(option.description, option.flags).toMatch(/\S/);
      expect(stdout).toContain(option.flags);
    }
    for (const argument of command.registeredArguments) {
      expect(argument.description, argument.name()).toMatch(/\S/);
      // It is wrapped.
      expect(stdout.replaceAll(/\s+/g, ' ')).toContain(argument.description);
    }
    expect(stdout.split('\n').every((line) => line.length <= 200)).toBe(true);
  });
});
