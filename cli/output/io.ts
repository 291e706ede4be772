// What people see: results on standard output, everything else on standard error. Colours and progress where somebody
// looks at a terminal, and neither where the output goes into a file or a pipe.
import { styleText } from 'node:util';
import ora from 'ora';
import { redact } from './redact.ts';
import { sanitize } from './sanitize.ts';

/** `wide` is `text` with more columns. */
export type Format = 'text' | 'wide' | 'json';
type Style = Parameters<typeof styleText>[0];

export interface Io {
  /** Aborted by Ctrl-C. */
  readonly signal: AbortSignal;
  readonly format: Format;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /** The result. @param text of it, for people */
  print(result: unknown, text: () => string): void;
  /** Something worth knowing beside the result; not where it was asked to be quiet. */
  note(text: string): void;
  /** Something that is to be known, however quiet it was asked to be. */
  warn(text: string): void;
  /** Does something that takes time, and shows that it does. @param work may say how far it is */
  step<T>(title: string, work: (say: (text: string) => void) => Promise<T>): Promise<T>;
}

/** Colours a text of the result, where standard output shows colours (NO_COLOR and FORCE_COLOR are heeded). */
export function colorize(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

/** The same for what stands beside the result: NO_COLOR is heeded there, too. */
function paintNote(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stderr });
}

/** @param quiet no progress, no notes */
export function createIo(signal: AbortSignal, { output = 'text', quiet = false }: IoOptions): Io {
  // A terminal whose size nobody has told has no columns, and a spinner there would clear lines for ever.
  const isWatched = process.stderr.isTTY === true && process.stderr.columns > 0 && !quiet;
  return {
    signal,
    format: output,
    isTerminal: process.stdout.isTTY === true,
    print(result, text) {
      process.stdout.write(`${output === 'json' ? JSON.stringify(result, undefined, 2) : text()}\n`);
    },
    note(text) {
      if (!quiet) this.warn(text);
    },
    warn(text) {
      process.stderr.write(`${redact(text).split('\n').map(sanitize).join('\n')}\n`);
    },
    async step(name, work) {
      if (!isWatched) return work(() => {});
      const title = sanitize(name);
      // Ctrl-C is for main.ts, which lets the work undo what is half done.
      const spinner = ora({
        ...{ text: title, discardStdin: false, stream: process.stderr },
        color: paintNote('red', 'x') === 'x' ? false : 'cyan',
      }).start();
      const startedAt = performance.now();
      let said = title;
      const timer = setInterval(() => {
        const seconds = Math.round((performance.now() - startedAt) / 1000);
        if (seconds >= 2) spinner.text = `${said} (${seconds} s)`;
      }, 1_000);
      try {
        const result = await work((text) => {
          said = `${title}: ${sanitize(text)}`;
          spinner.text = said;
        });
        spinner.stopAndPersist({ symbol: paintNote('green', '✔'), text: title });
        return result;
      } catch (error) {
        spinner.stopAndPersist({ symbol: paintNote('red', '✖'), text: title });
        throw error;
      } finally {
        clearInterval(timer);
      }
    },
  };
}

export interface IoOptions {
  readonly output?: Format;
  readonly quiet?: boolean;
}
