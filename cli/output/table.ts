// Tables as kubectl prints them: columns without borders.
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';
import wrapAnsi from 'wrap-ansi';

const GAP = '   ';
const NO_LINES = {
  top: '',
  'top-mid': '',
  'top-left': '',
  'top-right': '',
  bottom: '',
  'bottom-mid': '',
  'bottom-left': '',
  'bottom-right': '',
  left: '',
  'left-mid': '',
  mid: '',
  'mid-mid': '',
  right: '',
  'right-mid': '',
  middle: GAP,
};
/** Text is not wrapped more narrowly than this. */
const MIN_WIDTH = 24;
const ELLIPSIS = ' … ';

export interface TableOptions {
  /** Width of the terminal; undefined: no terminal, and nothing is cut or wrapped. */
  readonly columns?: number | undefined;
  /** Maximum lines of the last column in a terminal. */
  readonly lines?: number;
}

/**
 * A table. In a terminal the last column is wrapped. Text that needs more than `lines` loses its middle, because errors
 * begin with the request and end with the cause.
 *
 * @param head in capitals; empty: no head
 */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  { columns = terminalColumns(), lines = Number.POSITIVE_INFINITY }: TableOptions = {},
): string {
  const all = [head, ...rows];
  const count = Math.max(...all.map((row) => row.length));
  const others = Array.from({ length: count - 1 }, (_, index) =>
    Math.max(...all.map((row) => widthOf(row[index] ?? ''))),
  );
  const last = Math.max(
    (columns ?? 0) - others.reduce((sum, width) => sum + width + GAP.length, 0),
    MIN_WIDTH,
  );
  const made = new Table({
    head: [...head],
    chars: NO_LINES,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
  });
  const cell = (text: string, index: number) =>
    columns !== undefined && index === count - 1 ? wrap(truncate(text, last * lines - last / 4), last) : text;
  made.push(...rows.map((row) => row.map(cell)));
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** Of the terminal; undefined if standard output is none, or its size is not known. */
export function terminalColumns(): number | undefined {
  return (process.stdout.isTTY && process.stdout.columns) || undefined;
}

/** Breaks lines between words, and within a word that is longer than a line, such as an ARN. */
export function wrap(text: string, width: number | undefined): string {
  return width === undefined ? text : wrapAnsi(text, Math.max(width, MIN_WIDTH), { hard: true });
}

/** Removes the middle of a text that is longer than `max`. @param text without colours */
export function truncate(text: string, max: number): string {
  if (text.length <= max) return text;
  const kept = Math.floor(max) - ELLIPSIS.length;
  const head = Math.ceil(kept / 2);
  return `${text.slice(0, head).trimEnd()}${ELLIPSIS}${text.slice(text.length - (kept - head)).trimStart()}`;
}

/** The number of terminal lines that a text takes. @param columns width of the terminal, which wraps longer lines */
export function heightOf(text: string, columns: number): number {
  return text.split('\n').reduce((sum, line) => sum + Math.max(1, Math.ceil(widthOf(line) / columns)), 0);
}

/** The width of a text without colours. */
function widthOf(text: string): number {
  return stripVTControlCharacters(text).length;
}
