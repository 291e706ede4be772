// Colours, progress and completion are for whoever sits at a terminal, a real one here; a file, a pipe, NO_COLOR and
// --quiet get none. AWS is answered for by the test.
import { type ChildProcess, execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Command } from 'commander';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { createProgram } from '../../../cli/program.ts';
import { tools } from '../../bed/toolchain.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import { awsError, DEPLOYED, functionAnswer, type Reply, startAwsWire, type Wire } from '../wire.ts';

let aws: Wire;
let cli: CommandLine;
let calm: Wire['treat'];
beforeAll(async () => {
  aws = await startAwsWire();
  const clusters = [
    { name: 'alpha', source: 'registered', isPaused: false, failures: 3, reason: 'connect ETIMEDOUT' },
    { name: 'beta', source: 'registered', isPaused: true },
  ];
  calm = ({ name }) => {
    if (name === 'cloudformation:DescribeStacks') return { reply: DEPLOYED };
    // Long enough to be seen.
    const before = () => new Promise((resolve) => setTimeout(resolve, 400));
    return { before, reply: functionAnswer({ clusters }) };
  };
  aws.treat = calm;
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: aws.url,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
    TERM: 'xterm-256color',
  });
});
afterEach(() => {
  aws.treat = calm;
  aws.calls.length = 0;
});
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await aws?.[Symbol.asyncDispose]();
});

/**
 * Runs a program at a pseudo-terminal of its own, on which both streams are. Prints what it showed, returns its exit code.
 * On standard input: what is typed; its end hangs up. In the background it hears nothing of that but by its writing.
 */
const PTY = `
import fcntl, os, pty, select, signal, struct, subprocess, sys, termios
columns, rows, kind = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
pid, terminal = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack('HHHH', rows if columns else 0, columns, 0, 0))
    if kind == 'background':
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        os._exit(subprocess.Popen(sys.argv[4:], process_group=0).wait())
    if kind == 'stderr': os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.execvp(sys.argv[4], sys.argv[4:])
open_files = [terminal, 0]
while terminal in open_files:
    for ready in select.select(open_files, [], [])[0]:
        try: data = os.read(ready, 65536)
        except OSError: data = b''
        if ready == 0:
            if data: os.write(terminal, data)
            else: open_files.clear()
        elif data: os.write(1, data)
        else: open_files.remove(terminal)
os.close(terminal)
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

interface Terminal {
  type(text: string): void;
  /** Closes it, as whoever closes its window does. */
  hangUp(): void;
}

interface TerminalOptions {
  readonly columns?: number;
  readonly rows?: number;
  readonly env?: Record<string, string>;
  readonly kind?: 'both' | 'stderr' | 'background';
  /** Is given the terminal as soon as there is one. */
  readonly onStart?: (terminal: Terminal) => void;
}

async function atTerminal(
  args: readonly string[],
  { columns = 100, rows = 40, env = {}, kind = 'both', onStart }: TerminalOptions = {},
): Promise<{ code: number; shown: string }> {
  const python = tools().python;
  return new Promise((resolve) => {
    const command = ['-c', PTY, String(columns), String(rows), kind, cli.bundle, ...args];
    const child = execFile(
      python,
      command,
      { env: { ...cli.env, ...env }, timeout: 30_000 },
      (error, stdout) => resolve({ code: error === null ? 0 : Number(error.code ?? -1), shown: stdout }),
    );
    onStart?.({ type: (text) => child.stdin?.write(text), hangUp: () => child.stdin?.end() });
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
    const { shown } = await atTerminal(['status', '--quiet'], { env: { NO_COLOR: '1' } });
    expect(shown).not.toContain(ESCAPE);
    expect(shown).toMatch(/^CLUSTER .*\r\nalpha .*\r\nbeta .*\r\n\r\n2 clusters, /);
  });

  test('of JSON not even a terminal makes something else', async () => {
    const { shown } = await atTerminal(['status', '--output', 'json', '--quiet']);
    expect(JSON.parse(shown)).toMatchObject({ clusters: [{ name: 'alpha' }, { name: 'beta' }] });
  });

  test('progress is on standard error: the result may go elsewhere', async () => {
    const { shown } = await atTerminal(['status'], { kind: 'stderr' });
    expect(shown).toContain('✔');
    expect(shown).not.toContain('CLUSTER');
  });

  test('one that has no size is none', async () => {
    const { code, shown } = await atTerminal(['status'], { columns: 0 });
    expect(code).toBe(1);
    expect(shown.length).toBeLessThan(1_000);
    expect(shown).toContain('alpha');
  });

  test('a failure is marked where it happened, and told at the end', async () => {
    const { code, shown } = await atTerminal(['status'], { env: { AWS_REGION: '' } });
    expect(code).toBe(2);
    expect(shown).toContain('✖');
    expect(shown).toContain('ecr-anywhere: No AWS region is configured.\r\n  → Set AWS_REGION');
  });
});

describe('status --watch', () => {
  const STATUS = 'lambda:InvokeFunction status';
  /** The frames of a terminal, one after the other. */
  const framesOf = (shown: string) => shown.split(`${ESCAPE}[H${ESCAPE}[2J`).slice(1);

  /** Watches until so many looks are over, each answered by the test. */
  async function watched(looks: readonly Reply[], options: Omit<TerminalOptions, 'onStart'> = {}) {
    let terminal: Terminal | undefined;
    let count = 0;
    aws.treat = ({ name }) => {
      if (name !== STATUS) return calm({ name, headers: {}, body: '' });
      const reply = looks[count++];
      if (reply) return { reply };
      terminal?.type('\u0003');
      return { isSilent: true };
    };
    const ended = await atTerminal(['status', '--watch', '--interval', '1'], {
      ...options,
      onStart: (started) => {
        terminal = started;
      },
    });
    return { ...ended, frames: framesOf(ended.shown) };
  }

  const many = (count: number) =>
    functionAnswer({
      clusters: Array.from({ length: count }, (_, index) => ({
        name: `cluster-${String(index).padStart(2, '0')}`,
        ...{ source: 'registered', isPaused: false, failures: 1, reason: 'connect ETIMEDOUT '.repeat(9) },
      })),
    });

  test('a look that fails ends nothing: the table stays, with the reason, until the next one', async () => {
    const failing = awsError('lambda:', 'Service', 'Service Unavailable', 503);
    const { code, frames } = await watched([many(2), failing, many(3)]);
    expect(code).toBe(130);
    expect(frames.length).toBe(3);
    expect(frames[0]).toContain('2 clusters');
    expect(frames[1]).toContain('cluster-01');
    expect(frames[1]).toMatch(/The last update failed: .*Service Unavailable/);
    expect(frames[2]).toContain('3 clusters');
    expect(frames[2]).not.toContain('failed:');
  });

  test('a terminal shows as much as it has room for, and keeps what was there before', async () => {
    const [columns, rows] = [100, 12];
    const { frames, shown } = await watched([many(50)], { columns, rows });
    const lines = (frames[0] ?? '').split('\r\n').slice(0, 12);
    // The twelfth is the cursor's.
    expect(lines.length).toBe(12);
    expect(lines[0]).toMatch(/^CLUSTER /);
    expect(lines[1]).toMatch(/^cluster-00 /);
    expect(lines.join('\n')).toMatch(/\nand 4\d more\n\n50 clusters, .*50 need attention/);
    expect(lines.at(-2)).toContain('ecr-anywhere doctor cluster-00');
    expect(shown).not.toContain(`${ESCAPE}[3J`);
  });

  test('a first look that fails is the end: there is nothing to be kept', async () => {
    aws.treat = (call) =>
      call.name === STATUS ? { reply: awsError('lambda:', 'AccessDenied', 'no') } : calm(call);
    const { code, shown } = await atTerminal(['status', '--watch']);
    expect(code, shown).toBe(4);
  });

  test('in a pipe, too, a look that fails ends nothing', async () => {
    let [child, count]: [ChildProcess | undefined, number] = [undefined, 0];
    aws.treat = (call) => {
      if (call.name !== STATUS) return calm(call);
      if (++count === 2) return { reply: awsError('lambda:', 'Service', 'Service Unavailable', 503) };
      if (count < 4) return { reply: many(1) };
      child?.kill('SIGINT');
      return { isSilent: true };
    };
    const { code, stdout, stderr } = await cli.run(['status', '--watch', '--interval', '1'], {
      onStart: (started) => {
        child = started;
      },
    });
    expect(code).toBe(130);
    expect(stdout.match(/^cluster-00 /gm)?.length).toBe(2);
    expect(stderr).toMatch(
      /^ecr-anywhere: The last update failed: .*Service Unavailable\.\necr-anywhere: interrupted\n$/,
    );
  });

  test('--live asks twice, and never at the same time', async () => {
    let [running, atOnce] = [0, 0];
    aws.treat = (call) => {
      if (!call.name.startsWith('lambda:')) return calm(call);
      atOnce = Math.max(atOnce, ++running);
      return {
        reply: functionAnswer({ clusters: [] }),
        before: () => new Promise((resolve) => setTimeout(resolve, 300)),
        after: async () => {
          running--;
        },
      };
    };
    expect(await cli.run(['status', '--live'])).toMatchObject({ code: 0 });
    expect(aws.calls.filter(({ name }) => name.startsWith('lambda:')).length).toBe(2);
    expect(atOnce).toBe(1);
  });
});

describe('a terminal that is closed', () => {
  const REVOKE = 'lambda:InvokeFunction revoke';

  /** Hangs up while a request of that name is held. */
  async function hungUpAt(held: string, args: readonly string[], kind: 'both' | 'background') {
    let terminal: Terminal | undefined;
    let at = 0;
    aws.treat = (call) => {
      if (call.name !== held)
        return call.name.startsWith('secretsmanager:')
          ? { reply: awsError(call.name, 'Nope', 'no') }
          : calm(call);
      return {
        reply: functionAnswer({ clusters: [], revoked: [{ cluster: 'alpha', outcome: 'revoked' }] }),
        async before() {
          at = performance.now();
          terminal?.hangUp();
          await new Promise((resolve) => setTimeout(resolve, 1_000));
        },
      };
    };
    const { code, shown } = await atTerminal(args, {
      kind,
      onStart: (started) => {
        terminal = started;
      },
    });
    expect(at, shown).toBeGreaterThan(0);
    return { code, ms: performance.now() - at, calls: aws.calls.map(({ name }) => name) };
  }

  test.each(['both', 'background'] as const)(
    'ends no change half-way: the cluster stays registered (%s)',
    async (kind) => {
      const { code, calls } = await hungUpAt(REVOKE, ['unregister', 'alpha'], kind);
      expect({ code, last: calls.at(-1) }).toEqual({ code: 130, last: REVOKE });
    },
  );

  test.each([
    ['both', 130],
    ['background', 0],
  ] as const)('ends what only reads at once (%s)', async (kind, expected) => {
    const { code, ms } = await hungUpAt('lambda:InvokeFunction status', ['status'], kind);
    expect(code).toBe(expected);
    expect(ms).toBeLessThan(900);
  });
});

describe('in a file or a pipe', () => {
  test.each([
    'status',
    'status -o wide',
    'refresh nope',
    'pause nope',
    'status --stage',
    'frobnicate',
    '--help',
  ])('%s', async (args) => {
    const { stdout, stderr } = await cli.run(args.split(' '));
    expect(`${stdout}${stderr}`).not.toContain(ESCAPE);
    expect(`${stdout}${stderr}`).not.toMatch(/[⠋⠙✔]/);
  });

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
