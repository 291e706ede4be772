// How the benchmarks show their ratios.
import Table from 'cli-table3';

export interface Row {
  readonly what: string;
  readonly floor: string;
  readonly ours: string;
  /** Ours over the floor: 1 is as fast. */
  readonly ratio?: number;
  readonly aim?: number;
}

/** The middle one. */
export function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;
}

/** Rows as a table. */
export function table(rows: readonly Row[]): string {
  const head = ['what', 'floor', 'ours', 'ratio', 'aim'];
  const drawn = new Table({ head, style: { head: [], border: [] } });
  for (const { what, floor, ours, ratio, aim } of rows)
    drawn.push([what, floor, ours, ratio?.toFixed(2) ?? '', aim ?? '']);
  return drawn.toString();
}
