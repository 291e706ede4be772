// All clusters in a table, who needs somebody first, and in how many words a terminal has room for. Pure: `now` is an
// argument.
import type { ClusterStatus } from '../../../contract/refresher-api.ts';
import type { CliError } from '../../output/errors.ts';
import { colorize } from '../../output/io.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { heightOf, table, truncate } from '../../output/table.ts';
import { byUrgency, NEEDY, type State, span, stateOf } from './urgency.ts';

export type Row = ClusterStatus & { readonly state: State };

/** The clusters, and the places where such are looked for, who needs somebody first. */
export function rowsOf(all: readonly ClusterStatus[], now: number): Row[] {
  return all.toSorted(byUrgency(now)).map((one) => ({ state: stateOf(one, now), ...one }));
}

export function isNeedy({ state }: Row): boolean {
  return NEEDY.has(state);
}

/** Of a terminal, in characters. */
export interface Screen {
  readonly rows: number;
  readonly columns: number;
}

/** A look that has failed while somebody watches. */
export interface Missed {
  readonly error: CliError;
  /** When what is shown was known, milliseconds since the epoch. */
  readonly knownAt: number;
}

const COLOURS: Readonly<Record<State, Parameters<typeof colorize>[0]>> = {
  expired: ['bold', 'red'],
  expiring: 'red',
  failing: 'yellow',
  silent: 'yellow',
  new: 'cyan',
  paused: 'gray',
  well: 'green',
};
const HEAD = ['CLUSTER', 'STATE', 'REACHED', 'SECRETS', 'DUE', 'EXPIRES IN', 'FAILURES', 'REASON'];
/** Of an error below the table. */
const ERROR_LINES = 2;

/** @param screen where all of it is to be seen at once */
export function overview(
  rows: readonly Row[],
  now: number,
  commands: ShellCommands,
  { screen, missed }: { readonly screen?: Screen | undefined; readonly missed?: Missed | undefined } = {},
): string {
  const foot = [summary(rows, commands), ...(missed ? [missedInWords(missed, now, screen)] : [])];
  if (rows.length === 0) return foot.join('\n');
  const cells = rows.map((row) => cellsOf(row, now));
  const size = screen && { columns: screen.columns };
  // In a narrow terminal every row would be broken for its reason's sake, which doctor tells, too.
  const isNarrow =
    screen &&
    table(HEAD, cells.slice(0, screen.rows), { ...size, lines: 2 })
      .split('\n')
      .some((line) => heightOf(line, screen.columns) > 1);
  const width = isNarrow ? HEAD.length - 1 : HEAD.length;
  const cut = (count: number) => {
    const more = rows.length - count;
    return [
      table(
        HEAD.slice(0, width),
        cells.slice(0, count).map((row) => row.slice(0, width)),
        { ...size, lines: 2 },
      ),
      ...(more > 0 ? [`and ${more} more`] : []),
      '',
      ...foot,
    ].join('\n');
  };
  if (!screen) return cut(rows.length);
  let count = Math.min(rows.length, screen.rows);
  // The last line of a terminal is the cursor's.
  while (count > 0 && heightOf(cut(count), screen.columns) >= screen.rows) count--;
  return cut(count);
}

function cellsOf(row: Row, now: number): string[] {
  const { name, state, managed, due, soonestExpiry, failures = 0, reachedAt, reason = '' } = row;
  return [
    name,
    colorize(COLOURS[state], state),
    reachedAt === undefined ? '-' : `${span(now - Date.parse(reachedAt))} ago`,
    managed === undefined ? '-' : String(managed),
    due === undefined ? '-' : String(due),
    soonestExpiry === undefined ? '-' : span(Date.parse(soonestExpiry) - now),
    failures === 0 ? '-' : colorize('yellow', String(failures)),
    failures === 0 ? '' : reason,
  ];
}

function summary(rows: readonly Row[], commands: ShellCommands): string {
  if (rows.length === 0) return `No cluster is registered.\n  → ${commands.cli(['register', 'NAME'])}`;
  // A place where clusters are looked for is none.
  const clusters = rows.filter(({ source }) => source !== 'eks-discovery');
  const needy = rows.filter(isNeedy);
  const [worst] = needy;
  const count = `${clusters.length} ${clusters.length === 1 ? 'cluster' : 'clusters'}`;
  if (!worst) return colorize('green', `${count}, none needs you.`);
  const places = needy.filter(({ source }) => source === 'eks-discovery').map(({ name }) => name);
  const inNeed = needy.length - places.length;
  const red = (text: string) => colorize(['bold', 'red'], text);
  return [
    `${count}, ${inNeed === 0 ? 'none needs you' : red(`${inNeed} ${inNeed === 1 ? 'needs' : 'need'} you`)}.`,
    ...(places.length > 0
      ? [`${red('Where clusters are looked for, something is wrong')}: ${places.join(', ')}.`]
      : []),
    `  → ${commands.cli(worst.source === 'eks-discovery' ? ['doctor'] : ['doctor', worst.name])}`,
  ].join('\n');
}

function missedInWords({ error, knownAt }: Missed, now: number, screen: Screen | undefined): string {
  const { message, hint } = error;
  const says = `This is from ${span(now - knownAt)} ago. The last look failed: ${message}`;
  return [
    colorize('red', screen ? truncate(says, ERROR_LINES * screen.columns) : says),
    ...(hint === undefined ? [] : [`  → ${hint}`]),
  ].join('\n');
}
