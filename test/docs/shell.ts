// A shell for the documentation's commands: it has the tools of the test bed on its PATH, and keeps the variables that
// the commands set.
import { execFile } from 'node:child_process';
import { chmod, mkdir, symlink, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { keepEvidence } from '../bed/evidence.ts';
import { tools } from '../bed/toolchain.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const AWS_CLI = fileURLToPath(new URL('aws-cli.py', import.meta.url));
/** As much of jq as the documentation's commands need: `jq -r .field`. */
const JQ = `#!${process.execPath}
const [, , option, path] = process.argv;
if (option !== '-r' || !/^(\\.\\w+)+$/.test(path)) throw new Error('jq: only -r .field is known here');
let text = '';
process.stdin.on('data', (chunk) => { text += chunk; }).on('end', () => {
  console.log(path.slice(1).split('.').reduce((value, name) => value[name], JSON.parse(text)));
});
`;

export interface Ended {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** A command of a page, with what the page says that the commands of its block print. */
export interface Command {
  /** One logical line: continuations and here-documents are joined, comments stay. */
  readonly line: string;
  /** The block of output that follows; absent if there is none. `…` stands for any text. */
  readonly prints: string | undefined;
}

/** The commands of a page's shell blocks, in order. */
export function commandsOf(page: string): Command[] {
  const blocks = [...page.matchAll(/^ *```(\w*)\n([\s\S]*?)^ *```/gm)];
  return blocks.flatMap(([, language, text = ''], index) => {
    if (language !== 'sh') return [];
    const [, next, output] = blocks[index + 1] ?? [];
    return logicalLines(text).map((line) => ({ line, prints: next === '' ? output : undefined }));
  });
}

/** Joins continued lines, and the lines of a here-document to its command. */
function logicalLines(block: string): string[] {
  const lines: string[] = [];
  let end: string | undefined;
  for (const line of block.replaceAll(/\\\n\s*/g, '').split('\n')) {
    if (end === undefined) lines.push(line.trim());
    else lines.push(`${lines.pop()}\n${line}`);
    const [, terminator] = /<<'?(\w+)'?$/.exec(line) ?? [];
    if (terminator !== undefined) end = terminator;
    else if (line === end) end = undefined;
  }
  return lines.filter((line) => line !== '');
}

export class Shell {
  readonly #home: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #cwd: string;
  readonly #variables: string[] = [];

  private constructor(home: string, env: Readonly<Record<string, string>>, cwd: string) {
    this.#home = home;
    this.#env = env;
    this.#cwd = cwd;
  }

  /** @param cwd default: the checkout */
  static async start(home: string, env: Readonly<Record<string, string>>, cwd = ROOT): Promise<Shell> {
    const bin = join(home, 'bin');
    await mkdir(bin, { recursive: true });
    await symlink(tools().kubectl, join(bin, 'kubectl'));
    await symlink(tools().helm, join(bin, 'helm'));
    const script = async (name: string, text: string) => {
      await writeFile(join(bin, name), text);
      await chmod(join(bin, name), 0o755);
    };
    await script('jq', JQ);
    await script('aws', `#!/bin/sh\nexec '${tools().python}' '${AWS_CLI}' "$@"\n`);
    const path = `${bin}:${dirname(process.execPath)}:${process.env.PATH ?? ''}`;
    return new Shell(home, { ...env, PATH: path }, cwd);
  }

  /** @param isExported whether later commands have it in their environment */
  set(variable: string, value: string, isExported = false): void {
    this.#variables.push(`${isExported ? 'export ' : ''}${variable}='${value}'`);
  }

  /** Types a command. An assignment, exported or not, also sets the variable for later commands. */
  type(line: string): Promise<Ended> {
    const [, exported, variable] = /^(export )?(\w+)=/.exec(line) ?? [];
    const script = [...this.#variables, line, ...(variable ? [`printf %s "$${variable}"`] : [])].join('\n');
    return new Promise((resolve) => {
      const env = {
        ...this.#env,
        HOME: this.#home,
        // The home is new, but npm's cache is the machine's.
        npm_config_cache: process.env.npm_config_cache ?? join(process.env.HOME ?? '', '.npm'),
        CDK_DISABLE_CLI_TELEMETRY: 'true',
      };
      const options = { cwd: this.#cwd, env, maxBuffer: 64 * 1024 * 1024 };
      execFile('bash', ['-ec', script], options, (error, stdout, stderr) => {
        keepEvidence('cli', 'documentation', stdout + stderr);
        if (variable) this.set(variable, stdout, exported !== undefined);
        resolve({ code: error ? Number(error.code) : 0, stdout, stderr });
      });
    });
  }
}

/** A pattern for text in which `…` stands for anything. */
export function pattern(text: string): RegExp {
  const literal = (part: string) => part.replaceAll(/[.*+?^${}()|[\]\\]/g, '\\$&');
  return new RegExp(text.split('…').map(literal).join('.*'));
}
