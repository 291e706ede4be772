// Draws a CloudWatch dashboard as SVG, from its widgets and the figures of an invented day: 42 clusters, of which one has
// been down for days, one is paused, and one has been failing for five hours.
import { METRIC } from '../../functions/refresher/settings.ts';
import { metricsOf, optionsOf, type Widget } from './dashboard-widgets.ts';

const HOURS = 24;
const CLUSTERS = 42;
/** The hour of the first failure. */
const FIRST_FAILURE = 19;
const COLUMN = 60;
const ROW = 44;
const GAP = 6;
const TITLE = 30;

type Series = readonly number[];

const each = (value: (hour: number) => number): Series =>
  Array.from({ length: HOURS }, (_, hour) => value(hour));
const failedRuns = (hour: number) => Math.max(0, hour - FIRST_FAILURE + 1);

/** The figures of the day, by the name of the metric. */
const DAY: Readonly<Record<string, Series>> = {
  [METRIC.clustersRegistered]: each((hour) => (hour < 9 ? CLUSTERS - 1 : CLUSTERS)),
  [METRIC.clustersFailed]: each((hour) => 1 + Math.min(failedRuns(hour), 1) + (hour === 5 ? 2 : 0)),
  [METRIC.clustersFailing]: each((hour) => (failedRuns(hour) > 1 ? 1 : 0)),
  [METRIC.clustersFailingForDays]: each(() => 1),
  [METRIC.clustersPaused]: each(() => 1),
  [METRIC.secretsManaged]: each((hour) => 418 + 2 * Math.floor(hour / 4)),
  [METRIC.secretsRefreshed]: each((hour) => 70 + ((hour * 37) % 11) - 5),
  [METRIC.secretsRefused]: each((hour) => (hour >= FIRST_FAILURE ? 9 : 0)),
  [METRIC.secretsNotAttempted]: each((hour) => (hour === 5 ? 6 : 0)),
  [METRIC.soonestExpiry]: each((hour) => (6.4 + ((hour * 13) % 7) / 10 - failedRuns(hour)) * 3600),
  Duration: each((hour) => 21_000 + ((hour * 7919) % 9000) + failedRuns(hour) * 2000),
  CallCount: each((hour) => 90 + ((hour * 31) % 50)),
};
const ECR_QUOTA = 500;

/** What the tables show, by their columns. */
const TABLES: readonly (readonly (readonly string[])[])[] = [
  [
    [
      'old-lab',
      '311',
      '12 days ago',
      '',
      'The API server could not be reached: connect ETIMEDOUT 10.8.0.4:6443',
    ],
    ['edge-hamburg', '5', '13:04', 'in 2.3 h', 'The webhook denied the request: no-token (ecr-denied)'],
  ],
  [
    ['14:04', 'edge-hamburg', 'failing'],
    ['17:06', 'edge-hamburg', 'expiring'],
  ],
  [['edge-hamburg', 'refused', '45', 'The webhook denied the request: no-token (ecr-denied)']],
  [],
];

/** The alarms that are on. */
const ON = ['ClustersFailed', 'SoonestExpiry'];

/** @returns the SVG document, the same for the same widgets */
export function drawDashboard(widgets: readonly Widget[]): string {
  const height = Math.max(...widgets.map(({ y, height }) => y + height)) * ROW;
  const tables = TABLES.values();
  const drawn = widgets.map((widget) => {
    const { x, y, width, properties } = widget;
    const box = { width: width * COLUMN - GAP, height: widget.height * ROW - GAP };
    const title = properties.title ? text(12, 20, properties.title, 'font-weight="bold"') : '';
    return `<g transform="translate(${x * COLUMN + GAP / 2} ${y * ROW + GAP / 2})">
<rect width="${box.width}" height="${box.height}" rx="4" fill="#fff" stroke="#d5dbdb"/>${title}
${contentOf(widget, box, tables)}
</g>`;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${24 * COLUMN} ${height}" font-family="sans-serif" font-size="13">
<title>CloudWatch dashboard of ECR Anywhere</title>
<rect width="100%" height="100%" fill="#f2f3f3"/>
${drawn.join('\n')}
</svg>
`;
}

interface Box {
  readonly width: number;
  readonly height: number;
}

function contentOf(widget: Widget, box: Box, tables: Iterator<readonly (readonly string[])[]>): string {
  const { type, properties } = widget;
  if (type === 'text') return headingOf(properties.markdown ?? '');
  if (type === 'alarm') return alarmsOf(properties.alarms ?? [], box);
  if (type === 'log') return tableOf(properties.query ?? '', tables.next().value ?? [], box);
  return properties.view === 'singleValue' ? numbersOf(widget, box) : graphOf(widget, box);
}

function headingOf(markdown: string): string {
  const [heading = '', sentence = ''] = markdown.replaceAll('`', '').split('\n');
  return `${text(12, 32, heading.replace('# ', ''), 'font-size="22" font-weight="bold"')}${text(12, 62, sentence)}`;
}

function alarmsOf(alarms: readonly string[], { width }: Box): string {
  const column = width / alarms.length;
  return alarms
    .map((id, index) => {
      const name = id.replace(/^RefresherAlarms|[0-9A-F]{8}$/g, '');
      const isOn = ON.some((on) => name.startsWith(on));
      return `<rect x="${round(index * column + 12)}" y="${TITLE + 8}" width="${round(column - 24)}" height="66" rx="4" fill="${isOn ? '#fdecea' : '#eaf6ea'}"/>
${text(index * column + 24, TITLE + 34, name, 'font-weight="bold"')}${text(index * column + 24, TITLE + 58, isOn ? 'In alarm' : 'OK', `fill="${isOn ? '#d13212' : '#1d8102'}"`)}`;
    })
    .join('\n');
}

function numbersOf(widget: Widget, { width, height }: Box): string {
  const shown = seriesOf(widget);
  const column = width / shown.length;
  return shown
    .map(({ label, color, values }, index) => {
      const value = values.at(-1) ?? 0;
      const line = pointsOf(
        values,
        { left: 12, top: 100, width: column - 24, height: height - 112 },
        Math.min(...values),
        Math.max(...values) + 1,
      );
      return `<g transform="translate(${round(index * column)} 0)">${text(12, TITLE + 16, label)}${text(12, TITLE + 52, String(Math.round(value * 10) / 10), `font-size="30" fill="${color}"`)}
<polyline points="${line}" fill="none" stroke="${color}"/></g>`;
    })
    .join('\n');
}

function graphOf(widget: Widget, { width, height }: Box): string {
  const { stacked, annotations } = widget.properties;
  const shown = seriesOf(widget);
  const area = { left: 48, top: TITLE + 8, width: width - 64, height: height - TITLE - 46 };
  const totals = each((hour) => shown.reduce((sum, { values }) => sum + (values[hour] ?? 0), 0));
  const lines = annotations?.horizontal ?? [];
  const all = [
    ...(stacked ? totals : shown.flatMap(({ values }) => values)),
    ...lines.map(({ value }) => value),
  ];
  const max = Math.max(...all, 1) * 1.05;
  const y = (value: number) => round(area.top + area.height * (1 - value / max));
  const base = each(() => 0).slice();
  const curves = shown.map(({ values, color }) => {
    if (!stacked)
      return `<polyline points="${pointsOf(values, area, 0, max)}" fill="none" stroke="${color}" stroke-width="2"/>`;
    const bottom = base.slice();
    for (const hour of base.keys()) base[hour] = (base[hour] ?? 0) + (values[hour] ?? 0);
    const lower = pointsOf(bottom, area, 0, max).split(' ').reverse().join(' ');
    return `<polygon points="${pointsOf(base, area, 0, max)} ${lower}" fill="${color}" fill-opacity="0.7"/>`;
  });
  const marks = lines.map(
    ({ value, label, color }) =>
      `<line x1="${area.left}" x2="${area.left + area.width}" y1="${y(value)}" y2="${y(value)}" stroke="${color}" stroke-dasharray="6 4"/>${text(area.left + 4, y(value) - 4, label, `fill="${color}" font-size="11"`)}`,
  );
  const axis = [0, max / 2.1, max / 1.05].map((value) =>
    text(
      8,
      y(value) + 4,
      value < 10 ? value.toFixed(1) : String(Math.round(value)),
      'fill="#687078" font-size="11"',
    ),
  );
  const legend = shown.reduce(
    ({ x, out }, { label, color }) => ({
      x: x + label.length * 6 + 26,
      out: `${out}<rect x="${round(x)}" y="${height - 22}" width="12" height="12" fill="${color}"/>${text(x + 17, height - 12, label, 'font-size="11"')}`,
    }),
    { x: area.left, out: '' },
  );
  return [...curves, ...marks, ...axis, legend.out].join('\n');
}

function tableOf(query: string, rows: readonly (readonly string[])[], { width }: Box): string {
  const columns = columnsOf(query);
  const wide = columns.indexOf('why');
  const narrow = Math.min(wide < 0 ? width / columns.length : 150, width / columns.length);
  const left = (index: number) => 12 + index * narrow;
  const head = columns.map((name, index) =>
    text(left(index), TITLE + 20, name, 'font-weight="bold" fill="#687078"'),
  );
  const body = rows.flatMap((row, line) =>
    row.map((cell, index) =>
      text(left(index), TITLE + 46 + line * 26, cell.slice(0, Math.floor((width - left(index)) / 7))),
    ),
  );
  const none = rows.length === 0 ? [text(12, TITLE + 46, 'No results', 'fill="#687078"')] : [];
  return [...head, ...body, ...none].join('\n');
}

/** The columns that the console shows: of `stats … by`, the groups first; else those of `display`. */
export function columnsOf(query: string): string[] {
  const display = /\| display (.*)/.exec(query)?.[1];
  if (display !== undefined) return display.split(', ');
  const [, figures = '', groups = ''] = /stats (.*) by (.*)/.exec(query) ?? [];
  const hidden = /\bfilter (\w+) =(?!.*\n.*stats)/.exec(query.split('stats')[1] ?? '')?.[1];
  return [...groups.split(', '), ...[...figures.matchAll(/ as (\w+)/g)].map(([, name = '']) => name)].filter(
    (name) => name !== hidden,
  );
}

/** The visible metrics and expressions of a widget, with their values of the day. */
function seriesOf(widget: Widget): { label: string; color: string; values: Series }[] {
  const rows = widget.properties.metrics ?? [];
  const named = new Map(
    metricsOf(widget).flatMap(({ name, row }) => {
      const { id } = optionsOf(row);
      return id === undefined ? [] : [[id, DAY[name] ?? each(() => 0)] as const];
    }),
  );
  return rows.flatMap((row, index) => {
    const { label = '', color = COLORS[index % COLORS.length] ?? '', visible, expression } = optionsOf(row);
    if (visible === false) return [];
    const values =
      expression === undefined
        ? (DAY[String(row[1])] ?? each(() => 0))
        : each((hour) => evaluate(expression, named, hour));
    return [{ label, color, values }];
  });
}

const COLORS = ['#1f77b4', '#17becf', '#e377c2', '#bcbd22', '#9467bd', '#8c564b'];

/** Evaluates metric math at one hour. @throws Error if it names an id that the widget does not have */
export function evaluate(expression: string, series: ReadonlyMap<string, Series>, hour: number): number {
  const names = [...series.keys()];
  const values = names.map((name) => series.get(name)?.[hour] ?? 0);
  const math = new Function('PERIOD', 'SERVICE_QUOTA', ...names, `return ${expression}`);
  return math(
    () => 300,
    () => ECR_QUOTA,
    ...values,
  );
}

function pointsOf(
  values: Series,
  area: { left: number; top: number; width: number; height: number },
  min: number,
  max: number,
): string {
  return values
    .map((value, hour) => {
      const x = area.left + (area.width * hour) / (HOURS - 1);
      const y = area.top + area.height * (1 - (value - min) / (max - min));
      return `${round(x)},${round(y)}`;
    })
    .join(' ');
}

function text(x: number, y: number, content: string, attributes = ''): string {
  const escaped = content.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;');
  return `<text x="${round(x)}" y="${round(y)}" ${attributes}>${escaped}</text>`;
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
