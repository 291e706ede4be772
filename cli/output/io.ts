// Output: results on standard output, everything else on standard error. Colours and progress appear on a terminal only.
import { styleText } from 'node:util';
import ora from 'ora';
import { redact } from './redact.ts';
import { sanitize } from './sanitize.ts';

/** `wide` is `text` with more columns. */
export type Format = 'text' | 'wide' | 'json';
type Style = Parameters<typeof styleText>[0];

export interface Io {
  /** Aborted by a signal, such as Ctrl-C. */
  readonly signal: AbortSignal;
  readonly format: Format;
  /** Whether standard output is a terminal. */
  readonly isTerminal: boolean;
  /** Prints the result. @param text returns the result as text, for other formats than JSON */
  print(result: unknown, text: () => string): void;
  /** Prints a note, unless --quiet. */
  note(text: string): void;
  /** Prints a warning, also with --quiet. */
  warn(text: string): void;
  /** Shows progress while work runs. @param work may report its progress */
  step<T>(title: string, work: (report: (text: string) => void) => Promise<T>): Promise<T>;
}

/** Colours a text for standard output, if that shows colours (honours NO_COLOR and FORCE_COLOR). */
export function colorize(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stdout });
}

/** The same for standard error. */
function colorizeNote(style: Style, text: string): string {
  return styleText(style, text, { stream: process.stderr });
}

/** @param quiet suppresses progress and notes */
export function createIo(signal: AbortSignal, { output = 'text', quiet = false }: IoOptions): Io {
  // A terminal without a known size has 0 columns, and a spinner would clear lines there endlessly.
  const showsProgress = process.stderr.isTTY === true && process.stderr.columns > 0 && !quiet;
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
      if (!showsProgress) return work(() => {});
      const title = sanitize(name);
      const spinner = ora({
        text: title,
        // ora would handle Ctrl-C itself. main.ts does, so that the work can end a change.
        discardStdin: false,
        stream: process.stderr,
        color: colorizeNote('red', 'x') === 'x' ? false : 'cyan',
      }).start();
      const startedAt = performance.now();
      let current = title;
      const timer = setInterval(() => {
        const seconds = Math.round((performance.now() - startedAt) / 1000);
        if (seconds >= 2) spinner.text = `${current} (${seconds} s)`;
      }, 1_000);
      try {
        const result = await work((text) => {
          current = `${title}: ${sanitize(text)}`;
          spinner.text = current;
        });
        spinner.stopAndPersist({ symbol: colorizeNote('green', '✔'), text: title });
        return result;
      } catch (error) {
        spinner.stopAndPersist({ symbol: colorizeNote('red', '✖'), text: title });
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
