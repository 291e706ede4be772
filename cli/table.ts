// Tables as kubectl prints them: columns, no lines.
import Table from 'cli-table3';

const GAP = '   ';
const NO_LINES = {
  ...{ top: '', 'top-mid': '', 'top-left': '', 'top-right': '' },
  ...{ bottom: '', 'bottom-mid': '', 'bottom-left': '', 'bottom-right': '' },
  ...{ left: '', 'left-mid': '', mid: '', 'mid-mid': '', right: '', 'right-mid': '', middle: GAP },
};
/** A reason in less would be a column of words. */
const MIN_LAST_WIDTH = 24;

/**
 * A table. The last column is what may be long: it is wrapped where the terminal ends, and whole in a file or a pipe.
 *
 * @param head in capitals
 * @param columns of the terminal; undefined: there is none
 */
export function table(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  columns: number | undefined = process.stdout.isTTY ? process.stdout.columns : undefined,
): string {
  const others = head.slice(0, -1).map((title, index) => {
    return Math.max(...[title, ...rows.map((row) => row[index] ?? '')].map(widthOf));
  });
  const rest = (columns ?? 0) - others.reduce((sum, width) => sum + width + GAP.length, 0);
  const made = new Table({
    head: [...head],
    chars: NO_LINES,
    style: { head: [], border: [], 'padding-left': 0, 'padding-right': 0 },
    ...(columns !== undefined && {
      colWidths: [...others, Math.max(rest, MIN_LAST_WIDTH)],
      wordWrap: true,
    }),
  });
  made.push(...rows.map((row) => [...row]));
  return made
    .toString()
    .split('\n')
    .map((line) => line.trimEnd())
    .join('\n');
}

/** As a terminal shows it, without colours. */
function widthOf(text: string): number {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: colours begin with one
  return text.replaceAll(/\u001b\[[\d;]*m/g, '').length;
}
