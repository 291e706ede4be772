// Formats the benchmarks' ratios.
import Table from 'cli-table3';

export interface Row {
  readonly what: string;
  readonly floor: string;
  readonly ours: string;
  /** Project over reference: 1 is equally fast. */
  readonly ratio?: number;
  readonly aim?: number;
}

/** Returns the median. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Formats rows as a table. */
export function table(rows: readonly Row[]): string {
  const head = ['what', 'floor', 'ours', 'ratio', 'aim'];
  const drawn = new Table({ head, style: { head: [], border: [] } });
  for (const { what, floor, ours, ratio, aim } of rows)
    drawn.push([what, floor, ours, ratio?.toFixed(2) ?? '', aim ?? '']);
  return drawn.toString();
}
