// The table of `status`: all clusters, the most urgent first, cut to what fits a terminal. Pure: `now` is an argument.
import type { ClusterStatus, Subscribers } from '../../../contract/refresher-api.ts';
import { listSubscriptions, notDelivered } from '../../aws/subscribers.ts';
import { formatDuration } from '../../output/duration.ts';
import type { CliError } from '../../output/errors.ts';
import { colorize } from '../../output/io.ts';
import type { ShellCommands } from '../../output/shell-commands.ts';
import { heightOf, table, truncate } from '../../output/table.ts';
import { ATTENTION_STATES, byUrgency, type State, stateOf } from './urgency.ts';

export type Row = ClusterStatus & { readonly state: State };

/** The clusters and discovery targets, the most urgent first. */
export function rowsOf(all: readonly ClusterStatus[], now: number): Row[] {
  return all.toSorted(byUrgency(now)).map((one) => ({ state: stateOf(one, now), ...one }));
}

export function needsAttention({ state }: Row): boolean {
  return ATTENTION_STATES.has(state);
}

/** The size of a terminal, in characters. */
export interface Screen {
  readonly rows: number;
  readonly columns: number;
}

/** An update of `--watch` that failed. */
export interface FailedUpdate {
  readonly error: CliError;
  /** Time of the last update that succeeded, in milliseconds since the epoch. */
  readonly lastUpdate: number;
}

export interface OverviewOptions {
  /** The terminal that the whole text has to fit; undefined: nothing is cut. */
  readonly screen?: Screen | undefined;
  readonly failed?: FailedUpdate | undefined;
  /** Adds the columns SOURCE, TOKEN EXPIRES and CONTEXT. */
  readonly isWide?: boolean;
  /** Undefined if they are unknown. */
  readonly subscribers?: Subscribers | undefined;
}

const COLOURS: Readonly<Record<State, Parameters<typeof colorize>[0]>> = {
  expired: ['bold', 'red'],
  expiring: 'red',
  failing: 'yellow',
  failed: 'yellow',
  silent: 'yellow',
  incomplete: 'yellow',
  new: 'cyan',
  paused: 'gray',
  healthy: 'green',
};

interface Column {
  readonly head: string;
  readonly isWide?: true;
  readonly cell: (row: Row, now: number) => string;
}

const SOURCES = { registered: 'registered', eks: 'EKS tag', 'eks-discovery': 'EKS discovery' } as const;

/** The last column is the one that a terminal may cut. */
const COLUMNS: readonly Column[] = [
  { head: 'CLUSTER', cell: ({ name }) => name },
  { head: 'STATE', cell: ({ state }) => colorize(COLOURS[state], state) },
  { head: 'SOURCE', isWide: true, cell: ({ source }) => SOURCES[source] },
  {
    head: 'REACHED',
    cell: ({ reachedAt }, now) =>
      reachedAt === undefined ? '-' : `${formatDuration(now - Date.parse(reachedAt))} ago`,
  },
  { head: 'SECRETS', cell: ({ managed }) => (managed === undefined ? '-' : String(managed)) },
  { head: 'DUE', cell: ({ due }) => (due === undefined ? '-' : String(due)) },
  {
    head: 'EXPIRES IN',
    cell: ({ soonestExpiry }, now) =>
      soonestExpiry === undefined ? '-' : formatDuration(Date.parse(soonestExpiry) - now),
  },
  {
    head: 'FAILURES',
    cell: ({ failures = 0 }) => (failures === 0 ? '-' : colorize('yellow', String(failures))),
  },
  {
    head: 'TOKEN EXPIRES',
    isWide: true,
    cell: ({ tokenExpiresAt = '-' }) => tokenExpiresAt.replace(/\.\d+Z$/, 'Z'),
  },
  { head: 'CONTEXT', isWide: true, cell: ({ context = '-' }) => context },
  {
    head: 'REASON',
    cell: ({ failures = 0, reason = '', isRegistering }) =>
      isRegistering
        ? 'register did not complete: repeat it, or unregister the cluster'
        : failures === 0
          ? ''
          : reason,
  },
];
/** Lines of a terminal that the error of a failed update may take. */
const ERROR_LINES = 2;

/** The table, with a summary below it. */
export function overview(
  rows: readonly Row[],
  now: number,
  commands: ShellCommands,
  { screen, failed, isWide = false, subscribers }: OverviewOptions = {},
): string {
  const foot = [
    summary(rows, commands),
    ...(subscribers?.confirmed === 0 ? [formatNotDelivered(subscribers, commands)] : []),
    ...(failed ? [formatFailedUpdate(failed, now, screen)] : []),
  ];
  if (rows.length === 0) return foot.join('\n');
  const columns = COLUMNS.filter((column) => isWide || !column.isWide);
  const head = columns.map((column) => column.head);
  const cells = rows.map((row) => columns.map(({ cell }) => cell(row, now)));
  const size = screen && { columns: screen.columns };
  // In a narrow terminal the reasons would wrap every row. They are left out there; doctor prints them, too.
  const isNarrow =
    screen &&
    table(head, cells.slice(0, screen.rows), { ...size, lines: 2 })
      .split('\n')
      .some((line) => heightOf(line, screen.columns) > 1);
  const width = isNarrow ? head.length - 1 : head.length;
  const cut = (count: number) => {
    const more = rows.length - count;
    return [
      table(
        head.slice(0, width),
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
  // The cursor takes the last line of the terminal.
  while (count > 0 && heightOf(cut(count), screen.columns) >= screen.rows) count--;
  return cut(count);
}

function summary(rows: readonly Row[], commands: ShellCommands): string {
  if (rows.length === 0) return `No cluster is registered.\n  → ${commands.cli(['register', 'NAME'])}`;
  // A discovery target is not a cluster.
  const clusters = rows.filter(({ source }) => source !== 'eks-discovery');
  const urgent = rows.filter(needsAttention);
  const [first] = urgent;
  const count = `${clusters.length} ${clusters.length === 1 ? 'cluster' : 'clusters'}`;
  if (!first) return colorize('green', `${count}, none needs attention.`);
  const targets = urgent.filter(({ source }) => source === 'eks-discovery').map(({ name }) => name);
  const others = urgent.length - targets.length;
  const red = (text: string) => colorize(['bold', 'red'], text);
  return [
    `${count}, ${others === 0 ? 'none needs attention' : red(`${others} ${others === 1 ? 'needs' : 'need'} attention`)}.`,
    ...(targets.length > 0 ? [`${red('EKS discovery fails')}: ${targets.join(', ')}.`] : []),
    `  → ${commands.cli(firstCommand(first))}`,
  ].join('\n');
}

function formatNotDelivered(subscribers: Subscribers, commands: ShellCommands): string {
  return [
    colorize('yellow', notDelivered(subscribers)),
    `  → ${commands.aws(listSubscriptions(subscribers))}`,
  ].join('\n');
}

function firstCommand({ source, state, name }: Row): string[] {
  if (source === 'eks-discovery') return ['doctor'];
  return [state === 'incomplete' ? 'register' : 'doctor', name];
}

function formatFailedUpdate(
  { error, lastUpdate }: FailedUpdate,
  now: number,
  screen: Screen | undefined,
): string {
  const { message, hint } = error;
  const text = `This table is ${formatDuration(now - lastUpdate)} old. The last update failed: ${message}`;
  return [
    colorize('red', screen ? truncate(text, ERROR_LINES * screen.columns) : text),
    ...(hint === undefined ? [] : [`  → ${hint}`]),
  ].join('\n');
}
