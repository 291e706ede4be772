// Tables as kubectl prints them: columns without borders.
import { stripVTControlCharacters } from 'node:util';
import wrapAnsi from 'wrap-ansi';

const GAP = '   ';
/** Text is not wrapped more narrowly than this. */
const MIN_WIDTH = 24;
const ELLIPSIS = ' … ';

export interface TableOptions {
  /** Width of the terminal; undefined: no terminal, and nothing is cut or wrapped. */
  readonly columns?: number | undefined;
  /** Maximum lines of the last column in a terminal. */
  readonly lines?: number;
  /** Whether a terminal that is too narrow for the last column shows the others only. */
  readonly isLastOptional?: boolean;
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
  { columns = terminalColumns(), lines = Number.POSITIVE_INFINITY, isLastOptional }: TableOptions = {},
): string {
  const all = head.length > 0 ? [head, ...rows] : rows;
  const last = Math.max(...all.map((row) => row.length)) - 1;
  const widths = Array.from({ length: last }, (_, index) =>
    Math.max(...all.map((row) => widthOf(row[index] ?? ''))),
  );
  const indent = widths.reduce((sum, width) => sum + width + GAP.length, 0);
  const wrapLast = (text: string) => {
    if (columns === undefined) return text;
    const room = columns - indent;
    if (isLastOptional && room < MIN_WIDTH) return '';
    const width = Math.max(room, MIN_WIDTH);
    const wrapped = wrap(truncate(text, width * lines - width / 4), width);
    return wrapped.replaceAll('\n', `\n${' '.repeat(indent)}`);
  };
  return all
    .map((row) => {
      const cells = widths.map((width, index) => `${pad(row[index] ?? '', width)}${GAP}`);
      return `${cells.join('')}${wrapLast(row[last] ?? '')}`.trimEnd();
    })
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

function pad(text: string, width: number): string {
  return `${text}${' '.repeat(width - widthOf(text))}`;
}
