// Tests colours, progress and completion at a pseudo-terminal, and that files, pipes, NO_COLOR and --quiet turn them off.
// The test responds to requests to AWS.
import { type ChildProcess, execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import { tools } from '../../bed/toolchain.ts';
import { type CommandLine, startCommandLine } from '../command-line.ts';
import {
  awsError,
  DEPLOYED,
  description,
  functionAnswer,
  type Reply,
  startAwsWire,
  type Wire,
} from '../wire.ts';

let aws: Wire;
let cli: CommandLine;
let respond: Wire['handle'];
beforeAll(async () => {
  aws = await startAwsWire();
  const clusters = [
    { name: 'alpha', source: 'registered', isPaused: false, failures: 3, reason: 'connect ETIMEDOUT' },
    { name: 'beta', source: 'registered', isPaused: true },
  ];
  respond = ({ name, body }) => {
    if (name === 'secretsmanager:DescribeSecret') return { reply: description(body) };
    if (name === 'cloudformation:DescribeStacks') return { reply: DEPLOYED };
    // Long enough for the progress to be shown.
    const before = () => new Promise((resolve) => setTimeout(resolve, 400));
    return { before, reply: functionAnswer({ clusters }) };
  };
  aws.handle = respond;
  cli = await startCommandLine({
    AWS_ENDPOINT_URL: aws.url,
    AWS_REGION: 'eu-central-1',
    AWS_ACCESS_KEY_ID: 'AKIAEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'secret',
    TERM: 'xterm-256color',
  });
});
afterEach(() => {
  aws.handle = respond;
  aws.calls.length = 0;
});
afterAll(async () => {
  await cli?.[Symbol.asyncDispose]();
  await aws?.[Symbol.asyncDispose]();
});

/**
 * Runs a program in its own pseudo-terminal. Prints what the terminal showed, and ends with the program's exit code.
 * Forwards standard input to the terminal, and closes the terminal at its end. A program in the background gets no SIGHUP,
 * and notices the closed terminal only when it writes.
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

/** Types into an interactive bash that has sourced the completion script, and prints what it shows up to a text. */
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
os.write(1, shown(sys.argv[3].encode(), 20))
os.kill(pid, 9)
`;

interface Terminal {
  type(text: string): void;
  /** Closes the terminal, as closing its window does. */
  hangUp(): void;
}

interface TerminalOptions {
  readonly columns?: number;
  readonly rows?: number;
  readonly env?: Record<string, string>;
  readonly kind?: 'both' | 'stderr' | 'background';
  /** Called with the terminal when it has started. */
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
  test('shows colours and progress', async () => {
    const { code, shown } = await atTerminal(['status']);
    expect(code, shown).toBe(1);
    expect(shown).toMatch(COLOUR);
    expect(shown).toContain('✔');
    expect(shown).toMatch(/[⠋⠙⠹⠸]/);
    expect(shown).toContain('alpha');
    // The cursor is visible again.
    expect(shown.lastIndexOf(`${ESCAPE}[?25h`)).toBeGreaterThan(shown.lastIndexOf(`${ESCAPE}[?25l`));
  });

  test('honours NO_COLOR on both streams, and still shows progress', async () => {
    const { shown } = await atTerminal(['status'], { env: { NO_COLOR: '1' } });
    expect(shown).not.toMatch(COLOUR);
    expect(shown).toContain('✔');
  });

  test('--quiet shows only the result', async () => {
    const { shown } = await atTerminal(['status', '--quiet'], { env: { NO_COLOR: '1' } });
    expect(shown).not.toContain(ESCAPE);
    expect(shown).toMatch(/^CLUSTER .*\r\nalpha .*\r\nbeta .*\r\n\r\n2 clusters, /);
  });

  test('prints plain JSON on a terminal too', async () => {
    const { shown } = await atTerminal(['status', '--output', 'json', '--quiet']);
    expect(JSON.parse(shown)).toMatchObject({ clusters: [{ name: 'alpha' }, { name: 'beta' }] });
  });

  test('writes progress to standard error if standard output is redirected', async () => {
    const { shown } = await atTerminal(['status'], { kind: 'stderr' });
    expect(shown).toContain('✔');
    expect(shown).not.toContain('CLUSTER');
  });

  test('a terminal without a size counts as no terminal', async () => {
    const { code, shown } = await atTerminal(['status'], { columns: 0 });
    expect(code).toBe(1);
    expect(shown.length).toBeLessThan(1_000);
    expect(shown).toContain('alpha');
  });

  test('marks the failed step, and prints the error at the end', async () => {
    const { code, shown } = await atTerminal(['status'], { env: { AWS_REGION: '' } });
    expect(code).toBe(2);
    expect(shown).toContain('✖');
    expect(shown).toContain('ecr-anywhere: No AWS region is configured.\r\n  → Set AWS_REGION');
  });
});

describe('status --watch', () => {
  const STATUS = 'lambda:InvokeFunction status';
  /** The frames that the terminal showed, in order. */
  const framesOf = (shown: string) => shown.split(`${ESCAPE}[H${ESCAPE}[2J`).slice(1);

  /** Watches until the command has received each response, then types Ctrl-C. */
  async function watched(replies: readonly Reply[], options: Omit<TerminalOptions, 'onStart'> = {}) {
    let terminal: Terminal | undefined;
    let count = 0;
    aws.handle = ({ name }) => {
      if (name !== STATUS) return respond({ name, headers: {}, body: '' });
      const reply = replies[count++];
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

  test('keeps the last table, with the reason, when an update fails', async () => {
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

  test('fits the table into the terminal, and keeps the scrollback', async () => {
    const [columns, rows] = [100, 12];
    const { frames, shown } = await watched([many(50)], { columns, rows });
    const lines = (frames[0] ?? '').split('\r\n').slice(0, 12);
    // The cursor is on the twelfth line.
    expect(lines.length).toBe(12);
    expect(lines[0]).toMatch(/^CLUSTER /);
    expect(lines[1]).toMatch(/^cluster-00 /);
    expect(lines.join('\n')).toMatch(/\nand 4\d more\n\n50 clusters, .*50 need attention/);
    expect(lines.at(-2)).toContain('ecr-anywhere doctor cluster-00');
    expect(shown).not.toContain(`${ESCAPE}[3J`);
  });

  test('ends when the first update fails', async () => {
    aws.handle = (call) =>
      call.name === STATUS ? { reply: awsError('lambda:', 'AccessDenied', 'no') } : respond(call);
    const { code, shown } = await atTerminal(['status', '--watch']);
    expect(code, shown).toBe(4);
  });

  test('continues in a pipe when an update fails', async () => {
    let [child, count]: [ChildProcess | undefined, number] = [undefined, 0];
    aws.handle = (call) => {
      if (call.name !== STATUS) return respond(call);
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
      /^ecr-anywhere: The last update failed: .*Service Unavailable\.\necr-anywhere: The command was interrupted\.\n$/,
    );
  });

  test('--live never sends two requests at the same time', async () => {
    let [running, atOnce] = [0, 0];
    aws.handle = (call) => {
      if (!call.name.startsWith('lambda:')) return respond(call);
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

describe('closing the terminal', () => {
  const REVOKE = 'lambda:InvokeFunction revoke';

  /** Closes the terminal while a request of that name is pending. */
  async function hungUpAt(held: string, args: readonly string[], kind: 'both' | 'background') {
    let terminal: Terminal | undefined;
    let at = 0;
    aws.handle = (call) => {
      if (call.name !== held)
        return call.name.startsWith('secretsmanager:Delete')
          ? { reply: awsError(call.name, 'Nope', 'no') }
          : respond(call);
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
    'does not interrupt a change: the cluster stays registered (%s)',
    async (kind) => {
      const { code, calls } = await hungUpAt(REVOKE, ['unregister', 'alpha'], kind);
      expect({ code, last: calls.at(-1) }).toEqual({ code: 130, last: REVOKE });
    },
  );

  test.each([
    ['both', 130],
    ['background', 0],
  ] as const)('ends a command that only reads at once (%s)', async (kind, expected) => {
    const { code, ms } = await hungUpAt('lambda:InvokeFunction status', ['status'], kind);
    expect(code).toBe(expected);
    expect(ms).toBeLessThan(900);
  });
});

test('succeeds when the reader closes its pipe early', async () => {
  const { stderr } = await promisify(execFile)(
    'bash',
    ['-c', `${cli.bundle} status | true; ${cli.bundle} --help | head -1`],
    { env: cli.env },
  );
  expect(stderr).toBe('');
});

describe('completion', () => {
  test.each([
    ['ecr-anywhere unreg', 'ecr-anywhere unregister '],
    ['ecr-anywhere re', 'refresh register resume'],
    ['ecr-anywhere register --du', 'ecr-anywhere register --duration '],
    ['ecr-anywhere status --output j', 'ecr-anywhere status --output json '],
  ])('bash: %s⇥', async (typed, expected) => {
    const [until = ''] = /\S+ ?$/.exec(expected) ?? [];
    const args = ['-c', BASH, cli.bundle, typed, until];
    const env = { ...cli.env, INPUTRC: '/dev/null' };
    const { stdout: shown } = await promisify(execFile)(tools().python, args, { env, timeout: 60_000 });
    expect(shown).not.toMatch(/not found|readonly|syntax/);
    expect(shown.replaceAll(/\s+/g, ' ')).toContain(expected);
  });

  test.each(['bash', 'zsh', 'fish', 'powershell'])('prints a script for %s', async (shell) => {
    const { code, stdout, stderr } = await cli.run(['completion', shell]);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('ecr-anywhere');
  });
});
