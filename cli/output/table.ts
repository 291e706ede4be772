// Tables as kubectl prints them: columns, no lines.
import { stripVTControlCharacters } from 'node:util';
import Table from 'cli-table3';
import wrapAnsi from 'wrap-ansi';

const GAP = '   ';
const NO_LINES = {
  ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '' },
  ...{ bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' },
  ...{ left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: GAP },
};
/** Text is not wrapped more narrowly than this. */
const MIN_WIDTH = 24;
const ELLIPSIS = ' … ';

export interface TableOptions {
  /** Of the terminal; undefined: there is none, and nothing is cut or wrapped. */
  readonly columns?: number | undefined;
  /** How many lines the last column may have in a terminal. */
  readonly lines?: number;
}

/**
 * A table. The last column is what may be long: in a terminal it is wrapped, and longer than so many lines it loses its
 * middle, as errors begin with what was asked and end with the cause.
 *
 * @param head in capitals; empty: none is shown
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
    ...(columns !== undefined && { colWidths: [...others, last], wordWrap: true }),
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

/** Without its middle, where it is longer than that. @param text without colours, if it is to be cut */
export function truncate(text: string, max: number): string {
  if (text.length <= max) return text;
  const kept = Math.floor(max) - ELLIPSIS.length;
  const head = Math.ceil(kept / 2);
  return `${text.slice(0, head).trimEnd()}${ELLIPSIS}${text.slice(text.length - (kept - head)).trimStart()}`;
}

/** How many lines of a terminal a text takes. @param columns of the terminal, in which longer lines are broken */
export function heightOf(text: string, columns: number): number {
  return text.split('\n').reduce((sum, line) => sum + Math.max(1, Math.ceil(widthOf(line) / columns)), 0);
}

/** As a terminal shows it, without colours. */
function widthOf(text: string): number {
  return stripVTControlCharacters(text).length;
}
