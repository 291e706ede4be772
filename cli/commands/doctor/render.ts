// What people see of what doctor has found: the walk, the first broken link, how it ends. At a terminal nothing begins
// again below the marks; in a file or a pipe a finding is one line.

import { formatList } from '../../output/format-list.ts';
import { colorize } from '../../output/io.ts';
import { table } from '../../output/table.ts';
import { type Finding, LINKS } from './checks.ts';

const MARKS = { well: '✔', broken: '✖', unknown: '–' } as const;
const COLOURS = { well: 'green', broken: 'red', unknown: 'gray' } as const;
/** As the table has it between its columns. */
const GAP = 3;
/** What is said in less would be a column of words. */
const MIN_WIDTH = 24;

/** Of the terminal; undefined where there is none, or nobody has told its size. */
export function terminalColumns(): number | undefined {
  return (process.stdout.isTTY && process.stdout.columns) || undefined;
}

/** Every finding, a line each. @param columns of the terminal */
export function walkInWords(findings: readonly Finding[], columns = terminalColumns()): string {
  const titles = findings.map(({ link }) => LINKS[link].title);
  const indent = Math.max(...titles.map((title) => title.length)) + 2 + GAP;
  return table(
    [],
    findings.map(({ link, verdict, says }) => [
      `${colorize(COLOURS[verdict], MARKS[verdict])} ${LINKS[link].title}`,
      wrapped(says, columns && columns - indent)
        .map((line) => (verdict === 'broken' ? line : colorize('dim', line)))
        .join('\n'),
    ]),
    { columns },
  );
}

/** The block about the link that is to be mended first. @param columns of the terminal */
export function firstBrokenInWords(
  { link, says, repair, hint }: Finding,
  columns = terminalColumns(),
): string {
  const indented = (text: string, indent: number) =>
    wrapped(text, columns && columns - indent).map((line) => ' '.repeat(indent) + line);
  return [
    `${colorize(['bold', 'red'], `First broken link: ${LINKS[link].title}`)} (${link})`,
    ...indented(says, 2),
    ...indented(LINKS[link].means, 2),
    // It is to be pasted: the terminal's own lines leave it in one piece.
    `  → ${repair}`,
    ...(hint === undefined ? [] : indented(`(${hint})`, 4)),
  ].join('\n');
}

/** That no link is broken, and that this is not all well. @param columns of the terminal */
export function blindnessInWords(findings: readonly Finding[], columns = terminalColumns()): string {
  const blind = findings.filter(({ verdict }) => verdict === 'unknown');
  const titles = blind.map(({ link }) => `“${LINKS[link].title}”`);
  const why = commonest(blind.map(({ says }) => says));
  const { length } = blind.filter(({ says }) => says === why);
  return wrapped(
    `No broken link, but not all well either: ${blind.length} of ${findings.length} could not be looked at, which counts (exit code 1): ${formatList(titles)}. ${length === blind.length ? 'Because' : `For ${length} of them, because`}: ${why}`,
    columns,
  ).join('\n');
}

function commonest(texts: readonly string[]): string | undefined {
  const counts = [...Map.groupBy(texts, (text) => text)].map(([text, { length }]) => ({ text, length }));
  return counts.toSorted((a, b) => b.length - a.length)[0]?.text;
}

/**
 * Lines that are no longer than that: broken between words, and within one that alone is longer, such as an ARN, so that
 * nothing is cut off.
 *
 * @param width undefined: it stays one line
 */
export function wrapped(text: string, width: number | undefined): string[] {
  if (width === undefined) return [text];
  const max = Math.max(width, MIN_WIDTH);
  const lines: string[] = [];
  let line = '';
  for (const word of text.split(' ')) {
    if (line && line.length + 1 + word.length > max) {
      lines.push(line);
      line = '';
    }
    line = line ? `${line} ${word}` : word;
    while (line.length > max) {
      lines.push(line.slice(0, max));
      line = line.slice(max);
    }
  }
  return [...lines, line];
}
