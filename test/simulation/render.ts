// Writes the result of a simulation as text: a table, and a picture of each figure over time.
import Table from 'cli-table3';

/** A table without a frame's colours. */
export function renderTable(
  head: readonly string[],
  rows: readonly (readonly (string | number)[])[],
): string {
  const drawn = new Table({ head: [...head], style: { head: [], border: [] } });
  for (const row of rows) drawn.push([...row]);
  return drawn.toString();
}

const EIGHTHS = ' ▁▂▃▄▅▆▇█';
const ROWS = 6;

/**
 * A bar chart: one column for each value.
 *
 * @param values not negative
 * @param unit of the values, for the title
 */
export function renderChart(title: string, values: readonly number[], unit: string): string {
  const top = Math.max(...values, Number.MIN_VALUE);
  const label = (value: number) => formatFigure(value).padStart(7);
  const lines = Array.from({ length: ROWS }, (_, index) => {
    const row = ROWS - 1 - index;
    const cells = values.map((value) => {
      const eighths = Math.round((value / top) * ROWS * 8) - row * 8;
      return EIGHTHS[Math.min(Math.max(eighths, 0), 8)];
    });
    const scale = row === ROWS - 1 ? label(top) : ' '.repeat(7);
    return `${scale} │${cells.join('')}`;
  });
  return [`${title} (${unit})`, ...lines, `${label(0)} └${'─'.repeat(values.length)}`].join('\n');
}

/** A figure with few digits. */
export function formatFigure(value: number): string {
  const digits = Math.abs(value) >= 100 || Number.isInteger(value) ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString('en-US', { maximumFractionDigits: digits, minimumFractionDigits: 0 });
}
